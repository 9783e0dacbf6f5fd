//! What the cluster's status says of takeovers, done and prepared.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_cluster::ReplicaStatus;
use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_driver::NodeStatus;
use mailraft_storage::{NodeId, PartitionId};

use crate::failover::TakeoverStatus;
use crate::region;
use crate::survival::was_left_behind;

/// What is said of takeovers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takeovers {
    /// The node that was asked is of a home that was taken over: what is said first then.
    pub sealed: Option<String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// What is well and should be known, a sentence each.
    pub notes: Vec<String>,
    /// Nodes of the home that open no mailbox, as they lack the key.
    pub locked: BTreeSet<NodeId>,
    /// Nodes of regions that others took over from: nothing waits for them.
    pub left_behind: BTreeSet<NodeId>,
}

/// What a node says that matters here.
pub type Said<'a> = (&'a NodeStatus, Option<&'a TakeoverStatus>);

impl Takeovers {
    /// Of what the nodes say, as the asked one lays it over each other.
    pub fn of(regions: &Regions, asked: NodeId, answers: &BTreeMap<NodeId, Option<Said<'_>>>) -> Self {
        let mut out = Takeovers::default();
        let mut without_key: BTreeMap<&RegionName, Vec<NodeId>> = BTreeMap::new();
        for (node, said) in answers {
            let Some(own) = regions.of(*node) else { continue };
            if was_left_behind(regions, own) {
                out.left_behind.insert(*node);
            }
            let Some((status, takeover)) = said else { continue };
            let control = status.partitions.iter().find(|replica| replica.partition == PartitionId::CONTROL);
            if let Some(sentence) = control.and_then(|control| sealed(regions, own, control)) {
                if *node == asked {
                    out.sealed = Some(sentence.clone());
                }
                let said = format!("node {node}: {sentence}");
                // Who asks the new home knows it, and it is how it should be.
                if out.left_behind.contains(node) {
                    out.notes.push(said)
                } else {
                    out.problems.push(said)
                }
                continue;
            }
            if control.is_some_and(|control| control.contested) {
                out.problems.push(format!(
                    "node {node} heard of two takeovers with one number, and serves nothing until a higher one: mailraft region \
                     failover --to {} on one node alone",
                    own.0
                ));
            }
            let began = regions.takeovers().last().map_or(1, |row| row.incarnation.number);
            if own == regions.home()
                && let Some(alone) = control.map(|control| control.incarnation.number).filter(|number| *number > began)
            {
                out.problems.push(format!(
                    "node {node} adopted incarnation {alone}, which never began: {} went on without it, as incarnation {began}, and \
                     it follows nobody: mailraft region failover --to {} brings all to one",
                    own.0, own.0
                ));
            }
            let Some(TakeoverStatus { key, waits_for_key }) = takeover else { continue };
            if *waits_for_key {
                out.locked.insert(*node);
                out.problems.push(format!(
                    "{} can't unseal: node {node} opens no mailbox: {}. Give it the key: mailraft region failover --to {} \
                     --root-key-stdin, or put it at keys.root_key_file",
                    own.0, key.why, own.0
                ));
            } else if !key.usable && own != regions.home() && !out.left_behind.contains(node) {
                if key.is_there {
                    out.problems.push(format!("{} can't unseal: node {node}: {}", own.0, key.why));
                } else {
                    without_key.entry(own).or_default().push(*node);
                }
            }
        }
        for (own, nodes) in without_key {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            out.notes.push(format!(
                "{} can't unseal by itself: no root key is on node {}. A takeover needs it by --root-key-stdin",
                own.0,
                nodes.join(", ")
            ));
        }
        out
    }
}

