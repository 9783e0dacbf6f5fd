//! Messages on their way to their mailbox's log: which of them go with the command, and how far the others are.

use serde::{Deserialize, Serialize};

use crate::api::NewMessage;

/// Bodies of one chunk go with their command as long as they have no more than this together, in bytes; those behind are
/// uploaded like longer ones.
pub(crate) const INLINE_MAX_BYTES: usize = 512 << 10;

/// What became of a chunk. It travels between nodes: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkOutcome {
    /// It is not on a majority's disks, and won't be by this upload.
    NotDurable,
    /// It is on a majority's disks.
    Durable,
    /// It is not, because other regions have not confirmed for long.
    NotConfirmed,
}

/// Messages whose bodies are uploaded one after another.
pub(crate) struct Upload {
    messages: Vec<NewMessage>,
    /// The one whose chunks are sent now.
    at: usize,
    /// Its chunks that were sent.
    sent: u32,
    /// Those of them that are durable.
    durable: u32,
}

impl Upload {
    /// Of messages as they were sealed. The first body goes with the command whenever it fits one chunk.
    pub fn new(mut messages: Vec<NewMessage>) -> Self {
        let mut inline_bytes = 0;
        for message in &mut messages {
            let bytes = message.inline.as_ref().map_or(0, bytes::Bytes::len);
            if inline_bytes + bytes > INLINE_MAX_BYTES {
                message.inline = None;
            } else {
                inline_bytes += bytes;
            }
        }
        let mut upload = Upload { messages, at: 0, sent: 0, durable: 0 };
        upload.skip_inline();
        upload
    }

    /// The message whose body is uploaded now; None if all are there.
    pub fn current(&self) -> Option<&NewMessage> {
        self.messages.get(self.at)
    }

    /// The next chunk of it that is to be sent, if no more than `unanswered_max` are without an answer then.
    pub fn next_chunk(&mut self, unanswered_max: usize) -> Option<u32> {
        let chunks = self.current()?.chunks;
        if self.sent >= chunks || (self.sent - self.durable) as usize >= unanswered_max {
            return None;
        }
        self.sent += 1;
        Some(self.sent - 1)
    }

    /// One more of its chunks is durable; whether it was the last, and the next message has its turn.
    pub fn is_whole_with_one_more(&mut self) -> bool {
        self.durable += 1;
        assert!(self.durable <= self.sent, "a chunk is answered once, after it was sent");
        if self.current().is_some_and(|message| self.durable < message.chunks) {
            return false;
        }
        self.at += 1;
        (self.sent, self.durable) = (0, 0);
        self.skip_inline();
        true
    }

    /// Chunks of the current body that are durable.
    pub fn durable(&self) -> u32 {
        self.durable
    }

    /// The messages, for their command.
    pub fn messages(&self) -> Vec<NewMessage> {
        self.messages.clone()
    }

    fn skip_inline(&mut self) {
        while self.current().is_some_and(|message| message.inline.is_some()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use mailraft_storage::Env;

    use super::*;
    use crate::harness::new_message;

    #[test]
    fn what_goes_with_a_command_is_bounded_and_the_rest_is_uploaded_in_its_order() {
        let mut env = Env::seeded(1);
        let mut message = |chunks: u32, inline_bytes: usize| NewMessage {
            chunks,
            inline: (chunks == 1).then(|| vec![0; inline_bytes].into()),
            ..new_message(&mut env, "x")
        };
        let half = INLINE_MAX_BYTES / 2;
        let messages = vec![message(1, half), message(3, 0), message(1, half), message(1, 1), message(2, 0)];
        let bodies: Vec<_> = messages.iter().map(|m| m.body).collect();
        let mut upload = Upload::new(messages);
        let mut sent = Vec::new();
        while let Some(body) = upload.current().map(|message| message.body) {
            let chunks: Vec<u32> = std::iter::from_fn(|| upload.next_chunk(2)).collect();
            assert!(chunks.len() <= 2);
            let number = bodies.iter().position(|of| *of == body);
            sent.extend(chunks.into_iter().map(|chunk| (number, chunk)));
            upload.is_whole_with_one_more();
        }
        let expected = [(1, 0), (1, 1), (1, 2), (3, 0), (4, 0), (4, 1)];
        assert_eq!(sent, expected.map(|(message, chunk)| (Some(message), chunk)));
        let inline: Vec<bool> = upload.messages().iter().map(|message| message.inline.is_some()).collect();
        assert_eq!(inline, [true, false, true, false, false]);
    }
}
