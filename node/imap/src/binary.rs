//! Parts of messages without their transfer encoding (RFC 3516). A part is read twice, in pieces: its decoded length is told
//! before its bytes.

use std::ops::Range;

use mailraft_mailbox::api::FetchedContent;
use mailraft_message::body_search::PIECE_MAX_BYTES;
use mailraft_message::transfer::{self, Decoding};
use mailraft_message::{Body, Part};
use mailraft_protocol::{BodyReader, Out, Output};

use crate::outcome::Done;
use crate::print;
use crate::section::{Section, SectionText, of_message};
use crate::store::Mailstore;

/// What a part becomes.
enum Decoded<'p> {
    /// It is read from the message.
    Read(Range<u64>, &'p [u8]),
    /// It is inside an encoded message, which is short.
    There(Vec<u8>),
    /// There is no such part.
    None,
    /// The message is no more.
    Gone,
}

/// Whether the message is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Whole,
    Gone,
}

/// The decoded part as a literal.
pub(crate) async fn tell_part<S: Mailstore, O: Output>(
    path: &[u32],
    partial: Option<(u64, u64)>,
    (content, root): (&FetchedContent, &Part),
    bodies: &mut BodyReader,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<Told, Done> {
    let (range, encoding) = match decoded(path, (content, root), bodies, store).await? {
        Decoded::Read(range, encoding) => (range, encoding),
        Decoded::There(bytes) => {
            let wanted = window(partial, bytes.len() as u64);
            literal(&bytes[wanted.start as usize..wanted.end as usize], out);
            return Ok(Told::Whole);
        }
        Decoded::None => {
            out.text("NIL");
            return Ok(Told::Whole);
        }
        Decoded::Gone => return Ok(Told::Gone),
    };
    let (mut size, mut has_nul) = (0, false);
    let mut wanted = partial.map_or(0..u64::MAX, |(from, length)| from..from.saturating_add(length));
    let mut counting = Reading::of(range.clone(), encoding)?;
    loop {
        match counting.next(content, bodies, store).await? {
            Next::Piece(piece) => {
                has_nul |= within(size, &piece, &wanted).contains(&0);
                size += piece.len() as u64;
            }
            Next::End => break,
            Next::Gone => return Ok(Told::Gone),
        }
    }
    wanted = window(partial, size);
    let mark = if has_nul { "~" } else { "" };
    out.text(&format!("{mark}{{{}}}\r\n", wanted.end - wanted.start));
    let mut at = 0;
    let mut telling = Reading::of(range, encoding)?;
    while at < wanted.end && !out.is_gone() {
        match telling.next(content, bodies, store).await? {
            Next::Piece(piece) => {
                out.bytes.extend_from_slice(within(at, &piece, &wanted));
                at += piece.len() as u64;
                out.pass_on().await;
            }
            Next::End | Next::Gone => return Ok(Told::Gone),
        }
    }
    Ok(Told::Whole)
}

/// The decoded length of a part; None if the message is no more.
pub(crate) async fn size<S: Mailstore>(
    path: &[u32],
    (content, root): (&FetchedContent, &Part),
    bodies: &mut BodyReader,
    store: &mut S,
) -> Result<Option<u64>, Done> {
    match decoded(path, (content, root), bodies, store).await? {
        Decoded::Read(range, encoding) => {
            let (mut reading, mut size) = (Reading::of(range, encoding)?, 0);
            loop {
                match reading.next(content, bodies, store).await? {
                    Next::Piece(piece) => size += piece.len() as u64,
                    Next::End => return Ok(Some(size)),
                    Next::Gone => return Ok(None),
                }
            }
        }
        Decoded::There(bytes) => Ok(Some(bytes.len() as u64)),
        Decoded::None => Ok(Some(0)),
        Decoded::Gone => Ok(None),
    }
}

async fn decoded<'p, S: Mailstore>(
    path: &[u32],
    (content, root): (&FetchedContent, &'p Part),
    bodies: &mut BodyReader,
    store: &mut S,
) -> Result<Decoded<'p>, Done> {
    if let Some((outer, rest)) = root.first_encoded(path)
        && let (Some(inside), false) = (outer.message(), rest.is_empty())
    {
        let Some(encoded) = bodies.all(content, outer.body.clone(), store).await? else { return Ok(Decoded::Gone) };
        let message = transfer::decode(&outer.encoding, &encoded);
        let section = Section { path: rest.to_vec(), text: SectionText::All };
        let Some((part, bytes)) = inside.find(rest).zip(of_message(&section, inside, &message)) else {
            return Ok(Decoded::None);
        };
        let mut decoding = Decoding::of(encoding_of(part)).ok_or_else(unknown_encoding)?;
        return Ok(Decoded::There(decoding.take(&bytes)));
    }
    Ok(match root.find(path) {
        // Of the whole message only parts are encoded.
        Some(_) if path.is_empty() => Decoded::Read(root.header.start..root.body.end, b""),
        Some(part) => Decoded::Read(part.body.clone(), encoding_of(part)),
        None => Decoded::None,
    })
}

