//! The log entry: what travels through a Raft log, to followers, to backup regions and archives.
//!
//! Encoded as one byte of format version and the postcard encoding of [`Entry`]. The header is in
//! clear; values and results are sealed by whoever decided them. Enum variants and fields are only
//! ever added at the end, together with a higher version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ids::{ClusterId, CommandId, Incarnation, Index, MailboxId, NodeId, Term, UnixMillis};
use crate::row::{RowBatch, RowKey};
use crate::takeover::TakeoverBody;

/// The newest entry format this binary reads.
pub const ENTRY_VERSION: u8 = 2;
/// The newest entry format without takeovers. Entries that are none are still written in it, so that replicas of an earlier
/// version read them.
const WITHOUT_TAKEOVERS: u8 = 1;
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
    /// What the leader's node had applied of the control group: the entry is visible only when that is. 0 in a cluster of
    /// one region.
    pub needs_control: Index,
    /// The lowest index that all other regions held when the leader appended it; 0 in a cluster of one region.
    pub confirmed: Index,
    /// Not 0 if the entry says whether its partition's answers wait for other regions: [`MODE_ALONE`] or [`MODE_WAITS`].
    pub mode: u8,
}

/// The required flags that this binary knows.
pub const KNOWN_REQUIRED_FLAGS: u32 = 0;

/// The mode of an entry from which on answers do not wait for other regions.
pub const MODE_ALONE: u8 = 1;
/// The mode of an entry from which on they do.
pub const MODE_WAITS: u8 = 2;

/// What applying an entry does. Kinds of later versions (seal, follow, sync set) follow at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Starts the partition's incarnation: writes the header's incarnation into its row. Applied only
    /// while there is no such row.
    Begin,
    /// Changes rows.
    Rows(RowsBody),
    /// Brings a part of a large body before the change that makes it live.
    Chunk(ChunkBody),
    /// Starts an incarnation of a partition that another region takes over: writes the header's into its row, and Raft's
    /// configuration. Applied only while that of the row is lower.
    Takeover(TakeoverBody),
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

/// What became of a [`Proposal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// Appended, committed and applied.
    Applied {
        /// The index of its entry.
        index: Index,
        /// What apply did with it.
        verdict: Verdict,
    },
    /// Never appended, and the node still leads in the term: decide again.
    Dropped,
    /// Never appended: too many bytes wait to be committed.
    Overloaded,
    /// Never appended: other regions have not confirmed what waits for them, for long.
    NotConfirmed,
    /// Never appended: the node does not lead in that term.
    NotLeader {
        /// The node that does, if known.
        leader: Option<NodeId>,
    },
    /// Appended perhaps, but leadership was lost before a verdict: a successor knows.
    Unknown,
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

impl EntryHeader {
    /// The header of an encoded entry, whatever the entry does.
    ///
    /// # Errors
    /// As [`Entry::decode`], for what the header takes of it.
    pub fn of(entry: &[u8]) -> Result<Self, StoreError> {
        versioned_take("log entry", ENTRY_VERSION, entry).map(|(header, _)| header)
    }
}

impl Entry {
    /// Version byte and encoding.
    pub fn encode(&self) -> Vec<u8> {
        let version = match &self.kind {
            EntryKind::Begin | EntryKind::Rows(_) | EntryKind::Chunk(_) => WITHOUT_TAKEOVERS,
            EntryKind::Takeover(_) => ENTRY_VERSION,
        };
        versioned_encode(version, self)
    }

    /// The inverse of [`Entry::encode`].
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a later version, [`StoreError::Damaged`] for anything that is no entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let entry: Entry = versioned_decode("log entry", ENTRY_VERSION, bytes)?;
        match entry.kind {
            EntryKind::Takeover(_) if bytes.first() == Some(&WITHOUT_TAKEOVERS) => {
                Err(StoreError::damaged("log entry", "a takeover in a format that has none"))
            }
            EntryKind::Begin | EntryKind::Rows(_) | EntryKind::Chunk(_) | EntryKind::Takeover(_) => Ok(entry),
        }
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
    let (value, left) = versioned_take(place, known, bytes)?;
    if !left.is_empty() {
        return Err(StoreError::damaged(place, format_args!("{} bytes too many", left.len())));
    }
    Ok(value)
}

