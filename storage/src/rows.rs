//! The store of applied state.
//!
//! There is no write-ahead log under it: the Raft log is the write-ahead log. A write becomes durable
//! when its store flushes, all tables of all replicas together, so that after a crash each replica
//! stands at exactly one applied index.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::entry::{versioned_decode, versioned_encode};
use crate::error::StoreError;
use crate::ids::{Incarnation, Index, LogPosition, MailboxId, ReplicaId, Term, UnixMillis};
use crate::row::{RowBatch, RowKey, Table};

/// The newest format of the [`Table::Applied`] row this binary reads, and the one it writes.
pub const APPLIED_VERSION: u8 = 1;

/// Where a replica's rows stand in its log. Kept by the store under [`Table::Applied`], in every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last entry applied, of any kind.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// Raft's configuration at that index: voters, in rising order.
    pub voters: Vec<ReplicaId>,
    /// Learners, in rising order.
    pub learners: Vec<ReplicaId>,
    /// Outgoing voters of a joint configuration, in rising order.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Learners that become members when the joint configuration ends.
    pub learners_next: Vec<ReplicaId>,
    /// Whether Raft leaves the joint configuration by itself.
    pub auto_leave: bool,
    /// How many entries were accepted: no empty ones, no configuration changes, none discarded.
    pub count: u64,
    /// SHA-256 chained over those entries: `SHA-256(previous hash ‖ encoded entry)`, zero before the first.
    pub hash: [u8; 32],
    /// The highest stamp applied.
    pub stamp: UnixMillis,
    /// The incarnation, once `begin` is applied.
    pub incarnation: Option<Incarnation>,
}

impl Applied {
    /// The key of its row.
    pub fn key() -> RowKey {
        RowKey::partition(Table::Applied, [])
    }

    /// The position of the last entry applied.
    pub fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term }
    }

    /// Version byte and encoding.
    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(APPLIED_VERSION, self)
    }

    /// The inverse of [`Applied::encode`].
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a later version, [`StoreError::Damaged`] for anything that is none.
    pub fn decode(replica: ReplicaId, bytes: &[u8]) -> Result<Self, StoreError> {
        versioned_decode(&format!("applied row of replica {replica}"), APPLIED_VERSION, bytes)
    }
}

/// One replica's change: rows and the position after them.
#[derive(Clone, Debug)]
pub struct ReplicaBatch {
    /// The replica whose rows these are.
    pub replica: ReplicaId,
    /// Rows to change.
    pub batch: RowBatch,
    /// The position they bring the replica to.
    pub applied: Applied,
}

/// Part of one table of one mailbox, in key order: the last parts of the keys and the values.
pub type ScannedRows = Vec<(Vec<u8>, Bytes)>;

/// A store of rows, shared by all replicas of a node. Reads see every write that returned.
pub trait Rows: Send + Sync {
    /// The value of one row; None if there is no such row.
    ///
    /// # Errors
    /// If it can't be read or its block is damaged.
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError>;

    /// The values of several rows, in the order of the keys; None for each that is not there.
    ///
    /// # Errors
    /// As [`Rows::get`], if any of them fails.
    fn get_many(&self, replica: ReplicaId, keys: &[&RowKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        keys.iter().map(|key| self.get(replica, key)).collect()
    }

    /// At most `limit` rows of one table of one mailbox whose last key part is `from` or after and
    /// begins with `prefix`.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan(
        &self,
        replica: ReplicaId,
        mailbox: MailboxId,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<ScannedRows, StoreError>;

    /// Writes all of it or nothing, each replica's position inside, one batch for each. Not yet durable.
    ///
    /// # Errors
    /// Any error here ends the process.
    ///
    /// # Panics
    /// If a replica's index does not rise: an entry would be applied twice. A store that keeps sums also if a replica has
    /// two batches.
    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError>;

    /// The same with rows of [`Table::Sums`] for each replica, in the order of the batches. Only a store that keeps sums
    /// asks for it, of the one below.
    ///
    /// # Errors
    /// As [`Rows::write`].
    ///
    /// # Panics
    /// As [`Rows::write`].
    fn write_with_sums(&self, batches: &[ReplicaBatch], sums: &[RowBatch]) -> Result<(), StoreError> {
        let _ = sums;
        self.write(batches)
    }

    /// A replica's position; None if the store has no such replica.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError>;

    /// Every replica in the store.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError>;

    /// Makes everything written so far durable; returns for every replica the index that a crash from
    /// now on can't take back.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError>;

    /// For every replica the index that a crash can't take back, without flushing.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError>;

    /// An unchanging view of one replica, for snapshots and state hashes.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError>;

    /// Replaces everything a replica has by these rows and this position, and flushes. Whoever reads sees the old rows
    /// until a moment shortly before it returns, and all of the new ones from then on. A crash leaves either the old
    /// rows or the new ones: the caller has a mark in the log and does it again.
    ///
    /// # Errors
    /// Those of the store, and the first of `rows`.
    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError>;

    /// Deletes a replica with all its rows, and flushes.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError>;

    /// Writes rows of [`Table::Sums`] beside a replica's position, which stays. Only a store that keeps sums asks for it,
    /// of the one below.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn write_sums(&self, replica: ReplicaId, sums: &RowBatch) -> Result<(), StoreError> {
        let _ = sums;
        Err(StoreError::io(format!("writing the sums of replica {replica}"), "this store keeps none"))
    }

