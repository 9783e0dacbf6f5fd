//! The MIME tree of a message (RFC 2045, 2046) with the byte range of every part.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::header::{cut, fields, header_len, line_end, trim, unfold};

/// Parts nested deeper are opaque.
pub const DEPTH_MAX: usize = 50;
/// A message's parts beyond these are one opaque part.
pub const PARTS_MAX: usize = 1_000;
/// Parameters of one field that are kept.
pub const PARAMETERS_MAX: usize = 100;
/// What is kept of one field's parameters together, in bytes.
pub const PARAMETERS_MAX_BYTES: usize = 8 << 10;
/// What is kept of any other text, in bytes.
pub const VALUE_MAX_BYTES: usize = 1 << 10;
/// No encoded tree is longer, in bytes: it shares an entry with the header block and the body. Parts for which
/// no room is left are one opaque part.
pub const STRUCTURE_MAX_BYTES: usize = 256 << 10;
/// Looking for boundaries may read the message so many times; what is nested deeper is opaque. Else fifty
/// levels around a large attachment would cost fifty times as much.
pub const SCANS_MAX: usize = 8;
/// Messages up to this size may be read [`DEPTH_MAX`] times, in bytes.
const SCANNED_FREELY_BYTES: usize = 64 << 10;
/// What a part takes beside its texts, in bytes, at most.
const PART_BYTES: usize = 128;
/// The length of `application` and `octet-stream`, in bytes: what any part may turn out to be.
const OPAQUE_TYPE_BYTES: usize = 23;
/// What a parameter takes beside its texts, in bytes, at most.
const PARAMETER_BYTES: usize = 10;
/// What a part without texts of its own takes, in bytes, at most: an opaque one, or plain text by default.
const FALLBACK_BYTES: usize = 192;

/// Names and values, undecoded.
pub type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// A part; the whole message is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where its header stands, with the closing empty line.
    pub header: Range<u64>,
    /// Where its body stands, without the line end that belongs to the boundary.
    pub body: Range<u64>,
    /// `text` of `text/plain`, as written.
    pub media_type: Vec<u8>,
    /// `plain` of `text/plain`, as written.
    pub subtype: Vec<u8>,
    /// Of Content-Type.
    pub parameters: Parameters,
    /// Content-ID
    pub id: Option<Vec<u8>>,
    /// Content-Description
    pub description: Option<Vec<u8>>,
    /// Content-Transfer-Encoding; `7BIT` if there is none.
    pub encoding: Vec<u8>,
    /// Content-MD5
    pub md5: Option<Vec<u8>>,
    /// Content-Disposition and its parameters.
    pub disposition: Option<(Vec<u8>, Parameters)>,
    /// Content-Language
    pub language: Vec<Vec<u8>>,
    /// Content-Location
    pub location: Option<Vec<u8>>,
    /// Lines of the body.
    pub lines: u64,
    /// What kind of part.
    pub kind: Body,
}

/// The kinds of part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Anything that is not looked into.
    Leaf,
    /// text/*
    Text,
    /// message/rfc822: a message of its own.
    Message(Box<(Envelope, Part)>),
    /// multipart/*
    Multipart(Vec<Part>),
}

impl Part {
    /// Of a whole message.
    pub fn parse(message: &[u8]) -> Self {
        let mut left = Left {
            parts: PARTS_MAX,
            bytes: STRUCTURE_MAX_BYTES - FALLBACK_BYTES,
            scan: (message.len() * SCANS_MAX).max(SCANNED_FREELY_BYTES * DEPTH_MAX),
        };
        part(message, 0..message.len(), false, 0, &mut left)
    }

    /// Its size in octets, as BODYSTRUCTURE tells it.
    pub fn size_bytes(&self) -> u64 {
        self.body.end - self.body.start
    }

