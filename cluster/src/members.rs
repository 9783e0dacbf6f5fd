//! Who is in a Raft group and where: Raft's configuration, and what its changes say of nodes.
//!
//! Replica ids rise in a group: an id at or below the highest it ever had, and not in its configuration, was
//! removed and never comes back.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{Applied, NodeId, ReplicaId, RowBatch, StoreError};
use protobuf::Message;
use raft::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};

use crate::placement::{self, GroupRows, MemberRow};

/// The format of the context of a configuration change: the member's row after it.
const CONTEXT_VERSION: u8 = 1;
/// Members that are remembered because they spoke, before the change that names them is applied here.
const HEARD_MAX: usize = 16;

/// A change of a group's members, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new replica that learns. Its id is above every id that the group ever had; its node has no other
    /// member.
    AddLearner(MemberRow),
    /// A learner that has caught up votes from now on.
    Promote(ReplicaId),
    /// A voter only learns from now on.
    Demote(ReplicaId),
    /// A voter or learner leaves for ever.
    Remove(ReplicaId),
}

/// Why a change of members is not made. Nothing was appended but perhaps an empty entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// An earlier change is not applied yet.
    #[error("another change of this group's members is under way")]
    Pending,
    /// Ids rise and are never used again.
    #[error("replica ids of this group must be above {0}")]
    IdUsed(ReplicaId),
    /// One replica of a group for a node.
    #[error("node {0} has a replica of this group already")]
    NodeTaken(NodeId),
    /// There is no such voter or learner.
    #[error("replica {0} is not a member in the role that the change needs")]
    NotMember(ReplicaId),
    /// Not heard of lately, or further behind than [`PROMOTE_LAG_MAX_ENTRIES`](crate::PROMOTE_LAG_MAX_ENTRIES).
    #[error("replica {replica} is {entries} entries behind or not heard of")]
    Lags {
        /// The replica that lags.
        replica: ReplicaId,
        /// So many entries it is behind.
        entries: u64,
    },
    /// The voters that are left and heard of would be no majority.
    #[error("too few of the remaining voters are heard of")]
    LosesQuorum,
    /// Standbys in other regions are those that the group was made with, and nobody there votes.
    #[error("node {0} is in another region, where members do not change")]
    OtherRegion(NodeId),
    /// The leader is to go and no other voter can take over.
    #[error("no other voter can take the lead")]
    NoSuccessor,
}

/// What a committed entry changes in the configuration.
pub struct Decoded {
    /// For raft-rs.
    pub change: ConfChangeV2,
    /// The member's row after it, unless the entry brings none.
    pub member: Option<MemberRow>,
}

/// Reads a change of the configuration; None for an entry that is none.
///
/// # Errors
/// If it can't be read, or comes from a later version.
pub fn decode(entry: &Entry) -> Result<Option<Decoded>, StoreError> {
    let damaged = |error| StoreError::damaged("change of Raft's configuration", error);
    let change = match entry.get_entry_type() {
        EntryType::EntryNormal => return Ok(None),
        EntryType::EntryConfChange => {
            let mut change = ConfChange::default();
            change.merge_from_bytes(&entry.data).map_err(damaged)?;
            let (change_type, node_id) = (change.get_change_type(), change.node_id);
            let single = ConfChangeSingle { change_type, node_id, ..Default::default() };
            ConfChangeV2 { changes: vec![single].into(), context: change.context, ..Default::default() }
        }
        EntryType::EntryConfChangeV2 => {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(damaged)?;
            change
        }
    };
    let member = match change.context.is_empty() {
        true => None,
        false => Some(versioned_decode("context of a change of members", CONTEXT_VERSION, &change.context)?),
    };
    Ok(Some(Decoded { change, member }))
}

