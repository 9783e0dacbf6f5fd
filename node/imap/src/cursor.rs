//! Reading a command's arguments (RFC 3501, section 9).

use mailraft_mailbox::Flags;
use mailraft_mailbox::flags::{KEYWORD_MAX_BYTES, KEYWORDS_MAX};
use mailraft_mailbox::{SystemFlag, UidSet, spelt};

use crate::decoder::Piece;
use crate::utf7::Spelling;

/// Why a command can't be understood: text for BAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

/// A part of a list (RFC 9394).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialRange {
    from_end: bool,
    first: u32,
    last: u32,
}

impl PartialRange {
    /// What of a list it is; nothing where the list has no such places.
    pub fn of<'l, T>(&self, list: &'l [T]) -> &'l [T] {
        let (before, upto) = (self.first as usize - 1, (self.last as usize).min(list.len()));
        if before >= upto {
            return &[];
        }
        if self.from_end { &list[list.len() - upto..list.len() - before] } else { &list[before..upto] }
    }

    /// As it is written.
    pub fn print(&self) -> String {
        let sign = if self.from_end { "-" } else { "" };
        format!("{sign}{}:{sign}{}", self.first, self.last)
    }
}

/// The result of reading an argument.
pub type Read<T> = Result<T, Wrong>;

/// A number or `*` in a sequence set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Number(u32),
    Largest,
}

/// A sequence set as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSet(pub Vec<(Bound, Bound)>);

impl SequenceSet {
    /// The set where this is the largest number.
    pub fn upto(&self, largest: u32) -> UidSet {
        let number = |bound: Bound| match bound {
            Bound::Number(n) => n,
            Bound::Largest => largest,
        };
        UidSet::from_ranges(self.0.iter().map(|(from, to)| (number(*from), number(*to))).collect())
    }
}

/// Which messages a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageSet {
    /// By their numbers or UIDs.
    Written(SequenceSet),
    /// `$`: what the last SEARCH with SAVE found (RFC 5182).
    Saved,
}

/// Ranges in one sequence set.
pub const SEQUENCE_RANGES_MAX: usize = 10_000;
/// No keyword of the protocol is longer.
const WORD_MAX_BYTES: usize = 64;
/// Parentheses within parentheses.
const NESTING_MAX: usize = 64;

/// Reads pieces from left to right.
pub struct Cursor<'a> {
    pieces: &'a [Piece],
    at: usize,
    offset: usize,
    depth: usize,
    /// Spaces at the end of the last piece count.
    spaces_at_end: bool,
    spelling: Spelling,
}

/// What becomes of \\Recent in a list of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recent {
    /// It is passed over: who copies messages from another server appends them with all flags they had.
    Ignored,
    /// It is wrong: no client can set it (RFC 3501, section 2.3.2).
    Wrong,
}

pub fn wrong<T>(text: impl Into<String>) -> Read<T> {
    Err(Wrong(text.into()))
}

impl<'a> Cursor<'a> {
    pub fn new(pieces: &'a [Piece]) -> Self {
        Cursor { pieces, at: 0, offset: 0, depth: 0, spaces_at_end: true, spelling: Spelling::ModifiedUtf7 }
    }

    /// Of a whole command: spaces at its end mean nothing.
    pub fn of_command(pieces: &'a [Piece]) -> Self {
        Cursor { spaces_at_end: false, ..Cursor::new(pieces) }
    }

    /// With folders' names spelt so.
    pub fn spelt(self, spelling: Spelling) -> Self {
        Cursor { spelling, ..self }
    }

    /// How the client spells folders' names.
    pub fn spelling(&self) -> Spelling {
        self.spelling
    }

    fn rest(&self) -> &'a [u8] {
        match self.pieces.get(self.at) {
            Some(Piece::Text(text)) if !self.spaces_at_end && self.at + 1 == self.pieces.len() => {
                let end = text.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
                text.get(self.offset..end).unwrap_or_default()
            }
            Some(Piece::Text(text)) => &text[self.offset..],
            Some(Piece::Literal(_)) | None => b"",
        }
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn at_literal(&self) -> bool {
        self.rest().is_empty() && matches!(self.pieces.get(self.at + 1), Some(Piece::Literal(_)))
    }

    pub fn at_end(&self) -> bool {
        self.rest().is_empty() && self.at + 1 >= self.pieces.len()
    }

    pub fn end(&self) -> Read<()> {
        if self.at_end() { Ok(()) } else { wrong("too many arguments") }
    }

