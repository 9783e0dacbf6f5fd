//! The thread that applies committed entries of all replicas of the node, in the order the core gave them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use mailraft_cluster::apply::{AppliedJob, apply};
use mailraft_cluster::{ApplyJob, Input, SnapshotJob};
use mailraft_storage::{CommandId, DAMAGED_NODE_ADVICE, Entry, EntryKind, Index, PartitionId, ReplicaId, Rows};
use tokio::sync::mpsc;

use crate::fatal::Fatal;
use crate::flush_thread::Flusher;
use crate::inputs::Inputs;
use crate::metrics;
use crate::snapshot::SnapshotWork;

/// Jobs applied with one write of the rows.
const ROUND_MAX_JOBS: usize = 64;
/// Bytes of entries applied with one write of the rows, unless one job alone has more.
const ROUND_MAX_BYTES: usize = 4 << 20;

/// What comes to the apply thread.
pub(crate) enum ApplyWork {
    /// Entries to apply.
    Entries(ApplyJob),
    /// To be passed on once everything before it is applied.
    Snapshot(Box<SnapshotJob>),
}

/// Applies until the core ends. `partitions` is for the log.
pub(crate) fn run(
    rows: Arc<dyn Rows>,
    partitions: BTreeMap<ReplicaId, PartitionId>,
    queue: Receiver<ApplyWork>,
    to_snapshots: mpsc::UnboundedSender<SnapshotWork>,
    flusher: Flusher,
    inputs: Inputs,
    fatal: Fatal,
) -> Result<(), String> {
    while let Ok(first) = queue.recv() {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        let mut snapshot = None;
        while let Some(work) = next {
            match work {
                ApplyWork::Entries(job) => {
                    bytes += job_bytes(&job);
                    jobs.push(job);
                }
                ApplyWork::Snapshot(job) => {
                    snapshot = Some(job);
                    break;
                }
            }
            next = if jobs.len() < ROUND_MAX_JOBS && bytes < ROUND_MAX_BYTES { queue.try_recv().ok() } else { None };
        }
        if fatal.is_dead() {
            return Ok(());
        }
        if !jobs.is_empty() {
            let entries: usize = jobs.iter().map(|job| job.entries.len()).sum();
            let begun = Instant::now();
            let done = apply(rows.as_ref(), &jobs).map_err(|e| {
                format!(
                    "committed entries can't be applied: {e}. Nothing was skipped; check the disk, then start the node \
                     again; if data is damaged, {DAMAGED_NODE_ADVICE}"
                )
            })?;
            ::metrics::histogram!(metrics::APPLY).record(begun.elapsed());
            ::metrics::counter!(metrics::APPLY_ENTRIES).increment(entries as u64);
            ::metrics::gauge!(metrics::APPLY_QUEUE).set(queue.len() as f64);
            if tracing::enabled!(tracing::Level::DEBUG) {
                tell(&jobs, &done, &partitions);
            }
            for AppliedJob { replica, applied, verdicts, sum, regions } in done {
                inputs.own(Input::Applied { replica, applied, verdicts, sum, regions });
            }
            inputs.tell_damage(rows.as_ref());
            flusher.wrote(bytes as u64);
        }
        if let Some(job) = snapshot {
            // If its task has ended, so does this node.
            let _ = to_snapshots.send(SnapshotWork::Job(job));
        }
    }
    Ok(())
}

fn job_bytes(job: &ApplyJob) -> usize {
    job.entries.iter().map(|(entry, _)| entry.data.len()).sum()
}

