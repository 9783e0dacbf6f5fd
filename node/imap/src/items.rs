//! What FETCH tells of a message (RFC 3501, section 6.4.5), as it is asked for.

use mailraft_mailbox::api::FetchWhat;

use crate::cursor::{Cursor, Read, wrong};
use crate::section::{Section, SectionText};

/// Items of one FETCH.
const ITEMS_MAX: usize = 200;

/// An item of FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Flags,
    Uid,
    Modseq,
    InternalDate,
    Size,
    EmailId,
    ThreadId,
    SaveDate,
    Preview,
    Envelope,
    Structure {
        extended: bool,
    },
    /// The name it is told under, the section, and `<from.length>`.
    Section {
        name: String,
        section: Section,
        partial: Option<(u64, u64)>,
        peek: bool,
    },
    /// A part without its transfer encoding, as it is told, and `<from.length>` (RFC 3516).
    Binary {
        name: String,
        path: Vec<u32>,
        partial: Option<(u64, u64)>,
        peek: bool,
    },
    /// The size of such a part.
    BinarySize {
        name: String,
        path: Vec<u32>,
    },
}

impl Item {
    /// Whether it marks a message as seen.
    pub fn reads(&self) -> bool {
        matches!(self, Item::Section { peek: false, .. } | Item::Binary { peek: false, .. })
    }

    /// The length of the name it is told under, where the client chose that.
    pub fn name_bytes(&self) -> usize {
        match self {
            Item::Section { name, .. } | Item::Binary { name, .. } | Item::BinarySize { name, .. } => name.len(),
            Item::Flags
            | Item::Uid
            | Item::Modseq
            | Item::InternalDate
            | Item::Size
            | Item::EmailId
            | Item::ThreadId
            | Item::SaveDate
            | Item::Preview
            | Item::Envelope
            | Item::Structure { .. } => 0,
        }
    }

    /// What of a message it is made of.
    pub fn needs(&self) -> FetchWhat {
        let (content, header) = match self {
            Item::Flags | Item::Uid | Item::Modseq | Item::ThreadId | Item::SaveDate => (false, false),
            Item::InternalDate | Item::Size | Item::EmailId => (true, false),
            Item::Envelope | Item::Structure { .. } => (false, true),
            Item::Preview | Item::Section { .. } | Item::Binary { .. } | Item::BinarySize { .. } => (true, true),
        };
        FetchWhat { content, header }
    }
}

/// The items of a FETCH: one, several in parentheses, or a macro.
pub fn items(c: &mut Cursor<'_>) -> Read<Vec<Item>> {
    if c.peek() != Some(b'(') {
        let macros = match c.peek_word().as_str() {
            "ALL" => Some(vec![Item::Flags, Item::InternalDate, Item::Size, Item::Envelope]),
            "FAST" => Some(vec![Item::Flags, Item::InternalDate, Item::Size]),
            "FULL" => Some(vec![
                Item::Flags,
                Item::InternalDate,
                Item::Size,
                Item::Envelope,
                Item::Structure { extended: false },
            ]),
            _ => None,
        };
        if let Some(items) = macros {
            c.word()?;
            return Ok(items);
        }
        return Ok(vec![item(c)?]);
    }
    c.open()?;
    let mut items = Vec::new();
    while !c.close() {
        items.push(item(c)?);
        if items.len() > ITEMS_MAX {
            return wrong("too many items");
        }
        c.eat(b' ');
    }
    if items.is_empty() { wrong("FETCH wants an item") } else { Ok(items) }
}

fn item(c: &mut Cursor<'_>) -> Read<Item> {
    let word = c.word()?;
    let old = |name: &str, text: SectionText, peek: bool| Item::Section {
        name: name.to_owned(),
        section: Section { path: Vec::new(), text },
        partial: None,
        peek,
    };
    Ok(match word.as_str() {
        "FLAGS" => Item::Flags,
        "UID" => Item::Uid,
        "MODSEQ" => Item::Modseq,
        "INTERNALDATE" => Item::InternalDate,
        "RFC822.SIZE" => Item::Size,
        "EMAILID" => Item::EmailId,
        "THREADID" => Item::ThreadId,
        "SAVEDATE" => Item::SaveDate,
        "PREVIEW" => {
            lazy(c)?;
            Item::Preview
        }
        "BINARY" | "BINARY.PEEK" | "BINARY.SIZE" => {
            let section = Section::parse(c)?;
            if section.text != SectionText::All {
                return wrong("BINARY is of parts");
            }
            let name = format!("[{}]", section.print());
            match word.as_str() {
                "BINARY.SIZE" => Item::BinarySize { name: format!("BINARY.SIZE{name}"), path: section.path },
                word => Item::Binary {
                    name: format!("BINARY{name}"),
                    path: section.path,
                    partial: partial(c)?,
                    peek: word == "BINARY.PEEK",
                },
            }
        }
        "ENVELOPE" => Item::Envelope,
        "BODYSTRUCTURE" => Item::Structure { extended: true },
        "RFC822" => old("RFC822", SectionText::All, false),
        "RFC822.HEADER" => old("RFC822.HEADER", SectionText::Header, true),
        "RFC822.TEXT" => old("RFC822.TEXT", SectionText::Text, false),
        "BODY" if c.peek() != Some(b'[') => Item::Structure { extended: false },
        "BODY" | "BODY.PEEK" => {
            let section = Section::parse(c)?;
            let partial = partial(c)?;
            Item::Section { name: format!("BODY[{}]", section.print()), section, partial, peek: word == "BODY.PEEK" }
        }
        other => return wrong(format!("FETCH does not know {other}")),
    })
}

/// `<from.length>`
fn partial(c: &mut Cursor<'_>) -> Read<Option<(u64, u64)>> {
    if !c.eat(b'<') {
        return Ok(None);
    }
    let from = c.number32()?;
    c.expect(b'.')?;
    let length = c.number32()?;
    c.expect(b'>')?;
    if length == 0 {
        return wrong("a part of no bytes");
    }
    Ok(Some((u64::from(from), u64::from(length))))
}

/// `(LAZY)` behind PREVIEW: what is made at once needs no patience.
fn lazy(c: &mut Cursor<'_>) -> Read<()> {
    if c.eat_text(" (LAZY") { c.expect(b')') } else { Ok(()) }
}
