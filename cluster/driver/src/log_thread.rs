//! The one fsync loop of a node, and beside it the threads that make its witness durable and that give back the space
//! of what was cut.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use mailraft_cluster::Input;
use mailraft_storage::log::{InstallMark, Log, LogBatch, WITNESS_SYNC_AFTER_MS};
use mailraft_storage::{DAMAGED_NODE_ADVICE, ReplicaId};
use raft::eraftpb::Entry;
use tokio::sync::mpsc;

use crate::fatal::Fatal;
use crate::inputs::Inputs;
use crate::metrics;
use crate::snapshot::SnapshotWork;
use crate::status::Recent;

/// Priority of threads that may wait (as of nice(1)).
const LOW_PRIORITY: i32 = 10;

/// The witness is synced this long after a batch: the other half is the sync's own.
const WITNESS_SYNC_AFTER: Duration = Duration::from_millis(WITNESS_SYNC_AFTER_MS / 2);

/// The ways to the threads beside the fsync loop; each holds one word, because one is enough.
pub(crate) struct Beside {
    /// To [`sync_witness`].
    pub(crate) witness: Sender<()>,
    /// To [`reclaim`].
    pub(crate) reclaim: Sender<()>,
}

/// Writes and syncs batches until the core ends.
pub(crate) fn write(
    log: Arc<dyn Log>,
    batches: Receiver<(u64, LogBatch)>,
    beside: Beside,
    to_snapshots: mpsc::UnboundedSender<SnapshotWork>,
    inputs: Inputs,
    times: Recent,
    fatal: Fatal,
) -> Result<(), String> {
    for (number, batch) in batches {
        if fatal.is_dead() {
            return Ok(());
        }
        let bytes: usize = batch.writes.iter().flat_map(|w| &w.append).map(entry_bytes).sum();
        let cut = batch.writes.iter().any(|w| w.compact.is_some() || w.reset.is_some() || w.remove);
        let begun = Instant::now();
        times.begins();
        log.write_synced(number, &batch).map_err(|e| {
            format!(
                "batch {number} of the Raft log could not be made durable: {e}. Check the disk and its file system, \
                 then start the node again; if its log is damaged, {DAMAGED_NODE_ADVICE}"
            )
        })?;
        let took = begun.elapsed();
        // If it is full, a sync is due already.
        let _ = beside.witness.try_send(());
        for write in batch.writes.iter().filter(|write| write.mark == Some(InstallMark::Over)) {
            // If nobody hears it, the file is removed at the next start.
            let _ = to_snapshots.send(SnapshotWork::Over(write.replica));
        }
        inputs.own(Input::Persisted { number });
        times.add(took);
        ::metrics::histogram!(metrics::LOG_FSYNC).record(took);
        ::metrics::histogram!(metrics::LOG_BATCH).record(bytes as f64);
        if cut {
            // If it is full, a reclaim is due already.
            let _ = beside.reclaim.try_send(());
        }
    }
    Ok(())
}

/// Syncs the log's witness a little after each time it is told to, until the log thread ends.
pub(crate) fn sync_witness(log: Arc<dyn Log>, wanted: Receiver<()>, fatal: Fatal) -> Result<(), String> {
    for () in wanted {
        thread::sleep(WITNESS_SYNC_AFTER);
        if fatal.is_dead() {
            return Ok(());
        }
        log.sync_witness().map_err(|e| {
            format!("the witness of the Raft log could not be synced: {e}. Check the disk, then start the node again")
        })?;
    }
    Ok(())
}

/// Gives back the space of what was cut, each time it is told to, until the log thread ends.
pub(crate) fn reclaim(log: Arc<dyn Log>, wanted: Receiver<()>, inputs: Inputs, fatal: Fatal) -> Result<(), String> {
    lower_priority();
    let mut told = BTreeSet::new();
    for () in wanted {
        if fatal.is_dead() {
            return Ok(());
        }
        let damaged = log.reclaim().map_err(|e| {
            format!("the Raft log could not give back space: {e}. Check the disk, then start the node again")
        })?;
        // What is applied is in the rows, and what is not ends the process where it is applied: nothing is lost by
        // going on, but this disk damages what it holds.
        let damaged: BTreeSet<ReplicaId> = damaged.into_iter().collect();
        for replica in damaged.difference(&told) {
            inputs.damaged(*replica, &"entries of its Raft log are damaged");
        }
        told = damaged;
    }
    Ok(())
}

/// Lets this thread run only when others need not. Not being allowed to does no harm.
pub(crate) fn lower_priority() {
    // With no process given Linux takes the calling thread.
    let _ = rustix::process::setpriority_process(None, LOW_PRIORITY);
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use crossbeam_channel::{bounded, unbounded};
    use mailraft_storage::log::LogWrite;
    use mailraft_storage::memory::MemoryLog;
    use mailraft_storage::{Index, LogPosition, ReplicaId, Term};

    use super::*;

    #[test]
    fn a_batch_that_can_not_be_synced_ends_the_node_and_is_answered_by_nobody() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook = {
            let told = told.clone();
            Arc::new(move |sentence| told.lock().unwrap().push(sentence))
        };
        let (log, fatal) = (MemoryLog::new(), Fatal::new(hook));
        let (inputs, heard) = Inputs::new();
        let (to_log, batches) = unbounded();
        let (witness, witness_syncs) = bounded(1);
        let (reclaim, _reclaims) = bounded(1);
        let (to_snapshots, _snapshots) = mpsc::unbounded_channel();
        let reset = |index| LogWrite {
            replica: ReplicaId(1),
            reset: Some(LogPosition { index: Index(index), term: Term(1) }),
            ..LogWrite::default()
        };
        for number in 1..=3 {
            to_log.send((number, LogBatch { writes: vec![reset(number)] })).unwrap();
        }
        drop(to_log);
        let work = {
            let (log, fatal): (Arc<dyn Log>, _) = (Arc::new(log.clone()), fatal.clone());
            move || {
                super::write(log, batches, Beside { witness, reclaim }, to_snapshots, inputs, Recent::default(), fatal)
            }
        };
        log.fail_next_sync();
        fatal.spawn("t-log", work).unwrap().join().unwrap();
        assert!(fatal.is_dead() && heard.is_empty(), "{} answers", heard.len());
        assert_eq!((log.newest_batch(), witness_syncs.len()), (0, 0));
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("could not be made durable"), "{told:?}");
    }
}
