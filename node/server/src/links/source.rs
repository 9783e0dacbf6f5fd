//! A message that a session puts into its mailbox, from wherever it has it.

use bytes::Bytes;
use mailraft_mailbox::api::NewMessage;

use crate::spool::SpooledMessage;

/// A message, sealed for each attempt.
pub trait MessageSource: Sync {
    /// The message as the mailbox gets it, with the body in it, if that fits one chunk.
    fn seal(&self) -> NewMessage;

    /// One sealed chunk of it, as it was sealed last. None if it can't be had: then the attempt ends.
    fn chunk(&self, sealed: &NewMessage, number: u32) -> Option<Bytes>;
}

impl MessageSource for SpooledMessage {
    fn seal(&self) -> NewMessage {
        SpooledMessage::seal(self)
    }

    fn chunk(&self, sealed: &NewMessage, number: u32) -> Option<Bytes> {
        Some(self.seal_chunk(sealed, number))
    }
}