    /// The part of a section number (RFC 3501, section 6.4.5), seen from this message. Part 1 of a message that
    /// is not multipart is its body.
    pub fn find(&self, path: &[u32]) -> Option<&Part> {
        let Some((number, rest)) = path.split_first() else { return Some(self) };
        let inner = match &self.kind {
            Body::Multipart(parts) => parts.get(usize::try_from(*number).ok()?.checked_sub(1)?)?,
            Body::Leaf | Body::Text | Body::Message(_) if *number == 1 => {
                return if rest.is_empty() { Some(self) } else { self.message()?.find(rest) };
            }
            Body::Leaf | Body::Text | Body::Message(_) => return None,
        };
        if rest.is_empty() {
            return Some(inner);
        }
        match &inner.kind {
            Body::Message(nested) => nested.1.find(rest),
            Body::Multipart(_) => inner.find(rest),
            Body::Leaf | Body::Text => None,
        }
    }

    /// The message inside a message/rfc822 part.
    pub fn message(&self) -> Option<&Part> {
        match &self.kind {
            Body::Message(nested) => Some(&nested.1),
            Body::Leaf | Body::Text | Body::Multipart(_) => None,
        }
    }

    /// A parameter of Content-Type.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        parameter(&self.parameters, name)
    }

    /// What it takes encoded without what is inside it, in bytes, as an upper bound.
    fn own_bytes(&self) -> usize {
        let disposition = self.disposition.as_ref().map_or(0, |(value, of)| value.len() + parameters_bytes(of));
        let texts = [&self.id, &self.description, &self.md5, &self.location];
        PART_BYTES
            + (self.media_type.len() + self.subtype.len()).max(OPAQUE_TYPE_BYTES)
            + self.encoding.len()
            + texts.into_iter().flatten().map(Vec::len).sum::<usize>()
            + self.language.iter().map(|l| l.len() + PARAMETER_BYTES).sum::<usize>()
            + parameters_bytes(&self.parameters)
            + disposition
    }
}

/// A parameter by its name, whatever the case.
pub(crate) fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a [u8]> {
    parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
}

fn parameters_bytes(parameters: &Parameters) -> usize {
    parameters.iter().map(|(name, value)| name.len() + value.len() + PARAMETER_BYTES).sum()
}

/// What may still be spent on a message.
struct Left {
    parts: usize,
    bytes: usize,
    scan: usize,
}

impl Left {
    /// Takes so many bytes of the tree; false if they are not left.
    fn take(&mut self, bytes: usize) -> bool {
        self.bytes.checked_sub(bytes).map(|left| self.bytes = left).is_some()
    }

    /// Takes a look at so many bytes of the message; false if that is too much.
    fn look_at(&mut self, bytes: usize) -> bool {
        self.scan.checked_sub(bytes).map(|left| self.scan = left).is_some()
    }
}

fn part(message: &[u8], range: Range<usize>, in_digest: bool, depth: usize, left: &mut Left) -> Part {
    left.parts = left.parts.saturating_sub(1);
    let header_end = range.start + header_len(&message[range.clone()]);
    let body = header_end..range.end;
    let mut out = bare(range.start..header_end, body.clone());
    read_fields(&mut out, &message[range.start..header_end]);
    if out.media_type.is_empty() {
        match in_digest {
            true => (out.media_type, out.subtype) = (b"message".to_vec(), b"rfc822".to_vec()),
            false => be_plain_text(&mut out),
        }
    }
    let is = |media: &[u8]| out.media_type.eq_ignore_ascii_case(media);
    // A multipart pays at once for the part that stands for what it can't hold.
    let fallback = if is(b"multipart") { FALLBACK_BYTES } else { 0 };
    if !left.take(out.own_bytes() + fallback) {
        // Small parts would go on fitting in between: no more.
        left.bytes = 0;
        return opaque(range.start..header_end, body);
    }
    if is(b"multipart") {
        let digest = out.subtype.eq_ignore_ascii_case(b"digest");
        let boundary = out.parameter("boundary").unwrap_or_default();
        out.kind = Body::Multipart(inner_parts(message, body, boundary, digest, depth, left));
    } else if is(b"text") {
        out.lines = lines(&message[body]);
        out.kind = Body::Text;
    } else if is(b"message") && out.subtype.eq_ignore_ascii_case(b"rfc822") {
        match inner_message(message, body.clone(), &out.encoding, depth, left) {
            Some(nested) => {
                out.lines = lines(&message[body]);
                out.kind = Body::Message(Box::new(nested));
            }
            // It has no readable message inside, so it is told as what it is: bytes.
            None => be_bytes(&mut out),
        }
    }
    out
}

