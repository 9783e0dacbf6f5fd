//! What a replica has to do with other regions: what its standbys there hold, what they may hear, what its answers wait
//! for. Nothing of it in a cluster of one region.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mailraft_storage::entry::EntryHeader;
use mailraft_storage::{Env, Index, NodeId, PartitionId, ReplicaId};
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::{COMPARE_EVERY_TICKS, ELECTION_TICKS, Replica};
use crate::config::NodeConfig;
use crate::members::ChangeRefusal;
use crate::plant::{self, Fault};
use crate::reads::{ASK_AGAIN_TICKS, ASK_FAR_AGAIN_TICKS};
use crate::regions::{RegionName, Regions, held};
use crate::seam::{Output, PeerBody};
use crate::status::{AnswersStatus, RegionStatus, SILENT_AFTER_MS};
use crate::visibility::Confirmation;

/// A tick.
const TICK: Duration = Duration::from_millis(25);
/// A standby that has all there is hears a heartbeat after so many ticks without another word (1 s). It never campaigns,
/// so it needs none sooner.
const IDLE_HEARTBEAT_TICKS: u64 = 40;
/// A standby that answered within so many ticks (3 s) is active: three idle heartbeats.
const ACTIVE_TICKS: u64 = 3 * IDLE_HEARTBEAT_TICKS;
/// New writes are refused once a region that answers wait for has confirmed nothing for so long.
pub const NOT_CONFIRMED_AFTER: Duration = Duration::from_secs(5);
/// Whether regions confirm is looked at every so many ticks (100 ms).
pub const LOOK_EVERY_TICKS: u64 = 4;
/// Where the clock went on for so long between two ticks, the node was suspended or stood still: nobody was asked then.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// What one replica knows of regions.
#[derive(Default)]
pub(super) struct Abroad {
    regions: Option<Arc<Regions>>,
    /// Time since some moment of this boot, running on through suspend.
    now: Duration,
    /// When something was sent last to each standby, in ticks.
    spoken: BTreeMap<ReplicaId, u64>,
    /// Standbys that differ from a majority at home: what they have synced counts no more.
    set_aside: BTreeSet<ReplicaId>,
    /// Those of them of which no majority says so but themselves: whole again, they count again.
    wrong_as_they_say: BTreeSet<ReplicaId>,
    /// When the sum over the rows of each standby was last found to be the same as here.
    compared: BTreeMap<ReplicaId, Duration>,
    /// Entries up to here are visible, as a leader told.
    told: Index,
    /// What was told last, as a leader.
    tells: Index,
    /// What is known of this node's replica of the control group.
    control: ControlSeen,
    /// Entries from the first index on rest on the control group's second, which is not visible yet; both rise.
    needs: VecDeque<(Index, Index)>,
    /// The highest need of any entry so far.
    highest_need: Index,
    /// What entries rest on that were found here, at a start or in a snapshot, is not known. Which find that was.
    unknown_needs: Option<u64>,
    finds: u64,
    /// When each standby was heard last as this leads, and how long it took there and back.
    heard: BTreeMap<ReplicaId, Heard>,
    /// When this replica began to lead, or led no more.
    led_at: Duration,
    /// For how long a region that answers wait for has confirmed nothing, as it was looked at last.
    unconfirmed: Duration,
    /// When the last tick was, and how long the node stood still since those regions confirmed last.
    ticked_at: Duration,
    stood_still: Duration,
    /// All other regions hold the log up to here, as committed entries say.
    everywhere: Index,
    /// A snapshot brought this standby up to here, and it has not heard yet that its region holds that.
    ahead: Option<Index>,
    /// When Raft's messages were heard last here from a replica of another region.
    heard_of: Option<Duration>,
}

/// What a leader heard of a standby.
#[derive(Clone, Copy)]
struct Heard {
    at: Duration,
    round_trip: Option<Duration>,
}

