//! Makes rows durable: after some time or some bytes, whatever comes first. Everything else about the rows
//! may wait in memory, because the Raft log holds it until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use mailraft_cluster::Input;
use mailraft_storage::Rows;
use tokio::sync::oneshot;

use crate::fatal::Fatal;
use crate::inputs::Inputs;
use crate::metrics;

/// What the flush thread is told.
pub(crate) enum Flush {
    /// Enough was written.
    Full,
    /// Someone wants it now.
    Now(oneshot::Sender<()>),
    /// Once more, then end.
    Last,
}

/// The way to the flush thread.
#[derive(Clone)]
pub(crate) struct Flusher {
    queue: Sender<Flush>,
    written: Arc<AtomicU64>,
    full_bytes: u64,
}

impl Flusher {
    pub(crate) fn new(full_bytes: u64) -> (Self, Receiver<Flush>) {
        let (queue, receiver) = unbounded();
        (Flusher { queue, written: Arc::new(AtomicU64::new(0)), full_bytes: full_bytes.max(1) }, receiver)
    }

    /// Tells that so many bytes were written, at least 1.
    pub(crate) fn wrote(&self, bytes: u64) {
        let bytes = bytes.max(1);
        let before = self.written.fetch_add(bytes, Ordering::SeqCst);
        // Only who crosses the line says so: one message for each flush.
        if before < self.full_bytes && before.saturating_add(bytes) >= self.full_bytes {
            let _ = self.queue.send(Flush::Full);
        }
    }

    /// Flushes now; the receiver fails if the thread has ended.
    pub(crate) fn now(&self) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let _ = self.queue.send(Flush::Now(done));
        receiver
    }

    /// Flushes a last time and ends the thread.
    pub(crate) fn last(&self) {
        let _ = self.queue.send(Flush::Last);
    }
}

/// Flushes until told that it was the last time.
pub(crate) fn run(
    rows: Arc<dyn Rows>,
    queue: Receiver<Flush>,
    flusher: Flusher,
    interval: Duration,
    inputs: Inputs,
    fatal: Fatal,
) -> Result<(), String> {
    let mut due = Instant::now() + interval;
    loop {
        let told = match queue.recv_deadline(due) {
            Ok(told) => Some(told),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        if fatal.is_dead() {
            return Ok(());
        }
        let (wanted, reply, last) = match told {
            None => (false, None, false),
            Some(Flush::Full) => (false, None, false),
            Some(Flush::Now(reply)) => (true, Some(reply), false),
            Some(Flush::Last) => (true, None, true),
        };
        // Before the flush: what is written meanwhile counts for the next one.
        let written = flusher.written.swap(0, Ordering::SeqCst);
        if written > 0 || wanted {
            let begun = Instant::now();
            let upto = rows.flush().map_err(|e| {
                format!("the rows could not be flushed: {e}. Check the disk and its space, then start the node again")
            })?;
            ::metrics::histogram!(metrics::FLUSH).record(begun.elapsed());
            inputs.own(Input::Flushed { upto });
        }
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            let _ = reply.send(());
        }
        if last {
            return Ok(());
        }
        due = Instant::now() + interval;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::{Applied, ReplicaBatch};
    use mailraft_storage::{Index, ReplicaId, RowBatch};

    use super::*;

    #[test]
    fn rows_that_can_not_be_flushed_end_the_node_and_nothing_counts_as_flushed() {
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
        let (flusher, queue) = Flusher::new(1);
        let (inputs, heard) = Inputs::new();
        flusher.wrote(1);
        let work = {
            let (rows, flusher, fatal) = (Arc::new(rows), flusher.clone(), fatal.clone());
            move || run(rows, queue, flusher, Duration::from_secs(60), inputs, fatal)
        };
        fatal.spawn("t-flush", work).unwrap().join().unwrap();
        assert!(fatal.is_dead() && heard.is_empty(), "{} answers", heard.len());
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("could not be flushed"), "{told:?}");
    }

    #[test]
    fn crossing_the_line_says_so_once_for_each_flush() {
        let (flusher, queue) = Flusher::new(100);
        for bytes in [40, 59, 0, 30, 500] {
            flusher.wrote(bytes);
        }
        assert_eq!(queue.len(), 1, "at 100 exactly, and not again before a flush");
        assert!(matches!(queue.try_recv(), Ok(Flush::Full)));
        assert_eq!(flusher.written.swap(0, Ordering::SeqCst), 630);
        flusher.wrote(1_000);
        assert_eq!(queue.len(), 1);
    }
}
