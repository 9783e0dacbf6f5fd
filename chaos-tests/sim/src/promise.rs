//! The promise about a backup region: who stands there, and what was answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mailraft_checkers::Micros;
use mailraft_cluster::bootstrap::{Plan, plan, plan_regions};
use mailraft_cluster::mode::ModeRow;
use mailraft_cluster::placement::{NodeRow, Placement};
use mailraft_cluster::regions::{Durability, RegionName, RegionSettings, RegionsRow, Unconfirmed};
use mailraft_storage::{Env, Index, NodeId, PartitionId, ReplicaId, RowBatch, Term};

use crate::host::Host;
use crate::setup::Setup;

const HOME: &str = "home";
const SOUTH: &str = "south";

/// What was answered in a partition: the entry, and when.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The index of the entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// When it was answered.
    pub at: Micros,
}

/// What an operator wants to be set.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is to change.
    pub settings: RegionSettings,
    /// The node that was asked last, in which life, and when; None if that came to nothing.
    pub asked: Option<(NodeId, u64, Micros)>,
    /// Since when that node's rows show that it is made.
    pub made_since: Option<Micros>,
    /// Where the change stands, once he heard that.
    pub done: Option<Index>,
}

/// What was answered before an operator gave his word.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The number of the incarnation.
    pub incarnation: u32,
    /// The entry, and when.
    pub answered: Answered,
    /// It was held, as was seen at some time.
    pub held: bool,
    /// It was answered alone.
    pub alone: bool,
}

/// The backup region, and what was answered.
#[derive(Default)]
pub struct Promise {
    /// For each partition its standbys.
    standbys: BTreeMap<PartitionId, Vec<(NodeId, ReplicaId)>>,
    far: BTreeSet<NodeId>,
    rpo_max: Option<Duration>,
    /// Under `geo` everything that was answered, under `region` what of it is not held.
    answered: BTreeMap<PartitionId, VecDeque<Answered>>,
    /// Of these partitions a replica at home had its log replaced by a snapshot.
    replaced: BTreeSet<PartitionId>,
    /// Nodes of the backup region whose standbys are not what was applied.
    rotten: BTreeSet<NodeId>,
    /// Whether the home may ever go on alone.
    may_degrade: bool,
    /// The newest row about that which any node has applied.
    mode: ModeRow,
    /// What was answered alone, and not held then, since it was whole last.
    alone: Vec<(PartitionId, Answered)>,
    /// The row about regions with which the world began.
    first: Option<RegionsRow>,
    /// What operators want to be set.
    wanted: Vec<Wanted>,
    /// The backup region takes over in this run.
    takeover_expected: bool,
    /// When an operator first said that it does.
    word_given_at: Option<Micros>,
    /// The nodes at which an operator said so.
    asked: BTreeSet<NodeId>,
    /// Replicas that said that they are sealed.
    sealed: BTreeSet<ReplicaId>,
    /// Replicas that said that their incarnation's number has two nonces.
    contested: BTreeSet<ReplicaId>,
    /// What may be lost with the home, or must not be.
    told: BTreeMap<PartitionId, Vec<Told>>,
    /// The incarnations that there were, and where each began.
    begun: BTreeMap<(PartitionId, u32), Beginning>,
}

/// Where an incarnation of a partition began.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    /// The last index of what was before it.
    fork: Index,
    /// Somebody's rows say so. If not, it ended before its first entry was committed, though a later one goes on from its log.
    is_shown: bool,
}

impl Promise {
    /// Of the world of this setup, with partitions placed so.
    pub fn new(setup: &Setup, placements: &[Placement]) -> Self {
        let far: BTreeSet<NodeId> = (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).collect();
        let there = |placement: &Placement| {
            let members = placement.members.iter().filter(|m| far.contains(&m.node));
            (placement.partition, members.map(|m| (m.node, m.replica)).collect())
        };
        let standbys = placements.iter().map(there).collect();
        let may_degrade = setup.degrade_after.is_some();
        Promise { standbys, far, rpo_max: setup.rpo_max, may_degrade, ..Promise::default() }
    }

    /// The world begins with this row.
    pub fn begins_with(&mut self, row: Option<RegionsRow>) {
        self.first = row;
    }

    /// The row with which it began.
    pub fn first(&self) -> Option<&RegionsRow> {
        self.first.as_ref()
    }

    /// An operator wants this to be set; which of all wishes it is. From now on it may be so.
    pub fn wants(&mut self, settings: RegionSettings) -> usize {
        self.may_degrade |= settings.unconfirmed == Some(Unconfirmed::Degrade);
        let bound = settings.durability.and_then(Durability::rpo_max);
        self.rpo_max = self.rpo_max.map(|most| bound.map_or(most, |bound| bound.max(most)));
        self.wanted.push(Wanted { settings, asked: None, made_since: None, done: None });
        self.wanted.len() - 1
    }

