//! The Raft log over files that lose what was not synced, tear, turn bits over, and fail, with power cuts between
//! any two calls.

use mailraft_disk::DiskLog;
use mailraft_faulty_files::{LogOnFaultyFiles, quiet_panics};
use mailraft_storage::log::{Log, LogBatch, LogWrite};
use mailraft_storage::memory::conformance::{self, LogDisk};
use mailraft_storage::{Index, LogPosition, ReplicaId, StoreError, Term};

use crate::{R, append, entries, of_environment};

/// One file of the log, and the size of all from which old ones are given back, in bytes.
const FILE_BYTES: u64 = 8 << 10;
const PURGE_FROM_BYTES: u64 = 24 << 10;
/// Cases in a run of the tests, each of some dozen steps, and steps of one.
const CASES: u64 = 2_000;
const STEPS: usize = 60;

fn on_disk() -> LogOnFaultyFiles {
    LogOnFaultyFiles::new(|files, dir| Ok(Box::new(DiskLog::open_over(files, dir, FILE_BYTES, PURGE_FROM_BYTES)?)))
}

/// Whether a log has what 10 batches of [`append`] wrote, all of it; or why it is refused.
fn read(disk: &mut LogOnFaultyFiles) -> Result<(), StoreError> {
    let log = disk.open()?;
    let state = log.state(R)?.ok_or_else(|| StoreError::damaged("replica", "it is gone"))?;
    assert_eq!((state.last, state.hard_state.commit, log.newest_batch()), (Index(40), 36, 10));
    assert_eq!(log.entries(R, Index(1), Index(41), usize::MAX)?, entries(1, 40));
    Ok(())
}

#[test]
fn a_tail_that_was_replaced_never_comes_back() {
    // With some of these seeds the engine alone brings one back: entries that were replaced, in a log that was later cut
    // at its very end, over more than one file.
    let first = of_environment("MAILRAFT_LOG_SEED", 1_000);
    for seed in first..first + of_environment("MAILRAFT_LOG_SEEDS", 100) {
        let mut disk =
            LogOnFaultyFiles::new(|files, dir| Ok(Box::new(DiskLog::open_over(files, dir, 16 << 10, 48 << 10)?)));
        conformance::log_agrees(seed, 400, &mut |store| {
            drop(store);
            disk.open().unwrap()
        });
    }
}

#[test]
fn every_bit_that_turns_over_in_a_log_is_refused_or_changes_nothing() {
    let mut disk = on_disk();
    let log = disk.open().unwrap();
    for batch in 1..=10 {
        append(log.as_ref(), batch, batch * 4 - 3, batch * 4);
    }
    // As it is where the process is killed after the last answer: with space set aside behind it, and with a witness that
    // was written and not synced. Then as it is where the machine loses power, and that part of the witness is lost.
    disk.kill(Some(log));
    let power_lost = disk.copied();
    power_lost.lose_unsynced();
    for disk in [disk, power_lost] {
        read(&mut disk.copied()).unwrap();
        let (mut refused, mut harmless) = (0, 0);
        for path in disk.names() {
            let bytes = disk.bytes(&path);
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1) * 8;
            for bit in (0..used).step_by(97).chain(used.saturating_sub(200)..used) {
                match read(&mut disk.spoilt(&path, bit)) {
                    Ok(()) => harmless += 1,
                    Err(e) => {
                        assert!(matches!(e, StoreError::Damaged { .. }), "{e}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 500 && harmless > 10, "{refused} refused, {harmless} harmless");
    }
}

#[test]
fn a_damaged_entry_keeps_old_files_until_it_is_cut_off_and_ends_nothing() {
    let other = ReplicaId(R.0 + 1);
    let mut disk = on_disk();
    let log = disk.open().unwrap();
    append(log.as_ref(), 1, 1, 3);
    let mut number = 1;
    let mut write = |log: &dyn Log, write: LogWrite| {
        number += 1;
        log.write_synced(number, &LogBatch { writes: vec![write] }).unwrap();
    };
    for last in (10..=300).step_by(10) {
        write(log.as_ref(), LogWrite { replica: other, append: entries(last - 9, last), ..LogWrite::default() });
    }
    disk.kill(Some(log));
    // A bit in one of the three entries in the first file, which nothing reads at the start.
    let first = disk.names().into_iter().find(|name| name.to_string_lossy().ends_with("0001.raftlog")).unwrap();
    let damages = |bit: &usize| {
        let mut spoilt = disk.spoilt(&first, *bit);
        spoilt.open().is_ok_and(|log| log.entries(R, Index(1), Index(4), usize::MAX).is_err())
    };
    let bit = (0..8 * 1_000).step_by(13).find(damages).expect("a bit that only who reads the entries finds");
    let mut disk = disk.spoilt(&first, bit);
    let log = disk.open().unwrap();
    let cut = |replica, upto| LogWrite {
        replica,
        compact: Some(LogPosition { index: Index(upto), term: Term(1) }),
        ..LogWrite::default()
    };
    write(log.as_ref(), cut(other, 300));
    let files = disk.names().len();
    assert_eq!(log.reclaim().unwrap(), [R], "the space between is wanted, and these entries are in the way");
    assert_eq!(log.reclaim().unwrap(), [R]);
    assert!(disk.names().len() >= files);
    write(log.as_ref(), LogWrite { replica: other, append: entries(301, 303), ..LogWrite::default() });
    assert_eq!(log.entries(other, Index(301), Index(304), usize::MAX).unwrap(), entries(301, 303));
    write(log.as_ref(), cut(R, 3));
    assert_eq!(log.reclaim().unwrap(), []);
    assert!(disk.names().len() < files, "{files} files before and {} after", disk.names().len());
    drop(log);
    let log = disk.open().unwrap();
    assert_eq!(log.entries(other, Index(301), Index(304), usize::MAX).unwrap(), entries(301, 303));
}

#[test]
fn a_log_loses_nothing_on_a_disk_that_fails_and_a_bit_that_turned_over_is_refused_or_harmless() {
    quiet_panics();
    let (mut failures, mut refused) = (0, 0);
    for seed in 1..=CASES {
        let (failed, was_refused) = conformance::log_survives(seed, STEPS, &mut on_disk());
        failures += failed;
        refused += u64::from(was_refused);
    }
    assert!(failures > 3 * CASES && refused > CASES / 10, "{failures} failures, {refused} refused");
}