/// How far this node's replica of the control group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlSeen {
    pub applied: Index,
    pub visible: Index,
}

impl Abroad {
    pub fn new(regions: Option<Arc<Regions>>, now: Duration) -> Self {
        let mut abroad = Abroad { regions, now, ticked_at: now, ..Abroad::default() };
        abroad.finds_entries();
        abroad
    }

    /// The clock that bounds go by, as it was looked at last.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// A start found this mark.
    pub fn set_ahead(&mut self, ahead: Option<Index>) {
        self.ahead = ahead;
    }

    /// What is known of regions, in a cluster of several.
    pub fn regions(&self) -> Option<&Arc<Regions>> {
        self.regions.as_ref()
    }

    /// Entries came to be here whose needs were not seen.
    pub fn finds_entries(&mut self) {
        self.finds += 1;
        self.unknown_needs = self.regions.as_ref().map(|_| self.finds);
        self.needs.clear();
    }

    /// Up to where a replica that begins with these entries applied takes them for visible: with other regions nothing
    /// says that they are.
    pub fn visible_at_start(&self, applied: Index) -> Index {
        if self.regions.is_some() { Index(0) } else { applied }
    }
}

impl Replica {
    /// The clock that bounds go by, as it is now.
    pub fn looks_at_clock(&mut self, env: &Env) {
        self.abroad.now = match plant::is(Fault::BoundStopsInSuspend) {
            true => TICK.saturating_mul(self.ticks.try_into().unwrap_or(u32::MAX)),
            false => env.now,
        };
    }

    pub(super) fn now(&self) -> Duration {
        self.abroad.now
    }

    /// Whether the cluster has other regions.
    pub(super) fn has_regions(&self) -> bool {
        self.abroad.regions.is_some()
    }

    /// What the control group's rows say of regions from now on, at this position.
    pub fn hears_regions(&mut self, regions: &Arc<Regions>, applied: Index) {
        self.hears_mode_row(regions, applied);
        self.abroad.regions = Some(Arc::clone(regions));
    }

    /// Whether a snapshot may be above what this replica's region holds, so that it would know more than a takeover's
    /// election looks at. Where a region has one replica, that one holds what it has.
    pub(super) fn may_be_ahead(&self) -> bool {
        let Some(regions) = &self.abroad.regions else { return false };
        let region = |node| regions.of(node);
        let own = self.spec.members.iter().find(|m| m.replica == self.spec.replica).map(|m| m.node);
        let beside = self.spec.members.iter().filter(|m| own.is_some_and(|own| region(m.node) == region(own)));
        let is_first = self.incarnation().number == 1;
        is_first && own.is_some_and(|own| !regions.is_home(own)) && beside.count() > 1
    }

    /// A snapshot took the place of this replica's log.
    pub(super) fn goes_ahead(&mut self, applied: Index) {
        self.abroad.ahead = self.may_be_ahead().then_some(applied);
    }

    /// Up to where a snapshot brought this standby, if it has not heard yet that its region holds that.
    pub(super) fn ahead(&self) -> Option<Index> {
        self.abroad.ahead
    }

    /// Another replica spoke to this one.
    pub(super) fn hears_of(&mut self, from: ReplicaId) {
        if self.is_abroad(from) {
            self.abroad.heard_of = Some(self.now());
        }
    }

    /// How long ago another region was heard last, on a standby.
    pub(super) fn home_heard_ms(&self) -> Option<u64> {
        let heard = self.abroad.heard_of.filter(|_| !self.raw.store().applied().voters.contains(&self.spec.replica))?;
        Some(millis(self.now().saturating_sub(heard)))
    }

    /// A leader told a commit. What it tells a standby, its region holds, whoever leads later.
    pub(super) fn hears_commit(&mut self, commit: Index) {
        if self.abroad.ahead.take_if(|ahead| commit >= *ahead).is_some() {
            self.writes.ahead_is_over();
        }
    }