/// That a node's control group is sealed, and by whom.
fn sealed(regions: &Regions, own: &RegionName, control: &ReplicaStatus) -> Option<String> {
    let number = control.sealed_by?;
    let by = region::of_control(regions, &control.sealed_voters);
    let by = by.map_or_else(|| "another region".to_owned(), |by| format!("region {}", by.0));
    Some(format!(
        "SEALED: {by} took over as incarnation {number}, and {} is no part of that. It serves nothing and keeps its data: mail is \
         served there",
        own.0
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_cluster::Role;
    use mailraft_cluster::placement::{self, MemberRow, NodeRow, Placement};
    use mailraft_cluster::regions::{Durability, RegionsRow, TakeoverRow};
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;
    use mailraft_storage::{Applied, Incarnation, Index, LogPosition, ReplicaId, RowBatch, Rows, Term, UnixMillis};

    use super::*;
    use crate::failover::KeyState;
    use crate::survival::tests::{node, replica};

    /// Two regions of three nodes, the south's taken over or not.
    fn regions(taken: bool) -> Regions {
        let region = |id| if id <= 3 { "home" } else { "south" };
        let stands = |id| NodeRow {
            id: NodeId(id),
            name: String::new(),
            region: region(id).into(),
            zone: String::new(),
            peer: String::new(),
        };
        let nodes: Vec<NodeRow> = (1..=6).map(stands).collect();
        let member = |node| MemberRow { replica: ReplicaId(node), node: NodeId(node), voter: node <= 3 };
        let members = (1..=6).map(member).collect();
        let placed = Placement { partition: PartitionId::CONTROL, nonce: [0; 16], members };
        let name = |name: &str| RegionName(name.into());
        let row = RegionsRow::new(name("home"), [name("south")].into(), Durability::Geo);
        let (rows, control) = (MemoryRows::new(), ReplicaId(1));
        let write = |index, batch| {
            let applied = Applied { index: Index(index), term: Term(1), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: control, batch, applied }]).unwrap();
        };
        let mut batch = RowBatch::default();
        placement::write(&mut batch, &nodes, &[placed]);
        mailraft_cluster::regions::write(&mut batch, &row);
        write(1, batch);
        let before = Regions::from_rows(&rows, control).unwrap().unwrap();
        if taken {
            let row = TakeoverRow {
                incarnation: Incarnation { number: 2, nonce: [7; 16] },
                home: name("south"),
                fork: LogPosition { index: Index(1), term: Term(1) },
                since: UnixMillis(1_795_684_443_000),
                word: "it is off".into(),
            };
            write(2, mailraft_cluster::takeover::control_rows(&before, &row));
        }
        Regions::from_rows(&rows, control).unwrap().unwrap()
    }

    fn key(usable: bool, is_there: bool) -> TakeoverStatus {
        TakeoverStatus { key: KeyState { usable, why: "it is wrong".into(), is_there }, waits_for_key: false }
    }

    /// What is said where node 1 is of the home and node 4 of the south.
    fn said(regions: &Regions, asked: u64, home: &NodeStatus, south: &TakeoverStatus) -> Takeovers {
        let south_node = node(4, vec![replica(0, Role::Learner, 3, 50, 50)]);
        let answers =
            [(NodeId(1), Some((home, None))), (NodeId(2), None), (NodeId(4), Some((&south_node, Some(south))))];
        Takeovers::of(regions, NodeId(asked), &answers.into())
    }

    #[test]
    fn a_key_that_is_wrong_is_a_problem_and_one_that_is_not_there_a_note() {
        let home = node(1, vec![replica(0, Role::Leader, 3, 50, 50)]);
        let before = regions(false);
        assert_eq!(said(&before, 1, &home, &key(true, true)), Takeovers::default());
        assert_eq!(said(&before, 1, &home, &key(false, true)).problems, ["south can't unseal: node 4: it is wrong"]);
        let absent = said(&before, 1, &home, &key(false, false));
        assert!(absent.problems.is_empty() && absent.notes[0].contains("no root key is on node 4"), "{absent:?}");
        let waits = TakeoverStatus { waits_for_key: true, ..key(false, false) };
        let waiting = said(&regions(true), 4, &home, &waits);
        assert!(
            waiting.problems[0].starts_with("south can't unseal: node 4 opens no mailbox: it is wrong"),
            "{waiting:?}"
        );
    }

    #[test]
    fn a_sealed_home_says_so_first_and_is_no_problem_of_the_new_one() {
        let mut sealed = replica(0, Role::Follower, 3, 50, 50);
        (sealed.sealed_by, sealed.sealed_voters) = (Some(2), vec![ReplicaId(4), ReplicaId(5), ReplicaId(6)]);
        let home = node(1, vec![sealed]);
        let words = "SEALED: region south took over as incarnation 2, and home is no part of that. It serves nothing and keeps its \
                     data: mail is served there";
        let at_home = said(&regions(false), 1, &home, &key(true, true));
        assert_eq!((at_home.sealed.as_deref(), at_home.problems.len()), (Some(words), 1));
        let new = said(&regions(true), 4, &home, &key(true, true));
        assert_eq!((new.sealed, new.problems.len()), (None, 0));
        assert_eq!(new.notes, [format!("node 1: {words}")]);
        assert_eq!(new.left_behind, [NodeId(1), NodeId(2)].into(), "whoever does not answer too");
    }

    #[test]
    fn two_takeovers_with_one_number_are_told_with_what_to_do() {
        let home = node(1, Vec::new());
        let mut contested = replica(0, Role::Follower, 3, 50, 50);
        contested.contested = true;
        let south = node(4, vec![contested]);
        let answers = [(NodeId(1), Some((&home, None))), (NodeId(4), Some((&south, None)))];
        let told = Takeovers::of(&regions(false), NodeId(4), &answers.into());
        assert!(told.problems[0].contains("failover --to south on one node alone"), "{told:?}");
    }

    #[test]
    fn a_node_that_adopted_a_number_that_never_began_is_told_with_what_to_do() {
        let home = node(1, Vec::new());
        let mut alone = replica(0, Role::Follower, 3, 50, 50);
        alone.incarnation = Incarnation { number: 4, nonce: [9; 16] };
        let south = node(4, vec![alone]);
        let answers = [(NodeId(1), Some((&home, None))), (NodeId(4), Some((&south, None)))];
        let told = Takeovers::of(&regions(true), NodeId(4), &answers.into());
        let words = "node 4 adopted incarnation 4, which never began: south went on without it, as incarnation 2";
        assert!(told.problems[0].starts_with(words), "{told:?}");
        // It may begin yet.
        assert!(Takeovers::of(&regions(false), NodeId(4), &answers.into()).problems.is_empty());
    }
}
