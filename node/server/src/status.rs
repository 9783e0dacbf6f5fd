//! How a node and the whole cluster are, as types: what `mailraft status` and `GET /api/v1/status` say, and what
//! nodes tell each other of themselves (as JSON, so that two versions understand each other in an upgrade).

use std::collections::{BTreeMap, BTreeSet};

use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_cluster::{ReplicaStatus, Role};
use mailraft_driver::NodeStatus;
use mailraft_storage::{Index, NodeId, PartitionId, Term};
use serde::{Deserialize, Serialize};

use crate::descriptors::Descriptors;
use crate::disk_space::DiskStatus;
use crate::failover::TakeoverStatus;
use crate::memory_limit::MemoryStatus;
use crate::queues::QueuedStatus;
use crate::survival::{RegionLine, RegionState, Survival};
use crate::taken::{Said, Takeovers};

/// So many partitions without a leader are named one by one.
const WITHOUT_LEADER_NAMED_MAX: usize = 3;
/// A node whose disk has not written for so long says so: it has handed its leads over, if others can lead.
const DISK_STANDS_STILL_MS: u64 = 3_000;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnStatus {
    /// Its part in the cluster.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// Its name for people, `node.name`. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its name for mail programs and servers, `tls.hostname`. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The version of Mailraft that it runs.
    pub version: String,
    /// Mailbox actors on it.
    pub actors: usize,
    /// How long it has been running, in seconds.
    pub uptime_s: u64,
    /// Client sessions, and how many there may be. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionStatus>,
    /// Files and connections. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<Descriptors>,
    /// Room on its disk. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
    /// Its memory. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
    /// Its wall clock when it said so, in milliseconds since 1970. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_unix_ms: Option<u64>,
    /// How it is prepared for a takeover, in a cluster of several regions. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<TakeoverStatus>,
    /// What waits in the queues that it leads. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<QueuedStatus>,
}

/// Client sessions of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Those there are.
    pub open: usize,
    /// Those there may be: `limits.sessions`, as far as there are descriptors for them.
    pub max: usize,
    /// What `limits.sessions` asks for.
    pub wanted: usize,
}

/// The cluster, as the nodes that answered see it together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its id, in hexadecimal.
    pub cluster: String,
    /// The node that asked the others.
    pub asked_node: NodeId,
    /// Every node, by number.
    pub nodes: Vec<NodeLine>,
    /// Every partition, the control group first.
    pub partitions: Vec<PartitionLine>,
    /// What is survived and what is not, in one sentence; None in a cluster of one region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survives: Option<String>,
    /// Each backup region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionLine>,
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// What is wrong and what to do about it, a sentence each.
    pub problems: Vec<String>,
    /// What is well and not as it was asked for, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Its number.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Whether it answered.
    pub up: bool,
    /// How many partitions it says that it leads.
    pub leads: usize,
    /// What it said.
    #[serde(flatten)]
    pub answer: NodeAnswer,
}

/// What a node said when it was asked how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NodeAnswer {
    /// It answered.
    Up(Box<OwnStatus>),
    /// It did not, so that none of its replicas is known.
    Down {
        /// Always empty: whoever reads the JSON may go through every node's replicas.
        partitions: [ReplicaStatus; 0],
    },
}

/// One partition of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionLine {
    /// The partition.
    pub partition: PartitionId,
    /// The node that leads it in the highest term of which anyone told.
    pub leader: Option<NodeId>,
    /// That leader's term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// The last entry that leader knows to be committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Index>,
    /// Its replicas on the nodes that answered.
    #[serde(default)]
    pub replicas: Vec<ReplicaLine>,
}

/// One replica of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaLine {
    /// The node that it is on.
    pub node: NodeId,
    /// The last entry that it applied.
    pub applied: Index,
    /// What it does in its group.
    pub role: Role,
    /// How many committed entries it has yet to apply; None while nobody leads.
    pub lag: Option<u64>,
}

