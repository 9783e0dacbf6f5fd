//! What waits in a queue mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, MailboxId, UnixMillis};

use super::places::Sender;
use crate::accepted::{AT_ONCE, AcceptedRecipient, DeliveryStage, Destination, QueuedItem};

/// What an item costs in memory, roughly, in bytes.
const ITEM_MEMORY_BYTES: usize = 200;
/// What a recipient costs in memory, roughly, in bytes.
const RECIPIENT_MEMORY_BYTES: usize = 200;

/// A sender is told after this long that his message is late, in milliseconds: four hours (RFC 5321, section 4.5.4.1, wants it
/// told, and leaves open when).
const WARNED_AFTER_MILLIS: u64 = 4 * 3_600_000;

/// A recipient of an item.
pub type RecipientId = (CommandId, u32);

/// What waits in one line: a sender's mail to a domain.
pub type Line = (Arc<str>, Sender);

/// All items of one queue mailbox, by the ids under which they were accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    items: Arc<BTreeMap<CommandId, Arc<Item>>>,
    todo: Arc<Todo>,
    recipients: usize,
    /// What they take in memory, roughly.
    recipients_bytes: usize,
    bytes: u64,
}

/// What is to be done, by what it is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Todo {
    /// Recipients with a mailbox for whom something is to be done.
    errands: BTreeSet<RecipientId>,
    /// Recipients outside that it is to be sent to, by their domains and senders and by when that is due.
    sendings: BTreeMap<Line, BTreeSet<(UnixMillis, CommandId, u32)>>,
    /// Recipients whose sender is to be told something.
    reports: BTreeSet<RecipientId>,
    /// When senders are to be told that it is late.
    warnings: BTreeSet<(UnixMillis, CommandId, u32)>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub mailbox: MailboxId,
    /// The domain of one outside.
    pub domain: Option<Arc<str>>,
    /// Whose mail it is.
    pub sender: Sender,
    pub stage: DeliveryStage,
    /// Its sender wants to be told that it arrived.
    pub wants_success: bool,
}

impl Recipient {
    /// As it was accepted from whoever was logged in.
    pub fn of(accepted: &AcceptedRecipient, identity: Option<&str>) -> Self {
        let (domain, sender) = match accepted.destination() {
            Destination::Mailbox(_) => (None, Sender::default()),
            Destination::Outside(domain) => (Some(domain.into()), Sender::of(identity, accepted.detail.as_deref())),
        };
        let wants_success = accepted.wants_success();
        Recipient { mailbox: accepted.mailbox, domain, sender, stage: DeliveryStage::Waiting, wants_success }
    }

    fn memory_bytes(&self) -> usize {
        RECIPIENT_MEMORY_BYTES + self.domain.as_ref().map_or(0, |domain| domain.len())
    }
}

impl Items {
    pub fn get(&self, item: CommandId) -> Option<&Item> {
        self.items.get(&item).map(Arc::as_ref)
    }

    pub fn recipient(&self, (item, recipient): RecipientId) -> Option<&Recipient> {
        self.get(item)?.recipients.get(&recipient)
    }

