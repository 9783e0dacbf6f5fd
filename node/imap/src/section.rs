//! Which bytes of a message a section is (RFC 3501, section 6.4.5).

use std::ops::Range;

use mailraft_message::{Part, header, transfer};

use crate::cursor::{Cursor, Read, wrong};

/// Numbers in a section.
const PATH_MAX: usize = 100;
/// Names in one HEADER.FIELDS: each is compared with each field.
const NAMES_MAX: usize = 500;

/// `BODY[...]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Part numbers.
    pub path: Vec<u32>,
    /// Which of the part's bytes.
    pub text: SectionText,
}

/// Which bytes of a part a section names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// All of it (without its MIME header, if it is a part).
    All,
    /// HEADER
    Header,
    /// HEADER.FIELDS, or with true HEADER.FIELDS.NOT
    Fields(Vec<Vec<u8>>, bool),
    /// TEXT
    Text,
    /// MIME
    Mime,
}

/// Where a section's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes<'p> {
    /// A range of the message.
    Range(Range<u64>),
    /// Some fields of the header that is this range.
    Fields(Range<u64>, Vec<Vec<u8>>, bool),
    /// A section of the message that this range is when it is decoded.
    Encoded {
        /// Where the encoded message stands.
        range: Range<u64>,
        /// Its Content-Transfer-Encoding.
        encoding: &'p [u8],
        /// Its structure.
        root: &'p Part,
        /// The section inside it.
        section: Section,
    },
    /// There is no such part.
    None,
}

impl Section {
    /// Reads `[...]`.
    pub fn parse(c: &mut Cursor<'_>) -> Read<Section> {
        c.expect(b'[')?;
        let mut path = Vec::new();
        // A number or a word must follow a point, and only a point or the end may follow a number.
        let mut point = false;
        while c.peek().is_some_and(|b| b.is_ascii_digit()) {
            let number = c.number32()?;
            if number == 0 || path.len() >= PATH_MAX {
                return wrong("no such part");
            }
            path.push(number);
            point = c.eat(b'.');
            if !point {
                break;
            }
        }
        if !point && c.eat(b']') {
            return Ok(Section { path, text: SectionText::All });
        }
        if !point && !path.is_empty() {
            return wrong("no such section");
        }
        let word = c.word()?;
        let text = match word.as_str() {
            "HEADER" => SectionText::Header,
            "TEXT" => SectionText::Text,
            "MIME" if !path.is_empty() => SectionText::Mime,
            "HEADER.FIELDS" | "HEADER.FIELDS.NOT" => {
                c.space()?;
                c.open()?;
                let mut names = Vec::new();
                while !c.close() {
                    let name = c.astring()?;
                    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
                        return wrong("not the name of a header field");
                    }
                    if names.len() >= NAMES_MAX {
                        return wrong("too many names of header fields");
                    }
                    names.push(name);
                    c.eat(b' ');
                }
                if names.is_empty() {
                    return wrong("the name of a header field is missing");
                }
                SectionText::Fields(names, word.ends_with("NOT"))
            }
            _ => return wrong("no such section"),
        };
        c.expect(b']')?;
        Ok(Section { path, text })
    }

    /// As it is told in the response.
    pub fn print(&self) -> String {
        let path: Vec<String> = self.path.iter().map(ToString::to_string).collect();
        let text = match &self.text {
            SectionText::All => String::new(),
            SectionText::Header => "HEADER".into(),
            SectionText::Text => "TEXT".into(),
            SectionText::Mime => "MIME".into(),
            SectionText::Fields(names, not) => {
                let mut list = Vec::new();
                for (n, name) in names.iter().enumerate() {
                    if n > 0 {
                        list.push(b' ');
                    }
                    match name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
                        true => list.extend_from_slice(name),
                        false => crate::print::string(&mut list, name),
                    }
                }
                format!("HEADER.FIELDS{} ({})", if *not { ".NOT" } else { "" }, String::from_utf8_lossy(&list))
            }
        };
        match (path.is_empty(), text.is_empty()) {
            (true, _) => text,
            (false, true) => path.join("."),
            (false, false) => format!("{}.{text}", path.join(".")),
        }
    }

    /// Whether the header block alone can answer it.
    pub fn is_of_top_header(&self) -> bool {
        self.path.is_empty() && matches!(self.text, SectionText::Header | SectionText::Fields(..))
    }

    /// Where its bytes are in a message of this structure.
    pub fn bytes<'p>(&self, root: &'p Part) -> Bytes<'p> {
        if let Some((part, rest)) = root.first_encoded(&self.path)
            && let Some(inside) = part.message()
            && (!rest.is_empty() || !matches!(self.text, SectionText::All | SectionText::Mime))
        {
            let section = Section { path: rest.to_vec(), text: self.text.clone() };
            return Bytes::Encoded { range: part.body.clone(), encoding: &part.encoding, root: inside, section };
        }
        let Some(part) = root.find(&self.path) else { return Bytes::None };
        if self.path.is_empty() {
            return match &self.text {
                SectionText::All => Bytes::Range(part.header.start..part.body.end),
                SectionText::Header => Bytes::Range(part.header.clone()),
                SectionText::Text => Bytes::Range(part.body.clone()),
                SectionText::Fields(names, not) => Bytes::Fields(part.header.clone(), names.clone(), *not),
                SectionText::Mime => Bytes::None,
            };
        }
        match &self.text {
            SectionText::All => Bytes::Range(part.body.clone()),
            SectionText::Mime => Bytes::Range(part.header.clone()),
            // These are about the message inside a part.
            SectionText::Header => part.message().map_or(Bytes::None, |m| Bytes::Range(m.header.clone())),
            SectionText::Text => part.message().map_or(Bytes::None, |m| Bytes::Range(m.body.clone())),
            SectionText::Fields(names, not) => {
                part.message().map_or(Bytes::None, |m| Bytes::Fields(m.header.clone(), names.clone(), *not))
            }
        }
    }
}

