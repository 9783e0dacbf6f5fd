//! Both kinds of store, in memory and on disk, do the same; those on disk survive what a process does not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use bytes::Bytes;
use mailraft_disk::{DiskLog, DiskRows, marker};
use mailraft_storage::log::{Log, LogBatch, LogWrite};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::{ReplicaBatch, Rows, state_hash};
use mailraft_storage::{Applied, ClusterId, Index, MailboxId, ReplicaId, RowBatch, RowKey, StoreError, Table, Term};
use raft::eraftpb::{Entry, HardState};

const A: ReplicaId = ReplicaId(1);
const B: ReplicaId = ReplicaId(2);

fn key(mailbox: u8, table: Table, key: &[u8]) -> RowKey {
    RowKey::new(MailboxId([mailbox; 16]), table, key)
}

fn put(rows: &dyn Rows, replica: ReplicaId, index: u64, puts: &[(RowKey, &str)], deletes: &[RowKey]) {
    let mut batch = RowBatch::default();
    for (key, value) in puts {
        batch.put(key.clone(), value.as_bytes().to_vec());
    }
    batch.deletes = deletes.to_vec();
    let applied = Applied { index: Index(index), term: Term(1), ..Applied::default() };
    rows.write(&[ReplicaBatch { replica, batch, applied }]).unwrap();
}

fn rows_conform(rows: &dyn Rows) {
    let place = |n: u8| key(1, Table::Places, &[0, 0, 0, 1, 0, 0, 0, n]);
    put(rows, A, 1, &[(place(1), "a1"), (place(2), "a2"), (key(1, Table::Chunks, &[5; 20]), "chunk")], &[]);
    put(rows, B, 1, &[(place(1), "b1"), (key(2, Table::Places, &[1]), "other")], &[]);
    put(rows, A, 2, &[(place(3), "a3"), (place(2), "a2'")], &[place(1)]);
    assert_eq!(rows.get(A, &place(1)).unwrap(), None);
    assert_eq!(rows.get(B, &place(1)).unwrap(), Some(Bytes::from_static(b"b1")));
    assert_eq!(rows.get(A, &key(1, Table::Chunks, &[5; 20])).unwrap(), Some(Bytes::from_static(b"chunk")));
    let scanned = rows.scan(A, MailboxId([1; 16]), Table::Places, &[0, 0, 0, 1], &[], 10).unwrap();
    let values: Vec<&[u8]> = scanned.iter().map(|(_, v)| v.as_ref()).collect();
    assert_eq!(values, [b"a2'".as_slice(), b"a3"]);
    assert_eq!(scanned[0].0, [0, 0, 0, 1, 0, 0, 0, 2]);
    let later = rows.scan(A, MailboxId([1; 16]), Table::Places, &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 3], 10).unwrap();
    assert_eq!(later.len(), 1);
    assert!(rows.scan(A, MailboxId([1; 16]), Table::Places, &[0, 0, 0, 2], &[], 10).unwrap().is_empty());
    assert_eq!(rows.replicas().unwrap(), [A, B]);
    assert_eq!(rows.applied(A).unwrap().unwrap().index, Index(2));
    let view = rows.view(A).unwrap().unwrap();
    let before = state_hash(view.as_ref()).unwrap();
    put(rows, A, 3, &[(place(9), "later")], &[]);
    assert_eq!(state_hash(view.as_ref()).unwrap(), before, "a view does not change");
    assert_eq!(view.applied().index, Index(2));
    let all = view.rows(None, 100).unwrap();
    assert_eq!(all.len(), 3);
    assert!(all.windows(2).all(|w| w[0].0 < w[1].0));
    assert_eq!(view.rows(Some(&all[0].0), 1).unwrap()[0], all[1]);
    let applied = Applied { index: Index(50), term: Term(4), ..Applied::default() };
    rows.replace(B, &applied, &mut all.clone().into_iter().map(Ok)).unwrap();
    assert_eq!(state_hash(rows.view(B).unwrap().unwrap().as_ref()).unwrap(), before);
    assert_eq!(rows.get(B, &key(2, Table::Places, &[1])).unwrap(), None);
    assert!(rows.flushed().unwrap().contains(&(B, Index(50))));
    rows.remove(B).unwrap();
    assert_eq!(rows.replicas().unwrap(), [A]);
    assert!(rows.view(B).unwrap().is_none());
    assert_eq!(rows.flush().unwrap(), [(A, Index(3))]);
}

fn entries(from: u64, to: u64, term: u64) -> Vec<Entry> {
    (from..=to).map(|index| Entry { index, term, data: vec![index as u8; 100].into(), ..Default::default() }).collect()
}

fn write(replica: ReplicaId) -> LogWrite {
    LogWrite { replica, ..LogWrite::default() }
}

