//! What every kind of store must do alike, as tests that each runs: fixed dialogues, and random ones against
//! the stores in memory as a model. Panics where a store differs.

use raft::eraftpb::{Entry, HardState};
use rand::seq::IteratorRandom;
use rand::{Rng, RngCore};

use crate::env::Env;
use crate::error::StoreError;
use crate::ids::{Incarnation, Index, LogPosition, MailboxId, ReplicaId, Term};
use crate::log::{InstallMark, Log, LogBatch, LogState, LogWrite};
use crate::memory::{MemoryLog, MemoryRows};
use crate::row::{RowBatch, RowKey, Table};
use crate::rows::{Applied, ReplicaBatch, Rows, state_hash};
use crate::takeover::{Adoption, IncarnationMark};

const A: ReplicaId = ReplicaId(1);
const B: ReplicaId = ReplicaId(0x0102_0304_0506_07ff);
const BOX: MailboxId = MailboxId([1; 16]);

/// The dialogue of a store of rows, new and empty.
pub fn rows(store: &dyn Rows) {
    assert!(store.replicas().expect("replicas").is_empty() && store.flush().expect("flush").is_empty());
    assert!(store.view(A).expect("view").is_none() && store.applied(A).expect("applied").is_none());
    let place = |n: u8| RowKey::new(BOX, Table::Places, [0, 0, 0, 1, 0, 0, 0, n]);
    let chunk = RowKey::new(BOX, Table::Chunks, [5; 20]);
    let last = RowKey::new(MailboxId([0xff; 16]), Table::Repeats, [0xff; 16]);
    put(store, A, 1, &[(place(1), b"a1"), (place(2), b"a2"), (chunk.clone(), &[7; 9_000])], &[]);
    put(store, B, 1, &[(place(1), b"b1"), (last.clone(), b"last")], &[]);
    put(store, A, 2, &[(place(3), b"a3"), (place(2), b"new a2")], &[place(1), place(77)]);
    let get = |replica, key: &RowKey| store.get(replica, key).expect("a read").map(|v| v.to_vec());
    assert_eq!(get(A, &place(1)), None);
    assert_eq!(get(B, &place(1)), Some(b"b1".to_vec()));
    assert_eq!(get(A, &chunk), Some(vec![7; 9_000]));
    assert_eq!(get(A, &last), None, "a row of another replica");
    let applied = store.applied(A).expect("applied").expect("a replica");
    assert_eq!((applied.index, get(A, &Applied::key())), (Index(2), Some(applied.encode())));

    let scan = |table, prefix: &[u8], from: &[u8], limit| -> Vec<(u8, Vec<u8>)> {
        let rows = store.scan(A, BOX, table, prefix, from, limit).expect("a scan");
        rows.into_iter().map(|(k, v)| (*k.last().expect("a key"), v[..2.min(v.len())].to_vec())).collect()
    };
    let both = vec![(2, b"ne".to_vec()), (3, b"a3".to_vec())];
    assert_eq!(scan(Table::Places, &[0, 0, 0, 1], &[], 10), both);
    assert_eq!(scan(Table::Places, &[], &[0, 0, 0, 1, 0, 0, 0, 2], 10), both);
    assert_eq!(scan(Table::Places, &[], &[], 1), both[..1]);
    assert_eq!(scan(Table::Places, &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 3], 10), both[1..]);
    for (prefix, from) in [(&[0, 0, 0, 2][..], &[][..]), (&[], &[9]), (&[0, 0, 0, 1], &[9]), (&[0xff; 4], &[])] {
        assert!(scan(Table::Places, prefix, from, 10).is_empty(), "{prefix:?} {from:?}");
    }
    assert_eq!(scan(Table::Chunks, &[5; 16], &[], 10), [(5, vec![7, 7])]);
    assert!(scan(Table::FlagPages, &[], &[], 10).is_empty());

    assert_eq!(store.replicas().expect("replicas"), [A, B]);
    let view = store.view(A).expect("view").expect("a replica");
    let before = state_hash(view.as_ref()).expect("a hash");
    put(store, A, 3, &[(place(9), b"later")], &[place(2)]);
    assert_eq!(state_hash(view.as_ref()).expect("a hash"), before, "a view does not change");
    assert_ne!(state_hash(store.view(A).expect("view").expect("a replica").as_ref()).expect("a hash"), before);
    assert_eq!(view.applied().index, Index(2));
    let all = view.rows(None, 100).expect("rows");
    assert_eq!(all.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(), [place(2), place(3), chunk.clone()]);
    assert_eq!(view.rows(Some(&all[0].0), 1).expect("rows"), all[1..2]);
    assert!(view.rows(Some(&chunk), 1).expect("rows").is_empty());

    replacing(store, &all, before);
    store.remove(B).expect("remove");
    assert_eq!(store.replicas().expect("replicas"), [A]);
    assert!(store.view(B).expect("view").is_none() && get(B, &chunk).is_none());
    assert_eq!(state_hash(view.as_ref()).expect("a hash"), before);
    assert_eq!(store.flush().expect("flush"), [(A, Index(3))]);
    assert_eq!(store.flushed().expect("flushed"), [(A, Index(3))]);
}

