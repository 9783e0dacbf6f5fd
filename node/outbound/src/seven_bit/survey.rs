//! The first reading: which parts of a message have octets above 127, and what is to be done about it.

use std::collections::BTreeSet;

use mailraft_message::Part;

use super::coding::{Coding, Encoding, base64_bytes};
use super::delimiters::Delimiters;
use super::layout::{Header, HeaderOf, Leaf, LeafKind, Segment, What, boundaries, segments};
use super::walk::{Cut, Walk};

/// How much is encoded at once to see how long it becomes, in bytes: six times that is kept meanwhile.
const TRIED_BYTES: usize = 4 << 10;

/// Why a message has no 7-bit form that means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSevenBit {
    /// A header field has octets above 127 (RFC 6532).
    #[error("a field of a header has octets above 127 itself")]
    HeaderField,
    /// RFC 1847, section 2.1: what is signed goes as it is.
    #[error("they are in what is signed (multipart/signed), and the signature would not hold")]
    Signed,
    /// It has an encoding, and octets that this never has.
    #[error("they are in a part that says it is encoded")]
    Encoded,
    /// It is of a type that is never encoded.
    #[error("they are in a part of a type that is never encoded")]
    Unencodable,
    /// It says that it has parts.
    #[error("they are in a multipart that has none of its parts")]
    NoParts,
    /// Where a boundary's line stands behind the last part, some programs see one more.
    #[error("they are behind the last part of a multipart, where a line begins what some programs take for one more")]
    BehindLast,
    /// Its structure is another message's.
    #[error("its parts are not where they were found when it came")]
    Misfit,
}

/// What becomes of each stretch of a message.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) begin: u64,
    pub(super) steps: Vec<Step>,
}

/// A stretch and what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) end: u64,
    pub(super) what: Becomes,
}

/// What becomes of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// A header whose Content-Transfer-Encoding becomes this.
    Header(HeaderOf, Label),
    /// It stays as it is.
    Same,
    /// It is encoded.
    Encoded(Coding),
    /// It is read by no program; octets above 127 become a sign.
    Between,
}

/// What a header says of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// That there is none: what says something else becomes `7bit`.
    None { says_eight_bits: bool },
    /// This one; where the header has no Content-Type, that it is text in this charset.
    Of(Coding, &'static str),
}

/// Reads a message.
#[derive(Debug)]
pub struct Survey {
    begin: u64,
    segments: Vec<Segment>,
    seen: Vec<Seen>,
    walk: Walk,
    boundaries: BTreeSet<Vec<u8>>,
    /// Of the stretch that is read.
    quoted: Option<Encoding>,
    delimiters: Delimiters,
}

/// What a stretch has.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    octets: u64,
    is_not_ascii: bool,
    /// How long text becomes in quoted-printable.
    quoted_octets: u64,
    has_part: bool,
    utf8: Utf8,
}

impl Survey {
    /// Of a message with this structure, of which nothing is sent that stands before `begin`.
    pub fn of(structure: &Part, begin: u64) -> Self {
        let segments = segments(structure, begin);
        let seen = vec![Seen::default(); segments.len()];
        let (boundaries, walk) = (boundaries(structure), Walk::from(begin));
        Survey { begin, segments, seen, walk, boundaries, quoted: None, delimiters: Delimiters::default() }
    }

    /// Reads the next piece, the first from `begin` on.
    pub fn piece(&mut self, piece: &[u8]) {
        let Survey { segments, seen, walk, boundaries, quoted, delimiters, .. } = self;
        let mut tried = Vec::new();
        walk.piece(
            |at| segments.get(at).map(|segment| segment.end),
            piece,
            |at, cut| match cut {
                Cut::Octets(octets) => {
                    let of = &mut seen[at];
                    of.octets += octets.len() as u64;
                    of.is_not_ascii |= !octets.is_ascii();
                    match segments[at].what {
                        What::Header(_) => {}
                        What::Between => delimiters.piece(octets, boundaries),
                        What::Body(Leaf { kind: LeafKind::Text, .. }) => {
                            of.utf8.push(octets);
                            let quoted = quoted.get_or_insert_with(|| Encoding::new(Coding::QuotedPrintable));
                            for octets in octets.chunks(TRIED_BYTES) {
                                quoted.piece(octets, &mut tried);
                                of.quoted_octets += tried.len() as u64;
                                tried.clear();
                            }
                        }
                        What::Body(_) => of.utf8.push(octets),
                    }
                }
                Cut::End => {
                    seen[at].has_part = std::mem::take(delimiters).has_part();
                    *quoted = None;
                }
            },
        );
    }

