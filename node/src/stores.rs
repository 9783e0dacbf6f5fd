//! The stores on disk, below a node's data directory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailraft_disk::marker::{self, RowSums};
use mailraft_disk::{DiskLog, DiskRows, give_back_freed_memory};
use mailraft_server::{OpenStores, RowsBounds, Stores};
use mailraft_storage::ClusterId;
use mailraft_storage::summed::Missing;

/// Opens `rows/` and `log/`.
pub struct OnDisk;

impl OpenStores for OnDisk {
    fn open(&self, data_dir: &Path, cluster: ClusterId, rows: RowsBounds) -> Result<Stores, String> {
        let missing = match marker::check(data_dir, cluster).map_err(|e| e.to_string())? {
            RowSums::NotYet => Missing::Make,
            RowSums::Made => Missing::Damaged,
        };
        let rows = Arc::new(open_rows(&data_dir.join("rows"), cluster, rows)?);
        let log = DiskLog::open(&data_dir.join("log")).map_err(|e| e.to_string())?;
        let measured = Arc::clone(&rows);
        let rows_memory = Arc::new(move || measured.memory_bytes());
        Ok(Stores { log: Arc::new(log), rows, missing, rows_memory, give_back_freed: give_back_freed_memory })
    }

    fn sums_are_made(&self, data_dir: &Path, cluster: ClusterId) -> Result<(), String> {
        marker::sums_are_made(data_dir, cluster).map_err(|e| e.to_string())
    }
}

/// A process that was just killed may hold its lock a moment longer than it lives.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn open_rows(
    dir: &Path,
    cluster: ClusterId,
    RowsBounds { files, memory_bytes }: RowsBounds,
) -> Result<DiskRows, String> {
    let begun = Instant::now();
    loop {
        match DiskRows::open_within(dir, cluster, files, memory_bytes) {
            Ok(rows) => return Ok(rows),
            Err(e) => {
                let said = e.to_string();
                if !said.contains("another process has it open") || begun.elapsed() > LOCK_WAIT_MAX {
                    return Err(said);
                }
                std::thread::sleep(LOCK_PAUSE);
            }
        }
    }
}