fn replacing(store: &dyn Rows, all: &[(RowKey, bytes::Bytes)], hash: [u8; 32]) {
    let node = |n: u8| RowKey::partition(Table::Nodes, [0, 0, 0, 0, 0, 0, 0, n]);
    put(store, B, 2, &[(node(1), b"stays"), (node(2), b"goes")], &[]);
    let broken = all.iter().cloned().map(Ok).chain([Err(StoreError::damaged("snapshot", "torn"))]);
    let applied = Applied { index: Index(50), term: Term(4), voters: vec![A, B], ..Applied::default() };
    assert!(store.replace(B, &applied, &mut Box::new(broken)).is_err());
    assert_eq!(
        store.applied(B).expect("applied").map(|a| a.index),
        Some(Index(2)),
        "the old position until it is done"
    );
    assert!(store.get(B, &node(1)).expect("a read").is_some(), "what a start needs stays until it is done");
    // Whoever reads in the middle of it sees the old rows, all of them.
    let old = store.view(B).expect("view").expect("a replica");
    let old = (state_hash(old.as_ref()).expect("a hash"), old.applied().clone());
    let mut meanwhile = all.iter().cloned().chain([(node(3), vec![0; 5 << 20].into())]).map(|row| {
        let view = store.view(B).expect("view").expect("a replica");
        assert_eq!((state_hash(view.as_ref()).expect("a hash"), view.applied().clone()), old);
        assert_eq!(store.applied(B).expect("applied"), Some(old.1.clone()));
        assert_eq!(store.get(B, &node(1)).expect("a read").as_deref(), Some(&b"stays"[..]));
        assert_eq!(store.get(B, &node(3)).expect("a read"), None, "a row that is to come");
        let nodes = store.scan(B, node(1).mailbox, Table::Nodes, &[], &[], 9).expect("a scan");
        assert_eq!(nodes.len(), 2, "no more and no less than before");
        assert!(store.replicas().expect("replicas").contains(&B));
        Ok(row)
    });
    store.replace(B, &applied, &mut meanwhile).expect("replace");
    assert_eq!(store.scan(B, node(1).mailbox, Table::Nodes, &[], &[], 9).expect("a scan").len(), 1);
    store.replace(B, &applied, &mut all.iter().cloned().map(Ok)).expect("replace");
    assert_eq!(store.applied(B).expect("applied"), Some(applied.clone()));
    assert_eq!(
        state_hash(store.view(B).expect("view").expect("a replica").as_ref()).expect("a hash"),
        hash,
        "nothing old is left"
    );
    assert!(store.flushed().expect("flushed").contains(&(B, Index(50))));
    let with_node = all
        .iter()
        .cloned()
        .chain([(node(2), bytes::Bytes::from_static(b"new"))])
        .collect::<std::collections::BTreeMap<_, _>>();
    store.replace(B, &applied, &mut with_node.into_iter().map(Ok)).expect("replace");
    assert_eq!(store.get(B, &node(2)).expect("a read").as_deref(), Some(&b"new"[..]));
}

