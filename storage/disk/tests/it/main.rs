//! Stores on disk do what those in memory do, and survive what a process does not.
#![allow(clippy::unwrap_used, missing_docs)]

mod audited;
mod damage;
mod faults;
mod kept;
mod memory;
mod power;
mod rows_faults;
mod sums;

use std::path::Path;

use bytes::Bytes;
use mailraft_disk::marker::RowSums;
use mailraft_disk::{DiskLog, DiskRows, fdatasync_latency, free_bytes, marker};
use mailraft_storage::log::{Log, LogBatch, LogWrite};
use mailraft_storage::memory::conformance;
use mailraft_storage::rows::{Applied, ReplicaBatch, Rows};
use mailraft_storage::{ClusterId, Index, MailboxId, ReplicaId, RowBatch, RowKey, StoreError, Table};
use raft::eraftpb::{Entry, HardState};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const R: ReplicaId = ReplicaId(1);

/// A number that the environment sets for a run longer than that of the tests.
fn of_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

fn row(table: Table, n: u8) -> RowKey {
    RowKey::new(MailboxId([1; 16]), table, [n; 20])
}

fn put(rows: &DiskRows, index: u64, puts: &[(RowKey, Vec<u8>)]) -> Result<(), StoreError> {
    let mut batch = RowBatch::default();
    for (key, value) in puts {
        batch.put(key.clone(), value.clone());
    }
    rows.write(&[ReplicaBatch { replica: R, batch, applied: Applied { index: Index(index), ..Applied::default() } }])
}

fn entries(from: u64, to: u64) -> Vec<Entry> {
    (from..=to)
        .map(|index| Entry { index, term: 1, data: vec![index as u8; 300].into(), ..Default::default() })
        .collect()
}

fn append(log: &dyn Log, number: u64, from: u64, to: u64) {
    let hard_state = Some(HardState { term: 1, commit: from - 1, ..Default::default() });
    let write = LogWrite { replica: R, append: entries(from, to), hard_state, ..LogWrite::default() };
    log.write_synced(number, &LogBatch { writes: vec![write] }).unwrap();
}

/// A copy as a crash at this moment would leave it. RocksDB may change files meanwhile: then once more.
fn copy(from: &Path, to: &Path) {
    let names = || {
        let files = std::fs::read_dir(from).unwrap().map(|f| f.unwrap()).filter(|f| f.file_name() != "LOCK");
        let mut names: Vec<_> = files.filter(|f| f.path().is_file()).map(|f| f.file_name()).collect();
        names.sort();
        names
    };
    loop {
        std::fs::create_dir_all(to).unwrap();
        let before = names();
        if before.iter().all(|name| std::fs::copy(from.join(name), to.join(name)).is_ok()) && names() == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

#[test]
fn rows_on_disk_conform_and_open_again() {
    let dir = tempfile::tempdir().unwrap();
    conformance::rows(&DiskRows::open(dir.path(), CLUSTER).unwrap());
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    assert_eq!(rows.replicas().unwrap(), [R]);
    assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(3));
    assert_eq!(rows.flushed().unwrap(), [(R, Index(3))]);
}

#[test]
fn logs_on_disk_conform_and_open_again() {
    let dir = tempfile::tempdir().unwrap();
    conformance::log(&DiskLog::open(dir.path()).unwrap());
    conformance::log_reopened(&DiskLog::open(dir.path()).unwrap());
}

#[test]
fn rows_on_disk_agree_with_rows_in_memory() {
    for seed in 1..=2 {
        let dir = tempfile::tempdir().unwrap();
        conformance::rows_agree(seed, 400, &mut |store| {
            drop(store);
            Box::new(DiskRows::open(dir.path(), CLUSTER).unwrap())
        });
    }
}

#[test]
fn logs_on_disk_agree_with_logs_in_memory_though_files_are_given_back() {
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        conformance::log_agrees(seed, 800, &mut |store| {
            drop(store);
            Box::new(DiskLog::open_sized(dir.path(), 16 << 10, 48 << 10).unwrap())
        });
        let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 1 << 20, "{bytes} bytes: nothing was given back");
    }
}

