//! Committed entries become rows. Needs no key and no knowledge of mail; takes each entry whole or not at all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::entry::{CommandRow, KNOWN_REQUIRED_FLAGS};
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{
    Applied, Entry as LogEntry, EntryKind, Index, MailboxId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table,
    Term, Verdict,
};
use raft::eraftpb::{self, ConfState, EntryType};
use sha2::{Digest, Sha256};

use crate::plant::{self, Fault};
use crate::regions::{self, Regions};
use crate::seam::ApplyJob;
use crate::{members, placement, takeover};

/// Every so many accepted entries the running hash is kept in a row.
pub const HASH_KEPT_EVERY: u64 = 1_024;

/// What applying a job did.
#[derive(Clone, Debug)]
pub struct AppliedJob {
    /// The replica to whose rows it was applied.
    pub replica: ReplicaId,
    /// The position after it.
    pub applied: Applied,
    /// For each entry that is no configuration change and not empty.
    pub verdicts: Vec<(Index, Verdict)>,
    /// One value for all rows at that position, if the store keeps one.
    pub sum: Option<[u8; 32]>,
    /// What the rows say of regions, if it changed rows that say so.
    pub regions: Option<Arc<Regions>>,
}

/// Why a replica can't go on. Nothing is ever skipped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry can't be read.
    #[error("replica {replica}: entry {index}: {error}")]
    Entry {
        /// The replica whose log has it.
        replica: ReplicaId,
        /// The index of the entry.
        index: Index,
        /// What is wrong with it.
        error: StoreError,
    },
    /// An entry needs a feature that this binary does not know.
    #[error(
        "replica {replica}: entry {index} needs features {flags:#x} that this version of mailraft does not know: run the newer one"
    )]
    Unknown {
        /// The replica whose log has it.
        replica: ReplicaId,
        /// The index of the entry.
        index: Index,
        /// The unknown flags.
        flags: u32,
    },
    /// A job for a replica that the store does not have, or entries that don't follow.
    #[error("replica {replica}: entry {index} does not follow {applied}")]
    Order {
        /// The replica that it was for.
        replica: ReplicaId,
        /// The index of the entry.
        index: Index,
        /// The position before.
        applied: Index,
    },
}

/// Applies jobs in order and writes all of it at once.
///
/// # Errors
/// Why the process must stop.
pub fn apply(rows: &dyn Rows, jobs: &[ApplyJob]) -> Result<Vec<AppliedJob>, ApplyError> {
    let mut replicas: BTreeMap<ReplicaId, Applying<'_>> = BTreeMap::new();
    let mut order = Vec::new();
    for job in jobs {
        let applying = match replicas.entry(job.replica) {
            Entry::Occupied(applying) => applying.into_mut(),
            Entry::Vacant(place) => {
                let applied = rows.applied(job.replica)?.ok_or(ApplyError::Order {
                    replica: job.replica,
                    index: Index(job.entries.first().map_or(0, |(e, _)| e.index)),
                    applied: Index(0),
                })?;
                order.push(job.replica);
                place.insert(Applying::new(rows, job.replica, applied))
            }
        };
        for (entry, conf) in &job.entries {
            applying.entry(entry, conf.as_ref())?;
        }
    }
    let (mut batches, mut done, mut of_regions) = (Vec::new(), Vec::new(), Vec::new());
    for replica in order {
        let Some(applying) = replicas.remove(&replica) else { continue };
        if applying.applied.index == applying.before {
            continue;
        }
        if regions::are_among(&applying.changed) {
            of_regions.push(done.len());
        }
        let (batch, applied, verdicts) = applying.finish();
        done.push(AppliedJob { replica, applied: applied.clone(), verdicts, sum: None, regions: None });
        batches.push(ReplicaBatch { replica, batch, applied });
    }
    rows.write(&batches)?;
    for at in of_regions {
        done[at].regions = Regions::from_rows(rows, done[at].replica)?.map(Arc::new);
    }
    if let Some(proof) = rows.proof() {
        for done in &mut done {
            done.sum = proof.sum(done.replica).filter(|(index, _)| *index == done.applied.index).map(|(_, sum)| sum);
        }
    }
    Ok(done)
}

/// One replica while its entries are applied: the store, and over it what this call has changed.
struct Applying<'a> {
    rows: &'a dyn Rows,
    replica: ReplicaId,
    before: Index,
    applied: Applied,
    changed: BTreeMap<RowKey, Option<Bytes>>,
    verdicts: Vec<(Index, Verdict)>,
}