/// The dialogue of a store of logs, new and empty. Batches 1 to 9 are written.
pub fn log(store: &dyn Log) {
    assert_eq!((store.newest_batch(), store.state(A).expect("state")), (0, None));
    let hard_state = Some(HardState { term: 1, commit: 1, ..Default::default() });
    let born = |replica| LogWrite {
        reset: Some(LogPosition { index: Index(1), term: Term(1) }),
        hard_state: hard_state.clone(),
        ..of(replica)
    };
    let write = |number, writes: &[LogWrite]| store.write_synced(number, &LogBatch { writes: writes.to_vec() });
    let state = || store.state(A).expect("state").expect("a replica");
    write(1, &[born(A), born(B)]).expect("a batch");
    write(2, &[LogWrite { append: entries(2, 9, 1), ..of(A) }, of(ReplicaId(5))]).expect("a batch");
    write(3, &[LogWrite { append: entries(6, 7, 2), ..of(A) }]).expect("a batch");
    assert_eq!(store.replicas().expect("replicas"), [A, B], "an empty write makes no replica");
    assert_eq!(
        (state().cut, state().last, state().hard_state),
        (LogPosition { index: Index(1), term: Term(1) }, Index(7), hard_state.clone().expect("one"))
    );
    let read = |from, to, max| {
        let read = store.entries(A, Index(from), Index(to), max);
        read.map(|r| r.iter().map(|e| (e.index, e.term)).collect::<Vec<_>>())
    };
    assert_eq!(read(5, 8, usize::MAX).expect("entries"), [(5, 1), (6, 2), (7, 2)]);
    assert_eq!(read(5, 8, 0).expect("entries"), [(5, 1)], "one whatever its size");
    assert_eq!(read(5, 8, 250).expect("entries"), [(5, 1), (6, 2)]);
    assert_eq!(read(5, 5, 1).expect("entries"), []);
    for (from, to) in [(1, 2), (7, 9), (8, 9), (0, 1), (3, u64::MAX)] {
        assert!(matches!(read(from, to, usize::MAX), Err(StoreError::Damaged { .. })), "{from} to {to}");
    }
    assert!(store.entries(ReplicaId(5), Index(1), Index(2), 1).is_err());
    for refused in [entries(9, 9, 2), entries(1, 2, 2), [entries(6, 6, 2), entries(8, 8, 2)].concat()] {
        assert!(write(4, &[LogWrite { append: refused, ..of(A) }]).is_err());
    }
    assert_eq!((store.newest_batch(), state().last), (3, Index(7)), "nothing of a refused batch is written");

    write(4, &[LogWrite { compact: Some(LogPosition { index: Index(5), term: Term(1) }), ..of(A) }]).expect("a batch");
    write(5, &[LogWrite { compact: Some(LogPosition { index: Index(3), term: Term(1) }), ..of(A) }]).expect("a batch");
    assert_eq!(state().cut, LogPosition { index: Index(5), term: Term(1) }, "a cut never goes back");
    assert!(read(5, 6, 1).is_err());
    assert_eq!(read(6, 8, usize::MAX).expect("entries"), [(6, 2), (7, 2)]);
    let mark = Applied { index: Index(6), term: Term(3), ..Applied::default() };
    write(6, &[LogWrite { mark: Some(InstallMark::Begun(mark.clone())), ..of(A) }]).expect("a batch");
    assert_eq!(state().installing, Some(mark));
    write(
        7,
        &[LogWrite {
            reset: Some(LogPosition { index: Index(6), term: Term(3) }),
            mark: Some(InstallMark::Ahead(Index(6))),
            ..of(A)
        }],
    )
    .expect("a batch");
    assert_eq!(
        (state().cut, state().last, state().installing, state().ahead),
        (LogPosition { index: Index(6), term: Term(3) }, Index(6), None, Some(Index(6)))
    );
    assert!(read(7, 8, 1).is_err(), "the tail of the other history is gone");
    let append = entries(7, 8, 3);
    let incarnation = Some(incarnation_mark(2));
    write(8, &[LogWrite { append, incarnation, ..of(A) }, LogWrite { remove: true, ..of(B) }]).expect("a batch");
    assert_eq!(read(7, 9, usize::MAX).expect("entries"), [(7, 3), (8, 3)]);
    assert_eq!((store.replicas().expect("replicas"), store.state(B).expect("state")), (vec![A], None));
    let far =
        LogWrite { reset: Some(LogPosition { index: Index(40), term: Term(3) }), append: entries(41, 42, 3), ..of(A) };
    assert_eq!(state().ahead, Some(Index(6)), "until it is said to be over");
    let far = LogWrite { mark: Some(InstallMark::Over), ..far };
    write(9, &[far]).expect("a batch");
    store.reclaim().expect("reclaim");
    log_reopened(store);
}

