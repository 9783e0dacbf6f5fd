//! Delimiter lines where no part is: a program that reads boundaries in another order than this server sees a part there.

use std::collections::BTreeSet;

/// The longest beginning of a line that is looked at, in bytes: RFC 2046, section 5.1.1, has boundaries of 70. What has a longer one
/// begins no part for anybody here.
const LINE_START_MAX_BYTES: usize = 1_000;

/// Looks for octets above 127 behind a line that begins a part, in a stretch that is in none.
#[derive(Debug, Default)]
pub struct Delimiters {
    /// The beginning of the line that has not ended.
    line: Vec<u8>,
    is_behind_one: bool,
    has_part: bool,
}

impl Delimiters {
    /// Reads the next piece of the stretch; it is of a message with these boundaries.
    pub fn piece(&mut self, piece: &[u8], boundaries: &BTreeSet<Vec<u8>>) {
        for line in piece.split_inclusive(|octet| *octet == b'\n') {
            self.has_part |= self.is_behind_one && !line.is_ascii();
            let room = LINE_START_MAX_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&line[..line.len().min(room)]);
            if line.ends_with(b"\n") {
                let rest = self.line.strip_prefix(b"--").map(<[u8]>::trim_ascii_end);
                self.is_behind_one |= rest.is_some_and(|rest| boundaries.contains(rest));
                self.line.clear();
            }
        }
    }

    /// Whether some programs show a part there that has octets above 127.
    pub fn has_part(&self) -> bool {
        self.has_part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_part(stretch: &[u8], size: usize) -> bool {
        let mut delimiters = Delimiters::default();
        let boundaries = BTreeSet::from([b"q".to_vec(), b"a--".to_vec()]);
        stretch.chunks(size).for_each(|piece| delimiters.piece(piece, &boundaries));
        delimiters.has_part()
    }

    #[test]
    fn behind_a_line_of_a_boundary_there_may_be_a_part() {
        for (stretch, has) in [
            ("\u{fc}\r\n--q\r\n", false),
            ("--q--\r\n\u{fc}\r\n--q\r\n", false),
            ("--q--\r\n--q \t\r\n\r\n\u{fc}\r\n--q--\r\n", true),
            ("--a--\r\n\u{fc}", true),
            ("-- \r\n\u{fc}", false),
            ("--other\r\n\u{fc}", false),
            (" --q\r\n\u{fc}", false),
            ("--q\u{fc}\r\n\u{fc}", false),
        ] {
            for size in [1, 2, 7, 100] {
                assert_eq!(has_part(stretch.as_bytes(), size), has, "{stretch:?} {size}");
            }
        }
    }

    #[test]
    fn of_a_long_line_the_beginning_is_kept() {
        let mut delimiters = Delimiters::default();
        delimiters.piece(&vec![b'-'; 1 << 20], &BTreeSet::new());
        assert_eq!(delimiters.line.len(), LINE_START_MAX_BYTES);
    }
}
