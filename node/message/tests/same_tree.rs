//! The tree of a message, made in one pass, against the plain way to make it: find the parts of a multipart by its
//! boundary's lines, and do the same within each.
#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::Range;

use mailraft_message::header::{fields, first, header_len};
use mailraft_message::{Body, Part};
use proptest::prelude::*;

/// Header, body, lines, and what is inside.
#[derive(Debug, PartialEq)]
struct Tree(Range<usize>, Range<usize>, u64, Vec<Tree>);

fn made(part: &Part) -> Tree {
    let range = |of: &Range<u64>| of.start as usize..of.end as usize;
    let inside = match &part.kind {
        Body::Leaf | Body::Text => Vec::new(),
        Body::Message(nested) => vec![made(&nested.1)],
        Body::Multipart(parts) => parts.iter().map(made).collect(),
    };
    Tree(range(&part.header), range(&part.body), part.lines, inside)
}

fn plain(message: &[u8], range: Range<usize>, in_digest: bool) -> Tree {
    let header_end = match range.start > 0 && has_no_header(&message[range.clone()]) {
        true => range.start,
        false => range.start + header_len(&message[range.clone()]),
    };
    let (header, body) = (range.start..header_end, header_end..range.end);
    let lines = message[body.clone()].iter().filter(|b| **b == b'\n').count() as u64;
    // Of a header alone: its type.
    let fields = Part::parse(&message[header.clone()]).unwrap();
    let has_type = first(&message[header.clone()], "Content-Type").is_some();
    let is = |media: &[u8]| fields.media_type.eq_ignore_ascii_case(media);
    if is(b"multipart") {
        let digest = fields.subtype.eq_ignore_ascii_case(b"digest");
        let boundary = fields.parameter("boundary").unwrap_or_default();
        let parts = split(message, body.clone(), boundary);
        let mut inside: Vec<Tree> = parts.into_iter().map(|part| plain(message, part, digest)).collect();
        if inside.is_empty() {
            inside.push(Tree(body.start..body.start, body.clone(), lines, Vec::new()));
        }
        return Tree(header, body, 0, inside);
    }
    let is_message = is(b"message") && fields.subtype.eq_ignore_ascii_case(b"rfc822");
    if is_message || (in_digest && !has_type) {
        let inside = vec![plain(message, body.clone(), false)];
        return Tree(header, body, lines, inside);
    }
    Tree(header, body, if is(b"text") { lines } else { 0 }, Vec::new())
}

/// Whether a part begins with a line that is no field's.
fn has_no_header(part: &[u8]) -> bool {
    let end = part.iter().position(|b| *b == b'\n').map_or(part.len(), |p| p + 1);
    let is_empty = matches!(&part[..end], b"" | b"\n" | b"\r\n");
    !is_empty && fields(&part[..end]).next().is_none() && !part.starts_with(b"From ") && !part.starts_with(b">From ")
}

fn split(message: &[u8], body: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let (mut out, mut open, mut at) = (Vec::new(), None, body.start);
    while at < body.end && !boundary.is_empty() {
        let end = message[at..body.end].iter().position(|b| *b == b'\n').map_or(body.end, |p| at + p + 1);
        let text = String::from_utf8_lossy(&message[at..end]).trim_end_matches([' ', '\t', '\r', '\n']).to_owned();
        let rest = text.strip_prefix("--").and_then(|text| text.strip_prefix(std::str::from_utf8(boundary).unwrap()));
        if matches!(rest, Some("" | "--")) {
            if let Some(start) = open.take() {
                let before = &message[start..at];
                let before = before.strip_suffix(b"\n").map_or(before, |b| b.strip_suffix(b"\r").unwrap_or(b));
                out.push(start..start + before.len());
            }
            if rest == Some("--") {
                return out;
            }
            open = Some(end);
        }
        at = end;
    }
    out.extend(open.map(|start| start.min(body.end)..body.end));
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn one_pass_finds_what_the_plain_way_finds(
        pieces in proptest::collection::vec(prop_oneof![
            3 => Just("Content-Type: multipart/mixed; boundary=b\r\n".to_owned()),
            2 => Just("Content-Type: multipart/mixed; boundary=c\n".to_owned()),
            1 => Just("Content-Type: multipart/digest; boundary=\"b--\"\n".to_owned()),
            1 => Just("Content-Type: multipart/digest; boundary=c\n".to_owned()),
            2 => Just("Content-Type: message/rfc822\r\n".to_owned()),
            1 => Just("Content-Type: image/png\n".to_owned()),
            1 => Just("Content-Type: multipart/mixed\n".to_owned()),
            4 => Just("\r\n".to_owned()), 3 => Just("\n".to_owned()), 1 => Just("\r".to_owned()),
            5 => Just("--b\r\n".to_owned()), 2 => Just("--b--\r\n".to_owned()), 3 => Just("--c\n".to_owned()),
            2 => Just("--c--\n".to_owned()), 1 => Just("--b----\n".to_owned()), 1 => Just("--b \t\n".to_owned()),
            1 => Just("--b".to_owned()), 1 => Just("--".to_owned()), 2 => "[ -~\r\n]{0,8}",
        ], 0..30),
    ) {
        let message = pieces.concat();
        let bytes = message.as_bytes();
        prop_assert_eq!(made(&Part::parse(bytes).unwrap()), plain(bytes, 0..bytes.len(), false), "{:?}", message);
    }
}
