//! Runs from fixed seeds: clean, eventful, and the same each time.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailraft_checkers::Rule;
use mailraft_sim::moments::Moment;
use mailraft_sim::{
    Ran, Setup, broken_takeover_episode, episode, region_episode, run_episode, run_with, takeover_episode,
};

fn clean(ran: &Ran, what: &str) {
    let told: Vec<String> = ran.report.violations.iter().take(3).map(ToString::to_string).collect();
    assert!(told.is_empty(), "{what}: {told:#?}\nlast:\n{}", ran.timeline.join("\n"));
}

/// Run in this order: episode 0 of seed 1, and so on.
const EPISODES: u64 = 12;

#[test]
fn a_fixed_set_of_episodes_is_clean_and_something_happens_in_it() {
    let (mut operations, mut installed, mut rules) = (0, 0, BTreeSet::new());
    let mut faults = BTreeSet::new();
    for number in 0..EPISODES {
        let ran = run_episode(episode(1, number));
        clean(&ran, &format!("mailraft-chaos sim --seed 1 --episode {number}"));
        operations += ran.operations;
        installed += ran.installed;
        rules.extend(ran.report.checks.iter().filter(|(_, count)| **count > 0).map(|(rule, _)| *rule));
        faults.extend(ran.plan.iter().map(|planned| planned.fault.name()));
    }
    // A suite in which hardly anything happens proves nothing.
    assert!(operations > 3_000 * EPISODES, "{operations} operations");
    assert!(installed >= EPISODES, "{installed} snapshots");
    let elsewhere = |rule: &Rule| Rule::OF_REGIONS.contains(rule) || Rule::OF_TAKEOVERS.contains(rule);
    assert_eq!(rules, Rule::ALL.into_iter().filter(|rule| !elsewhere(rule)).collect());
    assert!(faults.len() >= 20, "{faults:?}");
}

/// Of many worlds these show what is listed as open in GUARANTEES.md: who appends a message that is there once more and asks
/// again at once is told the first one's answer.
const OPEN_IN_REGIONS: u64 = 770;
/// The same, with a takeover.
const OPEN_IN_TAKEOVERS: u64 = 142;

/// Worlds of two regions, unless MAILRAFT_SEEDS names a number.
const REGION_EPISODES: u64 = 12;

