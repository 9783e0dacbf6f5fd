//! The mailboxes of a run: those that there are, and those that are to be made during it.

use std::collections::BTreeMap;

use mailraft_mailbox::MailboxKey;
use mailraft_storage::seal::Key;
use mailraft_storage::{Env, Epoch, MailboxId, PartitionId};

/// Mailboxes that exist before the run; the others are made during it.
const FIRST_MAILBOXES: u64 = 6;

/// All mailboxes.
pub struct Mailboxes(BTreeMap<MailboxId, Mailbox>);

/// A mailbox of the run.
struct Mailbox {
    key: [u8; 32],
    partition: PartitionId,
    exists: bool,
}

impl Mailboxes {
    /// So many mailboxes, spread over the partitions; ids and keys are drawn.
    pub fn new(count: u64, partitions: u32, env: &mut Env) -> Self {
        let drawn = |number: u64| {
            let mut id: [u8; 16] = env.bytes();
            // Spread over the partitions.
            id[..8].copy_from_slice(&number.to_be_bytes());
            let id = MailboxId(id);
            let key: [u8; 32] = env.bytes();
            (id, Mailbox { key, partition: id.partition(partitions), exists: number < FIRST_MAILBOXES })
        };
        Mailboxes((0..count).map(drawn).collect())
    }

    /// Those that exist.
    pub fn there(&self) -> Vec<MailboxId> {
        self.0.iter().filter(|(_, mailbox)| mailbox.exists).map(|(id, _)| *id).collect()
    }

    /// Those that are to be made.
    pub fn to_be_made(&self) -> Vec<MailboxId> {
        self.0.iter().filter(|(_, mailbox)| !mailbox.exists).map(|(id, _)| *id).collect()
    }

    /// All of them.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = MailboxId> {
        self.0.keys().copied()
    }

    /// The partition that a mailbox is in.
    ///
    /// # Panics
    /// If the run has no such mailbox.
    pub fn partition(&self, mailbox: MailboxId) -> PartitionId {
        self.0[&mailbox].partition
    }

    /// The bytes of its key, as they stand in the control group's row.
    ///
    /// # Panics
    /// If the run has no such mailbox.
    pub fn key_bytes(&self, mailbox: MailboxId) -> [u8; 32] {
        self.0[&mailbox].key
    }

    /// Its key.
    ///
    /// # Panics
    /// If the run has no such mailbox.
    pub fn key(&self, mailbox: MailboxId) -> MailboxKey {
        MailboxKey::new(Key::from_bytes(self.key_bytes(mailbox)), Epoch(1))
    }

    /// A mailbox was made; false if it was there before.
    pub fn made(&mut self, mailbox: MailboxId) -> bool {
        self.0.get_mut(&mailbox).is_some_and(|mailbox| !std::mem::replace(&mut mailbox.exists, true))
    }
}