    /// About how many bytes all rows have.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// What knows whether the rows are those that were applied; None for a store that can't tell.
    fn proof(&self) -> Option<&dyn RowsProof> {
        None
    }
}

/// Tells rows that were applied from what stands on the disk in their place.
pub trait RowsProof: Send + Sync {
    /// The position of a replica's rows and one value for all of them, equal at one position on all replicas of a
    /// partition. None where it is not known.
    fn sum(&self, replica: ReplicaId) -> Option<(Index, [u8; 32])>;

    /// Whether the rows that a mailbox is loaded from are those that were applied.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if they are not, and whatever reading them fails with.
    fn check_mailbox(&self, replica: ReplicaId, mailbox: MailboxId) -> Result<(), StoreError>;

    /// Fails if a replica's rows are known to be others than those that were applied: nothing of them may be told.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with what was found.
    fn check_trusted(&self, replica: ReplicaId) -> Result<(), StoreError>;

    /// From now on a replica's rows are known to be wrong, until all of them are replaced.
    fn distrust(&self, replica: ReplicaId, why: &str);

    /// What was found to be wrong since the last call.
    fn take_news(&self) -> Vec<(ReplicaId, String)>;

    /// Reads up to about so many bytes of the rows on, mailbox by mailbox and replica by replica, and compares those of
    /// each with its sums. `begin` names the mailbox to begin with: the first at or after it, or that which was read last
    /// for None. A mailbox that is found damaged is in [`RowsProof::take_news`], and the reading goes on behind it.
    ///
    /// # Errors
    /// If the store can't be read for another reason than damage.
    fn scrub(&self, begin: Option<(ReplicaId, MailboxId)>, bytes: u64) -> Result<Scrubbed, StoreError>;
}

/// What one step of a scrub has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// The mailbox with which a scrub that is interrupted goes on; None if everything was read.
    pub next: Option<(ReplicaId, MailboxId)>,
    /// Rows read in this step.
    pub rows: u64,
    /// Bytes of keys and values read in this step.
    pub bytes: u64,
}

/// An unchanging view of one replica's rows.
pub trait RowsView: Send {
    /// The position of the view.
    fn applied(&self) -> &Applied;

    /// Up to `limit` rows after the key `after` (from the start for None), in key order, without the row
    /// of [`Table::Applied`].
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn rows(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Bytes)>, StoreError>;
}

/// SHA-256 over all rows of a view without the replica's prefix and without [`Table::Applied`]: equal at
/// equal applied index on every replica of a partition.
///
/// # Errors
/// As [`Rows::get`].
pub fn state_hash(view: &dyn RowsView) -> Result<[u8; 32], StoreError> {
    use sha2::{Digest, Sha256};
    const PAGE_ROWS: usize = 1_000;
    let mut hash = Sha256::new();
    let mut after: Option<RowKey> = None;
    loop {
        let page = view.rows(after.as_ref(), PAGE_ROWS)?;
        for (key, value) in &page {
            let key = key.encode();
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(&key);
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
        }
        match page.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(hash.finalize().into()),
        }
    }
}