    /// Whether a member stands in another region than this replica does.
    pub(super) fn is_abroad(&self, replica: ReplicaId) -> bool {
        let Some(regions) = &self.abroad.regions else { return false };
        let region = |replica| self.members.node(replica).and_then(|node| regions.of(node));
        region(replica) != region(self.spec.replica) || region(replica).is_none()
    }

    /// Whether a change of members may be about a replica on this node. Voters stay at home, and standbys are those that
    /// the group was made with: a majority of theirs held each answer, and another set could lack it.
    pub(super) fn may_change_on(&self, node: NodeId) -> Result<(), ChangeRefusal> {
        match &self.abroad.regions {
            Some(regions) if !regions.is_home(node) => Err(ChangeRefusal::OtherRegion(node)),
            Some(_) | None => Ok(()),
        }
    }

    /// Up to where a region holds this leader's log. raft-rs raises `matched` only by an answer of this term that followed
    /// the standby's fsync.
    fn held_by(&self, regions: &Regions, region: &RegionName) -> Index {
        let there = |id: &ReplicaId| self.members.node(*id).and_then(|node| regions.of(node)) == Some(region);
        let synced = |(id, progress): (&u64, &raft::Progress)| {
            let id = ReplicaId(*id);
            let counts = !self.abroad.set_aside.contains(&id);
            (self.members.learns(id) && there(&id)).then_some(Index(if counts { progress.matched } else { 0 }))
        };
        held(self.raw.raft.prs().iter().filter_map(synced).collect())
    }

    /// Up to where every region of the sync set holds this leader's log.
    pub(super) fn held(&self, regions: &Regions) -> Index {
        let all = regions.sync_set().iter().map(|region| self.held_by(regions, region));
        all.min().unwrap_or(Index(u64::MAX))
    }

    /// The other regions that have standbys of this leader's group, and these.
    fn others(&self) -> BTreeMap<&RegionName, Vec<ReplicaId>> {
        let mut others: BTreeMap<&RegionName, Vec<ReplicaId>> = BTreeMap::new();
        let Some(regions) = &self.abroad.regions else { return others };
        for id in self.raw.raft.prs().iter().map(|(id, _)| ReplicaId(*id)).filter(|id| self.is_abroad(*id)) {
            if let Some(region) = self.members.node(id).and_then(|node| regions.of(node)) {
                others.entry(region).or_default().push(id);
            }
        }
        others
    }

    /// The other regions, for operators; only the leader knows.
    pub(super) fn regions_status(&self) -> Vec<RegionStatus> {
        let Some(regions) = self.abroad.regions.as_ref().filter(|_| self.lead.term.is_some()) else {
            return Vec::new();
        };
        self.others().into_iter().map(|(region, standbys)| self.region_status(regions, region, &standbys)).collect()
    }

    fn region_status(&self, regions: &Regions, region: &RegionName, standbys: &[ReplicaId]) -> RegionStatus {
        let confirms = |id: &&ReplicaId| self.takes_what_is_sent(**id) && !self.abroad.set_aside.contains(id);
        let held = self.held_by(regions, region);
        let lacks = held.0 < self.raw.raft.raft_log.committed;
        let unheld = if lacks { self.visibility.unheld_from(held, self.now()) } else { Duration::ZERO };
        let mut status = RegionStatus {
            region: region.0.clone(),
            in_sync_set: regions.sync_set().contains(region),
            standbys: standbys.len(),
            disagreeing: standbys.iter().filter(|id| self.abroad.set_aside.contains(id)).count(),
            confirming: standbys.iter().filter(confirms).count(),
            held,
            unheld_ms: millis(unheld),
            heard_ms: self.by_majority(standbys, |heard| Some(self.now().saturating_sub(heard.at))),
            round_trip_ms: self.by_majority(standbys, |heard| heard.round_trip),
            compared_ms: self.compared_ms(standbys.iter().filter(confirms)),
            unconfirmed_ms: 0,
        };
        let silent_ms = match (status.is_silent(), status.heard_ms) {
            (true, Some(heard_ms)) => heard_ms,
            (true, None) => millis(self.now().saturating_sub(self.abroad.led_at)),
            (false, _) => 0,
        };
        let unconfirmed_ms = silent_ms.max(status.unheld_ms);
        status.unconfirmed_ms = unconfirmed_ms.saturating_sub(millis(self.abroad.stood_still));
        status
    }

