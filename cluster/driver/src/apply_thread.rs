//! The thread that applies committed entries of all replicas of the node, in the order the core gave them.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use mailraft_cluster::apply::{AppliedJob, apply};
use mailraft_cluster::{ApplyJob, Input, SnapshotJob};
use mailraft_storage::Rows;
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

/// Applies until the core ends.
pub(crate) fn run(
    rows: Arc<dyn Rows>,
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
                     again; if data is damaged, set the replica aside and let it join anew"
                )
            })?;
            ::metrics::histogram!(metrics::APPLY).record(begun.elapsed());
            ::metrics::counter!(metrics::APPLY_ENTRIES).increment(entries as u64);
            ::metrics::gauge!(metrics::APPLY_QUEUE).set(queue.len() as f64);
            for AppliedJob { replica, applied, verdicts } in done {
                inputs.own(Input::Applied { replica, applied, verdicts });
            }
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
