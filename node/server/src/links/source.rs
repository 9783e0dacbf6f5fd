//! What a session puts into its mailbox, from wherever it has it: a message, or several at once.

use bytes::Bytes;
use mailraft_mailbox::api::NewMessage;

use crate::spool::SpooledMessage;

/// Messages, sealed for each attempt.
pub trait MessageSource: Sync {
    /// The messages as the mailbox gets them, each with its body in it, if that fits one chunk.
    fn seal(&self) -> Vec<NewMessage>;

    /// One sealed chunk of the message of this place among them, as it was sealed last. None if it can't be had: then the
    /// attempt ends.
    fn chunk(&self, place: usize, sealed: &NewMessage, number: u32) -> Option<Bytes>;
}

impl MessageSource for SpooledMessage {
    fn seal(&self) -> Vec<NewMessage> {
        vec![SpooledMessage::seal(self)]
    }

    fn chunk(&self, _: usize, sealed: &NewMessage, number: u32) -> Option<Bytes> {
        Some(self.seal_chunk(sealed, number))
    }
}

/// Several messages that are put into a folder at once.
pub struct Together<'a>(pub &'a [SpooledMessage]);

impl MessageSource for Together<'_> {
    fn seal(&self) -> Vec<NewMessage> {
        self.0.iter().map(SpooledMessage::seal).collect()
    }

    fn chunk(&self, place: usize, sealed: &NewMessage, number: u32) -> Option<Bytes> {
        Some(self.0.get(place)?.seal_chunk(sealed, number))
    }
}