/// A change for raft-rs, with the member's row after it.
pub fn encode(kind: ConfChangeType, member: &MemberRow) -> ConfChangeV2 {
    let single = ConfChangeSingle { change_type: kind, node_id: member.replica.0, ..Default::default() };
    let context = versioned_encode(CONTEXT_VERSION, member).into();
    ConfChangeV2 { changes: vec![single].into(), context, ..Default::default() }
}

/// Writes Raft's configuration into a position.
pub fn set_conf(applied: &mut Applied, conf: &ConfState) {
    let ids = |numbers: &[u64]| {
        let ids: BTreeSet<ReplicaId> = numbers.iter().map(|n| ReplicaId(*n)).collect();
        ids.into_iter().collect::<Vec<_>>()
    };
    applied.voters = ids(conf.get_voters());
    applied.learners = ids(conf.get_learners());
    applied.voters_outgoing = ids(conf.get_voters_outgoing());
    applied.learners_next = ids(conf.get_learners_next());
    applied.auto_leave = conf.auto_leave;
}

/// A position as it is once its replica has adopted an incarnation whose first entry it has not applied: with the voters
/// of that.
pub fn as_adopted(applied: &mut Applied, voters: &[ReplicaId]) {
    let mut conf = ConfState::default();
    conf.set_voters(voters.iter().map(|v| v.0).collect());
    set_conf(applied, &conf);
}

/// Whether a replica is in the configuration of a position.
pub fn holds(applied: &Applied, replica: ReplicaId) -> bool {
    let Applied { voters, learners, voters_outgoing, learners_next, .. } = applied;
    [voters, learners, voters_outgoing, learners_next].into_iter().any(|ids| ids.contains(&replica))
}

/// The rows of a change from one configuration to the next; `highest` is what the group's row says so far.
pub fn rows_of(member: Option<MemberRow>, highest: Option<ReplicaId>, before: &Applied, after: &Applied) -> RowBatch {
    let mut batch = RowBatch::default();
    let highest = [Some(top(before)), Some(top(after)), highest].into_iter().flatten().max().unwrap_or_default();
    batch.put(placement::highest_key(), placement::highest_row(highest));
    match member {
        Some(member) if holds(after, member.replica) => {
            batch.put(placement::member_key(member.replica), placement::member_row(&member));
        }
        Some(member) => batch.delete(placement::member_key(member.replica)),
        None => {}
    }
    batch
}

fn top(applied: &Applied) -> ReplicaId {
    let Applied { voters, learners, voters_outgoing, learners_next, .. } = applied;
    [voters, learners, voters_outgoing, learners_next].into_iter().flatten().copied().max().unwrap_or_default()
}

/// Whether a message of another node's replica is to be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is a member, or may become one.
    Heard,
    /// It was removed and does not know.
    Removed,
    /// It is another node's.
    Foreign,
}

/// The members of one group as a replica of it knows them.
pub struct Members {
    /// Who should lead, first to last.
    order: Vec<ReplicaId>,
    nodes: BTreeMap<ReplicaId, NodeId>,
    /// Of those in `nodes`: known only because they spoke.
    heard: BTreeSet<ReplicaId>,
    /// Only the configuration counts in it.
    conf: Applied,
    highest: ReplicaId,
}

impl Members {
    /// From where the group was placed, its position, and its own rows, which know better.
    pub fn new(placed: &[MemberRow], applied: &Applied, rows: &GroupRows) -> Self {
        let mut members = Members {
            order: placed.iter().map(|m| m.replica).collect(),
            nodes: placed.iter().map(|m| (m.replica, m.node)).collect(),
            heard: BTreeSet::new(),
            conf: Applied::default(),
            highest: ReplicaId::default(),
        };
        members.adopt(applied, rows);
        members
    }

    /// Takes a snapshot's configuration and rows.
    pub fn adopt(&mut self, applied: &Applied, rows: &GroupRows) {
        self.set(applied.clone());
        self.highest = self.highest.max(rows.highest);
        for member in &rows.members {
            self.learn(member);
        }
    }

