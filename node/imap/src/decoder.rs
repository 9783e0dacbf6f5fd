//! Bytes into commands: lines that end with CRLF, and literals in them (RFC 3501, section 4.3; RFC 7888).

/// Input that waits, in bytes. Beyond it the shell must not read.
pub const INPUT_MAX_BYTES: usize = 128 << 10;
/// What is kept of the room for input when none of it waits, in bytes: a silent session needs none.
const INPUT_KEPT_BYTES: usize = 2 << 10;
/// The text of one command without its literals.
pub const LINE_MAX_BYTES: usize = 64 << 10;
/// The literals of one command but the message of APPEND.
pub const LITERAL_MAX_BYTES: usize = 64 << 10;
/// The same before a login.
const LITERAL_MAX_BYTES_EARLY: usize = 4 << 10;
/// The text of one command before a login, in bytes.
const LINE_MAX_BYTES_EARLY: usize = 8 << 10;
/// A literal that is not wanted but comes unasked (LITERAL+) is read and dropped up to this size, in bytes, so
/// that the client hears why. A longer one ends the session.
pub const DROPPED_MAX_BYTES: u64 = 1 << 30;
/// The same before a login, in bytes.
pub const DROPPED_MAX_BYTES_EARLY: u64 = 8 << 10;
/// The text of ID, and the literals in it, before a login too, in bytes: thirty names of 30 and values of 1,024
/// (RFC 2971, section 3.3), and what quotes them.
pub const ID_MAX_BYTES: usize = 36 << 10;
/// Why a session ends whose client sends what can't be told from commands.
const LOST: &str = "what follows can't be understood";
/// Why one ends whose client sends more than is read to be dropped (RFC 7888, section 4).
const TOO_BIG: &str = "[TOOBIG] a literal is too long";
/// What is kept of a line that is too long: `+}` and CR tell how it ends.
const LINE_TAIL_BYTES: usize = 3;

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
    /// The message is whole, and another one comes behind it (RFC 3502): say as after [`Frame::Append`].
    NextMessage {
        /// What stands between them.
        head: Vec<Piece>,
        /// The message's length.
        size_bytes: u64,
        /// The client waits for a continuation.
        synchronising: bool,
    },
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
    Lost(&'static str),
}

/// Bytes into commands.
#[derive(Debug)]
pub struct Decoder {
    input: Vec<u8>,
    /// Of `input`, so many bytes were taken.
    taken: usize,
    /// Of `input`, no line ends before this.
    searched: usize,
    pieces: Vec<Piece>,
    text_bytes: usize,
    literal_bytes: usize,
    state: State,
    literal_max: usize,
    line_max: usize,
    /// Literals that are not wanted are read and dropped up to this.
    dropped_max: u64,
    /// So many bytes of the command were dropped.
    dropped_bytes: u64,
}

impl Decoder {
    pub fn new() -> Self {
        Decoder {
            input: Vec::new(),
            taken: 0,
            searched: 0,
            pieces: Vec::new(),
            text_bytes: 0,
            literal_bytes: 0,
            state: State::Line,
            literal_max: LITERAL_MAX_BYTES_EARLY,
            line_max: LINE_MAX_BYTES_EARLY,
            dropped_max: DROPPED_MAX_BYTES_EARLY,
            dropped_bytes: 0,
        }
    }

    pub fn room(&self) -> usize {
        INPUT_MAX_BYTES - self.waiting()
    }

    pub fn input(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more input than there is room for");
        self.input.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        if self.input.is_empty() && self.input.capacity() > INPUT_KEPT_BYTES {
            self.input = Vec::new();
        }
        self.input.extend_from_slice(bytes);
    }

    /// Whether something waits that no command was made of yet.
    pub fn has_input(&self) -> bool {
        self.waiting() > 0
    }

    /// Throws away whatever came in clear.
    pub fn clear(&mut self) {
        *self = Decoder::new();
    }

