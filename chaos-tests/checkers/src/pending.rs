//! Changing operations that wait for their place in the log.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{Answer, Refusal};

use crate::answers::modseq_of;
use crate::history::{At, Op};
use crate::model::Model;
use crate::operation::{Operation, Outcome};

/// A changing operation that is to find its place in an entry.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub operation: usize,
    /// None: nobody told its result, or whether it was carried out.
    pub result: Option<Result<Answer, Refusal>>,
    /// Its last MODSEQ.
    pub modseq: Option<u64>,
    /// The MODSEQ is an event's word, not its answer's.
    pub hint: bool,
    /// Whether its result says that it changed something.
    pub changes: bool,
    /// It was answered as one before it was, under another id.
    pub repeats: bool,
}

impl Pending {
    /// An operation with its result, if that was told.
    pub fn new(operation: usize, of: &Operation, result: Option<Result<Answer, Refusal>>) -> Self {
        let told = result.as_ref().and_then(modseq_of);
        let changes = match &result {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(Answer::Flagged { modseq, .. } | Answer::Expunged { modseq, .. })) => modseq.is_some(),
            Some(Ok(Answer::Copied { from, .. })) => !from.is_empty(),
            Some(Ok(_)) => true,
        };
        Pending { operation, changes, modseq: told.or(of.hint), hint: told.is_none(), result, repeats: false }
    }
}

/// What is known of the mailbox's MODSEQ after an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub exact: Option<u64>,
    pub below: u64,
}

impl End {
    /// Nothing is known.
    pub const OPEN: End = End { exact: None, below: u64::MAX };
}

/// What later answers say of the mailbox's MODSEQ after each entry.
pub(crate) fn ends(changes: &BTreeMap<At, Vec<Pending>>, operations: &[Operation]) -> Vec<End> {
    let mut highest = 0;
    let mut costs: Vec<Costs> = Vec::with_capacity(changes.len());
    for pending in changes.values() {
        // A repeated delivery is answered with an old MODSEQ.
        let told = |p: &&Pending| p.changes && !p.hint && p.modseq.is_some_and(|modseq| modseq > highest);
        let told: BTreeSet<u64> = pending.iter().filter(told).filter_map(|p| p.modseq).collect();
        let untold = pending.iter().filter(|p| p.changes && (p.hint || p.modseq.is_none()));
        let untold: Vec<(u64, bool)> = untold.map(|p| cost(&operations[p.operation].op)).collect();
        highest = told.last().copied().unwrap_or(highest);
        costs.push(Costs {
            lowest: told.first().copied(),
            least: told.len() as u64 + untold.iter().map(|(least, _)| least).sum::<u64>(),
            fixed: untold.iter().all(|(_, fixed)| *fixed),
            only_told: untold.iter().all(|cost| *cost == (0, true)),
        });
    }
    let mut ends = Vec::with_capacity(costs.len());
    let mut end = End::OPEN;
    for Costs { lowest, least, fixed, only_told } in costs.into_iter().rev() {
        ends.push(end);
        let exact = match lowest {
            Some(lowest) if only_told => Some(lowest.saturating_sub(1)),
            _ => end.exact.filter(|_| fixed).map(|exact| exact.saturating_sub(least)),
        };
        let below = end.below.saturating_sub(if end.below == u64::MAX { 0 } else { least });
        end = End { exact, below: below.min(lowest.unwrap_or(u64::MAX)) };
    }
    ends.reverse();
    ends
}

/// What an entry takes of the mailbox's MODSEQs.
struct Costs {
    /// The lowest that an answer names.
    lowest: Option<u64>,
    least: u64,
    /// Whether it takes no more.
    fixed: bool,
    /// Whether answers name all.
    only_told: bool,
}

/// How many MODSEQs an operation takes at least if it changes something, and whether it takes no more.
fn cost(op: &Op) -> (u64, bool) {
    match op {
        Op::Deliver { .. }
        | Op::Append { .. }
        | Op::Store { .. }
        | Op::Copy { .. }
        | Op::Expunge { .. }
        | Op::Remove { .. }
        | Op::Delete { .. } => (1, true),
        Op::Move { .. } => (2, true),
        // And one for each level above that is missing.
        Op::Create { .. } | Op::Rename { .. } => (1, false),
        Op::Subscribe { .. }
        | Op::Sync
        | Op::List
        | Op::Status { .. }
        | Op::Select { .. }
        | Op::Fetch { .. }
        | Op::Unselect
        | Op::ReadBody { .. }
        | Op::Maildrop
        | Op::UniqueIds { .. } => (0, true),
    }
}

/// The number of the first incarnation that anybody told of. Answers of which nobody knows the position have modification
/// sequences.
pub(crate) fn first_incarnation(operations: &[Operation]) -> u32 {
    let told = operations.iter().filter_map(|o| match o.outcome() {
        Outcome::Took(_, result) => modseq_of(&result).map(Model::incarnation_of),
        Outcome::Unknown | Outcome::NotDone => None,
    });
    let positions = operations.iter().filter_map(|o| o.position);
    positions.map(|at| at.incarnation).chain(told).min().unwrap_or(1)
}
