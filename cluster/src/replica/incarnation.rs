//! Which incarnation a replica is of, and how it comes to be of another: [`crate::takeover`].
//!
//! A replica *turns* when it adopts an incarnation, is sealed, or hears that its own is contested. From that moment on it
//! says and answers nothing. When apply has nothing in hand and everything before is written, one write says what it is
//! from now on; once that is durable it begins anew from its stores, just as a restart would find it.

use std::collections::BTreeMap;

use mailraft_storage::log::LogWrite;
use mailraft_storage::{
    Adoption, Applied, CommandId, Entry, EntryKind, Env, Incarnation, IncarnationMark, Index, LogPosition, MailboxId,
    NodeId, PartitionId, Proposal, ReplicaId, TakenOver, TakeoverBody, Term, UnixMillis,
};
use raft::Storage;
use raft::eraftpb::{self, HardState};

use super::{COMPARE_EVERY_TICKS, NOT_LEADING, Replica};
use crate::config::NodeConfig;
use crate::members;
use crate::outcome::{BarrierOutcome, Decision, TakeOverOutcome, TakeOverRefusal};
use crate::plant::{self, Fault};
use crate::regions::TakeoverRow;
use crate::seam::{Output, PeerBody, RequestId};
use crate::takeover;

/// Who speaks of an earlier incarnation is told of the newer one after so many ticks again (500 ms).
const TELL_AGAIN_TICKS: u64 = 20;

/// What a replica becomes.
#[derive(Clone, Debug)]
pub enum Turn {
    /// A voter of another incarnation. Who asked for it, if an operator did; and who told it, if another replica did.
    Adopts { adoption: Adoption, request: Option<RequestId>, told: Option<TakenOver> },
    /// Nothing any more.
    Seals(TakenOver),
    /// Nothing, until a higher number.
    Contested,
}

/// Of which incarnation another replica speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Of this one's.
    Own,
    /// Of an earlier one.
    Earlier,
    /// Of a later one.
    Later,
    /// Of one with the same number, which is another.
    Rival,
}

#[derive(Default)]
pub(super) struct Incarnations {
    /// What the log says.
    mark: IncarnationMark,
    /// The newest that is applied here, if the group was ever taken over.
    begun: Option<TakenOver>,
    /// One that is committed, with its entry's index.
    committed: Option<(Index, TakenOver)>,
    turn: Option<Turn>,
    /// A later one that another voter has adopted, and that has not begun as far as is known here.
    later: Option<Incarnation>,
    /// What it becomes is being written.
    becomes: Option<(HardState, IncarnationMark)>,
    /// When each node was told last that it speaks of an earlier one, in ticks.
    told: BTreeMap<NodeId, u64>,
}

impl Incarnations {
    pub fn new(mark: IncarnationMark, begun: Option<TakenOver>) -> Self {
        Incarnations { mark, begun, ..Incarnations::default() }
    }

    /// The voters that go before what a position says, where its incarnation is one before that which was adopted.
    pub fn view(&self, mut applied: Applied) -> Applied {
        if let Some(adoption) = &self.mark.adopted
            && applied.incarnation.is_none_or(|i| i.number < adoption.incarnation.number)
        {
            members::as_adopted(&mut applied, &adoption.voters);
        }
        applied
    }
}

/// The first of all incarnations, whose nonce nobody tells.
const FIRST: Incarnation = Incarnation { number: 1, nonce: [0; 16] };

