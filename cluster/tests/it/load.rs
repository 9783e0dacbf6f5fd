//! Bounds, balance, and clusters of other sizes.

use mailraft_cluster::{BarrierOutcome, Input, PeerBody, PeerMessage, Reader};
use mailraft_storage::{ClusterId, Incarnation, NodeId, PartitionId, ProposalOutcome, UnixMillis, Verdict};
use raft::eraftpb::{Entry, Message, MessageType};

use crate::network::Network;

const P1: PartitionId = PartitionId(1);
const ALL: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn elected(nodes: u64, partitions: u32) -> Network {
    let mut network = Network::new(nodes, partitions);
    network.until(60, "every partition is led", |n| (0..=partitions).all(|p| n.leader(PartitionId(p)).is_some()));
    network
}

fn leads(network: &Network, partitions: u32) -> [u32; 3] {
    let mut leads = [0; 3];
    for leader in (1..=partitions).filter_map(|p| network.leader(PartitionId(p))) {
        leads[leader.0 as usize - 1] += 1;
    }
    leads
}

#[test]
fn more_than_the_bound_of_bytes_is_refused_and_what_was_taken_is_answered_when_the_lead_is_lost() {
    let mut network = elected(3, 1);
    let leader = network.leader(P1).unwrap();
    network.cut_off.insert(leader);
    let asked: Vec<_> = (0..24).map(|n| network.propose_value(leader, P1, n, 1, vec![n; 1_000_000])).collect();
    let refused = asked.iter().filter(|r| network.proposal(leader, **r) == Some(ProposalOutcome::Overloaded)).count();
    assert!((7..=9).contains(&refused), "{refused} refused");
    network.until(40, "deposed", |n| n.host(leader).leading.is_empty());
    let unknown = asked.iter().filter(|r| network.proposal(leader, **r) == Some(ProposalOutcome::Unknown)).count();
    assert_eq!(unknown + refused, asked.len());
    network.cut_off.clear();
    network.ticks(60);
    let states: Vec<_> = ALL.map(|n| network.position(n, P1)).to_vec();
    assert!(states.windows(2).all(|w| w[0] == w[1]), "{states:?}");
}

#[test]
fn many_bytes_go_in_groups_within_their_bound_and_beside_small_writes() {
    let mut network = elected(3, 2);
    let (one, two) = (network.leader(P1).unwrap(), network.leader(PartitionId(2)).unwrap());
    let large: Vec<_> = (0..4).map(|n| network.propose_value(one, P1, n, 1, vec![n; 400_000])).collect();
    let small = network.propose(two, PartitionId(2), 1, 1);
    network.settle();
    network.ticks(4);
    let accepted =
        |o: Option<ProposalOutcome>| matches!(o, Some(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }));
    assert!(large.iter().all(|r| accepted(network.proposal(one, *r))) && accepted(network.proposal(two, small)));
    assert!(ALL.iter().all(|n| (0..4).all(|m| network.has_row(*n, P1, m, 1))));
}

#[test]
fn leaders_are_spread_again_after_a_node_dies_and_comes_back() {
    const PARTITIONS: u32 = 12;
    let mut network = elected(3, PARTITIONS);
    network.ticks(400);
    assert_eq!(leads(&network, PARTITIONS), [4, 4, 4]);
    network.crash(NodeId(2), 0);
    network.until(20, "others lead", |n| (0..=PARTITIONS).all(|p| n.leader(PartitionId(p)).is_some_and(|l| l.0 != 2)));
    assert_eq!(leads(&network, PARTITIONS), [6, 0, 6]);
    network.start(NodeId(2));
    network.ticks(40);
    assert_eq!(leads(&network, PARTITIONS)[1], 0, "handed over to a node that is barely back");
    network.until(1_200, "spread within 30 s", |n| leads(n, PARTITIONS) == [4, 4, 4]);
}

/// A node hands over some partitions at a time. Those that wait for their turn were not offered to anybody yet, so they are
/// offered at the next look, not after a pause that doubles each time.
#[test]
fn many_leads_move_as_fast_as_a_node_hands_them_over() {
    const PARTITIONS: u32 = 60;
    let mut network = elected(3, PARTITIONS);
    network.ticks(400);
    network.until(1_200, "spread", |n| leads(n, PARTITIONS) == [20, 20, 20]);
    network.cut.extend([(NodeId(1), NodeId(2)), (NodeId(2), NodeId(1))]);
    // 20 partitions in fours each second, behind the 6 s until it counts.
    network.until(500, "who hears both leads", |n| leads(n, PARTITIONS) == [0, 0, PARTITIONS]);
}

