//! A replica whose running hash or whose rows are damaged: a majority finds it out and goes on.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_cluster::Difference;
use mailraft_storage::{NodeId, PartitionId, ProposalOutcome};

use crate::network::Network;

/// The control group: every node votes in it.
const P: PartitionId = PartitionId::CONTROL;

/// A cluster of so many nodes in which each of these has come back with a damaged hash; those that are to stay away are
/// down.
fn with_damaged(nodes: u64, damaged: &[u64], away: &[u64]) -> Network {
    let mut network = Network::new(nodes, 1);
    network.stopped = Some(BTreeMap::new());
    network.until(60, "led", |n| n.leader(P).is_some());
    for key in 0..5 {
        write(&mut network, key);
    }
    for node in damaged.iter().copied().map(NodeId) {
        let replica = network.replica(node, P);
        network.flush(node);
        network.crash(node, 0);
        network.corrupt_hash(node, P, replica);
    }
    for node in away.iter().copied().map(NodeId) {
        network.flush(node);
        network.crash(node, 0);
    }
    damaged.iter().for_each(|node| network.start(NodeId(*node)));
    network.ticks(60);
    network
}

fn write(network: &mut Network, key: u64) -> bool {
    let Some(leader) = network.leader(P) else { return false };
    let request = network.propose(leader, P, 1, key);
    network.ticks(6);
    matches!(network.proposal(leader, request), Some(ProposalOutcome::Applied { .. }))
}

fn stopped(network: &Network) -> Vec<u64> {
    network.stopped.iter().flatten().map(|(node, _)| node.0).collect()
}

#[test]
fn a_replica_that_differs_from_a_majority_stops_and_the_majority_goes_on_and_says_so() {
    for (nodes, damaged) in [(3, &[1][..]), (3, &[3]), (5, &[2]), (5, &[2, 4])] {
        let mut network = with_damaged(nodes, damaged, &[]);
        network.ticks(160);
        assert_eq!(stopped(&network), damaged, "{nodes} nodes");
        let whys: Vec<&String> = network.stopped.iter().flatten().map(|(_, why)| why).collect();
        assert!(whys.iter().all(|why| why.contains("with a majority of its group")), "{whys:?}");
        network.until(60, "led by a healthy one", |n| n.leader(P).is_some_and(|l| !damaged.contains(&l.0)));
        assert!(write(&mut network, 100), "{nodes} nodes");
        let said: BTreeSet<NodeId> =
            network.differ.iter().filter(|(_, _, d)| *d == Difference::OtherIsWrong).map(|(node, ..)| *node).collect();
        assert!(!said.is_empty() && said.iter().all(|n| !damaged.contains(&n.0)), "{said:?}");
    }
}

#[test]
fn of_two_that_differ_none_stops_before_the_third_is_heard() {
    let mut network = with_damaged(3, &[2], &[3]);
    network.ticks(200);
    assert!(stopped(&network).is_empty(), "{:?}", network.stopped);
    assert!(network.differ.iter().all(|(_, _, d)| *d == Difference::Undecided) && !network.differ.is_empty());
    assert!(write(&mut network, 100));
    network.start(NodeId(3));
    network.ticks(200);
    assert_eq!(stopped(&network), [2]);
    assert!(write(&mut network, 101));
}

#[test]
fn a_learner_that_differs_from_the_only_voter_stops_whichever_of_them_is_damaged() {
    for damaged in [1, 2] {
        let mut network = with_damaged(2, &[damaged], &[]);
        network.ticks(200);
        assert_eq!(stopped(&network), [2], "{:?}", network.stopped);
        assert!(write(&mut network, 100));
    }
}

#[test]
fn where_all_of_three_differ_all_stop() {
    let mut network = with_damaged(3, &[2, 3], &[]);
    network.ticks(300);
    assert_eq!(stopped(&network), [1, 2, 3]);
}

#[test]
fn a_replica_whose_rows_differ_from_a_majoritys_is_set_aside_and_ends_nobody() {
    for (nodes, wrong) in [(3, &[1][..]), (3, &[3]), (5, &[2, 4])] {
        let mut network = Network::new(nodes, 1);
        network.wrong_rows = wrong.iter().map(|node| network.replica(NodeId(*node), P)).collect();
        network.until(60, "led", |n| n.leader(P).is_some());
        for key in 0..5 {
            write(&mut network, key);
        }
        network.ticks(200);
        let distrusted: Vec<u64> = network.distrusted.keys().map(|node| node.0).collect();
        assert_eq!(distrusted, wrong, "{nodes} nodes");
        network.until(200, "led by a healthy one", |n| n.leader(P).is_some_and(|l| !wrong.contains(&l.0)));
        network.ticks(20);
        assert!(write(&mut network, 100), "{nodes} nodes");
        let said = network.differ.iter().filter(|(_, _, d)| *d == Difference::OtherIsWrong);
        let said: BTreeSet<u64> = said.map(|(node, ..)| node.0).collect();
        assert!(!said.is_empty() && said.iter().all(|n| !wrong.contains(n)), "{said:?}");
    }
}

#[test]
fn a_learner_whose_rows_differ_from_the_only_voters_is_set_aside() {
    let mut network = Network::new(2, 1);
    network.wrong_rows = [network.replica(NodeId(2), P)].into();
    network.until(60, "led", |n| n.leader(P).is_some());
    write(&mut network, 1);
    network.ticks(400);
    assert_eq!(network.distrusted.keys().copied().collect::<Vec<_>>(), [NodeId(2)]);
    assert!(write(&mut network, 2));
}
