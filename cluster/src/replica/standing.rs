//! Where a replica stands among its group: who lags, who should lead, how much log is kept for whom.

use mailraft_storage::{Index, LogPosition, PartitionId, ReplicaId, Term};
use raft::{GetEntriesContext, Progress, ProgressState, StateRole};

use super::standbys::LOOK_EVERY_TICKS;
use super::{Offers, Replica};
use crate::balance::{self, Member};
use crate::config::NodeConfig;
use crate::low_water::LowWaterMarks;
use crate::promised::InLog;
use crate::reach::Reach;
use crate::status::{FollowerStatus, ReplicaStatus, Role};

/// The log is cut only when so many entries go at once.
const CUT_AT_LEAST_ENTRIES: u64 = 64;
/// Who did not take the lead that it was offered is offered it again after so many ticks (1 s).
const OFFER_AGAIN_TICKS: u64 = 40;
/// And after twice as long each time, so often (32 s): who does not take the lead may be damaged, as all may be that
/// have the same damage, and while it is waited for nothing is appended.
const OFFER_DOUBLED_MAX: u32 = 5;
/// A follower, which may lead next, keeps so many entries for others.
const FOLLOWER_KEEPS_ENTRIES: u64 = 1_024;
/// A member that lacks something and is no further after so many ticks (2 s) makes nothing durable, though it may answer.
const NO_FURTHER_TICKS: u64 = 80;
/// The same of one in another region (5 s), where a large message alone takes a while.
const FAR_NO_FURTHER_TICKS: u64 = 200;
/// The log is read in pieces of so many bytes where settings are looked for.
const IN_LOG_PAGE_BYTES: u64 = 1 << 20;

impl Replica {
    /// Rows up to here survive a crash. Cuts the log below the lowest of its marks.
    pub fn flushed(&mut self, upto: Index, config: &NodeConfig) {
        self.flushed = self.flushed.max(upto);
        // Where an incarnation began is found in the log.
        let waits = self.incarnation().number > 1 && !self.is_established();
        if self.is_installing() || waits || self.is_turning() {
            return;
        }
        let (_, cut) = self.low_water(config).lowest();
        let (now, cut) = (self.raw.store().cut().index.0, cut.0);
        if cut < now + CUT_AT_LEAST_ENTRIES.min(config.log_keep_entries.max(1)) {
            return;
        }
        if let Ok(term) = self.raw.raft.raft_log.term(cut) {
            let position = LogPosition { index: Index(cut), term: Term(term) };
            self.raw.mut_store().cut_to(position);
            self.writes.compact(position);
        }
    }

    /// Up to where each of those that need the log lets it go.
    fn low_water(&self, config: &NodeConfig) -> LowWaterMarks {
        let store = self.raw.store();
        let applied = store.applied().index;
        // Below this nothing is kept for anyone.
        let bound = applied.0.saturating_sub(config.log_keep_entries);
        let bound = bound.max(store.before_bytes(config.log_keep_bytes).0);
        let needed = match self.raw.raft.state {
            StateRole::Leader => {
                let at_home = self.raw.raft.prs().iter().filter(|(id, _)| !self.is_abroad(ReplicaId(**id)));
                at_home.map(|(_, p)| p.matched).min().unwrap_or(store.last().0)
            }
            StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => {
                applied.0.saturating_sub(FOLLOWER_KEEPS_ENTRIES)
            }
        };
        LowWaterMarks {
            flushed: self.flushed,
            applied,
            synced: Index(self.raw.raft.raft_log.persisted),
            followers: Index(needed.max(bound)),
            regions: self.needed_abroad().max(store.before_bytes(config.region_log_keep_bytes)),
        }
    }

    /// Why applied entries of its log could not be read since the last call, if some could not.
    pub fn take_unreadable(&self) -> Option<String> {
        self.raw.store().take_unreadable()
    }

    /// Whether something of it could not be read since the start.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Rows here, or applied entries of the log, can't be read.
    pub fn found_damaged(&mut self) {
        self.damaged = true;
    }

    /// Whether its node is short of something.
    pub fn set_reluctant(&mut self, reluctant: bool) {
        self.reluctant = reluctant;
    }

    /// Whether it leads only while no other does: it is damaged, or its node is short of something.
    pub(super) fn is_unfit_to_lead(&self) -> bool {
        self.damaged || self.reluctant
    }

