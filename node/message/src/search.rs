//! Text to search in (RFC 3501, section 6.4.4): decoded, lower-cased, from header fields and text parts.
//!
//! The tree is [`Part`]'s, whose depth is bounded; `mail-parser` decodes single fields and single bodies. Its
//! own trees are as deep as the message says, and dropping one can overflow a thread's stack.

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{HeaderValue, MessageParser};

use crate::header::{cut, fields, header_len, unfold};
use crate::structure::{Body, Part, parameter};

/// Text of one message that is searched, in bytes; what lies behind is not found.
pub const SEARCHED_MAX_BYTES: usize = 16 << 20;
/// The longest Date field that is read, in bytes.
const DATE_MAX_BYTES: usize = 256;

/// A header field's value decoded (RFC 2047), on one line.
pub fn decode_header(raw: &[u8]) -> String {
    let flat = unfold(raw);
    let line = [b"Subject: ".as_slice(), &flat, b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&line);
    let decoded = parsed.and_then(|m| match m.header("Subject") {
        Some(HeaderValue::Text(text)) => Some(text.to_string()),
        _ => None,
    });
    decoded.unwrap_or_else(|| String::from_utf8_lossy(&flat).into_owned())
}

/// Header fields, decoded and lower-cased, one a line.
pub fn header_text(block: &[u8]) -> String {
    let mut out = String::new();
    push_header(block, &mut out);
    out.to_lowercase()
}

/// The text parts of a message, names of attachments and headers of messages inside it, decoded and lower-cased:
/// what SEARCH BODY looks into.
pub fn body_text(message: &[u8]) -> String {
    let mut out = String::new();
    collect(message, &Part::parse(message), &mut out);
    out.to_lowercase()
}

/// [`header_text`] and [`body_text`]: what SEARCH TEXT looks into.
pub fn search_text(message: &[u8]) -> String {
    let mut out = String::new();
    push_header(&message[..header_len(message)], &mut out);
    collect(message, &Part::parse(message), &mut out);
    out.to_lowercase()
}

/// Whether a text holds another, whatever the case; `needle` is lower-case already.
pub fn contains(haystack: &str, needle: &str) -> bool {
    haystack.to_lowercase().contains(needle)
}

/// The date of a Date field: seconds since 1970-01-01 UTC, and minutes east of UTC.
pub fn parse_date(raw: &[u8]) -> Option<(i64, i16)> {
    let line = [b"Date: ".as_slice(), &cut(unfold(raw), DATE_MAX_BYTES), b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&line)?;
    let date = parsed.date().filter(|d| d.is_valid())?;
    let minutes = i16::from(date.tz_hour) * 60 + i16::from(date.tz_minute);
    Some((date.to_timestamp(), if date.tz_before_gmt { -minutes } else { minutes }))
}

fn push_header(block: &[u8], out: &mut String) {
    for field in fields(block) {
        if out.len() >= SEARCHED_MAX_BYTES {
            return;
        }
        out.push_str(&String::from_utf8_lossy(field.name));
        out.push_str(": ");
        push_line(&decode_header(field.value), out);
    }
}

/// No deeper than [`crate::structure::DEPTH_MAX`].
fn collect(message: &[u8], part: &Part, out: &mut String) {
    if out.len() >= SEARCHED_MAX_BYTES {
        return;
    }
    match &part.kind {
        Body::Text => push_line(&decode_body(part, slice(message, &part.body)), out),
        Body::Leaf => {
            if let Some(name) = attachment_name(part) {
                push_line(&decode_header(name), out);
            }
        }
        Body::Message(nested) => {
            push_header(slice(message, &nested.1.header), out);
            collect(message, &nested.1, out);
        }
        Body::Multipart(parts) => parts.iter().for_each(|p| collect(message, p, out)),
    }
}

fn push_line(text: &str, out: &mut String) {
    out.push_str(text);
    out.push('\n');
}

fn attachment_name(part: &Part) -> Option<&[u8]> {
    let disposed = part.disposition.as_ref().and_then(|(_, of)| parameter(of, "filename"));
    disposed.or_else(|| part.parameter("name"))
}

