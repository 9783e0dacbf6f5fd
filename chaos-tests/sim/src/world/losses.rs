//! What a takeover loses, and what it must not.

use std::collections::BTreeMap;

use mailraft_checkers::{Micros, Record, Rule};
use mailraft_cluster::taken_over;
use mailraft_storage::{Entry, EntryKind, Index, NodeId, PartitionId, ReplicaId, TakenOver, Term};

use super::regions::bound_us;
use crate::moments::Moment;
use crate::promise::{Answered, Told};
use crate::world::World;

impl World {
    /// Something is answered that a takeover may lose, or must not.
    pub(super) fn may_be_lost(&mut self, node: NodeId, partition: PartitionId, answered: Answered, alone: bool) {
        if !self.promise.is_takeover_expected() {
            return;
        }
        let leading = self.host(node).up.as_ref().and_then(|process| process.leading.get(&partition));
        // The home never has another than the first.
        let incarnation = leading.filter(|_| self.promise.is_far(node)).map_or(1, |leading| leading.incarnation.number);
        let held = self.is_held(partition, answered.index, Some(answered.term));
        self.promise.told(partition).push(Told { incarnation, answered, held, alone });
    }

    /// The number of the incarnation in which an entry was made, as a replica's rows say: what was done before is answered
    /// with its own position.
    pub(super) fn incarnation_at(&self, node: NodeId, replica: ReplicaId, index: Index) -> Option<u32> {
        let taken = taken_over::of_group(&self.host(node).rows, replica).ok()?;
        let taken = taken.into_iter().filter(|taken| taken.fork.index < index);
        taken.map(|taken| taken.incarnation.number).max().or(Some(1))
    }

    /// Whether a node's rows say that an incarnation of a partition has begun.
    pub(super) fn has_begun_at(&self, node: NodeId, partition: PartitionId) -> bool {
        let Some(replica) = self.replica(node, partition) else { return false };
        taken_over::of_group(&self.host(node).rows, replica).is_ok_and(|taken| !taken.is_empty())
    }

    /// What of that is held by now. Once an operator has given his word, standbys are no longer what they were.
    pub(super) fn notes_what_is_held(&mut self) {
        if !self.promise.is_takeover_expected() || self.promise.is_word_given() {
            return;
        }
        for partition in self.partitions() {
            let mut told = std::mem::take(self.promise.told(partition));
            for one in told.iter_mut().filter(|told| !told.held) {
                one.held = self.is_held(partition, one.answered.index, Some(one.answered.term));
            }
            *self.promise.told(partition) = told;
        }
    }

    /// Incarnations that have begun in the backup region: what they lack was not held, and was answered alone or within the
    /// bound.
    pub(super) fn takeovers_are_seen(&mut self) {
        if !self.promise.is_word_given() {
            return;
        }
        let far: Vec<NodeId> = self.promise.far().iter().copied().collect();
        for node in far {
            for partition in self.partitions() {
                let Some(replica) = self.replica(node, partition) else { continue };
                let taken = taken_over::of_group(&self.host(node).rows, replica).unwrap_or_default();
                for taken in taken {
                    let (number, fork) = (taken.incarnation.number, taken.fork.index);
                    if self.promise.has_begun(partition, number) {
                        continue;
                    }
                    for (unshown, its_fork) in self.unshown_before(node, partition, &taken) {
                        self.promise.passes(partition, unshown, its_fork);
                        self.takes_over_with(node, partition, unshown, its_fork);
                    }
                    self.promise.begins(partition, number, fork);
                    self.takes_over_with(node, partition, number, fork);
                }
            }
        }
        self.control_is_first();
    }

    /// The incarnations that nobody's rows show, as their first entries were never committed in them, and from whose logs this
    /// one goes on all the same; and the last index of what was before each. What they lacked was lost already.
    fn unshown_before(&self, node: NodeId, partition: PartitionId, taken: &TakenOver) -> BTreeMap<u32, Index> {
        let mut unshown = BTreeMap::new();
        let mut index = taken.fork.index;
        while let Some(term) = self.term_at(node, partition, index) {
            let number = incarnation_of(term);
            if number < 2 || self.promise.has_begun(partition, number) {
                break;
            }
            index = Index(index.0 - 1);
            unshown.insert(number, index);
        }
        unshown
    }

    /// Whether a majority of the control group's standbys have an entry durably that begins this incarnation: whoever applied it
    /// tells others at once, while his rows are flushed later, and behind a crash lack it until it is applied again.
    fn is_begun_in_logs(&self, number: u32) -> bool {
        let standbys = self.promise.standbys(PartitionId::CONTROL);
        let have = standbys.iter().filter(|(node, replica)| self.has_beginning(*node, *replica, number));
        2 * have.count() > standbys.len()
    }