fn inner_parts(
    message: &[u8],
    body: Range<usize>,
    boundary: &[u8],
    digest: bool,
    depth: usize,
    left: &mut Left,
) -> Vec<Part> {
    let mut inner = Vec::new();
    if depth >= DEPTH_MAX || !left.look_at(body.len()) {
        // BODYSTRUCTURE needs a part: the body as it is.
        inner.push(opaque(body.start..body.start, body));
        return inner;
    }
    for range in split(message, body.clone(), boundary) {
        if left.parts == 0 || left.bytes < PART_BYTES {
            inner.push(opaque(range.start..range.start, range.start..body.end));
            return inner;
        }
        inner.push(part(message, range, digest, depth + 1, left));
    }
    if inner.is_empty() {
        let mut whole = bare(body.start..body.start, body.clone());
        be_plain_text(&mut whole);
        whole.lines = lines(&message[body]);
        whole.kind = Body::Text;
        inner.push(whole);
    }
    inner
}

fn inner_message(
    message: &[u8],
    body: Range<usize>,
    encoding: &[u8],
    depth: usize,
    left: &mut Left,
) -> Option<(Envelope, Part)> {
    let readable = [b"7bit".as_slice(), b"8bit", b"binary"].iter().any(|e| encoding.eq_ignore_ascii_case(e));
    if !readable || depth >= DEPTH_MAX || left.parts == 0 || !left.look_at(body.len()) {
        return None;
    }
    let header = &message[body.start..body.start + header_len(&message[body.clone()])];
    let envelope = Envelope::parse(header);
    if !left.take(envelope.size_bytes()) {
        return None;
    }
    Some((envelope, part(message, body, false, depth + 1, left)))
}

fn bare(header: Range<usize>, body: Range<usize>) -> Part {
    Part {
        header: header.start as u64..header.end as u64,
        body: body.start as u64..body.end as u64,
        media_type: Vec::new(),
        subtype: Vec::new(),
        parameters: Vec::new(),
        id: None,
        description: None,
        encoding: b"7BIT".to_vec(),
        md5: None,
        disposition: None,
        language: Vec::new(),
        location: None,
        lines: 0,
        kind: Body::Leaf,
    }
}

/// A part that is not looked into.
fn opaque(header: Range<usize>, body: Range<usize>) -> Part {
    let mut out = bare(header, body);
    be_bytes(&mut out);
    out
}

fn be_bytes(out: &mut Part) {
    (out.media_type, out.subtype) = (b"application".to_vec(), b"octet-stream".to_vec());
}

/// RFC 2045, section 5.2.
fn be_plain_text(out: &mut Part) {
    (out.media_type, out.subtype) = (b"text".to_vec(), b"plain".to_vec());
    out.parameters = vec![(b"charset".to_vec(), b"us-ascii".to_vec())];
}

fn lines(body: &[u8]) -> u64 {
    body.iter().filter(|b| **b == b'\n').count() as u64
}

