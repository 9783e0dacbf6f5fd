//! What the checks found.

use std::collections::BTreeMap;
use std::fmt;

use mailraft_mailbox::limits::{DELIVERIES_MAX, DELIVERY_KEPT_MILLIS, REPEAT_KEPT_MILLIS, REPEATS_MAX};
use serde::{Deserialize, Serialize};

use crate::history::Micros;

/// What must hold, whatever fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// 1
    ExactlyOnce,
    /// 2
    Uids,
    /// 3
    Modseq,
    /// 4
    Flags,
    /// 5
    Uncommitted,
    /// 6
    View,
    /// 7
    Atomic,
    /// 8
    ReplicasAgree,
    /// 9
    Stale,
    /// 10
    Liveness,
    /// 11
    Held,
    /// 12
    Bound,
    /// 13
    Shown,
    /// 14
    Alone,
    /// 15
    Superseded,
    /// 16
    Forks,
}

impl Rule {
    /// All, by number.
    pub const ALL: [Rule; 16] = [
        Rule::ExactlyOnce,
        Rule::Uids,
        Rule::Modseq,
        Rule::Flags,
        Rule::Uncommitted,
        Rule::View,
        Rule::Atomic,
        Rule::ReplicasAgree,
        Rule::Stale,
        Rule::Liveness,
        Rule::Held,
        Rule::Bound,
        Rule::Shown,
        Rule::Alone,
        Rule::Superseded,
        Rule::Forks,
    ];

    /// Those about other regions. Whoever simulates such judges by them; no history shows what a region holds.
    pub const OF_REGIONS: [Rule; 4] = [Rule::Held, Rule::Bound, Rule::Shown, Rule::Alone];

    /// Those about what becomes of a home that was lost.
    pub const OF_TAKEOVERS: [Rule; 2] = [Rule::Superseded, Rule::Forks];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::ExactlyOnce => "1 each accepted message is stored exactly once, an unanswered one at most once",
            Rule::Uids => "2 UIDs rise and are never used again, UIDVALIDITY neither",
            Rule::Modseq => "3 HIGHESTMODSEQ never falls, and who syncs from one misses nothing",
            Rule::Flags => "4 flags are linearizable",
            Rule::Uncommitted => "5 nothing is seen that is not in the log",
            Rule::View => "6 events replayed in a session give the server's state",
            Rule::Atomic => "7 a change of several messages is seen whole or not at all",
            Rule::ReplicasAgree => "8 replicas agree",
            Rule::Stale => "9 no answer is older than what ended before it was asked",
            Rule::Liveness => "10 once healed, every partition serves within the bound",
            Rule::Held => "11 under geo a backup region holds everything that is answered",
            Rule::Bound => "12 under region nothing is answered beyond the bound on what a backup region lacks",
            Rule::Shown => "13 under geo nobody is shown what a backup region lacks",
            Rule::Alone => "14 alone only after it is recorded, and whole only once all that was answered is held",
            Rule::Superseded => "15 no home answers what the one that took over from it lacks",
            Rule::Forks => "16 what clients saw that is lost never means something else",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What was broken.
    pub rule: Rule,
    /// When it was seen.
    pub at: Micros,
    /// Mailbox, ids, index, what was expected and what was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: at {} us: {}", self.rule, self.at, self.what)
    }
}

/// What a run must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// After all faults end, each partition with writers serves one of them within this time.
    pub serves_within: Micros,
    /// So long a delivery is remembered at least, and a repeat answered with the first one's answer.
    pub delivery_kept: Micros,
    /// So many deliveries of a mailbox are remembered at least.
    pub deliveries_max: usize,
    /// So long the answer to a command is kept at least for a client that did not hear it and asks again.
    pub repeat_kept: Micros,
    /// ... and no longer than this.
    pub repeat_forgotten: Micros,
    /// So many commands of a mailbox are remembered for that at least.
    pub repeats_max: usize,
}

impl Bounds {
    /// What production keeps to, but for the time in which it must serve.
    pub fn serving_within(serves_within: Micros) -> Self {
        Bounds {
            serves_within,
            delivery_kept: DELIVERY_KEPT_MILLIS * 1_000,
            deliveries_max: DELIVERIES_MAX,
            // Who drives real clients does not tell what they heard.
            repeat_kept: 0,
            repeat_forgotten: 2 * REPEAT_KEPT_MILLIS * 1_000,
            repeats_max: REPEATS_MAX,
        }
    }
}

/// What a history shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What is wrong, at most [`VIOLATIONS_MAX`], in the order in which it was found.
    pub violations: Vec<Violation>,
    /// How many were wrong, those left out counted too.
    pub violations_found: u64,
    /// How many operations were asked.
    pub operations: u64,
    /// How many comparisons each rule made.
    pub checks: BTreeMap<Rule, u64>,
    /// How many comparisons were left out, because they depend on what nobody knows.
    pub skipped: u64,
    /// For each kind of fault the longest time in which a partition had waiting writers and served none.
    pub without_service: BTreeMap<String, Micros>,
}

/// The most violations that a report tells one by one.
pub const VIOLATIONS_MAX: usize = 1_000;

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Takes over what another found.
    pub(crate) fn merge(&mut self, other: Report) {
        let room = VIOLATIONS_MAX.saturating_sub(self.violations.len());
        self.violations.extend(other.violations.into_iter().take(room));
        self.violations_found += other.violations_found;
        self.skipped += other.skipped;
        for (rule, comparisons) in other.checks {
            self.held(rule, comparisons);
        }
    }

    /// Counts comparisons that held.
    pub(crate) fn held(&mut self, rule: Rule, comparisons: u64) {
        *self.checks.entry(rule).or_default() += comparisons;
    }

    /// Compares once for a rule; `what` tells the violation if it does not hold. Returns whether it holds.
    pub(crate) fn check(&mut self, rule: Rule, at: Micros, holds: bool, what: impl FnOnce() -> String) -> bool {
        *self.checks.entry(rule).or_default() += 1;
        if !holds {
            self.violations_found += 1;
            if self.violations.len() < VIOLATIONS_MAX {
                self.violations.push(Violation { rule, at, what: what() });
            }
        }
        holds
    }
}
