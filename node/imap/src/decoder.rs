//! Bytes into commands: lines that end with CRLF, and literals in them (RFC 3501, section 4.3; RFC 7888).

/// Input that waits, in bytes. Beyond it the shell must not read.
pub const INPUT_MAX_BYTES: usize = 64 << 10;
/// The text of one command without its literals.
pub const LINE_MAX_BYTES: usize = 32 << 10;
/// The literals of one command but the message of APPEND.
pub const LITERAL_MAX_BYTES: usize = 64 << 10;
/// The same before a login.
pub const LITERAL_MAX_BYTES_EARLY: usize = 4 << 10;

/// A part of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text of a line.
    Text(Vec<u8>),
    /// A literal.
    Literal(Vec<u8>),
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// More is needed.
    NeedInput,
    /// The client waits for a continuation before its literal.
    Continue,
    /// A whole command.
    Command(Vec<Piece>),
    /// APPEND up to its message of so many bytes: say [`Decoder::take_message`] or [`Decoder::refuse_message`].
    Append {
        /// What came before.
        head: Vec<Piece>,
        /// The message's length.
        size_bytes: u64,
        /// The client waits for a continuation.
        synchronising: bool,
    },
    /// More of the message.
    Message(Vec<u8>),
    /// The message is whole, and the command's line has ended with this.
    MessageEnd(Vec<u8>),
    /// Not a command: the tag, if there is one, and why.
    Wrong(Vec<u8>, &'static str),
    /// Nothing that follows can be understood.
    Lost(&'static str),
}

#[derive(Debug)]
enum State {
    Line,
    Literal(usize),
    Message { left: u64, dropped: bool },
    AfterMessage { dropped: bool },
    LongLine(Vec<u8>),
}

/// Bytes into commands.
#[derive(Debug)]
pub struct Decoder {
    input: Vec<u8>,
    pieces: Vec<Piece>,
    text_bytes: usize,
    literal_bytes: usize,
    state: State,
    /// The bound on literals now.
    pub literal_max: usize,
}

impl Decoder {
    pub fn new() -> Self {
        Decoder {
            input: Vec::new(),
            pieces: Vec::new(),
            text_bytes: 0,
            literal_bytes: 0,
            state: State::Line,
            literal_max: LITERAL_MAX_BYTES_EARLY,
        }
    }

    pub fn room(&self) -> usize {
        INPUT_MAX_BYTES - self.input.len()
    }

    pub fn input(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more input than there is room for");
        self.input.extend_from_slice(bytes);
    }

    /// Throws away whatever came in clear.
    pub fn clear(&mut self) {
        *self = Decoder::new();
    }

    /// The message of APPEND will be taken.
    pub fn take_message(&mut self, size_bytes: u64) {
        self.state = State::Message { left: size_bytes, dropped: false };
    }

    /// The message of APPEND won't be taken. A client that waits sends none; from another it is read and dropped.
    pub fn refuse_message(&mut self, size_bytes: u64, synchronising: bool) {
        self.state = if synchronising { State::Line } else { State::Message { left: size_bytes, dropped: true } };
    }

    pub fn next(&mut self) -> Frame {
        loop {
            match &mut self.state {
                State::Literal(left) => {
                    let left = *left;
                    if self.input.len() < left {
                        return Frame::NeedInput;
                    }
                    let rest = self.input.split_off(left);
                    let literal = std::mem::replace(&mut self.input, rest);
                    self.pieces.push(Piece::Literal(literal));
                    self.state = State::Line;
                }
                State::Message { left: 0, dropped } => self.state = State::AfterMessage { dropped: *dropped },
                State::Message { left, dropped } => {
                    if self.input.is_empty() {
                        return Frame::NeedInput;
                    }
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    *left -= take as u64;
                    let dropped = *dropped;
                    let rest = self.input.split_off(take);
                    let bytes = std::mem::replace(&mut self.input, rest);
                    if !dropped {
                        return Frame::Message(bytes);
                    }
                }
                State::AfterMessage { dropped } => {
                    let dropped = *dropped;
                    let Some(line) = self.take_line() else {
                        return if self.input.len() > LINE_MAX_BYTES {
                            Frame::Lost("line too long")
                        } else {
                            Frame::NeedInput
                        };
                    };
                    self.state = State::Line;
                    if !dropped {
                        return Frame::MessageEnd(line);
                    }
                }
                State::LongLine(tag) => {
                    let tag = std::mem::take(tag);
                    if self.take_line().is_some() {
                        self.state = State::Line;
                        return Frame::Wrong(tag, "line too long");
                    }
                    // Only a CR that may begin the end is kept.
                    let keep = self.input.last().copied().filter(|b| *b == b'\r');
                    self.input.clear();
                    self.input.extend(keep);
                    self.state = State::LongLine(tag);
                    return Frame::NeedInput;
                }
                State::Line => match self.line() {
                    Some(frame) => return frame,
                    None => continue,
                },
            }
        }
    }

    fn line(&mut self) -> Option<Frame> {
        let Some(line) = self.take_line() else {
            if self.text_bytes + self.input.len() > LINE_MAX_BYTES {
                let tag = self.tag();
                self.reset();
                self.state = State::LongLine(tag);
                return None;
            }
            return Some(Frame::NeedInput);
        };
        self.text_bytes += line.len();
        if line.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)) {
            let tag = self.tag_of(&line);
            self.reset();
            return Some(Frame::Wrong(tag, "a line ends with CRLF and has no bare CR, LF or NUL"));
        }
        let Some((text, size_bytes, synchronising)) = literal_mark(&line) else {
            self.pieces.push(Piece::Text(line));
            let pieces = std::mem::take(&mut self.pieces);
            self.reset();
            return Some(Frame::Command(pieces));
        };
        let text = text.to_vec();
        self.pieces.push(Piece::Text(text));
        if self.is_message() {
            let head = std::mem::take(&mut self.pieces);
            self.reset();
            return Some(Frame::Append { head, size_bytes, synchronising });
        }
        let fits = usize::try_from(size_bytes).ok().filter(|s| self.literal_bytes + s <= self.literal_max);
        match fits {
            Some(size) => {
                self.literal_bytes += size;
                self.state = State::Literal(size);
                if synchronising { Some(Frame::Continue) } else { None }
            }
            None if synchronising => {
                let tag = self.tag();
                self.reset();
                Some(Frame::Wrong(tag, "literal too long"))
            }
            None => Some(Frame::Lost("literal too long")),
        }
    }

    /// Whether the literal that follows is APPEND's message: its folder's name came before.
    fn is_message(&self) -> bool {
        let Some(Piece::Text(first)) = self.pieces.first() else { return false };
        let mut words = first.splitn(3, |b| *b == b' ');
        let (_, command, rest) = (words.next(), words.next(), words.next());
        if !command.is_some_and(|c| c.eq_ignore_ascii_case(b"APPEND")) {
            return false;
        }
        self.pieces.len() > 1 || rest.is_some_and(|r| !r.is_empty())
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.windows(2).position(|w| w == b"\r\n")?;
        let rest = self.input.split_off(end + 2);
        let mut line = std::mem::replace(&mut self.input, rest);
        line.truncate(end);
        Some(line)
    }

    fn tag(&self) -> Vec<u8> {
        match self.pieces.first() {
            Some(Piece::Text(first)) => word(first),
            Some(Piece::Literal(_)) | None => word(&self.input),
        }
    }

    fn tag_of(&self, line: &[u8]) -> Vec<u8> {
        if self.pieces.is_empty() { word(line) } else { self.tag() }
    }

    fn reset(&mut self) {
        self.pieces.clear();
        self.text_bytes = 0;
        self.literal_bytes = 0;
    }
}

