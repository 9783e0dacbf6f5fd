//! Many runs from one seed: what a developer runs before a change and an operator as part of a drill. Each episode
//! is a whole run of its own; one that fails is made as small as it can be.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_checkers::Micros;
use mailraft_storage::NodeId;

use crate::dice::Dice;
use crate::faults::{Fault, Planned};
use crate::setup::Setup;
use crate::world::run::{Ran, faults_of, run_with};

/// Runs that making a failure smaller may take.
pub const MINIMISE_MAX_RUNS: usize = 80;
/// The same where each run is of days.
pub const LONG_MINIMISE_MAX_RUNS: usize = 12;

/// Where the draws for long episodes begin: far behind those for the others.
const LONG_STREAM: u64 = 1 << 40;

/// The world of an episode. One of three is five nodes and four partitions, with accounts that change; one varies in size
/// and in what fails; in one everything takes the rows that large mailboxes and whole days have.
pub fn episode(seed: u64, number: u64) -> Setup {
    let mut dice = Dice::new(seed, 1_000 + number);
    let mut setup = Setup::new(dice.bits());
    match number % 3 {
        0 => {}
        1 => {
            shapes(&mut dice, &mut setup);
            return setup;
        }
        _ => {
            (setup.accounts, setup.pop3_sessions) = (4, 4);
            return setup;
        }
    }
    match dice.below(5) {
        0 => (setup.nodes, setup.partitions) = (3, 2),
        1 => setup.log_keep_entries = dice.between(4, 60),
        // Hardly anything fails: what does, does so among much that works.
        2 => setup.fault_every = 8_000_000,
        3 => setup.fault_every = 500_000,
        _ => (setup.mailboxes, setup.imap_sessions) = (3, 18),
    }
    setup
}

/// Low bounds, many messages in a command, changes of who votes, attempts that come late, and a day that passes in minutes:
/// what random worlds would else meet only in years.
fn shapes(dice: &mut Dice, setup: &mut Setup) {
    let often = |dice: &mut Dice| dice.chance(600);
    let limits = &mut setup.limits;
    if often(dice) {
        limits.entry_max_bytes = dice.between(2_200, 30_000) as usize;
        limits.part_max_bytes = limits.entry_max_bytes / 4;
    }
    if often(dice) {
        limits.page_above_messages = dice.between(1, 16) as usize;
        limits.pages_above_messages = dice.between(2, 60) as usize;
    }
    if often(dice) {
        limits.expunged_max_rows = dice.between(1, 12) as usize;
    }
    if often(dice) {
        limits.direct_deletes_max_rows = dice.between(2, 80) as usize;
        limits.sweep_max_rows = dice.between(2, 60) as usize;
    }
    let days = often(dice);
    if days {
        day_passes(setup, dice.between(10_000, 35_000));
    }
    if often(dice) {
        (setup.wide_permille, setup.folder_full) = (dice.between(30, 250), dice.between(40, 400) as usize);
    }
    if often(dice) {
        setup.ballots_permille = dice.between(20, 200);
    }
    if dice.chance(300) {
        (setup.nodes, setup.partitions) = (7, 3);
    }
    if days {
        setup.clocks_wrong_max = (setup.nodes - 1) / 2;
    }
    if often(dice) {
        (setup.late_copies_permille, setup.late_firsts_permille) = (dice.between(30, 300), 500);
        setup.late_copies_mean = dice.between(500_000, 15_000_000);
    }
    setup.repeats_permille = dice.between(0, 200);
    setup.repeats_mean = dice.between(1_000_000, 20_000_000);
    if dice.chance(300) {
        setup.proposals_late = dice.between(1_000, 1_000_000);
    }
    if dice.chance(300) {
        setup.large_permille = dice.between(5, 100);
    }
    if dice.chance(300) {
        setup.log_batch_max_bytes = dice.between(500, 8_000) as usize;
    }
    if dice.chance(500) {
        setup.log_keep_entries = dice.between(4, 200);
    }
}

/// A day of production passes in so many milliseconds: deliveries are forgotten after it, kept results evicted after twice
/// as long, and uploads swept that did not become live in a third of it.
pub fn day_passes(setup: &mut Setup, day_ms: u64) {
    (setup.clocks_apart, setup.results_kept) = (200_000, Duration::from_millis(2 * day_ms));
    let limits = &mut setup.limits;
    (limits.delivery_kept_ms, limits.delivery_left_ms) = (day_ms, day_ms / 4);
    limits.open_body_max_ms = day_ms / 3;
    (limits.repeat_kept_ms, limits.repeat_left_ms) = (day_ms / 2, day_ms / 8);
}