    /// Looks for how long regions that answers wait for have confirmed nothing. Of time in which the node stood still
    /// nothing is said: they were not asked.
    pub(super) fn looks_whether_regions_confirm(&mut self) {
        let now = self.now();
        let passed = now.saturating_sub(std::mem::replace(&mut self.abroad.ticked_at, now));
        if passed >= STOOD_STILL {
            self.abroad.stood_still += passed;
        } else if !self.ticks.is_multiple_of(LOOK_EVERY_TICKS) {
            return;
        }
        let regions = self.regions_status().into_iter().filter(|region| region.in_sync_set);
        // What waits for the control group's entries to be held waits for regions too.
        let unheld_ms = self.unheld_ms();
        let (mut silent, mut unconfirmed_ms) = (false, unheld_ms.saturating_sub(millis(self.abroad.stood_still)));
        for region in regions {
            silent |= region.is_silent();
            unconfirmed_ms = region.unconfirmed_ms.max(unconfirmed_ms);
        }
        if !silent && unheld_ms < SILENT_AFTER_MS {
            self.abroad.stood_still = Duration::ZERO;
        }
        self.abroad.unconfirmed = Duration::from_millis(unconfirmed_ms);
    }

    /// For how long a region that answers wait for has confirmed nothing, in milliseconds; only the leader knows.
    pub(super) fn unconfirmed(&self) -> Duration {
        self.lead.term.map_or(Duration::ZERO, |_| self.abroad.unconfirmed)
    }

    /// What at most is so of a majority of these standbys, in milliseconds.
    fn by_majority(&self, standbys: &[ReplicaId], of: impl Fn(&Heard) -> Option<Duration>) -> Option<u64> {
        let known = standbys.iter().filter_map(|standby| of(self.abroad.heard.get(standby)?));
        let mut known: Vec<Duration> = known.collect();
        known.sort_unstable();
        known.get(standbys.len() / 2).copied().map(millis)
    }

    /// The answers that waited or wait for other regions.
    pub(super) fn answers_status(&self) -> AnswersStatus {
        if !self.has_regions() || self.lead.term.is_none() {
            return AnswersStatus::default();
        }
        AnswersStatus { waiting: self.visibility.waiting() as u64, alone: self.answers_alone() }
    }

    /// A member answered. A standby says back when it was asked.
    pub(super) fn hears_standby(&mut self, from: ReplicaId, message: &mut Message) {
        if !self.is_abroad(from) || self.raw.raft.state != StateRole::Leader {
            return;
        }
        let (at, before) = (self.now(), self.abroad.heard.get(&from).and_then(|heard| heard.round_trip));
        let mut measured = None;
        if message.get_msg_type() == MessageType::MsgHeartbeatResponse {
            let asked = std::mem::take(&mut message.context);
            let asked = <[u8; 8]>::try_from(asked.as_ref()).ok().map(u64::from_be_bytes).map(Duration::from_micros);
            measured = asked.and_then(|asked| at.checked_sub(asked));
        }
        self.abroad.heard.insert(from, Heard { at, round_trip: measured.or(before) });
    }

    /// This replica begins to lead, or leads no more.
    pub(super) fn forgets_heard(&mut self) {
        self.abroad.heard.clear();
        (self.abroad.led_at, self.abroad.unconfirmed) = (self.now(), Duration::ZERO);
    }

