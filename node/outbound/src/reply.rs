//! What servers answer (RFC 5321, section 4.2), with enhanced status codes (RFC 2034, 3463): read strictly by their codes, and
//! kept harmless and short, as their text goes on to people.

use std::fmt;

use memchr::memchr;
use serde::{Deserialize, Serialize};

/// The longest line of a reply with its line end, in bytes: four times what RFC 5321 (section 4.5.3.1.5) allows.
pub const REPLY_LINE_MAX_BYTES: usize = 2_048;
/// The longest reply, in bytes, and all of what has come and was not read yet.
pub const REPLY_MAX_BYTES: usize = 64 << 10;
/// What is kept of a reply's text, in bytes.
pub const REPLY_TEXT_MAX_BYTES: usize = 512;

/// An enhanced status code (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// What it is about: the mailbox, the network, a policy. At most 999.
    pub subject: u16,
    /// At most 999.
    pub detail: u16,
}

impl EnhancedCode {
    /// One that is written in the source.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        EnhancedCode { class, subject, detail }
    }

    /// Reads one from the beginning of a text; with it, what follows.
    pub fn read(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = word.split('.').map(number);
        match (parts.next()??, parts.next()??, parts.next()??, parts.next()) {
            (class @ (2 | 4 | 5), subject, detail, None) => {
                Some((EnhancedCode { class: class as u8, subject, detail }, rest))
            }
            _ => None,
        }
    }

    /// The same thing said of another class.
    pub const fn of_class(self, class: u8) -> Self {
        EnhancedCode { class, subject: self.subject, detail: self.detail }
    }
}

/// A number of one to three digits.
fn number(text: &str) -> Option<u16> {
    ((1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What a reply says, by its first digit (RFC 5321, section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// 2: done.
    Done,
    /// 3: more is wanted.
    GoOn,
    /// 4: not now.
    NotNow,
    /// 5: never.
    Never,
}

/// A reply as it came, all lines of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The text of each line, without code and line end, as it came; at least one.
    pub lines: Vec<String>,
}

impl Reply {
    /// By its first digit.
    pub fn severity(&self) -> Severity {
        match self.code / 100 {
            2 => Severity::Done,
            3 => Severity::GoOn,
            4 => Severity::NotNow,
            _ => Severity::Never,
        }
    }

    /// Its enhanced code, if it has one that agrees with the code: one that does not says nothing (RFC 2034, section 4).
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        let (enhanced, _) = EnhancedCode::read(self.lines.first()?)?;
        (u16::from(enhanced.class) == self.code / 100).then_some(enhanced)
    }

    /// Its text in one line, with its enhanced code once and without its code: printable ASCII, at most
    /// [`REPLY_TEXT_MAX_BYTES`].
    pub fn text(&self) -> String {
        let of = |(n, line): (usize, &String)| match EnhancedCode::read(line) {
            Some((_, rest)) if n > 0 => rest.trim().to_owned(),
            Some(_) | None => line.trim().to_owned(),
        };
        let lines: Vec<String> = self.lines.iter().enumerate().map(of).filter(|line| !line.is_empty()).collect();
        harmless(&lines.join(" "))
    }
}

/// A text with `?` for all that is not printable ASCII, cut off at [`REPLY_TEXT_MAX_BYTES`]: nobody can end a line with it,
/// nor fill a row.
pub fn harmless(text: &str) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().take(REPLY_TEXT_MAX_BYTES).map(printable).collect()
}

/// Why what a server said is no reply. Nothing that comes after it can be trusted to answer what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code.
    #[error("the server said a line that is no reply")]
    NoCode,
    /// Its lines contradict each other.
    #[error("the server said a reply with two codes")]
    TwoCodes,
    /// A line is longer than [`REPLY_LINE_MAX_BYTES`].
    #[error("the server said a line of more than {REPLY_LINE_MAX_BYTES} octets")]
    LineTooLong,
    /// It is longer than [`REPLY_MAX_BYTES`].
    #[error("the server said a reply of more than {REPLY_MAX_BYTES} octets")]
    TooLong,
}

