//! The message after DATA (RFC 5321, section 4.5.2): it ends at CRLF.CRLF and nothing else.
//!
//! A bare CR or LF is where servers differ about what a line is, and smuggling lives on that difference: here
//! neither ends a line, and a message that holds one is read to its true end and then refused.

/// Reads a message piece by piece.
#[derive(Debug)]
pub struct Data {
    state: State,
    /// Bytes of the message so far, dots undone.
    pub size_bytes: u64,
    /// A CR without LF or an LF without CR was seen.
    pub bare: bool,
    /// The shell was told to drop it.
    pub dropped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    /// A dot at a line's start, not handed out yet.
    Dot,
    /// A dot and a CR at a line's start.
    DotCr,
    Middle,
    Cr,
}

impl Data {
    /// At the first line's start.
    pub fn new() -> Self {
        Data { state: State::LineStart, size_bytes: 0, bare: false, dropped: false }
    }

    /// Takes from the input what belongs to the message and appends it, dots undone. Returns how much it took
    /// and whether the end was there.
    pub fn take(&mut self, input: &[u8], message: &mut Vec<u8>) -> (usize, bool) {
        let before = message.len();
        let mut at = 0;
        let mut ended = false;
        while !ended && at < input.len() {
            if self.state == State::Middle {
                // Most of a message is this.
                let run = input[at..].iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(input.len() - at);
                message.extend_from_slice(&input[at..at + run]);
                at += run;
            }
            let Some(byte) = input.get(at).copied() else { break };
            at += 1;
            self.state = match (self.state, byte) {
                (State::LineStart, b'.') => State::Dot,
                (State::Dot, b'\r') => State::DotCr,
                (State::DotCr, b'\n') => {
                    ended = true;
                    State::LineStart
                }
                // The dot was stuffed: it goes, what follows it stays.
                (State::Dot, byte) => self.plain(byte, message),
                (State::DotCr, byte) => {
                    message.push(b'\r');
                    self.after_cr(byte, message)
                }
                (State::Cr, byte) => self.after_cr(byte, message),
                (State::LineStart | State::Middle, byte) => self.plain(byte, message),
            };
        }
        self.size_bytes += (message.len() - before) as u64;
        (at, ended)
    }

    fn plain(&mut self, byte: u8, message: &mut Vec<u8>) -> State {
        message.push(byte);
        match byte {
            b'\r' => State::Cr,
            b'\n' => {
                self.bare = true;
                State::Middle
            }
            _ => State::Middle,
        }
    }

    fn after_cr(&mut self, byte: u8, message: &mut Vec<u8>) -> State {
        if byte == b'\n' {
            message.push(b'\n');
            return State::LineStart;
        }
        self.bare = true;
        self.plain(byte, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> (Vec<u8>, Option<usize>, bool) {
        let (mut data, mut message) = (Data::new(), Vec::new());
        let (took, ended) = data.take(input, &mut message);
        (message, ended.then_some(took), data.bare)
    }

    #[test]
    fn dots_are_undone_and_the_end_is_found() {
        assert_eq!(read(b"a\r\n..b\r\n.c\r\n.\r\nQUIT"), (b"a\r\n.b\r\nc\r\n".to_vec(), Some(15), false));
        assert_eq!(read(b".\r\n"), (Vec::new(), Some(3), false));
        assert_eq!(read(b".\rc\r\n.\r\n"), (b"\rc\r\n".to_vec(), Some(8), true));
    }

    #[test]
    fn nothing_else_ends_a_message() {
        for end in [
            "\n.\n",
            "\r.\r",
            "\n.\r\n",
            "\r\n.\n",
            "\r\n.\r",
            "\r\n.\r\r\n",
            "\r\r\n.\r\r\n",
            "\r.\r\n",
            "\n\n.\r\n",
            "\r\n .\r\n",
            "\r\n.\0\r\n",
            "\r\n..\r\n",
            "\n.\r",
            "\r.\n",
            "\r\n.\n\r\n",
            "\r\n.\r.\r\n",
            "\r\n.\r\r\r\n",
            "\n\r.\r\n",
            "\0\n.\r\n",
            "\r\n\0.\r\n",
            "\r\0\n.\r\n",
            "\r\n.\t\r\n",
            "\u{85}.\u{85}",
            "\u{2028}.\u{2028}",
        ] {
            let (message, ended, _) = read(format!("x{end}y").as_bytes());
            assert_eq!(ended, None, "{end:?}");
            assert_eq!(message.last(), Some(&b'y'), "{end:?}");
            // And the true end is still found behind it.
            let whole = format!("x{end}y\r\n.\r\n");
            assert_eq!(read(whole.as_bytes()).1, Some(whole.len()), "{end:?}");
        }
    }

    #[test]
    fn bare_line_ends_are_noticed() {
        for (text, bare) in [
            ("a\r\nb\r\n", false),
            ("a\nb\r\n", true),
            ("a\rb\r\n", true),
            ("a\r\r\n", true),
            (".\ra\r\n", true),
            ("a\r\n.\n", true),
        ] {
            assert_eq!(read(text.as_bytes()).2, bare, "{text:?}");
        }
    }

    #[test]
    fn every_other_byte_is_content() {
        let all: Vec<u8> = (0..=255).filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        let input = [&all[..], b"\r\n.\r\n"].concat();
        let (message, ended, bare) = read(&input);
        assert_eq!((&message[..all.len()], ended, bare), (&all[..], Some(input.len()), false));
    }

    #[test]
    fn every_split_reads_the_same() {
        let input = b"a\r\n..b\r\r\n.\rc\r\n.\n.\r\nx\r\n.\r\nrest";
        let whole = read(input);
        for at in 0..input.len() {
            let (mut data, mut message) = (Data::new(), Vec::new());
            let (took, ended) = data.take(&input[..at], &mut message);
            let end = if ended {
                Some(took)
            } else {
                let (more, ended) = data.take(&input[at..], &mut message);
                ended.then_some(at + more)
            };
            assert_eq!((message, end, data.bare), whole, "split at {at}");
        }
    }
}