    /// Whether each region that answers wait for was heard lately. While one is silent and is waited for the lead is not given
    /// away to spread leads: nobody could read at its successor, whose first entry would wait for that region.
    pub(super) fn are_regions_heard(&self) -> bool {
        self.regions_status().iter().filter(|region| region.in_sync_set).all(|region| !region.is_silent())
    }

    /// For how long the oldest entry has been applied that is not held, in milliseconds; only the leader knows.
    pub(super) fn unheld_ms(&self) -> u64 {
        millis(self.lead.term.map_or(Duration::ZERO, |_| self.visibility.unheld_for(self.now())))
    }

    /// Up to where all other regions that answers wait for hold the log, as far as this replica knows; nothing in a cluster of
    /// one region.
    pub(super) fn held_everywhere(&self) -> Index {
        let Some(regions) = &self.abroad.regions else { return Index(0) };
        if self.raw.raft.state != StateRole::Leader {
            return self.abroad.everywhere;
        }
        let held = regions.sync_set().iter().map(|region| self.held_by(regions, region)).min();
        held.map_or(self.abroad.everywhere, |held| held.max(self.abroad.everywhere))
    }

    /// The log behind this is kept for other regions. For one that nobody waits for nothing is.
    pub(super) fn needed_abroad(&self) -> Index {
        let waits = self.abroad.regions.as_ref().is_some_and(|regions| !regions.sync_set().is_empty());
        let all = !waits || self.others().is_empty() || plant::is(Fault::CutPastRegion);
        if all { Index(u64::MAX) } else { self.held_everywhere() }
    }

    /// Entries are committed: takes in what they say of other regions. One that can't be read stops apply.
    pub(super) fn hears_entries(&mut self, committed: &[Entry]) {
        if !self.has_regions() {
            return;
        }
        let normal = committed.iter().filter(|e| e.get_entry_type() == EntryType::EntryNormal && !e.data.is_empty());
        for (entry, header) in normal.filter_map(|e| Some((e, EntryHeader::of(&e.data).ok()?))) {
            let index = Index(entry.index);
            self.hears_takeover_entry(entry, header.incarnation);
            self.abroad.everywhere = self.abroad.everywhere.max(header.confirmed);
            // What an earlier incarnation needed is there by now, or lost: positions above its fork are others.
            let is_earlier = header.incarnation.number < self.incarnation().number;
            if !is_earlier && header.needs_control > self.abroad.highest_need {
                self.abroad.highest_need = header.needs_control;
                self.abroad.needs.push_back((index, header.needs_control));
            }
            if let Some(mode) = Replica::mode_of(entry, &header) {
                self.modes.committed(index, mode);
            }
        }
    }

    /// Who has a say in what is visible here, beside that it is applied.
    pub(super) fn confirmation(&self) -> Confirmation {
        let Some(regions) = &self.abroad.regions else { return Confirmation::None };
        let Some(first) = self.lead.term.map(|_| self.lead.first) else { return Confirmation::Told(self.abroad.told) };
        let upto = self.held(regions);
        // How old entries of earlier terms are, a new leader does not know: for them the bound is over.
        let knows_ages = upto >= first || plant::is(Fault::BoundRestartsWithLeader);
        let rpo_max = match self.is_alone() {
            true => Some(Duration::MAX),
            false => regions.durability().rpo_max().filter(|_| knows_ages && self.durability_is_held(regions, upto)),
        };
        Confirmation::Held { upto, rpo_max, needs_met: self.needs_met() }
    }

    /// Whether other regions hold the newest change of the durability; until then answers wait as if nothing less were promised.
    /// A region that takes over says what may be missing by the settings that it has. A change that the control group's leader
    /// tells as visible is held, by this same rule: unless the home answers alone, and then it is the mode's row that says what
    /// may be missing.
    fn durability_is_held(&self, regions: &Regions, upto: Index) -> bool {
        let Some(newest) = regions.changes().newest_durability() else { return true };
        let held = if self.spec.partition == PartitionId::CONTROL { upto } else { self.abroad.control.visible };
        held >= newest || plant::is(Fault::LessPromisedUnheard)
    }

