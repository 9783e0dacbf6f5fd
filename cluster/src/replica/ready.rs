//! What raft-rs has ready, carried out: writes, messages, committed entries, a lead won or lost.

use mailraft_storage::{
    CommandId, EntryKind, Env, Incarnation, Index, LogPosition, MailboxId, Proposal, ReplicaId, Term, UnixMillis,
};
use raft::StateRole;
use raft::eraftpb::{self, ConfState, EntryType, Message, MessageType};

use super::rows::RowsAgreement;
use super::{Lead, NOT_LEADING, Replica};
use crate::config::NodeConfig;
use crate::installation::Synced;
use crate::members;
use crate::outcome::{BarrierOutcome, Decision};
use crate::placement::GroupRows;
use crate::plant::{self, Fault};
use crate::seam::{ApplyJob, Output, OwnersTerm, PeerBody, Reader, SnapshotJob};
use crate::visibility::Confirmation;
use crate::writes::{ReadyWrite, Released};

/// Whether a follower's answer says nothing that must survive a crash, so that it need not wait for its disk. An answer
/// to a heartbeat says that the follower knows of no later term at this moment; what it holds is in other answers. Held
/// back, a slow disk would look to its leader like a dead node.
fn promises_nothing(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeatResponse
}

impl Replica {
    /// The batch with this replica's writes is durable.
    pub fn persisted(&mut self, config: &NodeConfig, env: &Env, out: &mut Vec<Output>) {
        let Released { number, messages, synced } = self.writes.persisted();
        // What is put in place after a restart comes from no ready, and has the number 0.
        if let Some(number) = number.filter(|n| *n > 0) {
            self.durable(number);
        }
        match synced {
            Synced::Readies => {}
            Synced::Mark => self.replace_rows(out),
            Synced::Reset { applied, discard } => {
                self.handed = applied.index;
                self.done = applied.index;
                self.flushed = applied.index;
                self.stamp = self.stamp.max(applied.stamp);
                self.agreement.forget();
                self.abroad.finds_entries();
                self.goes_ahead(applied.index);
                self.rows_agreement = RowsAgreement::default();
                self.agreement.remember(applied.count, applied.hash);
                self.raw.advance_apply_to(applied.index.0);
                out.push(self.committed(applied.position()));
                if discard {
                    out.push(Output::Snapshot(SnapshotJob::Discard { replica: self.spec.replica }));
                }
            }
        }
        for message in messages {
            self.send(config, env, message, out);
        }
    }

    /// Every ready up to this one is durable.
    fn durable(&mut self, number: u64) {
        self.durable_number = self.durable_number.max(number);
        self.raw.on_persist_ready(number);
        let synced = Index(self.raw.raft.raft_log.persisted);
        self.raw.mut_store().set_synced(synced);
    }

    /// Has a snapshot's rows put in place, if one waits for that and apply has no entry of this replica in hand. Called
    /// whenever one of the two may have changed, and first at the start.
    pub fn replace_rows(&mut self, out: &mut Vec<Output>) {
        if let Some(applied) = self.writes.installation.replace(self.done == self.handed) {
            out.push(Output::Snapshot(SnapshotJob::Install { replica: self.spec.replica, applied }));
        }
    }

    /// Carries out everything that raft-rs has ready. `time` is the cluster's, as soon as it is no guess.
    pub fn collect(&mut self, config: &NodeConfig, env: &mut Env, time: Option<UnixMillis>, out: &mut Vec<Output>) {
        self.looks_at_clock(env);
        self.start_reads();
        loop {
            while self.raw.has_ready() {
                self.take_ready(config, env, out);
            }
            self.release_commits(out);
            // A change of the configuration that was carried out gives more to do.
            if !self.raw.has_ready() {
                break;
            }
        }
        self.follow_role(config, env, time, out);
        if self.follows_mode(config, time) {
            // It is in what is ready now.
            return self.collect(config, env, time, out);
        }
        self.answer_visible(out);
        if self.has_regions() {
            // Its owners may start as soon as what they load is visible.
            self.follow_role(config, env, time, out);
        }
        self.tell_visible(config, env, false, out);
    }