impl ClusterStatus {
    /// Lays the nodes' answers over each other; None is a node that did not answer. `regions` are the cluster's, if it has
    /// several; `name` gives the name for people of a node that does not say its own; partitions are numbered from 0 to
    /// `partitions`.
    pub fn of(
        cluster: String,
        asked_node: NodeId,
        partitions: u32,
        regions: Option<&Regions>,
        name: impl Fn(NodeId) -> String,
        answers: BTreeMap<NodeId, Option<OwnStatus>>,
    ) -> Self {
        let (mut problems, mut notes) = (Vec::new(), Vec::new());
        let said = answers.iter().map(|(node, own)| (*node, own.as_ref().map(|own| &own.node))).collect();
        let is_waited_for = |of: &Regions, region: &RegionName| of.home() == region || of.sync_set().contains(region);
        let is_taken_out =
            |node| regions.is_some_and(|of| of.of(node).is_some_and(|region| !is_waited_for(of, region)));
        let takeovers = regions.map_or_else(Takeovers::default, |regions| {
            let said = answers.iter().map(|(node, own)| (*node, own.as_ref().map(OwnStatus::of_takeovers)));
            Takeovers::of(regions, asked_node, &said.collect())
        });
        let takes_over = regions.and_then(|regions| takes_over(regions, asked_node, &said, &takeovers));
        let survival = regions.map(|regions| match takeovers.sealed {
            Some(sentence) => Survival { survives: sentence, regions: Vec::new() },
            None => Survival::of(regions, partitions, &said, &takeovers.locked),
        });
        problems.extend(takeovers.problems);
        notes.extend(takeovers.notes);
        let (survives, regions) = survival.map_or_else(Default::default, |s| (Some(s.survives), s.regions));
        let is_ill = |line: &&RegionLine| match line.state {
            RegionState::Holds | RegionState::Behind | RegionState::Filling | RegionState::Removed => false,
            RegionState::Stopped
            | RegionState::Alone
            | RegionState::Returning
            | RegionState::Unknown
            | RegionState::LeftBehind => true,
        };
        problems.extend(regions.iter().filter(is_ill).map(|line| line.sentence.clone()));
        let mut lines: BTreeMap<PartitionId, PartitionLine> =
            (0..=partitions).map(|p| (PartitionId(p), PartitionLine::unknown(PartitionId(p)))).collect();
        let mut nodes = Vec::new();
        for (id, mut answer) in answers {
            // The line has it.
            let said = answer.as_mut().and_then(|own| own.name.take());
            let (up, leads) = (answer.is_some(), answer.as_ref().map_or(0, OwnStatus::leads));
            let answer = match answer {
                Some(own) => {
                    for replica in &own.node.partitions {
                        let unknown = || PartitionLine::unknown(replica.partition);
                        lines.entry(replica.partition).or_insert_with(unknown).add(id, replica);
                        if replica.damaged {
                            problems.push(format!(
                                "node {id} has damaged rows of its replica of partition {}: see its log, check its disk",
                                replica.partition
                            ));
                        }
                    }
                    if own.node.log_write_ms >= DISK_STANDS_STILL_MS {
                        problems.push(format!(
                            "node {id} has waited for {} s for its disk to write: see to that disk; as long as it stands still the \
                             node leads nothing that another can lead, and counts as one that is lost",
                            own.node.log_write_ms / 1_000
                        ));
                    }
                    if let Some(disk) = own.disk.filter(|disk| disk.low) {
                        problems.push(format!(
                            "node {id} has {} MiB of disk left and takes no new mail below {} MiB: give it room, or see \
                             limits.low_water_bytes and limits.low_water_percent",
                            disk.free_bytes >> 20,
                            disk.low_water_bytes >> 20
                        ));
                    }
                    if let Some(memory) = own.memory.as_ref().filter(|m| m.resident_bytes > m.limit_bytes) {
                        problems.push(format!(
                            "node {id} has {} MiB in memory, more than its limit of {}: see its shares in mailraft status \
                             --json, and limits.memory_bytes",
                            memory.resident_bytes >> 20,
                            memory.limit_bytes >> 20
                        ));
                    }
                    if let Some(SessionStatus { max, wanted, .. }) = own.sessions.filter(|s| s.max < s.wanted) {
                        notes.push(format!(
                            "node {id} takes {max} client sessions, not limits.sessions = {wanted}: raise LimitNOFILE in its \
                             unit (or ulimit -n), or give it more memory"
                        ));
                    }
                    NodeAnswer::Up(Box::new(own))
                }
                None if takeovers.left_behind.contains(&id) => {
                    notes.push(format!(
                        "node {id} does not answer; its region was taken over, and nothing waits for it"
                    ));
                    NodeAnswer::Down { partitions: [] }
                }
                None if is_taken_out(id) => {
                    notes.push(format!("node {id} does not answer; its region is taken out, and nothing waits for it"));
                    NodeAnswer::Down { partitions: [] }
                }
                None => {
                    problems.push(format!("node {id} does not answer: start it again with mailraft node --config"));
                    NodeAnswer::Down { partitions: [] }
                }
            };
            nodes.push(NodeLine { id, name: said.unwrap_or_else(|| name(id)), up, leads, answer });
        }
        notes.extend(held(&nodes));
        problems.extend(broken_links(&nodes));
        let mut partitions: Vec<PartitionLine> = lines.into_values().collect();
        partitions.iter_mut().for_each(PartitionLine::measure_lag);
        problems.extend(without_leader(&partitions));
        problems.extend(takes_over);
        let healthy = problems.is_empty();
        ClusterStatus { cluster, asked_node, nodes, partitions, survives, regions, healthy, problems, notes }
    }
}

