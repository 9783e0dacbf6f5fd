//! RocksDB as the rows use it, over a disk that loses what was not synced, tears, fails and is slow, with power cuts
//! between any two calls: also while it recovers from the one before, flushes and compacts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::power::{Watch, Wrong};

/// Lives in a run of the tests, each of some steps between two power cuts.
const LIVES: u64 = 120;
/// A directory is made anew after so many lives.
const LIVES_OF_ONE: u64 = 40;
const STEPS: usize = 14;
/// Calls on files in one life, about.
const CALLS: u64 = 110;

type State = BTreeMap<ReplicaId, (Index, BTreeMap<RowKey, Bytes>)>;

/// What was done in one life, and how much of it must be there after it.
struct History {
    /// After each step that changes something; the first is what the life began with.
    states: Vec<State>,
    /// At least this one is durable.
    durable: usize,
    /// A replica whose rows were being deleted: the core does it again.
    going: Option<ReplicaId>,
    /// A start began to delete it again, from whatever state it found.
    going_again: bool,
}

impl From<State> for History {
    fn from(state: State) -> Self {
        History { states: vec![state], durable: 0, going: None, going_again: false }
    }
}

impl History {
    fn now(&self) -> &State {
        self.states.last().expect("a state")
    }
}

/// Everything that a store holds.
fn all(rows: &DiskRows) -> Result<State, StoreError> {
    let mut out = State::new();
    for replica in rows.replicas()? {
        let Some(view) = rows.view(replica)? else { continue };
        let held = view.rows(None, usize::MAX)?.into_iter().collect();
        out.insert(replica, (view.applied().index, held));
    }
    Ok(out)
}

fn key(draw: &mut ChaCha20Rng) -> RowKey {
    let tables = [Table::Places, Table::Contents, Table::Chunks];
    RowKey::new(MailboxId([draw.random_range(0..3); 16]), tables[draw.random_range(0..3)], [draw.random_range(0..12)])
}

fn value(draw: &mut ChaCha20Rng) -> Bytes {
    // Some in blob files, some over several blocks.
    let bytes = [20, 700, 5_000, 20_000][draw.random_range(0..4)];
    let mut out = vec![0; bytes];
    draw.fill_bytes(&mut out);
    out.into()
}

/// One step; Err if the store says that it failed.
fn step(rows: &DiskRows, history: &mut History, draw: &mut ChaCha20Rng) -> Result<(), StoreError> {
    let replica = ReplicaId(draw.random_range(1..=3));
    let mut next = history.now().clone();
    match draw.random_range(0..100) {
        0..58 => {
            let place = next.entry(replica).or_default();
            place.0.0 += 1;
            let mut change: BTreeMap<RowKey, Option<Bytes>> = BTreeMap::new();
            for _ in 0..draw.random_range(0..5) {
                change.insert(key(draw), draw.random_bool(0.75).then(|| value(draw)));
            }
            let mut batch = RowBatch::default();
            for (key, value) in change {
                match value {
                    Some(value) => {
                        place.1.insert(key.clone(), value.clone());
                        batch.put(key, value);
                    }
                    None => {
                        place.1.remove(&key);
                        batch.delete(key);
                    }
                }
            }
            let applied = Applied { index: place.0, ..Applied::default() };
            history.states.push(next);
            rows.write(&[ReplicaBatch { replica, batch, applied }])
        }
        58..90 => {
            let durable = history.states.len() - 1;
            rows.flush()?;
            history.durable = durable;
            Ok(())
        }
        90..96 => {
            let index = Index(next.get(&replica).map_or(0, |(index, _)| index.0) + 10);
            let new: BTreeMap<RowKey, Bytes> =
                (0..draw.random_range(0..20)).map(|_| (key(draw), value(draw))).collect();
            next.insert(replica, (index, new.clone()));
            history.states.push(next);
            let applied = Applied { index, ..Applied::default() };
            rows.replace(replica, &applied, &mut new.into_iter().map(Ok))?;
            history.durable = history.states.len() - 1;
            Ok(())
        }
        // Nothing is to be done, so nothing is flushed.
        _ if !next.contains_key(&replica) => rows.remove(replica),
        _ => {
            history.going = Some(replica);
            next.remove(&replica);
            history.states.push(next);
            rows.remove(replica)?;
            history.durable = history.states.len() - 1;
            history.going = None;
            Ok(())
        }
    }
}