/// What such a record begins with, and the bytes behind that, for a reader that goes on only if it knows how.
///
/// # Errors
/// As [`versioned_decode`], but for the bytes behind it.
pub fn versioned_take<'a, T: Deserialize<'a>>(
    place: &str,
    known: u8,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), StoreError> {
    let Some((&version, rest)) = bytes.split_first() else {
        return Err(StoreError::damaged(place, "empty"));
    };
    if version == 0 {
        return Err(StoreError::damaged(place, "format version 0"));
    }
    if version > known {
        return Err(StoreError::Newer { place: place.into(), found: version, known });
    }
    postcard::take_from_bytes(rest).map_err(|e| StoreError::damaged(place, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::body::{BodyId, CHUNK_PLAIN_BYTES, FRAME_PLAIN_BYTES, open_chunk, seal_chunk};
    use crate::env::Env;
    use crate::floor::CommandFloor;
    use crate::ids::{Epoch, LogPosition, ReplicaId};
    use crate::row::Table;
    use crate::rows::Applied;
    use crate::seal::{Key, open_row, seal_row, sealed_epoch};
    use crate::takeover::{Adoption, IncarnationMark};

    const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
    const BOX: MailboxId = MailboxId([0xb0; 16]);

    #[test]
    fn entries_of_every_kind_are_read_for_ever() {
        let begin = EntryKind::Begin;
        let mut batch = RowBatch::default();
        batch.put(RowKey::new(BOX, Table::Places, [0, 0, 0, 1, 0, 0, 0, 9]), b"sealed".to_vec());
        batch.put(RowKey { mailbox: BOX, table: 0xfe, key: vec![1] }, b"of a later version".to_vec());
        batch.delete(RowKey::new(BOX, Table::Contents, [7; 16]));
        let rows = EntryKind::Rows(RowsBody {
            requires: vec![RowKey::new(BOX, Table::OpenBodies, [6; 16])],
            batch,
            results: vec![(CommandId([1; 16]), Bytes::from_static(b"result")), (CommandId([2; 16]), Bytes::new())],
        });
        let chunk = |number, open| ChunkBody { body: [5; 16], number, open, data: Bytes::from_static(b"frames") };
        let first = EntryKind::Chunk(chunk(0, Some(Bytes::from_static(b"open row"))));
        let later = EntryKind::Chunk(chunk(300, None));
        for (name, kind) in
            [("entry-begin", begin), ("entry-rows", rows), ("entry-first-chunk", first), ("entry-chunk", later)]
        {
            let entry = entry(kind);
            let kept = golden(name, || entry.encode());
            assert_eq!(Entry::decode(&kept).unwrap(), entry, "{name}");
            assert_eq!(EntryHeader::of(&kept).unwrap(), entry.header, "{name}");
            assert_eq!(entry.encode(), kept, "{name}: other bytes need another version");
        }
    }

    #[test]
    fn what_is_written_of_a_takeover_is_read_for_ever() {
        let mut batch = RowBatch::default();
        batch.put(RowKey::partition(Table::Regions, []), b"row".to_vec());
        let voters = vec![(ReplicaId(4), NodeId(4)), (ReplicaId(300), NodeId(5))];
        let fork = LogPosition { index: Index(70_000), term: Term(3) };
        let body = TakeoverBody { voters, highest: ReplicaId(301), fork, batch };
        let second = Incarnation { number: 2, nonce: [0x2e; 16] };
        let mut entry = entry(EntryKind::Takeover(body.clone()));
        (entry.header.incarnation, entry.header.decided_in) = (second, Term(second.first_term().0 + 1));
        let kept = golden_of("v2", "entry-takeover", || entry.encode());
        assert_eq!((Entry::decode(&kept).unwrap(), entry.encode()), (entry, kept.clone()));
        let earlier = [&[WITHOUT_TAKEOVERS], &kept[1..]].concat();
        assert!(matches!(Entry::decode(&earlier), Err(StoreError::Damaged { .. })));
        let adopted = Adoption { incarnation: second, voters: vec![ReplicaId(4), ReplicaId(300)], word: "off".into() };
        let sealed = Some(body.taken_over(second));
        let mark = IncarnationMark { adopted: Some(adopted), contested: true, sealed };
        let kept = golden_of("v2", "incarnation-mark", || versioned_encode(1, &mark));
        assert_eq!(versioned_decode::<IncarnationMark>("mark", 1, &kept).unwrap(), mark);
        assert_eq!(versioned_encode(1, &mark), kept);
        let terms = [(0, 0), (1, 0), (2, 2 << 32), (3, 3 << 32)];
        for (number, first) in terms {
            assert_eq!(Incarnation { number, nonce: [0; 16] }.first_term(), Term(first));
        }
    }

    #[test]
    fn rows_in_clear_are_read_for_ever() {
        let row = CommandRow { index: Index(300), mailbox: BOX, result: Bytes::from_static(b"result") };
        let kept = golden("command-row", || row.encode());
        assert_eq!((CommandRow::decode(&kept).unwrap(), row.encode()), (row, kept));
        let floor = CommandFloor(CommandId([7; 16]));
        let kept = golden("command-floor", || floor.encode());
        assert_eq!((CommandFloor::decode(&kept).unwrap(), floor.encode()), (floor, kept));
        let applied = Applied {
            index: Index(70_000),
            term: Term(3),
            voters: vec![ReplicaId(1), ReplicaId(u64::MAX)],
            learners: vec![ReplicaId(4)],
            voters_outgoing: vec![ReplicaId(1)],
            learners_next: vec![ReplicaId(2)],
            auto_leave: true,
            count: 69_000,
            hash: [0xab; 32],
            stamp: UnixMillis(1_700_000_000_123),
            incarnation: Some(incarnation()),
        };
        let kept = golden("applied-row", || applied.encode());
        assert_eq!((Applied::decode(ReplicaId(1), &kept).unwrap(), applied.encode()), (applied, kept));
    }

    #[test]
    fn what_is_sealed_is_opened_for_ever() {
        let (key, place) = (Key::from_bytes([0x11; 32]), RowKey::new(BOX, Table::Folders, [0, 0, 0, 1]));
        let row = golden("sealed-row", || {
            seal_row(&mut Env::seeded(1), &key, Epoch(7), CLUSTER, &place, b"a folder").to_vec()
        });
        assert_eq!(sealed_epoch(&row).unwrap(), Epoch(7));
        assert_eq!(open_row(&key, CLUSTER, &place, &row).unwrap().as_slice(), b"a folder");
        // A frame that is compressed and one that is not: a full chunk, and the last.
        let (body, first) = (BodyId([5; 16]), vec![b'a'; CHUNK_PLAIN_BYTES]);
        let noise: [u8; 512] = Env::seeded(2).bytes();
        let last = [vec![b'b'; FRAME_PLAIN_BYTES], noise.to_vec()].concat();
        let full = golden("body-chunk-0", || seal_chunk(body, &key, 0, false, &first).to_vec());
        assert!(open_chunk(body, &key, 0, false, &full).unwrap().as_slice() == first);
        let short = golden("body-chunk-1", || seal_chunk(body, &key, 1, true, &last).to_vec());
        assert!(short.len() > noise.len() && open_chunk(body, &key, 1, true, &short).unwrap().as_slice() == last);
    }

    #[test]
    fn a_later_version_is_named_and_everything_else_is_damage() {
        let bytes = entry(EntryKind::Begin).encode();
        let with_version = |version: u8| [&[version], &bytes[1..]].concat();
        assert!(matches!(Entry::decode(&with_version(3)), Err(StoreError::Newer { found: 3, known: 2, .. })));
        let error = Entry::decode(&with_version(9)).unwrap_err().to_string();
        assert_eq!(error, "log entry has format version 9, this binary reads up to 2: run the newer mailraft");
        assert!(matches!(Entry::decode(&with_version(0)), Err(StoreError::Damaged { .. })));
        assert!(matches!(Entry::decode(&[bytes.as_slice(), &[0]].concat()), Err(StoreError::Damaged { .. })));
        for len in 0..bytes.len() {
            assert!(matches!(Entry::decode(&bytes[..len]), Err(StoreError::Damaged { .. })), "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic_and_what_decodes_encodes_again(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..5, version in 1u8..=ENTRY_VERSION,
        ) {
            let mut entry = entry(EntryKind::Begin).encode();
            entry.pop();
            entry.push(kind);
            entry[0] = version;
            entry.extend_from_slice(&bytes);
            for bytes in [&bytes, &entry] {
                if let Ok(entry) = Entry::decode(bytes) {
                    prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
                }
                let _ = CommandRow::decode(bytes);
                let _ = Applied::decode(ReplicaId(1), bytes);
            }
        }
    }

    fn incarnation() -> Incarnation {
        Incarnation { number: 1, nonce: [0x0e; 16] }
    }

    fn entry(kind: EntryKind) -> Entry {
        let header = EntryHeader {
            cluster: CLUSTER,
            incarnation: incarnation(),
            mailbox: BOX,
            decided_in: Term(300),
            command: CommandId::v7(UnixMillis(1_700_000_000_000), 7),
            stamp: UnixMillis(1_700_000_000_500),
            required_flags: 0,
            needs_control: Index(0),
            confirmed: Index(0),
            mode: 0,
        };
        Entry { header, kind }
    }

    /// Bytes that the first version wrote, in hexadecimal. Only a file that is not there is made, and only
    /// with `UPDATE_TESTDATA=1`: what stands in one never changes.
    fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        golden_of("v1", name, make)
    }

    /// The same of what only a later version wrote.
    fn golden_of(version: &str, name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(version);
        let path = directory.join(name).with_extension("hex");
        if !path.exists() && std::env::var_os("UPDATE_TESTDATA").is_some_and(|v| v == "1") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let hex: String = make().iter().map(|b| format!("{b:02x}")).collect();
            let lines: Vec<&str> = hex.as_bytes().chunks(100).map(|c| std::str::from_utf8(c).unwrap()).collect();
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }
}
