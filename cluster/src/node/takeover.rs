//! What an operator's word and the control group's rows make of a node's replicas ([`crate::takeover`]).

use mailraft_storage::log::LogWrite;
use mailraft_storage::takeover::WORD_MAX_BYTES;
use mailraft_storage::{Adoption, Env, Incarnation, NodeId, PartitionId, ReplicaId};

use super::Node;
use crate::members::Admission;
use crate::outcome::{Decision, TakeOverOutcome, TakeOverRefusal};
use crate::plant::{self, Fault};
use crate::replica::{Held, Replica, Speaks, Turn};
use crate::seam::{Output, PeerBody, PeerMessage, RequestId};
use crate::taken_over::INCARNATION_MAX;
use crate::takeover::standbys;

/// Nodes look again whether a row names a replica here as a voter after so many ticks (1 s).
pub(super) const LOOK_EVERY_TICKS: u64 = 40;

impl Node {
    /// An operator says that this node's region takes the cluster over.
    pub(super) fn take_over(
        &mut self,
        request: RequestId,
        incarnation: Incarnation,
        word: String,
        out: &mut Vec<Output>,
    ) {
        let outcome = match self.adoption(incarnation, word) {
            Ok(Some(adoption)) => return self.adopts(adoption, request, out),
            Ok(None) => TakeOverOutcome::Adopted,
            Err(why) => TakeOverOutcome::Refused(why),
        };
        out.push(Output::Decided { request, decision: Decision::TakeOver(outcome) });
    }

    /// What this node's replica of the control group is to adopt; None if it has done so.
    fn adoption(&self, incarnation: Incarnation, word: String) -> Result<Option<Adoption>, TakeOverRefusal> {
        let control = self.replicas.get(&PartitionId::CONTROL).ok_or(TakeOverRefusal::NoStandby)?;
        let regions = self.config.regions.as_ref().ok_or(TakeOverRefusal::NoStandby)?;
        if !(2..=INCARNATION_MAX).contains(&incarnation.number) || word.len() > WORD_MAX_BYTES {
            return Err(TakeOverRefusal::NotHigher { own: control.incarnation().number });
        }
        if control.incarnation() == incarnation && !control.is_contested() {
            return Ok(None);
        }
        control.may_adopt(incarnation)?;
        let region = regions.of(self.config.node).ok_or(TakeOverRefusal::NoStandby)?;
        // One of its voters may have adopted a higher number than that which began, and hears nobody any more.
        let is_split = control.is_contested() || control.is_left_behind_by(incarnation);
        if regions.home() == region && !is_split {
            return Err(TakeOverRefusal::IsHome);
        }
        let placed = regions.placements().find(|p| p.partition == PartitionId::CONTROL);
        let voters = placed.into_iter().flat_map(|placed| standbys(regions, placed, region)).map(|m| m.replica);
        let mut voters: Vec<ReplicaId> = voters.collect();
        voters.sort_unstable();
        if !voters.contains(&control.spec.replica) {
            return Err(TakeOverRefusal::NoStandby);
        }
        if plant::is(Fault::OneOfThreeIsEnough) {
            voters = vec![control.spec.replica];
        }
        Ok(Some(Adoption { incarnation, voters, word }))
    }

    fn adopts(&mut self, adoption: Adoption, request: RequestId, out: &mut Vec<Output>) {
        let Some(control) = self.replicas.get_mut(&PartitionId::CONTROL) else { return };
        let incarnation = adoption.incarnation;
        control.turns(Turn::Adopts { adoption, request: Some(request), told: None }, out);
        self.dirty.push(PartitionId::CONTROL);
        if plant::is(Fault::MailBeforeControl) {
            self.mail_adopts(incarnation, out);
        }
    }

    /// The control group's rows here may name replicas of this node as voters of a newer incarnation.
    pub(super) fn follows_takeovers(&mut self, out: &mut Vec<Output>) {
        let Some(regions) = &self.config.regions else { return };
        let Some(newest) = regions.takeovers().last().map(|row| row.incarnation) else { return };
        self.mail_adopts(newest, out);
    }

