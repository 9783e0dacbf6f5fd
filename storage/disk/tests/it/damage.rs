//! Damage on disk is said in a sentence or heals; it never panics, never gives other bytes than were written, and never
//! takes anything away from the log without a word.

use std::fs;
use std::path::{Path, PathBuf};

use mailraft_disk::{DiskLog, DiskRows};
use mailraft_storage::log::Log;
use mailraft_storage::rows::Rows;
use mailraft_storage::{Index, StoreError, Table};

use crate::{CLUSTER, R, append, copy, entries, put, row};

/// How often the bytes of one file are changed.
const PLACES: usize = 24;

/// Copies of a directory, each with one byte of one file changed.
fn spoilt(dir: &Path, file: &str, mut look: impl FnMut(&Path, usize)) {
    let length = fs::metadata(dir.join(file)).unwrap().len() as usize;
    for place in 0..PLACES.min(length) {
        let at = place * (length - 1) / (PLACES - 1).max(1);
        let copied = tempfile::tempdir().unwrap();
        copy(dir, copied.path());
        let mut bytes = fs::read(copied.path().join(file)).unwrap();
        bytes[at] ^= 0x10;
        fs::write(copied.path().join(file), bytes).unwrap();
        look(copied.path(), at);
    }
}

fn files(dir: &Path, named: impl Fn(&str) -> bool) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|name| named(name)).collect()
}

#[test]
fn a_changed_byte_in_the_rows_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let values = |n: u8| [(row(Table::Folders, n), vec![n; 200]), (row(Table::Chunks, n), vec![n; 9_000])];
    {
        let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
        for n in 1..=20 {
            put(&rows, n.into(), &values(n)).unwrap();
        }
        rows.flush().unwrap();
    }
    let (mut said, mut healed) = (0, 0);
    let kinds = |name: &str| {
        name.ends_with(".sst") || name.ends_with(".blob") || name.starts_with("MANIFEST") || name == "CURRENT"
    };
    let names = files(dir.path(), kinds);
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        spoilt(dir.path(), &name, |copied, at| {
            let read = || -> Result<bool, StoreError> {
                let rows = DiskRows::open(copied, CLUSTER)?;
                // A record at the end of MANIFEST may be taken for torn: then nothing of the flush is there, and the
                // core sees rows that end before their log begins.
                let there = rows.applied(R)?.is_some();
                for (key, value) in (1..=20).flat_map(values) {
                    let found = rows.get(R, &key)?;
                    assert!(found.as_deref() == there.then_some(value.as_slice()), "{name} at {at}: other bytes");
                }
                Ok(there)
            };
            match read() {
                Ok(true) => healed += 1,
                Ok(false) => assert!(name.starts_with("MANIFEST"), "{name} at {at}: the rows are gone without a word"),
                Err(e) => {
                    assert!(e.to_string().len() > 20, "{e}");
                    said += 1;
                }
            }
        });
    }
    assert!(said > 50, "{said} said, {healed} healed");
}

#[test]
fn a_manifest_that_ends_with_a_gap_after_a_power_cut_opens_with_all_that_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = |dir: &Path| files(dir, |name| name.starts_with("MANIFEST")).pop().unwrap();
    let (before, after) = {
        let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
        put(&rows, 1, &[(row(Table::Folders, 1), vec![1; 200])]).unwrap();
        rows.flush().unwrap();
        let before = fs::read(dir.path().join(manifest(dir.path()))).unwrap();
        put(&rows, 2, &[(row(Table::Folders, 2), vec![2; 200]), (row(Table::Chunks, 2), vec![2; 9_000])]).unwrap();
        rows.flush().unwrap();
        // As it was written last, before the next start makes a new one.
        copy(dir.path(), &dir.path().join("copied"));
        (before, fs::read(dir.path().join(manifest(dir.path()))).unwrap())
    };
    let copied = dir.path().join("copied");
    assert!(after.starts_with(&before) && after.len() > before.len() + 16);
    // Some bytes of what was written last never came; what is behind them did.
    for gap in (before.len()..after.len()).step_by(8) {
        let mut torn = after.clone();
        torn[gap..(gap + 8).min(after.len())].fill(0);
        if torn == after {
            continue;
        }
        let tried = tempfile::tempdir().unwrap();
        copy(&copied, tried.path());
        fs::write(tried.path().join(manifest(tried.path())), torn).unwrap();
        let rows = DiskRows::open(tried.path(), CLUSTER).unwrap_or_else(|e| panic!("a gap at {gap}: {e}"));
        assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(1), "a gap at {gap}");
        assert!(rows.get(R, &row(Table::Folders, 1)).unwrap().is_some(), "a gap at {gap}");
    }
}