    /// Those with a mailbox for whom something is to be done, oldest item first.
    pub fn open(&self) -> impl Iterator<Item = RecipientId> + '_ {
        self.todo.errands.iter().copied()
    }

    pub fn is_open(&self, id: RecipientId) -> bool {
        self.todo.errands.contains(&id)
    }

    /// Whether a recipient with a mailbox has something to be done.
    pub fn has_errands(&self) -> bool {
        !self.todo.errands.is_empty()
    }

    /// Whether anything is to be done, now or later.
    pub fn has_open(&self) -> bool {
        let Todo { errands, sendings, reports, warnings: _ } = self.todo.as_ref();
        !(errands.is_empty() && sendings.is_empty() && reports.is_empty())
    }

    /// Those outside that it is to be sent to, by domain and sender; of each the earliest first.
    pub fn sendings(&self) -> &BTreeMap<Line, BTreeSet<(UnixMillis, CommandId, u32)>> {
        &self.todo.sendings
    }

    /// Those whose sender is to be told what became of it.
    pub fn reports(&self) -> &BTreeSet<RecipientId> {
        &self.todo.reports
    }

    /// Those whose sender is to be told that it is late, and when.
    pub fn warnings(&self) -> &BTreeSet<(UnixMillis, CommandId, u32)> {
        &self.todo.warnings
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
        self.items.len() * ITEM_MEMORY_BYTES + self.recipients_bytes
    }

    pub fn insert(&mut self, id: CommandId, item: Item) {
        self.recipients += item.recipients.len();
        self.bytes += item.size_bytes;
        let todo = Arc::make_mut(&mut self.todo);
        for (number, recipient) in &item.recipients {
            todo.add((id, *number), item.accepted, recipient);
            self.recipients_bytes += recipient.memory_bytes();
        }
        let before = Arc::make_mut(&mut self.items).insert(id, Arc::new(item));
        assert!(before.is_none(), "item {id} is accepted once");
    }

    /// How far the delivery to a recipient is from now on. False if there is no such recipient.
    pub fn set_stage(&mut self, id: RecipientId, stage: DeliveryStage) -> bool {
        if self.recipient(id).is_none() {
            return false;
        }
        let item = Arc::make_mut(&mut self.items).get_mut(&id.0).map(Arc::make_mut);
        let Some(item) = item else { return false };
        let Some(recipient) = item.recipients.get_mut(&id.1) else { return false };
        let todo = Arc::make_mut(&mut self.todo);
        todo.remove(id, item.accepted, recipient);
        recipient.stage = stage;
        todo.add(id, item.accepted, recipient);
        true
    }

    /// Forgets a recipient. Returns the item if that was its last one: it is gone.
    pub fn remove(&mut self, id: RecipientId) -> Option<Item> {
        self.recipient(id)?;
        let items = Arc::make_mut(&mut self.items);
        let item = Arc::make_mut(items.get_mut(&id.0)?);
        let recipient = item.recipients.remove(&id.1)?;
        self.recipients -= 1;
        self.recipients_bytes -= recipient.memory_bytes();
        Arc::make_mut(&mut self.todo).remove(id, item.accepted, &recipient);
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
                DeliveryStage::Waiting | DeliveryStage::Deferred { .. } | DeliveryStage::Reporting(_) => waiting += 1,
                DeliveryStage::Delivered => delivered += 1,
                DeliveryStage::Held(_) => held += 1,
            }
        }
        QueuedItem { item, accepted: self.accepted, size_bytes: self.size_bytes, waiting, delivered, held }
    }
}

/// What is to be done for a recipient.
enum Next {
    Errand,
    Sending(Line, UnixMillis),
    Report,
    Nothing,
}

fn next_for(recipient: &Recipient) -> Next {
    match (recipient.stage, &recipient.domain) {
        (DeliveryStage::Held(_), _) => Next::Nothing,
        (DeliveryStage::Reporting(_), _) => Next::Report,
        (DeliveryStage::Waiting, Some(domain)) => Next::Sending((Arc::clone(domain), recipient.sender), AT_ONCE),
        (DeliveryStage::Deferred { next, .. }, Some(domain)) => {
            Next::Sending((Arc::clone(domain), recipient.sender), next)
        }
        // Nothing is sent to a mailbox, and nothing released outside.
        (DeliveryStage::Waiting | DeliveryStage::Delivered | DeliveryStage::Deferred { .. }, None) => Next::Errand,
        (DeliveryStage::Delivered, Some(_)) => Next::Nothing,
    }
}

/// When the sender is to be told that it is late.
fn warning(accepted: UnixMillis, recipient: &Recipient) -> Option<UnixMillis> {
    match recipient.stage {
        // Also of what could not even be attempted; a mailbox gets it, however long that takes.
        DeliveryStage::Deferred { warned: false, .. } | DeliveryStage::Waiting if recipient.domain.is_some() => {
            Some(UnixMillis(accepted.0.saturating_add(WARNED_AFTER_MILLIS)))
        }
        DeliveryStage::Deferred { .. }
        | DeliveryStage::Waiting
        | DeliveryStage::Delivered
        | DeliveryStage::Held(_)
        | DeliveryStage::Reporting(_) => None,
    }
}

impl Todo {
    fn add(&mut self, id: RecipientId, accepted: UnixMillis, recipient: &Recipient) {
        match next_for(recipient) {
            Next::Errand => {
                self.errands.insert(id);
            }
            Next::Sending(line, due) => {
                self.sendings.entry(line).or_default().insert((due, id.0, id.1));
            }
            Next::Report => {
                self.reports.insert(id);
            }
            Next::Nothing => {}
        }
        self.warnings.extend(warning(accepted, recipient).map(|due| (due, id.0, id.1)));
    }

    fn remove(&mut self, id: RecipientId, accepted: UnixMillis, recipient: &Recipient) {
        match next_for(recipient) {
            Next::Errand => {
                self.errands.remove(&id);
            }
            Next::Sending(line, due) => {
                if let Some(of_line) = self.sendings.get_mut(&line) {
                    of_line.remove(&(due, id.0, id.1));
                    if of_line.is_empty() {
                        self.sendings.remove(&line);
                    }
                }
            }
            Next::Report => {
                self.reports.remove(&id);
            }
            Next::Nothing => {}
        }
        if let Some(due) = warning(accepted, recipient) {
            self.warnings.remove(&(due, id.0, id.1));
        }
    }
}
