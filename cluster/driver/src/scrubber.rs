//! The thread that reads every row in time and compares it with its replica's sums, so that damage is found before the
//! other replicas have the same. Slow on purpose: nothing waits for it, and mail does not wait for it either.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use mailraft_storage::{MailboxId, ReplicaId, Rows, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::clock::SharedTime;
use crate::inputs::Inputs;
use crate::metrics;
use crate::status::ScrubStatus;

/// Bytes read at one go, before the next pause.
const STEP_BYTES: u64 = 256 << 10;
/// The rate at least, in bytes a second: a small store need not take all of the time.
const RATE_MIN_BYTES: u64 = 64 << 10;
/// A round is to be done within so many hundredths of its time: sizes are estimates, and nodes are down now and then.
const TIME_USED_PERCENT: u64 = 80;
/// How often the thread looks whether a round is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How far it has come is written this often.
const KEEP_EVERY_MS: u64 = 10_000;
/// After a step that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How far the reading has come; also what a restart finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// When this round began; 0 before the first.
    begun_at: UnixMillis,
    /// Where it goes on; None once it is done.
    next: Option<(ReplicaId, MailboxId)>,
    /// Rows read in this round.
    rows: u64,
    /// Bytes read in this round.
    bytes: u64,
    /// When the last whole round began and ended.
    last: Option<(UnixMillis, UnixMillis)>,
    /// What was found damaged since the first round.
    damaged: u64,
}

impl Progress {
    fn status(&self, now: UnixMillis, size_bytes: u64) -> ScrubStatus {
        let percent = match self.next {
            None => 100,
            // Never 100 before the end: the size is an estimate.
            Some(_) => (self.bytes.saturating_mul(100) / size_bytes.max(1)).min(99),
        };
        ScrubStatus {
            percent,
            rows: self.rows,
            bytes: self.bytes,
            age_s: self.last.map(|(begun, _)| now.0.saturating_sub(begun.0) / 1_000),
            damaged: self.damaged,
        }
    }
}

/// How the reading is, for whoever asks.
#[derive(Clone, Default)]
pub(crate) struct ScrubState {
    progress: Arc<Mutex<(Progress, u64)>>,
}

impl ScrubState {
    pub(crate) fn status(&self, now: UnixMillis) -> ScrubStatus {
        let (progress, size_bytes) = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.status(now, size_bytes)
    }

    fn set(&self, progress: Progress, size_bytes: u64) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = (progress, size_bytes);
    }
}

/// What the thread works with.
pub(crate) struct Scrubber {
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) inputs: Inputs,
    pub(crate) time: SharedTime,
    /// From the beginning of one round to that of the next.
    pub(crate) every: Duration,
    /// Where the progress is kept; None to begin anew at each start.
    pub(crate) file: Option<PathBuf>,
    pub(crate) state: ScrubState,
    /// Its other end goes when the node ends.
    pub(crate) stop: Receiver<()>,
}