    pub fn space(&mut self) -> Read<()> {
        if self.eat(b' ') { Ok(()) } else { wrong("a space is missing") }
    }

    /// Takes a byte if it comes next; of spaces all that come, because some clients send more than one.
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.offset += 1;
        }
        if found && byte == b' ' {
            self.take_while(|b| b == b' ');
        }
        found
    }

    pub fn expect(&mut self, byte: u8) -> Read<()> {
        if self.eat(byte) { Ok(()) } else { wrong(format!("{:?} is missing", byte as char)) }
    }

    /// Goes into parentheses; they nest only so far.
    pub fn open(&mut self) -> Read<()> {
        self.expect(b'(')?;
        self.depth += 1;
        if self.depth > NESTING_MAX { wrong("nested too deep") } else { Ok(()) }
    }

    pub fn close(&mut self) -> bool {
        let closed = self.eat(b')');
        if closed {
            self.depth = self.depth.saturating_sub(1);
        }
        closed
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|b| !belongs(*b)).unwrap_or(rest.len());
        self.offset += end;
        &rest[..end]
    }

    /// A word of letters, digits and the like, in upper case.
    pub fn word(&mut self) -> Read<String> {
        let word = self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+' | b'_' | b'='));
        if word.is_empty() || word.len() > WORD_MAX_BYTES {
            return wrong("a word is missing");
        }
        Ok(String::from_utf8_lossy(word).to_ascii_uppercase())
    }

    /// The word that follows, without taking it.
    pub fn peek_word(&mut self) -> String {
        let before = self.offset;
        let word = self.word().unwrap_or_default();
        self.offset = before;
        word
    }

    pub fn tag(&mut self) -> Read<String> {
        let tag = self.take_while(|b| is_astring(b) && b != b'+' && b.is_ascii());
        if tag.is_empty() || tag.len() > 64 {
            return wrong("a tag is missing");
        }
        Ok(String::from_utf8_lossy(tag).into_owned())
    }

    pub fn atom(&mut self) -> Read<String> {
        let atom = self.take_while(is_atom);
        if atom.is_empty() { wrong("an atom is missing") } else { Ok(String::from_utf8_lossy(atom).into_owned()) }
    }

    /// An atom, a quoted string or a literal, as bytes.
    pub fn astring(&mut self) -> Read<Vec<u8>> {
        if self.peek() == Some(b'"') || self.at_literal() {
            return self.string();
        }
        let atom = self.take_while(is_astring);
        if atom.is_empty() { wrong("an argument is missing") } else { Ok(atom.to_vec()) }
    }

    pub fn string(&mut self) -> Read<Vec<u8>> {
        if self.at_literal() {
            let Some(Piece::Literal(literal)) = self.pieces.get(self.at + 1) else {
                return wrong("a literal is missing");
            };
            self.at += 2;
            self.offset = 0;
            if literal.contains(&0) {
                return wrong("a literal has no NUL");
            }
            return Ok(literal.clone());
        }
        self.expect(b'"')?;
        let mut out = Vec::new();
        let rest = self.rest();
        let mut at = 0;
        loop {
            match rest.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    match rest.get(at + 1) {
                        Some(b @ (b'"' | b'\\')) => out.push(*b),
                        _ => return wrong("a backslash quotes only a quote or a backslash"),
                    }
                    at += 2;
                }
                Some(byte) => {
                    out.push(*byte);
                    at += 1;
                }
                None => return wrong("a quote is missing"),
            }
        }
        self.offset += at + 1;
        Ok(out)
    }

    /// Takes this text, in whatever case; false if another one follows.
    pub fn eat_text(&mut self, text: &str) -> bool {
        let follows = self.rest().get(..text.len()).is_some_and(|rest| rest.eq_ignore_ascii_case(text.as_bytes()));
        if follows {
            self.offset += text.len();
        }
        follows
    }

    pub fn nstring(&mut self) -> Read<Option<Vec<u8>>> {
        if self.peek() != Some(b'"') && !self.at_literal() {
            return if self.atom()?.eq_ignore_ascii_case("NIL") {
                Ok(None)
            } else {
                wrong("a string or NIL is missing")
            };
        }
        self.string().map(Some)
    }

    pub fn text(&mut self) -> Read<String> {
        String::from_utf8(self.astring()?).map_err(|_| Wrong("an argument is not UTF-8".into()))
    }

    /// A folder's name, as the mailbox spells it.
    pub fn folder(&mut self) -> Read<String> {
        let raw = self.astring()?;
        let wrong = || Wrong(format!("a folder's name is not {}", self.spelling));
        let name = self.spelling.decode(&raw).ok_or_else(wrong)?;
        Ok(spelt(&name))
    }

    /// A pattern of LIST: like a name, with `%` and `*`.
    pub fn pattern(&mut self) -> Read<String> {
        let raw = if self.peek() == Some(b'"') || self.at_literal() {
            self.string()?
        } else {
            let raw = self.take_while(|b| is_astring(b) || matches!(b, b'%' | b'*')).to_vec();
            if raw.is_empty() {
                return wrong("a pattern is missing");
            }
            raw
        };
        self.spelling.decode(&raw).ok_or_else(|| Wrong(format!("a pattern is not {}", self.spelling)))
    }

    pub fn number(&mut self) -> Read<u64> {
        let digits = self.take_while(|b| b.is_ascii_digit());
        if digits.is_empty() || digits.len() > 19 {
            return wrong("a number is missing");
        }
        std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).ok_or_else(|| Wrong("a number is missing".into()))
    }

    pub fn number32(&mut self) -> Read<u32> {
        u32::try_from(self.number()?).map_err(|_| Wrong("a number is too large".into()))
    }

    /// A MODSEQ, which has 63 bits (RFC 7162, section 3.1).
    pub fn modseq(&mut self) -> Read<u64> {
        self.number().and_then(|n| if n <= i64::MAX as u64 { Ok(n) } else { wrong("a MODSEQ has 63 bits") })
    }

    pub fn sequence_set(&mut self) -> Read<SequenceSet> {
        let mut out = Vec::new();
        loop {
            let from = self.bound()?;
            let to = if self.eat(b':') { self.bound()? } else { from };
            out.push((from, to));
            if out.len() > SEQUENCE_RANGES_MAX {
                return wrong("too many ranges");
            }
            if !self.eat(b',') {
                return Ok(SequenceSet(out));
            }
        }
    }

    pub fn at_sequence_set(&self) -> bool {
        self.peek().is_some_and(|b| b.is_ascii_digit() || b == b'*' || b == b'$')
    }

    /// A sequence set, or `$` for what was saved.
    pub fn message_set(&mut self) -> Read<MessageSet> {
        if self.eat(b'$') {
            return Ok(MessageSet::Saved);
        }
        self.sequence_set().map(MessageSet::Written)
    }

    /// `5:1` or `-1:-100`: places in a list, counted from its start, or from its end (RFC 9394).
    pub fn partial_range(&mut self) -> Read<PartialRange> {
        let mut places = [0; 2];
        let from_end = self.peek() == Some(b'-');
        for (n, place) in places.iter_mut().enumerate() {
            if n > 0 {
                self.expect(b':')?;
            }
            if self.eat(b'-') != from_end {
                return wrong("both places are counted from the same end");
            }
            *place = self.number32()?;
            if *place == 0 {
                return wrong("0 is no place in a list");
            }
        }
        let [one, other] = places;
        Ok(PartialRange { from_end, first: one.min(other), last: one.max(other) })
    }

    fn bound(&mut self) -> Read<Bound> {
        if self.eat(b'*') {
            return Ok(Bound::Largest);
        }
        match self.number32()? {
            0 => wrong("0 is no number of a message"),
            n => Ok(Bound::Number(n)),
        }
    }

    /// Flags in parentheses.
    pub fn flag_list(&mut self, recent: Recent) -> Read<Flags> {
        self.open()?;
        let mut flags = Flags::none();
        while !self.close() {
            flags = self.flag(flags, recent)?;
            self.eat(b' ');
        }
        Ok(flags)
    }

    /// One flag more.
    pub fn flag(&mut self, flags: Flags, recent: Recent) -> Read<Flags> {
        if !self.eat(b'\\') {
            let keyword = self.atom()?;
            if keyword.len() > KEYWORD_MAX_BYTES {
                return wrong("a keyword is too long");
            }
            let flags = flags.with_keyword(&keyword);
            // The mailbox refuses one more than it keeps; a thousand more would only take time.
            return if flags.keyword_count() > KEYWORDS_MAX + 1 { wrong("too many keywords") } else { Ok(flags) };
        }
        let name = format!("\\{}", self.atom()?);
        if name.eq_ignore_ascii_case("\\Recent") {
            return match recent {
                Recent::Ignored => Ok(flags),
                Recent::Wrong => wrong("\\Recent can't be changed"),
            };
        }
        match SystemFlag::ALL.into_iter().find(|f| f.name().eq_ignore_ascii_case(&name)) {
            Some(flag) => Ok(flags.with(flag)),
            None => wrong(format!("there is no flag {name}")),
        }
    }
}

