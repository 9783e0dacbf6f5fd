//! What other servers have of an item, until its queue has recorded that, whoever leads it by then.

use mailraft_owner::Place;
use mailraft_storage::{CommandId, MailboxId, Rows, StoreError};

use super::outgoing::OutgoingMessage;
use super::rows::read_stage;
use crate::accepted::{Attempt, DeliveryStage, QueueChange};
use crate::api::Command;
use crate::records::MailboxKey;

/// Recipients whose servers have an item.
#[derive(Clone, Debug)]
pub struct Arrived {
    place: Place,
    key: MailboxKey,
    item: CommandId,
    attempts: Vec<Attempt>,
}

impl Arrived {
    /// Those of these attempts by which the message arrived; None if none did.
    pub fn of(message: &OutgoingMessage, attempts: &[Attempt]) -> Option<Self> {
        let attempts: Vec<Attempt> = attempts.iter().filter(|attempt| attempt.is_sent()).cloned().collect();
        let (place, key, item) = message.read_from();
        (!attempts.is_empty()).then(|| Arrived { place, key: key.clone(), item, attempts })
    }

    /// The item.
    pub fn item(&self) -> CommandId {
        self.item
    }

    /// The queue mailbox.
    pub fn queue(&self) -> MailboxId {
        self.place.mailbox
    }

    /// Whether these rows have it. Blocking: for a worker thread.
    ///
    /// # Errors
    /// If rows can't be read.
    pub fn is_recorded(&self, rows: &dyn Rows) -> Result<bool, StoreError> {
        for attempt in &self.attempts {
            match read_stage(rows, &self.place, &self.key, (self.item, attempt.recipient))? {
                Some(DeliveryStage::Waiting | DeliveryStage::Deferred { .. } | DeliveryStage::Held(_)) => {
                    return Ok(false);
                }
                Some(DeliveryStage::Delivered | DeliveryStage::Reporting(_)) | None => {}
            }
        }
        Ok(true)
    }

    /// What tells it to the queue's owner, also to one that did not send it: it may be told as often as one likes.
    pub fn command(&self) -> Command {
        Command::ChangeQueue { change: QueueChange::Attempted { item: self.item, attempts: self.attempts.clone() } }
    }
}