    /// Up to where all that entries need of the control group is visible. A mailbox's key stands there: mail that was
    /// answered could else be held where its key is lost.
    fn needs_met(&self) -> Index {
        if self.spec.partition == PartitionId::CONTROL || plant::is(Fault::NeedsNotAwaited) {
            return Index(u64::MAX);
        }
        if self.abroad.unknown_needs.is_some() {
            return self.abroad.told;
        }
        let unmet = self.abroad.needs.iter().find(|(_, control)| *control > self.abroad.control.visible);
        unmet.map_or(Index(u64::MAX), |(first, _)| Index(first.0 - 1))
    }

    /// How far this node's replica of the control group is, for all others to know.
    pub fn control_seen(&self) -> ControlSeen {
        ControlSeen { applied: self.raw.store().applied().index, visible: self.visibility.index() }
    }

    /// The node's replica of the control group is so far.
    pub fn sees_control(&mut self, control: ControlSeen) {
        self.abroad.control = control;
        while self.abroad.needs.front().is_some_and(|(_, need)| *need <= control.visible) {
            self.abroad.needs.pop_front();
        }
    }

    /// What an entry that is appended now needs of the control group: all that this node has applied of it.
    pub(super) fn needs_control(&self) -> Index {
        if self.has_regions() { self.abroad.control.applied } else { Index(0) }
    }

    /// The find whose needs are not known, if there is one.
    pub fn unknown_needs(&self) -> Option<u64> {
        self.abroad.unknown_needs
    }

    /// Everything is visible that the control group had committed some time after this find.
    pub fn needs_are_met(&mut self, find: u64) {
        self.abroad.unknown_needs.take_if(|unknown| *unknown == find);
    }