/// What is in the log of [`log`] when it is opened again.
pub fn log_reopened(store: &dyn Log) {
    assert_eq!((store.newest_batch(), store.replicas().expect("replicas")), (9, vec![A]));
    let state = store.state(A).expect("state").expect("a replica");
    let hard_state = HardState { term: 1, commit: 1, ..Default::default() };
    assert_eq!(
        state,
        LogState {
            hard_state,
            cut: LogPosition { index: Index(40), term: Term(3) },
            last: Index(42),
            installing: None,
            ahead: None,
            incarnation: incarnation_mark(2),
        }
    );
    assert_eq!(store.entries(A, Index(41), Index(43), usize::MAX).expect("entries"), entries(41, 42, 3));
}

/// Random writes to rows, compared with those in memory; `open` makes the store, and opens it again after what
/// is given to it was flushed.
pub fn rows_agree(seed: u64, steps: usize, open: &mut dyn FnMut(Option<Box<dyn Rows>>) -> Box<dyn Rows>) {
    let (mut env, model, mut store) = (Env::seeded(seed), MemoryRows::new(), open(None));
    let rng = &mut env.rng;
    for step in 0..steps {
        let replica = ReplicaId(rng.random_range(1..4));
        let index = model.applied(replica).expect("applied").map_or(0, |a| a.index.0);
        let applied = Applied { index: Index(index + 1), ..Applied::default() };
        match rng.random_range(0..40) {
            0 => {
                assert_eq!(store.flush().expect("flush"), model.flush().expect("flush"));
                store = open(Some(store));
            }
            1 => assert_eq!(store.flush().expect("flush"), model.flush().expect("flush")),
            2 => {
                store.remove(replica).expect("remove");
                model.remove(replica).expect("remove");
            }
            3 => {
                let other = model.view(ReplicaId(rng.random_range(1..4))).expect("view");
                let rows = other.map_or(Vec::new(), |v| v.rows(None, usize::MAX).expect("rows"));
                for side in [store.as_ref(), &model] {
                    side.replace(replica, &applied, &mut rows.iter().cloned().map(Ok)).expect("replace");
                }
            }
            _ => {
                let mut batch = RowBatch::default();
                for _ in 0..rng.random_range(0..6) {
                    let (mut key, is_put) = (random_key(rng), rng.random_bool(0.7));
                    if Table::from_number(key.table).is_some_and(Table::is_written_once) {
                        if is_put {
                            let number = step as u64 * 8 + batch.puts.len() as u64;
                            key.key.extend(number.to_be_bytes());
                        } else {
                            let there = model.keys(replica).into_iter().filter(|k| k.table == key.table);
                            key = there.choose(rng).unwrap_or(key);
                        }
                    }
                    if batch.puts.iter().all(|(k, _)| *k != key) && !batch.deletes.contains(&key) {
                        let length = [3, 300, 9_000][rng.random_range(0..3)];
                        match is_put {
                            true => batch.put(key, random_bytes(rng, length)),
                            false => batch.delete(key),
                        }
                    }
                }
                let batch = [ReplicaBatch { replica, batch, applied }];
                store.write(&batch).expect("a write");
                model.write(&batch).expect("a write");
            }
        }
        assert_eq!(store.replicas().expect("replicas"), model.replicas().expect("replicas"), "step {step}");
        let views = [store.view(replica).expect("view"), model.view(replica).expect("view")];
        let [ours, theirs] = views.map(|v| v.map(|v| (v.applied().clone(), v.rows(None, usize::MAX).expect("rows"))));
        assert!(ours == theirs, "replica {replica} differs after step {step} of seed {seed}");
        let key = random_key(rng);
        assert_eq!(store.get(replica, &key).expect("a read"), model.get(replica, &key).expect("a read"));
        let (prefix, from) = (&key.key[..rng.random_range(0..2)], [rng.random_range(0..6)]);
        let table = if rng.random_bool(0.5) { Table::Places } else { Table::Chunks };
        let scan = |side: &dyn Rows| side.scan(replica, key.mailbox, table, prefix, &from, 3).expect("a scan");
        assert_eq!(scan(store.as_ref()), scan(&model), "step {step} of seed {seed}");
    }
}

/// A disk that a log stands on, and what can happen to it.
pub trait LogDisk {
    /// Opens the log.
    ///
    /// # Errors
    /// Those of the log.
    fn open(&mut self) -> Result<Box<dyn Log>, StoreError>;

    /// Has something go wrong in one of the next calls.
    fn arm(&mut self, fault: DiskFault);

