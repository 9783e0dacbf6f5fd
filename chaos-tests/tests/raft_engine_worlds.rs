//! Simulated worlds whose nodes keep their Raft logs as production does, in raft-engine, over files that lose what was not
//! synced, tear, and fail. A process of its own: where children are made beside it, they hold its locks for a moment.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicU64, Ordering};

use mailraft_chaos::simulate::raft_engine_on_a_disk_that_fails;
use mailraft_sim::{Ran, Setup, episode, run_episode};
use mailraft_storage::StoreError;
use mailraft_storage::log::Log;
use mailraft_storage::memory::conformance::{DiskFault, LogDisk};
use rand::RngCore;

static STARTS: AtomicU64 = AtomicU64::new(0);
static POWER_LOSSES: AtomicU64 = AtomicU64::new(0);
static FLIPS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Counts what happens to a disk, or gives an empty one at each start.
struct Watched {
    disk: Box<dyn LogDisk + Send>,
    forgets: bool,
}

impl LogDisk for Watched {
    fn open(&mut self) -> Result<Box<dyn Log>, StoreError> {
        if self.forgets {
            self.disk = raft_engine_on_a_disk_that_fails();
        }
        let opened = self.disk.open();
        let counter = if matches!(opened, Err(StoreError::Damaged { .. })) { &REFUSED } else { &STARTS };
        counter.fetch_add(1, Ordering::Relaxed);
        opened
    }

    fn arm(&mut self, fault: DiskFault) {
        self.disk.arm(fault);
    }

    fn kill(&mut self, log: Option<Box<dyn Log>>) {
        self.disk.kill(log);
    }

    fn lose_power(&mut self, log: Option<Box<dyn Log>>, rng: &mut dyn RngCore) {
        POWER_LOSSES.fetch_add(1, Ordering::Relaxed);
        self.disk.lose_power(log, rng);
    }

    fn flip(&mut self, rng: &mut dyn RngCore) {
        FLIPS.fetch_add(1, Ordering::Relaxed);
        self.disk.flip(rng);
    }
}

fn world(number: u64, disks: fn() -> Box<dyn LogDisk + Send>) -> Ran {
    run_episode(Setup { log_disks: Some(disks), ..episode(20_261_126, number) })
}

#[test]
fn worlds_are_clean_where_logs_stand_in_raft_engine() {
    fn watched() -> Box<dyn LogDisk + Send> {
        Box::new(Watched { disk: raft_engine_on_a_disk_that_fails(), forgets: false })
    }
    for number in 0..12 {
        let ran = world(number, watched);
        assert!(
            ran.report.is_clean(),
            "mailraft-chaos sim --raft-engine --seed 20261126 --episode {number}: {:?}",
            ran.report.violations
        );
        assert!(ran.operations > 1_000, "episode {number}: {} operations", ran.operations);
    }
    let counters = [&STARTS, &POWER_LOSSES, &FLIPS, &REFUSED].map(|counter| counter.load(Ordering::Relaxed));
    let [starts, losses, flips, refused] = counters;
    println!("{starts} starts, {losses} losses of power, {flips} bits turned over, {refused} logs refused");
    assert!(starts > 300 && losses > 100 && flips > 0, "{starts} starts, {losses} losses of power, {flips} bits");
}

#[test]
fn a_seed_gives_one_run_in_raft_engine_too() {
    let short = || {
        let setup = Setup { log_disks: Some(raft_engine_on_a_disk_that_fails), safety: 40_000_000, ..episode(7, 1) };
        let ran = run_episode(setup);
        (ran.hash, ran.events, ran.operations)
    };
    assert_eq!(short(), short());
}

#[test]
fn a_log_that_comes_back_without_what_was_synced_is_noticed() {
    fn forgetful() -> Box<dyn LogDisk + Send> {
        Box::new(Watched { disk: raft_engine_on_a_disk_that_fails(), forgets: true })
    }
    let ran = world(0, forgetful);
    assert!(!ran.report.is_clean(), "a node came back with an empty log, and nothing was said of it");
}
