//! What this disk can do, for benchmarks and admission.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an fdatasync after 4 KiB appended takes, that many times.
///
/// # Errors
/// If the directory can't be written.
pub fn fdatasync_latency(dir: &Path, rounds: usize) -> io::Result<Vec<Duration>> {
    let path = dir.join("fdatasync-probe");
    let mut file = File::create(&path)?;
    let mut taken = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        taken.push(begun.elapsed());
    }
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(taken)
}

/// Bytes that are free for this process on the directory's file system.
///
/// # Errors
/// Those of the system.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail * stat.f_frsize)
}
