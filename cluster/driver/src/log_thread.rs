//! The one fsync loop of a node, and beside it the thread that gives back the space of what was cut.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use mailraft_cluster::Input;
use mailraft_storage::log::{InstallMark, Log, LogBatch};
use raft::eraftpb::Entry;
use tokio::sync::mpsc;

use crate::fatal::Fatal;
use crate::inputs::Inputs;
use crate::metrics;
use crate::snapshot::SnapshotWork;
use crate::status::Recent;

/// Priority of threads that may wait (as of nice(1)).
const LOW_PRIORITY: i32 = 10;

/// Writes and syncs batches until the core ends.
pub(crate) fn write(
    log: Arc<dyn Log>,
    batches: Receiver<(u64, LogBatch)>,
    to_reclaim: Sender<()>,
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
        log.write_synced(number, &batch).map_err(|e| {
            format!(
                "batch {number} of the Raft log could not be made durable: {e}. Check the disk and its file system, \
                 then start the node again; if its log is damaged, set the node aside and let it join anew"
            )
        })?;
        let took = begun.elapsed();
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
            let _ = to_reclaim.try_send(());
        }
    }
    Ok(())
}

/// Gives back the space of what was cut, each time it is told to, until the log thread ends.
pub(crate) fn reclaim(log: Arc<dyn Log>, wanted: Receiver<()>, fatal: Fatal) -> Result<(), String> {
    lower_priority();
    for () in wanted {
        if fatal.is_dead() {
            return Ok(());
        }
        log.reclaim().map_err(|e| {
            format!("the Raft log could not give back space: {e}. Check the disk, then start the node again")
        })?;
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
