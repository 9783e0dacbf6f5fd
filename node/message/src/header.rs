//! Header fields as they stand in a message (RFC 5322, section 2.2), undecoded.

use std::collections::BTreeSet;
use std::ops::Range;

/// The longest header block that a message may have, or a part of one, in bytes.
pub const HEADER_MAX_BYTES: usize = 1 << 20;
/// A message's header block up to this length, in bytes, is kept beside it for whoever reads headers alone. That of a longer
/// one, which imports bring, is read from the message.
pub const HEADER_KEPT_MAX_BYTES: usize = 256 << 10;
/// A Message-ID longer than this, in bytes, is told as any other field, and identifies nothing: a field's line has no more
/// (RFC 5322, section 2.1.1).
pub const MESSAGE_ID_MAX_BYTES: usize = 998;

/// Trace fields (RFC 5321, section 4.4, and what servers add beside them).
const TRACE: [&str; 5] = ["Return-Path", "Received", "Delivered-To", "X-Original-To", "Received-SPF"];

/// A field of a header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What follows the colon, folding and all, without the last line's end.
    pub value: &'a [u8],
    /// Where all of it stands, with its line ends.
    pub range: Range<usize>,
}

/// The length of the header block with its closing empty line; the whole message if there is none.
pub fn header_len(message: &[u8]) -> usize {
    let mut at = 0;
    while at < message.len() {
        let end = line_end(message, at);
        if is_empty_line(&message[at..end]) {
            return end;
        }
        at = end;
    }
    message.len()
}

/// What is kept of a header block beside its message: all of it, or nothing.
pub fn kept(block: &[u8]) -> &[u8] {
    if block.len() <= HEADER_KEPT_MAX_BYTES { block } else { b"" }
}

/// The fields of a block, in order. Lines that are none are left out.
pub fn fields(block: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            if at >= block.len() {
                return None;
            }
            let start = at;
            at = line_end(block, at);
            if is_empty_line(&block[start..at]) {
                at = block.len();
                return None;
            }
            while at < block.len() && matches!(block[at], b' ' | b'\t') {
                at = line_end(block, at);
            }
            let whole = &block[start..at];
            let Some((name, after)) = name_of(whole) else { continue };
            return Some(Field { name, value: strip_line_end(&whole[after..]), range: start..at });
        }
    })
}

/// The name of the field that begins with this line, and where its value begins; None if it is no field's.
fn name_of(line: &[u8]) -> Option<(&[u8], usize)> {
    let colon = memchr::memchr(b':', line)?;
    let name = trim_end(&line[..colon]);
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some((name, colon + 1))
}

/// Whether a line can be the first one of a header block: a field's, or what mbox files put before it.
pub(crate) fn may_begin_header(line: &[u8]) -> bool {
    name_of(line).is_some() || line.starts_with(b"From ") || line.starts_with(b">From ")
}

/// Whether a line belongs to a field: it begins one, or goes on with the one before.
pub(crate) fn is_of_field(line: &[u8]) -> bool {
    name_of(line).is_some() || line.starts_with(b" ") || line.starts_with(b"\t")
}

/// The raw value of the first field of a name.
pub fn first<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(block).find(|f| f.name.eq_ignore_ascii_case(name.as_bytes())).map(|f| f.value)
}

/// A value on one line: line ends of folding go, white space around it too, and NUL, which no IMAP string may
/// hold (RFC 3501, section 4.3).
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let flat: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect();
    trim(&flat).to_vec()
}

