//! Text to search in (RFC 3501, section 6.4.4): decoded, lower-cased, from header fields and text parts.

use mail_parser::{HeaderValue, MessageParser, MimeHeaders, PartType};

/// Text of one message that is searched, in bytes; what lies behind is not found.
pub const SEARCHED_MAX_BYTES: usize = 16 << 20;

/// A header field's value decoded (RFC 2047), on one line.
pub fn decode_header(raw: &[u8]) -> String {
    let line = [b"Subject: ".as_slice(), &crate::header::unfold(raw), b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&line);
    let decoded = parsed.and_then(|m| match m.header("Subject") {
        Some(HeaderValue::Text(text)) => Some(text.to_string()),
        _ => None,
    });
    decoded.unwrap_or_else(|| String::from_utf8_lossy(raw).trim().to_owned())
}

/// The text parts of a message, decoded and lower-cased.
pub fn body_text(message: &[u8]) -> String {
    let mut out = String::new();
    if let Some(parsed) = MessageParser::new().parse(message) {
        collect(&parsed, &mut out);
    }
    out.to_lowercase()
}

/// Whether a text holds another, whatever the case; `needle` is lower-case already.
pub fn contains(haystack: &str, needle: &str) -> bool {
    haystack.to_lowercase().contains(needle)
}

/// The date of a Date field: seconds since 1970-01-01 UTC, and minutes east of UTC.
pub fn parse_date(raw: &[u8]) -> Option<(i64, i16)> {
    let line = [b"Date: ".as_slice(), &crate::header::unfold(raw), b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&line)?;
    let date = parsed.date().filter(|d| d.is_valid())?;
    let minutes = i16::from(date.tz_hour) * 60 + i16::from(date.tz_minute);
    Some((date.to_timestamp(), if date.tz_before_gmt { -minutes } else { minutes }))
}

fn collect(message: &mail_parser::Message<'_>, out: &mut String) {
    for part in &message.parts {
        if out.len() >= SEARCHED_MAX_BYTES {
            return;
        }
        match &part.body {
            PartType::Text(text) | PartType::Html(text) => {
                out.push_str(text);
                out.push('\n');
            }
            PartType::Message(nested) => collect(nested, out),
            PartType::Binary(_) | PartType::InlineBinary(_) => {
                if let Some(name) = part.attachment_name() {
                    out.push_str(name);
                    out.push('\n');
                }
            }
            PartType::Multipart(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_text_is_found_as_it_reads() {
        assert_eq!(decode_header(b" =?utf-8?q?Gr=C3=BC=C3=9Fe?= from =?iso-8859-1?b?5A==?="), "Grüße from ä");
        assert_eq!(decode_header(b" plain\r\n folded"), "plain folded");
        let message = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ==\r\n";
        assert!(body_text(message).contains("grüße"));
        assert!(contains("Grüße", "grüß"));
    }

    #[test]
    fn dates_with_their_zone() {
        assert_eq!(parse_date(b" Mon, 1 Jan 2024 02:00:00 +0200"), Some((1_704_067_200, 120)));
        assert_eq!(parse_date(b"31 Dec 2023 19:00:00 -0500"), Some((1_704_067_200, -300)));
        assert_eq!(parse_date(b"yesterday"), None);
    }
}