    /// Whether this replica leads, and other regions have not confirmed for so long that nothing more should be begun. What
    /// is in flight waits.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed() >= NOT_CONFIRMED_AFTER && !self.is_alone()
    }

    /// What may be sent of a message to another member; None if it is not sent.
    ///
    /// * No replica abroad hears of a commit above what its own region holds. A takeover may elect two standbys that lack
    ///   what a third has heard to be committed; that one would answer an append below it with its commit, as raft-rs
    ///   does, and the new leader would count entries there that it never sent. Requests for votes and their answers
    ///   carry a commit too, and tell none.
    /// * A standby confirms no lead: it takes part in no round of reads, and an idle one hears a heartbeat once a second.
    pub(super) fn for_member(&mut self, mut message: Message) -> Option<Message> {
        let to = ReplicaId(message.to);
        if !self.is_abroad(to) {
            return Some(message);
        }
        let regions = self.abroad.regions.clone()?;
        match message.get_msg_type() {
            MessageType::MsgHeartbeat => {
                let silent = self.ticks - self.abroad.spoken.get(&to).copied().unwrap_or(0);
                let last = self.raw.raft.raft_log.last_index();
                let is_round = !message.context.is_empty();
                let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
                message.context = now.to_be_bytes().to_vec().into();
                message.commit = message.commit.min(self.commit_for(&regions, to).0);
                let has_all = |p: &raft::Progress| p.matched == last && p.committed_index >= message.commit;
                let is_idle = self.raw.raft.prs().get(to.0).is_some_and(has_all);
                if silent < if is_idle { IDLE_HEARTBEAT_TICKS } else { u64::from(is_round) } {
                    return None;
                }
            }
            MessageType::MsgAppend => message.commit = message.commit.min(self.commit_for(&regions, to).0),
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse => (message.commit, message.commit_term) = (0, 0),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgAppendResponse
            | MessageType::MsgSnapshot
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp => {}
        }
        self.abroad.spoken.insert(to, self.ticks);
        Some(message)
    }

    fn commit_for(&self, regions: &Regions, to: ReplicaId) -> Index {
        let region = self.members.node(to).and_then(|node| regions.of(node));
        match region {
            _ if plant::is(Fault::StandbyHearsCommit) => Index(u64::MAX),
            Some(region) if self.raw.raft.state == StateRole::Leader => self.held_by(regions, region),
            Some(_) | None => Index(0),
        }
    }

    /// After how many ticks a question to the leader is asked again.
    pub(super) fn ask_again_ticks(&self) -> u64 {
        match ReplicaId(self.raw.raft.leader_id) {
            ReplicaId(0) => ASK_AGAIN_TICKS,
            leader if self.is_abroad(leader) => ASK_FAR_AGAIN_TICKS,
            _ => ASK_AGAIN_TICKS,
        }
    }

    /// After how many ticks without an answer a member is not active any more.
    pub(super) fn active_ticks(&self, replica: ReplicaId) -> u64 {
        if self.is_abroad(replica) { ACTIVE_TICKS } else { ELECTION_TICKS as u64 }
    }

    /// These replicas differ from a majority to which this one belongs. A standby among them holds nothing any more.
    pub(super) fn sets_aside(&mut self, others: &[ReplicaId]) {
        let standbys = others.iter().filter(|other| self.is_abroad(**other) && self.members.learns(**other));
        let standbys: Vec<ReplicaId> = standbys.copied().collect();
        self.abroad.set_aside.extend(standbys);
    }

    /// Whether this replica stands in another region than its group's voters.
    pub(super) fn is_standby(&self) -> bool {
        self.members.learns(self.spec.replica) && self.members.voters().iter().any(|voter| self.is_abroad(*voter))
    }

    /// A standby says that its own rows are wrong; whether that is news.
    pub(super) fn is_wrong_as_it_says(&mut self, from: ReplicaId) -> bool {
        let counts = self.is_abroad(from) && self.members.learns(from) && !self.abroad.set_aside.contains(&from);
        if counts {
            self.abroad.set_aside.insert(from);
            self.abroad.wrong_as_they_say.insert(from);
        }
        counts
    }

    /// The sum over another replica's rows is the same as here.
    pub(super) fn rows_agree(&mut self, from: ReplicaId) {
        if !self.is_abroad(from) {
            return;
        }
        self.abroad.compared.insert(from, self.abroad.now);
        if self.abroad.wrong_as_they_say.remove(&from) {
            self.abroad.set_aside.remove(&from);
        }
    }

    /// How long ago the sums over these standbys' rows were last found to be the same as here: the longest of them, in
    /// milliseconds. None if one of them never was.
    fn compared_ms<'a>(&self, standbys: impl Iterator<Item = &'a ReplicaId>) -> Option<u64> {
        let ago = |standby: &ReplicaId| Some(millis(self.now().saturating_sub(*self.abroad.compared.get(standby)?)));
        standbys.map(ago).collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// A leader tells the others up to where entries are visible: of the control group, whose rows every node reads, as
    /// soon as that changes, of the others now and then.
    pub(super) fn tell_visible(&mut self, config: &NodeConfig, env: &Env, tick: bool, out: &mut Vec<Output>) {
        if !self.has_regions() || self.lead.term.is_none() {
            return;
        }
        let index = self.visibility.index();
        let news = self.spec.partition == PartitionId::CONTROL && index > self.abroad.tells;
        let due = tick && self.ticks.is_multiple_of(COMPARE_EVERY_TICKS);
        if !news && !due {
            return;
        }
        self.abroad.tells = index;
        for member in self.members.rows().into_iter().filter(|m| m.replica != self.spec.replica) {
            let message = self.message(config, env, member.replica, PeerBody::Visible { index });
            out.push(Output::Send { to: member.node, message });
        }
    }

    /// A leader of this group told up to where entries are visible. That they were stays true, whoever leads.
    pub(super) fn told_visible(&mut self, index: Index) {
        self.abroad.told = self.abroad.told.max(index);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