    /// To whom a leader that is unfit should hand over. It leads on while nobody takes the lead: better than nobody.
    pub fn hands_over_unfit(&mut self) -> Option<ReplicaId> {
        if self.is_unfit_to_lead() { self.hand_over_leaving() } else { None }
    }

    /// To whom a leader that leaves its group, or leads no more if it can, offers the lead next. Each is offered it in
    /// turn, and again only after a pause, in which the leader goes on as if nothing were to be done.
    pub fn hand_over_leaving(&mut self) -> Option<ReplicaId> {
        if !self.may_hand_over() {
            return None;
        }
        let mut members = self.standing();
        members.retain(|m| self.may_be_offered(m.replica));
        let found = balance::successor(self.spec.replica, &members)?;
        Some(self.offers(found))
    }

    /// To whom a leader whose node stops should hand over: without pauses, for there is little time.
    pub fn hand_over_stopping(&mut self) -> Option<ReplicaId> {
        if !self.may_hand_over() {
            return None;
        }
        let found = balance::successor(self.spec.replica, &self.standing())?;
        Some(self.offers(found))
    }

    /// To whom to hand the lead over because another should have it. Where it is not its turn, nobody
    /// is offered anything.
    pub fn hand_over_preferred(&mut self, reach: &Reach, its_turn: bool) -> Option<ReplicaId> {
        let stayed = self.lead.told && self.ticks - self.lead.since_tick >= balance::STAY_TICKS;
        // While the home is alone, a successor's first entry waits for nobody.
        let settled = stayed && (self.are_regions_heard() || self.is_alone());
        if !self.may_hand_over() || self.is_unfit_to_lead() || !settled {
            return None;
        }
        let mut members = self.standing();
        for member in &mut members {
            member.well_placed = self.members.node(member.replica).is_none_or(|node| reach.is_best(node));
        }
        let order: Vec<ReplicaId> = self.members.order().collect();
        let found = balance::better_leader(&order, self.spec.replica, !reach.is_worse(), &members);
        let since = self.better.filter(|(replica, _)| Some(*replica) == found).map_or(self.ticks, |(_, since)| since);
        self.better = found.map(|replica| (replica, since));
        let found = found.filter(|_| self.ticks - since >= balance::STEADY_TICKS)?;
        (its_turn && self.may_be_offered(found)).then(|| self.offers(found))
    }

    fn may_hand_over(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.lead_transferee.is_none()
    }

    fn may_be_offered(&self, replica: ReplicaId) -> bool {
        let due = |offers: &Offers| offers.last_tick + (OFFER_AGAIN_TICKS << (offers.times - 1).min(OFFER_DOUBLED_MAX));
        self.offered.get(&replica).is_none_or(|offers| self.ticks >= due(offers))
    }

    fn offers(&mut self, replica: ReplicaId) -> ReplicaId {
        let offers = self.offered.entry(replica).or_default();
        *offers = Offers { times: offers.times.saturating_add(1), last_tick: self.ticks };
        replica
    }

    /// The members as this leader sees them.
    fn standing(&self) -> Vec<Member> {
        let last = self.raw.raft.raft_log.last_index();
        self.raw
            .raft
            .prs()
            .iter()
            .map(|(id, progress)| Member {
                replica: ReplicaId(*id),
                voter: self.raw.store().applied().voters.contains(&ReplicaId(*id)),
                active: self.takes_what_is_sent(ReplicaId(*id)) && self.keeps_up(progress),
                lag_entries: last.saturating_sub(progress.matched),
                offered: self.offered.get(&ReplicaId(*id)).map_or(0, |offers| offers.times),
                well_placed: true,
            })
            .collect()
    }

    /// Whether a member is sent entries as they come, or has all there are. Who could not be reached for a moment is sent
    /// nothing more where nothing is appended: it has no chance to show that it would take it.
    pub(super) fn keeps_up(&self, progress: &Progress) -> bool {
        match progress.state {
            ProgressState::Replicate => true,
            ProgressState::Probe => progress.matched == self.raw.raft.raft_log.last_index(),
            ProgressState::Snapshot => false,
        }
    }

    /// It answered within the election timeout. (raft-rs's own mark is off for a while after each of its checks.)
    pub(super) fn is_active(&self, replica: ReplicaId) -> bool {
        self.answered.get(&replica).is_some_and(|at| self.ticks - at <= self.active_ticks(replica))
    }

