//! Text to search in (RFC 3501, section 6.4.4): decoded, and in lower case.
//!
//! `mail-parser` decodes single fields; its own trees are as deep as the message says, and dropping one can overflow a
//! thread's stack.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::{HeaderValue, MessageParser};

use crate::header::{fields, unfold};

/// A text as texts are compared: in lower case, and a sigma is one wherever in its word it stands.
pub fn folded(text: &str) -> String {
    let lower = text.to_lowercase();
    if lower.contains('\u{3c2}') { lower.replace('\u{3c2}', "\u{3c3}") } else { lower }
}

/// A header field's value decoded (RFC 2047), on one line.
pub fn decode_header(raw: &[u8]) -> String {
    let flat = unfold(raw);
    if memchr::memmem::find(&flat, b"=?").is_none() {
        return String::from_utf8_lossy(&flat).into_owned();
    }
    let line = [b"Subject: ".as_slice(), &flat, b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&line);
    let decoded = parsed.and_then(|m| match m.header("Subject") {
        Some(HeaderValue::Text(text)) => Some(text.to_string()),
        _ => None,
    });
    decoded.unwrap_or_else(|| String::from_utf8_lossy(&flat).into_owned())
}

/// Header fields, decoded and [`folded`], one a line.
pub fn header_text(block: &[u8]) -> String {
    let mut out = String::new();
    for field in fields(block) {
        out.push_str(&String::from_utf8_lossy(field.name));
        out.push_str(": ");
        out.push_str(&decode_header(field.value));
        out.push('\n');
    }
    folded(&out)
}

/// Whether a text holds another, whatever the case; `needle` is [`folded`] already.
pub fn contains(haystack: &str, needle: &str) -> bool {
    folded(haystack).contains(needle)
}

/// The charset of what is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Charset {
    /// UTF-8, of which US-ASCII is a part.
    Utf8,
    /// Another one.
    Other(fn(&[u8]) -> String),
}

impl Charset {
    /// Some of those that there are, in the names that most programs know.
    pub const NAMES: &str = "UTF-8 US-ASCII ISO-8859-1 ISO-8859-2 ISO-8859-5 ISO-8859-7 ISO-8859-15 WINDOWS-1250 WINDOWS-1251 \
                             WINDOWS-1252 KOI8-R KOI8-U ISO-2022-JP SHIFT_JIS EUC-JP EUC-KR GB2312 GBK GB18030 BIG5 UTF-7";

    /// The charset of a name, if there is one.
    pub fn named(name: &[u8]) -> Option<Charset> {
        if [b"UTF-8".as_slice(), b"US-ASCII"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Some(Charset::Utf8);
        }
        charset_decoder(name).filter(|_| !name.is_empty()).map(Charset::Other)
    }

    /// A text of it; None if it is none.
    pub fn decode(self, bytes: Vec<u8>) -> Option<String> {
        match self {
            Charset::Utf8 => String::from_utf8(bytes).ok(),
            Charset::Other(decode) => Some(decode(&bytes)),
        }
    }
}

/// A text of this charset. Bytes that can't be decoded are searched as they are.
pub(crate) fn decode_text(bytes: &[u8], charset: &[u8]) -> String {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encoded_text_is_found_as_it_reads() {
        assert_eq!(decode_header(b" =?utf-8?q?Gr=C3=BC=C3=9Fe?= from =?iso-8859-1?b?5A==?="), "Grüße from ä");
        assert_eq!(decode_header(b" plain\r\n folded"), "plain folded");
        assert_eq!(decode_header(b""), "");
        assert!(contains("Grüße", "grüß"));
        // A sigma at the end of a word, of a piece of one, and of what is looked for.
        for (text, part) in [("ΟΔΟΣΑ", "ΟΔΟΣ"), ("οδός", "ΌΣ"), ("ΑΣΒ", "ΑΣ"), ("ας", "ασ"), ("ας", "Σ")]
        {
            assert!(contains(text, &folded(part)), "{part} in {text}");
        }
    }

    #[test]
    fn texts_of_every_charset() {
        for (charset, bytes) in [
            ("windows-1252", b"Gr\xfc\xdfe".as_slice()),
            ("utf-16be", b"\0G\0r\0\xfc\0\xdf\0e"),
            ("", "Grüße".as_bytes()),
            ("us-ascii", "Grüße".as_bytes()),
            ("us-ascii", b"Gr\xfc\xdfe"),
        ] {
            assert_eq!(decode_text(bytes, charset.as_bytes()), "Grüße", "{charset}");
        }
        assert_eq!(decode_text("Grüße".as_bytes(), b"no-such-thing"), "Grüße");
        assert_eq!(header_text(b"A: X\r\nB: =?utf-8?q?=C3=84?=\r\n\r\n"), "a: x\nb: ä\n");
    }

    #[test]
    fn a_field_without_encoded_words_reads_as_if_it_were_decoded() {
        for text in ["a", "a  b", "a\tb", "a \"b\" (c) <d@e>, =f?", "J\u{f6}rg", "=", "a =\u{e4}? b"] {
            let line = format!("Subject: {text}\r\n\r\n");
            let parsed = MessageParser::new().parse_headers(line.as_bytes()).unwrap();
            assert_eq!(parsed.subject(), Some(decode_header(text.as_bytes()).as_str()));
        }
    }

    #[test]
    fn every_charset_that_is_named_is_known() {
        assert!(Charset::NAMES.split(' ').all(|name| Charset::named(name.as_bytes()).is_some()));
        assert!(["", "x", "utf-99"].iter().all(|name| Charset::named(name.as_bytes()).is_none()));
        let decoded = |name: &str, bytes: &[u8]| Charset::named(name.as_bytes()).unwrap().decode(bytes.to_vec());
        assert_eq!(decoded("Utf-8", b"\xff"), None);
        assert_eq!(decoded("koi8-r", b"\xd0\xd2\xc9").as_deref(), Some("при"));
        assert_eq!(decoded("ISO-2022-JP", b"\x1b$B$\"\x1b(B").as_deref(), Some("あ"));
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
        fn no_body_panics_in_any_charset(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0..12usize) {
            decode_text(&bytes, CHARSETS[n].as_bytes());
        }

        #[test]
        fn no_field_panics(text in "[ -~]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..100), n in 0..12usize) {
            decode_header(&bytes);
            decode_header(text.as_bytes());
            decode_header(format!("=?{}?b?{text}?= =?{0}?q?{text}?=", CHARSETS[n]).as_bytes());
        }
    }
}