/// The fields of these names (or, with `not`, all others) as they stand, and an empty line: what
/// BODY[HEADER.FIELDS (...)] asks for (RFC 3501, section 6.4.5).
pub fn subset(block: &[u8], names: &[Vec<u8>], not: bool) -> Vec<u8> {
    // A client may name thousands, and a header may have tens of thousands.
    let names: BTreeSet<Vec<u8>> = names.iter().map(|n| n.to_ascii_lowercase()).collect();
    let mut out = Vec::new();
    for field in fields(block) {
        if names.contains(&field.name.to_ascii_lowercase()) != not {
            out.extend_from_slice(&block[field.range]);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The Message-ID's value, unfolded, if it can identify a message.
pub fn message_id(block: &[u8]) -> Option<Vec<u8>> {
    first(block, "Message-ID").map(unfold).filter(|id| !id.is_empty() && id.len() <= MESSAGE_ID_MAX_BYTES)
}

/// Hands over the message without trace fields, piece by piece: what two deliveries of one message have in
/// common.
pub fn without_trace(message: &[u8], mut piece: impl FnMut(&[u8])) {
    let body = header_len(message);
    let mut kept = 0;
    for field in fields(&message[..body]) {
        if TRACE.iter().any(|t| field.name.eq_ignore_ascii_case(t.as_bytes())) {
            piece(&message[kept..field.range.start]);
            kept = field.range.end;
        }
    }
    piece(&message[kept..]);
}

/// Completes the header, from `at` on, of what a mail program sends (RFC 6409, section 8): a Date and a Message-ID where it
/// has none; no Bcc, which only its sender is to see; and no Return-Path, which the last server writes (RFC 5321, section 4.4).
/// The added fields come first.
pub fn complete(message: &mut Vec<u8>, at: usize, date: &str, message_id: &str) {
    without(message, at, |field| {
        [b"Bcc".as_slice(), b"Resent-Bcc", b"Return-Path"].iter().any(|name| field.name.eq_ignore_ascii_case(name))
    });
    let block = &message[at..at + header_len(&message[at..])];
    let mut added = String::new();
    for (name, value) in [("Date", date), ("Message-ID", message_id)] {
        if first(block, name).is_none() {
            added.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if !added.is_empty() {
        message.splice(at..at, added.into_bytes());
    }
}

/// The most servers that a message may have been through: more is a circle.
pub const HOPS_MAX: usize = 50;

/// How many servers a message went through, by its Received fields (RFC 5321, section 6.3).
pub fn hops(block: &[u8]) -> usize {
    fields(block).filter(|field| field.name.eq_ignore_ascii_case(b"Received")).count()
}

/// Whether an address stands in a Delivered-To field (RFC 9228), in whatever case.
pub fn was_delivered_to(block: &[u8], address: &str) -> bool {
    let is_one = |field: &Field<'_>| field.name.eq_ignore_ascii_case(b"Delivered-To");
    fields(block).filter(is_one).any(|field| unfold(field.value).trim_ascii().eq_ignore_ascii_case(address.as_bytes()))
}

/// Takes fields out of a message's header, from `at` on.
pub(crate) fn without(message: &mut Vec<u8>, at: usize, is_one: impl Fn(&Field<'_>) -> bool) {
    let header = at + header_len(message.get(at..).unwrap_or_default());
    let block = message.get(at..header).unwrap_or_default();
    let ranges: Vec<Range<usize>> = fields(block).filter(is_one).map(|field| field.range).collect();
    // Whatever their number, the message is moved once.
    let (mut kept, mut from) = (at, at);
    for range in ranges {
        message.copy_within(from..at + range.start, kept);
        kept += at + range.start - from;
        from = at + range.end;
    }
    message.drain(kept..from);
}

pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(bytes.len());
    trim_end(&bytes[start..])
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |p| p + 1);
    &bytes[..end]
}

/// Behind the line that begins here.
pub(crate) fn line_end(bytes: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |p| at + p + 1)
}

pub(crate) fn is_empty_line(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

fn strip_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MESSAGE: &[u8] = b"Received: from a\r\n\tby b\r\nSubject: two\r\n lines\r\nno field\r\nTo : x@y\r\nMessage-ID: <1@a>\r\n\r\nbody\r\n";

    #[test]
    fn what_a_mail_program_sends_gets_a_date_and_an_id_and_loses_its_bcc_and_return_path() {
        let completed = |said: &str| {
            let mut message = format!("T: x\r\n{said}").into_bytes();
            complete(&mut message, 6, "now", "<1@mx>");
            String::from_utf8(message).unwrap()
        };
        assert_eq!(
            completed("Subject: a\r\nbcc: x@y,\r\n z@y\r\nTo: b\r\n\r\nBcc: body\r\n"),
            "T: x\r\nDate: now\r\nMessage-ID: <1@mx>\r\nSubject: a\r\nTo: b\r\n\r\nBcc: body\r\n"
        );
        // What a server writes at the end of the way is in nothing that sets out.
        assert_eq!(
            completed(
                "Return-Path: <x@y>\r\nDate: d\r\nreturn-path:\r\n <z@y>\r\nMessage-ID: <m>\r\n\r\nReturn-Path: body\r\n"
            ),
            "T: x\r\nDate: d\r\nMessage-ID: <m>\r\n\r\nReturn-Path: body\r\n"
        );
        assert_eq!(completed("date: then\r\n\r\n"), "T: x\r\nMessage-ID: <1@mx>\r\ndate: then\r\n\r\n");
        let whole = "DATE: then\r\nmessage-id: <2@x>\r\n\r\nx\r\n";
        assert_eq!(completed(whole), format!("T: x\r\n{whole}"));
        assert_eq!(completed(""), "T: x\r\nDate: now\r\nMessage-ID: <1@mx>\r\n");
    }

    #[test]
    fn servers_that_a_message_went_through_are_counted() {
        assert_eq!(hops(b"Received: a\r\nSubject: Received: x\r\nRECEIVED: b\r\n c\r\n"), 2);
    }

    #[test]
    fn fields_keep_their_folding_and_junk_lines_are_left_out() {
        let block = &MESSAGE[..header_len(MESSAGE)];
        let names: Vec<&[u8]> = fields(block).map(|f| f.name).collect();
        assert_eq!(names, [b"Received".as_slice(), b"Subject", b"To", b"Message-ID"]);
        assert_eq!(first(block, "subject"), Some(b" two\r\n lines".as_slice()));
        assert_eq!(unfold(first(block, "subject").unwrap()), b"two lines");
        assert_eq!(message_id(block), Some(b"<1@a>".to_vec()));
        assert_eq!(&MESSAGE[header_len(MESSAGE)..], b"body\r\n");
    }

    #[test]
    fn a_subset_is_what_stands_there_and_an_empty_line() {
        let block = &MESSAGE[..header_len(MESSAGE)];
        assert_eq!(subset(block, &[b"SUBJECT".to_vec()], false), b"Subject: two\r\n lines\r\n\r\n");
        assert_eq!(
            subset(block, &[b"received".to_vec(), b"subject".to_vec(), b"message-id".to_vec()], true),
            b"To : x@y\r\n\r\n"
        );
    }

    #[test]
    fn no_nul_comes_out_of_a_value() {
        assert_eq!(unfold(b" a\0b\r\n c "), b"ab c");
    }

    #[test]
    fn trace_fields_make_no_difference_to_the_content() {
        let collect = |m: &[u8]| {
            let mut out = Vec::new();
            without_trace(m, |p| out.extend_from_slice(p));
            out
        };
        let other = [b"Return-Path: <z>\r\nReceived: by q\r\n".as_slice(), MESSAGE].concat();
        assert_eq!(collect(MESSAGE), collect(&other));
        assert!(collect(MESSAGE).starts_with(b"Subject: two"));
    }

    #[test]
    fn a_message_without_a_body_is_all_header() {
        assert_eq!(header_len(b"Subject: x\r\n"), 12);
        assert_eq!(header_len(b""), 0);
        assert_eq!(header_len(b"\r\nbody"), 2);
        assert_eq!(header_len(b"A: b\n\nbody"), 6);
    }
}