impl<'a> Applying<'a> {
    fn new(rows: &'a dyn Rows, replica: ReplicaId, applied: Applied) -> Self {
        Applying { rows, replica, before: applied.index, applied, changed: BTreeMap::new(), verdicts: Vec::new() }
    }

    fn entry(&mut self, raw: &eraftpb::Entry, conf: Option<&ConfState>) -> Result<(), ApplyError> {
        let index = Index(raw.index);
        if raw.index != self.applied.index.0 + 1 {
            return Err(ApplyError::Order { replica: self.replica, index, applied: self.applied.index });
        }
        self.applied.index = index;
        self.applied.term = Term(raw.term);
        if let Some(conf) = conf {
            self.reconfigure(raw, conf)?;
        }
        if raw.data.is_empty() || raw.get_entry_type() != EntryType::EntryNormal {
            return Ok(());
        }
        let entry =
            LogEntry::decode(&raw.data).map_err(|error| ApplyError::Entry { replica: self.replica, index, error })?;
        let unknown = entry.header.required_flags & !KNOWN_REQUIRED_FLAGS;
        if unknown != 0 {
            return Err(ApplyError::Unknown { replica: self.replica, index, flags: unknown });
        }
        let verdict = self.decide(raw, &entry)?;
        if verdict == Verdict::Accepted {
            self.accept(index, &entry)?;
            let mut hash = Sha256::new();
            if !plant::is(Fault::HashNotChained) {
                hash.update(self.applied.hash);
            }
            let head = if plant::is(Fault::HashOfHeads) { raw.data.len().min(64) } else { raw.data.len() };
            hash.update(&raw.data[..head]);
            let left_out = match &entry.kind {
                EntryKind::Chunk(_) => plant::is(Fault::HashWithoutChunks),
                EntryKind::Begin => plant::is(Fault::HashWithoutBegin),
                EntryKind::Rows(_) | EntryKind::Takeover(_) => false,
            };
            if !left_out {
                self.applied.hash = hash.finalize().into();
            }
            self.applied.count += 1;
            if self.applied.count.is_multiple_of(HASH_KEPT_EVERY) {
                let key = RowKey::partition(Table::Hashes, self.applied.count.to_be_bytes());
                self.changed.insert(key, Some(Bytes::copy_from_slice(&self.applied.hash)));
            }
        }
        self.applied.stamp = self.applied.stamp.max(entry.header.stamp);
        self.verdicts.push((index, verdict));
        Ok(())
    }

    /// Takes a new configuration over, with what its change says of the member's node.
    fn reconfigure(&mut self, raw: &eraftpb::Entry, conf: &ConfState) -> Result<(), ApplyError> {
        let stop = |error| ApplyError::Entry { replica: self.replica, index: Index(raw.index), error };
        let member = members::decode(raw).map_err(stop)?.and_then(|d| d.member);
        let highest = match self.changed.get(&placement::highest_key()) {
            Some(value) => value.as_deref().map(placement::read_highest).transpose(),
            None => placement::highest(self.rows, self.replica),
        }
        .map_err(stop)?;
        let before = self.applied.clone();
        members::set_conf(&mut self.applied, conf);
        let batch = members::rows_of(member, highest, &before, &self.applied);
        self.changed.extend(batch.puts.into_iter().map(|(key, value)| (key, Some(value))));
        self.changed.extend(batch.deletes.into_iter().map(|key| (key, None)));
        Ok(())
    }

    fn decide(&self, raw: &eraftpb::Entry, entry: &LogEntry) -> Result<Verdict, ApplyError> {
        if entry.header.decided_in.0 != raw.term && !plant::is(Fault::DropTermChecks) {
            return Ok(Verdict::Fenced);
        }
        Ok(match &entry.kind {
            EntryKind::Begin if self.applied.incarnation.is_some() => Verdict::Fenced,
            EntryKind::Begin => Verdict::Accepted,
            EntryKind::Takeover(_) => {
                let before = self.applied.incarnation.map_or(0, |i| i.number);
                if entry.header.incarnation.number > before { Verdict::Accepted } else { Verdict::Fenced }
            }
            EntryKind::Rows(_) | EntryKind::Chunk(_) if self.applied.incarnation != Some(entry.header.incarnation) => {
                Verdict::Fenced
            }
            EntryKind::Rows(body) => {
                let mut verdict = Verdict::Accepted;
                for key in &body.requires {
                    if !self.exists(key)? && !plant::is(Fault::ApplyWithoutRequired) {
                        verdict = Verdict::Missing;
                        break;
                    }
                }
                verdict
            }
            EntryKind::Chunk(chunk) => {
                let open = RowKey::new(entry.header.mailbox, Table::OpenBodies, chunk.body);
                let blind = plant::is(Fault::ApplyWithoutRequired);
                if chunk.open.is_some() || blind || self.exists(&open)? { Verdict::Accepted } else { Verdict::Missing }
            }
        })
    }