    fn mail_adopts(&mut self, incarnation: Incarnation, out: &mut Vec<Output>) {
        let Some(regions) = self.config.regions.clone() else { return };
        let Some(region) = regions.of(self.config.node) else { return };
        for placed in regions.placements().filter(|p| p.partition != PartitionId::CONTROL) {
            let Some(replica) = self.replicas.get_mut(&placed.partition) else { continue };
            let mut voters: Vec<ReplicaId> = standbys(&regions, placed, region).map(|m| m.replica).collect();
            voters.sort_unstable();
            if voters.contains(&replica.spec.replica) && replica.may_adopt(incarnation).is_ok() {
                if plant::is(Fault::OneOfThreeIsEnough) {
                    voters = vec![replica.spec.replica];
                }
                let adoption = Adoption { incarnation, voters, word: String::new() };
                replica.turns(Turn::Adopts { adoption, request: None, told: None }, out);
                self.dirty.push(placed.partition);
            }
        }
    }

    /// Whether a message is to be heard, by the incarnation that it speaks of; what follows where it is not.
    pub(super) fn is_of_own_incarnation(
        &mut self,
        env: &Env,
        from: NodeId,
        message: &PeerMessage,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(replica) = self.replicas.get_mut(&message.partition) else { return false };
        if let PeerBody::TakenOver(taken) = &message.body {
            // Whoever is named there is no stranger, though no change of members here says so.
            let known = taken.voters.contains(&message.from) || replica.members.node(message.from) == Some(from);
            if known && replica.members.admit(message.from, from) != Admission::Foreign {
                replica.hears_takeover(taken.clone(), out);
                self.dirty.push(message.partition);
            }
            return false;
        }
        match replica.speaks(message.incarnation) {
            Speaks::Own => {}
            Speaks::Later => {
                if replica.members.votes(message.from) && replica.members.node(message.from) == Some(from) {
                    replica.hears_later(message.incarnation);
                }
                return false;
            }
            Speaks::Earlier => {
                replica.tells_takeover(&self.config, env, (message.from, from), out);
                return false;
            }
            Speaks::Rival => {
                if replica.members.votes(message.from) && replica.members.node(message.from) == Some(from) {
                    replica.hears_rival(out);
                    self.dirty.push(message.partition);
                }
                return false;
            }
        }
        if replica.sealed().is_some() {
            replica.tells_takeover(&self.config, env, (message.from, from), out);
        }
        replica.serves()
    }

    /// Replicas that are to become others, and can by now: what is to be written.
    pub(super) fn turns_to_write(&mut self, out: &mut Vec<Output>) -> Vec<LogWrite> {
        let turning = self.replicas.values_mut().filter(|replica| replica.is_turning());
        turning.filter_map(|replica| replica.turn_to_write(out)).collect()
    }

    /// What a replica becomes is durable: it begins anew from its stores.
    pub(super) fn turned(&mut self, replica: ReplicaId, env: &mut Env, out: &mut Vec<Output>) {
        let Some((partition, before)) = self.of(replica) else { return };
        let (group, flushed, asked) = (before.rows_of_group(), before.flushed_index(), before.asked_to_turn());
        let (spec, applied, becomes) = (before.spec.clone(), before.position(), before.becomes());
        let Some(becomes) = becomes else { return };
        let mut state = match self.log.state(replica) {
            Ok(state) => state.unwrap_or_default(),
            Err(error) => {
                return out.push(Output::Abort(format!("the log of replica {replica} can't be read: {error}")));
            }
        };
        let durable = becomes == (state.hard_state.clone(), state.incarnation.clone());
        let planted = plant::is(Fault::AdoptsUnsynced) || plant::is(Fault::SealedInMemory);
        assert!(durable || planted, "replica {replica} becomes what its log does not say");
        (state.hard_state, state.incarnation) = becomes;
        let held = Held { state, applied, group, flushed };
        let boot = u64::from_be_bytes(env.bytes());
        match Replica::recover(&self.config, spec, self.log.clone(), held, boot, env.now) {
            Ok(mut made) => {
                made.sees_control(self.control.seen());
                self.replicas.insert(partition, made);
                self.dirty.push(partition);
            }
            Err(error) => return out.push(Output::Abort(format!("replica {replica} can't begin anew: {error}"))),
        }
        let decision = Decision::TakeOver(TakeOverOutcome::Adopted);
        out.extend(asked.map(|request| Output::Decided { request, decision }));
    }
}
