//! The MIME tree of a message (RFC 2045, 2046) with the byte range of every part.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::header::{fields, header_len, line_end, trim, unfold};

/// Parts nested deeper are opaque.
pub const DEPTH_MAX: usize = 50;
/// A message's parts beyond these are opaque.
pub const PARTS_MAX: usize = 1_000;
/// Parameters of one field that are kept.
pub const PARAMETERS_MAX: usize = 100;

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
        let mut parts = 0;
        part(message, 0..message.len(), false, 0, &mut parts)
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
}

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a [u8]> {
    parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
}

fn part(message: &[u8], range: Range<usize>, in_digest: bool, depth: usize, parts: &mut usize) -> Part {
    *parts += 1;
    let whole = &message[range.clone()];
    let header_end = range.start + header_len(whole);
    let block = &message[range.start..header_end];
    let body = header_end..range.end;
    let mut out = Part {
        header: range.start as u64..header_end as u64,
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
        lines: message[body.clone()].iter().filter(|b| **b == b'\n').count() as u64,
        kind: Body::Leaf,
    };
    read_fields(&mut out, block);
    if out.media_type.is_empty() {
        (out.media_type, out.subtype) = match in_digest {
            true => (b"message".to_vec(), b"rfc822".to_vec()),
            false => (b"text".to_vec(), b"plain".to_vec()),
        };
        if !in_digest {
            out.parameters = vec![(b"charset".to_vec(), b"us-ascii".to_vec())];
        }
    }
    let room = depth < DEPTH_MAX && *parts < PARTS_MAX;
    let encoded = !["7bit", "8bit", "binary"].iter().any(|e| out.encoding.eq_ignore_ascii_case(e.as_bytes()));
    if out.media_type.eq_ignore_ascii_case(b"multipart") {
        let boundary = parameter(&out.parameters, "boundary").map(<[u8]>::to_vec);
        let digest = out.subtype.eq_ignore_ascii_case(b"digest");
        let mut inner = Vec::new();
        if let (true, Some(boundary)) = (room, boundary) {
            for range in split(message, body.clone(), &boundary) {
                if *parts >= PARTS_MAX {
                    break;
                }
                inner.push(part(message, range, digest, depth + 1, parts));
            }
        }
        if inner.is_empty() {
            // BODYSTRUCTURE needs one: the body as it is.
            inner.push(plain(body));
        }
        out.kind = Body::Multipart(inner);
    } else if out.media_type.eq_ignore_ascii_case(b"text") {
        out.kind = Body::Text;
    } else if room
        && !encoded
        && out.media_type.eq_ignore_ascii_case(b"message")
        && out.subtype.eq_ignore_ascii_case(b"rfc822")
    {
        let nested = part(message, body.clone(), false, depth + 1, parts);
        let block = &message[nested.header.start as usize..nested.header.end as usize];
        out.kind = Body::Message(Box::new((Envelope::parse(block), nested)));
    } else if out.media_type.eq_ignore_ascii_case(b"message") && out.subtype.eq_ignore_ascii_case(b"rfc822") {
        // It has no readable message inside, so it is told as what it is: bytes.
        (out.media_type, out.subtype) = (b"application".to_vec(), b"octet-stream".to_vec());
    }
    out
}

fn plain(body: Range<usize>) -> Part {
    Part {
        header: body.start as u64..body.start as u64,
        body: body.start as u64..body.end as u64,
        media_type: b"text".to_vec(),
        subtype: b"plain".to_vec(),
        parameters: vec![(b"charset".to_vec(), b"us-ascii".to_vec())],
        id: None,
        description: None,
        encoding: b"7BIT".to_vec(),
        md5: None,
        disposition: None,
        language: Vec::new(),
        location: None,
        lines: 0,
        kind: Body::Text,
    }
}

fn read_fields(out: &mut Part, block: &[u8]) {
    for field in fields(block) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
        if is("Content-Type") && out.media_type.is_empty() {
            let (value, parameters) = value_and_parameters(field.value);
            let mut halves = value.splitn(2, |b| *b == b'/');
            let (media, sub) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            if !media.is_empty() && !sub.is_empty() {
                (out.media_type, out.subtype, out.parameters) = (trim(media).to_vec(), trim(sub).to_vec(), parameters);
            }
        } else if is("Content-ID") {
            out.id = Some(unfold(field.value));
        } else if is("Content-Description") {
            out.description = Some(unfold(field.value));
        } else if is("Content-Transfer-Encoding") {
            let value = value_and_parameters(field.value).0;
            if !value.is_empty() {
                out.encoding = value;
            }
        } else if is("Content-MD5") {
            out.md5 = Some(unfold(field.value));
        } else if is("Content-Disposition") {
            let (value, parameters) = value_and_parameters(field.value);
            if !value.is_empty() {
                out.disposition = Some((value, parameters));
            }
        } else if is("Content-Language") {
            let value = unfold(field.value);
            out.language =
                value.split(|b| *b == b',').map(|l| trim(l).to_vec()).filter(|l| !l.is_empty()).take(PARAMETERS_MAX).collect();
        } else if is("Content-Location") {
            out.location = Some(unfold(field.value));
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
    let value = trim(&pieces.next().unwrap_or_default()).to_vec();
    let parameters = pieces
        .filter_map(|p| {
            let equals = p.iter().position(|b| *b == b'=')?;
            let name = trim(&p[..equals]).to_vec();
            (!name.is_empty()).then(|| (name, trim(&p[equals + 1..]).to_vec()))
        })
        .take(PARAMETERS_MAX)
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
            if is_close || out.len() >= PARTS_MAX {
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
        assert_eq!(pdf.disposition, Some((b"attachment".to_vec(), vec![(b"filename".to_vec(), b"x \"y\".pdf".to_vec())])));
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
        assert!(depth(&Part::parse(deep.as_bytes())) <= DEPTH_MAX + 1);
        let wide = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(3_000));
        let Body::Multipart(parts) = Part::parse(wide.as_bytes()).kind else { panic!("no multipart") };
        assert!(parts.len() <= PARTS_MAX);
    }

    fn inside(part: &Part, outer: &Range<u64>) {
        assert!(part.header.start <= part.header.end && part.header.end == part.body.start && part.body.end >= part.body.start);
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
            inside(&Part::parse(message.as_bytes()), &(0..message.len() as u64));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            inside(&Part::parse(&bytes), &(0..bytes.len() as u64));
            Envelope::parse(&bytes);
        }
    }
}