/// Compares what a start finds with what was done before; the state that it goes on with, if it can.
fn judge(rows: &DiskRows, history: &mut History, what: &str) -> Option<State> {
    let mut found = all(rows).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut states = history.states[history.durable..].to_vec();
    if let Some(going) = history.going.filter(|going| history.going_again || found.contains_key(going)) {
        // Some of its rows may be gone: it is deleted once more, as the core does. The power may go in that, too.
        history.going_again = true;
        rows.remove(going).ok()?;
        found.remove(&going);
        states.iter_mut().for_each(|state| drop(state.remove(&going)));
    }
    let at = |state: &State| state.iter().map(|(r, (i, rows))| (r.0, i.0, rows.len())).collect::<Vec<_>>();
    assert!(
        states.contains(&found),
        "{what}: found {:?}, and not one of {:?}",
        at(&found),
        states.iter().map(at).collect::<Vec<_>>()
    );
    Some(found)
}

fn wrong(draw: &mut ChaCha20Rng) -> Wrong {
    let at = draw.random_range(0..CALLS);
    match draw.random_range(0..10) {
        0 => Wrong::FailedSync(at),
        1 => Wrong::FailedWrite(at),
        2 => Wrong::FullDisk(at),
        3 => Wrong::SlowSync(at, Duration::from_millis(draw.random_range(1..4))),
        _ => Wrong::PowerCut(at),
    }
}

/// The power is cut so often at each call.
const COMPACTION_ROUNDS: u64 = 4;
/// Calls on files that a small compaction makes, at least.
const COMPACTION_CALLS: u64 = 9;

/// Runs so many lives from a seed; calls on files and lives that ended with a call that failed.
fn lives(seed: u64, lives: u64) -> (u64, u64) {
    let mut draw = ChaCha20Rng::seed_from_u64(seed);
    let mut dir = tempfile::tempdir().unwrap();
    let mut history = History::from(State::new());
    let (mut calls, mut failures) = (0, 0);
    drop(DiskRows::open(dir.path(), CLUSTER).unwrap());
    let mut before = String::from("the first");
    for life in 0..lives {
        let wrong = wrong(&mut draw);
        let what = format!("seed {seed}, life {life}, {wrong:?}, after {before}");
        let watch = Watch::over(dir.path(), Some(wrong));
        match DiskRows::open(dir.path(), CLUSTER) {
            Ok(rows) => {
                let sound = || !watch.is_off() && !watch.has_failed();
                let mut goes_on = false;
                if sound() {
                    let state = judge(&rows, &mut history, &what);
                    if let Some(state) = state.filter(|_| sound()) {
                        history = History::from(state);
                        goes_on = true;
                    }
                }
                for _ in 0..if goes_on { STEPS } else { 0 } {
                    let durable = history.durable;
                    let done = step(&rows, &mut history, &mut draw);
                    if watch.is_off() {
                        // It was told to nobody.
                        history.durable = durable;
                        break;
                    }
                    if done.is_err() {
                        // As the process does.
                        assert!(watch.has_failed(), "{what}: {done:?}");
                        failures += 1;
                        break;
                    }
                }
                watch.cut();
                drop(rows);
            }
            Err(error) => assert!(watch.is_off() || watch.has_failed(), "{what}: {error}"),
        }
        calls += watch.calls();
        before = format!("{wrong:?} with {} calls, durable {}", watch.calls(), history.durable);
        let next = tempfile::tempdir().unwrap();
        watch.cut();
        watch.lay_out(next.path(), &mut draw);
        dir = next;
    }
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    judge(&rows, &mut history, &format!("seed {seed}, at the end")).expect("nothing fails any more");
    (calls, failures)
}

#[test]
fn rows_lose_nothing_that_was_flushed_on_a_disk_that_fails_tears_and_loses_power() {
    let (count, first) = (of_environment("MAILRAFT_DISK_LIVES", LIVES), of_environment("MAILRAFT_DISK_SEED", 1));
    let (mut calls, mut failures) = (0, 0);
    for seed in first..first + count.div_ceil(LIVES_OF_ONE) {
        let (more, failed) = lives(seed, LIVES_OF_ONE);
        calls += more;
        failures += failed;
    }
    println!("{count} lives, {calls} calls on files, {failures} ended by a call that failed");
    assert!(failures > 0 && calls > count * 20, "{calls} calls, {failures} failures");
}

/// A store with something to flush, and this wrong from now on.
fn about_to_fail(dir: &Path, wrong: Wrong) -> (DiskRows, Watch) {
    let rows = DiskRows::open(dir, CLUSTER).unwrap();
    put(&rows, 1, &[(row(Table::Places, 1), vec![1; 9_000])]).unwrap();
    (rows, Watch::over(dir, Some(wrong)))
}