#[test]
fn a_copy_of_an_open_store_has_what_was_flushed_and_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows = DiskRows::open(&at("rows"), CLUSTER).unwrap();
    let change = |n: u8| [(row(Table::Folders, n), vec![n]), (row(Table::Chunks, n), vec![n; 9_000])];
    put(&rows, 1, &change(1)).unwrap();
    assert_eq!(rows.flush().unwrap(), [(R, Index(1))]);
    put(&rows, 2, &change(2)).unwrap();
    assert_eq!(rows.flushed().unwrap(), [(R, Index(1))], "what is only in memory is not flushed");
    assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(2));
    let log = DiskLog::open(&at("log")).unwrap();
    append(&log, 1, 1, 5);
    copy(&at("rows"), &at("rows-after"));
    copy(&at("log"), &at("log-after"));

    let rows = DiskRows::open(&at("rows-after"), CLUSTER).unwrap();
    assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(1));
    assert_eq!(rows.flushed().unwrap(), [(R, Index(1))]);
    for table in [Table::Folders, Table::Chunks] {
        assert!(rows.get(R, &row(table, 1)).unwrap().is_some());
        assert!(rows.get(R, &row(table, 2)).unwrap().is_none());
    }
    let log = DiskLog::open(&at("log-after")).unwrap();
    assert_eq!((log.state(R).unwrap().unwrap().last, log.newest_batch()), (Index(5), 1));
    assert_eq!(log.entries(R, Index(1), Index(6), usize::MAX).unwrap(), entries(1, 5));
}

#[test]
fn a_crash_at_any_step_of_replacing_a_replica_leaves_its_old_rows_or_its_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows = DiskRows::open(&at("rows"), CLUSTER).unwrap();
    let node = RowKey::partition(Table::Nodes, [1]);
    let old = [(row(Table::Folders, 1), vec![1]), (row(Table::Chunks, 1), vec![1; 9_000]), (node.clone(), vec![1])];
    put(&rows, 1, &old).unwrap();
    rows.flush().unwrap();
    // What a start finds: position and rows, in key order.
    let found = |name: &str| {
        let rows = DiskRows::open(&at(name), CLUSTER).unwrap();
        let view = rows.view(R).unwrap().unwrap();
        let all = view.rows(None, 1_000).unwrap();
        assert_eq!((rows.replicas().unwrap(), rows.flushed().unwrap()), (vec![R], vec![(R, view.applied().index)]));
        (view.applied().index, all.into_iter().map(|(_, value)| value[0]).collect::<Vec<_>>())
    };
    // More than is written at once, so that parts of it are there before the end; twice, back to the first prefix.
    for (round, value) in [(1, 2), (2, 3)] {
        let applied = Applied { index: Index(round * 10), ..Applied::default() };
        let mut step = 0;
        let mut new = (0..4).map(|n| {
            // What stands in memory is flushed whenever RocksDB likes.
            rows.flush().unwrap();
            step += 1;
            copy(&at("rows"), &at(&format!("{round}-{step}")));
            Ok((row(Table::Chunks, n), Bytes::from(vec![value; 3 << 20])))
        });
        rows.replace(R, &applied, &mut new).unwrap();
        copy(&at("rows"), &at(&format!("{round}-after")));
        let before = if round == 1 { (Index(1), vec![1, 1, 1]) } else { (Index(10), vec![2; 4]) };
        for step in 1..=4 {
            assert_eq!(found(&format!("{round}-{step}")), before, "round {round}, step {step}");
        }
        assert_eq!(found(&format!("{round}-after")), (Index(round * 10), vec![value; 4]));
    }
    let torn = [Ok((row(Table::Folders, 2), Bytes::from_static(b"new"))), Err(StoreError::damaged("snapshot", "torn"))];
    let applied = Applied { index: Index(90), ..Applied::default() };
    assert!(rows.replace(R, &applied, &mut torn.into_iter()).is_err());
    rows.replace(R, &applied, &mut [Ok((row(Table::Folders, 3), Bytes::from_static(b"w")))].into_iter()).unwrap();
    assert_eq!(rows.view(R).unwrap().unwrap().rows(None, 10).unwrap().len(), 1, "nothing of the one that failed");
}