/// The bytes of a section of a message that is in memory; None if it has no such part.
pub fn of_message(section: &Section, root: &Part, message: &[u8]) -> Option<Vec<u8>> {
    let bytes = |range: Range<u64>| message.get(range.start as usize..range.end as usize).unwrap_or_default();
    match section.bytes(root) {
        Bytes::Range(range) => Some(bytes(range).to_vec()),
        Bytes::Fields(range, names, not) => Some(fields(bytes(range), &names, not)),
        Bytes::Encoded { range, encoding, root, section } => {
            of_message(&section, root, &transfer::decode(encoding, bytes(range)))
        }
        Bytes::None => None,
    }
}

/// The fields of a header block that a section names.
pub fn fields(block: &[u8], names: &[Vec<u8>], not: bool) -> Vec<u8> {
    header::subset(block, names, not)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decoder::Piece;

    fn section(text: &str) -> Read<Section> {
        let pieces = [Piece::Text(text.as_bytes().to_vec())];
        let mut c = Cursor::new(&pieces);
        let section = Section::parse(&mut c)?;
        c.end()?;
        Ok(section)
    }

    #[test]
    fn sections_print_as_they_parse() {
        for text in [
            "[]",
            "[HEADER]",
            "[TEXT]",
            "[1]",
            "[1.2.MIME]",
            "[2.HEADER]",
            "[HEADER.FIELDS (From Subject)]",
            "[1.HEADER.FIELDS.NOT (To)]",
        ] {
            assert_eq!(format!("[{}]", section(text).unwrap().print()), text);
        }
        for text in [
            "[MIME]",
            "[0]",
            "[FOO]",
            "[1",
            "[HEADER.FIELDS]",
            "[HEADER.FIELDS ()]",
            "[1.]",
            "[1MIME]",
            "[1.2",
            "[HEADER.FIELDS (\"a b\")]",
        ] {
            assert!(section(text).is_err(), "{text}");
        }
        assert!(section(&format!("[HEADER.FIELDS ({})]", ["A"; NAMES_MAX].join(" "))).is_ok());
        assert!(section(&format!("[HEADER.FIELDS ({})]", ["A"; NAMES_MAX + 1].join(" "))).is_err());
    }

    #[test]
    fn sections_are_ranges() {
        let message = b"A: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nB: 2\r\n\r\nin\r\n--b--\r\n";
        let root = Part::parse(message).unwrap();
        let text = |s: &str| match section(s).unwrap().bytes(&root) {
            Bytes::Range(r) => Some(String::from_utf8_lossy(&message[r.start as usize..r.end as usize]).into_owned()),
            Bytes::Fields(..) | Bytes::Encoded { .. } | Bytes::None => None,
        };
        assert_eq!(text("[]").unwrap().len(), message.len());
        assert_eq!(text("[1.MIME]").as_deref(), Some("Content-Type: message/rfc822\r\n\r\n"));
        assert_eq!(text("[1.HEADER]").as_deref(), Some("B: 2\r\n\r\n"));
        assert_eq!(text("[1.TEXT]").as_deref(), Some("in"));
        assert_eq!(text("[1]").as_deref(), Some("B: 2\r\n\r\nin"));
        assert_eq!(text("[2]"), None);
    }
}