    /// The process that had the log open dies; of what it wrote nothing is lost.
    fn kill(&mut self, log: Option<Box<dyn Log>>);

    /// The machine loses power: of what was not synced anything may be left. What was armed is not any more.
    fn lose_power(&mut self, log: Option<Box<dyn Log>>, rng: &mut dyn RngCore);

    /// A bit of what is on the disk turns over.
    fn flip(&mut self, rng: &mut dyn RngCore);
}

/// What goes wrong in one of the next calls.
#[derive(Clone, Copy, Debug)]
pub enum DiskFault {
    /// After so many calls the power goes; a write may be done in part.
    PowerCut(u64),
    /// The first sync after so many calls fails.
    FailedSync(u64),
    /// The first write after so many calls fails, having written a part.
    FailedWrite(u64),
    /// The first write after so many calls finds no space.
    FullDisk(u64),
}

/// After a bit has turned over files are given back so often.
const RECLAIMS: usize = 20;

/// Random writes to a log on a disk that fails and loses power between any two calls, compared with those in memory:
/// what was answered is there, whole, and so is the last batch or nothing of it. At the end a bit turns over: the log
/// is as it was, or what it opens or reads is refused. Gives how many of the failures hit, and whether the bit was refused.
pub fn log_survives(seed: u64, steps: usize, disk: &mut dyn LogDisk) -> (u64, bool) {
    let (mut env, model) = (Env::seeded(seed), MemoryLog::new());
    let rng = &mut env.rng;
    let mut replicas: Vec<ReplicaId> = (1..4).map(ReplicaId).collect();
    let mut store = disk.open().expect("a new log");
    let mut failures = 0;
    for step in 0..steps {
        let place = format!("step {step} of seed {seed}");
        if rng.random_bool(0.15) {
            let after = rng.random_range(0..14);
            let faults = [DiskFault::PowerCut, DiskFault::FailedSync, DiskFault::FailedWrite, DiskFault::FullDisk];
            disk.arm(faults[[0, 0, 0, 1, 2, 3][rng.random_range(0..6)]](after));
        }
        let mut in_flight = None;
        let done = match rng.random_range(0..24) {
            0..3 => store.reclaim().map(|damaged| assert!(damaged.is_empty(), "{damaged:?} at {place}")),
            3..5 => store.sync_witness(),
            5 => Err(StoreError::io("", "a crash")),
            _ => {
                let batch = LogBatch { writes: random_writes(rng, &mut replicas, &model) };
                let number = store.newest_batch() + rng.random_range(1..3);
                let written = store.write_synced(number, &batch);
                if written.is_ok() {
                    model.write_synced(number, &batch).expect("a batch");
                } else {
                    in_flight = Some((number, batch));
                }
                written
            }
        };
        if done.is_ok() {
            continue;
        }
        failures += 1;
        let next = model.newest_batch() + 7;
        if in_flight.is_some() {
            store.write_synced(next, &LogBatch::default()).expect_err("a write after one that failed");
            store.reclaim().expect_err("a reclaim after a write that failed");
        }
        match rng.random_bool(0.3) {
            true => disk.kill(Some(store)),
            false => disk.lose_power(Some(store), rng),
        }
        store = loop {
            if rng.random_bool(0.3) {
                disk.arm(DiskFault::PowerCut(rng.random_range(0..20)));
            }
            match disk.open() {
                Ok(store) => break store,
                Err(error) => {
                    assert!(!matches!(error, StoreError::Damaged { .. }), "{error} at {place}");
                    disk.lose_power(None, rng);
                }
            }
        };
        if let Some((number, batch)) = in_flight
            && store.newest_batch() == number
        {
            model.write_synced(number, &batch).expect("a batch");
        }
        compare(store.as_ref(), &model, &place).expect("a log that was not damaged");
    }
    match rng.random_bool(0.5) {
        true => disk.kill(Some(store)),
        false => disk.lose_power(Some(store), rng),
    }
    disk.flip(rng);
    let Ok(store) = disk.open() else { return (failures, true) };
    let read = compare(store.as_ref(), &model, &format!("the end of seed {seed}"));
    // What is damaged is in the way of giving files back, and of nothing else.
    let mut number = store.newest_batch();
    for _ in 0..RECLAIMS {
        let batch = LogBatch { writes: random_writes(rng, &mut replicas, &model) };
        number += 1;
        store.write_synced(number, &batch).unwrap_or_else(|e| panic!("{e} at the end of seed {seed}"));
        model.write_synced(number, &batch).expect("a batch");
        store.reclaim().unwrap_or_else(|e| panic!("{e} at the end of seed {seed}"));
    }
    (failures, read.is_err())
}

