//! The backup region takes over from the home.

use mailraft_checkers::Rule;
use mailraft_cluster::{Input, ReplicaStatus, TakeOverOutcome};
use mailraft_storage::{Incarnation, NodeId, PartitionId};

use crate::host::Waiter;
use crate::moments::Moment;
use crate::world::World;

/// What the operator who comes last tells his incarnation by.
const LAST_NONCE: u8 = 0xff;

/// Which incarnation an operator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// That with which the nodes that he reaches go on, where they agree; else a higher one.
    AsKnown,
    /// The first above all that they know that is the first one's, as numbers are dealt out among the nodes there.
    Drawn,
}

impl World {
    /// A script will have the backup region take over.
    pub fn expects_takeover(&mut self) {
        self.promise.expects_takeover();
    }

    /// An operator says at some nodes of the backup region that it takes over; he sees what these know, and goes on where
    /// another one left off. Clients are told to connect there from then on, whatever comes of it.
    pub(super) fn take_over(&mut self, nodes: &[NodeId], nonce: u8, names: Names) {
        let known: Vec<ReplicaStatus> = nodes.iter().filter_map(|node| self.control_status(*node)).collect();
        let Some(highest) = known.iter().map(|status| status.incarnation.number).max() else { return };
        let of_highest = || known.iter().filter(|status| status.incarnation.number == highest);
        let first = of_highest().next().map(|status| status.incarnation);
        let agree = of_highest().all(|status| Some(status.incarnation) == first && !status.contested);
        let goes_on = first.filter(|_| agree && highest > 1 && names == Names::AsKnown);
        let number = match names {
            Names::AsKnown => highest + 1,
            Names::Drawn => self.drawn_at(nodes, highest),
        };
        let new = Incarnation { number, nonce: [nonce; 16] };
        let incarnation = goes_on.unwrap_or(new);
        // The last one is given where nothing is broken any more.
        if nonce != LAST_NONCE {
            self.counts_word(nodes, incarnation, goes_on.is_some());
        }
        if !self.promise.is_word_given() {
            self.notes_what_is_held();
            let at = self.now();
            self.promise.gives_word(at);
            let home: Vec<NodeId> = self.nodes().into_iter().filter(|node| !self.promise.is_far(*node)).collect();
            home.into_iter().for_each(|node| self.clients_leave(node));
            self.all_sessions_hear_of_leaders();
        }
        for node in nodes {
            let Some(process) = self.host_mut(*node).up.as_mut() else { continue };
            let request = process.request(Waiter::TakeOver);
            self.say(format!("an operator says at node {node} that it takes over as {}", incarnation.number));
            let word = "the home is off".to_owned();
            self.input(*node, Input::TakeOver { request, incarnation, word });
        }
    }

    /// The first number above another one that is the first of these nodes'.
    fn drawn_at(&self, nodes: &[NodeId], highest: u32) -> u32 {
        let far = self.promise.far();
        let place = nodes.first().and_then(|node| far.iter().position(|other| other == node)).unwrap_or_default();
        let (place, of) = (place as u32, far.len() as u32);
        (highest + 1..=highest + of).find(|number| number % of == place).unwrap_or(highest + 1)
    }

    /// Whoever began a takeover ends it once he reaches every node. Where nobody heard a word it is said now.
    pub(super) fn finishes_takeover(&mut self) {
        if self.promise.is_takeover_expected() {
            let far: Vec<NodeId> = self.promise.far().iter().copied().collect();
            self.take_over(&far, LAST_NONCE, Names::AsKnown);
            self.settle();
        }
    }

    /// What an operator is told is durable.
    pub(super) fn operator_is_answered(&mut self, node: NodeId, outcome: TakeOverOutcome) {
        self.say(format!("node {node} answers its operator: {outcome:?}"));
        self.witness.held(Rule::Held);
        self.counts_outcome(outcome);
        let replica = self.replica(node, PartitionId::CONTROL);
        let state = replica.and_then(|replica| self.host(node).log.as_log().state(replica).ok().flatten());
        let adopted = state.is_some_and(|state| state.incarnation.adopted.is_some());
        if outcome == TakeOverOutcome::Adopted && !adopted {
            self.goes_wrong(Rule::Held, format!("node {node} says that it has adopted, and its disk does not"));
        }
    }

    fn control_status(&self, node: NodeId) -> Option<ReplicaStatus> {
        let process = self.host(node).up.as_ref()?;
        process.core.status().into_iter().find(|status| status.partition == PartitionId::CONTROL)
    }

    /// Who was sealed once stays so.
    pub(super) fn sealed_stay_sealed(&mut self) {
        if !self.promise.is_word_given() {
            return;
        }
        let all = self.hosts.values().filter_map(|host| host.up.as_ref());
        let all: Vec<ReplicaStatus> = all.flat_map(|process| process.core.status()).collect();
        for status in all {
            self.witness.held(Rule::Held);
            if status.contested && self.promise.is_contested_first(status.replica) {
                self.witness.comes_to(Moment::Contested);
            }
            if status.sealed_by.is_some() && self.promise.is_sealed_first(status.replica) {
                self.witness.comes_to(Moment::Sealed);
            }
            if self.promise.is_unsealed(status.replica, status.sealed_by.is_some()) {
                let what = format!("replica {} of partition {} was sealed", status.replica, status.partition);
                self.goes_wrong(Rule::Held, what);
            }
        }
    }
}