fn read_fields(out: &mut Part, block: &[u8]) {
    let text = |value: &[u8]| Some(cut(unfold(value), VALUE_MAX_BYTES));
    for field in fields(block) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
        if is("Content-Type") && out.media_type.is_empty() {
            let (value, parameters) = value_and_parameters(field.value);
            let mut halves = value.splitn(2, |b| *b == b'/');
            let (media, sub) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            if !trim(media).is_empty() && !trim(sub).is_empty() {
                (out.media_type, out.subtype, out.parameters) = (trim(media).to_vec(), trim(sub).to_vec(), parameters);
            }
        } else if is("Content-ID") {
            out.id = text(field.value);
        } else if is("Content-Description") {
            out.description = text(field.value);
        } else if is("Content-Transfer-Encoding") {
            let value = value_and_parameters(field.value).0;
            if !value.is_empty() {
                out.encoding = value;
            }
        } else if is("Content-MD5") {
            out.md5 = text(field.value);
        } else if is("Content-Disposition") {
            let (value, parameters) = value_and_parameters(field.value);
            if !value.is_empty() {
                out.disposition = Some((value, parameters));
            }
        } else if is("Content-Language") {
            let value = cut(unfold(field.value), VALUE_MAX_BYTES);
            out.language = value
                .split(|b| *b == b',')
                .map(|l| trim(l).to_vec())
                .filter(|l| !l.is_empty())
                .take(PARAMETERS_MAX)
                .collect();
        } else if is("Content-Location") {
            out.location = text(field.value);
        }
    }
}

/// `value; name=value; name="quoted"` (RFC 2045, section 5.1), comments left out.
fn value_and_parameters(raw: &[u8]) -> (Vec<u8>, Parameters) {
    let raw = unfold(raw);
    let mut pieces = Vec::new();
    let (mut piece, mut at, mut quoted) = (Vec::new(), 0, false);
    while at < raw.len() {
        match raw[at] {
            b'\\' if quoted && at + 1 < raw.len() => {
                piece.push(raw[at + 1]);
                at += 1;
            }
            b'"' => quoted = !quoted,
            b'(' if !quoted => {
                let mut depth = 1;
                while depth > 0 && at + 1 < raw.len() {
                    at += 1;
                    match raw[at] {
                        b'(' => depth += 1,
                        b')' => depth -= 1,
                        _ => {}
                    }
                }
            }
            b';' if !quoted => pieces.push(std::mem::take(&mut piece)),
            byte => piece.push(byte),
        }
        at += 1;
    }
    pieces.push(piece);
    let mut pieces = pieces.into_iter();
    let value = cut(trim(&pieces.next().unwrap_or_default()).to_vec(), VALUE_MAX_BYTES);
    let mut room = PARAMETERS_MAX_BYTES;
    let parameters = pieces
        .filter_map(|p| {
            let equals = p.iter().position(|b| *b == b'=')?;
            let name = trim(&p[..equals]).to_vec();
            (!name.is_empty()).then(|| (name, cut(trim(&p[equals + 1..]).to_vec(), VALUE_MAX_BYTES)))
        })
        .take(PARAMETERS_MAX)
        .take_while(|(name, value)| {
            let fits = room.checked_sub(name.len() + value.len() + PARAMETER_BYTES);
            room = fits.unwrap_or(0);
            fits.is_some()
        })
        .collect();
    (value, parameters)
}

/// The ranges between a boundary's lines (RFC 2046, section 5.1.1). Without the closing one the last part
/// reaches to the end.
fn split(message: &[u8], body: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    if boundary.is_empty() {
        return out;
    }
    let mut open: Option<usize> = None;
    let mut at = body.start;
    while at < body.end {
        let end = line_end(message, at).min(body.end);
        let line = trim_line(&message[at..end]);
        let rest = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary));
        let (is_open, is_close) = match rest {
            Some(b"") => (true, false),
            Some(b"--") => (false, true),
            Some(_) | None => (false, false),
        };
        if is_open || is_close {
            if let Some(start) = open.take() {
                out.push(start..before_line_end(message, start, at));
            }
            if is_close || out.len() > PARTS_MAX {
                return out;
            }
            open = Some(end);
        }
        at = end;
    }
    if let Some(start) = open {
        out.push(start.min(body.end)..body.end);
    }
    out
}

fn trim_line(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n')).map_or(0, |p| p + 1);
    &line[..end]
}