/// What a log with these entries has, or that it is refused.
fn read_log(dir: &Path, last: u64) -> Result<(), StoreError> {
    let log = DiskLog::open(dir)?;
    let state = log.state(R)?.ok_or_else(|| StoreError::damaged("replica", "it is gone"))?;
    let read = log.entries(R, Index(1), Index(state.last.0 + 1), usize::MAX)?;
    assert_eq!((read, log.newest_batch()), (entries(1, last), last / 4));
    assert_eq!((state.hard_state.term, state.hard_state.commit), (1, last - 4));
    Ok(())
}

#[test]
fn a_log_that_ends_before_what_its_witness_names_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = DiskLog::open(dir.path()).unwrap();
        append(&log, 1, 1, 4);
        copy(dir.path(), &dir.path().join("before"));
        append(&log, 2, 5, 8);
        copy(dir.path(), &dir.path().join("after"));
    }
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    read_log(&after, 8).unwrap();
    let mut cases = Vec::new();
    for log in files(&before, |name| name.ends_with(".raftlog")) {
        // The older log under the newer witness, half of the newer one, none at all, and a log whose witness is gone.
        for (case, content) in [Some(before.clone()), Some(after.clone()), None].into_iter().enumerate() {
            let copied = tempfile::tempdir().unwrap();
            copy(&after, copied.path());
            match content {
                Some(from) => {
                    let mut bytes = fs::read(from.join(&log)).unwrap();
                    bytes.truncate(if case == 1 { 1_000 } else { bytes.len() });
                    fs::write(copied.path().join(&log), bytes).unwrap();
                }
                None => fs::remove_file(copied.path().join(&log)).unwrap(),
            }
            cases.push(copied);
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(&after, copied.path());
    fs::remove_file(copied.path().join("witness")).unwrap();
    cases.push(copied);
    for case in cases {
        for _ in 0..2 {
            let error = read_log(case.path(), 8).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("\"A damaged node\" in docs/OPERATIONS.md"), "{error}");
        }
    }
}

#[test]
fn a_file_of_the_rows_that_is_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    {
        let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
        put(&rows, 1, &[(row(Table::Folders, 1), vec![1])]).unwrap();
        rows.flush().unwrap();
    }
    for name in files(dir.path(), |name| name.ends_with(".sst")) {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        fs::remove_file(copied.path().join(&name)).unwrap();
        let error = DiskRows::open(copied.path(), CLUSTER).err().unwrap().to_string();
        assert!(error.contains(&name) && error.contains("("), "{error}");
    }
}

#[test]
fn a_failed_flush_is_an_error_and_so_is_every_write_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let data: PathBuf = dir.path().join("rows");
    let rows = DiskRows::open(&data, CLUSTER).unwrap();
    put(&rows, 1, &[(row(Table::Folders, 1), vec![1])]).unwrap();
    fs::remove_dir_all(&data).unwrap();
    let error = rows.flush().unwrap_err().to_string();
    assert!(error.contains("flushing"), "{error}");
    assert!(rows.flush().is_err(), "it is not forgotten");
    put(&rows, 2, &[]).expect_err("a write after a failed flush");
    assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(1));
}

#[test]
fn a_flush_that_nothing_waits_for_fails_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let data: PathBuf = dir.path().join("rows");
    let rows = DiskRows::open(&data, CLUSTER).unwrap();
    put(&rows, 1, &[(row(Table::Folders, 1), vec![1])]).unwrap();
    fs::remove_dir_all(&data).unwrap();
    // More than the memtables hold: RocksDB begins to flush by itself.
    let refused = (2..400).find_map(|n| put(&rows, n, &[(row(Table::Folders, 2), vec![2; 1 << 20])]).err());
    let error = refused.expect("an error").to_string();
    assert!(error.contains("background") || error.contains("writing rows"), "{error}");
}

#[test]
fn a_log_without_its_witness_and_one_of_its_files_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = DiskLog::open_sized(dir.path(), 2_048, 1 << 30).unwrap();
        for number in 1..=40 {
            append(&log, number, 4 * number - 3, 4 * number);
        }
    }
    let mut logs = files(dir.path(), |name| name.ends_with(".raftlog"));
    logs.sort();
    assert!(logs.len() > 3, "{logs:?}");
    let copied = tempfile::tempdir().unwrap();
    copy(dir.path(), copied.path());
    let lost = [logs[1].as_str(), "witness"];
    lost.iter().for_each(|name: &&str| fs::remove_file(copied.path().join(name)).unwrap());
    let held = |dir: &Path| {
        let mut held = files(dir, |name| name.ends_with(".raftlog"));
        held.sort();
        held.into_iter().map(|name| (fs::read(dir.join(&name)).unwrap(), name)).collect::<Vec<_>>()
    };
    let before = held(copied.path());
    let error = DiskLog::open(copied.path()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains(&logs[1]), "{error}");
    assert!(held(copied.path()) == before, "files were changed or deleted");
    // Whoever finds both again puts them back.
    lost.iter().for_each(|name| assert!(fs::copy(dir.path().join(name), copied.path().join(name)).unwrap() > 0));
    read_log(copied.path(), 160).unwrap();
}