/// The long world of an episode: three nodes with one partition, or two in one of four; in one of sixteen five nodes.
pub fn long_episode(seed: u64, number: u64) -> Setup {
    let mut setup = Setup::long(Dice::new(seed, LONG_STREAM + number).bits());
    (setup.nodes, setup.partitions) = match number % 16 {
        0 => (5, 1),
        4 | 8 | 12 => (3, 2),
        _ => (3, 1),
    };
    setup
}

/// Where the draws for worlds with a backup region begin.
const REGION_STREAM: u64 = 1 << 41;
/// And for what worlds are drawn in which it takes over.
const TAKEOVER_STREAM: u64 = 1 << 42;

/// The world of two regions of an episode: three nodes at home, and one, three or four far away. Of four worlds one
/// promises a bound, the others that nothing answered is lost; in most the home goes on alone after a time.
pub fn region_episode(seed: u64, number: u64) -> Setup {
    let mut dice = Dice::new(seed, REGION_STREAM + number);
    let mut setup = Setup::new(dice.bits());
    (setup.nodes, setup.partitions, setup.safety) = (3, 2, 60_000_000);
    setup.standby_nodes = *dice.pick(&[1, 3, 3, 4]).expect("one of four");
    setup.one_way = dice.between(40_000, 120_000);
    setup.rpo_max = (number % 4 == 3).then(|| Duration::from_millis(dice.between(200, 2_000)));
    if dice.chance(500) {
        setup.log_keep_entries = dice.between(4, 100);
    }
    if dice.chance(300) {
        setup.accounts = 4;
    }
    if dice.chance(300) {
        setup.large_permille = dice.between(5, 60);
    }
    if dice.chance(300) {
        setup.nodes = 5;
    }
    if dice.chance(500) {
        setup.region_log_keep_bytes = 1;
    }
    if dice.chance(600) {
        setup.degrade_after = Some(Duration::from_millis(dice.between(1_000, 6_000)));
    }
    // Home mostly stands: what matters here is what is far.
    setup.fault_every = *dice.pick(&[2_000_000, 5_000_000, 20_000_000]).expect("one of three");
    setup
}

/// The world of two regions of an episode, and its faults: at some moment an operator says that the backup region takes
/// over, once or several times, at all of its nodes or some, and perhaps another one does so too. The home may be dead by
/// then, or cut off, or neither. Of four worlds two promise that nothing is lost, and never go on alone.
pub fn takeover_episode(seed: u64, number: u64) -> (Setup, Vec<Planned>) {
    let mut setup = region_episode(seed, number);
    let mut dice = Dice::new(seed, TAKEOVER_STREAM + number);
    setup.accounts = 0;
    if number.is_multiple_of(2) {
        (setup.rpo_max, setup.degrade_after) = (None, None);
    } else {
        // Which mailboxes there are is not to be lost beside the mail.
        setup.mailboxes = 6;
    }
    // Who is no member any more, or whose disk rots, is replaced at home; here nothing there goes on.
    let stays = |planned: &Planned| {
        !matches!(
            planned.fault,
            Fault::Move { .. }
                | Fault::Ballot { .. }
                | Fault::CorruptLog { .. }
                | Fault::CorruptRows { .. }
                | Fault::Settings { .. }
        )
    };
    let mut plan: Vec<Planned> = faults_of(&setup).into_iter().filter(stays).collect();
    let far: Vec<NodeId> = (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).collect();
    let word = dice.between(8_000_000, 30_000_000);
    let since = word - dice.between(0, 3_000_000);
    match dice.below(3) {
        0 => plan.extend((1..=setup.nodes).map(|node| {
            let fault = Fault::Crash { node: NodeId(node), torn: 0 };
            Planned { from: since, to: setup.safety, fault }
        })),
        1 => plan.push(Planned {
            from: since,
            to: word + dice.between(0, 20_000_000),
            fault: Fault::Partition { side: far.clone() },
        }),
        _ => {}
    }
    for operator in 0..=dice.below(2) {
        let mut at = word + dice.between(0, 500_000);
        for _ in 0..=dice.below(3) {
            let some = far.iter().copied().filter(|_| dice.chance(700));
            let nodes: Vec<NodeId> = some.collect();
            let fault = Fault::TakeOver { nodes, nonce: operator as u8 + 1 };
            plan.push(Planned { from: at, to: at + 1, fault });
            at += dice.between(1_000, 8_000_000);
        }
    }
    plan.sort_by_key(|planned| planned.from);
    (setup, plan)
}