    /// A change of the configuration was committed.
    pub fn changed(&mut self, conf: &ConfState, member: Option<&MemberRow>) {
        let mut applied = Applied::default();
        set_conf(&mut applied, conf);
        self.highest = self.highest.max(top(&self.conf));
        self.set(applied);
        if let Some(member) = member {
            self.learn(member);
        }
    }

    /// Where a replica is.
    pub fn node(&self, replica: ReplicaId) -> Option<NodeId> {
        self.nodes.get(&replica).copied()
    }

    /// Replicas of a node, those that were removed too.
    pub fn on(&self, node: NodeId) -> impl Iterator<Item = ReplicaId> {
        self.nodes.iter().filter(move |(_, n)| **n == node).map(|(r, _)| *r)
    }

    /// Whether a node has a replica in the present configuration.
    pub fn has_one_on(&self, node: NodeId) -> bool {
        self.on(node).any(|replica| holds(&self.conf, replica))
    }

    /// Whether a replica votes.
    pub fn votes(&self, replica: ReplicaId) -> bool {
        self.conf.voters.contains(&replica)
    }

    /// Whether a replica learns.
    pub fn learns(&self, replica: ReplicaId) -> bool {
        self.conf.learners.contains(&replica)
    }

    /// Everyone who votes, in rising order.
    pub fn voters(&self) -> &[ReplicaId] {
        &self.conf.voters
    }

    /// The highest replica id the group ever had.
    pub fn highest(&self) -> ReplicaId {
        self.highest
    }

    /// Whether a replica was a member and never will be again.
    pub fn was_removed(&self, replica: ReplicaId) -> bool {
        replica <= self.highest && !holds(&self.conf, replica)
    }

    /// Every voter and learner, in rising order of id, as far as its node is known.
    pub fn rows(&self) -> Vec<MemberRow> {
        let row = |replica: &ReplicaId| {
            Some(MemberRow { replica: *replica, node: self.node(*replica)?, voter: self.votes(*replica) })
        };
        let ids: BTreeSet<&ReplicaId> = self.conf.voters.iter().chain(&self.conf.learners).collect();
        ids.into_iter().filter_map(row).collect()
    }

    /// Who should lead, first to last: as placed, then those who came later.
    pub fn order(&self) -> impl Iterator<Item = ReplicaId> {
        let later = self.conf.voters.iter().filter(|v| !self.order.contains(v));
        self.order.iter().chain(later).copied()
    }

    /// Whether to hear a replica that speaks from a node whose name its certificate proves. One that is not
    /// known yet may be a member already: this replica may be far behind.
    pub fn admit(&mut self, replica: ReplicaId, node: NodeId) -> Admission {
        if self.node(replica).is_some_and(|known| known != node) {
            return Admission::Foreign;
        }
        if self.was_removed(replica) {
            return Admission::Removed;
        }
        if self.node(replica).is_none() {
            if self.heard.len() == HEARD_MAX {
                return Admission::Foreign;
            }
            self.heard.insert(replica);
            self.nodes.insert(replica, node);
        }
        Admission::Heard
    }

    /// The group had a replica of this id, whatever became of it.
    pub fn saw(&mut self, replica: ReplicaId) {
        self.highest = self.highest.max(replica);
    }

    fn set(&mut self, conf: Applied) {
        self.highest = self.highest.max(top(&conf));
        self.conf = conf;
    }

