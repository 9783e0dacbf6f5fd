//! The log entry: what travels through a Raft log, to followers, to backup regions and archives.
//!
//! Encoded as one byte of format version and the postcard encoding of [`Entry`]. The header is in
//! clear; values and results are sealed by whoever decided them. Enum variants and fields are only
//! ever added at the end, together with a higher version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ids::{ClusterId, CommandId, Incarnation, Index, MailboxId, Term, UnixMillis};
use crate::row::{RowBatch, RowKey};

/// The newest entry format this binary reads, and the one it writes.
pub const ENTRY_VERSION: u8 = 1;
/// The largest encoded entry, in bytes. A larger change is staged over several.
pub const ENTRY_MAX_BYTES: usize = 1 << 20;

/// One entry of a partition's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// In clear, for every reader.
    pub header: EntryHeader,
    /// What applying it does.
    pub kind: EntryKind,
}

/// The part of an entry that the core writes and every replica checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHeader {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The incarnation it was decided in.
    pub incarnation: Incarnation,
    /// The mailbox it changes; [`MailboxId::PARTITION`] for the partition's own rows.
    pub mailbox: MailboxId,
    /// The term it was decided in. Apply discards it where the Raft entry's own term differs.
    pub decided_in: Term,
    /// The command it carries out; the first of them, if several were decided together.
    pub command: CommandId,
    /// When the leader appended it: monotone in the log, at most 1 s ahead of the peers' median.
    pub stamp: UnixMillis,
    /// Features that a replica must know to apply it. An unknown one stops the replica.
    pub required_flags: u32,
    /// Place for: the position of the control group that must be applied first. 0 today.
    pub needs_control: Index,
    /// Place for: the highest index confirmed by other regions. 0 today.
    pub confirmed: Index,
    /// Place for: the durability mode. 0 today.
    pub mode: u8,
}

/// The required flags that this binary knows.
pub const KNOWN_REQUIRED_FLAGS: u32 = 0;

/// What applying an entry does. Kinds of later versions (seal, follow, mode, sync set) follow at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Starts the partition's incarnation: writes the header's incarnation into its row. Applied only
    /// while there is no such row.
    Begin,
    /// Changes rows.
    Rows(RowsBody),
    /// Brings a part of a large body before the change that makes it live.
    Chunk(ChunkBody),
}

/// A change of rows, and the results of the commands that it carries out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsBody {
    /// Rows that must exist; if one does not, nothing of the entry is applied.
    pub requires: Vec<RowKey>,
    /// The rows to write and delete.
    pub batch: RowBatch,
    /// For each command decided in it: its id and its sealed result. Apply writes
    /// id → (index, sealed result).
    pub results: Vec<(CommandId, Bytes)>,
}

/// A chunk of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkBody {
    /// The body's id.
    pub body: [u8; 16],
    /// Its number, from 0.
    pub number: u32,
    /// The sealed `OpenBodies` row, in the first chunk only. A later chunk requires that row.
    pub open: Option<Bytes>,
    /// The sealed frames.
    pub data: Bytes,
}

/// What an owner (a mailbox engine, the directory) asks to be appended. The core adds cluster and stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The incarnation it was decided in.
    pub incarnation: Incarnation,
    /// The term it was decided in.
    pub term: Term,
    /// The mailbox it changes.
    pub mailbox: MailboxId,
    /// The first command in it.
    pub command: CommandId,
    /// What applying it does.
    pub kind: EntryKind,
}

/// What apply did with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Applied whole, at this index.
    Accepted,
    /// Not applied: decided in another (incarnation, term) than the one it was appended in.
    Fenced,
    /// Not applied: a required row is missing.
    Missing,
}

/// What the `Commands` table keeps for an id, in clear around the sealed result. Encoded by postcard
/// after one byte of version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRow {
    /// The index of the entry that carried the command out.
    pub index: Index,
    /// The mailbox whose key sealed the result.
    pub mailbox: MailboxId,
    /// The result, sealed.
    pub result: Bytes,
}

impl Entry {
    /// Version byte and encoding.
    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(ENTRY_VERSION, self)
    }

    /// The inverse of [`Entry::encode`].
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a later version, [`StoreError::Damaged`] for anything that is no entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        versioned_decode("log entry", ENTRY_VERSION, bytes)
    }
}

impl CommandRow {
    /// Version byte and encoding.
    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(1, self)
    }

    /// The inverse of [`CommandRow::encode`].
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        versioned_decode("command row", 1, bytes)
    }
}

/// One byte of format version, then postcard: the form of every record that Mailraft writes.
pub fn versioned_encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let out = vec![version];
    postcard::to_extend(value, out).expect("writing to memory cannot fail")
}

/// The inverse of [`versioned_encode`]; `place` names the record in errors.
///
/// # Errors
/// [`StoreError::Newer`] for a version above `known`, [`StoreError::Damaged`] for bytes that don't decode
/// or are followed by others.
pub fn versioned_decode<'a, T: Deserialize<'a>>(place: &str, known: u8, bytes: &'a [u8]) -> Result<T, StoreError> {
    let Some((&version, rest)) = bytes.split_first() else {
        return Err(StoreError::damaged(place, "empty"));
    };
    if version == 0 {
        return Err(StoreError::damaged(place, "format version 0"));
    }
    if version > known {
        return Err(StoreError::Newer { place: place.into(), found: version, known });
    }
    let (value, left) = postcard::take_from_bytes(rest).map_err(|e| StoreError::damaged(place, e))?;
    if !left.is_empty() {
        return Err(StoreError::damaged(place, format_args!("{} bytes too many", left.len())));
    }
    Ok(value)
}
