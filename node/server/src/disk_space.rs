//! How much room the disk has. Below a low-water mark this node takes no new mail: what is left is for reading,
//! deleting, Raft and snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mailraft_driver::Cluster;
use serde::{Deserialize, Serialize};

use crate::config::Limits;

/// The disk is asked this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A node takes mail again when this much more than the low-water mark is free, in hundredths of the mark.
const RECOVERED_PERCENT: u64 = 110;

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Bytes free for this node's user.
    pub free_bytes: u64,
    /// Bytes of the disk.
    pub total_bytes: u64,
    /// With less than this free, no new mail is taken.
    pub low_water_bytes: u64,
    /// None is taken now.
    pub low: bool,
}

impl DiskStatus {
    /// What follows from these figures, if it was `low` before.
    pub fn judge(free_bytes: u64, total_bytes: u64, limits: &Limits, low: bool) -> Self {
        let share = u128::from(total_bytes) * u128::from(limits.low_water_percent) / 100;
        let low_water_bytes = u64::try_from(share).unwrap_or(u64::MAX).max(limits.low_water_bytes);
        let enough = match low {
            true => {
                u64::try_from(u128::from(low_water_bytes) * u128::from(RECOVERED_PERCENT) / 100).unwrap_or(u64::MAX)
            }
            false => low_water_bytes,
        };
        DiskStatus { free_bytes, total_bytes, low_water_bytes, low: free_bytes < enough }
    }
}

/// What is known of the disk; clones share it.
#[derive(Clone)]
pub struct DiskSpace {
    directory: PathBuf,
    known: Arc<Known>,
}

#[derive(Default)]
struct Known {
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
    low_water_bytes: AtomicU64,
    low: std::sync::atomic::AtomicBool,
}

impl DiskSpace {
    /// Of the disk that a directory is on; looked at once.
    pub fn of(directory: &Path, limits: &Limits) -> Self {
        let space = DiskSpace { directory: directory.to_owned(), known: Arc::default() };
        let now = space.look(limits);
        if now.low {
            say_low(&now);
        }
        space
    }

    /// As it was when it was last looked at.
    pub fn status(&self) -> DiskStatus {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        DiskStatus {
            free_bytes: read(&self.known.free_bytes),
            total_bytes: read(&self.known.total_bytes),
            low_water_bytes: read(&self.known.low_water_bytes),
            low: self.is_low(),
        }
    }

    /// Whether no new mail is to be taken.
    pub fn is_low(&self) -> bool {
        self.known.low.load(Ordering::Relaxed)
    }

    /// Looks again and again for ever. While room is short this node hands its leads over.
    pub async fn watch(self, cluster: Cluster, limits: impl Fn() -> Limits) {
        let mut was_low = false;
        let mut pause = tokio::time::interval(LOOK_EVERY);
        loop {
            pause.tick().await;
            let now = self.look(&limits());
            if now.low == was_low {
                continue;
            }
            was_low = now.low;
            cluster.set_reluctant(now.low);
            match now.low {
                true => say_low(&now),
                false => {
                    tracing::info!(free_bytes = now.free_bytes, "there is room on the disk: new mail is taken again")
                }
            }
        }
    }

    fn look(&self, limits: &Limits) -> DiskStatus {
        let Ok(disk) = rustix::fs::statvfs(&self.directory) else { return self.status() };
        let (free, total) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
        let now = DiskStatus::judge(free, total, limits, self.is_low());
        self.known.free_bytes.store(now.free_bytes, Ordering::Relaxed);
        self.known.total_bytes.store(now.total_bytes, Ordering::Relaxed);
        self.known.low_water_bytes.store(now.low_water_bytes, Ordering::Relaxed);
        self.known.low.store(now.low, Ordering::Relaxed);
        ::metrics::gauge!("mailraft_disk_free_bytes").set(now.free_bytes as f64);
        ::metrics::gauge!("mailraft_disk_low").set(f64::from(u8::from(now.low)));
        now
    }
}

fn say_low(now: &DiskStatus) {
    tracing::error!(
        free_bytes = now.free_bytes,
        low_water_bytes = now.low_water_bytes,
        "the disk is nearly full: this node takes no new mail, and leads only what no other can, until there is room"
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    fn limits(percent: u64, bytes: u64) -> Limits {
        Limits {
            low_water_percent: percent,
            low_water_bytes: bytes,
            ..Config::parse(&crate::config::example()).unwrap().limits
        }
    }

    #[test]
    fn the_larger_mark_counts_and_a_tenth_more_ends_it() {
        const GIB: u64 = 1 << 30;
        let small = limits(5, 2 * GIB);
        let judge = |free, low| DiskStatus::judge(free, 100 * GIB, &small, low);
        assert_eq!(judge(10 * GIB, false).low_water_bytes, 5 * GIB);
        assert!(!judge(5 * GIB, false).low && judge(5 * GIB - 1, false).low);
        assert!(judge(5 * GIB, true).low && judge(5 * GIB + GIB / 4, true).low);
        assert!(!judge(5 * GIB + GIB / 2, true).low);
        let tiny = DiskStatus::judge(GIB, 3 * GIB, &small, false);
        assert!(tiny.low && tiny.low_water_bytes == 2 * GIB);
        assert!(!DiskStatus::judge(u64::MAX, u64::MAX, &small, true).low);
    }
}