fn log_conforms(log: &dyn Log) {
    assert_eq!(log.state(A).unwrap(), None);
    let hard_state = Some(HardState { term: 1, commit: 1, ..Default::default() });
    let first = LogWrite { reset: Some((Index(1), Term(1))), hard_state, ..write(A) };
    log.write_synced(1, &LogBatch { writes: vec![first.clone(), LogWrite { replica: B, ..first }] }).unwrap();
    log.write_synced(2, &LogBatch { writes: vec![LogWrite { append: entries(2, 9, 1), ..write(A) }] }).unwrap();
    log.write_synced(3, &LogBatch { writes: vec![LogWrite { append: entries(6, 7, 2), ..write(A) }] }).unwrap();
    let state = log.state(A).unwrap().unwrap();
    assert_eq!((state.cut, state.last, state.hard_state.term), ((Index(1), Term(1)), Index(7), 1));
    let read = log.entries(A, Index(5), Index(8), usize::MAX).unwrap();
    assert_eq!(read.iter().map(|e| (e.index, e.term)).collect::<Vec<_>>(), [(5, 1), (6, 2), (7, 2)]);
    assert_eq!(log.entries(A, Index(5), Index(8), 1).unwrap().len(), 1);
    assert!(log.entries(A, Index(7), Index(9), usize::MAX).is_err() || log.entries(A, Index(8), Index(9), 1).is_err());
    log.write_synced(4, &LogBatch { writes: vec![LogWrite { compact: Some((Index(5), Term(1))), ..write(A) }] }).unwrap();
    assert_eq!(log.state(A).unwrap().unwrap().cut, (Index(5), Term(1)));
    assert!(log.entries(A, Index(5), Index(6), 1).is_err());
    let mark = Applied { index: Index(40), term: Term(3), ..Applied::default() };
    log.write_synced(5, &LogBatch { writes: vec![LogWrite { installing: Some(Some(mark.clone())), ..write(A) }] }).unwrap();
    assert_eq!(log.state(A).unwrap().unwrap().installing, Some(mark));
    let reset = LogWrite { reset: Some((Index(40), Term(3))), installing: Some(None), ..write(A) };
    log.write_synced(6, &LogBatch { writes: vec![reset] }).unwrap();
    let state = log.state(A).unwrap().unwrap();
    assert_eq!((state.cut, state.last, state.installing), ((Index(40), Term(3)), Index(40), None));
    log.write_synced(7, &LogBatch { writes: vec![LogWrite { append: entries(41, 42, 3), ..write(A) }] }).unwrap();
    assert_eq!(log.entries(A, Index(41), Index(43), usize::MAX).unwrap().len(), 2);
    assert_eq!(log.replicas().unwrap(), [A, B]);
    log.reclaim().unwrap();
}

#[test]
fn stores_in_memory_conform() {
    rows_conform(&MemoryRows::new());
    log_conforms(&MemoryLog::new());
}

#[test]
fn stores_on_disk_conform_and_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let (rows_dir, log_dir) = (dir.path().join("rows"), dir.path().join("log"));
    rows_conform(&DiskRows::open(&rows_dir).unwrap());
    log_conforms(&DiskLog::open(&log_dir).unwrap());
    let rows = DiskRows::open(&rows_dir).unwrap();
    assert_eq!(rows.applied(A).unwrap().unwrap().index, Index(3));
    let log = DiskLog::open(&log_dir).unwrap();
    assert_eq!((log.newest_group(), log.state(A).unwrap().unwrap().last), (7, Index(42)));
    assert_eq!(log.entries(A, Index(41), Index(43), usize::MAX).unwrap()[1].data.as_ref(), [42; 100]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn a_copy_of_an_open_store_has_what_was_flushed_and_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let rows = DiskRows::open(&dir.path().join("rows")).unwrap();
    put(&rows, A, 1, &[(key(1, Table::Folders, &[1]), "flushed"), (key(1, Table::Chunks, &[1; 20]), "flushed too")], &[]);
    rows.flush().unwrap();
    put(&rows, A, 2, &[(key(1, Table::Folders, &[2]), "lost"), (key(1, Table::Chunks, &[2; 20]), "lost too")], &[]);
    assert_eq!(rows.flushed().unwrap(), [(A, Index(1))], "what is only in memory is not flushed");
    let log = DiskLog::open(&dir.path().join("log")).unwrap();
    let first = LogWrite { reset: Some((Index(1), Term(1))), append: entries(2, 5, 1), ..write(A) };
    log.write_synced(1, &LogBatch { writes: vec![first] }).unwrap();
    copy(&dir.path().join("rows"), &dir.path().join("rows-after-crash"));
    copy(&dir.path().join("log"), &dir.path().join("log-after-crash"));
    let rows = DiskRows::open(&dir.path().join("rows-after-crash")).unwrap();
    assert_eq!(rows.applied(A).unwrap().unwrap().index, Index(1));
    assert!(rows.get(A, &key(1, Table::Chunks, &[1; 20])).unwrap().is_some());
    assert!(rows.get(A, &key(1, Table::Chunks, &[2; 20])).unwrap().is_none());
    let log = DiskLog::open(&dir.path().join("log-after-crash")).unwrap();
    assert_eq!(log.state(A).unwrap().unwrap().last, Index(5));
}

#[test]
fn rows_open_twice_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let _open = DiskRows::open(dir.path()).unwrap();
    let error = DiskRows::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("another process has it open"), "{error}");
}

#[test]
fn a_directory_of_another_cluster_or_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    marker::check(&data, ClusterId([1; 16])).unwrap();
    marker::check(&data, ClusterId([1; 16])).unwrap();
    let other = marker::check(&data, ClusterId([2; 16])).unwrap_err().to_string();
    assert!(other.contains("belongs to cluster 0101"), "{other}");
    std::fs::write(data.join("MAILRAFT"), "mailraft data\nformat 9\n").unwrap();
    assert!(matches!(marker::check(&data, ClusterId([1; 16])), Err(StoreError::Newer { .. })));
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert!(marker::check(dir.path(), ClusterId([1; 16])).unwrap_err().to_string().contains("no marker"));
}