/// A sentence for each partition that has no leader, or one for many.
fn without_leader(partitions: &[PartitionLine]) -> Vec<String> {
    let none: Vec<PartitionId> =
        partitions.iter().filter(|line| line.leader.is_none()).map(|line| line.partition).collect();
    if none.len() > WITHOUT_LEADER_NAMED_MAX {
        return vec![format!(
            "{} of {} partitions have no leader: a majority of the nodes of each must run",
            none.len(),
            partitions.len()
        )];
    }
    none.iter().map(|of| format!("partition {of} has no leader: a majority of its nodes must run")).collect()
}

/// What an operator at a backup region can do while nobody hears the home.
fn takes_over(
    regions: &Regions,
    asked: NodeId,
    answers: &BTreeMap<NodeId, Option<&NodeStatus>>,
    takeovers: &Takeovers,
) -> Option<String> {
    let (own, home) = (regions.of(asked)?, regions.home());
    let of_home = |node: &NodeId| regions.of(*node) == Some(home);
    let is_heard = answers.iter().any(|(node, said)| of_home(node) && said.is_some());
    let may = own != home && !is_heard && takeovers.sealed.is_none() && regions.has_standbys(own);
    let (own, home) = (&own.0, &home.0);
    may.then(|| {
        format!(
            "no node of region {home} answers. If it is lost, {own} takes over from it when you say so: mailraft region failover \
             --to {own} --dry-run shows what would be lost"
        )
    })
}

/// A sentence where mail waits for somebody to decide about it.
fn held(nodes: &[NodeLine]) -> Option<String> {
    let of_node = |node: &NodeLine| match &node.answer {
        NodeAnswer::Up(own) => own.queued,
        NodeAnswer::Down { .. } => None,
    };
    let all = nodes.iter().filter_map(of_node).fold(QueuedStatus::default(), QueuedStatus::and);
    (all.held > 0).then(|| {
        format!("mail for {} recipients is held until somebody decides about it: see mailraft queue list", all.held)
    })
}

/// A sentence for each two nodes that answer us, and have no connection to each other.
fn broken_links(nodes: &[NodeLine]) -> Vec<String> {
    let up = |node: &NodeLine| match &node.answer {
        NodeAnswer::Up(own) => Some((node.id, own.node.peers.clone())),
        NodeAnswer::Down { .. } => None,
    };
    let up: BTreeMap<NodeId, _> = nodes.iter().filter_map(up).collect();
    let mut pairs = BTreeSet::new();
    for (node, peers) in &up {
        for peer in peers.iter().filter(|peer| !peer.connected && up.contains_key(&peer.node)) {
            pairs.insert((*node.min(&peer.node), *node.max(&peer.node)));
        }
    }
    let sentence = |(one, other)| {
        format!(
            "nodes {one} and {other} are up and not connected: look at the network between them, and at what their logs say \
             of each other. Nodes that hear all others lead meanwhile"
        )
    };
    pairs.into_iter().map(sentence).collect()
}