impl Scrubber {
    /// Reads until the node ends.
    pub(crate) fn run(self) -> Result<(), String> {
        let Some(proof) = self.rows.proof() else { return Ok(()) };
        let mut progress = self.kept();
        let mut kept_at = UnixMillis(0);
        let mut size_bytes = self.size();
        loop {
            let now = self.time.wall();
            if progress.next.is_none() && now.0 >= progress.begun_at.0.saturating_add(self.every.as_millis() as u64) {
                let first = (ReplicaId(0), MailboxId::PARTITION);
                progress = Progress { begun_at: now, next: Some(first), rows: 0, bytes: 0, ..progress };
                size_bytes = self.size();
            }
            let pause = match progress.next {
                None => LOOK_EVERY,
                Some(next) => match proof.scrub(Some(next), STEP_BYTES) {
                    Ok(read) => {
                        progress.rows += read.rows;
                        progress.bytes += read.bytes;
                        progress.next = read.next;
                        ::metrics::counter!(metrics::SCRUB_BYTES).increment(read.bytes);
                        if read.next.is_none() {
                            let now = self.time.wall();
                            progress.last = Some((progress.begun_at, now));
                            tracing::info!(
                                rows = progress.rows,
                                bytes = progress.bytes,
                                "read every row and compared it with the sums"
                            );
                        }
                        pause_after(read.bytes, size_bytes, self.every)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "rows can't be read to be compared with their sums: once more later");
                        AGAIN_AFTER
                    }
                },
            };
            let found = self.inputs.tell_damage(self.rows.as_ref());
            progress.damaged += found as u64;
            self.state.set(progress, size_bytes);
            let status = progress.status(now, size_bytes);
            ::metrics::gauge!(metrics::SCRUB_PROGRESS).set(status.percent as f64 / 100.0);
            if let Some(age_s) = status.age_s {
                ::metrics::gauge!(metrics::SCRUB_AGE).set(age_s as f64);
            }
            if found > 0 || progress.next.is_none() || now.0.abs_diff(kept_at.0) >= KEEP_EVERY_MS {
                self.keep(&progress);
                kept_at = now;
            }
            match self.stop.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    self.keep(&progress);
                    return Ok(());
                }
            }
        }
    }

    fn size(&self) -> u64 {
        self.rows.size_bytes().unwrap_or_else(|error| {
            tracing::warn!(%error, "the size of the rows is not known");
            0
        })
    }

    fn kept(&self) -> Progress {
        let Some(text) = self.file.as_ref().and_then(|file| fs::read(file).ok()) else { return Progress::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, "how far the rows were read is not known: from the beginning");
            Progress::default()
        })
    }

    /// Not synced: what is lost is read once more.
    fn keep(&self, progress: &Progress) {
        let Some(file) = &self.file else { return };
        let new = file.with_extension("new");
        let text = serde_json::to_vec(progress).unwrap_or_default();
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, file)) {
            tracing::warn!(%error, file = %file.display(), "how far the rows were read can't be written");
        }
    }
}

/// How long to wait after so many bytes, so that all are read in time and no faster than needed.
fn pause_after(bytes: u64, size_bytes: u64, every: Duration) -> Duration {
    let time_s = (every.as_secs() * TIME_USED_PERCENT / 100).max(1);
    let rate = (size_bytes / time_s).max(RATE_MIN_BYTES);
    Duration::from_micros(bytes.saturating_mul(1_000_000) / rate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn everything_is_read_in_time_and_a_small_store_at_a_low_rate() {
        let week = Duration::from_secs(7 * 86_400);
        let terabyte = 1 << 40;
        let steps = terabyte / STEP_BYTES;
        let took = pause_after(STEP_BYTES, terabyte, week) * u32::try_from(steps).unwrap();
        assert!(took > week / 2 && took < week, "{took:?}");
        assert_eq!(pause_after(STEP_BYTES, 1 << 20, week), Duration::from_secs(4));
        assert_eq!(pause_after(0, 0, week), Duration::ZERO);
    }

    #[test]
    fn progress_is_in_hundredths_and_the_age_is_that_of_the_last_whole_round() {
        let mut progress = Progress { begun_at: UnixMillis(5_000), bytes: 300, ..Progress::default() };
        progress.next = Some((ReplicaId(1), MailboxId([1; 16])));
        let status = progress.status(UnixMillis(9_000), 1_000);
        assert_eq!((status.percent, status.age_s), (30, None));
        assert_eq!(progress.status(UnixMillis(9_000), 100).percent, 99);
        progress.next = None;
        progress.last = Some((UnixMillis(5_000), UnixMillis(9_000)));
        let status = progress.status(UnixMillis(65_000), 1_000);
        assert_eq!((status.percent, status.age_s), (100, Some(60)));
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let kept = Progress { next: Some((ReplicaId(7), MailboxId([9; 16]))), rows: 3, ..Progress::default() };
        let text = serde_json::to_vec(&kept).unwrap();
        assert_eq!(serde_json::from_slice::<Progress>(&text).unwrap(), kept);
    }
}
