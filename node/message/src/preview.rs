//! What a message begins with, as people read it (RFC 8970).

use mail_parser::decoders::html::html_to_text;

use crate::search::decode_text;
use crate::structure::{Body, Part};
use crate::transfer;

/// Characters of a preview.
pub const PREVIEW_MAX_CHARS: usize = 200;
/// So many bytes of a part are read for it.
pub const PREVIEW_READ_MAX_BYTES: u64 = 16 << 10;

/// The part that a preview is made of: the first plain text that is shown within the message, else the first HTML.
pub fn part(root: &Part) -> Option<&Part> {
    shown(root, &mut |part| !is_html(part)).or_else(|| shown(root, &mut is_html))
}

/// The preview, of the beginning of that part's body.
pub fn text(part: &Part, body: &[u8]) -> String {
    let decoded = decode_text(&transfer::decode(&part.encoding, body), part.parameter("charset").unwrap_or_default());
    let readable = if is_html(part) { html_to_text(&decoded) } else { decoded };
    let mut out = String::new();
    // What is quoted was in another message.
    let own = readable.lines().filter(|line| !line.starts_with('>'));
    for word in own.flat_map(str::split_whitespace) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().filter(|c| !c.is_control() && *c != '\u{fffd}'));
        if out.len() >= PREVIEW_MAX_CHARS * 4 {
            break;
        }
    }
    out.trim_end().chars().take(PREVIEW_MAX_CHARS).collect()
}

fn shown<'p>(part: &'p Part, fits: &mut impl FnMut(&Part) -> bool) -> Option<&'p Part> {
    match &part.kind {
        Body::Multipart(inner) => inner.iter().find_map(|inner| shown(inner, fits)),
        Body::Text => {
            let attached = part.disposition.as_ref().is_some_and(|(kind, _)| kind.eq_ignore_ascii_case(b"attachment"));
            (!attached && fits(part)).then_some(part)
        }
        Body::Leaf | Body::Message(_) => None,
    }
}

fn is_html(part: &Part) -> bool {
    part.subtype.eq_ignore_ascii_case(b"html")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn preview(message: &str) -> Option<String> {
        let root = Part::parse(message.as_bytes()).unwrap();
        let part = part(&root)?;
        Some(text(part, &message.as_bytes()[part.body.start as usize..part.body.end as usize]))
    }

    #[test]
    fn a_preview_is_what_people_read_first() {
        assert_eq!(preview("A: b\r\n\r\nHello,\r\n> quoted\r\n\r\n  you  there\r\n").unwrap(), "Hello, you there");
        assert_eq!(
            preview("Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<html><head><title>x</title><style>p {}</style></head><p>Gr=FC=DFe</p><br>an alle").unwrap(),
            "Gr\u{fc}\u{df}e an alle"
        );
        let both = "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>html</b>\r\n--b\r\n\r\nplain\r\n--b--\r\n";
        assert_eq!(preview(both).unwrap(), "plain");
        assert_eq!(preview("Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx\r\n"), None);
        assert_eq!(preview("Content-Type: image/png\r\n\r\nx\r\n"), None);
        assert_eq!(preview("A: b\r\n\r\n").unwrap(), "");
        let long = preview(&format!("A: b\r\n\r\n{}", "\u{e4}".repeat(1_000))).unwrap();
        assert_eq!(long, "\u{e4}".repeat(PREVIEW_MAX_CHARS));
    }

    proptest! {
        #[test]
        fn no_body_panics(html in any::<bool>(), words in proptest::collection::vec(prop_oneof![
            "[ -~]{0,8}", Just("<".to_owned()), Just(">".to_owned()), Just("<script".to_owned()), Just("<!--".to_owned()),
            Just("&#x".to_owned()), Just("&#99999999999;".to_owned()), Just("&amp".to_owned()), Just("\u{e4}".to_owned()), Just("</".to_owned()),
        ], 0..30)) {
            let kind = if html { "html" } else { "plain" };
            let preview = preview(&format!("Content-Type: text/{kind}\r\n\r\n{}", words.concat())).unwrap();
            prop_assert!(preview.chars().count() <= PREVIEW_MAX_CHARS);
        }
    }
}