impl OwnStatus {
    /// What matters where a region takes over.
    fn of_takeovers(&self) -> Said<'_> {
        (&self.node, self.takeover.as_ref())
    }

    /// How many partitions the node says that it leads.
    fn leads(&self) -> usize {
        self.node.partitions.iter().filter(|replica| replica.role == Role::Leader).count()
    }
}

impl PartitionLine {
    /// Nobody told of it yet.
    fn unknown(partition: PartitionId) -> Self {
        PartitionLine { partition, leader: None, term: None, commit: None, replicas: Vec::new() }
    }

    fn add(&mut self, node: NodeId, replica: &ReplicaStatus) {
        self.replicas.push(ReplicaLine { node, applied: replica.applied, role: replica.role, lag: None });
        // An earlier leader that has not heard of its successor may still think that it leads.
        if replica.role == Role::Leader && self.term.is_none_or(|term| term < replica.term) {
            self.leader = Some(node);
            self.term = Some(replica.term);
            self.commit = Some(replica.commit);
        }
    }

    fn measure_lag(&mut self) {
        for replica in &mut self.replicas {
            replica.lag = self.commit.map(|commit| commit.0.saturating_sub(replica.applied.0));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::survival::tests::replica;

    fn node(id: u64, partitions: Vec<ReplicaStatus>) -> (NodeId, Option<OwnStatus>) {
        let node = crate::survival::tests::node(id, partitions);
        (
            NodeId(id),
            Some(OwnStatus {
                node,
                name: (id == 1).then(|| "mx1".into()),
                hostname: None,
                version: "1".into(),
                actors: 3,
                uptime_s: 9,
                clock_unix_ms: None,
                sessions: None,
                descriptors: None,
                disk: None,
                memory: None,
                takeover: None,
                queued: None,
            }),
        )
    }

    fn status(answers: impl IntoIterator<Item = (NodeId, Option<OwnStatus>)>) -> ClusterStatus {
        let name = |node: NodeId| format!("node{node}");
        ClusterStatus::of("c".into(), NodeId(1), 1, None, name, answers.into_iter().collect())
    }

    #[test]
    fn the_newer_of_two_leaders_counts_and_lag_goes_by_its_commit() {
        let answers = [
            node(1, vec![replica(0, Role::Leader, 3, 50, 50), replica(1, Role::Leader, 7, 90, 90)]),
            node(2, vec![replica(0, Role::Leader, 5, 70, 70), replica(1, Role::Follower, 7, 90, 88)]),
            node(3, vec![replica(0, Role::Follower, 5, 70, 60), replica(1, Role::Learner, 7, 80, 95)]),
        ];
        let status = status(answers);
        assert!(status.healthy, "{:?}", status.problems);
        let [control, mail] = &status.partitions[..] else { panic!("two partitions") };
        assert_eq!((control.leader, control.term, control.commit), (Some(NodeId(2)), Some(Term(5)), Some(Index(70))));
        let lags = |line: &PartitionLine| line.replicas.iter().map(|r| r.lag).collect::<Vec<_>>();
        assert_eq!(lags(control), [Some(20), Some(0), Some(10)]);
        assert_eq!((mail.leader, lags(mail)), (Some(NodeId(1)), vec![Some(0), Some(2), Some(0)]));
        assert_eq!(status.nodes.iter().map(|n| n.leads).collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn two_living_nodes_without_a_connection_are_named_and_a_dead_one_only_as_dead() {
        let sees = |id: u64, others: [(u64, bool); 2]| {
            let (id, mut own) =
                node(id, vec![replica(0, Role::Leader, 3, 50, 50), replica(1, Role::Leader, 3, 50, 50)]);
            own.as_mut().unwrap().node.peers = others
                .map(|(node, connected)| mailraft_driver::PeerStatus {
                    node: NodeId(node),
                    address: String::new(),
                    connected,
                    queued_messages: 0,
                })
                .into();
            (id, own)
        };
        let all = |one: bool, other: bool| {
            [sees(1, [(2, one), (3, true)]), sees(2, [(1, other), (3, true)]), sees(3, [(1, true), (2, true)])]
        };
        assert!(status(all(true, true)).healthy);
        for (one, other) in [(false, false), (false, true), (true, false)] {
            let problems = status(all(one, other)).problems;
            assert!(problems.len() == 1 && problems[0].starts_with("nodes 1 and 2 are up and not connected"));
        }
        let [one, two, _] = all(true, true);
        let dead = status([one, two, (NodeId(3), None)]).problems;
        assert!(dead.len() == 1 && dead[0].starts_with("node 3 does not answer"), "{dead:?}");
    }

    #[test]
    fn mail_that_is_held_is_named_in_a_note() {
        let holds = |id, held| {
            let (id, mut own) =
                node(id, vec![replica(0, Role::Leader, 3, 50, 50), replica(1, Role::Leader, 3, 50, 50)]);
            own.as_mut().unwrap().queued =
                Some(QueuedStatus { messages: 9, waiting: 9, held, oldest_unix_ms: Some(1) });
            (id, own)
        };
        assert!(status([holds(1, 0), holds(2, 0)]).notes.is_empty(), "mail that waits is nothing to tell");
        let notes = status([holds(1, 2), holds(2, 3), node(3, Vec::new())]).notes;
        assert_eq!(notes, ["mail for 5 recipients is held until somebody decides about it: see mailraft queue list"]);
    }

    #[test]
    fn many_partitions_without_a_leader_are_one_sentence() {
        let lines = |count: u32| (0..count).map(|p| PartitionLine::unknown(PartitionId(p))).collect::<Vec<_>>();
        assert_eq!(without_leader(&lines(3)).len(), 3);
        assert_eq!(
            without_leader(&lines(17)),
            ["17 of 17 partitions have no leader: a majority of the nodes of each must run"]
        );
    }

    #[test]
    fn what_is_wrong_is_named_and_every_partition_is_listed() {
        let mut damaged = replica(0, Role::Follower, 3, 50, 50);
        damaged.damaged = true;
        let status = status([node(1, vec![damaged]), (NodeId(2), None)]);
        assert_eq!(
            status.problems,
            [
                "node 1 has damaged rows of its replica of partition 0: see its log, check its disk",
                "node 2 does not answer: start it again with mailraft node --config",
                "partition 0 has no leader: a majority of its nodes must run",
                "partition 1 has no leader: a majority of its nodes must run",
            ]
        );
        assert!(!status.healthy && !status.nodes[1].up);
        assert_eq!(status.partitions.len(), 2);
        assert_eq!(status.partitions[0].replicas[0].lag, None);
    }

    #[test]
    fn the_json_has_the_fields_that_scripts_read_and_comes_back_whole() {
        let status = status([node(1, vec![replica(0, Role::Leader, 3, 50, 49)]), (NodeId(2), None)]);
        let json = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({
            "cluster": "c", "asked_node": 1, "healthy": false,
            "problems": json["problems"],
            "nodes": [
                {"id": 1, "name": "mx1", "up": true, "leads": 1, "node": 1, "cluster": "c", "peers": [],
                 "partitions": [{
                    "partition": 0, "replica": u64::MAX, "role": "leader", "term": 3, "leader": null, "commit": 50,
                    "applied": 49, "flushed": 0, "visible": 49,
                    "log_held_by": "flushed", "log_held_at": 0, "first": 1, "last": 50, "count": 0, "hash": "ab".repeat(32),
                    "installing": false, "damaged": false, "followers": [],
                 }],
                 "fsync_p50_us": 1, "fsync_p99_us": 2, "core_queue": 0, "apply_queue": 0, "rows_bytes": 0,
                 "scrub": {"percent": 34, "rows": 5, "bytes": 900, "age_s": null, "damaged": 0},
                 "version": "1", "actors": 3, "uptime_s": 9},
                {"id": 2, "name": "node2", "up": false, "leads": 0, "partitions": []},
            ],
            "partitions": [
                {"partition": 0, "leader": 1, "term": 3, "commit": 50,
                 "replicas": [{"node": 1, "applied": 49, "role": "leader", "lag": 1}]},
                {"partition": 1, "leader": null, "replicas": []},
            ],
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<ClusterStatus>(json).unwrap(), status);
    }
}
