//! Messages: what is kept of them, and searching in them.

use std::ops::Range;

use mailraft_message::budget::{DEPTH_MAX, DESCRIPTION_MAX_BYTES, PARTS_MAX};
use mailraft_message::{Body, BodySearch, Described, Part, transfer};
use mailraft_outbound::seven_bit::{Converter, Survey};
use mailraft_storage::entry::{versioned_decode, versioned_encode};

/// Takes a message apart: parts lie within their parents and in order, what is kept is within its budget and comes back
/// from a row, and every part is found by its number. Then looks for words in it, in pieces of several sizes, and converts it to
/// its 7-bit form, whose parts decode to what they were.
pub fn message(input: &[u8]) {
    let Ok(described) = Described::of(input) else { return };
    let root = &described.structure;
    assert_eq!((root.header.start, root.body.end), (0, input.len() as u64));
    let mut parts = 0;
    check(input, root, &(0..input.len() as u64), 0, &mut parts);
    assert!(parts <= PARTS_MAX, "{parts} parts");
    let (envelope, structure) = (versioned_encode(1, &described.envelope), versioned_encode(1, root));
    assert!(envelope.len() + structure.len() <= DESCRIPTION_MAX_BYTES + 2, "{} {}", envelope.len(), structure.len());
    assert_eq!(versioned_decode("envelope", 1, &envelope).as_ref().ok(), Some(&described.envelope));
    assert_eq!(versioned_decode("structure", 1, &structure).as_ref().ok(), Some(root));
    by_number(root, root, &mut Vec::new());
    for size in [7, 64 << 10] {
        search(input, root, size);
        seven_bit(input, root, size);
    }
}

fn check(message: &[u8], part: &Part, outer: &Range<u64>, depth: usize, parts: &mut usize) {
    *parts += 1;
    assert!(depth <= DEPTH_MAX, "nested {depth} deep");
    assert!(part.header.start <= part.header.end && part.header.end == part.body.start);
    assert!(part.body.start <= part.body.end && part.header.start >= outer.start && part.body.end <= outer.end);
    let body = &message[part.body.start as usize..part.body.end as usize];
    let line_feeds = body.iter().filter(|b| **b == b'\n').count() as u64;
    match &part.kind {
        Body::Leaf => assert_eq!(part.lines, 0),
        Body::Text => assert_eq!(part.lines, line_feeds),
        Body::Message(nested) if part.is_encoded_message() => {
            assert_eq!(part.lines, line_feeds);
            let decoded = transfer::decode(&part.encoding, body);
            check(&decoded, &nested.1, &(0..decoded.len() as u64), depth + 1, parts);
        }
        Body::Message(nested) => {
            assert_eq!(part.lines, line_feeds);
            assert_eq!((nested.1.header.start, nested.1.body.end), (part.body.start, part.body.end));
            check(message, &nested.1, &part.body, depth + 1, parts);
        }
        Body::Multipart(inner) => {
            assert!(!inner.is_empty(), "a multipart has a part");
            let mut rest = part.body.clone();
            for part in inner {
                check(message, part, &rest, depth + 1, parts);
                rest.start = part.body.end;
            }
        }
    }
}

/// The numbers of RFC 3501, section 6.4.5.
fn by_number(root: &Part, part: &Part, path: &mut Vec<u32>) {
    assert_eq!(root.find(path), Some(part), "{path:?}");
    let inside = part.message().filter(|_| !path.is_empty()).unwrap_or(part);
    let Body::Multipart(inner) = &inside.kind else { return };
    for (number, part) in (1..).zip(inner) {
        path.push(number);
        by_number(root, part, path);
        path.pop();
    }
}

fn search(message: &[u8], root: &Part, piece_bytes: usize) {
    let words = ["a", "the", "\u{e4}"];
    let mut search = BodySearch::new(&words, root);
    let mut left = 20 * message.len() + 1_000_000;
    while let Some(wanted) = search.wants() {
        let wanted = &message[wanted.start as usize..wanted.end as usize];
        search.take(&wanted[..wanted.len().min(piece_bytes)]);
        left = left.checked_sub(1).expect("a search comes to its end");
    }
    assert_eq!(search.into_found().len(), words.len());
}

/// Converts what may be sent: its lines end with CRLF.
fn seven_bit(message: &[u8], root: &Part, piece_bytes: usize) {
    let ends = message.windows(2).filter(|two| *two == b"\r\n").count();
    if message.iter().filter(|b| matches!(**b, b'\r' | b'\n')).count() != 2 * ends {
        return;
    }
    let mut survey = Survey::of(root, 0);
    survey.piece(b"");
    message.chunks(piece_bytes).for_each(|piece| survey.piece(piece));
    let Ok(plan) = survey.finish() else { return };
    let (mut converter, mut converted) = (Converter::new(&plan), Vec::new());
    converter.piece(b"", &mut converted);
    message.chunks(piece_bytes).for_each(|piece| converter.piece(piece, &mut converted));
    converter.finish().expect("it is the same message");
    assert!(converted.is_ascii());
    // Longer names of encodings may be too much of them.
    let Ok(again) = Described::of(&converted) else { return };
    let [mut was, mut is] = [Vec::new(), Vec::new()];
    leaves(message, root, &mut was);
    leaves(&converted, &again.structure, &mut is);
    assert!(was == is, "{} became {}", message.escape_ascii(), converted.escape_ascii());
}

/// What the parts stand for that are not looked into.
fn leaves(message: &[u8], part: &Part, out: &mut Vec<Vec<u8>>) {
    match &part.kind {
        Body::Multipart(parts) => parts.iter().for_each(|part| leaves(message, part, out)),
        Body::Message(nested) if !part.is_encoded_message() => leaves(message, &nested.1, out),
        Body::Message(_) | Body::Leaf | Body::Text => {
            let body = &message[part.body.start as usize..part.body.end as usize];
            out.push(transfer::decode(&part.encoding, body));
        }
    }
}
