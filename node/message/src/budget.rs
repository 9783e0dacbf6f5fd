//! What may be made of one message. Whoever takes a message apart pays here before each thing that it keeps, so that the
//! cost is bounded by what is made and not by what is read. What is too much is refused where the message comes in: nothing
//! is cut, and nothing is told otherwise than it is.

use crate::header::HEADER_MAX_BYTES;

/// A message's ENVELOPE and BODYSTRUCTURE together take no more than this encoded, in bytes: they share an entry with what
/// is kept of the header block, and the body.
pub const DESCRIPTION_MAX_BYTES: usize = 448 << 10;
/// They take no more than this in memory, in bytes, with room for vectors that grow.
pub const DESCRIPTION_MEMORY_MAX_BYTES: usize = 4 << 20;
/// The parts of a message, nested ones counted.
pub const PARTS_MAX: usize = 4_000;
/// How deep parts may be nested.
pub const DEPTH_MAX: usize = 50;
/// What it takes beside the message itself to take a message apart, in bytes: what is made, its encoded form, and a header
/// block that is unfolded.
pub const PARSE_MEMORY_MAX_BYTES: usize = 9 << 20;
/// A message within a message that is encoded (RFC 2046 forbids that, and mail programs do it) is looked into as long as all
/// of them have no more than this, in bytes, as they are encoded; another one is told as a file.
pub const ENCODED_MESSAGES_MAX_BYTES: usize = 1 << 20;

/// What a piece of memory for a text takes beside the text, in bytes, at most.
pub(crate) const TEXT_MEMORY_BYTES: usize = 32;

/// What a message has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Its header block is longer than [`HEADER_MAX_BYTES`].
    #[error("the header is longer than {} KiB", HEADER_MAX_BYTES >> 10)]
    Header,
    /// So is that of a part, or of a message in it.
    #[error("the header of a part is longer than {} KiB", HEADER_MAX_BYTES >> 10)]
    PartHeader,
    /// It has more than [`PARTS_MAX`] parts.
    #[error("the message has more than {PARTS_MAX} parts")]
    Parts,
    /// They are nested deeper than [`DEPTH_MAX`].
    #[error("the message's parts are nested deeper than {DEPTH_MAX}")]
    Depth,
    /// ENVELOPE and BODYSTRUCTURE would be longer than [`DESCRIPTION_MAX_BYTES`], or take more memory than
    /// [`DESCRIPTION_MEMORY_MAX_BYTES`].
    #[error("the message has too many addresses, parameters or parts")]
    Description,
}

/// What is left of all that.
#[derive(Debug)]
pub(crate) struct Budget {
    encoded_bytes: usize,
    memory_bytes: usize,
    parts: usize,
    encoded_messages_bytes: usize,
}

impl Budget {
    pub(crate) fn of_a_message() -> Self {
        Budget {
            encoded_bytes: DESCRIPTION_MAX_BYTES,
            memory_bytes: DESCRIPTION_MEMORY_MAX_BYTES,
            parts: PARTS_MAX,
            encoded_messages_bytes: ENCODED_MESSAGES_MAX_BYTES,
        }
    }

    /// For something that takes so many bytes encoded, and so many in memory.
    pub(crate) fn take(&mut self, encoded_bytes: usize, memory_bytes: usize) -> Result<(), TooMuch> {
        let left = self.encoded_bytes.checked_sub(encoded_bytes).zip(self.memory_bytes.checked_sub(memory_bytes));
        (self.encoded_bytes, self.memory_bytes) = left.ok_or(TooMuch::Description)?;
        Ok(())
    }

    /// For a text.
    pub(crate) fn take_text(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.take(bytes + length_bytes(bytes), bytes + TEXT_MEMORY_BYTES)
    }

    /// For an encoded message that is decoded to be looked into; false if there were too many already.
    pub(crate) fn take_encoded_message(&mut self, bytes: usize) -> bool {
        let left = self.encoded_messages_bytes.checked_sub(bytes);
        self.encoded_messages_bytes = left.unwrap_or(self.encoded_messages_bytes);
        left.is_some()
    }

    /// For a part at this depth; the whole message is at 0.
    pub(crate) fn take_part(&mut self, depth: usize) -> Result<(), TooMuch> {
        if depth > DEPTH_MAX {
            return Err(TooMuch::Depth);
        }
        self.parts = self.parts.checked_sub(1).ok_or(TooMuch::Parts)?;
        Ok(())
    }
}

/// What a text's length takes encoded, in bytes: seven bits a byte.
pub(crate) fn length_bytes(length: usize) -> usize {
    (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize
}