/// A whole run, with faults as its seed draws them.
pub fn run_episode(setup: Setup) -> Ran {
    let plan = faults_of(&setup);
    run_with(setup, plan)
}

/// Leaves faults out of a failed run as long as the same rule is still broken: halves first, then smaller parts.
/// Returns the smallest run found and how many runs it took.
pub fn minimise(setup: &Setup, failed: Ran, max_runs: usize) -> (Ran, usize) {
    minimise_by(failed, max_runs, |plan| run_with(setup.clone(), plan))
}

fn minimise_by(failed: Ran, max_runs: usize, again: impl Fn(Vec<Planned>) -> Ran) -> (Ran, usize) {
    let Some(rule) = failed.report.violations.first().map(|v| v.rule) else { return (failed, 0) };
    let (mut best, mut runs) = (failed, 0);
    let mut parts = 2;
    while best.plan.len() > 1 && runs < max_runs {
        let size = best.plan.len().div_ceil(parts);
        let mut smaller = None;
        for from in (0..best.plan.len()).step_by(size) {
            let mut plan = best.plan.clone();
            plan.drain(from..(from + size).min(plan.len()));
            runs += 1;
            let ran = again(plan);
            if ran.report.violations.iter().any(|v| v.rule == rule) {
                smaller = Some(ran);
                break;
            }
            if runs == max_runs {
                break;
            }
        }
        match smaller {
            Some(ran) => {
                best = ran;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(best.plan.len()),
        }
    }
    (best, runs)
}

/// What of a run goes into the sums of a suite.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Client operations that ended.
    pub operations: u64,
    /// Comparisons that the checkers made.
    pub checks: u64,
    /// Comparisons left out.
    pub skipped: u64,
    /// Simulated time, in microseconds.
    pub simulated_us: Micros,
    /// Snapshots installed.
    pub installed: u64,
    /// The longest time without service for each kind of fault, in microseconds.
    pub without_service_us: BTreeMap<String, Micros>,
}

impl Ran {
    /// Its figures.
    pub fn figures(&self) -> Figures {
        Figures {
            operations: self.operations,
            checks: self.report.checks.values().sum(),
            skipped: self.report.skipped,
            simulated_us: self.simulated,
            installed: self.installed,
            without_service_us: self.report.without_service.clone(),
        }
    }
}

/// How long an episode is, in simulated time, if nothing goes wrong.
pub fn episode_takes(setup: &Setup) -> Micros {
    setup.safety + setup.liveness + crate::world::run::REST
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailraft_checkers::{Report, Rule, Violation};

    /// A run of which nothing is known but what was wrong.
    fn failed(violation: Violation, plan: Vec<Planned>) -> Ran {
        let report = Report { violations: vec![violation], violations_found: 1, ..Report::default() };
        Ran {
            report,
            hash: [0; 32],
            events: 0,
            simulated: 0,
            operations: 0,
            installed: 0,
            accounts_changed: 0,
            moments: BTreeMap::new(),
            timeline: Vec::new(),
            plan,
        }
    }

    #[test]
    fn of_many_faults_the_two_that_matter_are_found() {
        let planned = |at: u64| Planned { from: at, to: at + 1, fault: Fault::Pause { node: NodeId(at) } };
        let wrong = || Violation { rule: Rule::Uids, at: 7, what: String::new() };
        let again = |plan: Vec<Planned>| {
            let both = [13, 71].iter().all(|at| plan.iter().any(|p| p.from == *at));
            let mut ran = failed(wrong(), plan);
            if !both {
                ran.report = Report::default();
            }
            ran
        };
        let (smallest, runs) = minimise_by(again((0..90).map(planned).collect()), 1_000, again);
        assert_eq!(smallest.plan, [planned(13), planned(71)]);
        assert!(runs < 120, "{runs} runs");
        let (bounded, runs) = minimise_by(again((0..90).map(planned).collect()), 3, again);
        assert_eq!((runs, bounded.report.violations.len()), (3, 1));
    }
}