    /// Someone has logged in: the wider bounds count.
    pub fn logged_in(&mut self) {
        self.literal_max = LITERAL_MAX_BYTES;
        self.line_max = LINE_MAX_BYTES;
        self.dropped_max = DROPPED_MAX_BYTES;
    }

    fn waiting(&self) -> usize {
        self.input.len() - self.taken
    }

    /// Takes so many bytes, which are there.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.input[self.taken..self.taken + count].to_vec();
        self.taken += count;
        self.searched = self.searched.max(self.taken);
        bytes
    }

    /// The message of APPEND will be taken.
    pub fn take_message(&mut self, size_bytes: u64) {
        self.state = State::Message { left: size_bytes, dropped: false };
    }

    /// The message of APPEND, or another literal, won't be taken. A client that waits sends none; from another it is read
    /// and dropped.
    pub fn refuse_message(&mut self, size_bytes: u64, synchronising: bool) {
        self.dropped_bytes = 0;
        match synchronising {
            true => self.state = State::Line,
            false => self.drop_message(size_bytes),
        }
    }

    /// A literal that was not asked for is read and dropped, as long as those of its command are not too long together.
    fn drop_message(&mut self, size_bytes: u64) {
        self.dropped_bytes = self.dropped_bytes.saturating_add(size_bytes);
        self.state = match self.dropped_bytes <= self.dropped_max {
            true => State::Message { left: size_bytes, dropped: true },
            false => State::Lost(TOO_BIG),
        };
    }

    pub fn next(&mut self) -> Frame {
        loop {
            match &mut self.state {
                State::Literal(left) => {
                    let left = *left;
                    if self.waiting() < left {
                        return Frame::NeedInput;
                    }
                    let literal = self.take(left);
                    self.pieces.push(Piece::Literal(literal));
                    self.state = State::Line;
                }
                State::Message { left: 0, dropped } => self.state = State::AfterMessage { dropped: *dropped },
                State::Message { left, dropped } => {
                    let there = self.input.len() - self.taken;
                    if there == 0 {
                        return Frame::NeedInput;
                    }
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
                    *left -= take as u64;
                    let dropped = *dropped;
                    let bytes = self.take(take);
                    if !dropped {
                        return Frame::Message(bytes);
                    }
                }
                State::AfterMessage { dropped } => {
                    let dropped = *dropped;
                    let Some(line) = self.take_line() else {
                        if self.waiting() <= self.line_max + 1 {
                            return Frame::NeedInput;
                        }
                        self.state = State::Lost(LOST);
                        continue;
                    };
                    if line.len() > self.line_max {
                        self.state = State::Lost(LOST);
                        continue;
                    }
                    self.state = State::Line;
                    match literal_mark(&line) {
                        None if dropped => {}
                        None => return Frame::MessageEnd(line),
                        // What it holds must not count as commands.
                        Some((_, size_bytes, false)) if dropped => self.drop_message(size_bytes),
                        // Nobody asks for it.
                        Some((_, _, true)) if dropped => {}
                        Some((text, size_bytes, synchronising)) => {
                            let head = vec![Piece::Text(text.to_vec())];
                            return Frame::NextMessage { head, size_bytes, synchronising };
                        }
                    }
                }
                State::LongLine(tag) => {
                    let tag = std::mem::take(tag);
                    if let Some(line) = self.take_line() {
                        self.state = if ends_unasked(&line) { State::Lost(LOST) } else { State::Line };
                        return Frame::Wrong(tag, "line too long");
                    }
                    // What may be its end, or the mark of a literal, is kept.
                    self.taken = self.taken.max(self.input.len().saturating_sub(LINE_TAIL_BYTES));
                    self.searched = self.searched.max(self.taken);
                    self.state = State::LongLine(tag);
                    return Frame::NeedInput;
                }
                State::Lost(why) => return Frame::Lost(why),
                State::Line => match self.line() {
                    Some(frame) => return frame,
                    None => continue,
                },
            }
        }
    }

    fn line(&mut self) -> Option<Frame> {
        let Some(line) = self.take_line() else {
            // One more may be the CR of its end.
            let start = &self.input[self.taken..];
            if self.text_bytes + self.waiting() > self.line_max(start) + 1 {
                let tag = self.tag_of(start);
                self.reset();
                self.state = State::LongLine(tag);
                return None;
            }
            return Some(Frame::NeedInput);
        };
        self.text_bytes += line.len();
        let wrong = if self.text_bytes > self.line_max(&line) {
            Some("line too long")
        } else if line.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)) {
            Some("a line ends with CRLF and has no bare CR, LF or NUL")
        } else {
            None
        };
        if let Some(why) = wrong {
            let tag = self.tag_of(&line);
            self.reset();
            if ends_unasked(&line) {
                self.state = State::Lost(LOST);
            }
            return Some(Frame::Wrong(tag, why));
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
        let most = if self.is_id(b"") { self.literal_max.max(ID_MAX_BYTES) } else { self.literal_max };
        let left = most - self.literal_bytes;
        match usize::try_from(size_bytes).ok().filter(|s| *s <= left) {
            Some(size) => {
                self.literal_bytes += size;
                self.state = State::Literal(size);
                if synchronising { Some(Frame::Continue) } else { None }
            }
            None => {
                let tag = self.tag_of(b"");
                self.reset();
                self.refuse_message(size_bytes, synchronising);
                Some(Frame::Wrong(tag, "literal too long"))
            }
        }
    }

    /// Whether the literal that follows is the message of APPEND or REPLACE: its folder's name came before.
    fn is_message(&self) -> bool {
        let Some(Piece::Text(first)) = self.pieces.first() else { return false };
        let mut words = first.split(|b| *b == b' ').filter(|word| !word.is_empty()).skip(1);
        let is = |word: Option<&[u8]>, name: &[u8]| word.is_some_and(|word| word.eq_ignore_ascii_case(name));
        let mut command = words.next();
        let by_uid = is(command, b"UID");
        if by_uid {
            command = words.next();
        }
        // What REPLACE names before the folder.
        let is_replace = is(command, b"REPLACE");
        let named = !is_replace || words.next().is_some();
        (is_replace || (is(command, b"APPEND") && !by_uid))
            && named
            && (self.pieces.len() > 1 || words.next().is_some())
    }

    /// How long the text of the command may be that this line begins or goes on with.
    fn line_max(&self, line: &[u8]) -> usize {
        if self.is_id(line) { self.line_max.max(ID_MAX_BYTES) } else { self.line_max }
    }

    /// Whether the command that this line begins or goes on with is ID.
    fn is_id(&self, line: &[u8]) -> bool {
        let first = match self.pieces.first() {
            Some(Piece::Text(first)) => first,
            Some(Piece::Literal(_)) | None => line,
        };
        first
            .split(|b| *b == b' ')
            .filter(|word| !word.is_empty())
            .nth(1)
            .is_some_and(|w| w.eq_ignore_ascii_case(b"ID"))
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        // The last byte may be the CR of an end that is still to come.
        let from = self.searched.saturating_sub(1).max(self.taken);
        let Some(found) = self.input[from..].windows(2).position(|w| w == b"\r\n") else {
            self.searched = self.input.len();
            return None;
        };
        let length = from + found - self.taken;
        let line = self.take(length);
        self.taken += 2;
        self.searched = self.taken;
        Some(line)
    }

    /// The tag of the command that this line begins or goes on with.
    fn tag_of(&self, line: &[u8]) -> Vec<u8> {
        match self.pieces.first() {
            Some(Piece::Text(first)) => word(first),
            Some(Piece::Literal(_)) | None => word(line),
        }
    }

    fn reset(&mut self) {
        self.pieces.clear();
        self.text_bytes = 0;
        self.literal_bytes = 0;
    }
}