impl Replica {
    /// The incarnation that it takes and answers messages of.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnations.mark.adopted.as_ref().map_or(FIRST, |adoption| adoption.incarnation)
    }

    /// What its messages say of that.
    pub(super) fn told_incarnation(&self) -> Incarnation {
        match &self.incarnations.mark.adopted {
            Some(adoption) => adoption.incarnation,
            None => Incarnation { number: self.raw.store().applied().incarnation.map_or(0, |i| i.number), ..FIRST },
        }
    }

    /// No term of its incarnation is lower, and every one of an earlier one is.
    pub(super) fn first_term(&self) -> Term {
        if plant::is(Fault::TermsGoOn) { Term(0) } else { self.incarnation().first_term() }
    }

    /// Whether the first entry of its incarnation is applied.
    pub(super) fn is_established(&self) -> bool {
        let applied = self.raw.store().applied().incarnation;
        match &self.incarnations.mark.adopted {
            Some(adoption) if !plant::is(Fault::OwnerBeforeTakeover) => applied == Some(adoption.incarnation),
            Some(_) | None => applied.is_some(),
        }
    }

    /// Whether it takes part in its group at all.
    pub fn serves(&self) -> bool {
        let Incarnations { mark, turn, .. } = &self.incarnations;
        mark.sealed.is_none() && !mark.contested && turn.is_none()
    }

    /// Whether it is on its way to become another.
    pub fn is_turning(&self) -> bool {
        self.incarnations.turn.is_some()
    }

    /// What sealed it, if it is sealed.
    pub fn sealed(&self) -> Option<&TakenOver> {
        self.incarnations.mark.sealed.as_ref()
    }

    /// Whether it heard of its incarnation's number with another nonce.
    pub fn is_contested(&self) -> bool {
        self.incarnations.mark.contested
    }

    /// Of which incarnation another speaks.
    pub fn speaks(&self, theirs: Incarnation) -> Speaks {
        if plant::is(Fault::OtherIncarnationHeard) {
            return Speaks::Own;
        }
        let own = self.incarnation();
        match theirs.number.max(1).cmp(&own.number) {
            std::cmp::Ordering::Less => Speaks::Earlier,
            std::cmp::Ordering::Greater => Speaks::Later,
            std::cmp::Ordering::Equal if own.number < 2 || theirs.nonce == own.nonce => Speaks::Own,
            std::cmp::Ordering::Equal if plant::is(Fault::NonceNotCompared) => Speaks::Own,
            std::cmp::Ordering::Equal => Speaks::Rival,
        }
    }

    /// What others are to be told that speak of an earlier incarnation, as soon as that is sure.
    fn known_takeover(&self) -> Option<&TakenOver> {
        let begun = || self.incarnations.begun.as_ref().filter(|begun| begun.incarnation == self.incarnation());
        self.sealed().or_else(begun)
    }

    /// A node speaks of an earlier incarnation.
    pub fn tells_takeover(&mut self, config: &NodeConfig, env: &Env, to: (ReplicaId, NodeId), out: &mut Vec<Output>) {
        let Some(taken) = self.known_takeover().cloned() else { return };
        let (replica, node) = to;
        let told = self.incarnations.told.get(&node);
        if told.is_some_and(|at| self.ticks < at + TELL_AGAIN_TICKS) {
            return;
        }
        self.incarnations.told.insert(node, self.ticks);
        let message = self.message(config, env, replica, PeerBody::TakenOver(taken));
        out.push(Output::Send { to: node, message });
    }

    /// One that is sealed tells the others of its region, once a second.
    pub(super) fn tells_that_it_is_sealed(&self, config: &NodeConfig, env: &Env, out: &mut Vec<Output>) {
        let Some(taken) = self.sealed().filter(|_| self.ticks % COMPARE_EVERY_TICKS == 1) else { return };
        for member in self.members.rows().into_iter().filter(|m| m.replica != self.spec.replica) {
            if !self.is_abroad(member.replica) {
                let message = self.message(config, env, member.replica, PeerBody::TakenOver(taken.clone()));
                out.push(Output::Send { to: member.node, message });
            }
        }
    }

    /// A member says that the group was taken over, which it has applied, or was sealed by.
    pub fn hears_takeover(&mut self, taken: TakenOver, out: &mut Vec<Output>) {
        if self.is_turning() || self.sealed().is_some() {
            return;
        }
        match self.speaks(taken.incarnation) {
            Speaks::Own | Speaks::Earlier => {}
            Speaks::Rival => self.hears_rival(out),
            Speaks::Later if taken.voters.contains(&self.spec.replica) => {
                let voters = taken.voters.clone();
                let adoption = Adoption { incarnation: taken.incarnation, voters, word: String::new() };
                self.turns(Turn::Adopts { adoption, request: None, told: Some(taken) }, out);
            }
            Speaks::Later => self.turns(Turn::Seals(taken), out),
        }
    }

    /// A member speaks of another incarnation of the same number.
    pub fn hears_rival(&mut self, out: &mut Vec<Output>) {
        if self.serves() {
            self.turns(Turn::Contested, out);
        }
    }

    /// Another voter speaks of a later incarnation. If it had begun, that one would say so; where this group has gone on
    /// without it under a lower number, only an operator brings the two together again.
    pub fn hears_later(&mut self, theirs: Incarnation) {
        let known = self.incarnations.later.map_or(0, |later| later.number);
        if theirs.number >= known {
            self.incarnations.later = Some(theirs);
        }
    }

    /// Whether another voter has gone so far without this one: to that incarnation, or to an earlier one.
    pub fn is_left_behind_by(&self, incarnation: Incarnation) -> bool {
        self.incarnations.later.is_some_and(|later| later == incarnation || later.number < incarnation.number)
    }

    /// Why it can't adopt an incarnation.
    pub fn may_adopt(&self, incarnation: Incarnation) -> Result<(), TakeOverRefusal> {
        if self.sealed().is_some() {
            return Err(TakeOverRefusal::Sealed);
        }
        if self.is_turning() {
            return Err(TakeOverRefusal::Busy);
        }
        let own = self.incarnation().number;
        if incarnation.number <= own {
            return Err(TakeOverRefusal::NotHigher { own });
        }
        match self.ahead_of_region() {
            Some(index) => Err(TakeOverRefusal::Ahead(index)),
            None => Ok(()),
        }
    }

    /// Up to where it may know more than an election looks at.
    fn ahead_of_region(&self) -> Option<Index> {
        self.ahead().filter(|_| !plant::is(Fault::AheadAdopts))
    }

    /// It becomes something else, and says nothing until it is.
    pub fn turns(&mut self, turn: Turn, out: &mut Vec<Output>) {
        self.leaves(out);
        self.incarnations.turn = Some(turn);
    }

    /// Answers everyone who waits here, and leads no more.
    pub(super) fn leaves(&mut self, out: &mut Vec<Output>) {
        self.term_over(None, out);
        for read in self.reads.all() {
            let decision = Decision::Barrier(BarrierOutcome::NotLeader { leader: None });
            out.push(Output::Decided { request: read.request, decision });
        }
        let (partition, replica) = (self.spec.partition, self.spec.replica);
        if self.lead.told {
            out.push(Output::Leads { partition, replica, leading: None });
        }
        self.lead = NOT_LEADING;
        if self.told_leader.take().is_some() {
            out.push(Output::Leader { partition, node: None });
        }
    }

    /// What is to be durable so that it becomes what it turns to, once all before that is written and applied.
    pub fn turn_to_write(&mut self, out: &mut Vec<Output>) -> Option<LogWrite> {
        let busy = self.done != self.handed || !self.commits.is_empty() || self.is_installing();
        if self.incarnations.becomes.is_some() || busy || self.raw.has_ready() || !self.writes.is_idle() {
            return None;
        }
        let ahead = self.ahead_of_region();
        let mut mark = self.incarnations.mark.clone();
        let mut hard_state = self.raw.raft.hard_state();
        match (self.incarnations.turn.clone()?, ahead) {
            // A snapshot that was on its way made it so.
            (Turn::Adopts { request, told: None, .. }, Some(index)) => {
                self.incarnations.turn = None;
                let refused = TakeOverOutcome::Refused(TakeOverRefusal::Ahead(index));
                let decided = |request| Output::Decided { request, decision: Decision::TakeOver(refused) };
                out.extend(request.map(decided));
                return None;
            }
            (Turn::Adopts { told: Some(taken), .. }, Some(_)) | (Turn::Seals(taken), _) => mark.sealed = Some(taken),
            (Turn::Adopts { adoption, .. }, None) => {
                let first = if plant::is(Fault::TermsGoOn) { Term(0) } else { adoption.incarnation.first_term() };
                if hard_state.term < first.0 {
                    (hard_state.term, hard_state.vote) = (first.0, 0);
                }
                mark = IncarnationMark { adopted: Some(adoption), contested: false, sealed: None };
            }
            (Turn::Contested, _) => mark.contested = true,
        }
        self.incarnations.becomes = Some((hard_state.clone(), mark.clone()));
        let in_memory = mark.sealed.is_some() && plant::is(Fault::SealedInMemory);
        let incarnation = (!in_memory).then_some(mark);
        Some(LogWrite { replica: self.spec.replica, hard_state: Some(hard_state), incarnation, ..LogWrite::default() })
    }

    /// Who is to be told that it has adopted what an operator named.
    pub fn asked_to_turn(&self) -> Option<RequestId> {
        match &self.incarnations.turn {
            Some(Turn::Adopts { request, .. }) => *request,
            Some(Turn::Seals(_) | Turn::Contested) | None => None,
        }
    }

    /// What is durable by now of what it becomes.
    pub fn becomes(&mut self) -> Option<(HardState, IncarnationMark)> {
        self.incarnations.becomes.take()
    }

    /// What it is told at its next beginning of what its rows say.
    pub fn rows_of_group(&self) -> crate::placement::GroupRows {
        crate::placement::GroupRows {
            members: self.members.rows(),
            highest: self.members.highest(),
            mode: self.recorded_mode(),
            taken_over: self.incarnations.begun.clone(),
        }
    }

    /// Up to where its rows survive a crash.
    pub fn flushed_index(&self) -> Index {
        self.flushed
    }

    /// An entry is committed.
    pub(super) fn hears_takeover_entry(&mut self, entry: &eraftpb::Entry, incarnation: Incarnation) {
        let known = self.incarnations.begun.as_ref().map_or(1, |begun| begun.incarnation.number);
        let known = known.max(self.incarnations.committed.as_ref().map_or(1, |(_, taken)| taken.incarnation.number));
        if incarnation.number <= known {
            return;
        }
        if let Ok(Entry { kind: EntryKind::Takeover(body), .. }) = Entry::decode(&entry.data) {
            self.incarnations.committed = Some((Index(entry.index), body.taken_over(incarnation)));
            self.members.saw(body.highest);
        }
    }

    /// Entries up to here are applied.
    pub(super) fn applies_takeover(&mut self, upto: Index) {
        if let Some((_, taken)) = self.incarnations.committed.take_if(|(index, _)| *index <= upto) {
            self.incarnations.begun = Some(taken);
        }
        self.snapshots_wait();
    }

    /// A snapshot's rows are in place.
    pub(super) fn finds_takeover(&mut self, begun: Option<TakenOver>) {
        self.incarnations.begun = begun;
        self.incarnations.committed = None;
        self.snapshots_wait();
    }

    /// Whoever gets a snapshot of a position between the fork and the first entry could not tell the fork any more. That
    /// entry is on its way: somebody has the others already.
    pub(super) fn snapshots_wait(&mut self) {
        let wait = !self.is_established() && self.raw.store().applied().term >= self.first_term();
        let wait = wait && self.incarnations.mark.adopted.is_some();
        self.raw.mut_store().set_snapshots_wait(wait);
    }

    /// Whether a change of members is one of an earlier incarnation, found below the first entry of this one's.
    pub(super) fn is_of_earlier(&self, entry: &eraftpb::Entry) -> bool {
        entry.term < self.first_term().0 && !plant::is(Fault::OldChangesCount)
    }

    /// The last position of what was before its incarnation: what follows are only first entries of terms.
    fn fork(&self) -> LogPosition {
        let store = self.raw.store();
        let term = |index: u64| store.term(index).unwrap_or(0);
        let mut index = store.last().0;
        while index > store.cut().index.0 && term(index) >= self.first_term().0.max(1) {
            index -= 1;
        }
        LogPosition { index: Index(index), term: Term(term(index)) }
    }

    /// What the first leader of its incarnation appends first.
    pub(super) fn takeover_proposal(&self, config: &NodeConfig, term: Term, wall: UnixMillis) -> Option<Proposal> {
        let Adoption { incarnation, word, .. } = self.incarnations.mark.adopted.clone()?;
        let voters = self.members.rows().into_iter().filter(|m| m.voter).map(|m| (m.replica, m.node)).collect();
        let (highest, fork) = (self.members.highest(), self.fork());
        let batch = match (self.abroad.regions(), self.spec.partition) {
            (Some(regions), PartitionId::CONTROL) => {
                let home = regions.of(config.node)?.clone();
                takeover::control_rows(regions, &TakeoverRow { incarnation, home, fork, since: wall, word })
            }
            (Some(_) | None, _) => mailraft_storage::RowBatch::default(),
        };
        let kind = EntryKind::Takeover(TakeoverBody { voters, highest, fork, batch });
        let (mailbox, command) = (MailboxId::PARTITION, CommandId::default());
        Some(Proposal { incarnation, term, mailbox, command, kind })
    }
}
