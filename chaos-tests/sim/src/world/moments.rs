//! What a takeover comes to: counted, and judged nowhere.

use std::collections::BTreeSet;

use mailraft_cluster::mode::{Mode, ModeRow};
use mailraft_cluster::{ReplicaStatus, TakeOverOutcome, TakeOverRefusal};
use mailraft_mailbox::api::Resumed;
use mailraft_storage::{Adoption, Incarnation, NodeId, PartitionId, ReplicaId};

use crate::moments::Moment;
use crate::world::World;

/// A MODSEQ is a counter of this many bits below the incarnation's number.
const MODSEQ_COUNTER_BITS: u32 = 40;

/// The number of the incarnation in which a MODSEQ was given.
fn number(modseq: u64) -> u64 {
    modseq >> MODSEQ_COUNTER_BITS
}

impl World {
    /// How things stand as an operator gives a word at these nodes, which names this incarnation.
    pub(super) fn counts_word(&mut self, nodes: &[NodeId], incarnation: Incarnation, goes_on: bool) {
        let all: Vec<ReplicaStatus> =
            self.hosts.values().filter_map(|h| h.up.as_ref()).flat_map(|p| p.core.status()).collect();
        let (far, home): (Vec<NodeId>, Vec<NodeId>) = self.nodes().into_iter().partition(|n| self.promise.is_far(*n));
        let is_up = |node: &&NodeId| self.host(**node).up.is_some();
        let up = home.iter().filter(is_up).count();
        let lives = 2 * up > home.len();
        let hears = |far: &&NodeId| home.iter().any(|near| !self.net.is_blocked(*near, **far));
        let hearing = far.iter().filter(hears).count();
        let standbys = self.promise.standbys(PartitionId::CONTROL);
        let reached = nodes.iter().filter(is_up).count();
        let has_snapshot = |node: &NodeId| {
            let host = self.host(*node);
            !host.staged.is_empty()
                || host.up.as_ref().is_some_and(|p| !p.installing.is_empty() || !p.replacing.is_empty())
        };
        let to_far = |s: &ReplicaStatus| s.followers.iter().any(|f| f.snapshot && self.promise.is_far(f.node));
        let sends_snapshot = all.iter().any(to_far);
        let states = standbys.iter().filter_map(|standby| self.adopted_by(*standby)).collect::<Vec<_>>();
        let led: BTreeSet<PartitionId> =
            self.hosts.values().filter_map(|h| h.up.as_ref()).flat_map(|p| p.leading.keys().copied()).collect();
        let versions: BTreeSet<u64> = self
            .hosts
            .values()
            .filter(|h| h.up.is_some())
            .filter_map(|host| {
                let control = self.replica(host.id, PartitionId::CONTROL)?;
                ModeRow::read(&host.rows, control).ok().map(|row| row.version)
            })
            .collect();
        let mode = self.promise.mode().mode;
        let begun = |of: &Adoption| self.promise.has_begun(PartitionId::CONTROL, of.incarnation.number);
        let rival =
            |of: &Adoption| of.incarnation.number == incarnation.number && of.incarnation.nonce != incarnation.nonce;
        let moments = [
            (Moment::WordHomeDead, up == 0),
            (Moment::WordHomeCutOff, lives && hearing == 0),
            (Moment::WordHomeHeard, lives && hearing == far.len()),
            (Moment::WordHomeHeardBySome, lives && hearing > 0 && hearing < far.len()),
            (Moment::WordAtMinority, reached > 0 && 2 * reached <= standbys.len()),
            (Moment::WordInSnapshot, far.iter().any(has_snapshot) || sends_snapshot),
            (Moment::WordAhead, all.iter().any(|s| s.ahead.is_some())),
            (Moment::WordInElection, lives && led.len() <= self.setup.partitions as usize),
            (Moment::WordAlone, lives && mode == Mode::Alone && !self.promise.has_begun_any()),
            (Moment::WordReturning, lives && mode == Mode::Returning && !self.promise.has_begun_any()),
            (Moment::WordInChangeOfMode, versions.len() > 1 && !self.promise.has_begun_any()),
            (Moment::WordInSettings, self.promise.wanted().iter().any(|wish| wish.done.is_none())),
            (Moment::WordOverHalf, states.iter().any(|of| !begun(of))),
            (
                Moment::WordOverBegun,
                self.promise.has_begun_any() && states.iter().all(|of| of.incarnation.number < incarnation.number),
            ),
            (Moment::WordElsewhere, goes_on && nodes.iter().any(|node| self.promise.is_new_to_word(*node))),
            (Moment::WordRival, states.iter().any(rival)),
        ];
        for (moment, _) in moments.into_iter().filter(|(_, comes)| *comes) {
            self.witness.comes_to(moment);
        }
        self.promise.asks(nodes);
    }