/// Panics where a log that can be read differs from the model.
///
/// # Errors
/// Those of the log.
fn compare(store: &dyn Log, model: &MemoryLog, place: &str) -> Result<(), StoreError> {
    let expected = model.replicas().expect("replicas");
    assert_eq!(store.newest_batch(), model.newest_batch(), "{place}");
    for replica in &expected {
        let state = Log::state(model, *replica).expect("state").unwrap_or_default();
        assert_eq!(store.state(*replica)?, Some(state.clone()), "replica {replica} at {place}");
        let (from, to) = (Index(state.cut.index.0 + 1), Index(state.last.0 + 1));
        let entries = Log::entries(model, *replica, from, to, usize::MAX).expect("entries");
        assert!(store.entries(*replica, from, to, usize::MAX)? == entries, "entries of {replica} at {place}");
    }
    assert_eq!(store.replicas()?, expected, "{place}");
    Ok(())
}

fn random_writes(rng: &mut impl RngCore, replicas: &mut [ReplicaId], model: &MemoryLog) -> Vec<LogWrite> {
    let mut writes = Vec::new();
    for replica in replicas {
        if rng.random_bool(0.5) {
            let state = Log::state(model, *replica).expect("state").unwrap_or_default();
            let write = random_write(rng, *replica, &state);
            if write.remove {
                // A replica's id is never used again.
                *replica = ReplicaId(replica.0 + 4);
            } else if state.after(&write).is_err() {
                continue;
            }
            writes.push(write);
        }
    }
    writes
}

/// Random writes to logs, compared with those in memory; `open` makes the store, and opens it again after it
/// was given.
pub fn log_agrees(seed: u64, steps: usize, open: &mut dyn FnMut(Option<Box<dyn Log>>) -> Box<dyn Log>) {
    let (mut env, model, mut store) = (Env::seeded(seed), MemoryLog::new(), open(None));
    let rng = &mut env.rng;
    let mut replicas: Vec<ReplicaId> = (1..5).map(ReplicaId).collect();
    let mut number = 0;
    for step in 0..steps {
        match rng.random_range(0..50) {
            0 => store = open(Some(store)),
            1..4 => assert_eq!(store.reclaim().expect("reclaim"), [], "damaged entries"),
            _ => {
                let mut writes = Vec::new();
                for replica in &mut replicas {
                    if rng.random_bool(0.5) {
                        let state = Log::state(&model, *replica).expect("state").unwrap_or_default();
                        writes.push(random_write(rng, *replica, &state));
                        if writes.last().is_some_and(|w| w.remove) {
                            // A replica's id is never used again.
                            *replica = ReplicaId(replica.0 + 4);
                        }
                    }
                }
                number += 1;
                let batch = LogBatch { writes };
                match model.write_synced(number, &batch) {
                    Ok(()) => store.write_synced(number, &batch).expect("a batch"),
                    Err(_) => {
                        store.write_synced(number, &batch).expect_err("a batch no log can take");
                    }
                }
            }
        }
        assert_eq!(
            store.replicas().expect("replicas"),
            model.replicas().expect("replicas"),
            "step {step} of seed {seed}"
        );
        assert_eq!(store.newest_batch(), model.newest_batch());
        for replica in model.replicas().expect("replicas") {
            let expected = Log::state(&model, replica).expect("state");
            assert_eq!(store.state(replica).expect("state"), expected, "step {step} of seed {seed}");
            let Some(LogState { cut, last, .. }) = expected else { continue };
            let all = |side: &dyn Log| {
                side.entries(replica, Index(cut.index.0 + 1), Index(last.0 + 1), usize::MAX).expect("entries")
            };
            assert!(all(store.as_ref()) == all(&model), "replica {replica} differs after step {step} of seed {seed}");
        }
    }
}

