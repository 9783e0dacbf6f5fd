//! A keyed sum over a replica's rows, by which a row that was put back, changed or deleted on disk is found.
//!
//! Each row has a hash under a key that is not on the disk; the sum of a set of rows is the XOR of their hashes, so that
//! one that changes costs its old and its new hash, whatever else is there. (MSet-XOR-Hash of Clarke, Devadas, van Dijk,
//! Gassend and Suh, ASIACRYPT 2003: without the key no two sets of rows are found that have one sum.) Each mailbox has
//! its own two sums, in a row: of what is read when it is loaded, and of the rest. They have a sum in turn, which stands
//! in the *root* together with the sums of the partition's own rows, with the position, under a code of the same key.
//! So whoever loads a mailbox reads its rows and no others to know that they are those that were applied.
//!
//! They are written by the store that keeps them (`summed.rs`), from what apply changes, in apply's own batch.

use serde::{Deserialize, Serialize};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::entry::{versioned_decode, versioned_encode};
use crate::error::StoreError;
use crate::ids::{Index, MailboxId, ReplicaId};
use crate::row::{RowKey, Table};
use crate::seal::Key;

/// The newest format of rows of [`Table::Sums`] that this binary reads, and the one it writes.
const SUMS_VERSION: u8 = 1;
/// The code that follows the root, in bytes.
const CODE_BYTES: usize = 32;

/// What is hashed, told apart by its first byte.
const OF_ROW: u8 = 1;
const OF_MAILBOX: u8 = 2;
const OF_ROOT: u8 = 3;
const OF_ALL: u8 = 4;

/// The sum of a set of rows; zero for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum([u8; 32]);

impl Sum {
    /// Puts a hash in that is not in, or takes one out that is.
    pub(crate) fn toggle(&mut self, hash: &Sum) {
        for (own, other) in self.0.iter_mut().zip(hash.0) {
            *own ^= other;
        }
    }

    /// Its bytes, to compare with another replica's.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// In which of two sums of its mailbox, or of the partition, a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Read when the mailbox is loaded, or the node starts.
    Loaded,
    /// Written once under a key that never comes again ([`Table::is_written_once`]), and read one by one: there is nothing
    /// older to put back.
    Rest,
}

impl Part {
    /// The part of a table, for ever: sums that are on disks and on other nodes have it so. One that comes later is in the
    /// rest, as versions that don't know it take it.
    pub fn of(table: u8) -> Part {
        match Table::from_number(table) {
            Some(
                Table::Regions
                | Table::DomainKeys
                | Table::Mode
                | Table::QueueKeys
                | Table::QueueRecipients
                | Table::QueuedDeliveries
                | Table::QueueFloors,
            ) => Part::Rest,
            Some(table) if !table.is_written_once() => Part::Loaded,
            Some(_) | None => Part::Rest,
        }
    }
}

/// The sums of a mailbox's rows, or of the partition's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub loaded: Sum,
    pub rest: Sum,
}

impl Sums {
    pub fn toggle(&mut self, table: u8, hash: &Sum) {
        match Part::of(table) {
            Part::Loaded => self.loaded.toggle(hash),
            Part::Rest => self.rest.toggle(hash),
        }
    }

    pub fn add(&mut self, other: &Sums) {
        self.loaded.toggle(&other.loaded);
        self.rest.toggle(&other.rest);
    }

    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(SUMS_VERSION, self)
    }

    pub fn decode(mailbox: MailboxId, bytes: &[u8]) -> Result<Self, StoreError> {
        versioned_decode(&format!("the sums of mailbox {mailbox}"), SUMS_VERSION, bytes)
    }
}

/// What stands for all rows of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// The position at which it is.
    pub index: Index,
    /// Of the rows of the partition itself.
    pub partition: Sums,
    /// Of the rows that hold the mailboxes' sums.
    pub mailboxes: Sum,
    /// A row could not be read when it was changed: what its hash was is not known, and nothing after it.
    pub broken: bool,
}

/// The key of the root's row.
pub(crate) fn root_key() -> RowKey {
    RowKey::partition(Table::Sums, [])
}

/// The key of the row with a mailbox's sums.
pub(crate) fn sums_key(mailbox: MailboxId) -> RowKey {
    RowKey::partition(Table::Sums, mailbox.0)
}

/// Whether a row is one of these, and in no sum itself.
pub(crate) fn is_own(key: &RowKey) -> bool {
    key.mailbox == MailboxId::PARTITION
        && matches!(key.table, t if t == Table::Sums.number() || t == Table::Applied.number())
}

/// The key of all sums. It must not be on the disk that the rows are on.
#[derive(Clone)]
pub struct SumKey {
    keyed: Hmac<Sha256>,
}

impl SumKey {
    /// Derived from a key that every node of the cluster has: replicas are compared by their sums.
    pub fn derived_from(key: &Key) -> Self {
        SumKey::of(&SumKey::derived(key))
    }

    /// What is derived from that key. It opens nothing, and a node that is not to have the other may have it.
    pub fn derived(key: &Key) -> Key {
        key.derive("mailraft sums of rows")
    }

    /// From what was derived.
    pub fn of(own: &Key) -> Self {
        SumKey { keyed: <Hmac<Sha256> as Mac>::new_from_slice(own.expose()).expect("HMAC takes any key length") }
    }

