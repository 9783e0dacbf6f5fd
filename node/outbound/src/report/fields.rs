//! Writes header fields and lines of text that stay what they are, whatever stands in them.

use super::told::{DIAGNOSTIC_MAX_BYTES, ECHO_MAX_BYTES};

/// Lines are folded to this length where they can be, in characters (RFC 5322, section 2.1.1).
const LINE_CHARS: usize = 76;
/// A word is cut where it is longer, in bytes, so that no line is longer than 998.
const WORD_MAX_BYTES: usize = 512;

/// What may stand in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    Ascii,
    /// Of RFC 6532.
    Utf8,
}

impl Charset {
    pub(super) fn has(self, text: &str) -> bool {
        match self {
            Charset::Ascii => text.is_ascii(),
            Charset::Utf8 => true,
        }
    }
}

/// A report as it grows.
pub(super) struct Fields {
    out: String,
    charset: Charset,
}

impl Fields {
    pub(super) fn new(charset: Charset) -> Self {
        Fields { out: String::new(), charset }
    }

    pub(super) fn charset(&self) -> Charset {
        self.charset
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out.into_bytes()
    }

    /// What is ours, as it is.
    pub(super) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// A field, folded between its words.
    pub(super) fn field(&mut self, name: &str, value: &str) {
        self.wrap(&format!("{name}: "), value, " ");
    }

    /// A field with words of others behind ours, of bounded length.
    pub(super) fn long(&mut self, name: &str, ours: &str, theirs: &str) {
        let value = format!("{ours}{}", cut(theirs, DIAGNOSTIC_MAX_BYTES));
        self.field(name, &value);
    }

    /// A field on one line: an address is not to be torn.
    pub(super) fn whole(&mut self, name: &str, value: &str) {
        self.out.push_str(name);
        self.out.push_str(": ");
        self.line(value);
    }

    /// A line of text, of bounded length.
    pub(super) fn line(&mut self, text: &str) {
        let charset = self.charset;
        self.out.extend(cut(text, 2 * ECHO_MAX_BYTES - 128).chars().map(|c| harmless(c, charset)));
        self.out.push_str("\r\n");
    }

    /// Text in lines that all begin with this.
    pub(super) fn paragraph(&mut self, indent: &str, text: &str) {
        self.wrap(indent, text, indent);
    }

    /// Words of others in lines that all begin with this, of bounded length.
    pub(super) fn quote(&mut self, indent: &str, ours: &str, theirs: &str) {
        self.paragraph(indent, &format!("{} {}", cut(ours, DIAGNOSTIC_MAX_BYTES), cut(theirs, DIAGNOSTIC_MAX_BYTES)));
    }

    fn wrap(&mut self, first: &str, text: &str, indent: &str) {
        let charset = self.charset;
        let clean: String = text.chars().map(|c| harmless(c, charset)).collect();
        self.out.push_str(first);
        let mut chars = first.chars().count();
        let mut begun = false;
        for mut word in clean.split(' ').filter(|word| !word.is_empty()) {
            while !word.is_empty() {
                let piece = cut(word, WORD_MAX_BYTES);
                word = &word[piece.len()..];
                let length = piece.chars().count();
                if begun && chars + 1 + length > LINE_CHARS {
                    self.out.push_str("\r\n");
                    self.out.push_str(indent);
                    chars = indent.chars().count();
                } else if begun {
                    self.out.push(' ');
                    chars += 1;
                }
                self.out.push_str(piece);
                chars += length;
                begun = true;
            }
        }
        self.out.push_str("\r\n");
    }
}

/// The beginning of a text that has at most so many bytes.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// What ends no line and no field, and can be shown.
fn harmless(c: char, charset: Charset) -> char {
    match c {
        ' '..='~' => c,
        '\t' | '\r' | '\n' => ' ',
        // What turns the direction of writing can make an address look like another one.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        '\u{2028}' | '\u{2029}' => ' ',
        c if c.is_control() => '?',
        c => match charset {
            Charset::Ascii => '?',
            Charset::Utf8 => c,
        },
    }
}

/// What a value in xtext means (RFC 3461, section 4); as it is where that can't stand in a field, and None where that can't
/// either.
pub(super) fn xtext(coded: &str, charset: Charset) -> Option<String> {
    let is_printable = |text: &str| !text.is_empty() && !text.chars().any(char::is_control) && charset.has(text);
    if coded.len() > ECHO_MAX_BYTES {
        return None;
    }
    decoded(coded).filter(|text| is_printable(text)).or_else(|| is_printable(coded).then(|| coded.to_owned()))
}

fn decoded(coded: &str) -> Option<String> {
    let (mut out, mut bytes) = (Vec::with_capacity(coded.len()), coded.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'+' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(value: &str, charset: Charset) -> String {
        let mut fields = Fields::new(charset);
        fields.field("X", value);
        fields.out
    }

    #[test]
    fn fields_are_folded_between_words_and_long_words_are_cut() {
        assert_eq!(field("a  b\tc", Charset::Ascii), "X: a b c\r\n");
        assert_eq!(field("", Charset::Ascii), "X: \r\n");
        let folded = field(&"word ".repeat(100), Charset::Ascii);
        assert!(folded.lines().count() > 5 && folded.lines().all(|line| line.len() <= LINE_CHARS), "{folded}");
        let long = field(&"x".repeat(5_000), Charset::Ascii);
        assert!(long.split("\r\n").all(|line| line.len() <= 998) && long.len() > 5_000);
    }

    #[test]
    fn nothing_ends_a_line_or_looks_like_another_one() {
        assert_eq!(field("a\r\nBcc: b\0\u{202e}\u{f6}", Charset::Ascii), "X: a Bcc: b???\r\n");
        assert_eq!(field("\u{f6}\u{85}\u{2028}x", Charset::Utf8), "X: \u{f6}? x\r\n");
    }

    #[test]
    fn xtext_is_told_decoded_where_that_can_be_told() {
        for (coded, is) in [
            ("jane+2Bx@example.org", Some("jane+x@example.org")),
            ("a+0D+0ABcc:", Some("a+0D+0ABcc:")),
            ("a+C3+B6", Some("a+C3+B6")),
            ("a+x", Some("a+x")),
            ("a\r\n", None),
            ("\u{f6}", None),
            ("", None),
        ] {
            assert_eq!(xtext(coded, Charset::Ascii).as_deref(), is, "{coded}");
        }
        assert_eq!(xtext("a+C3+B6", Charset::Utf8).as_deref(), Some("a\u{f6}"));
        assert_eq!(xtext(&"x".repeat(ECHO_MAX_BYTES + 1), Charset::Ascii), None);
    }
}
