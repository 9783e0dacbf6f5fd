//! The header of a message that comes in pieces.

use mailraft_message::header::HEADER_MAX_BYTES;

/// Collects a header, as far as it is not longer than a message may have it.
#[derive(Default)]
pub(crate) struct Head {
    pub(crate) bytes: Vec<u8>,
    /// Where the line begins that is not whole yet.
    line: usize,
}

impl Head {
    /// Takes octets. Returns those behind the empty line that ends the header; None as long as it has not come.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let had = self.bytes.len();
        // What is longer is refused for it.
        let room = (HEADER_MAX_BYTES + 2).saturating_sub(had).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..room]);
        let end = self.end()?;
        self.bytes.truncate(end);
        Some(&bytes[end - had..])
    }

    /// Whether no more of it is collected, and it may go on.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= HEADER_MAX_BYTES + 2
    }

    /// Behind the empty line that ends the header.
    fn end(&mut self) -> Option<usize> {
        while let Some(end) = memchr::memchr(b'\n', &self.bytes[self.line..]).map(|at| self.line + at + 1) {
            let line = &self.bytes[self.line..end];
            self.line = end;
            if matches!(line, b"\n" | b"\r\n") {
                return Some(end);
            }
        }
        None
    }
}