    /// It answers, and what it is sent becomes durable there. One whose disk hangs answers heartbeats alone: it would not bear
    /// the loss of another.
    pub(super) fn takes_what_is_sent(&self, replica: ReplicaId) -> bool {
        let max = if self.is_abroad(replica) { FAR_NO_FURTHER_TICKS } else { NO_FURTHER_TICKS };
        let hangs = self.no_further.get(&replica).is_some_and(|(_, since)| self.ticks - since >= max);
        self.is_active(replica) && !hangs
    }

    /// Looks, as the leader, which members lack something and are no further than they were. Those that are brought up by a
    /// snapshot are not among them.
    pub(super) fn looks_who_comes_no_further(&mut self) {
        if !self.ticks.is_multiple_of(LOOK_EVERY_TICKS) {
            return;
        }
        let mut before = std::mem::take(&mut self.no_further);
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        let last = self.raw.raft.raft_log.last_index();
        for (id, progress) in self.raw.raft.prs().iter().filter(|(id, _)| **id != self.spec.replica.0) {
            if progress.matched >= last || progress.state == ProgressState::Snapshot {
                continue;
            }
            let known = before.remove(&ReplicaId(*id)).filter(|(matched, _)| *matched == progress.matched);
            self.no_further.insert(ReplicaId(*id), known.unwrap_or((progress.matched, self.ticks)));
        }
    }

    pub fn transfer(&mut self, to: ReplicaId) {
        self.raw.transfer_leader(to.0);
    }

    pub fn status(&self, config: &NodeConfig) -> ReplicaStatus {
        let raft = &self.raw.raft;
        let applied = self.raw.store().applied();
        let voter = applied.voters.contains(&self.spec.replica);
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if voter => Role::Follower,
            StateRole::Follower => Role::Learner,
        };
        let last = self.raw.store().last();
        let followers = match raft.state {
            StateRole::Leader => raft
                .prs()
                .iter()
                .filter(|(id, _)| **id != self.spec.replica.0)
                .filter_map(|(id, progress)| {
                    let replica = ReplicaId(*id);
                    Some(FollowerStatus {
                        replica,
                        node: self.members.node(replica)?,
                        matched: Index(progress.matched),
                        lag: last.0.saturating_sub(progress.matched),
                        active: self.takes_what_is_sent(replica),
                        snapshot: progress.state == ProgressState::Snapshot,
                    })
                })
                .collect(),
            StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => Vec::new(),
        };
        let (log_held_by, log_held_at) = self.low_water(config).lowest();
        ReplicaStatus {
            partition: self.spec.partition,
            replica: self.spec.replica,
            role,
            term: Term(raft.term),
            leader: self.leader(),
            commit: Index(raft.raft_log.committed),
            // While a snapshot is being installed its rows are not in place yet.
            applied: if self.is_installing() { self.done } else { applied.index },
            flushed: self.flushed,
            visible: self.visibility.index(),
            log_held_by,
            log_held_at,
            first: Index(self.raw.store().cut().index.0 + 1),
            last,
            count: applied.count,
            hash: applied.hash,
            installing: self.is_installing(),
            damaged: self.damaged,
            followers,
            regions: self.regions_status(),
            unheld_ms: self.unheld_ms(),
            answers: self.answers_status(),
            mode: self.mode_status(),
            ahead: self.ahead(),
            incarnation: self.incarnation(),
            sealed_by: self.sealed().map(|taken| taken.incarnation.number),
            sealed_voters: self.sealed().map_or_else(Vec::new, |taken| taken.voters.clone()),
            home_heard_ms: self.home_heard_ms(),
            contested: self.is_contested(),
            settings_in_log: self.settings_in_log(),
            unconfirmed: self.is_unconfirmed(),
        }
    }

    /// As a standby of the control group, what its log has of settings that are not applied. It can't all be read: then what
    /// can, since nothing stops an operator from asking.
    fn settings_in_log(&self) -> Vec<InLog> {
        let is_standby = self.spec.partition == PartitionId::CONTROL && self.has_regions() && self.lead.term.is_none();
        let (applied, last) = (self.raw.store().applied().index.0, self.raw.raft.raft_log.last_index());
        if !is_standby || self.is_installing() {
            return Vec::new();
        }
        let (log, mut from, mut found) = (&self.raw.raft.raft_log, applied + 1, Vec::new());
        while from <= last {
            let page =
                log.slice(from, last + 1, IN_LOG_PAGE_BYTES, GetEntriesContext::empty(false)).unwrap_or_default();
            let Some(end) = page.last() else { break };
            from = end.index + 1;
            found.extend(page.iter().filter_map(InLog::of));
        }
        found
    }
}