/// Reads replies as they come.
#[derive(Default)]
pub struct Replies {
    /// What was not read yet.
    bytes: Vec<u8>,
    /// The lines of the reply that is being read, and how long they were in all, in bytes.
    lines: Vec<String>,
    lines_bytes: usize,
    /// Their first code.
    first: Option<u16>,
}

impl Replies {
    /// How many bytes fit in; never 0 after [`Replies::take`] found no whole reply.
    pub fn room(&self) -> usize {
        REPLY_MAX_BYTES - self.bytes.len()
    }

    /// Appends what came.
    ///
    /// # Panics
    /// If it is more than there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more of a reply than there is room for");
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing has come that was not taken.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.lines.is_empty()
    }

    /// Forgets what came.
    pub fn clear(&mut self) {
        *self = Replies::default();
    }

    /// Takes the first reply, if it is whole. A line ends at LF, with or without a CR before it: servers that leave it out are
    /// known, and a server has nobody to smuggle replies past.
    ///
    /// # Errors
    /// If it is none. What was wrong stays, so that nothing behind it is taken.
    pub fn take(&mut self) -> Result<Option<Reply>, ReplyError> {
        let mut at = 0;
        let taken = loop {
            match self.line(at) {
                Ok(Some((bytes, last))) => {
                    at += bytes;
                    if let Some(code) = last {
                        let lines = std::mem::take(&mut self.lines);
                        (self.first, self.lines_bytes) = (None, 0);
                        break Ok(Some(Reply { code, lines }));
                    }
                }
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        self.bytes.drain(..at);
        taken
    }

    /// Reads a line: how long it is, and the reply's code if it is its last one.
    fn line(&mut self, at: usize) -> Result<Option<(usize, Option<u16>)>, ReplyError> {
        let pending = &self.bytes[at..];
        let end = memchr(b'\n', &pending[..pending.len().min(REPLY_LINE_MAX_BYTES)]);
        let Some(end) = end else {
            let too_long = pending.len() >= REPLY_LINE_MAX_BYTES;
            return if too_long { Err(ReplyError::LineTooLong) } else { Ok(None) };
        };
        let bytes = end + 1;
        if self.lines_bytes + bytes > REPLY_MAX_BYTES {
            return Err(ReplyError::TooLong);
        }
        let line = &pending[..end];
        let (code, last, text) = code(line.strip_suffix(b"\r").unwrap_or(line)).ok_or(ReplyError::NoCode)?;
        if *self.first.get_or_insert(code) / 100 != code / 100 {
            return Err(ReplyError::TwoCodes);
        }
        self.lines.push(String::from_utf8_lossy(text).into_owned());
        self.lines_bytes += bytes;
        Ok(Some((bytes, last.then_some(code))))
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replies({} bytes)", self.bytes.len())
    }
}

/// A line's code, whether it is the last one of its reply, and its text.
fn code(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let digits = line.first_chunk::<3>()?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match line.get(3) {
        None => Some((code, true, b"")),
        Some(b' ') => Some((code, true, &line[4..])),
        Some(b'-') => Some((code, false, &line[4..])),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let mut replies = Replies::default();
        replies.push(text);
        replies.take()
    }

    fn whole(text: &str) -> Reply {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn replies_are_read_by_their_codes() {
        let reply = whole("250-mx.test greets\r\n250-SIZE 100\r\n250 \r\n");
        assert_eq!((reply.code, reply.lines), (250, vec!["mx.test greets".into(), "SIZE 100".into(), String::new()]));
        assert_eq!(whole("250\r\n").lines, [""]);
        assert_eq!(whole("220 a\n").lines, ["a"]);
        // Within one severity the last code counts.
        assert_eq!(whole("250-a\r\n251 b\r\n").code, 251);
        assert_eq!(read(b"250-a\r\n250"), Ok(None));
        for (wrong, why) in [
            (&b"hello\r\n"[..], ReplyError::NoCode),
            (b"25\r\n", ReplyError::NoCode),
            (b"\r\n", ReplyError::NoCode),
            (b"150 a\r\n", ReplyError::NoCode),
            (b"650 a\r\n", ReplyError::NoCode),
            (b"250a\r\n", ReplyError::NoCode),
            (b"250-a\r\n\r\n", ReplyError::NoCode),
            (b"250-a\r\n550 b\r\n", ReplyError::TwoCodes),
        ] {
            assert_eq!(read(wrong), Err(why), "{wrong:?}");
        }
    }

    #[test]
    fn lines_and_replies_are_bounded() {
        let line = |bytes: usize| format!("250 {}\r\n", "x".repeat(bytes - 6));
        assert!(read(line(REPLY_LINE_MAX_BYTES).as_bytes()).unwrap().is_some());
        assert_eq!(read(line(REPLY_LINE_MAX_BYTES + 1).as_bytes()), Err(ReplyError::LineTooLong));
        assert_eq!(read(&[b'2'; REPLY_LINE_MAX_BYTES]), Err(ReplyError::LineTooLong));
        assert_eq!(read(&[b'2'; REPLY_LINE_MAX_BYTES - 1]), Ok(None));
        let mut replies = Replies::default();
        let line = "250-xx\r\n".as_bytes();
        let whole = (0..REPLY_MAX_BYTES / line.len()).all(|_| {
            replies.push(line);
            replies.take() == Ok(None)
        });
        assert!(whole && REPLY_MAX_BYTES.is_multiple_of(line.len()));
        replies.push(b"250\r\n");
        assert_eq!((replies.take(), replies.take()), (Err(ReplyError::TooLong), Err(ReplyError::TooLong)));
    }

    #[test]
    fn a_text_is_harmless_and_short() {
        let reply = whole("550-5.1.1 no\u{e4}\0 such\r\n550 5.1.1 \x1b[0muser \r\n");
        assert_eq!(reply.text(), "5.1.1 no?? such ?[0muser");
        let long = Reply { code: 550, lines: vec!["\u{fc}".repeat(2_000)] };
        assert_eq!(long.text().len(), REPLY_TEXT_MAX_BYTES);
    }

    #[test]
    fn an_enhanced_code_counts_where_it_agrees_with_the_code() {
        let enhanced = |text: &str| whole(&format!("{text}\r\n")).enhanced().map(|code| code.to_string());
        assert_eq!(enhanced("550 5.1.1 no").as_deref(), Some("5.1.1"));
        assert_eq!(enhanced("550 5.7.515").as_deref(), Some("5.7.515"));
        for none in
            ["550 4.1.1 no", "550 5.1 no", "550 5.1.1.1 no", "550 5.1.1111 no", "250 3.0.0 a", "250 2..0 a", "250"]
        {
            assert_eq!(enhanced(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_replies_and_nothing_panics(
            bytes in prop::collection::vec(prop_oneof![
                Just(b"250 ".to_vec()), Just(b"250-".to_vec()), Just(b"550 5.1.1 ".to_vec()), Just(b"\r\n".to_vec()),
                Just(b"\n".to_vec()), prop::collection::vec(any::<u8>(), 0..9),
            ], 0..30).prop_map(|pieces| pieces.concat()),
            piece in 1usize..20,
        ) {
            let all = |piece: usize| {
                let (mut replies, mut taken) = (Replies::default(), Vec::new());
                for bytes in bytes.chunks(piece) {
                    replies.push(bytes);
                    loop {
                        match replies.take() {
                            Ok(Some(reply)) => taken.push(Ok(reply)),
                            Ok(None) => break,
                            Err(error) => {
                                taken.push(Err(error));
                                return taken;
                            }
                        }
                    }
                }
                taken
            };
            prop_assert_eq!(all(piece), all(bytes.len().max(1)));
        }
    }
}