/// Says of every command what applying its entry did here, on followers too.
fn tell(jobs: &[ApplyJob], done: &[AppliedJob], partitions: &BTreeMap<ReplicaId, PartitionId>) {
    for AppliedJob { replica, verdicts, .. } in done {
        let partition = partitions.get(replica).map(|p| p.0);
        for (entry, _) in jobs.iter().filter(|job| job.replica == *replica).flat_map(|job| &job.entries) {
            // Empty entries and configuration changes have no verdict.
            let Ok(at) = verdicts.binary_search_by_key(&Index(entry.index), |(index, _)| *index) else { continue };
            for command in commands(&entry.data) {
                let (index, verdict) = (entry.index, verdicts[at].1);
                tracing::debug!(%command, partition, %replica, index, ?verdict, "applied");
            }
        }
    }
}

/// The commands that an entry carries out, or a part of one that it brings.
fn commands(data: &[u8]) -> Vec<CommandId> {
    let Ok(entry) = Entry::decode(data) else { return Vec::new() };
    match entry.kind {
        EntryKind::Rows(body) if !body.results.is_empty() => body.results.into_iter().map(|(id, _)| id).collect(),
        EntryKind::Begin | EntryKind::Rows(_) | EntryKind::Chunk(_) | EntryKind::Takeover(_) => {
            vec![entry.header.command]
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use bytes::Bytes;
    use crossbeam_channel::unbounded;
    use mailraft_storage::entry::{EntryHeader, RowsBody};
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::{Applied, ReplicaBatch};
    use mailraft_storage::{ClusterId, Incarnation, MailboxId, RowBatch, Term, UnixMillis};
    use raft::eraftpb;

    use super::*;

    #[test]
    fn rows_that_can_not_be_written_end_the_node_and_nothing_counts_as_applied() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook = {
            let told = told.clone();
            Arc::new(move |sentence| told.lock().unwrap().push(sentence))
        };
        let (rows, fatal, replica) = (MemoryRows::new(), Fatal::new(hook), ReplicaId(1));
        let applied = Applied { index: Index(1), ..Applied::default() };
        rows.write(&[ReplicaBatch { replica, batch: RowBatch::default(), applied }]).unwrap();
        rows.flush().unwrap();
        rows.damage(replica, [Applied::key()]);
        let (to_apply, queue) = unbounded();
        let (to_snapshots, _snapshots) = mpsc::unbounded_channel();
        let (flusher, flushes) = Flusher::new(1);
        let (inputs, heard) = Inputs::new();
        for index in 2..=3 {
            let entries = vec![(eraftpb::Entry { index, term: 1, ..eraftpb::Entry::default() }, None)];
            to_apply.send(ApplyWork::Entries(ApplyJob { replica, entries })).unwrap();
        }
        drop(to_apply);
        let work = {
            let (rows, fatal) = (Arc::new(rows), fatal.clone());
            move || run(rows, BTreeMap::new(), queue, to_snapshots, flusher, inputs, fatal)
        };
        fatal.spawn("t-apply", work).unwrap().join().unwrap();
        assert!(fatal.is_dead() && heard.is_empty() && flushes.is_empty(), "{} answers", heard.len());
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("can't be applied"), "{told:?}");
    }

    #[test]
    fn every_command_of_an_entry_is_named_and_garbage_names_none() {
        let id = |n| CommandId([n; 16]);
        let data = |kind| {
            let header = EntryHeader {
                cluster: ClusterId([1; 16]),
                incarnation: Incarnation::default(),
                mailbox: MailboxId([2; 16]),
                decided_in: Term(1),
                command: id(9),
                stamp: UnixMillis(1),
                required_flags: 0,
                needs_control: Index(0),
                confirmed: Index(0),
                mode: 0,
            };
            Entry { header, kind }.encode()
        };
        let results = vec![(id(9), Bytes::new()), (id(8), Bytes::new())];
        assert_eq!(commands(&data(EntryKind::Rows(RowsBody { results, ..RowsBody::default() }))), [id(9), id(8)]);
        assert_eq!(commands(&data(EntryKind::Rows(RowsBody::default()))), [id(9)]);
        assert_eq!(commands(&data(EntryKind::Begin)), [id(9)]);
        assert_eq!(commands(b"garbage"), []);
    }
}