#[test]
fn a_failed_fsync_or_write_fails_the_flush_and_everything_after_it() {
    for wrong in [Wrong::FailedSync(0), Wrong::FailedWrite(0), Wrong::FullDisk(0)] {
        let dir = tempfile::tempdir().unwrap();
        let (rows, watch) = about_to_fail(dir.path(), wrong);
        let error = rows.flush().unwrap_err().to_string();
        assert!(watch.has_failed() && error.contains("flushing rows"), "{wrong:?}: {error}");
        // The disk is well again, and it is not believed.
        assert!(rows.flush().is_err(), "{wrong:?}");
        let later = put(&rows, 2, &[(row(Table::Places, 2), vec![2])]).unwrap_err().to_string();
        assert!(later.contains("in the background") || later.contains("writing rows"), "{wrong:?}: {later}");
        drop(rows);
        drop(watch);
        let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
        assert!(rows.replicas().unwrap().is_empty(), "{wrong:?}: nothing was flushed");
    }
}

#[test]
fn a_compaction_that_fails_in_the_background_fails_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    let mut draw = ChaCha20Rng::seed_from_u64(1);
    let fill = |rows: &DiskRows, index: u64, draw: &mut ChaCha20Rng| -> Result<(), StoreError> {
        // The same keys again, so that a compaction has something to write.
        let puts: Vec<_> = (0..40).map(|n| (row(Table::Places, n), value(draw).to_vec())).collect();
        put(rows, index, &puts)?;
        rows.flush().map(drop)
    };
    let mut told = None;
    for index in 1..60 {
        // A flush ends with a sync, and a compaction that it begins writes what it has done after one.
        let watch = Watch::over(dir.path(), Some(Wrong::SlowSync(0, Duration::from_millis(20))));
        fill(&rows, index, &mut draw).unwrap();
        watch.fail_next_write();
        let begun = std::time::Instant::now();
        while !watch.has_failed() && begun.elapsed() < Duration::from_millis(200) {
            std::thread::yield_now();
        }
        if watch.has_failed() {
            // The error is noted a moment after the call has failed.
            let later = |more| put(&rows, index + more, &[(row(Table::Places, 1), vec![1])]).err();
            told = (1..1_000_000).find_map(later);
            break;
        }
    }
    let error = told.expect("a compaction that failed").to_string();
    assert!(error.contains("in the background") || error.contains("writing rows"), "{error}");
}

#[test]
fn the_power_goes_at_any_call_of_a_compaction_and_nothing_that_was_flushed_is_lost() {
    let mut draw = ChaCha20Rng::seed_from_u64(2);
    let (mut during, mut dir) = (0, tempfile::tempdir().unwrap());
    let (mut index, mut held) = (0, BTreeMap::new());
    drop(DiskRows::open(dir.path(), CLUSTER).unwrap());
    for after in (0..COMPACTION_ROUNDS).flat_map(|_| 0..COMPACTION_CALLS) {
        let watch = Watch::over(dir.path(), None);
        let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
        // Four files on top of each other are compacted, in the background, once the last flush was answered.
        for _ in 0..8 {
            index += 1;
            for n in 0..40 {
                held.insert(row(Table::Places, n), value(&mut draw));
            }
            let puts: Vec<_> = held.iter().map(|(key, value)| (key.clone(), value.to_vec())).collect();
            put(&rows, index, &puts).unwrap();
            rows.flush().unwrap();
            let calls = watch.calls();
            watch.cut_after(after);
            let begun = std::time::Instant::now();
            while !watch.is_off() && begun.elapsed() < Duration::from_millis(50) {
                std::thread::yield_now();
            }
            if watch.is_off() {
                during += u64::from(watch.calls() > calls);
                break;
            }
            // There was none, or it was shorter.
            watch.cut_after(u64::MAX / 2);
        }
        watch.cut();
        drop(rows);
        let next = tempfile::tempdir().unwrap();
        watch.lay_out(next.path(), &mut draw);
        dir = next;
        let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
        let found = all(&rows).unwrap();
        let found = found.values().next().expect("the replica");
        assert!(found.0 == Index(index) && found.1 == held, "after {after} calls of a compaction: {:?}", found.0);
    }
    let all = COMPACTION_ROUNDS * COMPACTION_CALLS;
    println!("{during} of {all} compactions had the power cut under them");
    assert!(during >= all / 3, "only {during} of {all} were in a compaction");
}