#[test]
fn one_node_and_two_nodes_work_too() {
    for nodes in [1, 2, 5] {
        let mut network = elected(nodes, 2);
        let leader = network.leader(P1).unwrap();
        let request = network.propose(leader, P1, 1, 1);
        let read = network.read(leader, PartitionId::CONTROL, Reader::Visible);
        network.settle();
        network.ticks(8);
        assert!(matches!(network.proposal(leader, request), Some(ProposalOutcome::Applied { .. })), "{nodes} nodes");
        assert!(matches!(network.barrier(leader, read), Some(BarrierOutcome::Passed { .. })), "{nodes} nodes");
        network.crash(leader, 0);
        network.start(leader);
        network.until(60, "led again", |n| n.leader(P1).is_some());
        network.ticks(8);
        assert!(network.has_row(network.leader(P1).unwrap(), P1, 1, 1), "{nodes} nodes");
    }
}

#[test]
fn only_messages_of_members_and_only_kinds_that_replicas_exchange_are_heard() {
    let mut network = elected(3, 1);
    let leader = network.leader(P1).unwrap();
    let other = ALL.into_iter().find(|n| *n != leader).unwrap();
    let (from, to) = (network.replica(other, P1), network.replica(leader, P1));
    let cluster = ClusterId([7; 16]);
    let mut propose = Message { from: from.0, to: to.0, ..Message::default() };
    propose.set_msg_type(MessageType::MsgPropose);
    propose.mut_entries().push(Entry { data: vec![1; 9].into(), ..Entry::default() });
    let mut depose = Message { from: from.0, to: to.0, term: 99, ..Message::default() };
    depose.set_msg_type(MessageType::MsgAppend);
    let told = |cluster, from, raft: &Message, wall| PeerMessage {
        cluster,
        partition: P1,
        from,
        to,
        incarnation: Incarnation { number: 1, nonce: [0; 16] },
        wall: UnixMillis(wall),
        body: PeerBody::Raft(raft.clone()),
    };
    let before = network.position(leader, P1);
    network.refused = Some(Vec::new());
    for (sender, message) in [
        (other, told(cluster, from, &propose, 1)),
        (other, told(ClusterId([8; 16]), from, &depose, 1)),
        (leader, told(cluster, from, &depose, 1)),
        (other, told(cluster, to, &depose, 1)),
        (NodeId(9), told(cluster, from, &depose, u64::MAX)),
    ] {
        network.input(leader, Input::Peer { from: sender, message });
        network.settle();
    }
    assert_eq!((network.position(leader, P1), network.leader(P1)), (before, Some(leader)));
    let refused: Vec<_> = network.refused.take().unwrap().iter().map(|(_, refusal)| refusal.label()).collect();
    assert_eq!(refused, ["kind", "cluster", "clock"], "the others are of no member");
    // A clock that is far off moves nothing, and stops nothing.
    let mut beat = Message { from: from.0, to: to.0, term: 1, ..Message::default() };
    beat.set_msg_type(MessageType::MsgHeartbeatResponse);
    for wall in [0, 1 << 48] {
        network.input(leader, Input::Peer { from: other, message: told(cluster, from, &beat, wall) });
        let request = network.propose(leader, P1, 1, wall);
        network.settle();
        assert!(matches!(network.proposal(leader, request), Some(ProposalOutcome::Applied { .. })));
    }
}

#[test]
fn a_node_that_stops_still_votes_for_others_and_takes_no_lead() {
    let mut network = elected(3, 4);
    network.ticks(200);
    let leader = network.leader(P1).unwrap();
    let stopping = ALL.into_iter().find(|n| *n != leader).unwrap();
    let third = ALL.into_iter().find(|n| *n != leader && *n != stopping).unwrap();
    network.input(stopping, Input::HandOver);
    network.until(20, "handed over", |n| n.host(stopping).leading.is_empty());
    network.crash(leader, 0);
    network.until(60, "the third leads all", |n| (0..=4).all(|p| n.leader(PartitionId(p)) == Some(third)));
}