    fn has_beginning(&self, node: NodeId, replica: ReplicaId, number: u32) -> bool {
        let log = self.host(node).log.as_log();
        let Ok(Some(state)) = log.state(replica) else { return false };
        let (from, to) = (Index(state.cut.index.0 + 1), Index(state.last.0 + 1));
        let entries = log.entries(replica, from, to, usize::MAX).unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| Entry::decode(&entry.data).ok())
            .any(|entry| matches!(entry.kind, EntryKind::Takeover(_)) && entry.header.incarnation.number == number)
    }

    /// No other partition is of an incarnation that the control group's has not begun.
    fn control_is_first(&mut self) {
        for (partition, (node, replica)) in self.promise.all_standbys() {
            let state = self.host(node).log.as_log().state(replica).ok().flatten();
            let adopted = state.and_then(|state| Some(state.incarnation.adopted?.incarnation.number));
            let Some(adopted) = adopted.filter(|_| partition != PartitionId::CONTROL) else { continue };
            self.witness.held(Rule::Superseded);
            if !self.promise.has_begun(PartitionId::CONTROL, adopted) && !self.is_begun_in_logs(adopted) {
                let what = format!(
                    "node {node}: partition {partition} is of incarnation {adopted}, and the control group is not"
                );
                return self.goes_wrong(Rule::Superseded, what);
            }
        }
    }

    fn takes_over_with(&mut self, node: NodeId, partition: PartitionId, incarnation: u32, fork: Index) {
        let earlier = self.promise.told_before(partition, incarnation);
        let (kept, lost): (Vec<Told>, Vec<Told>) = earlier.into_iter().partition(|told| told.answered.index <= fork);
        for Told { answered: Answered { index, term, at }, .. } in kept {
            self.witness.held(Rule::Held);
            if self.term_at(node, partition, index).is_some_and(|found| found != term) {
                let what = format!(
                    "incarnation {incarnation} of partition {partition} has another entry {index} than was answered at {at} us"
                );
                return self.goes_wrong(Rule::Held, what);
            }
        }
        self.say(format!(
            "partition {partition} is of incarnation {incarnation} from {fork} on, and lacks {} answers",
            lost.len()
        ));
        self.counts_beginning(partition, incarnation, lost.len());
        let waited = lost.iter().filter(|told| !told.alone);
        let newest = waited.map(|told| told.answered.at).max().unwrap_or_default();
        for told in &lost {
            let Answered { index, term, at } = told.answered;
            let what = || {
                format!(
                    "incarnation {incarnation} of partition {partition} lacks entry {index} of term {term}, answered at {at} us"
                )
            };
            let (rule, bound) = match self.promise.rpo_max() {
                None => (Rule::Held, None),
                Some(rpo_max) => (Rule::Bound, Some(bound_us(rpo_max))),
            };
            self.witness.held(rule);
            if told.held {
                return self.goes_wrong(Rule::Held, format!("{}, which was held", what()));
            }
            if !told.alone && bound.is_none_or(|bound| newest > at + bound) {
                return self.goes_wrong(rule, what());
            }
        }
        let shown_since = self.promise.may_show_lost_since(partition, incarnation);
        let lost_since: Option<Micros> = lost.iter().map(|told| told.answered.at).chain(shown_since).min();
        let at = self.now();
        self.record(Record::TakenOver { at, partition: partition.0, incarnation, fork: fork.0, lost_since });
    }

    /// The old home answers after an operator's word: under `geo` nothing that its successor lacks, unless alone.
    pub(super) fn old_home_answers(&mut self, node: NodeId, partition: PartitionId, index: Index, term: Term) {
        let held = self.is_held(partition, index, Some(term));
        self.witness.comes_to(Moment::OldHomeAnswers);
        if !held {
            self.witness.comes_to(Moment::OldHomeAnswersUnheld);
        }
        if self.promise.rpo_max().is_some() || self.says_alone(node, partition) {
            return;
        }
        self.witness.held(Rule::Superseded);
        if !held {
            let what =
                format!("node {node} answers entry {index} of partition {partition}, which those lack who took over");
            self.goes_wrong(Rule::Superseded, what);
        }
    }

    fn partitions(&self) -> Vec<PartitionId> {
        (0..=self.setup.partitions).map(PartitionId).collect()
    }
}

/// The number of the incarnation that a term is one of.
fn incarnation_of(term: Term) -> u32 {
    (term.0 >> 32) as u32
}