    /// What becomes of it, when all of it was read.
    ///
    /// # Errors
    /// If it has no 7-bit form.
    pub fn finish(self) -> Result<Plan, NotSevenBit> {
        if !self.walk.is_at_end(self.segments.len()) {
            return Err(NotSevenBit::Misfit);
        }
        let mut steps: Vec<Step> = Vec::with_capacity(self.segments.len());
        for (segment, seen) in self.segments.into_iter().zip(self.seen) {
            let is_ascii = !seen.is_not_ascii;
            let what = match segment.what {
                What::Header(_) if !is_ascii => return Err(NotSevenBit::HeaderField),
                What::Header(Header { of, says_eight_bits }) => Becomes::Header(of, Label::None { says_eight_bits }),
                What::Between if seen.has_part => return Err(NotSevenBit::BehindLast),
                What::Between => Becomes::Between,
                What::Body(_) if is_ascii => Becomes::Same,
                What::Body(leaf) => {
                    let coding = coding(leaf, &seen)?;
                    // RFC 1428, section 4: what nobody said is not known, unless it shows.
                    let charset = if seen.utf8.holds() { "utf-8" } else { "unknown-8bit" };
                    if let Some(Step { what: Becomes::Header(_, label), .. }) = steps.last_mut() {
                        *label = Label::Of(coding, charset);
                    }
                    Becomes::Encoded(coding)
                }
            };
            steps.push(Step { end: segment.end, what });
        }
        Ok(Plan { begin: self.begin, steps })
    }
}

/// How a body with octets above 127 is encoded.
fn coding(Leaf { kind, is_signed }: Leaf, seen: &Seen) -> Result<Coding, NotSevenBit> {
    if is_signed {
        return Err(NotSevenBit::Signed);
    }
    match kind {
        LeafKind::Text if seen.quoted_octets <= base64_bytes(seen.octets) => Ok(Coding::QuotedPrintable),
        LeafKind::Text | LeafKind::Octets => Ok(Coding::Base64),
        LeafKind::Encoded => Err(NotSevenBit::Encoded),
        LeafKind::Unencodable => Err(NotSevenBit::Unencodable),
        LeafKind::NoParts => Err(NotSevenBit::NoParts),
    }
}

/// Whether what comes in pieces is UTF-8.
#[derive(Clone, Copy, Debug, Default)]
struct Utf8 {
    /// A letter whose end has not come.
    begun: [u8; 4],
    length: usize,
    is_broken: bool,
}

impl Utf8 {
    fn push(&mut self, mut octets: &[u8]) {
        while self.length > 0
            && !self.is_broken
            && let Some((first, rest)) = octets.split_first()
        {
            self.begun[self.length] = *first;
            self.length += 1;
            octets = rest;
            match std::str::from_utf8(&self.begun[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) => self.is_broken = error.error_len().is_some(),
            }
        }
        if self.is_broken {
            return;
        }
        if let Err(error) = std::str::from_utf8(octets) {
            let rest = &octets[error.valid_up_to()..];
            self.is_broken = error.error_len().is_some();
            if !self.is_broken {
                // At most three octets: four are a letter, or none.
                self.length = rest.len();
                self.begun[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    fn holds(&self) -> bool {
        !self.is_broken && self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn utf8_is_seen_in_pieces(
            pieces in prop::collection::vec(prop_oneof![
                "\\PC{0,3}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..3),
            ], 0..6),
            size in 1usize..5,
        ) {
            let whole = pieces.concat();
            let mut utf8 = Utf8::default();
            whole.chunks(size).for_each(|piece| utf8.push(piece));
            prop_assert_eq!(utf8.holds(), std::str::from_utf8(&whole).is_ok());
        }
    }
}
