//! Rows that turn bad: where, and what follows once a node says that it met them.

use mailraft_checkers::{Micros, Rule};
use mailraft_cluster::Input;
use mailraft_storage::{NodeId, PartitionId, ReplicaId, Rows};

use crate::dice::Dice;
use crate::event::Event;
use crate::moves::Move;
use crate::node_log::Corrupted;
use crate::world::{Beginners, World};

/// From a node's report until the operator acts, and until he looks again.
const OPERATOR_TAKES: Micros = 1_000_000;

impl World {
    /// A node's process dies, and a bit of what its log had synced turns over, if its groups can do without it.
    pub fn corrupts_log(&mut self, node: NodeId, permille: u64) {
        let spared = self.spares_a_disk();
        self.crash(node, 0);
        let host = self.host_mut(node);
        if spared && host.lost.is_none() {
            match host.log.corrupt(permille) {
                Corrupted::Nothing => {}
                Corrupted::Refused => host.log_corrupt = true,
                Corrupted::Opened => host.log_spoilt = true,
            }
        }
    }

    /// So many rows of one replica of a node, one after the other, turn bad on its disk, if its groups can do without
    /// it.
    pub fn corrupts_rows(&mut self, node: NodeId, draw: u64, count: usize) {
        if !self.spares_a_disk() {
            return;
        }
        let host = self.host_mut(node);
        let mut dice = Dice::new(draw, 0);
        let Some(replica) = dice.pick(&host.rows.replicas().unwrap_or_default()).copied() else { return };
        let keys = host.rows.keys(replica);
        if host.lost.is_none() && !keys.is_empty() {
            let from = dice.below(keys.len() as u64) as usize;
            host.damage_rows(replica, keys.into_iter().skip(from).take(count));
            self.say(format!("rows of replica {replica} on node {node} turn bad"));
        }
    }

    /// Whether no group has, between two changes of its voters, so few that it must not lose any one's disk: no code
    /// could bring that back.
    fn spares_a_disk(&self) -> bool {
        !self.moves.all().iter().any(Move::spares_none)
    }

    /// A node that runs says that it met damaged rows of a partition's replica.
    pub fn meets_damage(&mut self, node: NodeId, partition: PartitionId, why: &dyn std::fmt::Display) {
        let Some(replica) = self.replica(node, partition) else { return };
        let host = self.host(node);
        if !host.log_spoilt && !host.corrupted.contains(&replica) {
            let what = format!("node {node}, partition {partition}: damage is found where none was done: {why}");
            return self.goes_wrong(Rule::ReplicasAgree, what);
        }
        self.say(format!("node {node} finds replica {replica} of partition {partition} damaged: {why}"));
        self.input(node, Input::Damaged { replica });
        if self.host_mut(node).told_damaged.insert(replica) {
            self.queue.push(self.now() + OPERATOR_TAKES, Event::Repair(node, partition, replica));
        }
    }

    /// Entries of a replica's log were damaged when space was to be given back.
    pub fn meets_damaged_entries(&mut self, node: NodeId, replica: ReplicaId) {
        let core = self.host(node).up.as_ref().map(|process| process.core.replica_ids()).unwrap_or_default();
        let of = |(partition, held): (PartitionId, ReplicaId)| (held == replica).then_some(partition);
        if !self.host(node).told_damaged.contains(&replica)
            && let Some(partition) = core.into_iter().find_map(of)
        {
            self.meets_damage(node, partition, &"entries of its log are damaged");
        }
    }

    /// A process stops by itself, or can't start, as its rows can't be read: its node is set aside for good.
    pub fn stops_damaged(&mut self, node: NodeId, why: String) {
        let host = self.host_mut(node);
        let damaged = host.log_spoilt || host.corrupted.iter().any(|replica| host.rows.is_damaged(*replica));
        self.crash(node, 0);
        self.host_mut(node).lost = Some(why.clone());
        if !damaged {
            return self.goes_wrong(Rule::ReplicasAgree, format!("node {node} stops, and nothing was damaged: {why}"));
        }
        self.say(format!("node {node} is set aside: {why}"));
        self.replaces_all_of(node);
    }

    /// The operator replaces a damaged replica; a node whose replica of the control group is damaged is set aside.
    pub fn repairs(&mut self, node: NodeId, partition: PartitionId, replica: ReplicaId) {
        // What is found when everything is to come to rest stays as it is.
        if self.beginners == Beginners::Nobody || self.host_mut(node).lost.is_some() {
            return;
        }
        if partition == PartitionId::CONTROL {
            return self.stops_damaged(node, "its replica of the control group is damaged".to_owned());
        }
        let placement = self.placement(partition);
        if placement.as_ref().is_some_and(|p| p.members.iter().all(|m| m.replica != replica)) {
            return;
        }
        if let Some(free) = placement.and_then(|p| self.without_replica(&p)) {
            self.move_replica(partition, node, free);
        }
        self.queue.push(self.now() + OPERATOR_TAKES, Event::Repair(node, partition, replica));
    }
}