    /// What a standby has adopted, durably.
    fn adopted_by(&self, (node, replica): (NodeId, ReplicaId)) -> Option<Adoption> {
        self.host(node).log.as_log().state(replica).ok().flatten()?.incarnation.adopted
    }

    /// A node is about to die.
    pub(super) fn counts_death(&mut self, node: NodeId) {
        if !self.promise.is_word_given() || self.host(node).up.is_none() {
            return;
        }
        let mut moments = BTreeSet::new();
        for number in 0..=self.setup.partitions {
            let partition = PartitionId(number);
            let standbys = self.promise.standbys(partition).to_vec();
            let adopted: Vec<Option<u32>> =
                standbys.iter().map(|s| Some(self.adopted_by(*s)?.incarnation.number)).collect();
            let highest = adopted.iter().flatten().max().copied();
            if self.promise.is_far(node) && highest.is_some() && adopted.iter().any(|of| *of != highest) {
                let is_control = partition == PartitionId::CONTROL;
                moments.insert(if is_control {
                    Moment::DiesBetweenAdoptions
                } else {
                    Moment::DiesBetweenMailAdoptions
                });
            }
            let own = standbys.iter().zip(&adopted).find(|((of, _), _)| *of == node).and_then(|(_, adopted)| *adopted);
            if partition == PartitionId::CONTROL && own.is_some_and(|own| !self.promise.has_begun(partition, own)) {
                moments.insert(Moment::DiesAdopted);
            }
        }
        let process = self.host(node).up.as_ref();
        if process.is_some_and(|p| p.core.status().iter().any(|s| s.sealed_by.is_some())) {
            moments.insert(Moment::SealedDies);
        }
        moments.into_iter().for_each(|moment| self.witness.comes_to(moment));
    }

    /// What an operator is told.
    pub(super) fn counts_outcome(&mut self, outcome: TakeOverOutcome) {
        let moment = match outcome {
            TakeOverOutcome::Adopted => Moment::SaysAdopted,
            TakeOverOutcome::Refused(TakeOverRefusal::Ahead(_)) => Moment::RefusedAhead,
            TakeOverOutcome::Refused(TakeOverRefusal::NotHigher { .. }) => Moment::RefusedNotHigher,
            TakeOverOutcome::Refused(TakeOverRefusal::Sealed) => Moment::RefusedSealed,
            TakeOverOutcome::Refused(TakeOverRefusal::Busy) => Moment::RefusedBusy,
            TakeOverOutcome::Refused(TakeOverRefusal::IsHome) => Moment::RefusedHome,
            TakeOverOutcome::Refused(TakeOverRefusal::NoStandby) => return,
        };
        self.witness.comes_to(moment);
    }

    /// An incarnation of a partition has begun, and of the answers before it so many are lost.
    pub(super) fn counts_beginning(&mut self, partition: PartitionId, incarnation: u32, lost: usize) {
        if lost > 0 {
            self.witness.comes_to(Moment::LosesAnswers);
        }
        if partition == PartitionId::CONTROL {
            self.witness.comes_to(Moment::Begins);
            if (2..incarnation).any(|before| self.promise.has_begun(partition, before)) {
                self.witness.comes_to(Moment::BeginsAgain);
            }
        }
    }

    /// A session resumes its folder from a MODSEQ, and is told this.
    pub(super) fn counts_resume(&mut self, since: u64, resumed: &Resumed) {
        if number(since) < number(resumed.highest_modseq) {
            self.witness.comes_to(Moment::ResumesOver);
            if is_told_everything(since, resumed) {
                self.witness.comes_to(Moment::ResumesPastFork);
            }
        }
    }

    /// A client comes back with what it has kept up to a MODSEQ, and is told this.
    pub(super) fn counts_return(&mut self, partition: PartitionId, since: u64, resumed: &Resumed) {
        self.witness.comes_to(Moment::Returns);
        let (kept, now) = (number(since), number(resumed.highest_modseq));
        if kept < now {
            self.witness.comes_to(Moment::ReturnsOver);
            if is_told_everything(since, resumed) {
                self.witness.comes_to(Moment::ReturnsPastFork);
            }
        }
        let begun = (kept + 1..=now).filter(|number| self.promise.has_begun(partition, *number as u32));
        if begun.count() > 1 {
            self.witness.comes_to(Moment::ReturnsOverTwo);
        }
    }
}

/// Whether somebody is told of more than what changed since a MODSEQ: it lies past a fork.
fn is_told_everything(since: u64, resumed: &Resumed) -> bool {
    resumed.changed.iter().any(|message| message.modseq <= since)
}