    fn accept(&mut self, index: Index, entry: &LogEntry) -> Result<(), StoreError> {
        match &entry.kind {
            EntryKind::Begin => {
                self.applied.incarnation = Some(entry.header.incarnation);
                let row = mailraft_storage::entry::versioned_encode(1, &entry.header.incarnation);
                self.changed.insert(RowKey::partition(Table::Incarnation, []), Some(row.into()));
            }
            EntryKind::Takeover(body) => {
                let taken = body.taken_over(entry.header.incarnation);
                self.applied.incarnation = Some(taken.incarnation);
                members::as_adopted(&mut self.applied, &taken.voters);
                let known = self.member_keys()?;
                self.change(&takeover::group_rows(&taken, &body.voters, body.highest, &known));
                self.change(&body.batch);
            }
            EntryKind::Rows(body) => {
                self.change(&body.batch);
                for (id, result) in &body.results {
                    let row = CommandRow { index, mailbox: entry.header.mailbox, result: result.clone() };
                    self.changed.insert(RowKey::command(*id), Some(row.encode().into()));
                }
            }
            EntryKind::Chunk(chunk)
                if mailraft_storage::plant::is(mailraft_storage::plant::Fault::BodyLosesChunk)
                    && chunk.open.is_none() => {}
            EntryKind::Chunk(chunk) => {
                let mailbox = entry.header.mailbox;
                if let Some(open) = &chunk.open {
                    self.changed.insert(RowKey::new(mailbox, Table::OpenBodies, chunk.body), Some(open.clone()));
                }
                let lost = plant::is(Fault::ChunkLostByOne) && self.replica.0.is_multiple_of(2);
                let data = if lost { Bytes::new() } else { chunk.data.clone() };
                let mut key = chunk.body.to_vec();
                key.extend_from_slice(&chunk.number.to_be_bytes());
                self.changed.insert(RowKey::new(mailbox, Table::Chunks, key), Some(data));
            }
        }
        Ok(())
    }

    fn change(&mut self, batch: &RowBatch) {
        for key in &batch.deletes {
            self.changed.insert(key.clone(), None);
        }
        for (key, value) in &batch.puts {
            self.changed.insert(key.clone(), Some(value.clone()));
        }
    }

    /// The keys of the rows of members that the group has.
    fn member_keys(&self) -> Result<Vec<RowKey>, StoreError> {
        let key = |key: Vec<u8>| RowKey::partition(Table::Members, key);
        let stored = self.rows.scan(self.replica, MailboxId::PARTITION, Table::Members, &[], &[], usize::MAX)?;
        let stored = stored.into_iter().map(|(last, _)| key(last));
        let first = key(Vec::new());
        let changed = self.changed.range(&first..).map(|(key, _)| key);
        let changed = changed.take_while(|key| key.mailbox == first.mailbox && key.table == first.table);
        Ok(stored.chain(changed.cloned()).collect())
    }