    fn take_ready(&mut self, config: &NodeConfig, env: &Env, out: &mut Vec<Output>) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        for state in ready.take_read_states() {
            if let Some(round) = self.round_of(&state.request_ctx) {
                self.reads.confirmed(round, Index(state.index));
            }
        }
        let snapshot = !ready.snapshot().is_empty();
        if snapshot {
            let applied = self.writes.installation.taken(Index(ready.snapshot().get_metadata().index));
            let applied = self.incarnations.view(applied);
            // What waits is older than the snapshot, and a change among it was made in its configuration.
            self.commits.clear();
            // Where its newer members are stands in its rows.
            self.members.adopt(&applied, &GroupRows::default());
            self.raw.mut_store().reset(applied);
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        for message in ready.take_messages() {
            self.send(config, env, message, out);
        }
        let committed = ready.take_committed_entries();
        let reconfigures = committed.iter().any(|e| e.get_entry_type() != EntryType::EntryNormal);
        let mut hard_state = ready.hs().cloned();
        if reconfigures || snapshot {
            hard_state = Some(self.raw.raft.hard_state());
        }
        let must_sync = ready.must_sync() || reconfigures;
        let mut messages = ready.take_persisted_messages();
        self.raw.advance_append_async(ready);
        if plant::is(Fault::AcknowledgeBeforeFsync) && !snapshot {
            self.durable(number);
            std::mem::take(&mut messages).into_iter().for_each(|message| self.send(config, env, message, out));
        }
        if !must_sync && self.writes.nothing_waits() {
            // Nothing to wait for: a hard state that only counts more as committed goes with the next batch.
            self.durable(number);
            for message in messages {
                self.send(config, env, message, out);
            }
            if let Some(hard_state) = hard_state {
                self.writes.lazily(hard_state);
            }
        } else {
            let (now, messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(promises_nothing);
            self.writes.push(ReadyWrite { number, entries, hard_state, must_sync, snapshot, messages });
            for message in now {
                self.send(config, env, message, out);
            }
        }
        if !committed.is_empty() {
            self.commits.push_back((reconfigures.then_some(number), committed));
        }
    }

    /// Hands committed entries to apply; a configuration change only when its commit is durable.
    fn release_commits(&mut self, out: &mut Vec<Output>) {
        while let Some((wait, _)) = self.commits.front() {
            let durable = wait.is_none_or(|number| number <= self.durable_number);
            if !durable && !plant::is(Fault::ApplyUnsyncedConfiguration) {
                return;
            }
            let Some((_, committed)) = self.commits.pop_front() else { return };
            let upto = committed.last().map(|e| LogPosition { index: Index(e.index), term: Term(e.term) });
            self.handed = upto.map_or(self.handed, |upto| upto.index);
            self.hears_entries(&committed);
            let mut entries = Vec::with_capacity(committed.len());
            for entry in committed {
                match self.reconfigure(&entry) {
                    Ok(conf) => entries.push((entry, conf)),
                    Err(error) => {
                        return out.push(Output::Abort(format!(
                            "partition {}: replica {}: entry {} is a change of Raft's configuration that can't be made: {error}",
                            self.spec.partition, self.spec.replica, entry.index
                        )));
                    }
                }
            }
            out.push(Output::Apply(ApplyJob { replica: self.spec.replica, entries }));
            out.extend(upto.map(|upto| self.committed(upto)));
        }
    }

    fn committed(&self, upto: LogPosition) -> Output {
        Output::Committed { partition: self.spec.partition, replica: self.spec.replica, upto }
    }

    /// Carries a change of Raft's configuration out; gives the configuration after it.
    fn reconfigure(&mut self, entry: &eraftpb::Entry) -> Result<Option<ConfState>, String> {
        let Some(decoded) = members::decode(entry).map_err(|e| e.to_string())? else { return Ok(None) };
        if self.is_of_earlier(entry) {
            decoded.change.changes.iter().for_each(|change| self.members.saw(ReplicaId(change.node_id)));
            return Ok(None);
        }
        let conf = self.raw.apply_conf_change(&decoded.change).map_err(|e| e.to_string())?;
        self.members.changed(&conf, decoded.member.as_ref());
        Ok(Some(conf))
    }

    /// Notices a lead won, ready or lost, and a leader that is known or not.
    fn follow_role(&mut self, config: &NodeConfig, env: &mut Env, time: Option<UnixMillis>, out: &mut Vec<Output>) {
        if self.is_turning() {
            return;
        }
        let term = Term(self.raw.raft.term);
        let leads = (self.raw.raft.state == StateRole::Leader).then_some(term);
        if leads != self.lead.term {
            let told = self.lead.told;
            if let Some(term) = leads {
                assert!(term > self.last_led, "term {term} led twice");
                self.last_led = term;
            }
            self.better = None;
            self.offered.clear();
            // What a new leader appended first, and so far alone.
            let first = Index(self.raw.raft.raft_log.last_index());
            self.lead = Lead { term: leads, first, since_tick: self.ticks, ..NOT_LEADING };
            self.visibility.leads();
            self.forgets_heard();
            let leader = self.leader();
            self.term_over(leader, out);
            for read in self.reads.not_in(leads) {
                let decision = Decision::Barrier(BarrierOutcome::NotLeader { leader });
                out.push(Output::Decided { request: read.request, decision });
            }
            if told {
                out.push(Output::Leads { partition: self.spec.partition, replica: self.spec.replica, leading: None });
            }
        }
        let leader = self.leader();
        if self.told_leader != leader {
            self.told_leader = leader;
            out.push(Output::Leader { partition: self.spec.partition, node: leader });
        }
        let is_begun = |t: &Term| self.raw.store().applied().term == *t || plant::is(Fault::StartBeforeTermApplied);
        let Some((term, wall)) = leads.filter(|t| !self.lead.told && is_begun(t)).zip(time) else { return };
        match self.raw.store().applied().incarnation.filter(|_| self.is_established()) {
            // What owners load is to be visible, and what an earlier leader of the term before left may not be yet.
            Some(_) if !self.is_visible_since_lead() => {}
            Some(incarnation) => {
                self.lead.told = true;
                out.push(Output::Leads {
                    partition: self.spec.partition,
                    replica: self.spec.replica,
                    leading: Some(OwnersTerm { term, incarnation, began_alone: self.begins_alone() }),
                });
            }
            None if !self.lead.begin_proposed => {
                let begin = || Proposal {
                    incarnation: Incarnation { number: 1, nonce: self.spec.nonce },
                    term,
                    mailbox: MailboxId::PARTITION,
                    command: CommandId::default(),
                    kind: EntryKind::Begin,
                };
                let begin = self.takeover_proposal(config, term, wall).unwrap_or_else(begin);
                // Refused while the lead is being handed over: then it is tried again with what comes next.
                if self.append(config, wall, begin).is_some() {
                    self.lead.begin_proposed = true;
                    self.collect(config, env, time, out);
                }
            }
            None => {}
        }
    }

    /// Whether the term's first entry is visible, and so everything that was answered before it.
    fn is_visible_since_lead(&self) -> bool {
        !self.has_regions() || self.visibility.index() >= self.lead.first || plant::is(Fault::FreshActorShowsUnheld)
    }

    fn start_reads(&mut self) {
        let may_ask = match self.raw.raft.state {
            // Before the term's first commit raft-rs ignores it.
            StateRole::Leader => self.raw.raft.commit_to_current_term(),
            StateRole::Follower => self.raw.raft.leader_id != 0,
            StateRole::Candidate | StateRole::PreCandidate => false,
        };
        if !may_ask {
            return;
        }
        while let Some(round) = self.reads.next_round() {
            let context = [self.spec.replica.0, self.boot, round].map(u64::to_be_bytes).concat();
            self.raw.read_index(context);
        }
    }

    /// The round of a context, if it is one of this replica's present life.
    fn round_of(&self, context: &[u8]) -> Option<u64> {
        let number = |at: usize| context.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let own = number(0)? == self.spec.replica.0 && number(8)? == self.boot && context.len() == 24;
        own.then(|| number(16)).flatten()
    }

    /// Answers reads. A question of an owner is about what it has in memory, which is visible: its lead is all that must be
    /// confirmed, and a region that is away stops no reading. Whoever reads rows waits until what is committed is visible.
    pub(super) fn answer_reads(&mut self, applied: Index, out: &mut Vec<Output>) {
        let index = self.visibility.index();
        let applied = if self.has_regions() { applied } else { index };
        let held = match self.confirmation() {
            Confirmation::None => index,
            Confirmation::Held { upto, .. } => upto,
            // Only a leader knows.
            Confirmation::Told(_) => Index(0),
        };
        for read in self.reads.applied(applied, index, held) {
            let outcome = match read.reader {
                Reader::Owner(term) | Reader::Held(term) if self.lead.term != Some(term) => {
                    BarrierOutcome::NotLeader { leader: self.leader() }
                }
                Reader::Owner(_) | Reader::Held(_) | Reader::Applied | Reader::Visible => {
                    BarrierOutcome::Passed { index }
                }
            };
            out.push(Output::Decided { request: read.request, decision: Decision::Barrier(outcome) });
        }
    }

    fn send(&mut self, config: &NodeConfig, env: &Env, message: Message, out: &mut Vec<Output>) {
        let to = ReplicaId(message.to);
        let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let Some(node) = self.members.node(to).filter(|_| self.serves()) else {
            if snapshot {
                self.snapshot_sent(to, false);
            }
            return;
        };
        let Some(message) = self.for_member(message) else { return };
        let message = self.message(config, env, to, PeerBody::Raft(message));
        out.push(match snapshot {
            true => Output::Snapshot(SnapshotJob::Send { replica: self.spec.replica, to: node, message }),
            false => Output::Send { to: node, message },
        });
    }
}
