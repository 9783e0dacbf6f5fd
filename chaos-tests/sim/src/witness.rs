//! What was seen: the trace of what happened, what nodes claimed, the histories for the checkers, and what of it the
//! world itself saw to be wrong.

use std::collections::BTreeMap;

use mailraft_checkers::{Bounds, Checker, Micros, Record, Report, Rule, Violation};
use mailraft_storage::{NodeId, PartitionId, Term};
use raft::eraftpb::Message;

use crate::moments::{Moment, Moments};
use crate::questions::Questions;
use crate::trace::Trace;

/// Everything that was seen in a run.
pub struct Witness {
    trace: Trace,
    checker: Checker,
    /// Who led which term of a partition.
    led: BTreeMap<(PartitionId, Term), NodeId>,
    questions: Questions,
    wrong: Vec<Violation>,
    operations: u64,
    installed: u64,
    /// How often the world itself found that a rule held.
    held: BTreeMap<Rule, u64>,
    moments: Moments,
}

/// What a run showed, in the end.
pub struct Verdict {
    /// What the checkers and the world itself found.
    pub report: Report,
    /// The hash of everything that happened.
    pub hash: [u8; 32],
    /// How many events happened.
    pub events: u64,
    /// Client operations that ended.
    pub operations: u64,
    /// Snapshots installed.
    pub installed: u64,
    /// What it came to in takeovers, and how often.
    pub moments: Moments,
    /// The last lines of what happened.
    pub timeline: Vec<String>,
}

impl Witness {
    /// Nothing was seen yet. `loud` prints what happens.
    pub fn new(bounds: Bounds, loud: bool) -> Self {
        Witness {
            trace: Trace::new(loud),
            checker: Checker::new(bounds),
            led: BTreeMap::new(),
            questions: Questions::default(),
            wrong: Vec::new(),
            operations: 0,
            installed: 0,
            held: BTreeMap::new(),
            moments: Moments::new(),
        }
    }

    /// It has come to this.
    pub fn comes_to(&mut self, moment: Moment) {
        *self.moments.entry(moment).or_default() += 1;
    }

    /// Whether it has come to this.
    pub fn has_come_to(&self, moment: Moment) -> bool {
        self.moments.contains_key(&moment)
    }

    /// A line of the history that the checkers judge.
    pub fn record(&mut self, record: Record) {
        self.checker.record(record);
    }

    /// An event, as numbers that tell it from others.
    pub fn event(&mut self, at: Micros, what: &[u64]) {
        self.trace.event(at, what);
    }

    /// A line for people.
    pub fn line(&mut self, at: Micros, line: String) {
        self.trace.line(at, line);
    }

    /// A detail for people who watch.
    pub fn detail(&self, at: Micros, line: impl FnOnce() -> String) {
        self.trace.detail(at, line);
    }

    /// A node says that it leads a partition in a term. Who said so before, if anyone did.
    pub fn leads(&mut self, partition: PartitionId, term: Term, node: NodeId) -> Option<NodeId> {
        self.led.insert((partition, term), node)
    }

    /// A node sends a message in one life of its process, its own replica's or one that it passes on. What is wrong with
    /// the question in it, if anything.
    pub fn sent(&mut self, node: NodeId, life: u64, own: bool, message: &Message) -> Option<String> {
        self.questions.sent(node, life, own, message)
    }

    /// A client's operation has ended.
    pub fn operation_ended(&mut self) {
        self.operations += 1;
    }

    /// A snapshot's rows are in place.
    pub fn snapshot_installed(&mut self) {
        self.installed += 1;
    }

    /// How many snapshots' rows were put in place.
    pub fn installed(&self) -> u64 {
        self.installed
    }

    /// The world itself saw something that must never be.
    pub fn goes_wrong(&mut self, rule: Rule, at: Micros, what: String) {
        self.line(at, format!("WRONG: {what}"));
        self.wrong.push(Violation { rule, at, what });
    }

    /// The world itself looks whether a rule holds.
    pub fn held(&mut self, rule: Rule) {
        *self.held.entry(rule).or_default() += 1;
    }

    /// The first that the world itself saw to be wrong.
    pub fn wrong(&self) -> Option<&Violation> {
        self.wrong.first()
    }

    /// The last lines of what happened.
    pub fn timeline(&self) -> Vec<String> {
        self.trace.timeline()
    }

    /// The verdict. Where the world itself saw something wrong, the checkers are not asked.
    pub fn finish(self) -> Verdict {
        let Witness { trace, checker, wrong, operations, installed, held, moments, .. } = self;
        let mut report = if wrong.is_empty() { checker.finish() } else { Report::default() };
        for (rule, checks) in held {
            *report.checks.entry(rule).or_default() += checks;
        }
        report.violations_found += wrong.len() as u64;
        report.violations.splice(0..0, wrong);
        Verdict {
            report,
            hash: trace.hash(),
            events: trace.events(),
            operations,
            installed,
            moments,
            timeline: trace.timeline(),
        }
    }
}