fn is_atom(byte: u8) -> bool {
    (0x21..0x7f).contains(&byte) && !b"(){%*\"\\]".contains(&byte)
}

fn is_astring(byte: u8) -> bool {
    is_atom(byte) || byte == b']' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn over(text: &str) -> Vec<Piece> {
        vec![Piece::Text(text.as_bytes().to_vec())]
    }

    #[test]
    fn strings_of_every_kind() {
        let pieces = vec![
            Piece::Text(b"atom \"qu\\\"oted\" ".to_vec()),
            Piece::Literal(b"lit\r\n".to_vec()),
            Piece::Text(b" NIL".to_vec()),
        ];
        let mut c = Cursor::new(&pieces);
        assert_eq!(c.astring().unwrap(), b"atom");
        c.space().unwrap();
        assert_eq!(c.astring().unwrap(), b"qu\"oted");
        c.space().unwrap();
        assert_eq!(c.astring().unwrap(), b"lit\r\n");
        c.space().unwrap();
        assert_eq!(c.nstring().unwrap(), None);
        c.end().unwrap();
    }

    #[test]
    fn spaces_are_many_as_one_and_none_at_the_end_of_a_command() {
        let pieces = over("a  b   ");
        let mut c = Cursor::of_command(&pieces);
        assert_eq!(c.astring().unwrap(), b"a");
        c.space().unwrap();
        assert_eq!(c.astring().unwrap(), b"b");
        c.end().unwrap();
        assert!(c.space().is_err());
        Cursor::of_command(&over("   ")).end().unwrap();
        assert!(Cursor::new(&pieces).astring().is_ok_and(|a| a == b"a"));
        let mut c = Cursor::new(&pieces);
        c.astring().unwrap();
        c.space().unwrap();
        c.astring().unwrap();
        assert!(c.end().is_err());
    }

    #[test]
    fn parts_of_a_list_are_counted_from_either_end() {
        let part = |text: &str| Cursor::new(&over(text)).partial_range().map(|range| range.of(&[1, 2, 3, 4]).to_vec());
        for (text, of) in [
            ("1:2", vec![1, 2]),
            ("3:2", vec![2, 3]),
            ("4:99", vec![4]),
            ("5:9", vec![]),
            ("-1:-1", vec![4]),
            ("-3:-2", vec![2, 3]),
            ("-4294967295:-4", vec![1]),
            ("-5:-9", vec![]),
        ] {
            assert_eq!(part(text), Ok(of), "{text}");
        }
        for text in ["0:1", "1:-1", "-1:1", "1", "1:", "a:b", "1:4294967296"] {
            assert!(part(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sets_and_flags() {
        let pieces = over("1,3:*,*:2 (\\Seen $Work \\recent)");
        let mut c = Cursor::new(&pieces);
        let n = Bound::Number;
        assert_eq!(c.sequence_set().unwrap().0, [(n(1), n(1)), (n(3), Bound::Largest), (Bound::Largest, n(2))]);
        c.space().unwrap();
        assert_eq!(c.flag_list(Recent::Ignored).unwrap().names(), ["\\Seen", "$Work"]);
        assert!(Cursor::new(&over("0")).sequence_set().is_err());
        let ranges = |count: usize| vec!["1:2"; count].join(",");
        assert!(Cursor::new(&over(&ranges(SEQUENCE_RANGES_MAX))).sequence_set().is_ok());
        assert!(Cursor::new(&over(&ranges(SEQUENCE_RANGES_MAX + 1))).sequence_set().is_err());
        let keywords = |count: usize| format!("({})", (0..count).map(|n| format!("k{n} ")).collect::<String>());
        let flags = Cursor::new(&over(&keywords(KEYWORDS_MAX + 1))).flag_list(Recent::Ignored).unwrap();
        assert_eq!(flags.keyword_count(), KEYWORDS_MAX + 1, "the mailbox says that it is one too many");
        assert!(Cursor::new(&over(&keywords(KEYWORDS_MAX + 2))).flag_list(Recent::Ignored).is_err());
        assert!(Cursor::new(&over("(\\Nonsense)")).flag_list(Recent::Ignored).is_err());
        assert!(Cursor::new(&over("\"open")).astring().is_err());
    }
}
