//! What waits in the queue mailboxes that this node leads, looked at now and then: for metrics and for `mailraft status`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_mailbox::accepted::QueuedItem;
use mailraft_mailbox::{Answer, Command, Finished};
use mailraft_storage::{MailboxId, PartitionId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::actors::Registry;
use crate::environment::{command_id, wall};
use crate::links::{MailboxSession, Reach};

/// How often it is looked.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(30);
/// Items that are looked at of one partition's queue, which has no more.
pub const ITEMS_MAX: usize = 10_000;

/// What waits in the queues that a node leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedStatus {
    /// Messages.
    pub messages: u64,
    /// Recipients that they are to be delivered or sent to, or of whom a sender is to be told.
    pub waiting: u64,
    /// Recipients for whom they are held until an operator decides.
    pub held: u64,
    /// When the oldest of them was accepted, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unix_ms: Option<u64>,
}

impl QueuedStatus {
    /// Of these items.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a QueuedItem>) -> Self {
        items.into_iter().fold(QueuedStatus::default(), |sum, item| {
            sum.and(QueuedStatus {
                messages: 1,
                waiting: u64::from(item.waiting),
                held: u64::from(item.held),
                oldest_unix_ms: Some(item.accepted.0),
            })
        })
    }

    /// Together with what waits elsewhere.
    pub fn and(self, other: Self) -> Self {
        QueuedStatus {
            messages: self.messages + other.messages,
            waiting: self.waiting + other.waiting,
            held: self.held + other.held,
            oldest_unix_ms: self.oldest_unix_ms.into_iter().chain(other.oldest_unix_ms).min(),
        }
    }

    fn announce(&self, now: UnixMillis) {
        let oldest_s = self.oldest_unix_ms.map_or(0, |at| now.0.saturating_sub(at) / 1_000);
        for (name, value) in [
            ("mailraft_queue_messages", self.messages),
            ("mailraft_queue_waiting_recipients", self.waiting),
            ("mailraft_queue_held_recipients", self.held),
            ("mailraft_queue_oldest_seconds", oldest_s),
        ] {
            ::metrics::gauge!(name).set(value as f64);
        }
    }
}

/// What waited when it was looked last; clones share it.
#[derive(Clone, Debug, Default)]
pub struct QueueWatch(Arc<Mutex<QueuedStatus>>);

impl QueueWatch {
    /// That.
    pub fn status(&self) -> QueuedStatus {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for as long as the node runs.
    pub async fn watch(self, reach: Reach, registry: Registry) {
        loop {
            let registry = registry.clone();
            let mut found = QueuedStatus::default();
            match tokio::task::spawn_blocking(move || registry.queues_in_use()).await {
                Ok(partitions) => {
                    for partition in partitions {
                        let items = items(&reach, partition).await.unwrap_or_default();
                        found = found.and(QueuedStatus::of(&items));
                    }
                }
                Err(error) => tracing::error!(%error, "looking what waits in queues panicked"),
            }
            found.announce(wall());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
            tokio::time::sleep(LOOKED_AT_EVERY).await;
        }
    }
}

/// What waits in a partition's queue, oldest first. None if it does not answer.
pub async fn items(reach: &Reach, partition: PartitionId) -> Option<Vec<QueuedItem>> {
    let (mut all, mut after) = (Vec::new(), None);
    while all.len() < ITEMS_MAX {
        let Answer::QueueItems(items) = ask(reach, partition, Command::QueueItems { after }).await? else {
            return None;
        };
        let Some(last) = items.last() else { break };
        after = Some(last.item);
        all.extend(items);
    }
    Some(all)
}

/// Asks a partition's queue. None if it does not answer.
pub async fn ask(reach: &Reach, partition: PartitionId, command: Command) -> Option<Answer> {
    let mut session = MailboxSession::new(reach.clone(), MailboxId::queue_of(partition));
    match session.ask(command_id(&reach.cluster), command).await {
        Finished::Done((answer, _)) => Some(answer),
        Finished::NotDone(why) => {
            tracing::info!(partition = partition.0, %why, "a queue can't be asked");
            None
        }
        Finished::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use mailraft_storage::CommandId;

    use super::*;

    #[test]
    fn what_waits_in_several_queues_is_summed_up() {
        let item = |accepted: u64, waiting: u32, held: u32| QueuedItem {
            item: CommandId([1; 16]),
            accepted: UnixMillis(accepted),
            size_bytes: 5,
            waiting,
            delivered: 7,
            held,
        };
        let one = QueuedStatus::of(&[item(30, 2, 0), item(20, 0, 1)]);
        let other = QueuedStatus::of(&[item(40, 1, 1)]);
        let expected = QueuedStatus { messages: 3, waiting: 3, held: 2, oldest_unix_ms: Some(20) };
        assert_eq!((one.and(other), other.and(one)), (expected, expected));
        assert_eq!(QueuedStatus::of(&[]).and(one), one);
    }
}