/// Of several parts each has its own.
fn encoding_of(part: &Part) -> &[u8] {
    match part.kind {
        Body::Multipart(_) => b"",
        Body::Leaf | Body::Text | Body::Message(_) => &part.encoding,
    }
}

fn unknown_encoding() -> Done {
    Done::No("[UNKNOWN-CTE] nobody here knows what this part's transfer encoding means".into())
}

/// A part that is read.
struct Reading {
    left: Range<u64>,
    decoding: Decoding,
}

/// What comes next of it, decoded.
enum Next {
    Piece(Vec<u8>),
    End,
    /// The message is no more.
    Gone,
}

impl Reading {
    fn of(range: Range<u64>, encoding: &[u8]) -> Result<Self, Done> {
        Ok(Reading { left: range, decoding: Decoding::of(encoding).ok_or_else(unknown_encoding)? })
    }

    async fn next<S: Mailstore>(
        &mut self,
        content: &FetchedContent,
        bodies: &mut BodyReader,
        store: &mut S,
    ) -> Result<Next, Done> {
        if self.left.is_empty() {
            return Ok(Next::End);
        }
        store.breathe().await?;
        let Some(piece) = bodies.piece(content, self.left.clone(), store).await? else { return Ok(Next::Gone) };
        let piece = &piece[..piece.len().min(PIECE_MAX_BYTES)];
        self.left.start += piece.len() as u64;
        Ok(Next::Piece(self.decoding.take(piece)))
    }
}

/// What is wanted of so many bytes.
fn window(partial: Option<(u64, u64)>, size: u64) -> Range<u64> {
    let Some((from, length)) = partial else { return 0..size };
    let start = from.min(size);
    start..start.saturating_add(length).min(size)
}

/// Of a piece that stands here, what is wanted.
fn within<'b>(at: u64, piece: &'b [u8], wanted: &Range<u64>) -> &'b [u8] {
    let of = |place: u64| usize::try_from(place.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
    &piece[of(wanted.start)..of(wanted.end).max(of(wanted.start))]
}

fn literal<O: Output>(bytes: &[u8], out: &mut Out<O>) {
    if bytes.contains(&0) {
        out.text("~");
    }
    print::literal(&mut out.bytes, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_cut_to_what_is_wanted() {
        assert_eq!(within(10, b"abcd", &(0..u64::MAX)), b"abcd");
        assert_eq!(within(10, b"abcd", &(11..13)), b"bc");
        assert_eq!(within(10, b"abcd", &(2..10)), b"");
        assert_eq!(within(10, b"abcd", &(20..30)), b"");
        assert_eq!((window(Some((3, 9)), 5), window(Some((9, 1)), 5), window(None, 5)), (3..5, 5..5, 0..5));
    }
}
