//! What the client sent and nobody read yet: bounded, and wiped once read, for it may hold passwords.

use zeroize::{Zeroize, Zeroizing};

/// Input that waits, in bytes. Beyond it the shell must not read.
pub const INPUT_MAX_BYTES: usize = 64 << 10;

/// What looking for a line gave.
#[derive(Debug)]
pub enum Line {
    /// More input is needed.
    Incomplete,
    /// A line that was longer than allowed; it is gone.
    TooLong,
    /// A line without its CRLF.
    Whole(Zeroizing<Vec<u8>>),
}

/// The input buffer.
#[derive(Default)]
pub struct Input {
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes before this one were read.
    start: usize,
    /// So many pending bytes were searched for a line's end.
    searched: usize,
    /// A line is too long: it is thrown away up to its end.
    skipping: bool,
    /// What the last of those began with.
    verb: [u8; 4],
}

impl Input {
    /// How many bytes fit in.
    pub fn room(&self) -> usize {
        INPUT_MAX_BYTES - self.pending().len()
    }

    /// What was not read yet.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Appends bytes, at most as many as there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room());
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // Not left to the vector, which would free the old bytes without wiping them.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets the first pending bytes.
    pub fn consume(&mut self, count: usize) {
        self.bytes[self.start..self.start + count].zeroize();
        self.start += count;
        self.searched = 0;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Forgets everything, also that a line was too long.
    pub fn clear(&mut self) {
        *self = Input::default();
    }

    /// The next line. It ends at CRLF and at nothing else; `max_bytes` tells from its first bytes how long it may
    /// be with its CRLF. How the input was cut into pieces makes no difference.
    pub fn line(&mut self, max_bytes: impl Fn(&[u8]) -> usize) -> Line {
        let pending = self.pending();
        // The last byte searched may be the CR of a CRLF.
        let from = self.searched.saturating_sub(1);
        let Some(at) = pending[from..].windows(2).position(|w| w == b"\r\n") else {
            if self.skipping || pending.len() >= max_bytes(pending) {
                let keep = usize::from(pending.last() == Some(&b'\r'));
                let (length, verb) = (pending.len(), pending.first_chunk().copied().unwrap_or_default());
                self.verb = if self.skipping { self.verb } else { verb };
                self.consume(length - keep);
                self.skipping = true;
            } else {
                self.searched = pending.len();
            }
            return Line::Incomplete;
        };
        let end = from + at;
        let too_long = self.skipping || end + 2 > max_bytes(pending);
        let verb = if too_long && !self.skipping { pending.first_chunk().copied() } else { None };
        let line = if too_long { Line::TooLong } else { Line::Whole(Zeroizing::new(pending[..end].to_vec())) };
        self.consume(end + 2);
        (self.skipping, self.verb) = (false, verb.unwrap_or(self.verb));
        line
    }

    /// The first four bytes of the last line that was too long: nothing else is left of it.
    pub fn verb(&self) -> [u8; 4] {
        self.verb
    }
}

impl std::fmt::Debug for Input {
    /// Tells how much there is, not what: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Input({} bytes)", self.pending().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of an input that comes in pieces; `-` for one that is too long.
    fn lines(input: &[u8], piece_bytes: usize) -> Vec<String> {
        let (mut buffer, mut lines) = (Input::default(), Vec::new());
        for piece in input.chunks(piece_bytes) {
            buffer.push(piece);
            loop {
                match buffer.line(|line| if line.starts_with(b"L") { 12 } else { 8 }) {
                    Line::Incomplete => break,
                    Line::TooLong => lines.push("-".to_owned()),
                    Line::Whole(line) => lines.push(String::from_utf8_lossy(&line).into_owned()),
                }
            }
        }
        lines
    }

    #[test]
    fn bounds_hold_however_the_input_is_cut() {
        let input = b"123456\r\n1234567\r\n\r\nL123456789\r\nL1234567890\r\n12345678901234567890\r\r\r\nab\rc\nd\r\n12345\r\r\nrest";
        let expected = ["123456", "-", "", "L123456789", "-", "-", "ab\rc\nd", "12345\r"];
        for piece_bytes in 1..=input.len() {
            assert_eq!(lines(input, piece_bytes), expected, "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut buffer = Input::default();
        for _ in 0..100 {
            buffer.push(&[b'x'; 1_000]);
            assert!(matches!(buffer.line(|_| 512), Line::Incomplete));
            assert_eq!(buffer.room(), INPUT_MAX_BYTES);
        }
    }

    #[test]
    fn what_is_printed_is_no_secret() {
        let mut buffer = Input::default();
        buffer.push(b"AUTH PLAIN c2VjcmV0");
        assert_eq!(format!("{buffer:?}"), "Input(19 bytes)");
    }
}