    /// The hash of a row. Of a chunk only its key and length are in it: it is written once, its frames are
    /// authenticated by the key of its body, and who deletes one should not hash all of it.
    pub(crate) fn row(&self, key: &RowKey, value: &[u8]) -> Sum {
        // The key's length is a byte: it is bounded by its type.
        let (head, table) = ([OF_ROW, key.key.len() as u8], [key.table]);
        if key.table == Table::Chunks.number() {
            return self.hash(&[&head, &key.mailbox.0, &table, &key.key, &(value.len() as u64).to_be_bytes()]);
        }
        self.hash(&[&head, &key.mailbox.0, &table, &key.key, value])
    }

    /// The hash of a mailbox's sums; that of a mailbox without rows is zero, as it has no row.
    pub(crate) fn mailbox(&self, mailbox: MailboxId, sums: &Sums) -> Sum {
        if *sums == Sums::default() {
            return Sum::default();
        }
        self.hash(&[&[OF_MAILBOX], &mailbox.0, &sums.loaded.0, &sums.rest.0])
    }

    /// One value for all rows: equal at one index on all replicas of a partition.
    pub(crate) fn all(&self, root: &Root) -> Sum {
        self.hash(&[&[OF_ALL], &root.partition.loaded.0, &root.partition.rest.0, &root.mailboxes.0])
    }

    /// The root as its row has it.
    pub(crate) fn seal(&self, replica: ReplicaId, root: &Root) -> Vec<u8> {
        let mut out = versioned_encode(SUMS_VERSION, root);
        let code = self.hash(&[&[OF_ROOT], &replica.0.to_be_bytes(), &out]);
        out.extend_from_slice(&code.0);
        out
    }

    /// The inverse of [`SumKey::seal`].
    ///
    /// # Errors
    /// If it is none of this replica.
    pub(crate) fn open(&self, replica: ReplicaId, row: &[u8]) -> Result<Root, StoreError> {
        let place = format!("the sum of the rows of replica {replica}");
        let (root, code) = row
            .split_at_checked(row.len().saturating_sub(CODE_BYTES))
            .filter(|(_, code)| code.len() == CODE_BYTES)
            .ok_or_else(|| StoreError::damaged(place.as_str(), "it is too short"))?;
        let made = self.hash(&[&[OF_ROOT], &replica.0.to_be_bytes(), root]);
        // Constant time: fold every byte before judging.
        if made.0.iter().zip(code).fold(0, |all, (a, b)| all | (a ^ b)) != 0 {
            return Err(StoreError::damaged(
                place.as_str(),
                "its code is wrong: it was changed, is another replica's, or the root key is another one",
            ));
        }
        versioned_decode(&place, SUMS_VERSION, root)
    }

    fn hash(&self, parts: &[&[u8]]) -> Sum {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        Sum(mac.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for SumKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SumKey(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key() -> SumKey {
        SumKey::derived_from(&Key::from_bytes([7; 32]))
    }

    fn row(n: u8) -> RowKey {
        RowKey::new(MailboxId([n; 16]), Table::Folders, [n])
    }

    #[test]
    fn a_sum_is_that_of_a_set_whatever_the_way_to_it() {
        let hash = |n: u8, value: &[u8]| key().row(&row(n), value);
        let (mut one, mut other) = (Sum::default(), Sum::default());
        for step in [hash(1, b"a"), hash(2, b"b"), hash(1, b"a"), hash(1, b"c")] {
            one.toggle(&step);
        }
        other.toggle(&hash(1, b"c"));
        assert_ne!(one, other);
        other.toggle(&hash(2, b"b"));
        assert_eq!(one, other);
        assert_ne!(hash(1, b"a"), SumKey::derived_from(&Key::from_bytes([8; 32])).row(&row(1), b"a"));
        // No part of a key can be taken for one of the value.
        let longer = RowKey::new(MailboxId([1; 16]), Table::Folders, [1, b'a']);
        assert_ne!(hash(1, b"ab"), key().row(&longer, b"b"));
    }

    #[test]
    fn a_root_opens_for_its_replica_and_unchanged_alone() {
        let root = Root { index: Index(7), mailboxes: key().row(&row(1), b"x"), ..Root::default() };
        let sealed = key().seal(ReplicaId(3), &root);
        assert_eq!(key().open(ReplicaId(3), &sealed).unwrap(), root);
        assert!(key().open(ReplicaId(4), &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key().open(ReplicaId(3), &changed).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(key().open(ReplicaId(3), &sealed[..len]).is_err());
        }
    }

    #[test]
    fn every_table_is_in_one_of_two_parts_and_what_can_be_put_back_is_read_at_a_load() {
        for table in [Table::Accounts, Table::Keyring, Table::MailboxKeys, Table::Counters, Table::Places] {
            assert_eq!(Part::of(table.number()), Part::Loaded);
        }
        let rest: Vec<u8> = (0..=0xff).filter(|table| Part::of(*table) == Part::Rest && *table < 0x2d).collect();
        assert_eq!(rest[rest.len() - 3..], [0x22, 0x26, 0x2a]);
        assert!((0x2d..=0xff).all(|table| Part::of(table) == Part::Rest), "a table that comes later is in the rest");
    }
}
