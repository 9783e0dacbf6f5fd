//! What waits in a queue mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, MailboxId, UnixMillis};

use crate::accepted::{DeliveryStage, QueuedItem};

/// What an item costs in memory, roughly, in bytes.
const ITEM_MEMORY_BYTES: usize = 200;
/// What a recipient costs in memory, roughly, in bytes.
const RECIPIENT_MEMORY_BYTES: usize = 120;

/// A recipient of an item.
pub type RecipientId = (CommandId, u32);

/// All items of one queue mailbox, by the ids under which they were accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    items: Arc<BTreeMap<CommandId, Arc<Item>>>,
    /// Recipients for whom something is to be done.
    open: Arc<BTreeSet<RecipientId>>,
    recipients: usize,
    bytes: u64,
}

/// An item.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub accepted: UnixMillis,
    pub body: BodyId,
    pub chunks: u32,
    pub size_bytes: u64,
    pub recipients: BTreeMap<u32, Recipient>,
}

/// A recipient of whom something is still known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub mailbox: MailboxId,
    pub stage: DeliveryStage,
}

impl Items {
    pub fn get(&self, item: CommandId) -> Option<&Item> {
        self.items.get(&item).map(Arc::as_ref)
    }

    pub fn recipient(&self, (item, recipient): RecipientId) -> Option<&Recipient> {
        self.get(item)?.recipients.get(&recipient)
    }

    /// Those of whom something is to be done, oldest item first.
    pub fn open(&self) -> impl Iterator<Item = RecipientId> + '_ {
        self.open.iter().copied()
    }

    pub fn is_open(&self, id: RecipientId) -> bool {
        self.open.contains(&id)
    }

    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Recipients of all items.
    pub fn recipients(&self) -> usize {
        self.recipients
    }

    /// Messages of all items, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn memory_bytes(&self) -> usize {
        self.items.len() * ITEM_MEMORY_BYTES + self.recipients * RECIPIENT_MEMORY_BYTES
    }

    pub fn insert(&mut self, id: CommandId, item: Item) {
        self.recipients += item.recipients.len();
        self.bytes += item.size_bytes;
        let open = item.recipients.iter().filter(|(_, r)| is_open(r.stage)).map(|(number, _)| (id, *number));
        Arc::make_mut(&mut self.open).extend(open);
        let before = Arc::make_mut(&mut self.items).insert(id, Arc::new(item));
        assert!(before.is_none(), "item {id} is accepted once");
    }

    /// How far the delivery to a recipient is from now on. False if there is no such recipient.
    pub fn set_stage(&mut self, id: RecipientId, stage: DeliveryStage) -> bool {
        if self.recipient(id).is_none() {
            return false;
        }
        let item = Arc::make_mut(&mut self.items).get_mut(&id.0).map(Arc::make_mut);
        let Some(recipient) = item.and_then(|item| item.recipients.get_mut(&id.1)) else { return false };
        recipient.stage = stage;
        let open = Arc::make_mut(&mut self.open);
        if is_open(stage) {
            open.insert(id)
        } else {
            open.remove(&id)
        };
        true
    }

    /// Forgets a recipient. Returns the item if that was its last one: it is gone.
    pub fn remove(&mut self, id: RecipientId) -> Option<Item> {
        self.recipient(id)?;
        let items = Arc::make_mut(&mut self.items);
        let item = Arc::make_mut(items.get_mut(&id.0)?);
        item.recipients.remove(&id.1);
        self.recipients -= 1;
        Arc::make_mut(&mut self.open).remove(&id);
        if !item.recipients.is_empty() {
            return None;
        }
        let item = items.remove(&id.0).map(Arc::unwrap_or_clone)?;
        self.bytes -= item.size_bytes;
        Some(item)
    }

    /// At most `limit` items after this one, in short.
    pub fn list(&self, after: Option<CommandId>, limit: usize) -> Vec<QueuedItem> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let items = self.items.range((from, std::ops::Bound::Unbounded)).take(limit);
        items.map(|(id, item)| item.in_short(*id)).collect()
    }
}

impl Item {
    fn in_short(&self, item: CommandId) -> QueuedItem {
        let (mut waiting, mut delivered, mut held) = (0, 0, 0);
        for recipient in self.recipients.values() {
            match recipient.stage {
                DeliveryStage::Waiting => waiting += 1,
                DeliveryStage::Delivered => delivered += 1,
                DeliveryStage::Held(_) => held += 1,
            }
        }
        QueuedItem { item, accepted: self.accepted, size_bytes: self.size_bytes, waiting, delivered, held }
    }
}

fn is_open(stage: DeliveryStage) -> bool {
    match stage {
        DeliveryStage::Waiting | DeliveryStage::Delivered => true,
        DeliveryStage::Held(_) => false,
    }
}