/// How many worlds of a kind run.
fn worlds(unless_named: u64) -> u64 {
    std::env::var("MAILRAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(unless_named)
}

/// What happened in the worlds of a kind.
#[derive(Default)]
struct Survey {
    ran: u64,
    operations: u64,
    words: u64,
    checks: BTreeMap<Rule, u64>,
    /// In how many worlds it came to each moment, and how often.
    moments: BTreeMap<Moment, (u64, u64)>,
    violated: Vec<String>,
    last: Vec<String>,
}

/// Runs all worlds of a kind of seed 1, also behind one that is violated, and says of each such world what came first.
fn survey(kind: &str, numbers: impl Iterator<Item = u64>, run: fn(u64) -> Ran) -> Survey {
    let mut survey = Survey::default();
    for number in numbers {
        let ran = run(number);
        survey.ran += 1;
        survey.operations += ran.operations;
        survey.words += ran.plan.iter().filter(|planned| planned.fault.name() == "takeover").count() as u64;
        for (rule, count) in ran.report.checks {
            *survey.checks.entry(rule).or_default() += count;
        }
        for (moment, times) in ran.moments {
            let (worlds, all) = survey.moments.entry(moment).or_default();
            (*worlds, *all) = (*worlds + 1, *all + times);
        }
        if let Some(first) = ran.report.violations.first() {
            let line = format!("{kind}(1, {number}): {first}");
            eprintln!("{line}");
            survey.violated.push(line);
            survey.last = ran.timeline;
        }
    }
    let Survey { ran, violated, last, moments, .. } = &survey;
    for moment in Moment::ALL {
        let (worlds, times) = moments.get(moment).copied().unwrap_or_default();
        println!("{kind}: in {worlds} of {ran} worlds, {times} times: {moment:?}");
    }
    let clean = violated.is_empty();
    assert!(clean, "{} of {ran} worlds: {violated:#?}\nthe last of them:\n{}", violated.len(), last.join("\n"));
    survey
}

fn takeover(number: u64) -> Ran {
    let (setup, plan) = takeover_episode(1, number);
    run_with(setup, plan)
}

#[test]
fn a_backup_region_holds_what_is_answered_in_a_fixed_set_of_worlds() {
    let numbers = (0..worlds(REGION_EPISODES)).filter(|number| *number != OPEN_IN_REGIONS);
    let survey = survey("region_episode", numbers, |number| run_episode(region_episode(1, number)));
    assert!(survey.operations > 500 * survey.ran, "{} operations", survey.operations);
    for rule in Rule::OF_REGIONS {
        assert!(survey.checks[&rule] > 100 * survey.ran, "{:?}", survey.checks);
    }
}

#[test]
fn what_was_answered_outlives_a_takeover_in_a_fixed_set_of_worlds() {
    // Of two worlds the other one may lose something.
    let numbers = (0..worlds(REGION_EPISODES)).map(|number| 2 * number).filter(|number| *number != OPEN_IN_TAKEOVERS);
    let survey = survey("takeover_episode", numbers, takeover);
    assert!(survey.operations > 500 * survey.ran, "{} operations", survey.operations);
    assert!(survey.words >= survey.ran, "{} words", survey.words);
}

/// Worlds in which a takeover may lose something, unless MAILRAFT_SEEDS names a number.
const LOSSY_EPISODES: u64 = 6;

#[test]
fn a_takeover_loses_no_more_than_is_promised_in_a_fixed_set_of_worlds() {
    let numbers = (0..worlds(LOSSY_EPISODES)).map(|number| 2 * number + 1);
    let survey = survey("takeover_episode", numbers, takeover);
    assert!(survey.operations > 500 * survey.ran, "{} operations", survey.operations);
    for rule in [Rule::Bound, Rule::Superseded] {
        assert!(survey.checks[&rule] > 0, "{:?}", survey.checks);
    }
}

fn broken(number: u64) -> Ran {
    let (setup, plan) = broken_takeover_episode(1, number);
    run_with(setup, plan)
}

/// Worlds of takeovers that are broken off, unless MAILRAFT_SEEDS names a number.
const BROKEN_EPISODES: u64 = 24;

#[test]
fn takeovers_that_are_broken_off_and_begun_again_lose_no_more_in_a_fixed_set_of_worlds() {
    let survey = survey("broken_takeover_episode", 0..worlds(BROKEN_EPISODES), broken);
    assert!(survey.operations > 300 * survey.ran, "{} operations", survey.operations);
}

/// Seeds in which the simulator found something, and what that was. What is drawn from a seed has changed since; the
/// interleavings themselves are in the scenarios `patient-sender`, `wrong-year` and `wrong-year-behind`.
const FOUND: [(u64, &str); 7] = [
    (102, "a leader whose clock had jumped by a day forgot a delivery, and stored its repeat again"),
    (107, "the same, while the sender's node was another"),
    (108, "the same, behind the others"),
    (1_020, "clocks that had been wrong for a while made every new command too old to be taken"),
    (1_030, "the same in two partitions"),
    (1_044, "a result was evicted before its client had the answer"),
    (1_045, "clocks again, with the cluster's time going back"),
];

#[test]
fn seeds_that_once_found_something_stay_clean() {
    for (seed, found) in FOUND {
        clean(&run_episode(Setup::new(seed)), &format!("seed {seed}, which once showed that {found}"));
    }
}

/// The same with the worlds of lowered thresholds and short days: seed, episode, and what was found.
const FOUND_IN_EPISODES: [(u64, u64, &str); 6] = [
    (8, 22, "a leader that knew no clock but its own, which was wrong, forgot deliveries"),
    (8, 55, "what a leader stored by its slow clock was taken for a day old when it heard the others"),
    (12, 43, "a leader that knew no clock but its own, in another partition"),
    (77, 7, "a message that fits no entry but for its place was refused as damaged"),
    (476_109_180, 10, "all of a folder was asked to be copied again, and what had come since was not copied"),
    (20_261_126, 97, "the plan of faults took a disk from a group of two voters"),
];

#[test]
fn episodes_that_once_found_something_stay_clean() {
    for (seed, number, found) in FOUND_IN_EPISODES {
        let what = format!("mailraft-chaos sim --seed {seed} --episode {number}, which once showed that {found}");
        clean(&run_episode(episode(seed, number)), &what);
    }
}

/// Worlds of two regions in which the checks found something wrong that was not.
#[test]
fn worlds_of_two_regions_that_once_misled_the_checks_stay_clean() {
    for (number, what) in [
        (63, "of two copies in a term that began alone, nobody knew which MODSEQ was whose"),
        (284, "a message was asked for again under the new name of its folder"),
        (801, "a home was alone by a row that was damaged since"),
        (390, "nobody asked what became of a delivery whose client still waited in the end"),
        (769, "an INBOX was renamed first of all in a term that began alone, and nobody was told at which MODSEQ"),
    ] {
        clean(&run_episode(region_episode(1, number)), what);
    }
    for (number, what) in [
        (147, "what a home did alone was evicted before anybody looked for it"),
        (163, "the rows of a node that was down lacked what its log had"),
        (167, "what one incarnation lacked was looked for in the next"),
        (177, "a STORE of which nobody knew was shown, at a MODSEQ of before a term that began alone"),
        (315, "the old home told sessions of a change that is lost, and answered nobody"),
        (348, "what lived on of a lost home was evicted as soon as it was applied, and taken for never done"),
        (763, "of a term that began alone before a takeover nobody was told but who resumed a folder"),
        (921, "a message was appended again of which nobody knew whether it was there, and it was"),
        (937, "what was stored last before a term that began alone was known from its repeat, and from who saw it"),
        (1_170, "who had applied that an incarnation began died before its rows were flushed"),
        (1_255, "a delivery that nobody knew of was joined by its repeat"),
        (1_507, "a log went on from an incarnation that was taken over before anything of it was committed"),
        (1_978, "of an incarnation nobody was told but who resumed a folder in it"),
        (2_244, "flags that were changed at a lost home lived on, and were evicted as soon as they were applied"),
    ] {
        clean(&takeover(number), what);
    }
}

/// Once a leader that was to be removed offered its lead for ever to a damaged follower, which took none.
#[test]
fn a_change_of_members_ends_where_the_first_choice_for_the_lead_is_damaged() {
    let setup = Setup {
        safety: 20_000_000,
        liveness: 6_000_000,
        fault_every: 600_000,
        large_permille: 300,
        operation_every: 1_000_000 / 30,
        bodies_read: 1_000,
        ..Setup::new(1_447)
    };
    clean(&run_episode(setup), "seed 1447 with large messages and a fault every 0.6 s");
}

#[test]
fn hours_with_few_clients_are_clean() {
    let hours = Setup { safety: 3 * 3_600_000_000, results_kept: Duration::from_secs(3_600), ..Setup::long(1) };
    let ran = run_episode(hours);
    clean(&ran, "three hours");
    assert!(ran.operations > 200 && ran.plan.len() > 200, "{} operations, {} faults", ran.operations, ran.plan.len());
}

#[test]
fn a_seed_gives_one_run_and_another_seed_another() {
    let short = |seed| Setup { safety: 20_000_000, ..Setup::new(seed) };
    let (one, again, other) = (run_episode(short(5)), run_episode(short(5)), run_episode(short(6)));
    assert_eq!((one.hash, one.events, one.operations), (again.hash, again.events, again.operations));
    assert_ne!(one.hash, other.hash);
}

#[test]
fn without_faults_nearly_everything_is_answered() {
    let calm = Setup { fault_every: u64::MAX / 100, safety: 30_000_000, ..Setup::new(3) };
    let ran = run_episode(calm);
    clean(&ran, "calm");
    // 50 a second are asked for; a client thinks, then waits for its answer.
    let seconds = 30 + 15;
    assert!(ran.operations > 45 * seconds, "{} operations in {seconds} s", ran.operations);
}

/// Only the directory is at work.
fn accounts_alone(seed: u64) -> Setup {
    let (safety, liveness, fault_every) = (20_000_000, 6_000_000, 600_000);
    Setup { accounts: 4, imap_sessions: 0, smtp_sessions: 0, safety, liveness, fault_every, ..Setup::new(seed) }
}

#[test]
fn accounts_are_changed_through_any_node_and_whoever_logs_in_sees_what_was_answered() {
    let mut answered = 0;
    for seed in 1..=20 {
        let ran = run_episode(accounts_alone(seed));
        clean(&ran, &format!("seed {seed} with accounts alone"));
        answered += ran.accounts_changed;
    }
    assert!(answered > 20 * 40, "{answered} changes of accounts were answered");
}

/// Once a replica that had all there is was never to vote: a blip had its leader ask whether it takes more, and there was
/// nothing more to ask with.
#[test]
fn a_change_of_members_ends_where_nothing_is_appended() {
    for seed in [54, 130] {
        clean(&run_episode(accounts_alone(seed)), &format!("seed {seed} with accounts alone"));
    }
}