/// The characters that a tag may have (RFC 3501, section 9).
fn word(line: &[u8]) -> Vec<u8> {
    let belongs = |b: &u8| b.is_ascii_graphic() && !b"(){%*\"\\+".contains(b);
    line.iter().copied().take_while(belongs).take(64).collect()
}

/// `text{123}` or `text{123+}` at a line's end.
fn literal_mark(line: &[u8]) -> Option<(&[u8], u64, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|b| *b == b'{')?;
    let (digits, synchronising) = match inner[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&inner[open + 1..], true),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // A number beyond all bounds is one that is too large.
    let size = std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
    Some((&line[..open], size, synchronising))
}

/// Whether a literal follows a line that is not understood, without waiting to be asked for.
fn ends_unasked(line: &[u8]) -> bool {
    line.ends_with(b"+}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(input: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        for byte in input {
            decoder.input(&[*byte]);
            drain(&mut decoder, &mut out);
        }
        out
    }

    fn drain(decoder: &mut Decoder, out: &mut Vec<Frame>) {
        loop {
            match decoder.next() {
                Frame::NeedInput => break,
                lost @ Frame::Lost(_) => {
                    if out.last() != Some(&lost) {
                        out.push(lost);
                    }
                    break;
                }
                Frame::Append { head, size_bytes, synchronising } => {
                    out.push(Frame::Append { head, size_bytes, synchronising });
                    decoder.take_message(size_bytes);
                }
                Frame::NextMessage { head, size_bytes, synchronising } => {
                    out.push(Frame::NextMessage { head, size_bytes, synchronising });
                    decoder.take_message(size_bytes);
                }
                frame => out.push(frame),
            }
        }
    }

    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut out: Vec<Frame> = Vec::new();
        for frame in frames {
            match (out.last_mut(), frame) {
                (Some(Frame::Message(before)), Frame::Message(more)) => before.extend(more),
                (_, frame) => out.push(frame),
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
    fn room_for_much_input_goes_with_the_next_command() {
        let mut decoder = Decoder::new();
        decoder.logged_in();
        decoder.input(format!("a SEARCH SUBJECT {}\r\n", "x".repeat(LINE_MAX_BYTES - 100)).as_bytes());
        assert!(matches!(decoder.next(), Frame::Command(_)));
        decoder.input(b"b IDLE\r\n");
        assert_eq!(decoder.next(), Frame::Command(vec![text("b IDLE")]));
        assert!(decoder.input.capacity() <= INPUT_KEPT_BYTES);
    }

    #[test]
    fn several_messages_come_one_after_another() {
        let found = frames(b"a APPEND x {1+}\r\na (\\Seen) {2}\r\nbc\r\nb NOOP\r\n");
        assert_eq!(
            joined(found)[1..],
            [
                Frame::Message(b"a".to_vec()),
                Frame::NextMessage { head: vec![text(" (\\Seen) ")], size_bytes: 2, synchronising: true },
                Frame::Message(b"bc".to_vec()),
                Frame::MessageEnd(Vec::new()),
                Frame::Command(vec![text("b NOOP")]),
            ]
        );
    }

    #[test]
    fn what_is_too_long_or_has_bare_line_ends_is_refused_with_its_tag() {
        let long = |end: &str| {
            [b"a7 ".as_slice(), &vec![b'x'; LINE_MAX_BYTES + 10], end.as_bytes(), b"\r\nb NOOP\r\n"].concat()
        };
        assert_eq!(
            frames(&long("")),
            [Frame::Wrong(b"a7".to_vec(), "line too long"), Frame::Command(vec![text("b NOOP")])]
        );
        assert!(matches!(&frames(b"#a NOOP\nb NOOP\r\n")[..], [Frame::Wrong(tag, _)] if tag == b"#a"));
        assert!(matches!(&frames(b"a LOGIN {99999}\r\n")[..], [Frame::Wrong(tag, "literal too long")] if tag == b"a"));
        assert!(matches!(&frames(b"a LOGIN {99999999999999999999999}\r\n")[..], [Frame::Wrong(_, "literal too long")]));
        assert!(
            matches!(&frames(b"a X {3}\r\nabc {99999}\r\n")[..], [Frame::Continue, Frame::Wrong(tag, _)] if tag == b"a")
        );
    }

    #[test]
    fn a_literal_that_comes_unasked_behind_a_refused_line_never_counts_as_commands() {
        let long = [b"a7 ".as_slice(), &vec![b'x'; LINE_MAX_BYTES + 10], b" {8+}\r\nb NOOP\r\n"].concat();
        for input in [
            long.as_slice(),
            b"a LOGIN {99999+}\r\nb NOOP\r\n",
            b"a LOGIN {99999999999999999999999+}\r\nb NOOP\r\n",
            b"a NOOP\n {8+}\r\nb NOOP\r\n",
        ] {
            let mut decoder = Decoder::new();
            decoder.input(input);
            assert!(matches!(decoder.next(), Frame::Wrong(..)));
            assert!(matches!(decoder.next(), Frame::Lost(_)));
            assert!(matches!(decoder.next(), Frame::Lost(_)));
        }
    }

    #[test]
    fn a_message_that_is_not_wanted_is_dropped_or_ends_the_session() {
        let refused = |size: u64, logged_in: bool| {
            let mut decoder = Decoder::new();
            if logged_in {
                decoder.logged_in();
            }
            decoder.input(format!("a APPEND x {{{size}+}}\r\nb NOOP\r\n\r\nc NOOP\r\n").as_bytes());
            assert!(matches!(decoder.next(), Frame::Append { synchronising: false, .. }));
            decoder.refuse_message(size, false);
            decoder.next()
        };
        assert_eq!(refused(8, true), Frame::Command(vec![text("c NOOP")]));
        assert_eq!(refused(8, false), Frame::Command(vec![text("c NOOP")]));
        assert!(matches!(refused(DROPPED_MAX_BYTES_EARLY + 1, false), Frame::Lost(_)));
        assert!(matches!(refused(DROPPED_MAX_BYTES + 1, true), Frame::Lost(_)));
    }

    #[test]
    fn messages_behind_one_that_is_not_wanted_are_dropped_too_up_to_the_same_bound_together() {
        let half = DROPPED_MAX_BYTES_EARLY / 2;
        let refused = |second: u64, mark: &str| {
            let mut decoder = Decoder::new();
            let dropped = |bytes: u64| vec![b'x'; bytes as usize];
            let head = format!("a APPEND x {{{half}+}}\r\n").into_bytes();
            let next = format!(" {{{second}{mark}}}\r\n").into_bytes();
            let literal = if mark.is_empty() { Vec::new() } else { [dropped(second), b"\r\n".to_vec()].concat() };
            decoder.input(&[head, dropped(half), next, literal, b"c NOOP\r\n".to_vec()].concat());
            assert!(matches!(decoder.next(), Frame::Append { .. }));
            decoder.refuse_message(half, false);
            decoder.next()
        };
        assert_eq!(refused(half, "+"), Frame::Command(vec![text("c NOOP")]));
        assert_eq!(refused(half, ""), Frame::Command(vec![text("c NOOP")]), "which its client waits with");
        assert_eq!(refused(half + 1, "+"), Frame::Lost(TOO_BIG));
    }

    proptest! {
        /// However the bytes come, the frames are the same; parts of a message count together.
        #[test]
        fn any_split_gives_the_same_frames(
            words in proptest::collection::vec(prop_oneof![
                "[ -~]{0,20}", Just("\r\n".to_owned()), Just("a APPEND x {7}\r\n".to_owned()), Just(" (\\Seen) {4}\r\n".to_owned()), Just(" {3+}\r\n".to_owned()),
                Just("{5}\r\n".to_owned()), Just("\n".to_owned()), Just("\r".to_owned()), Just("x".repeat(LINE_MAX_BYTES_EARLY)),
            ], 0..12),
            cut in 1usize..9_000,
        ) {
            let input = words.concat();
            let mut decoder = Decoder::new();
            let mut split = Vec::new();
            for piece in input.as_bytes().chunks(cut) {
                decoder.input(piece);
                drain(&mut decoder, &mut split);
            }
            prop_assert_eq!(joined(split), joined(frames(input.as_bytes())));
        }
    }
}