fn random_write(rng: &mut impl RngCore, replica: ReplicaId, state: &LogState) -> LogWrite {
    const KEEP: u64 = 30;
    let (cut, last) = (state.cut.index.0, state.last.0);
    let term = Term(state.hard_state.term + 1);
    match rng.random_range(0..60) {
        0 => LogWrite { remove: true, ..of(replica) },
        1..4 => {
            let at = rng.random_range(cut..last + 10);
            let to = at + rng.random_range(0..3);
            LogWrite {
                reset: Some(LogPosition { index: Index(at), term }),
                append: random_entries(rng, at + 1, to, term.0),
                ..of(replica)
            }
        }
        4 => LogWrite {
            mark: Some(InstallMark::Begun(Applied { index: Index(last), ..Applied::default() })),
            ..of(replica)
        },
        5 => LogWrite {
            mark: Some(InstallMark::Over),
            incarnation: Some(incarnation_mark(rng.random_range(2..4))),
            ..of(replica)
        },
        6 => LogWrite { append: random_entries(rng, last + 2, last + 2, term.0), ..of(replica) },
        7 => LogWrite { append: random_entries(rng, cut, cut, term.0), ..of(replica) },
        8 => {
            LogWrite { compact: Some(LogPosition { index: Index(rng.random_range(0..last + 3)), term }), ..of(replica) }
        }
        9..12 => {
            let from = rng.random_range(cut + 1..last + 2);
            let to = from + rng.random_range(0..4);
            LogWrite { append: random_entries(rng, from, to, term.0), ..of(replica) }
        }
        _ => {
            let to = last + rng.random_range(0..4);
            LogWrite {
                append: random_entries(rng, last + 1, to, term.0),
                hard_state: Some(HardState { term: term.0, vote: 1, commit: last, ..Default::default() }),
                compact: (last > cut + KEEP).then(|| LogPosition { index: Index(last - KEEP / 2), term }),
                ..of(replica)
            }
        }
    }
}

fn random_entries(rng: &mut impl RngCore, from: u64, to: u64, term: u64) -> Vec<Entry> {
    let mut entry = |index| {
        let length = rng.random_range(0..600);
        Entry { index, term, data: random_bytes(rng, length).into(), ..Default::default() }
    };
    (from..=to).map(&mut entry).collect()
}

fn random_key(rng: &mut impl RngCore) -> RowKey {
    let tables =
        [Table::Nodes, Table::Placement, Table::Folders, Table::Places, Table::Places, Table::Chunks, Table::Chunks];
    let mut key =
        RowKey::new(MailboxId([rng.random_range(0..3); 16]), tables[rng.random_range(0..tables.len())], Vec::new());
    if rng.random_bool(0.1) {
        key.table = 0x99;
    }
    key.key = (0..rng.random_range(1..4)).map(|_| rng.random_range(0..6)).collect();
    key
}

fn random_bytes(rng: &mut impl RngCore, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    rng.fill_bytes(&mut out);
    out
}

fn put(store: &dyn Rows, replica: ReplicaId, index: u64, puts: &[(RowKey, &[u8])], deletes: &[RowKey]) {
    let mut batch = RowBatch { deletes: deletes.to_vec(), ..RowBatch::default() };
    for (key, value) in puts {
        batch.put(key.clone(), value.to_vec());
    }
    let applied = Applied { index: Index(index), term: Term(1), ..Applied::default() };
    store.write(&[ReplicaBatch { replica, batch, applied }]).expect("a write");
}

/// A replica adopted the incarnation of this number, which is contested if it is odd.
fn incarnation_mark(number: u32) -> IncarnationMark {
    let incarnation = Incarnation { number, nonce: [number as u8; 16] };
    let adopted = Adoption { incarnation, voters: vec![A, B], word: "off".into() };
    IncarnationMark { adopted: Some(adopted), contested: number % 2 == 1, sealed: None }
}

fn of(replica: ReplicaId) -> LogWrite {
    LogWrite { replica, ..LogWrite::default() }
}

fn entries(from: u64, to: u64, term: u64) -> Vec<Entry> {
    (from..=to).map(|index| Entry { index, term, data: vec![index as u8; 100].into(), ..Default::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_memory_conform() {
        rows(&MemoryRows::new());
    }

    #[test]
    fn logs_in_memory_conform_and_can_be_read_again() {
        let store = MemoryLog::new();
        log(&store);
        store.crash(0);
        store.recover().expect("a whole log");
        log_reopened(&store);
    }

    #[test]
    fn a_log_in_memory_that_is_read_again_has_what_it_had() {
        let store = MemoryLog::new();
        log_agrees(1, 500, &mut |_| {
            store.crash(0);
            store.recover().expect("a whole log");
            Box::new(store.clone())
        });
    }
}
