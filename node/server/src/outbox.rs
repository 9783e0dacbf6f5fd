//! What an actor says to a session, and the bounded way it goes.

use std::sync::Arc;

use mailraft_mailbox::{Answer, CommandError, Detached, Event, Position, Refusal};
use mailraft_storage::CommandId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

/// Answers and events that may wait for one session or one connection to another node.
pub const OUTBOX_MAX_MESSAGES: usize = 4_096;

/// What an actor says to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToSession {
    /// What the mailbox answers to a command.
    Answer {
        /// The command.
        id: CommandId,
        /// The answer, or the refusal that was decided.
        result: Result<Answer, Refusal>,
        /// The position of the change, or of the memory that was read.
        at: Position,
    },
    /// Something changed in the open folder.
    Event(Event),
    /// The link is over.
    Detached(Detached),
    /// A command has no answer.
    Failed {
        /// The command.
        id: CommandId,
        /// The reason.
        error: CommandError,
    },
}

/// The sending end: one for each attached session; those of one connection share a channel.
#[derive(Clone)]
pub struct Outbox {
    number: u64,
    tx: mpsc::Sender<(u64, ToSession)>,
    overflow: Arc<Notify>,
}

/// The receiving end.
pub struct Inbox {
    rx: mpsc::Receiver<(u64, ToSession)>,
    overflow: Arc<Notify>,
}

/// A channel of [`OUTBOX_MAX_MESSAGES`]; `number` names the session on it.
pub fn channel(number: u64) -> (Outbox, Inbox) {
    let (tx, rx) = mpsc::channel(OUTBOX_MAX_MESSAGES);
    let overflow = Arc::new(Notify::new());
    (Outbox { number, tx, overflow: Arc::clone(&overflow) }, Inbox { rx, overflow })
}

impl Outbox {
    /// Another session's end of the same channel.
    pub fn for_session(&self, number: u64) -> Outbox {
        Outbox { number, ..self.clone() }
    }

    /// Says something. Where the channel is full nothing can be said any more: the receiver is told to give
    /// the whole link up and attach again, so that it misses nothing unknowingly.
    pub fn send(&self, message: ToSession) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.tx.try_send((self.number, message)) {
            ::metrics::counter!("mailraft_session_outbox_overflows_total").increment(1);
            self.overflow.notify_one();
        }
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.tx.is_closed()
    }
}

impl Inbox {
    /// The next message; None when the link is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<(u64, ToSession)> {
        tokio::select! {
            biased;
            () = self.overflow.notified() => None,
            message = self.rx.recv() => message,
        }
    }

    /// A message that is there already.
    pub fn try_next(&mut self) -> Option<(u64, ToSession)> {
        self.rx.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_full_outbox_ends_the_link_instead_of_losing_one_message() {
        let (outbox, mut inbox) = channel(7);
        for _ in 0..OUTBOX_MAX_MESSAGES {
            outbox.send(ToSession::Detached(Detached::Gone));
        }
        assert!(matches!(inbox.next().await, Some((7, _))));
        outbox.send(ToSession::Detached(Detached::Gone));
        outbox.send(ToSession::Detached(Detached::Gone));
        assert!(inbox.next().await.is_none());
    }
}