fn word(line: &[u8]) -> Vec<u8> {
    line.iter().copied().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')).take(64).collect()
}

/// `text{123}` or `text{123+}` at a line's end.
fn literal_mark(line: &[u8]) -> Option<(&[u8], u64, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|b| *b == b'{')?;
    let (digits, synchronising) = match inner[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&inner[open + 1..], true),
    };
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((&line[..open], size, synchronising))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(input: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        for byte in input {
            decoder.input(&[*byte]);
            loop {
                match decoder.next() {
                    Frame::NeedInput => break,
                    Frame::Append { head, size_bytes, synchronising } => {
                        out.push(Frame::Append { head, size_bytes, synchronising });
                        decoder.take_message(size_bytes);
                    }
                    frame => out.push(frame),
                }
            }
        }
        out
    }

    fn text(t: &str) -> Piece {
        Piece::Text(t.as_bytes().to_vec())
    }

    #[test]
    fn commands_with_literals_of_both_kinds() {
        assert_eq!(
            frames(b"a LOGIN {3}\r\nbob {2+}\r\nhi\r\nb NOOP\r\n"),
            [
                Frame::Continue,
                Frame::Command(vec![
                    text("a LOGIN "),
                    Piece::Literal(b"bob".to_vec()),
                    text(" "),
                    Piece::Literal(b"hi".to_vec()),
                    text("")
                ]),
                Frame::Command(vec![text("b NOOP")]),
            ]
        );
    }

    #[test]
    fn a_message_comes_in_pieces_and_a_name_may_be_a_literal() {
        let found = frames(b"a APPEND {5}\r\nINBOX (\\Seen) {4}\r\nab\r\n\r\n");
        assert_eq!(found[0], Frame::Continue);
        assert!(matches!(&found[1], Frame::Append { size_bytes: 4, synchronising: true, head } if head.len() == 3));
        assert_eq!(
            found[2..6]
                .iter()
                .map(|f| if let Frame::Message(m) = f { m.clone() } else { panic!("{f:?}") })
                .collect::<Vec<_>>()
                .concat(),
            b"ab\r\n"
        );
        assert_eq!(found[6], Frame::MessageEnd(Vec::new()));
    }

    #[test]
    fn what_is_too_long_or_has_bare_line_ends_is_refused_with_its_tag() {
        let long = [b"a7 ".as_slice(), &vec![b'x'; LINE_MAX_BYTES + 10], b"\r\nb NOOP\r\n"].concat();
        assert_eq!(
            frames(&long),
            [Frame::Wrong(b"a7".to_vec(), "line too long"), Frame::Command(vec![text("b NOOP")])]
        );
        assert!(matches!(&frames(b"a NOOP\nb NOOP\r\n")[..], [Frame::Wrong(tag, _)] if tag == b"a"));
        assert!(matches!(&frames(b"a LOGIN {99999}\r\n")[..], [Frame::Wrong(tag, "literal too long")] if tag == b"a"));
        assert_eq!(frames(b"a LOGIN {99999+}\r\n")[0], Frame::Lost("literal too long"));
    }
}