    /// What operators want.
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// One of these wishes.
    pub fn wish(&mut self, number: usize) -> Option<&mut Wanted> {
        self.wanted.get_mut(number)
    }

    /// Whether there is a backup region.
    pub fn is_made(&self) -> bool {
        !self.far.is_empty()
    }

    /// The nodes of the backup region.
    pub fn far(&self) -> &BTreeSet<NodeId> {
        &self.far
    }

    /// Whether a node stands in the backup region.
    pub fn is_far(&self, node: NodeId) -> bool {
        self.far.contains(&node)
    }

    /// The backup region takes over in this run.
    pub fn expects_takeover(&mut self) {
        self.takeover_expected = true;
    }

    /// Whether it does.
    pub fn is_takeover_expected(&self) -> bool {
        self.takeover_expected
    }

    /// Whether what a node has may be lost with the home.
    pub fn may_be_lost(&self, node: NodeId) -> bool {
        self.takeover_expected && !self.is_far(node)
    }

    /// Whether a replica may have what is lost: it had a snapshot above what its region holds, or is sealed.
    pub fn may_have_lost(&self, host: &Host, replica: ReplicaId) -> bool {
        let state = host.log.as_log().state(replica).ok().flatten();
        self.takeover_expected && state.is_some_and(|state| state.ahead.is_some() || state.incarnation.sealed.is_some())
    }

    /// An operator has said that the backup region takes over.
    pub fn gives_word(&mut self, at: Micros) {
        self.word_given_at = Some(at);
    }

    /// Whether he has.
    pub fn is_word_given(&self) -> bool {
        self.word_given_at.is_some()
    }

    /// He says so at these nodes.
    pub fn asks(&mut self, nodes: &[NodeId]) {
        self.asked.extend(nodes);
    }

    /// Whether no operator has said so at a node.
    pub fn is_new_to_word(&self, node: NodeId) -> bool {
        !self.asked.contains(&node)
    }

    /// Whether that a replica is contested is news.
    pub fn is_contested_first(&mut self, replica: ReplicaId) -> bool {
        self.contested.insert(replica)
    }

    /// Whether that a replica is sealed is news.
    pub fn is_sealed_first(&self, replica: ReplicaId) -> bool {
        !self.sealed.contains(&replica)
    }

    /// From when on the old home, if it lives, may show what its successor in a partition lacks, though it answers nobody: where
    /// answers may run ahead of the backup, or the home goes on alone. Only the first incarnation's has no other word before.
    pub fn may_show_lost_since(&self, partition: PartitionId, incarnation: u32) -> Option<Micros> {
        let is_first = self.begun.range((partition, 0)..(partition, incarnation)).next().is_none();
        self.word_given_at.filter(|_| is_first && (self.rpo_max.is_some() || self.may_degrade))
    }

    /// Whether clients are to connect to a node.
    pub fn is_home(&self, node: NodeId) -> bool {
        self.is_far(node) == self.is_word_given()
    }

    /// A replica is sealed or is not; whether it was before and is no more.
    pub fn is_unsealed(&mut self, replica: ReplicaId, sealed: bool) -> bool {
        if sealed {
            self.sealed.insert(replica);
        }
        !sealed && self.sealed.contains(&replica)
    }

    /// What was answered in a partition before the word was given.
    pub fn told(&mut self, partition: PartitionId) -> &mut Vec<Told> {
        self.told.entry(partition).or_default()
    }

    /// Somebody's rows say that an incarnation of a partition has begun behind this index; whether that is news.
    pub fn begins(&mut self, partition: PartitionId, incarnation: u32, fork: Index) -> bool {
        self.begun.insert((partition, incarnation), Beginning { fork, is_shown: true }).is_none()
    }

    /// A log goes on from one of an incarnation that nobody's rows show, which began behind this index.
    pub fn passes(&mut self, partition: PartitionId, incarnation: u32, fork: Index) {
        self.begun.entry((partition, incarnation)).or_insert(Beginning { fork, is_shown: false });
    }

    /// What was answered in earlier incarnations than this one, but for what those between lacked already.
    pub fn told_before(&mut self, partition: PartitionId, incarnation: u32) -> Vec<Told> {
        let told = self.told(partition).clone();
        let between = |told: &Told| self.begun.range((partition, told.incarnation + 1)..(partition, incarnation));
        let stays = |told: &Told| between(told).all(|(_, begun)| told.answered.index <= begun.fork);
        told.into_iter().filter(|told| told.incarnation < incarnation && stays(told)).collect()
    }

    /// The last index of an incarnation of a partition that the one behind it has, if one has begun.
    pub fn fork_behind(&self, partition: PartitionId, incarnation: u32) -> Option<Index> {
        self.begun.range((partition, incarnation + 1)..=(partition, u32::MAX)).next().map(|(_, begun)| begun.fork)
    }