    fn learn(&mut self, member: &MemberRow) {
        self.heard.remove(&member.replica);
        self.nodes.insert(member.replica, member.node);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn row(replica: u64, node: u64) -> MemberRow {
        MemberRow { replica: ReplicaId(replica), node: NodeId(node), voter: true }
    }

    fn conf(voters: &[u64], learners: &[u64]) -> Applied {
        let ids = |numbers: &[u64]| numbers.iter().map(|n| ReplicaId(*n)).collect();
        Applied { voters: ids(voters), learners: ids(learners), ..Applied::default() }
    }

    fn state(applied: &Applied) -> ConfState {
        let mut state = ConfState::default();
        state.set_voters(applied.voters.iter().map(|r| r.0).collect());
        state.set_learners(applied.learners.iter().map(|r| r.0).collect());
        state
    }

    #[test]
    fn a_change_travels_with_the_members_row_and_a_later_versions_is_refused() {
        let entry = |change: &ConfChangeV2| {
            let mut entry = Entry { data: change.write_to_bytes().unwrap().into(), ..Entry::default() };
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry
        };
        let mut change = encode(ConfChangeType::AddLearnerNode, &row(9, 4));
        let back = decode(&entry(&change)).unwrap().unwrap();
        assert_eq!((back.change.changes[0].node_id, back.member), (9, Some(row(9, 4))));
        assert!(decode(&Entry::default()).unwrap().is_none());
        change.context = vec![CONTEXT_VERSION + 1, 0].into();
        assert!(matches!(decode(&entry(&change)), Err(StoreError::Newer { .. })));
    }

    #[test]
    fn a_removed_id_stays_removed_whatever_was_placed() {
        let placed = [row(4, 1), row(5, 2), row(6, 3)];
        let mut members = Members::new(&placed, &conf(&[4, 5, 6], &[]), &GroupRows::default());
        assert_eq!((members.highest(), members.was_removed(ReplicaId(7))), (ReplicaId(6), false));
        members.changed(&state(&conf(&[4, 5, 6], &[9])), Some(&row(9, 4)));
        members.changed(&state(&conf(&[4, 5], &[9])), Some(&row(6, 3)));
        members.changed(&state(&conf(&[4, 5], &[])), Some(&row(9, 4)));
        assert_eq!((members.highest(), members.rows()), (ReplicaId(9), vec![row(4, 1), row(5, 2)]));
        for (replica, node, expected) in [
            (6, 3, Admission::Removed),
            (9, 4, Admission::Removed),
            (7, 8, Admission::Removed),
            (5, 2, Admission::Heard),
            (5, 3, Admission::Foreign),
            (12, 3, Admission::Heard),
            (12, 4, Admission::Foreign),
        ] {
            assert_eq!(members.admit(ReplicaId(replica), NodeId(node)), expected, "{replica} on {node}");
        }
    }

    #[test]
    fn what_speaks_unknown_is_remembered_up_to_a_bound() {
        let mut members = Members::new(&[], &Applied::default(), &GroupRows::default());
        let heard = (1..100).filter(|n| members.admit(ReplicaId(*n), NodeId(*n)) == Admission::Heard).count();
        assert_eq!(heard, HEARD_MAX);
        members.adopt(
            &conf(&[1, 2], &[]),
            &GroupRows { members: vec![row(2, 7)], highest: ReplicaId(30), ..GroupRows::default() },
        );
        assert_eq!((members.node(ReplicaId(2)), members.highest()), (Some(NodeId(7)), ReplicaId(30)));
    }

    #[test]
    fn rows_keep_the_highest_id_and_the_nodes_of_those_who_are_members() {
        let (three, two) = (conf(&[4, 5, 6], &[]), conf(&[4, 5], &[]));
        let removed = rows_of(Some(row(6, 3)), None, &three, &two);
        assert_eq!(removed.puts, [(placement::highest_key(), placement::highest_row(ReplicaId(6)).into())]);
        assert_eq!(removed.deletes, [placement::member_key(ReplicaId(6))]);
        let added = rows_of(Some(row(9, 3)), Some(ReplicaId(12)), &two, &conf(&[4, 5], &[9]));
        assert_eq!(added.puts[0].1, placement::highest_row(ReplicaId(12)));
        assert_eq!(added.puts[1].0, placement::member_key(ReplicaId(9)));
    }
}