#[test]
fn a_replica_that_was_removed_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    put(&rows, 1, &[(row(Table::Folders, 1), vec![1]), (row(Table::Chunks, 1), vec![1; 9_000])]).unwrap();
    rows.flush().unwrap();
    rows.remove(R).unwrap();
    rows.remove(R).unwrap();
    assert!(rows.replicas().unwrap().is_empty() && rows.view(R).unwrap().is_none());
    drop(rows);
    assert!(DiskRows::open(dir.path(), CLUSTER).unwrap().replicas().unwrap().is_empty());
}

#[test]
fn a_view_outlives_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    put(&rows, 1, &[(row(Table::Folders, 1), vec![1])]).unwrap();
    let view = rows.view(R).unwrap().unwrap();
    drop(rows);
    let read = std::thread::spawn(move || view.rows(None, 10)).join().unwrap().unwrap();
    assert_eq!(read, [(row(Table::Folders, 1), Bytes::from_static(&[1]))]);
}

#[test]
fn a_store_that_is_open_elsewhere_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, log) = (dir.path().join("rows"), dir.path().join("log"));
    let _open = (DiskRows::open(&rows, CLUSTER).unwrap(), DiskLog::open(&log).unwrap());
    let errors = [DiskRows::open(&rows, CLUSTER).err().unwrap(), DiskLog::open(&log).err().unwrap()];
    for error in errors.map(|e| e.to_string()) {
        assert!(error.contains("another process has it open: stop that first"), "{error}");
    }
}

#[test]
fn a_directory_of_another_cluster_a_later_version_or_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(DiskRows::open(&data, CLUSTER).unwrap());
    drop(DiskRows::open(&data, CLUSTER).unwrap());
    let other = DiskRows::open(&data, ClusterId([2; 16])).err().unwrap().to_string();
    assert!(
        other.contains("belongs to cluster 0101") && other.contains("name the right directory or cluster"),
        "{other}"
    );
    let write = |text: &str| std::fs::write(data.join("MAILRAFT"), text).unwrap();
    write("mailraft data\nformat 9\n");
    let newer = DiskRows::open(&data, CLUSTER).err().unwrap();
    assert!(matches!(newer, StoreError::Newer { found: 9, known: marker::FORMAT, .. }), "{newer}");
    for text in ["", "format one\n", "format 1\ncluster 01\n"] {
        write(text);
        assert!(DiskRows::open(&data, CLUSTER).err().unwrap().to_string().contains("can't be read"), "{text}");
    }
    assert!(marker::check(dir.path(), CLUSTER).unwrap_err().to_string().contains("no marker"));
    let begun = dir.path().join("begun");
    std::fs::create_dir(&begun).unwrap();
    std::fs::write(begun.join("MAILRAFT.new"), "mailr").unwrap();
    DiskRows::open(&begun, CLUSTER).expect("a crash while the marker was written does no harm");
    // From the first start of a version that makes them, rows have their sums, and no older version opens them.
    for before in [1, 2] {
        std::fs::write(begun.join("MAILRAFT"), format!("format {before}\ncluster {CLUSTER}\n")).unwrap();
        assert_eq!(marker::check(&begun, CLUSTER).unwrap(), RowSums::NotYet);
    }
    marker::sums_are_made(&begun, CLUSTER).unwrap();
    assert_eq!(marker::check(&begun, CLUSTER).unwrap(), RowSums::Made);
}

#[test]
#[should_panic(expected = "applies 1 after 1")]
fn an_entry_applied_twice_stops_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    put(&rows, 1, &[]).unwrap();
    put(&rows, 1, &[]).unwrap();
}

#[test]
fn the_disk_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(fdatasync_latency(dir.path(), 3).unwrap().len(), 3);
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    assert!(free_bytes(dir.path()).unwrap() > 0);
    assert!(free_bytes(&dir.path().join("nowhere")).is_err());
}
