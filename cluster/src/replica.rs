//! One Raft group's member: raft-rs, what it writes, what is in flight, who waits.

use std::collections::VecDeque;
use std::sync::Arc;

use mailraft_storage::entry::EntryHeader;
use mailraft_storage::log::{Log, LogState};
use mailraft_storage::{
    Applied, CommandId, Entry, EntryKind, Env, Incarnation, Index, MailboxId, NodeId, Proposal, ReplicaId, Term,
    UnixMillis, Verdict,
};
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, EntryType, Message, MessageType};
use raft::{Config, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use crate::balance::{self, Member};
use crate::log_store::LogStore;
use crate::node::{NodeConfig, ReplicaSpec};
use crate::owners::Owners;
use crate::reads::Reads;
use crate::seam::{ApplyJob, Outcome, Output, PeerBody, PeerMessage, RequestId, SnapshotJob};
use crate::status::{FollowerStatus, ReplicaStatus};
use crate::writes::{ReadyWrite, Released, Writes};

/// A heartbeat every so many ticks.
const HEARTBEAT_TICKS: usize = 2;
/// Check-quorum's lease in ticks; elections begin at least two later.
const ELECTION_TICKS: usize = 8;
/// The election window of the first rank, in ticks; each further rank begins two later. None overlap.
const FIRST_WINDOW_TICKS: usize = 10;
/// The longest append message, in bytes of entries.
const MESSAGE_MAX_BYTES: u64 = 256 << 10;
/// Appends in flight to one follower.
const IN_FLIGHT_MAX: usize = 256;
/// Entries that wait to be committed, in bytes; past it proposals are refused.
pub const UNCOMMITTED_MAX_BYTES: u64 = 16 << 20;
/// Entries handed to apply at once, in bytes.
const APPLY_MAX_BYTES: u64 = 4 << 20;
/// The log is cut only when so many entries go at once.
const CUT_AT_LEAST_ENTRIES: u64 = 64;
/// Positions with hashes that are remembered to compare.
const HASHES_REMEMBERED: usize = 256;
/// Positions are compared every so many ticks (1 s).
const COMPARE_EVERY_TICKS: u64 = 40;

pub struct Replica {
    pub spec: ReplicaSpec,
    raw: RawNode<LogStore>,
    writes: Writes,
    /// Readies without a write of their own wait here for those before them.
    lead: Lead,
    owners: Owners,
    reads: Reads,
    /// Drawn at start: a late answer to a question of an earlier life confirms nothing.
    boot: u64,
    /// Committed entries that wait for a hard state that counts a configuration change as committed.
    commits: VecDeque<(Option<u64>, Vec<raft::eraftpb::Entry>)>,
    durable_number: u64,
    staged: Option<Applied>,
    /// The last entry handed to apply, and the last that it is done with.
    handed: Index,
    done: Index,
    /// A snapshot whose rows may be put in place once apply is done with what it was handed.
    install: Option<Applied>,
    flushed: Index,
    hashes: VecDeque<(u64, [u8; 32])>,
    told_leader: Option<Option<NodeId>>,
    ticks: u64,
    stamp: UnixMillis,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Lead {
    term: Option<Term>,
    since_tick: u64,
    /// Owners were told to start.
    told: bool,
    begin_proposed: bool,
}

const NOT_LEADING: Lead = Lead { term: None, since_tick: 0, told: false, begin_proposed: false };

impl Replica {
    pub fn recover(
        config: &NodeConfig,
        spec: ReplicaSpec,
        log: Arc<dyn Log>,
        state: &LogState,
        applied: Applied,
        flushed: Index,
        boot: u64,
    ) -> raft::Result<Self> {
        // A snapshot whose installation had begun counts as installed: its rows are put in place again before
        // anything else is written or applied.
        let applied = state.installing.clone().unwrap_or(applied);
        let rank = applied.voters.iter().position(|v| *v == spec.replica).unwrap_or(applied.voters.len());
        let window = FIRST_WINDOW_TICKS + 2 * rank;
        let raft_config = Config {
            id: spec.replica.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: applied.index.0,
            max_size_per_msg: MESSAGE_MAX_BYTES,
            max_inflight_msgs: IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: window,
            max_election_tick: window + 1,
            read_only_option: ReadOnlyOption::Safe,
            // Other nodes read the control group's rows: there a commit is told at once.
            skip_bcast_commit: spec.partition != mailraft_storage::PartitionId::CONTROL,
            max_uncommitted_size: UNCOMMITTED_MAX_BYTES,
            max_committed_size_per_ready: APPLY_MAX_BYTES,
            ..Config::default()
        };
        let writes = match &state.installing {
            Some(mark) => Writes::resuming(spec.replica, mark.clone()),
            None => Writes::new(spec.replica),
        };
        let stamp = applied.stamp;
        let at = applied.index;
        let store = LogStore::new(spec.replica, log, state, applied);
        let raw = RawNode::new(&raft_config, store, &config.logger)?;
        Ok(Replica {
            spec,
            raw,
            writes,
            lead: NOT_LEADING,
            owners: Owners::default(),
            reads: Reads::default(),
            boot,
            commits: VecDeque::new(),
            durable_number: 0,
            staged: None,
            handed: at,
            done: at,
            install: None,
            flushed,
            hashes: VecDeque::new(),
            told_leader: None,
            ticks: 0,
            stamp,
        })
    }

    /// What was interrupted by the last end of the process.
    pub fn resume(&mut self, state: &LogState, out: &mut Vec<Output>) {
        if let Some(mark) = &state.installing {
            out.push(Output::Snapshot(SnapshotJob::Install { replica: self.spec.replica, applied: mark.clone() }));
        }
    }

    pub fn tick(&mut self, config: &NodeConfig, env: &Env, handing_over: bool, out: &mut Vec<Output>) {
        self.ticks += 1;
        for read in self.reads.tick() {
            out.push(Output::Decided { request: read.request, outcome: Outcome::Unavailable });
        }
        // A node that is about to stop takes no lead.
        if self.writes.is_installing() || (handing_over && self.raw.raft.state != StateRole::Leader) {
            return;
        }
        self.raw.tick();
        if self.ticks.is_multiple_of(COMPARE_EVERY_TICKS) {
            let applied = self.raw.store().applied();
            let (count, hash) = (applied.count, applied.hash);
            for member in &self.spec.members {
                if member.replica != self.spec.replica {
                    out.push(Output::Send {
                        to: member.node,
                        message: self.message(config, env, member.replica, PeerBody::Hash { count, hash }),
                    });
                }
            }
        }
    }

    pub fn peer(&mut self, from: ReplicaId, body: PeerBody, handing_over: bool, out: &mut Vec<Output>) {
        match body {
            PeerBody::Raft(message) => {
                if message.from != from.0 || message.to != self.spec.replica.0 || !may_come_from_a_peer(&message) {
                    return;
                }
                if handing_over && message.get_msg_type() == MessageType::MsgTimeoutNow {
                    return;
                }
                // A message of a member that is not known, or of an old term: raft-rs has its own opinion.
                let _ = self.raw.step(message);
            }
            PeerBody::Hash { count, hash } => {
                let own = self.hashes.iter().rev().find(|(c, _)| *c == count).map(|(_, h)| *h);
                if own.is_some_and(|own| own != hash) {
                    out.push(Output::Abort(format!(
                        "partition {}: this replica {} and replica {from} disagree on the first {count} entries: one of them is damaged; keep both nodes' data directories and restore the damaged one as a new replica",
                        self.spec.partition, self.spec.replica
                    )));
                }
            }
        }
    }

    pub fn propose(&mut self, config: &NodeConfig, env: &Env, stamp_max: UnixMillis, proposal: Proposal, request: RequestId) -> Option<Outcome> {
        let leads = self.lead.told && self.lead.term == Some(proposal.term);
        if !leads || self.raw.store().applied().incarnation != Some(proposal.incarnation) {
            return Some(Outcome::NotLeader { leader: self.leader() });
        }
        let slot = match proposal.kind {
            EntryKind::Rows(_) => Some(proposal.mailbox),
            EntryKind::Begin | EntryKind::Chunk(_) => None,
        };
        if let Some(mailbox) = slot {
            assert!(!self.owners.is_taken(mailbox), "mailbox {mailbox} proposes while its entry is in flight");
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Some(Outcome::Dropped);
        }
        match self.append(config, env, stamp_max, proposal) {
            Some(index) => {
                self.owners.appended(request, index, slot);
                None
            }
            None => Some(Outcome::Overloaded),
        }
    }

    pub fn read_barrier(&mut self, request: RequestId, term: Option<Term>) -> Option<Outcome> {
        if term.is_some() && term != self.lead.term {
            return Some(Outcome::NotLeader { leader: self.leader() });
        }
        self.reads.ask(request, term);
        None
    }

    pub fn await_slot(&mut self, request: RequestId, term: Term, mailbox: MailboxId) -> Option<Outcome> {
        if self.lead.term != Some(term) {
            return Some(Outcome::NotLeader { leader: self.leader() });
        }
        self.owners.await_slot(request, mailbox).then_some(Outcome::SlotFree)
    }

    pub fn unreachable(&mut self, node: NodeId) {
        if self.raw.raft.state == StateRole::Leader {
            for member in self.spec.members.iter().filter(|m| m.node == node) {
                self.raw.report_unreachable(member.replica.0);
            }
        }
    }

    pub fn applied(&mut self, applied: Applied, verdicts: &[(Index, Verdict)], out: &mut Vec<Output>) {
        self.done = applied.index;
        self.start_install(out);
        if applied.index < self.raw.store().applied().index {
            // Applied before a snapshot took the place of everything.
            return;
        }
        let commit = self.raw.raft.raft_log.committed;
        assert!(applied.index.0 <= commit, "applied {} of {commit} committed", applied.index);
        self.remember(applied.count, applied.hash);
        self.raw.mut_store().set_applied(applied.clone());
        self.raw.advance_apply_to(applied.index.0);
        for (index, verdict) in verdicts {
            let Some((request, waiting)) = self.owners.decided(*index) else { continue };
            out.push(Output::Decided { request, outcome: Outcome::Applied { index: *index, verdict: *verdict } });
            for request in waiting {
                out.push(Output::Decided { request, outcome: Outcome::SlotFree });
            }
        }
        self.answer_reads(out);
    }

    /// Cuts the log below what is flushed, and below what followers still need, up to a bound.
    pub fn flushed(&mut self, upto: Index, log_keep: u64) {
        self.flushed = self.flushed.max(upto);
        if self.writes.is_installing() {
            return;
        }
        let applied = self.raw.store().applied().index;
        let mut cut = self.flushed.min(applied).0;
        if self.raw.raft.state == StateRole::Leader {
            let needed = self.raw.raft.prs().iter().map(|(_, p)| p.matched).min().unwrap_or(cut);
            cut = cut.min(needed.max(applied.0.saturating_sub(log_keep)));
        } else {
            // Whoever leads next may have to serve followers from here.
            cut = cut.min(applied.0.saturating_sub(log_keep.min(1_024)));
        }
        let now = self.raw.store().cut().0.0;
        let last_synced = self.raw.raft.raft_log.persisted;
        cut = cut.min(last_synced);
        if cut < now + CUT_AT_LEAST_ENTRIES.min(log_keep.max(1)) {
            return;
        }
        if let Ok(term) = self.raw.raft.raft_log.term(cut) {
            let position = (Index(cut), Term(term));
            self.raw.mut_store().cut_to(position);
            self.writes.compact(position);
        }
    }

    pub fn snapshot_sent(&mut self, to: ReplicaId, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to.0, status);
    }

    pub fn snapshot_staged(&mut self, from: ReplicaId, message: Message, applied: Applied, out: &mut Vec<Output>) {
        let about = message.get_snapshot().get_metadata().index;
        let fits = message.from == from.0
            && message.to == self.spec.replica.0
            && message.get_msg_type() == MessageType::MsgSnapshot
            && about == applied.index.0
            && !self.writes.is_installing();
        if fits {
            self.staged = Some(applied);
            let _ = self.raw.step(message);
        }
        let taken = self.raw.snap().is_some_and(|s| !s.is_empty());
        if !taken {
            self.staged = None;
            out.push(Output::Snapshot(SnapshotJob::Discard { replica: self.spec.replica }));
        }
    }

    pub fn rows_installed(&mut self) {
        self.writes.rows_installed();
    }

    /// Whether and to whom to hand the lead over. With `stopping` to anyone, else to whoever is preferred.
    pub fn hand_over_to(&mut self, stopping: bool) -> Option<ReplicaId> {
        let leads = self.raw.raft.state == StateRole::Leader && self.raw.raft.lead_transferee.is_none();
        if !leads {
            return None;
        }
        let last = self.raw.raft.raft_log.last_index();
        let members: Vec<Member> = self
            .raw
            .raft
            .prs()
            .iter()
            .map(|(id, progress)| Member {
                replica: ReplicaId(*id),
                voter: self.raw.store().applied().voters.contains(&ReplicaId(*id)),
                active: progress.recent_active && progress.state == ProgressState::Replicate,
                lag_entries: last.saturating_sub(progress.matched),
            })
            .collect();
        if stopping {
            return balance::successor(self.spec.replica, &members);
        }
        if !self.lead.told || self.ticks - self.lead.since_tick < balance::STAY_TICKS {
            return None;
        }
        let order: Vec<ReplicaId> = self.spec.members.iter().map(|m| m.replica).collect();
        balance::better_leader(&order, self.spec.replica, &members)
    }

    pub fn transfer(&mut self, to: ReplicaId) {
        self.raw.transfer_leader(to.0);
    }

    pub fn has_work(&self) -> bool {
        self.raw.has_ready()
    }

    pub fn writes(&mut self) -> &mut Writes {
        &mut self.writes
    }

    /// The group with this replica's writes is durable.
    pub fn persisted(&mut self, config: &NodeConfig, env: &Env, out: &mut Vec<Output>) {
        let Released { number, messages, synced, install, installed } = self.writes.persisted();
        if install.is_some() {
            self.install = install;
            self.start_install(out);
        }
        if let Some(synced) = synced {
            self.raw.mut_store().set_synced(synced);
        }
        if let Some(number) = number.filter(|n| *n > 0) {
            self.durable_number = self.durable_number.max(number);
            self.raw.on_persist_ready(number);
        }
        if let Some(applied) = installed {
            self.handed = applied.index;
            self.done = applied.index;
            self.flushed = applied.index;
            self.stamp = self.stamp.max(applied.stamp);
            self.remember(applied.count, applied.hash);
            self.raw.advance_apply_to(applied.index.0);
        }
        for message in messages {
            self.send(config, env, message, out);
        }
    }

    /// Rows are replaced only when apply has no entry of this replica in hand.
    fn start_install(&mut self, out: &mut Vec<Output>) {
        if self.done == self.handed
            && let Some(applied) = self.install.take()
        {
            out.push(Output::Snapshot(SnapshotJob::Install { replica: self.spec.replica, applied }));
        }
    }

    /// Carries out everything that raft-rs has ready.
    pub fn collect(&mut self, config: &NodeConfig, env: &mut Env, stamp_max: UnixMillis, out: &mut Vec<Output>) {
        self.start_reads();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let number = ready.number();
            for state in ready.take_read_states() {
                if let Some(round) = self.round_of(&state.request_ctx) {
                    self.reads.confirmed(round, Index(state.index));
                }
            }
            let snapshot = match ready.snapshot().is_empty() {
                true => None,
                false => {
                    let staged = self.staged.take();
                    let applied = staged.expect("raft-rs takes only a snapshot that was staged");
                    assert_eq!(applied.index.0, ready.snapshot().get_metadata().index);
                    self.raw.mut_store().reset(applied.clone());
                    Some(applied)
                }
            };
            let entries = ready.take_entries();
            self.raw.mut_store().append(&entries);
            for message in ready.take_messages() {
                self.send(config, env, message, out);
            }
            let committed = ready.take_committed_entries();
            let reconfigures = committed.iter().any(|e| e.get_entry_type() != EntryType::EntryNormal);
            let mut hard_state = ready.hs().cloned();
            if reconfigures || snapshot.is_some() {
                hard_state = Some(self.raw.raft.hard_state());
            }
            let must_sync = ready.must_sync() || reconfigures;
            let messages = ready.take_persisted_messages();
            self.raw.advance_append_async(ready);
            if !must_sync && self.writes.nothing_waits() {
                // Nothing to wait for: a hard state that only counts more as committed goes with the next group.
                self.durable_number = self.durable_number.max(number);
                self.raw.on_persist_ready(number);
                for message in messages {
                    self.send(config, env, message, out);
                }
                if let Some(hard_state) = hard_state {
                    self.writes.lazily(hard_state);
                }
            } else {
                self.push(number, entries, hard_state, must_sync, snapshot, messages);
            }
            if !committed.is_empty() {
                self.commits.push_back((reconfigures.then_some(number), committed));
            }
        }
        self.release_commits(out);
        self.follow_role(config, env, stamp_max, out);
        self.answer_reads(out);
    }

    fn push(
        &mut self,
        number: u64,
        entries: Vec<raft::eraftpb::Entry>,
        hard_state: Option<raft::eraftpb::HardState>,
        must_sync: bool,
        snapshot: Option<Applied>,
        messages: Vec<Message>,
    ) {
        self.writes.push(ReadyWrite { number, entries, hard_state, must_sync, snapshot, messages });
    }

    /// Hands committed entries to apply; a configuration change only when its commit is durable.
    fn release_commits(&mut self, out: &mut Vec<Output>) {
        while let Some((wait, _)) = self.commits.front() {
            if wait.is_some_and(|number| number > self.durable_number) {
                return;
            }
            let Some((_, committed)) = self.commits.pop_front() else { return };
            self.handed = committed.last().map_or(self.handed, |e| Index(e.index));
            let entries = committed
                .into_iter()
                .map(|entry| {
                    let conf = match entry.get_entry_type() {
                        EntryType::EntryNormal => None,
                        EntryType::EntryConfChange => {
                            let mut change = ConfChange::default();
                            change.merge_from_bytes(&entry.data).expect("a configuration change that was committed decodes");
                            self.raw.apply_conf_change(&change).ok()
                        }
                        EntryType::EntryConfChangeV2 => {
                            let mut change = ConfChangeV2::default();
                            change.merge_from_bytes(&entry.data).expect("a configuration change that was committed decodes");
                            self.raw.apply_conf_change(&change).ok()
                        }
                    };
                    (entry, conf)
                })
                .collect();
            out.push(Output::Apply(ApplyJob { replica: self.spec.replica, entries }));
        }
    }

    /// Notices a lead won, ready or lost, and a leader that is known or not.
    fn follow_role(&mut self, config: &NodeConfig, env: &mut Env, stamp_max: UnixMillis, out: &mut Vec<Output>) {
        let term = Term(self.raw.raft.term);
        let leads = (self.raw.raft.state == StateRole::Leader).then_some(term);
        if leads != self.lead.term {
            let told = self.lead.told;
            assert!(leads.is_none_or(|now| self.lead.term.is_none_or(|before| now > before)), "the same term led twice");
            self.lead = Lead { term: leads, since_tick: self.ticks, ..NOT_LEADING };
            let (unknown, waiting) = self.owners.term_over();
            for request in unknown {
                out.push(Output::Decided { request, outcome: Outcome::Unknown });
            }
            let leader = self.leader();
            for request in waiting {
                out.push(Output::Decided { request, outcome: Outcome::NotLeader { leader } });
            }
            for read in self.reads.not_in(leads) {
                out.push(Output::Decided { request: read.request, outcome: Outcome::NotLeader { leader } });
            }
            if told {
                out.push(Output::Leads { partition: self.spec.partition, replica: self.spec.replica, leading: None });
            }
        }
        let leader = self.leader();
        if self.told_leader != Some(leader) {
            self.told_leader = Some(leader);
            out.push(Output::Leader { partition: self.spec.partition, node: leader });
        }
        let Some(term) = leads.filter(|t| !self.lead.told && self.raw.store().applied().term == *t) else { return };
        match self.raw.store().applied().incarnation {
            Some(incarnation) => {
                self.lead.told = true;
                out.push(Output::Leads {
                    partition: self.spec.partition,
                    replica: self.spec.replica,
                    leading: Some((term, incarnation)),
                });
            }
            None if !self.lead.begin_proposed => {
                let begin = Proposal {
                    incarnation: Incarnation { number: 1, nonce: self.spec.nonce },
                    term,
                    mailbox: MailboxId::PARTITION,
                    command: CommandId::default(),
                    kind: EntryKind::Begin,
                };
                self.lead.begin_proposed = self.append(config, env, stamp_max, begin).is_some();
                self.collect(config, env, stamp_max, out);
            }
            None => {}
        }
    }

    fn append(&mut self, config: &NodeConfig, env: &Env, stamp_max: UnixMillis, proposal: Proposal) -> Option<Index> {
        let applied = self.raw.store().applied().stamp;
        let stamp = self.stamp.max(applied).max(env.wall.min(stamp_max));
        let Proposal { incarnation, term, mailbox, command, kind } = proposal;
        let header = EntryHeader {
            cluster: config.cluster,
            incarnation,
            mailbox,
            decided_in: term,
            command,
            stamp,
            required_flags: 0,
            needs_control: Index(0),
            confirmed: Index(0),
            mode: 0,
        };
        let data = Entry { header, kind }.encode();
        assert!(data.len() <= mailraft_storage::entry::ENTRY_MAX_BYTES, "an entry of {} bytes", data.len());
        let before = self.raw.raft.raft_log.last_index();
        self.raw.propose(Vec::new(), data).ok()?;
        let index = self.raw.raft.raft_log.last_index();
        assert_eq!(index, before + 1, "a proposal is one entry");
        self.stamp = stamp;
        Some(Index(index))
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

    fn answer_reads(&mut self, out: &mut Vec<Output>) {
        // The position is the snapshot's already; its rows are not in place yet.
        if self.writes.is_installing() {
            return;
        }
        let index = self.raw.store().applied().index;
        for read in self.reads.applied(index) {
            let outcome = match read.term {
                Some(term) if self.lead.term != Some(term) => Outcome::NotLeader { leader: self.leader() },
                _ => Outcome::Read { index },
            };
            out.push(Output::Decided { request: read.request, outcome });
        }
    }

    fn send(&self, config: &NodeConfig, env: &Env, message: Message, out: &mut Vec<Output>) {
        let to = ReplicaId(message.to);
        let Some(node) = self.spec.members.iter().find(|m| m.replica == to).map(|m| m.node) else { return };
        let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let message = self.message(config, env, to, PeerBody::Raft(message));
        out.push(match snapshot {
            true => Output::Snapshot(SnapshotJob::Send { replica: self.spec.replica, to: node, message }),
            false => Output::Send { to: node, message },
        });
    }

    fn message(&self, config: &NodeConfig, env: &Env, to: ReplicaId, body: PeerBody) -> PeerMessage {
        PeerMessage {
            cluster: config.cluster,
            partition: self.spec.partition,
            from: self.spec.replica,
            to,
            incarnation: self.raw.store().applied().incarnation.map_or(0, |i| i.number),
            wall: env.wall,
            body,
        }
    }

    fn leader(&self) -> Option<NodeId> {
        let leader = ReplicaId(self.raw.raft.leader_id);
        self.spec.members.iter().find(|m| m.replica == leader).map(|m| m.node)
    }

    fn remember(&mut self, count: u64, hash: [u8; 32]) {
        if self.hashes.back().is_some_and(|(c, _)| *c == count) {
            return;
        }
        if self.hashes.len() == HASHES_REMEMBERED {
            self.hashes.pop_front();
        }
        self.hashes.push_back((count, hash));
    }

    pub fn status(&self) -> ReplicaStatus {
        let raft = &self.raw.raft;
        let applied = self.raw.store().applied();
        let voter = applied.voters.contains(&self.spec.replica);
        let role = match raft.state {
            StateRole::Leader => "leader",
            StateRole::Candidate | StateRole::PreCandidate => "candidate",
            StateRole::Follower if voter => "follower",
            StateRole::Follower => "learner",
        };
        let followers = match raft.state {
            StateRole::Leader => raft
                .prs()
                .iter()
                .filter(|(id, _)| **id != self.spec.replica.0)
                .filter_map(|(id, progress)| {
                    let member = self.spec.members.iter().find(|m| m.replica.0 == *id)?;
                    Some(FollowerStatus {
                        replica: member.replica,
                        node: member.node,
                        matched: Index(progress.matched),
                        active: progress.recent_active,
                        snapshot: progress.state == ProgressState::Snapshot,
                    })
                })
                .collect(),
            StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => Vec::new(),
        };
        ReplicaStatus {
            partition: self.spec.partition,
            replica: self.spec.replica,
            role,
            term: Term(raft.term),
            leader: self.leader(),
            commit: Index(raft.raft_log.committed),
            applied: applied.index,
            flushed: self.flushed,
            first: Index(self.raw.store().cut().0.0 + 1),
            last: self.raw.store().last(),
            count: applied.count,
            hash: applied.hash,
            installing: self.writes.is_installing(),
            followers,
        }
    }
}

/// The kinds of message that one replica's raft-rs sends another's. A forwarded proposal is none: owners
/// propose beside the leader. A snapshot comes as files first.
fn may_come_from_a_peer(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgSnapshot
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => false,
    }
}
