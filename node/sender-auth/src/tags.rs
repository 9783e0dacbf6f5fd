//! Lists of `tag=value` (RFC 6376, section 3.2), as signatures, keys and policies have them.

use std::ops::Range;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// A list that is of the grammar: each name once.
#[derive(Clone, Debug)]
pub(crate) struct Tags<'a> {
    text: &'a [u8],
    tags: Vec<(&'a str, Range<usize>)>,
}

/// The most tags of a list.
const TAGS_MAX: usize = 64;

/// Others are not as strict about what fills the last octet.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'a> Tags<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut tags: Vec<(&str, Range<usize>)> = Vec::new();
        let mut at = 0;
        while at <= text.len() {
            let end = memchr::memchr(b';', &text[at..]).map_or(text.len(), |found| at + found);
            let part = &text[at..end];
            match memchr::memchr(b'=', part) {
                Some(equals) => {
                    let name = std::str::from_utf8(part[..equals].trim_ascii()).ok()?;
                    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                    if !is_name || tags.iter().any(|(other, _)| *other == name) || tags.len() == TAGS_MAX {
                        return None;
                    }
                    tags.push((name, at + equals + 1..end));
                }
                // What follows the last semicolon may be nothing.
                None if end == text.len() && part.trim_ascii().is_empty() => {}
                None => return None,
            }
            at = end + 1;
        }
        Some(Tags { text, tags })
    }

    /// Where a tag's value stands, white space and all.
    pub(crate) fn range(&self, name: &str) -> Option<Range<usize>> {
        self.tags.iter().find(|(other, _)| *other == name).map(|(_, range)| range.clone())
    }

    /// A tag's value without white space around it.
    pub(crate) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.range(name).map(|range| self.text[range].trim_ascii())
    }

    /// The same as text; None also if it is none.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.bytes(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The name of the first tag.
    pub(crate) fn first(&self) -> Option<&'a str> {
        self.tags.first().map(|(name, _)| *name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.range(name).is_some()
    }

    /// The octets that a tag has in base64, folded as it may be.
    pub(crate) fn base64(&self, name: &str) -> Option<Vec<u8>> {
        let coded: Vec<u8> = self.bytes(name)?.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        BASE64.decode(coded).ok()
    }

    /// Numbers, at most 12 digits.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ()> {
        match self.text(name) {
            None if self.has(name) => Err(()),
            None => Ok(None),
            Some(digits) => match digits.len() <= 12 && digits.bytes().all(|b| b.is_ascii_digit()) {
                true => digits.parse().map(Some).map_err(drop),
                false => Err(()),
            },
        }
    }
}

/// The parts of a list that colons divide, without white space.
pub(crate) fn colons(list: &str) -> impl Iterator<Item = &str> {
    list.split(':').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_are_written() {
        let tags = Tags::parse(b"v=1; a = rsa-sha256;\r\n\tb=YW\r\n Jj ;empty=;").unwrap();
        assert_eq!((tags.first(), tags.text("a"), tags.text("empty")), (Some("v"), Some("rsa-sha256"), Some("")));
        assert_eq!(tags.base64("b").unwrap(), b"abc");
        assert!(!tags.has("A"));
        assert_eq!(tags.range("b"), Some(25..33));
        for wrong in ["a=1;a=2", "a", "=1", "a=1;;b=2", "1a=x", "a b=1"] {
            assert!(Tags::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(Tags::parse(b"").unwrap().first().is_none());
        let many: String = (0..=TAGS_MAX).map(|n| format!("t{n}=1;")).collect();
        assert!(Tags::parse(many.as_bytes()).is_none());
    }

    #[test]
    fn numbers_are_bounded() {
        let tags = Tags::parse(b"a=12;b=;c=-1;d=9999999999999").unwrap();
        assert_eq!((tags.number("a"), tags.number("z")), (Ok(Some(12)), Ok(None)));
        assert!(tags.number("c").is_err() && tags.number("d").is_err() && tags.number("b").is_err());
    }
}
