//! Directories that the first version wrote, opened for ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailraft_disk::{DiskLog, DiskRows};
use mailraft_storage::log::{InstallMark, Log, LogBatch, LogState, LogWrite};
use mailraft_storage::rows::{Applied, Rows, RowsProof};
use mailraft_storage::seal::Key;
use mailraft_storage::summed::Missing;
use mailraft_storage::sums::SumKey;
use mailraft_storage::{IncarnationMark, Index, LogPosition, MailboxId, ReplicaId, SummedRows, Table, Term};
use raft::eraftpb::HardState;

use crate::{CLUSTER, R, append, copy, entries, put, row};

/// A copy of a kept directory. Only one that is not there is made, and only with `UPDATE_TESTDATA=1`: what
/// stands in one never changes.
fn kept(name: &str, make: impl FnOnce(&Path)) -> tempfile::TempDir {
    let kept: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name);
    if !kept.exists() && std::env::var_os("UPDATE_TESTDATA").is_some_and(|v| v == "1") {
        let made = tempfile::tempdir().unwrap();
        make(made.path());
        copy(made.path(), &kept);
        // RocksDB's diary, and what is empty, are no data.
        for file in fs::read_dir(&kept).unwrap().map(|f| f.unwrap()) {
            if file.file_name().to_string_lossy().starts_with("LOG") || file.metadata().unwrap().len() == 0 {
                fs::remove_file(file.path()).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(&kept, copied.path());
    copied
}

#[test]
fn rows_of_the_first_version_are_read() {
    let value = |table: Table| vec![table.number(); if table == Table::Chunks { 9_000 } else { 30 }];
    // Members, sums, repeats, regions, keys of domains, modes and most of the queue came later; the store writes Applied itself.
    let later = [
        Table::Applied,
        Table::Members,
        Table::Sums,
        Table::Repeats,
        Table::Regions,
        Table::DomainKeys,
        Table::Mode,
        Table::QueueKeys,
        Table::QueueRecipients,
        Table::QueuedDeliveries,
        Table::QueueFloors,
    ];
    let first = || Table::ALL.into_iter().filter(|t| !later.contains(t));
    let dir = kept("rows", |dir| {
        let rows = DiskRows::open(dir, CLUSTER).unwrap();
        put(&rows, 7, &first().map(|t| (row(t, 1), value(t))).collect::<Vec<_>>()).unwrap();
        rows.flush().unwrap();
    });
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    assert_eq!(rows.applied(R).unwrap(), Some(Applied { index: Index(7), ..Applied::default() }));
    let read = rows.view(R).unwrap().unwrap().rows(None, 100).unwrap();
    assert_eq!(read.len(), first().count());
    for table in first() {
        assert_eq!(rows.get(R, &row(table, 1)).unwrap().as_deref(), Some(value(table).as_slice()), "{table:?}");
    }
    // They get their sums as they are.
    let mut made = 0;
    let key = SumKey::derived_from(&Key::from_bytes([3; 32]));
    let rows = SummedRows::open(Arc::new(rows), key, Missing::Make, |_, rows| made += rows).unwrap();
    let read = rows.scrub(Some((R, MailboxId::PARTITION)), u64::MAX).unwrap();
    assert_eq!((made, read.rows, rows.take_news()), (first().count() as u64, first().count() as u64, Vec::new()));
}

#[test]
fn logs_of_the_first_version_are_read() {
    let mark = Applied { index: Index(90), term: Term(2), voters: vec![R], ..Applied::default() };
    let other = ReplicaId(2);
    let dir = kept("log", |dir| {
        let log = DiskLog::open(dir).unwrap();
        append(&log, 1, 1, 9);
        let compact = LogWrite {
            replica: R,
            compact: Some(LogPosition { index: Index(4), term: Term(1) }),
            ..LogWrite::default()
        };
        let reset = LogWrite {
            replica: other,
            reset: Some(LogPosition { index: Index(80), term: Term(2) }),
            ..LogWrite::default()
        };
        let begun = Some(InstallMark::Begun(mark.clone()));
        log.write_synced(2, &LogBatch { writes: vec![compact, LogWrite { mark: begun, ..reset }] }).unwrap();
    });
    let log = DiskLog::open(dir.path()).unwrap();
    assert_eq!((log.newest_batch(), log.replicas().unwrap()), (2, vec![R, other]));
    let hard_state = HardState { term: 1, ..Default::default() };
    let first = LogState {
        hard_state,
        cut: LogPosition { index: Index(4), term: Term(1) },
        last: Index(9),
        installing: None,
        ahead: None,
        incarnation: IncarnationMark::default(),
    };
    assert_eq!(log.state(R).unwrap(), Some(first));
    assert_eq!(log.entries(R, Index(5), Index(10), usize::MAX).unwrap(), entries(5, 9));
    let second = LogState {
        cut: LogPosition { index: Index(80), term: Term(2) },
        last: Index(80),
        installing: Some(mark),
        ..LogState::default()
    };
    assert_eq!(log.state(other).unwrap(), Some(second));
}
