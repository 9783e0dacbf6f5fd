//! The message after BDAT (RFC 3030, section 2): pieces whose lengths are told, so nothing in them is looked for.

use mailraft_protocol::Refusal;

/// What came of a message in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Bytes so far.
    pub size_bytes: u64,
    /// A CR without LF or an LF without CR was seen.
    pub bare: bool,
    after_cr: bool,
}

/// A piece that is being read.
#[derive(Debug)]
pub struct Chunk {
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// Bytes of it that are still to come.
    pub left_bytes: u64,
    /// The message ends with it.
    pub last: bool,
    /// Its bytes are only consumed, as they would otherwise be commands; then this is said.
    pub refused: Option<ChunkRefusal>,
}

/// Why a piece is not taken.
#[derive(Debug)]
pub enum ChunkRefusal {
    /// It comes out of turn.
    Wrong(&'static str),
    /// The message is not taken.
    Refused(Refusal),
}

impl Chunks {
    /// Looks at the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            if self.after_cr {
                self.bare |= *byte != b'\n';
                self.after_cr = *byte == b'\r';
                rest = &rest[1..];
                continue;
            }
            let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else { return };
            self.bare |= rest[at] == b'\n';
            self.after_cr = rest[at] == b'\r';
            rest = &rest[at + 1..];
        }
    }

    /// Whether, if nothing more comes, some line ended with a bare CR or LF.
    pub fn has_bare(&self) -> bool {
        self.bare || self.after_cr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bare(pieces: &[&[u8]]) -> bool {
        let mut chunks = Chunks::default();
        pieces.iter().for_each(|piece| chunks.take(piece));
        chunks.has_bare()
    }

    #[test]
    fn bare_line_ends_are_noticed_wherever_it_is_cut() {
        for (text, bare) in [
            ("a\r\nb\r\n", false),
            ("a", false),
            ("\r\n\r\n", false),
            ("a\nb\r\n", true),
            ("a\rb\r\n", true),
            ("a\r\r\n", true),
            ("\n", true),
            ("a\r", true),
        ] {
            for at in 0..=text.len() {
                let (one, other) = text.as_bytes().split_at(at);
                assert_eq!(is_bare(&[one, other]), bare, "{text:?} cut at {at}");
            }
        }
    }
}