    /// Whether any incarnation of the control group has begun behind the first.
    pub fn has_begun_any(&self) -> bool {
        self.begun.keys().any(|(partition, _)| *partition == PartitionId::CONTROL)
    }

    /// Whether an incarnation of a partition has begun.
    pub fn has_begun(&self, partition: PartitionId, incarnation: u32) -> bool {
        self.begun.get(&(partition, incarnation)).is_some_and(|begun| begun.is_shown)
    }

    /// Under `region` the bound on what the home's loss takes.
    pub fn rpo_max(&self) -> Option<Duration> {
        self.rpo_max
    }

    /// The standbys of a partition.
    pub fn standbys(&self, partition: PartitionId) -> &[(NodeId, ReplicaId)] {
        self.standbys.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// The standbys on a node are not what was applied, from now on.
    pub fn rots(&mut self, node: NodeId) {
        self.rotten.insert(node);
    }

    /// Whether the standbys on a node are not what was applied.
    pub fn is_rotten(&self, node: NodeId) -> bool {
        self.rotten.contains(&node)
    }

    /// Whether a replica is such a standby.
    pub fn is_rotten_standby(&self, replica: ReplicaId) -> bool {
        self.standbys.values().flatten().any(|(node, of)| *of == replica && self.is_rotten(*node))
    }

    /// A snapshot took the place of a log at home.
    pub fn replaces_log(&mut self, partition: PartitionId) {
        self.replaced.insert(partition);
    }

    /// The partitions whose replicas at home all have the logs that they wrote.
    pub fn with_own_logs(&self) -> Vec<PartitionId> {
        self.standbys.keys().filter(|partition| !self.replaced.contains(partition)).copied().collect()
    }

    /// All standbys, with their partitions.
    pub fn all_standbys(&self) -> Vec<(PartitionId, (NodeId, ReplicaId))> {
        let of = |(partition, standbys): (&PartitionId, &Vec<(NodeId, ReplicaId)>)| {
            let partition = *partition;
            standbys.clone().into_iter().map(move |standby| (partition, standby))
        };
        self.standbys.iter().flat_map(of).collect()
    }

    /// Whether the home may ever go on alone.
    pub fn may_degrade(&self) -> bool {
        self.may_degrade
    }

    /// The newest row about the mode that any node has applied.
    pub fn mode(&self) -> &ModeRow {
        &self.mode
    }

    /// A node has applied this row; whether it is the newest.
    pub fn applies_mode(&mut self, row: &ModeRow) -> bool {
        let is_news = row.version > self.mode.version;
        if is_news {
            self.mode = *row;
        }
        is_news
    }

    /// What was answered alone, and not held then, since it was whole last.
    pub fn alone(&mut self) -> &mut Vec<(PartitionId, Answered)> {
        &mut self.alone
    }

    /// What was answered in a partition and is remembered.
    pub fn answered(&mut self, partition: PartitionId) -> &mut VecDeque<Answered> {
        self.answered.entry(partition).or_default()
    }

    /// All that was answered and is remembered.
    pub fn all_answered(&self) -> impl Iterator<Item = (PartitionId, &Answered)> {
        self.answered.iter().flat_map(|(partition, all)| all.iter().map(|answered| (*partition, answered)))
    }
}

/// The first state of a world's nodes.
pub fn first_state(setup: &Setup, control: RowBatch, env: &mut Env) -> (Vec<NodeRow>, Plan) {
    let row = |id: u64| NodeRow {
        id: NodeId(id),
        name: String::new(),
        region: match setup.standby_nodes {
            0 => String::new(),
            _ => (if id <= setup.nodes { HOME } else { SOUTH }).to_owned(),
        },
        zone: String::new(),
        peer: String::new(),
    };
    let nodes: Vec<NodeRow> = (1..=setup.nodes + setup.standby_nodes).map(row).collect();
    if setup.standby_nodes == 0 {
        let plan = plan(setup.partitions, &nodes, control, env);
        return (nodes, plan);
    }
    let name = |name: &str| RegionName(name.to_owned());
    let durability = match setup.rpo_max {
        None => Durability::Geo,
        Some(rpo_max) => Durability::Region { rpo_max_ms: rpo_max.as_millis() as u64 },
    };
    let regions = RegionsRow::new(name(HOME), [name(SOUTH)].into(), durability);
    let regions = match setup.degrade_after {
        Some(after) => RegionsRow { degrade_after_ms: after.as_millis() as u64, ..regions },
        None => RegionsRow { unconfirmed: Unconfirmed::Refuse, ..regions },
    };
    let plan = plan_regions(setup.partitions, &nodes, &regions, control, env);
    (nodes, plan)
}
