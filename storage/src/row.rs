//! Rows: which tables there are, how a key is laid out, and a batch of changes.
//!
//! On disk a row's key is `replica (8) ‖ mailbox (16) ‖ table (1) ‖ key`, all big-endian, so one
//! replica, one mailbox and one table are each one range. In entries and snapshot files the replica
//! is left out. The key's last part holds ids, numbers and keyed hashes, never a user's text.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{CommandId, MailboxId};

/// The longest last part of a key, in bytes.
pub const ROW_KEY_MAX_BYTES: usize = 64;

/// One kind of row. The number is part of every key on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    // Of a partition (mailbox 0), in clear.
    /// key: empty. Applied index, term, ConfState, hash, count, stamp. Written only by the store itself.
    Applied = 0x01,
    /// key: count (8). The running hash at every 1,024th accepted entry, in clear.
    Hashes = 0x02,
    /// key: command id (16). Index and sealed result.
    Commands = 0x03,
    /// key: empty. Command ids below it are answered *unknown* ([`CommandFloor`](crate::CommandFloor)).
    CommandFloor = 0x04,
    /// key: empty. The incarnation, written by the `begin` entry.
    Incarnation = 0x05,
    /// key: 0, or 1 ‖ replica id (8). The highest replica id the group ever had; a member that a change of Raft's
    /// configuration named, with its node. In clear, written by apply.
    Members = 0x06,
    /// key: empty, or a mailbox (16). The sum of all rows with its position; the sums of a mailbox's rows (`sums.rs`). A
    /// node's own: in no snapshot, and written only by the store that keeps them.
    Sums = 0x07,
    /// key: empty. Whether the partition's answers wait for other regions, by its own log. In clear.
    Mode = 0x08,

    // Of the control group (mailbox 0 of partition 0). Nodes and placement are in clear.
    /// key: node id (8). Addresses and certificates' names of a node.
    Nodes = 0x10,
    /// key: partition (4). Replicas of a partition with their nodes, and its nonce.
    Placement = 0x11,
    /// key: epoch (4). An epoch key of the keyring, sealed by the root key.
    Keyring = 0x12,
    /// key: mailbox (16). A mailbox key, wrapped by an epoch key.
    MailboxKeys = 0x13,
    /// key: keyed hash of the name (32).
    Domains = 0x14,
    /// key: keyed hash of the address (32). Targets.
    Addresses = 0x15,
    /// key: account id (16). Address, verifier, mailbox.
    Accounts = 0x16,
    /// key: empty, or 1. The home region, the regions that answers wait for, and what is promised; whether they wait now.
    /// In clear.
    Regions = 0x17,
    /// key: keyed hash of a domain's name (32). The keys that sign the domain's mail, secrets and all.
    DomainKeys = 0x18,

    // Of a mailbox, sealed by its key.
    /// key: empty, or 1. Counters of the whole mailbox and the position of its last entry; where incarnations began in it.
    Counters = 0x20,
    /// key: folder id (4).
    Folders = 0x21,
    /// key: email id (16). Everything of a message but its body and its places.
    Contents = 0x22,
    /// key: folder id (4) ‖ uid (4). Where a message is: email id, flags, MODSEQ.
    Places = 0x23,
    /// key: folder id (4) ‖ page (4). Flags of many places at once, as ranges.
    FlagPages = 0x24,
    /// key: folder id (4) ‖ modseq (8). UIDs expunged at that MODSEQ.
    Expunged = 0x25,
    /// key: keyed hash of the Message-ID (32) ‖ email id (16).
    MessageIds = 0x26,
    /// key: keyed hash of mailbox, reverse-path, Message-ID and digest (32). What a delivery was answered.
    Deliveries = 0x27,
    /// key: stage id (16). A staged change that is live.
    Stages = 0x28,
    /// key: body id (16). An upload that is not live yet.
    OpenBodies = 0x29,
    /// key: body id (16) ‖ chunk number (4). Sealed frames of a body; a column family of its own.
    Chunks = 0x2a,
    /// key: accept id (16). What a queue mailbox accepted for several others, sealed by the item's own key.
    Queue = 0x2b,
    /// key: keyed hash of mailbox and command (32). What a command made and was answered, while its client may not have
    /// heard that.
    Repeats = 0x2c,
    /// key: accept id (16). The key of an item of a queue mailbox, apart from the item, so that it can be left out of
    /// archives.
    QueueKeys = 0x2d,
    /// key: accept id (16) ‖ recipient (4), or that ‖ 1. A recipient of an item, sealed by the item's own key; how far its
    /// delivery is.
    QueueRecipients = 0x2e,
    /// key: accept id (16) ‖ recipient (4). What a queue delivered here, until the queue has released it.
    QueuedDeliveries = 0x2f,
    /// key: partition (4). What a queue decided on older states of its partition is answered *stale*.
    QueueFloors = 0x30,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Table; 34] = [
        Table::Applied,
        Table::Hashes,
        Table::Commands,
        Table::CommandFloor,
        Table::Incarnation,
        Table::Members,
        Table::Sums,
        Table::Mode,
        Table::Nodes,
        Table::Placement,
        Table::Keyring,
        Table::MailboxKeys,
        Table::Domains,
        Table::Addresses,
        Table::Accounts,
        Table::Regions,
        Table::DomainKeys,
        Table::Counters,
        Table::Folders,
        Table::Contents,
        Table::Places,
        Table::FlagPages,
        Table::Expunged,
        Table::MessageIds,
        Table::Deliveries,
        Table::Stages,
        Table::OpenBodies,
        Table::Chunks,
        Table::Queue,
        Table::Repeats,
        Table::QueueKeys,
        Table::QueueRecipients,
        Table::QueuedDeliveries,
        Table::QueueFloors,
    ];

    /// The number in keys.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether a row of this table is written once, under a key that never comes again, not even when the row is gone. So
    /// whoever writes one knows without a look that nothing was there.
    pub fn is_written_once(self) -> bool {
        match self {
            // Ids that are drawn, and numbers that rise.
            Table::Hashes | Table::Commands | Table::Contents | Table::MessageIds | Table::Chunks => true,
            Table::Applied
            | Table::CommandFloor
            | Table::Incarnation
            | Table::Members
            | Table::Sums
            | Table::Mode
            | Table::Nodes
            | Table::Placement
            | Table::Keyring
            | Table::MailboxKeys
            | Table::Domains
            | Table::Addresses
            | Table::Accounts
            | Table::Regions
            | Table::DomainKeys
            | Table::Counters
            | Table::Folders
            | Table::Places
            | Table::FlagPages
            | Table::Expunged
            | Table::Deliveries
            | Table::Stages
            | Table::OpenBodies
            | Table::Queue
            | Table::Repeats
            | Table::QueueKeys
            | Table::QueueRecipients
            | Table::QueuedDeliveries
            | Table::QueueFloors => false,
        }
    }

    /// The table of a number, if this version knows it.
    pub fn from_number(number: u8) -> Option<Table> {
        const BY_NUMBER: [Option<Table>; 256] = {
            let (mut tables, mut at) = ([None; 256], 0);
            while at < Table::ALL.len() {
                tables[Table::ALL[at] as usize] = Some(Table::ALL[at]);
                at += 1;
            }
            tables
        };
        BY_NUMBER[usize::from(number)]
    }
}

