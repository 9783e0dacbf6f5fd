//! The stores on disk, below a node's data directory.

use std::path::Path;
use std::sync::Arc;

use mailraft_disk::{DiskLog, DiskRows, marker};
use mailraft_server::{OpenStores, Stores};
use mailraft_storage::ClusterId;

/// Opens `rows/` and `log/`.
pub struct OnDisk;

impl OpenStores for OnDisk {
    fn open(&self, data_dir: &Path, cluster: ClusterId) -> Result<Stores, String> {
        marker::check(data_dir, cluster).map_err(|e| e.to_string())?;
        let rows = DiskRows::open(&data_dir.join("rows"), cluster).map_err(|e| e.to_string())?;
        let log = DiskLog::open(&data_dir.join("log")).map_err(|e| e.to_string())?;
        Ok(Stores { log: Arc::new(log), rows: Arc::new(rows) })
    }
}
