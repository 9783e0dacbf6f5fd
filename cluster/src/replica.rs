//! One Raft group's member: raft-rs, what it writes, what is in flight, who waits.

mod change;
mod incarnation;
mod mode;
mod ready;
mod rows;
mod settings;
mod standbys;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mailraft_storage::entry::{ENTRY_MAX_BYTES, EntryHeader};
use mailraft_storage::log::{Log, LogState};
use mailraft_storage::{
    Applied, DAMAGED_NODE_ADVICE, Entry, EntryKind, Env, Index, MailboxId, NodeId, PartitionId, Proposal,
    ProposalOutcome, ReplicaId, Term, UnixMillis, Verdict,
};
use raft::eraftpb::{self, Message, MessageType};
use raft::{Config, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use self::incarnation::Incarnations;
use self::mode::Modes;
use self::rows::RowsAgreement;
use self::settings::SettingsInFlight;
use self::standbys::Abroad;
use crate::agreement::{Agreement, Finding, Hash, STOP_AFTER_TICKS};
use crate::config::{NodeConfig, ReplicaSpec};
use crate::installation::{Arrival, Judgement};
use crate::log_store::{LogStore, conf_state};
use crate::members::{self, Members};
use crate::outcome::{BarrierOutcome, Decision, SlotOutcome};
use crate::owners::{Owners, SlotAnswer};
use crate::peer_check::{self, Hearing, Own};
use crate::peer_refusal::PeerRefusal;
use crate::placement::GroupRows;
use crate::plant::{self, Fault};
use crate::reads::Reads;
use crate::seam::{Difference, Output, PeerBody, PeerMessage, Reader, RequestId, SnapshotJob};
use crate::visibility::{Confirmation, Visibility};
use crate::writes::Writes;

/// A heartbeat every so many ticks.
const HEARTBEAT_TICKS: usize = 2;
/// Check-quorum's lease in ticks; elections begin at least two later.
const ELECTION_TICKS: usize = 8;
/// The election window of the first rank, in ticks; each further rank begins two later. None overlap.
const FIRST_WINDOW_TICKS: usize = 10;
/// Ranks past this share its window.
const RANKS_MAX: usize = 32;
/// The longest append message, in bytes of entries.
const MESSAGE_MAX_BYTES: u64 = 256 << 10;
/// Appends in flight to one follower.
const IN_FLIGHT_MAX: usize = 256;
/// Entries that wait to be committed, in bytes; past it proposals are refused.
pub const UNCOMMITTED_MAX_BYTES: u64 = 16 << 20;
/// Entries handed to apply at once, in bytes.
const APPLY_MAX_BYTES: u64 = 4 << 20;
/// Positions are compared every so many ticks (1 s).
const COMPARE_EVERY_TICKS: u64 = 40;
/// A voter that said nothing for so many ticks (2 s) may be gone: each tells its position every second.
const GONE_SILENT_TICKS: u64 = 2 * COMPARE_EVERY_TICKS;
/// After a leader counted entries as durable here that are not, this replica does not vote for so many ticks (5 min), or
/// until it has them.
const DOUBT_TICKS: u64 = 12_000;

pub use change::{PROMOTE_LAG_MAX_ENTRIES, tombstone};
pub use incarnation::{Speaks, Turn};
pub use standbys::{ControlSeen, LOOK_EVERY_TICKS};

/// What the stores hold of a replica. The default is what they hold of a new one.
#[derive(Default)]
pub struct Held {
    pub state: LogState,
    pub applied: Applied,
    pub group: GroupRows,
    pub flushed: Index,
}

pub struct Replica {
    pub spec: ReplicaSpec,
    pub members: Members,
    raw: RawNode<LogStore>,
    writes: Writes,
    lead: Lead,
    /// The last term that this life of the replica led.
    last_led: Term,
    owners: Owners,
    reads: Reads,
    /// Drawn at start: a late answer to a question of an earlier life confirms nothing.
    boot: u64,
    /// The change of members that was appended here in this term and is not applied yet, and who asked for it.
    changing: Option<(Index, RequestId)>,
    /// The group has removed this replica.
    removed: bool,
    /// And needs it no more even if it leads.
    dismissed: bool,
    /// Who says that it was removed. The word of one other voter ends nobody that has more of them.
    removed_by: BTreeSet<ReplicaId>,
    /// When each member spoke last of anything else, in ticks.
    spoken: BTreeMap<ReplicaId, u64>,
    /// A leader counted entries up to here as durable on this replica, which has fewer; and when it is in doubt no more.
    in_doubt: Option<(u64, u64)>,
    /// Committed entries that wait for a hard state that counts a configuration change as committed.
    commits: VecDeque<(Option<u64>, Vec<eraftpb::Entry>)>,
    durable_number: u64,
    /// The last entry handed to apply, and the last that it is done with.
    handed: Index,
    done: Index,
    /// When each member answered last, in ticks. One that only speaks may hear nothing.
    answered: BTreeMap<ReplicaId, u64>,
    /// Members that lack something, how far they are, and since when they are no further, in ticks.
    no_further: BTreeMap<ReplicaId, (u64, u64)>,
    /// Rows of it, or of this node's replica of the control group, can't be read.
    damaged: bool,
    /// Its node is short of something.
    reluctant: bool,
    /// To whom the lead was offered in this term.
    offered: BTreeMap<ReplicaId, Offers>,
    /// Who has been the better leader, and since which tick.
    better: Option<(ReplicaId, u64)>,
    flushed: Index,
    visibility: Visibility,
    /// Other regions.
    abroad: Abroad,
    /// Whether answers wait for them.
    modes: Modes,
    /// Other settings of regions that are in flight.
    settings: SettingsInFlight,
    /// Which incarnation it is of, and whether it becomes another.
    incarnations: Incarnations,
    agreement: Agreement,
    /// What the replicas' sums over their rows say.
    rows_agreement: RowsAgreement,
    /// It disagrees with its group: the tick at which it stops the process, and why.
    stops: Option<(u64, String)>,
    told_leader: Option<NodeId>,
    ticks: u64,
    stamp: UnixMillis,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Lead {
    term: Option<Term>,
    /// The index of the term's first entry.
    first: Index,
    since_tick: u64,
    /// Owners were told to start.
    told: bool,
    begin_proposed: bool,
}

/// How the lead was offered to one replica.
#[derive(Clone, Copy, Default)]
struct Offers {
    times: u32,
    last_tick: u64,
}

const NOT_LEADING: Lead = Lead { term: None, first: Index(0), since_tick: 0, told: false, begin_proposed: false };

impl Replica {
    pub fn recover(
        config: &NodeConfig,
        spec: ReplicaSpec,
        log: Arc<dyn Log>,
        held: Held,
        boot: u64,
        now: Duration,
    ) -> raft::Result<Self> {
        // A snapshot whose installation had begun counts as installed: its rows are put in place again before
        // anything else is written or applied.
        let Held { state, applied, group, flushed } = held;
        let incarnations = Incarnations::new(state.incarnation.clone(), group.taken_over.clone());
        let applied = incarnations.view(state.installing.clone().unwrap_or(applied));
        let members = Members::new(&spec.members, &applied, &group);
        let modes = Modes::new(group.mode, applied.index);
        let raft_config = Config {
            id: spec.replica.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: applied.index.0,
            max_size_per_msg: MESSAGE_MAX_BYTES,
            max_inflight_msgs: IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            // Which of them is this replica's window is set at each tick, by its rank.
            min_election_tick: FIRST_WINDOW_TICKS,
            max_election_tick: FIRST_WINDOW_TICKS + 2 * RANKS_MAX + 1,
            read_only_option: match plant::is(Fault::LeaseReads) {
                true => ReadOnlyOption::LeaseBased,
                false => ReadOnlyOption::Safe,
            },
            // Other nodes read the control group's rows: there a commit is told at once.
            skip_bcast_commit: spec.partition != PartitionId::CONTROL,
            max_uncommitted_size: UNCOMMITTED_MAX_BYTES,
            max_committed_size_per_ready: APPLY_MAX_BYTES,
            ..Config::default()
        };
        let (stamp, at) = (applied.stamp, applied.index);
        let mut agreement = Agreement::default();
        agreement.remember(applied.count, applied.hash);
        let mut store = LogStore::new(spec.replica, log, &state, applied);
        if let Some(regions) = &config.regions {
            let abroad = spec.members.iter().filter(|m| regions.of(m.node) != regions.of(config.node));
            store.set_abroad(abroad.map(|m| m.replica).collect());
        }
        let writes = match &state.installing {
            Some(mark) => Writes::resuming(spec.replica, mark.clone(), store.first_hard_state().clone()),
            None => Writes::new(spec.replica),
        };
        let raw = RawNode::new(&raft_config, store, &config.logger)?;
        let mut abroad = Abroad::new(config.regions.clone(), now);
        abroad.set_ahead(state.ahead);
        let mut replica = Replica {
            spec,
            members,
            raw,
            writes,
            lead: NOT_LEADING,
            last_led: Term(0),
            owners: Owners::default(),
            reads: Reads::default(),
            boot: if plant::is(Fault::ReadsOfAnyLife) { 0 } else { boot },
            changing: None,
            removed: false,
            dismissed: false,
            removed_by: BTreeSet::new(),
            spoken: BTreeMap::new(),
            in_doubt: None,
            commits: VecDeque::new(),
            durable_number: 0,
            handed: at,
            done: at,
            answered: BTreeMap::new(),
            no_further: BTreeMap::new(),
            damaged: false,
            reluctant: false,
            offered: BTreeMap::new(),
            better: None,
            flushed,
            visibility: Visibility::from(abroad.visible_at_start(at)),
            abroad,
            modes,
            settings: SettingsInFlight::default(),
            incarnations,
            agreement,
            rows_agreement: RowsAgreement::default(),
            stops: None,
            told_leader: None,
            ticks: 0,
            stamp,
        };
        let may_be_ahead = replica.may_be_ahead();
        replica.writes.set_may_be_ahead(may_be_ahead);
        replica.snapshots_wait();
        Ok(replica)
    }

    /// A tick passed. Whether there may be something to collect.
    pub fn tick(&mut self, config: &NodeConfig, env: &Env, handing_over: bool, out: &mut Vec<Output>) -> bool {
        self.ticks += 1;
        self.looks_at_clock(env);
        if !self.serves() {
            self.tells_that_it_is_sealed(config, env, out);
            return false;
        }
        if plant::is(Fault::CutPastFlush) {
            self.flushed(self.raw.store().applied().index, config);
        }
        for read in self.reads.tick(self.ask_again_ticks()) {
            let decision = Decision::Barrier(BarrierOutcome::Unavailable);
            out.push(Output::Decided { request: read.request, decision });
        }
        // A node that is about to stop takes no lead, nor does one whose rows are not there; a lease that it
        // gave must end all the same.
        let window = self.window();
        if self.raw.raft.randomized_election_timeout() != window {
            self.raw.raft.set_randomized_election_timeout(window);
        }
        let mut ready = !self.reads.is_idle();
        let idle = self.is_installing() || handing_over || self.is_in_doubt();
        let idle = idle && self.raw.raft.state != StateRole::Leader;
        if !idle || self.raw.raft.election_elapsed + 1 < self.raw.raft.randomized_election_timeout() {
            ready |= self.raw.tick();
        }
        let mut hashes = self.agreement.tell(self.ticks);
        // Right after the start too: so the others hear this node's clock, which may be all that they wait for.
        if self.ticks == 1 || self.ticks.is_multiple_of(COMPARE_EVERY_TICKS) {
            let applied = self.raw.store().applied();
            hashes.push((applied.count, applied.hash));
        }
        for (count, hash) in hashes {
            for member in self.members.rows().into_iter().filter(|m| m.replica != self.spec.replica) {
                let message = self.message(config, env, member.replica, PeerBody::Hash { count, hash });
                out.push(Output::Send { to: member.node, message });
            }
        }
        self.tell_sums(config, env, out);
        self.tell_visible(config, env, true, out);
        self.looks_who_comes_no_further();
        self.looks_whether_regions_confirm();
        if self.ticks.is_multiple_of(COMPARE_EVERY_TICKS) {
            self.looks_whether_caught_up();
        }
        ready |= self.awaits_mode();
        if let Some((_, why)) = self.stops.take_if(|(at, _)| *at <= self.ticks) {
            out.push(Output::Abort(why));
        }
        ready
    }

    /// Takes in what another member says. Its membership was checked.
    ///
    /// # Errors
    /// If no honest replica says it. Nothing was changed then.
    pub fn peer(
        &mut self,
        config: &NodeConfig,
        from: ReplicaId,
        body: PeerBody,
        handing_over: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerRefusal> {
        if !matches!(body, PeerBody::Removed) {
            self.removed_by.remove(&from);
            self.spoken.insert(from, self.ticks);
        }
        match body {
            PeerBody::Raft(message) => return self.hears(config, from, message, handing_over),
            // The node takes it in.
            PeerBody::Leads(_)
            | PeerBody::Hears { .. }
            | PeerBody::Modes(_)
            | PeerBody::HeldBut(_)
            | PeerBody::TakenOver(_) => {}
            PeerBody::Removed => self.hears_of_removal(from),
            PeerBody::Hash { count, hash } => self.compares(from, count, hash, out),
            PeerBody::Rows { index, sum } => self.compares_rows(from, index, sum, out),
            PeerBody::Visible { index } => self.told_visible(index),
        }
        Ok(())
    }

    fn hears(
        &mut self,
        config: &NodeConfig,
        from: ReplicaId,
        mut message: Message,
        handing_over: bool,
    ) -> Result<(), PeerRefusal> {
        let kind = message.get_msg_type();
        // It comes as files first.
        if kind == MessageType::MsgSnapshot {
            return Err(PeerRefusal::Kind(kind));
        }
        let own = self.own(config);
        match own.check(from, &message) {
            Ok(Hearing::Heard) => own.shorten_search(&mut message),
            Ok(Hearing::Dropped) => return Ok(()),
            Err(refusal) => {
                if let PeerRefusal::Commit { commit, .. } = refusal {
                    self.in_doubt = Some((commit.0, self.ticks + DOUBT_TICKS));
                }
                return Err(refusal);
            }
        }
        self.hears_of(from);
        if is_answer(&message) {
            self.hears_standby(from, &mut message);
            self.answered.insert(from, self.ticks);
        }
        match kind {
            // raft-rs stops the process if it is to campaign while a snapshot is put in place.
            MessageType::MsgTimeoutNow if handing_over || self.is_unfit_to_lead() || self.is_installing() => {
                return Ok(());
            }
            MessageType::MsgTimeoutNow | MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if self.is_in_doubt() =>
            {
                return Ok(());
            }
            // As if lost: the leader sends again.
            MessageType::MsgAppend if !message.entries.is_empty() && self.raw.store().is_full() => return Ok(()),
            _ => {}
        }
        if matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat) {
            self.hears_commit(Index(message.commit));
        }
        // A message of a member that is not known, or of an old term: raft-rs has its own opinion.
        let _ = self.raw.step(message);
        if plant::is(Fault::StandbysCommit)
            && self.raw.raft.state == StateRole::Leader
            && let Some(held) = self.abroad.regions().map(|regions| self.held(regions))
        {
            let log = &mut self.raw.raft.raft_log;
            log.commit_to(held.0.min(log.persisted));
        }
        Ok(())
    }

    /// Whether its log may have lost entries that count as durable here: its vote could lose them for all.
    fn is_in_doubt(&self) -> bool {
        let last = self.raw.raft.raft_log.last_index();
        self.in_doubt.is_some_and(|(commit, until)| last < commit && self.ticks < until)
    }

    /// A member says that this replica was removed. That word may be false, and a removed replica hears nothing else: it
    /// ends where a majority of the other voters that it knows say so, or no other of them says anything any more.
    fn hears_of_removal(&mut self, from: ReplicaId) {
        let voters = self.members.voters();
        let others = || voters.iter().filter(|voter| **voter != self.spec.replica);
        if voters.is_empty() {
            // It never learned of any, and has nothing to lose.
            return self.dismiss();
        }
        if !others().any(|voter| *voter == from) {
            return;
        }
        self.removed_by.insert(from);
        let say_so = others().filter(|voter| self.removed_by.contains(voter)).count();
        let since = self.ticks.checked_sub(GONE_SILENT_TICKS);
        let is_silent =
            |voter: &ReplicaId| since.is_some_and(|since| self.spoken.get(voter).is_none_or(|spoken| *spoken < since));
        let nobody_else = others().all(|voter| self.removed_by.contains(voter) || is_silent(voter));
        if say_so > others().count() / 2 || nobody_else {
            self.dismiss();
        }
    }

    /// Another replica says what it holds; what follows from it if that differs is in [`Agreement`].
    fn compares(&mut self, from: ReplicaId, count: u64, hash: Hash, out: &mut Vec<Output>) {
        let (partition, replica) = (self.spec.partition, self.spec.replica);
        let differs = |other, difference| Output::Differs { partition, replica, other, count, difference };
        match self.agreement.heard(self.ticks, (from, count, hash), replica, self.members.voters()) {
            Finding::Nothing => {}
            Finding::Undecided => out.push(differs(from, Difference::Undecided)),
            Finding::OthersAreWrong(others) => {
                self.sets_aside(&others);
                if plant::is(Fault::RottenStandbyStopsHome) && others.iter().any(|other| self.is_abroad(*other)) {
                    self.stop(format!("partition {partition}: a standby disagrees on the first {count} entries"));
                }
                out.extend(others.into_iter().map(|other| differs(other, Difference::OtherIsWrong)));
            }
            Finding::OwnIsWrong => self.stop(format!(
                "partition {partition}: this replica {replica} disagrees with a majority of its group on the first {count} entries: it is damaged; {DAMAGED_NODE_ADVICE}"
            )),
            Finding::NobodyIsRight => self.stop(format!(
                "partition {partition}: this replica {replica} and replica {from} disagree on the first {count} entries, and no majority agrees: keep all nodes' data directories, find out which is right, and restore the others as new replicas"
            )),
        }
    }

    /// Stops the process soon, once the others can have heard what is held here.
    fn stop(&mut self, why: String) {
        self.stops.get_or_insert((self.ticks + STOP_AFTER_TICKS, why));
    }

    /// Appends an owner's change, or says at once why not.
    pub fn propose(
        &mut self,
        config: &NodeConfig,
        wall: UnixMillis,
        proposal: Proposal,
        request: RequestId,
    ) -> Option<ProposalOutcome> {
        let same_term = self.lead.term == Some(proposal.term) || plant::is(Fault::DropTermChecks);
        let leads = self.lead.told && same_term;
        if !leads || self.raw.store().applied().incarnation != Some(proposal.incarnation) {
            return Some(ProposalOutcome::NotLeader { leader: self.leader() });
        }
        let slot = match proposal.kind {
            EntryKind::Rows(_) => Some(proposal.mailbox),
            EntryKind::Begin | EntryKind::Takeover(_) | EntryKind::Chunk(_) => None,
        };
        if let Some(mailbox) = slot {
            let free = !self.owners.is_taken(mailbox) || plant::is(Fault::TwoEntriesInFlight);
            assert!(free, "mailbox {mailbox} proposes while its entry is in flight");
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Some(ProposalOutcome::Dropped);
        }
        if self.raw.store().is_full() || self.visibility.is_full() {
            return Some(ProposalOutcome::Overloaded);
        }
        if self.is_unconfirmed() {
            return Some(ProposalOutcome::NotConfirmed);
        }
        match self.append(config, wall, proposal) {
            Some(index) => {
                self.owners.appended(request, index, slot);
                None
            }
            None => Some(ProposalOutcome::Overloaded),
        }
    }

    pub fn read_barrier(&mut self, request: RequestId, reader: Reader) -> Option<BarrierOutcome> {
        if plant::is(Fault::ReadBarrierAlwaysPasses) {
            return Some(BarrierOutcome::Passed { index: self.raw.store().applied().index });
        }
        if !self.serves() {
            return Some(BarrierOutcome::Unavailable);
        }
        let reader = if plant::is(Fault::ReadThroughOldActor) { Reader::Visible } else { reader };
        match reader {
            Reader::Owner(term) | Reader::Held(term) if self.lead.term != Some(term) => {
                return Some(BarrierOutcome::NotLeader { leader: self.leader() });
            }
            Reader::Owner(_) | Reader::Held(_) | Reader::Applied | Reader::Visible => {}
        }
        (!self.reads.ask(request, reader)).then_some(BarrierOutcome::Unavailable)
    }

    pub fn await_slot(&mut self, request: RequestId, term: Term, mailbox: MailboxId) -> Option<SlotOutcome> {
        if self.lead.term != Some(term) {
            return Some(SlotOutcome::NotLeader { leader: self.leader() });
        }
        match self.owners.await_slot(request, mailbox) {
            SlotAnswer::Free => Some(SlotOutcome::Free),
            SlotAnswer::Wait => None,
            SlotAnswer::Full => Some(SlotOutcome::Overloaded),
        }
    }

    pub fn unreachable(&mut self, node: NodeId) {
        if self.raw.raft.state == StateRole::Leader {
            for replica in self.members.on(node) {
                self.raw.report_unreachable(replica.0);
            }
        }
    }

    pub fn applied(
        &mut self,
        applied: Applied,
        verdicts: &[(Index, Verdict)],
        sum: Option<Hash>,
        out: &mut Vec<Output>,
    ) {
        self.done = applied.index;
        self.replace_rows(out);
        let applied = self.incarnations.view(applied);
        if applied.index < self.raw.store().applied().index {
            // Applied before a snapshot took the place of everything.
            return;
        }
        let commit = self.raw.raft.raft_log.committed;
        assert!(applied.index.0 <= commit, "applied {} of {commit} committed", applied.index);
        self.agreement.remember(applied.count, applied.hash);
        self.rows_agreement.applied(applied.index, sum);
        self.removed |= applied.index.0 > 0 && !members::holds(&applied, self.spec.replica);
        self.raw.mut_store().set_applied(applied.clone());
        self.raw.advance_apply_to(applied.index.0);
        self.applies_takeover(applied.index);
        self.applies_modes(applied.index);
        self.applies_settings(verdicts, out);
        for (index, verdict) in verdicts {
            if !self.owners.is_in_flight(*index) {
                continue;
            }
            if self.has_regions() && !self.owners.has_slot(*index) {
                self.tell_verdict(*index, *verdict, out);
            } else {
                self.visibility.decided(self.abroad.now(), *index, *verdict);
            }
        }
        self.answer_visible(out);
    }

    /// Tells whoever waits for it what has become visible: the one place from which anybody hears of what was applied.
    fn answer_visible(&mut self, out: &mut Vec<Output>) {
        // The position is the snapshot's already; its rows are not in place yet.
        if self.is_installing() {
            return;
        }
        let applied = self.raw.store().applied().index;
        let confirmation = self.confirmation();
        let ready = self.visibility.applied(self.now(), applied, confirmation);
        if let Confirmation::Held { upto, .. } = confirmation
            && self.is_alone()
        {
            self.told_alone(ready.iter().filter(|(index, _)| *index > upto).count());
        }
        for (index, verdict) in ready {
            self.tell_verdict(index, verdict, out);
        }
        let waited = self.visibility.take_waited();
        if !waited.is_empty() {
            out.push(Output::Waited { partition: self.spec.partition, waited });
        }
        self.change_visible(self.visibility.index(), out);
        self.answers_settings(out);
        self.answer_reads(applied, out);
    }

    fn tell_verdict(&mut self, index: Index, verdict: Verdict, out: &mut Vec<Output>) {
        // Its term may have ended meanwhile.
        let Some((request, waiting)) = self.owners.decided(index) else { return };
        let outcome = ProposalOutcome::Applied { index, verdict };
        out.push(Output::Decided { request, decision: Decision::Proposal(outcome) });
        for request in waiting {
            out.push(Output::Decided { request, decision: Decision::Slot(SlotOutcome::Free) });
        }
    }

    pub fn snapshot_sent(&mut self, to: ReplicaId, ok: bool) {
        self.raw.store().snapshot_sent(to);
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to.0, status);
    }

    /// A snapshot is whole and synced as files.
    ///
    /// # Errors
    /// If no honest replica sends it. It is thrown away then.
    pub fn snapshot_staged(
        &mut self,
        config: &NodeConfig,
        from: ReplicaId,
        mut message: Message,
        applied: Applied,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerRefusal> {
        let conf = conf_state(&self.incarnations.view(applied.clone()));
        message.mut_snapshot().mut_metadata().set_conf_state(conf);
        let own = self.own(config);
        let checked = peer_check::snapshot_rows(&applied).and_then(|()| own.check(from, &message));
        match self.writes.installation.staged(applied.clone()) {
            Arrival::Judge => {}
            Arrival::Waits => return checked.map(drop),
        }
        let about = message.get_snapshot().get_metadata();
        let fits = checked == Ok(Hearing::Heard)
            && message.get_msg_type() == MessageType::MsgSnapshot
            && (about.index, about.term) == (applied.index.0, applied.term.0);
        if fits {
            let _ = self.raw.step(message);
        }
        let is_news = self.raw.snap().is_some_and(|s| !s.is_empty());
        match self.writes.installation.judged(is_news) {
            Judgement::Keep => {}
            Judgement::Discard => out.push(Output::Snapshot(SnapshotJob::Discard { replica: self.spec.replica })),
        }
        checked.map(drop)
    }

    /// A snapshot's rows are in place; what they say of the members.
    pub fn rows_installed(&mut self, group: &GroupRows) {
        self.writes.installation.replaced();
        self.damaged = false;
        self.members.adopt(self.raw.store().applied(), group);
        self.finds_mode(group.mode);
        self.finds_takeover(group.taken_over.clone());
    }

    /// What messages are compared with.
    fn own(&self, config: &NodeConfig) -> Own<'_> {
        let (raft, first_term) = (&self.raw.raft, self.first_term());
        Own { raft, handed: self.handed, cluster: config.cluster, first_term }
    }

    /// Whether Raft goes on from a snapshot that is not in place.
    fn is_installing(&self) -> bool {
        self.writes.installation.is_on()
    }

    pub fn has_work(&self) -> bool {
        self.raw.has_ready()
    }

    pub fn writes(&mut self) -> &mut Writes {
        &mut self.writes
    }

    /// The newest stamp of what is applied here, or of what was appended as a leader.
    pub fn newest_stamp(&self) -> UnixMillis {
        self.stamp.max(self.raw.store().applied().stamp)
    }

    fn append(&mut self, config: &NodeConfig, wall: UnixMillis, proposal: Proposal) -> Option<Index> {
        self.append_with(config, wall, proposal, 0)
    }

    fn append_with(&mut self, config: &NodeConfig, wall: UnixMillis, proposal: Proposal, mode: u8) -> Option<Index> {
        let stamp = self.newest_stamp().max(wall);
        let Proposal { incarnation, term, mailbox, command, kind } = proposal;
        let header = EntryHeader {
            cluster: config.cluster,
            incarnation,
            mailbox,
            decided_in: term,
            command,
            stamp,
            required_flags: 0,
            needs_control: self.needs_control(),
            confirmed: self.held_everywhere(),
            mode,
        };
        let data = Entry { header, kind }.encode();
        assert!(data.len() <= ENTRY_MAX_BYTES, "an entry of {} bytes", data.len());
        let before = self.raw.raft.raft_log.last_index();
        self.raw.propose(Vec::new(), data).ok()?;
        let index = self.raw.raft.raft_log.last_index();
        assert_eq!(index, before + 1, "a proposal is one entry");
        self.stamp = stamp;
        Some(Index(index))
    }

    pub fn message(&self, config: &NodeConfig, env: &Env, to: ReplicaId, body: PeerBody) -> PeerMessage {
        PeerMessage {
            cluster: config.cluster,
            partition: self.spec.partition,
            from: self.spec.replica,
            to,
            incarnation: self.told_incarnation(),
            wall: env.wall,
            body,
        }
    }

    /// Whether it was made and no leader has spoken to it yet: who leads is known only from other nodes' hints.
    pub fn is_stranger(&self) -> bool {
        self.leader().is_none() && self.members.voters().is_empty()
    }

    /// Who is believed to lead, if that is another replica, and its node.
    pub fn leader_replica(&self) -> Option<(ReplicaId, NodeId)> {
        let leader = ReplicaId(self.raw.raft.leader_id);
        (leader != self.spec.replica).then_some(leader).zip(self.members.node(leader))
    }

    /// Its position.
    pub fn position(&self) -> Applied {
        self.raw.store().applied().clone()
    }

    /// The position of its rows.
    pub fn applied_index(&self) -> Index {
        self.raw.store().applied().index
    }

    fn leader(&self) -> Option<NodeId> {
        let leader = ReplicaId(self.raw.raft.leader_id);
        self.members.node(leader)
    }

    /// The election timeout in ticks, by rank among the voters; whoever is unfit to lead comes last.
    fn window(&self) -> usize {
        let voters = self.members.voters();
        let rank =
            voters.iter().position(|v| *v == self.spec.replica && !self.is_unfit_to_lead()).unwrap_or(voters.len());
        FIRST_WINDOW_TICKS + 2 * rank.min(RANKS_MAX)
    }
}

/// Whether it proves that its sender hears this replica.
fn is_answer(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
    )
}
