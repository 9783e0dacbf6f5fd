//! Whether a sync reaches the disk, shown by cutting the power: numbered records are written and synced, and each
//! number is printed only then. Whoever watches from another machine knows what must be there afterwards.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::failed::Failed;
use crate::output::tell;

const FILE: &str = "power-cut-test";
/// One record, in bytes: a block of most disks.
const RECORD_BYTES: usize = 4 << 10;
/// The test ends by itself after this many records (1 GiB).
const RECORDS_MAX: u64 = 262_144;

/// Writes records until the power is cut.
///
/// # Errors
/// If the file can't be written.
pub fn write(data_dir: &Path) -> Result<ExitCode, Failed> {
    let path = data_dir.join(FILE);
    let failed = |e: std::io::Error| Failed::because(format!("{} can't be written ({e})", path.display()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    tell!(
        "Cut this machine's power while numbers run, with the last one seen on another machine. Then, started again:"
    );
    tell!("  mailraft doctor --config FILE --power-cut-check LAST");
    for number in 1..=RECORDS_MAX {
        file.write_all(&record(number)).and_then(|()| file.sync_data()).map_err(failed)?;
        tell!("{number}");
    }
    tell!("no power was cut: begin again");
    fs::remove_file(&path).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Says whether every record up to the last number seen is there.
///
/// # Errors
/// If there is no file to look at.
pub fn check(data_dir: &Path, seen: u64) -> Result<ExitCode, Failed> {
    let path = data_dir.join(FILE);
    let failed = |e: std::io::Error| {
        Failed::because(format!(
            "{} can't be read ({e}): write it first with mailraft doctor --power-cut-write",
            path.display()
        ))
    };
    let whole = whole_records(&mut BufReader::new(File::open(&path).map_err(failed)?)).map_err(failed)?;
    if whole < seen {
        tell!("BAD: record {seen} was synced and only {whole} are there: this disk loses what it said it kept");
        tell!("switch its write cache off, or use another disk; the file stays for you to look at");
        return Ok(ExitCode::FAILURE);
    }
    fs::remove_file(&path).map_err(failed)?;
    tell!("good: all {seen} records that were synced are there");
    Ok(ExitCode::SUCCESS)
}

fn record(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(RECORD_BYTES / size_of::<u64>())
}

/// How many records stand at the beginning, each with its own number.
fn whole_records(from: &mut impl Read) -> std::io::Result<u64> {
    let mut bytes = vec![0; RECORD_BYTES];
    for number in 1..=RECORDS_MAX {
        match from.read_exact(&mut bytes) {
            Ok(()) if bytes == record(number) => {}
            Ok(()) => return Ok(number - 1),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(number - 1),
            Err(error) => return Err(error),
        }
    }
    Ok(RECORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_up_to_the_first_that_is_torn_or_missing() {
        let whole: Vec<u8> = (1..=3).flat_map(record).collect();
        let count = |bytes: &[u8]| whole_records(&mut &bytes[..]).ok();
        assert_eq!(count(&whole), Some(3));
        assert_eq!(count(&whole[..whole.len() - 1]), Some(2));
        let mut torn = whole.clone();
        torn[RECORD_BYTES + 512..2 * RECORD_BYTES].fill(0);
        assert_eq!(count(&torn), Some(1));
        assert_eq!(count(&[]), Some(0));
    }

    #[test]
    fn a_disk_that_lost_records_is_bad_and_one_that_did_not_is_good() {
        let dir = std::env::temp_dir().join(format!("mailraft-power-cut-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap_or_default();
        let write = |records: u64| fs::write(dir.join(FILE), (1..=records).flat_map(record).collect::<Vec<_>>());
        assert!(write(4).is_ok());
        assert_eq!(check(&dir, 5).ok(), Some(ExitCode::FAILURE));
        assert_eq!(check(&dir, 4).ok(), Some(ExitCode::SUCCESS));
        assert!(check(&dir, 4).is_err_and(|e| e.sentence.contains("--power-cut-write")), "the file is gone");
        fs::remove_dir(&dir).unwrap_or_default();
    }
}