/// The line end before a boundary belongs to the boundary.
fn before_line_end(message: &[u8], start: usize, at: usize) -> usize {
    let mut end = at;
    if end > start && message[end - 1] == b'\n' {
        end -= 1;
        if end > start && message[end - 1] == b'\r' {
            end -= 1;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NESTED: &str = "From: a@b\r\nContent-Type: multipart/mixed; boundary=\"out er\"\r\n\r\npreamble\r\n--out er\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\nworld\r\n--out er\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\nplain\r\n--in\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+\r\n--in--\r\n\r\n--out er\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Disposition: attachment; filename=\"x \\\"y\\\".pdf\"\r\n\r\n%PDF\r\n--out er--\r\nepilogue\r\n";

    fn text<'a>(message: &'a str, part: &Part) -> &'a str {
        &message[part.body.start as usize..part.body.end as usize]
    }

    #[test]
    fn parts_have_the_numbers_of_rfc_3501() {
        let root = Part::parse(NESTED.as_bytes());
        assert_eq!(text(NESTED, root.find(&[1]).unwrap()), "hello\r\nworld");
        assert_eq!(root.find(&[1]).unwrap().lines, 1);
        let message = root.find(&[2]).unwrap();
        assert!(text(NESTED, message).starts_with("Subject: inner"));
        assert_eq!(text(NESTED, root.find(&[2, 1]).unwrap()), "plain");
        assert_eq!(text(NESTED, root.find(&[2, 2]).unwrap()), "PGI+");
        assert_eq!(root.find(&[2, 2]).unwrap().encoding, b"base64");
        assert_eq!(root.find(&[4]), None);
        assert_eq!(root.find(&[1, 1]), None);
        let Body::Message(nested) = &message.kind else { panic!("no message") };
        assert_eq!(nested.0.subject.as_deref(), Some(b"inner".as_slice()));
        let pdf = root.find(&[3]).unwrap();
        assert_eq!(
            pdf.disposition,
            Some((b"attachment".to_vec(), vec![(b"filename".to_vec(), b"x \"y\".pdf".to_vec())]))
        );
        assert_eq!(pdf.parameter("NAME"), Some(b"x.pdf".as_slice()));
    }

    #[test]
    fn part_one_of_a_simple_message_is_its_body_and_defaults_are_plain_text() {
        let root = Part::parse(b"Subject: x\r\n\r\nbody\r\n");
        assert_eq!(root.find(&[1]), Some(&root));
        assert_eq!(root.find(&[2]), None);
        assert_eq!((root.media_type.as_slice(), root.subtype.as_slice()), (b"text".as_slice(), b"plain".as_slice()));
        assert_eq!(root.parameter("charset"), Some(b"us-ascii".as_slice()));
        assert_eq!((root.size_bytes(), root.lines), (6, 1));
    }

    #[test]
    fn a_digest_holds_messages_and_a_missing_end_reaches_to_the_end() {
        let digest = "Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\nfirst\n--d\n\nSubject: two\n\nsecond\n";
        let root = Part::parse(digest.as_bytes());
        let Body::Multipart(parts) = &root.kind else { panic!("no multipart") };
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|p| p.message().is_some()));
        assert_eq!(text(digest, root.find(&[2, 1]).unwrap()), "second\n");
    }

    #[test]
    fn nesting_and_numbers_of_parts_are_bounded() {
        let mut deep = String::new();
        for n in 0..200 {
            deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"));
        }
        fn depth(part: &Part) -> usize {
            match &part.kind {
                Body::Multipart(parts) => 1 + parts.iter().map(depth).max().unwrap_or(0),
                Body::Message(nested) => 1 + depth(&nested.1),
                Body::Leaf | Body::Text => 0,
            }
        }
        assert_eq!(depth(&Part::parse(deep.as_bytes())), DEPTH_MAX + 1);
        let messages = "Content-Type: message/rfc822\n\n".repeat(100_000);
        assert!(depth(&Part::parse(messages.as_bytes())) <= DEPTH_MAX);
        let wide = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(3_000));
        let Body::Multipart(parts) = Part::parse(wide.as_bytes()).kind else { panic!("no multipart") };
        assert_eq!(parts.len(), PARTS_MAX);
        let rest = parts.last().unwrap();
        assert_eq!(rest.subtype, b"octet-stream", "what is left over is one part");
        assert_eq!(rest.body.end, wide.len() as u64);
    }

    #[test]
    fn a_large_message_is_not_read_once_for_each_level() {
        let mut deep = String::new();
        for n in 0..DEPTH_MAX {
            deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"));
        }
        deep.push('\n');
        deep.push_str(&"x\n".repeat(1 << 20));
        fn depth(part: &Part) -> usize {
            match &part.kind {
                Body::Multipart(parts) => 1 + depth(&parts[0]),
                Body::Message(_) | Body::Leaf | Body::Text => 0,
            }
        }
        let found = depth(&Part::parse(deep.as_bytes()));
        assert!((SCANS_MAX..=SCANS_MAX + 1).contains(&found), "{found}");
    }

    fn tree_bytes(part: &Part) -> usize {
        part.own_bytes()
            + match &part.kind {
                Body::Multipart(parts) => parts.iter().map(tree_bytes).sum(),
                Body::Message(nested) => nested.0.size_bytes() + tree_bytes(&nested.1),
                Body::Leaf | Body::Text => 0,
            }
    }

    #[test]
    fn a_tree_is_bounded_whatever_its_texts() {
        let long = "d".repeat(5_000);
        let described = format!("--b\nContent-Description: {long}\nContent-ID: {long}\n\nx\n");
        let named = format!("--b\nContent-Type: a/b{}\n\nx\n", format!("; {}=y", "n".repeat(500)).repeat(200));
        let messages = format!("--b\nContent-Type: message/rfc822\n\nTo: {}\n\nx\n", "abc@example.org,".repeat(3_000));
        for inner in [described, named, messages] {
            let whole = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", inner.repeat(200));
            let root = Part::parse(whole.as_bytes());
            let size = tree_bytes(&root);
            assert!(size <= STRUCTURE_MAX_BYTES && size > STRUCTURE_MAX_BYTES / 2, "{size}");
            let Body::Multipart(parts) = root.kind else { panic!("no multipart") };
            assert_eq!(parts.last().unwrap().body.end, whole.len() as u64, "nothing is left out");
        }
    }

    fn inside(part: &Part, outer: &Range<u64>) {
        assert!(
            part.header.start <= part.header.end
                && part.header.end == part.body.start
                && part.body.end >= part.body.start
        );
        assert!(part.header.start >= outer.start && part.body.end <= outer.end, "{part:?} not in {outer:?}");
        match &part.kind {
            Body::Multipart(parts) => parts.iter().for_each(|p| inside(p, &part.body)),
            Body::Message(nested) => inside(&nested.1, &part.body),
            Body::Leaf | Body::Text => {}
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_parts_lie_inside_their_parents(
            pieces in proptest::collection::vec(prop_oneof![
                Just("Content-Type: multipart/mixed; boundary=b\r\n".to_owned()), Just("\r\n".to_owned()), Just("\n".to_owned()),
                Just("--b\r\n".to_owned()), Just("--b--\r\n".to_owned()), Just("Content-Type: message/rfc822\r\n".to_owned()),
                Just("Content-Type: multipart/digest; boundary=\"b\"\n".to_owned()), "[ -~\r\n\"(;:<@>]{0,20}",
            ], 0..40),
        ) {
            let message = pieces.concat();
            let root = Part::parse(message.as_bytes());
            inside(&root, &(0..message.len() as u64));
            prop_assert!(tree_bytes(&root) <= STRUCTURE_MAX_BYTES);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            inside(&Part::parse(&bytes), &(0..bytes.len() as u64));
            Envelope::parse(&bytes);
        }
    }
}
