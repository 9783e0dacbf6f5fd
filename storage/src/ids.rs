//! Names for who and where. Each is its own type, so none can be passed for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! bits128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);
        impl $name {
            /// The 32 lower-case hexadecimal digits of this id back into an id.
            pub fn from_hex(text: &str) -> Option<Self> {
                if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return None;
                }
                u128::from_str_radix(text, 16).ok().map(|n| Self(n.to_be_bytes()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }
    };
}

number!(
    /// A node: one `mailraft node` process and its data directory. Never 0.
    NodeId(u64)
);
number!(
    /// One member of one Raft group on one node, never used again. Never 0. Raft knows its members by
    /// this number, and the Raft log on disk its regions.
    ReplicaId(u64)
);
number!(
    /// What a mailbox id hashes to. 0 is the control group.
    PartitionId(u32)
);
number!(
    /// A Raft term.
    Term(u64)
);
number!(
    /// A position in a Raft log.
    Index(u64)
);
number!(
    /// The number of a key generation; every sealed row names its own.
    Epoch(u32)
);
number!(
    /// Milliseconds since 1970-01-01 UTC.
    UnixMillis(u64)
);
bits128!(
    /// A cluster, drawn when it was created. Bound into every sealed row.
    ClusterId
);
bits128!(
    /// A mailbox: one user's whole mail store. 128 random bits, never reused. All zero stands for
    /// rows that belong to the partition itself.
    MailboxId
);
bits128!(
    /// A UUIDv7 that a session draws for a command and keeps through every retry.
    CommandId
);

impl PartitionId {
    /// The control group.
    pub const CONTROL: PartitionId = PartitionId(0);
}

impl MailboxId {
    /// Rows of the partition itself rather than of a mailbox.
    pub const PARTITION: MailboxId = MailboxId([0; 16]);
    /// What the ids of queue mailboxes end with.
    const OF_QUEUES: [u8; 8] = *b"-queues-";

    /// Stands where a recipient has no mailbox in this cluster. No mailbox has such an id: they are drawn.
    pub const OUTSIDE: MailboxId = MailboxId(*b"outside cluster!");

    /// The queue mailbox of a partition: what is accepted for several mailboxes waits there.
    ///
    /// # Panics
    /// For the control group, which has none.
    pub fn queue_of(partition: PartitionId) -> Self {
        assert!(partition != PartitionId::CONTROL, "the control group has no queue mailbox");
        let mut id = [0; 16];
        id[..8].copy_from_slice(&u64::from(partition.0 - 1).to_be_bytes());
        id[8..].copy_from_slice(&Self::OF_QUEUES);
        MailboxId(id)
    }

    /// Whether it is the queue mailbox of some partition. Of other mailboxes none has such an id: they are drawn.
    pub fn is_queue(&self) -> bool {
        self.0[8..] == Self::OF_QUEUES && self.0[..4] == [0; 4]
    }

    /// The partition whose queue mailbox it is. None if it is none.
    pub fn queue_partition(&self) -> Option<PartitionId> {
        let number = u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]]);
        self.is_queue().then_some(PartitionId(number.saturating_add(1)))
    }

    /// The partition that holds this mailbox in a cluster with partitions 1 to `partitions`.
    ///
    /// # Panics
    /// If `partitions` is 0.
    pub fn partition(&self, partitions: u32) -> PartitionId {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        let slot = u64::from_be_bytes(first) % u64::from(partitions);
        PartitionId(1 + slot as u32)
    }
}

impl CommandId {
    /// A UUIDv7 (RFC 9562, section 5.7) of this time and these random bits.
    pub fn v7(now: UnixMillis, random: u128) -> Self {
        let mut bytes = random.to_be_bytes();
        bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        CommandId(bytes)
    }

    /// When it was drawn, as it says itself.
    pub fn made_at(&self) -> UnixMillis {
        UnixMillis(self.0[..6].iter().fold(0, |ms, octet| ms << 8 | u64::from(*octet)))
    }

    /// The partition whose queue mailbox accepts a message under this id, of partitions 1 to `partitions`.
    ///
    /// # Panics
    /// If `partitions` is 0.
    pub fn queue_partition(&self, partitions: u32) -> PartitionId {
        let mut drawn = [0; 8];
        drawn.copy_from_slice(&self.0[8..]);
        PartitionId(1 + (u64::from_be_bytes(drawn) % u64::from(partitions)) as u32)
    }

    /// The time in the id: when its session drew it, by that node's clock.
    pub fn time(&self) -> UnixMillis {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        UnixMillis(u64::from_be_bytes(ms))
    }
}

/// Which life of a partition an entry belongs to. It rises when another region takes the partition
/// over; the nonce tells two regions apart that both believe they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// 1 for the first.
    pub number: u32,
    /// Drawn when the incarnation was decided on.
    pub nonce: [u8; 16],
}

/// An entry's place in a Raft log: two logs of one group that hold an entry at the same position agree up to it. Ordered
/// as the entries of one log are: by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The index of the entry.
    pub index: Index,
    /// The term in which the entry was appended.
    pub term: Term,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_mailbox_is_in_its_own_partition_and_no_drawn_id_is_one() {
        for partitions in [1, 16, 1_024] {
            for partition in (1..=partitions).map(PartitionId) {
                let queue = MailboxId::queue_of(partition);
                assert_eq!((queue.queue_partition(), queue.partition(partitions)), (Some(partition), partition));
            }
            let id = CommandId::v7(UnixMillis(1), 0x1234_5678_9abc_def0);
            assert!((1..=partitions).contains(&id.queue_partition(partitions).0));
        }
        assert!(!MailboxId::PARTITION.is_queue() && !MailboxId([b'-'; 16]).is_queue());
    }

    #[test]
    fn a_command_id_carries_its_time_and_is_a_uuid_v7() {
        let id = CommandId::v7(UnixMillis(0x0192_3456_789a), u128::MAX);
        assert_eq!(id.to_string(), "01923456789a7fffbfffffffffffffff");
        assert_eq!(id.time(), UnixMillis(0x0192_3456_789a));
        assert_eq!(CommandId::from_hex(&id.to_string()), Some(id));
        assert_eq!(CommandId::from_hex("01923456789A7fffbfffffffffffffff"), None);
    }

    #[test]
    fn mailboxes_spread_over_all_partitions_but_control() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..64u64 {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            seen.insert(MailboxId(id).partition(16));
        }
        assert_eq!(seen, (1..=16).map(PartitionId).collect());
    }
}