    fn exists(&self, key: &RowKey) -> Result<bool, StoreError> {
        match self.changed.get(key) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.rows.get(self.replica, key)?.is_some()),
        }
    }

    fn finish(self) -> (RowBatch, Applied, Vec<(Index, Verdict)>) {
        let mut batch = RowBatch::default();
        for (key, value) in self.changed {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        (batch, self.applied, self.verdicts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::entry::{ChunkBody, EntryHeader, RowsBody};
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::{ClusterId, CommandId, Incarnation, MailboxId, NodeId, UnixMillis};
    use protobuf::Message;
    use raft::eraftpb::ConfChangeType;

    use super::*;
    use crate::placement::MemberRow;

    const R: ReplicaId = ReplicaId(1);
    const BORN: Incarnation = Incarnation { number: 1, nonce: [9; 16] };

    fn raw(index: u64, term: u64, decided_in: u64, incarnation: Incarnation, kind: EntryKind) -> eraftpb::Entry {
        let header = EntryHeader {
            cluster: ClusterId([1; 16]),
            incarnation,
            mailbox: MailboxId([2; 16]),
            decided_in: Term(decided_in),
            command: CommandId([index as u8; 16]),
            stamp: UnixMillis(index),
            required_flags: 0,
            needs_control: Index(0),
            confirmed: Index(0),
            mode: 0,
        };
        let data = LogEntry { header, kind }.encode();
        eraftpb::Entry { index, term, data: data.into(), ..Default::default() }
    }

    fn rows(key: u8, requires: &[u8]) -> EntryKind {
        let row = |k: u8| RowKey::new(MailboxId([2; 16]), Table::Folders, [k]);
        let mut body = RowsBody { requires: requires.iter().map(|k| row(*k)).collect(), ..Default::default() };
        body.batch.put(row(key), vec![key]);
        body.results.push((CommandId([key; 16]), Bytes::from_static(b"sealed")));
        EntryKind::Rows(body)
    }

    fn store() -> MemoryRows {
        let store = MemoryRows::new();
        let applied = Applied { index: Index(1), term: Term(1), voters: vec![R], ..Default::default() };
        store.write(&[ReplicaBatch { replica: R, batch: RowBatch::default(), applied }]).unwrap();
        store
    }

    fn run(store: &MemoryRows, entries: Vec<eraftpb::Entry>) -> AppliedJob {
        let job = ApplyJob { replica: R, entries: entries.into_iter().map(|e| (e, None)).collect() };
        apply(store, &[job]).unwrap().remove(0)
    }

    #[test]
    fn an_entry_of_another_term_or_incarnation_is_discarded_and_changes_no_hash() {
        let store = store();
        let done = run(&store, vec![raw(2, 3, 3, BORN, EntryKind::Begin)]);
        let hash = done.applied.hash;
        let other = Incarnation { number: 1, nonce: [8; 16] };
        let done = run(
            &store,
            vec![
                raw(3, 3, 2, BORN, rows(1, &[])),
                raw(4, 3, 3, other, rows(2, &[])),
                raw(5, 3, 3, BORN, EntryKind::Begin),
                eraftpb::Entry { index: 6, term: 4, ..Default::default() },
            ],
        );
        let fenced = |i| (Index(i), Verdict::Fenced);
        assert_eq!(done.verdicts, [fenced(3), fenced(4), fenced(5)]);
        assert_eq!((done.applied.hash, done.applied.count, done.applied.index), (hash, 1, Index(6)));
        assert!(store.get(R, &RowKey::command(CommandId([1; 16]))).unwrap().is_none());
    }

    #[test]
    fn what_is_required_may_come_from_the_same_call_and_its_absence_leaves_nothing() {
        let store = store();
        let done = run(
            &store,
            vec![
                raw(2, 1, 1, BORN, EntryKind::Begin),
                raw(3, 1, 1, BORN, rows(7, &[6])),
                raw(4, 1, 1, BORN, rows(6, &[])),
                raw(5, 1, 1, BORN, rows(8, &[6])),
            ],
        );
        let verdicts: Vec<Verdict> = done.verdicts.iter().map(|v| v.1).collect();
        assert_eq!(verdicts, [Verdict::Accepted, Verdict::Missing, Verdict::Accepted, Verdict::Accepted]);
        let row = |k: u8| RowKey::new(MailboxId([2; 16]), Table::Folders, [k]);
        assert!(store.get(R, &row(7)).unwrap().is_none());
        assert!(store.get(R, &row(8)).unwrap().is_some());
        let command = store.get(R, &RowKey::command(CommandId([8; 16]))).unwrap().unwrap();
        assert_eq!(CommandRow::decode(&command).unwrap().index, Index(5));
    }

    #[test]
    fn a_chunk_needs_the_open_row_that_the_first_one_writes() {
        let store = store();
        let chunk = |number: u32, open: bool| {
            EntryKind::Chunk(ChunkBody {
                body: [5; 16],
                number,
                open: open.then(|| Bytes::from_static(b"open")),
                data: Bytes::from_static(b"data"),
            })
        };
        let done = run(
            &store,
            vec![
                raw(2, 1, 1, BORN, EntryKind::Begin),
                raw(3, 1, 1, BORN, chunk(1, false)),
                raw(4, 1, 1, BORN, chunk(0, true)),
                raw(5, 1, 1, BORN, chunk(1, false)),
            ],
        );
        let verdicts: Vec<Verdict> = done.verdicts.iter().map(|v| v.1).collect();
        assert_eq!(verdicts, [Verdict::Accepted, Verdict::Missing, Verdict::Accepted, Verdict::Accepted]);
    }

    #[test]
    fn an_unknown_required_flag_stops_and_entries_must_follow() {
        let store = store();
        let mut unknown = LogEntry::decode(&raw(2, 1, 1, BORN, EntryKind::Begin).data).unwrap();
        unknown.header.required_flags = 1 << 31;
        let entry = eraftpb::Entry { index: 2, term: 1, data: unknown.encode().into(), ..Default::default() };
        let stop = apply(&store, &[ApplyJob { replica: R, entries: vec![(entry, None)] }]);
        assert!(matches!(stop, Err(ApplyError::Unknown { .. })));
        let gap = raw(4, 1, 1, BORN, EntryKind::Begin);
        let stop = apply(&store, &[ApplyJob { replica: R, entries: vec![(gap, None)] }]);
        assert!(matches!(stop, Err(ApplyError::Order { .. })));
        assert_eq!(store.applied(R).unwrap().unwrap().index, Index(1));
    }

    #[test]
    fn a_configuration_stands_with_the_position_and_changes_no_hash() {
        let store = store();
        let mut conf = ConfState::default();
        conf.set_voters(vec![3, 1]);
        conf.set_learners(vec![9]);
        let added = MemberRow { replica: ReplicaId(9), node: NodeId(4), voter: false };
        let data = members::encode(ConfChangeType::AddLearnerNode, &added).write_to_bytes().unwrap();
        let mut change = eraftpb::Entry { index: 2, term: 1, data: data.into(), ..Default::default() };
        change.set_entry_type(EntryType::EntryConfChangeV2);
        let job = ApplyJob { replica: R, entries: vec![(change, Some(conf))] };
        let done = apply(&store, &[job]).unwrap().remove(0);
        assert_eq!(
            (done.applied.voters, done.applied.learners),
            (vec![ReplicaId(1), ReplicaId(3)], vec![ReplicaId(9)])
        );
        assert_eq!((done.applied.count, done.applied.hash, done.verdicts.len()), (0, [0; 32], 0));
        let group = placement::group(&store, R).unwrap();
        assert_eq!((group.members, group.highest), (vec![added], ReplicaId(9)));
    }

    #[test]
    fn the_running_hash_is_the_same_however_entries_come_and_every_1024th_is_kept() {
        let entries = |from: u64, to: u64| -> Vec<_> {
            // Without results: those of one command are written once.
            let kind = |i: u64| match rows((i % 5) as u8, &[]) {
                _ if i == 2 => EntryKind::Begin,
                EntryKind::Rows(body) => EntryKind::Rows(RowsBody { results: Vec::new(), ..body }),
                other => other,
            };
            (from..=to).map(|i| raw(i, 1, 1, BORN, kind(i))).collect()
        };
        let (whole, parts) = (store(), store());
        let one = run(&whole, entries(2, HASH_KEPT_EVERY + 10));
        run(&parts, entries(2, 500));
        run(&parts, entries(501, HASH_KEPT_EVERY + 1));
        let kept = RowKey::partition(Table::Hashes, HASH_KEPT_EVERY.to_be_bytes());
        let at = parts.applied(R).unwrap().unwrap();
        assert_eq!((at.count, parts.get(R, &kept).unwrap().unwrap().to_vec()), (HASH_KEPT_EVERY, at.hash.to_vec()));
        let two = run(&parts, entries(HASH_KEPT_EVERY + 2, HASH_KEPT_EVERY + 10));
        assert_eq!(one.applied, two.applied);
        assert_eq!(whole.get(R, &kept).unwrap(), parts.get(R, &kept).unwrap());
    }

    #[test]
    fn jobs_of_several_replicas_are_written_at_once_each_in_its_order() {
        let store = store();
        let other = ReplicaId(2);
        let applied = Applied { index: Index(1), term: Term(1), voters: vec![other], ..Default::default() };
        store.write(&[ReplicaBatch { replica: other, batch: RowBatch::default(), applied }]).unwrap();
        let job = |replica, entry| ApplyJob { replica, entries: vec![(entry, None)] };
        let done = apply(
            &store,
            &[
                job(R, raw(2, 1, 1, BORN, EntryKind::Begin)),
                job(other, raw(2, 1, 1, BORN, EntryKind::Begin)),
                job(R, raw(3, 1, 1, BORN, rows(1, &[]))),
            ],
        )
        .unwrap();
        let seen: Vec<_> = done.iter().map(|d| (d.replica.0, d.applied.index.0, d.verdicts.len())).collect();
        assert_eq!(seen, [(1, 3, 2), (2, 2, 1)]);
        // Nothing of a call that stops is written.
        let stop =
            apply(&store, &[job(R, raw(4, 1, 1, BORN, rows(2, &[]))), job(other, raw(9, 1, 1, BORN, rows(2, &[])))]);
        assert!(stop.is_err());
        assert_eq!(store.applied(R).unwrap().unwrap().index, Index(3));
    }
}