/// Bytes that can't be decoded are searched as they are.
fn decode_body(part: &Part, body: &[u8]) -> String {
    let body = &body[..body.len().min(SEARCHED_MAX_BYTES)];
    let decoded = match &part.encoding {
        e if e.eq_ignore_ascii_case(b"base64") => base64_decode(body),
        e if e.eq_ignore_ascii_case(b"quoted-printable") => quoted_printable_decode(body),
        _ => None,
    };
    let bytes = decoded.as_deref().unwrap_or(body);
    let charset = part.parameter("charset").unwrap_or_default();
    // Much mail says US-ASCII, or nothing, and means UTF-8.
    if (charset.is_empty() || charset.eq_ignore_ascii_case(b"us-ascii"))
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return text.to_owned();
    }
    match charset_decoder(charset).filter(|_| !charset.is_empty()) {
        Some(decode) => decode(bytes),
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn slice<'a>(message: &'a [u8], range: &std::ops::Range<u64>) -> &'a [u8] {
    message.get(range.start as usize..range.end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encoded_text_is_found_as_it_reads() {
        assert_eq!(decode_header(b" =?utf-8?q?Gr=C3=BC=C3=9Fe?= from =?iso-8859-1?b?5A==?="), "Grüße from ä");
        assert_eq!(decode_header(b" plain\r\n folded"), "plain folded");
        assert_eq!(decode_header(b""), "");
        let message =
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ==\r\n";
        assert!(body_text(message).contains("grüße"));
        assert!(contains("Grüße", "grüß"));
    }

    #[test]
    fn charsets_and_encodings_of_bodies() {
        let body = |head: &str, body: &[u8]| body_text(&[head.as_bytes(), b"\r\n\r\n", body].concat());
        let qp = "Content-Transfer-Encoding: Quoted-Printable\r\nContent-Type: text/plain; charset=ISO-8859-1";
        for (head, bytes) in [
            (qp, b"Gr=FC=\r\n=DFe".as_slice()),
            ("Content-Type: text/html; charset=windows-1252", b"<p>Gr\xfc\xdfe</p>"),
            ("Content-Type: text/plain; charset=utf-16be", b"\0G\0r\0\xfc\0\xdf\0e"),
            ("Subject: no charset", "Grüße".as_bytes()),
            ("Content-Type: text/plain; charset=us-ascii", "Grüße".as_bytes()),
            ("Content-Type: text/plain; charset=us-ascii", b"Gr\xfc\xdfe"),
            ("Content-Type: text/plain; charset=no-such-thing", "Grüße".as_bytes()),
        ] {
            assert!(body(head, bytes).contains("grüße"), "{head}: {:?}", body(head, bytes));
        }
        assert!(
            body("Content-Transfer-Encoding: base64\r\nContent-Type: text/plain", b"!!not base64!!")
                .contains("not base64")
        );
    }

    #[test]
    fn what_body_and_text_look_into() {
        let message = b"Subject: =?utf-8?q?=C3=84pfel?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nBirnen\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"Kirschen.pdf\"\r\n\r\nquark\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Pflaumen\r\n\r\nTrauben\r\n--b--\r\n";
        let (body, text) = (body_text(message), search_text(message));
        for fruit in ["birnen", "kirschen.pdf", "pflaumen", "trauben"] {
            assert!(body.contains(fruit) && text.contains(fruit), "{fruit}");
        }
        assert!(!body.contains("äpfel") && text.contains("subject: äpfel"));
        assert!(!text.contains("quark"), "an attachment's bytes are no text");
        assert_eq!(header_text(b"A: X\r\nB: Y\r\n\r\n"), "a: x\nb: y\n");
    }

    #[test]
    fn messages_in_messages_without_end_are_searched_on_a_small_stack() {
        let deep = format!("{}\r\nneedle\r\n", "Subject: x\r\nContent-Type: message/rfc822\r\n\r\n".repeat(100_000));
        let search = std::thread::Builder::new().stack_size(1 << 20).spawn(move || search_text(deep.as_bytes()).len());
        assert!(search.is_ok_and(|s| s.join().is_ok_and(|len| len > 0)));
    }

    #[test]
    fn dates_with_their_zone() {
        assert_eq!(parse_date(b" Mon, 1 Jan 2024 02:00:00 +0200"), Some((1_704_067_200, 120)));
        assert_eq!(parse_date(b"31 Dec 2023 19:00:00 -0500"), Some((1_704_067_200, -300)));
        assert_eq!(parse_date(b"yesterday"), None);
    }

    const CHARSETS: [&str; 12] = [
        "utf-7",
        "utf-16",
        "utf-16le",
        "big5",
        "gb18030",
        "gbk",
        "euc-jp",
        "iso-2022-jp",
        "shift_jis",
        "euc-kr",
        "koi8-r",
        "x",
    ];

    proptest! {
        #[test]
        fn no_body_panics_in_any_charset(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0..12usize, e in 0..3usize) {
            let encoding = ["base64", "quoted-printable", "8bit"][e];
            let head = format!("Content-Type: text/plain; charset={}\nContent-Transfer-Encoding: {encoding}\n\n", CHARSETS[n]);
            search_text(&[head.as_bytes(), &bytes].concat());
        }

        #[test]
        fn no_field_panics(text in "[ -~]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..100), n in 0..12usize) {
            decode_header(&bytes);
            decode_header(text.as_bytes());
            decode_header(format!("=?{}?b?{text}?= =?{0}?q?{text}?=", CHARSETS[n]).as_bytes());
            parse_date(&bytes);
            parse_date(text.as_bytes());
        }

        #[test]
        fn no_date_panics(text in "[0-9 :+(),A-Za-z\\-]{0,60}") {
            parse_date(text.as_bytes());
        }
    }
}
