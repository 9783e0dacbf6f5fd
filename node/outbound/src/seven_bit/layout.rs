//! Where the parts of a message stand, one after the other, from its first octet to its last.

use std::collections::BTreeSet;

use mailraft_message::{Body, Part};

/// A stretch of a message; it begins where the one before ends.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Behind its last octet.
    pub end: u64,
    /// What it is.
    pub what: What,
}

/// What a stretch of a message is.
#[derive(Clone, Debug)]
pub enum What {
    /// A header, with its closing empty line where it has one.
    Header(Header),
    /// The body of the part whose header is the stretch before.
    Body(Leaf),
    /// What is in no part: delimiter lines, and text for programs that don't know MIME.
    Between,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose.
    pub of: HeaderOf,
    /// It says that octets above 127 may follow. Of what has parts (RFC 2045, section 6.4: they are encoded, it never is) `binary`
    /// says so as well as `8bit`.
    pub says_eight_bits: bool,
}

/// Whose header it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderOf {
    /// The whole message.
    Whole,
    /// A message in it.
    Message,
    /// A part.
    Part,
}

/// A body that is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// What it is.
    pub kind: LeafKind,
    /// It is signed as it is, with others or alone (multipart/signed, RFC 1847).
    pub is_signed: bool,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafKind {
    /// Text.
    Text,
    /// Anything that may be encoded.
    Octets,
    /// It is encoded, or nobody knows how.
    Encoded,
    /// It belongs to a type that is never encoded (RFC 2046, section 5.2; RFC 2045, section 6.4).
    Unencodable,
    /// All of a multipart that has none of its parts.
    NoParts,
}

/// The boundaries of all parts of a message, as far as they have one.
pub fn boundaries(root: &Part) -> BTreeSet<Vec<u8>> {
    let mut out = BTreeSet::new();
    let mut open = vec![root];
    while let Some(part) = open.pop() {
        match &part.kind {
            Body::Multipart(parts) => {
                out.extend(part.parameter("boundary").map(<[u8]>::to_vec));
                open.extend(parts);
            }
            Body::Message(nested) => open.push(&nested.1),
            Body::Leaf | Body::Text => {}
        }
    }
    out
}

/// The stretches of a message with this structure; what stands before `begin` is no part of it. As many as its parts allow, of which
/// it has at most [`mailraft_message::budget::PARTS_MAX`].
pub fn segments(root: &Part, begin: u64) -> Vec<Segment> {
    let mut out = Segments { all: Vec::new(), end: begin };
    out.part(root, HeaderOf::Whole, false);
    out.all
}

struct Segments {
    all: Vec<Segment>,
    end: u64,
}

impl Segments {
    /// As deep as parts may be nested.
    fn part(&mut self, part: &Part, of: HeaderOf, is_signed: bool) {
        self.between(part.header.start);
        let is_composite = match &part.kind {
            Body::Multipart(_) => true,
            Body::Message(_) => !part.is_encoded_message(),
            Body::Leaf | Body::Text => false,
        };
        let says = |what: &str| part.encoding.eq_ignore_ascii_case(what.as_bytes());
        let says_eight_bits = says("8bit") || is_composite && says("binary");
        self.push(part.header.end, What::Header(Header { of, says_eight_bits }));
        let body = |kind| What::Body(Leaf { kind, is_signed });
        match &part.kind {
            Body::Multipart(parts) => {
                let is_signed = is_signed || part.subtype.eq_ignore_ascii_case(b"signed");
                match parts.as_slice() {
                    // What stands for parts that are not there has the whole body, and no delimiter before it.
                    [only] if only.header.start == part.body.start => {
                        self.push(part.body.end, What::Body(Leaf { kind: LeafKind::NoParts, is_signed }));
                    }
                    parts => parts.iter().for_each(|inner| self.part(inner, HeaderOf::Part, is_signed)),
                }
                self.between(part.body.end);
            }
            Body::Message(nested) if is_composite => {
                self.part(&nested.1, HeaderOf::Message, is_signed);
                self.between(part.body.end);
            }
            Body::Message(_) => self.push(part.body.end, body(LeafKind::Encoded)),
            Body::Leaf | Body::Text => self.push(part.body.end, body(leaf_kind(part))),
        }
    }

    fn between(&mut self, end: u64) {
        if end > self.end {
            self.push(end, What::Between);
        }
    }

    fn push(&mut self, end: u64, what: What) {
        // The message's own header may begin before `begin`; nothing else ends before where it begins.
        self.end = self.end.max(end);
        self.all.push(Segment { end: self.end, what });
    }
}

fn leaf_kind(part: &Part) -> LeafKind {
    let is = |media: &str| part.media_type.eq_ignore_ascii_case(media.as_bytes());
    let plain = [b"".as_slice(), b"7bit", b"8bit", b"binary"];
    if !plain.iter().any(|encoding| part.encoding.eq_ignore_ascii_case(encoding)) {
        return LeafKind::Encoded;
    }
    // Of these types the global ones alone may be encoded (RFC 6532, section 3.7).
    let is_global = part.subtype.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"global"));
    match () {
        () if is("message") && !is_global => LeafKind::Unencodable,
        () if is("text") => LeafKind::Text,
        () => LeafKind::Octets,
    }
}