/// A row's key without its replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// The mailbox, or [`MailboxId::PARTITION`].
    pub mailbox: MailboxId,
    /// The table's number. A number this version does not know is kept as it is, so that an
    /// older follower applies a newer leader's rows.
    pub table: u8,
    /// The last part, at most [`ROW_KEY_MAX_BYTES`].
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
}

impl RowKey {
    /// A key in a mailbox.
    ///
    /// # Panics
    /// If the last part is longer than [`ROW_KEY_MAX_BYTES`].
    pub fn new(mailbox: MailboxId, table: Table, key: impl Into<Vec<u8>>) -> Self {
        let key = key.into();
        assert!(key.len() <= ROW_KEY_MAX_BYTES, "row key of {} bytes", key.len());
        RowKey { mailbox, table: table.number(), key }
    }

    /// A key of the partition itself.
    pub fn partition(table: Table, key: impl Into<Vec<u8>>) -> Self {
        RowKey::new(MailboxId::PARTITION, table, key)
    }

    /// Where the answer to a command stands.
    pub fn command(id: CommandId) -> Self {
        RowKey::partition(Table::Commands, id.0)
    }

    /// `mailbox ‖ table ‖ key`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17 + self.key.len());
        out.extend_from_slice(&self.mailbox.0);
        out.push(self.table);
        out.extend_from_slice(&self.key);
        out
    }

    /// The inverse of [`RowKey::encode`]. None if the bytes are too short or too long.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 17 || bytes.len() > 17 + ROW_KEY_MAX_BYTES {
            return None;
        }
        let mailbox = MailboxId(bytes[..16].try_into().ok()?);
        Some(RowKey { mailbox, table: bytes[16], key: bytes[17..].to_vec() })
    }
}

/// Changes to rows that are written all or not at all. A key stands in it at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowBatch {
    /// Rows to write.
    pub puts: Vec<(RowKey, Bytes)>,
    /// Rows to delete; it is no error if one is not there.
    pub deletes: Vec<RowKey>,
}

impl RowBatch {
    /// Adds a row.
    pub fn put(&mut self, key: RowKey, value: impl Into<Bytes>) {
        self.puts.push((key, value.into()));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: RowKey) {
        self.deletes.push(key);
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// The sum of keys and values in bytes, as a bound for the encoded size (16 bytes added for each row).
    pub fn size_bytes(&self) -> usize {
        let key = |k: &RowKey| 17 + k.key.len() + 16;
        self.puts.iter().map(|(k, v)| key(k) + v.len()).sum::<usize>() + self.deletes.iter().map(key).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_numbers_are_unique_and_come_back() {
        for table in Table::ALL {
            assert_eq!(Table::from_number(table.number()), Some(table));
        }
        assert_eq!(Table::from_number(0xff), None);
    }

    #[test]
    fn keys_sort_by_mailbox_then_table_then_key_and_come_back() {
        let a = RowKey::new(MailboxId([1; 16]), Table::Chunks, [9; 20]);
        let b = RowKey::new(MailboxId([2; 16]), Table::Counters, []);
        let c = RowKey::new(MailboxId([2; 16]), Table::Places, [0, 0, 0, 1]);
        assert!(a.encode() < b.encode() && b.encode() < c.encode());
        for key in [a, b, c] {
            assert_eq!(RowKey::decode(&key.encode()), Some(key));
        }
        assert_eq!(RowKey::decode(&[0; 16]), None);
    }
}
