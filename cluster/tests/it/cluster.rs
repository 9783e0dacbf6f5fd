//! What a cluster of three must do.

use mailraft_cluster::low_water::LowWater;
use mailraft_cluster::{BarrierOutcome, Input, Reader, RequestId, SlotOutcome};
use mailraft_storage::log::Log;
use mailraft_storage::{Index, NodeId, PartitionId, ProposalOutcome, Verdict};

use crate::network::Network;

const P1: PartitionId = PartitionId(1);
const P2: PartitionId = PartitionId(2);

fn elected(partitions: u32) -> Network {
    let mut network = Network::new(3, partitions);
    network.until(60, "every partition is led", |n| (0..=partitions).all(|p| n.leader(PartitionId(p)).is_some()));
    network
}

fn accepted(outcome: Option<ProposalOutcome>) -> bool {
    matches!(outcome, Some(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }))
}

#[test]
fn partitions_are_led_within_half_a_second_and_spread_as_preferred() {
    let mut network = Network::new(3, 6);
    network.until(20, "every partition is led", |n| (0..=6).all(|p| n.leader(PartitionId(p)).is_some()));
    network.ticks(400);
    let mut leads = [0; 3];
    for p in 1..=6 {
        leads[network.leader(PartitionId(p)).unwrap().0 as usize - 1] += 1;
    }
    assert_eq!(leads, [2, 2, 2]);
}

#[test]
fn a_write_is_on_every_node_once_it_is_answered_and_partitions_stay_apart() {
    let mut network = elected(2);
    let (one, two) = (network.leader(P1).unwrap(), network.leader(P2).unwrap());
    let first = network.propose(one, P1, 1, 10);
    let second = network.propose(two, P2, 1, 20);
    assert_eq!(network.proposal(one, first), None, "answered before it was durable anywhere");
    network.settle();
    assert!(accepted(network.proposal(one, first)) && accepted(network.proposal(two, second)));
    network.ticks(4);
    for node in [1, 2, 3].map(NodeId) {
        assert!(network.has_row(node, P1, 1, 10) && network.has_row(node, P2, 1, 20));
        assert!(!network.has_row(node, P1, 1, 20) && !network.has_row(node, P2, 1, 10));
    }
}

#[test]
fn followers_whose_disks_are_slow_are_heard_and_keep_their_leader() {
    let mut network = elected(1);
    network.ticks(40);
    let leader = network.leader(P1).unwrap();
    let term = network.host(leader).leading[&P1].0;
    network.disk_stuck = [1, 2, 3].map(NodeId).into_iter().filter(|node| *node != leader).collect();
    let request = network.propose(leader, P1, 1, 10);
    // A second, five election timeouts, in which they are asked to make something durable and can't.
    network.ticks(40);
    assert_eq!(network.proposal(leader, request), None, "answered before it was durable on a majority");
    assert_eq!(network.host(leader).leading.get(&P1).map(|(term, _)| *term), Some(term), "it leads no more");
    // Reads need a majority that hears the leader, and nothing of theirs durable.
    let read = network.read(leader, P1, Reader::Owner(term));
    network.ticks(4);
    assert!(matches!(network.barrier(leader, read), Some(BarrierOutcome::Passed { .. })));
    network.disk_stuck.clear();
    network.ticks(2);
    assert!(accepted(network.proposal(leader, request)));
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_who_takes_nothing_in_does_not_count() {
    let mut network = elected(1);
    network.ticks(80);
    let hung = network.leader(P1).unwrap();
    network.disk_stuck.insert(hung);
    network.propose(hung, P1, 1, 10);
    network.ticks(40);
    assert_eq!(network.leader(P1), Some(hung), "a disk may be slow for a moment");
    network.until(4 * 40, "another leads", |n| n.leader(P1).is_some_and(|leader| leader != hung));
    let leader = network.leader(P1).unwrap();
    let request = network.propose(leader, P1, 1, 11);
    network.ticks(4);
    assert!(accepted(network.proposal(leader, request)), "one that can write answers");
    assert!(network.has_row(leader, P1, 1, 10), "what the others had taken in is there");
    // It answers heartbeats, and would not bear the loss of another.
    network.ticks(3 * 40);
    let active = |n: &Network| {
        let followers = n.leader(P1).and_then(|leader| n.status(leader, P1)).unwrap().followers;
        followers.iter().find(|follower| follower.node == hung).unwrap().active
    };
    assert!(!active(&network));
    network.ticks(20 * 40);
    assert_ne!(network.leader(P1), Some(hung), "it is not given the lead back");
    network.disk_stuck.clear();
    network.ticks(80);
    assert!(network.has_row(hung, P1, 1, 11));
    network.ticks(50 * 40);
    assert_ne!(network.leader(P1), Some(hung), "it may hang again");
    network.until(30 * 40, "it has the lead back that is its own", |n| n.leader(P1) == Some(hung));
}

#[test]
fn a_dead_leader_is_replaced_within_half_a_second_and_nothing_acknowledged_is_lost() {
    let mut network = elected(2);
    for round in 0..6u64 {
        let leader = network.leader(P1).unwrap();
        let request = network.propose(leader, P1, 1, round);
        network.settle();
        assert!(accepted(network.proposal(leader, request)));
        network.crash(leader, 0);
        network.until(20, "the next leader", |n| n.leader(P1).is_some_and(|l| l != leader));
        for key in 0..=round {
            assert!(network.has_row(network.leader(P1).unwrap(), P1, 1, key), "{key} is lost");
        }
        network.start(leader);
        network.ticks(120);
    }
    let states: Vec<_> = [1, 2, 3].map(|n| network.position(NodeId(n), P1)).to_vec();
    assert!(states.windows(2).all(|w| w[0] == w[1]), "{states:?}");
}

#[test]
fn a_crash_between_any_two_outputs_loses_nothing_acknowledged() {
    for at in 0..60 {
        let mut network = elected(1);
        let leader = network.leader(P1).unwrap();
        let request = network.propose(leader, P1, 1, 7);
        for _ in 0..at {
            network.step_once();
        }
        let known = accepted(network.proposal(leader, request));
        let victim = NodeId(1 + at % 3);
        network.crash(victim, (at as usize * 13) % 50);
        network.settle();
        network.start(victim);
        network.ticks(60);
        if known || accepted(network.proposal(leader, request)) {
            for node in [1, 2, 3].map(NodeId) {
                assert!(
                    network.has_row(node, P1, 1, 7),
                    "crash of {victim} after {at} steps lost an acknowledged write"
                );
            }
        }
        let states: Vec<_> = [1, 2, 3].map(|n| network.position(NodeId(n), P1)).to_vec();
        assert!(states.windows(2).all(|w| w[0] == w[1]), "after {at} steps: {states:?}");
    }
}

#[test]
fn a_deposed_leader_answers_no_read_and_no_write() {
    let mut network = elected(1);
    let old = network.leader(P1).unwrap();
    let (term, _) = network.host(old).leading[&P1];
    let read = network.read(old, P1, Reader::Owner(term));
    network.settle();
    assert!(matches!(network.barrier(old, read), Some(BarrierOutcome::Passed { .. })));
    network.cut_off.insert(old);
    let write = network.propose(old, P1, 1, 1);
    let stale = network.read(old, P1, Reader::Owner(term));
    network
        .until(80, "someone else leads", |n| n.leader(P1).is_some_and(|l| l != old) && n.host(old).leading.is_empty());
    assert_eq!(network.proposal(old, write), Some(ProposalOutcome::Unknown));
    assert!(matches!(network.barrier(old, stale), Some(BarrierOutcome::NotLeader { .. })));
    let new = network.leader(P1).unwrap();
    let other = network.propose(new, P1, 1, 2);
    network.settle();
    assert!(accepted(network.proposal(new, other)));
    network.cut_off.clear();
    network.ticks(40);
    assert!(!network.has_row(old, P1, 1, 1) && network.has_row(old, P1, 1, 2));
}

#[test]
fn any_replica_may_ask_what_was_acknowledged_and_gets_no_answer_without_a_majority() {
    let mut network = elected(1);
    let leader = network.leader(P1).unwrap();
    let other = [1, 2, 3].map(NodeId).into_iter().find(|n| *n != leader).unwrap();
    network.propose(leader, P1, 1, 5);
    network.settle();
    let read = network.read(other, P1, Reader::Visible);
    network.ticks(4);
    assert!(matches!(network.barrier(other, read), Some(BarrierOutcome::Passed { .. })));
    assert!(network.has_row(other, P1, 1, 5));
    for node in [1, 2, 3].map(NodeId).into_iter().filter(|n| *n != other) {
        network.crash(node, 0);
    }
    let alone = network.read(other, P1, Reader::Visible);
    network.ticks(70);
    assert_eq!(network.barrier(other, alone), Some(BarrierOutcome::Unavailable));
}

#[test]
fn what_is_committed_is_told_on_every_node_and_can_be_read_from_its_log() {
    let mut network = elected(1);
    let leader = network.leader(P1).unwrap();
    let writes: Vec<RequestId> = (0..5).map(|key| network.propose(leader, P1, key as u8, key)).collect();
    network.ticks(4);
    let Some(ProposalOutcome::Applied { index, .. }) = network.proposal(leader, writes[4]) else {
        panic!("not applied")
    };
    let mut logs = Vec::new();
    for host in &network.hosts {
        let replica = network.replica(host.id, P1);
        let upto = host.committed[&replica];
        assert!(upto.index >= index, "node {}: {upto:?}", host.id);
        let first = network.first_index(host.id, P1);
        let entries = host.log.entries(replica, first, Index(upto.index.0 + 1), usize::MAX).unwrap();
        assert_eq!(entries.last().map(|e| (e.index, e.term)), Some((upto.index.0, upto.term.0)));
        logs.push(entries);
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_status_says_which_mark_holds_the_log() {
    let mut network = Network::new(3, 1);
    network.log_keep = 300;
    network.until(60, "led", |n| n.leader(P1).is_some());
    let leader = network.leader(P1).unwrap();
    let status = |network: &Network| network.status(leader, P1).unwrap();
    let write = |network: &mut Network| {
        for key in 0..100 {
            network.propose(leader, P1, key as u8, key);
        }
        network.ticks(4);
    };
    write(&mut network);
    assert_eq!(status(&network).log_held_by, LowWater::Flushed);
    network.flush(leader);
    let cut = status(&network);
    assert_eq!(cut.log_held_at.0 + 1, cut.first.0, "it was cut below its lowest mark");
    let away = [1, 2, 3].map(NodeId).into_iter().find(|n| *n != leader).unwrap();
    network.cut_off.insert(away);
    write(&mut network);
    network.flush(leader);
    let now = status(&network);
    assert_eq!((now.log_held_by, now.log_held_at), (LowWater::Followers, cut.log_held_at));
}

#[test]
fn a_slot_waits_for_the_entry_in_flight_and_for_no_other() {
    let mut network = elected(1);
    let leader = network.leader(P1).unwrap();
    let write = network.propose(leader, P1, 1, 1);
    let same = network.await_slot(leader, P1, 1);
    let other = network.await_slot(leader, P1, 2);
    assert_eq!(network.slot(leader, same), None);
    assert_eq!(network.slot(leader, other), Some(SlotOutcome::Free));
    network.settle();
    assert!(accepted(network.proposal(leader, write)));
    assert_eq!(network.slot(leader, same), Some(SlotOutcome::Free));
}

#[test]
fn a_node_that_was_away_longer_than_the_log_reaches_comes_back_by_snapshot() {
    let mut network = Network::new(3, 1);
    network.log_keep = 10;
    for node in [1, 2, 3].map(NodeId) {
        network.crash(node, 0);
        network.start(node);
    }
    network.until(60, "led", |n| n.leader(P1).is_some());
    let leader = network.leader(P1).unwrap();
    let away = [1, 2, 3].map(NodeId).into_iter().find(|n| *n != leader).unwrap();
    network.crash(away, 0);
    for key in 0..200 {
        let leader = network.leader(P1).unwrap();
        network.propose(leader, P1, key as u8, key);
        network.settle();
    }
    network.ticks(10);
    for node in [1, 2, 3].map(NodeId).into_iter().filter(|n| *n != away) {
        network.flush(node);
    }
    assert!(network.first_index(network.leader(P1).unwrap(), P1).0 > 150, "the log was not cut");
    network.start(away);
    network.ticks(200);
    let expected = network.position(network.leader(P1).unwrap(), P1);
    assert_eq!(network.position(away, P1), expected);
    // And it goes on from there, through a restart.
    network.crash(away, 0);
    network.start(away);
    let leader = network.leader(P1).unwrap();
    network.propose(leader, P1, 2, 9);
    network.ticks(100);
    assert!(network.has_row(away, P1, 2, 9));
}

#[test]
fn a_crash_at_any_step_of_a_snapshot_leaves_a_replica_that_comes_back_whole() {
    for at in 0..40 {
        let mut network = Network::new(3, 1);
        network.log_keep = 5;
        for node in [1, 2, 3].map(NodeId) {
            network.crash(node, 0);
            network.start(node);
        }
        network.until(60, "led", |n| n.leader(P1).is_some());
        let leader = network.leader(P1).unwrap();
        let away = [1, 2, 3].map(NodeId).into_iter().find(|n| *n != leader).unwrap();
        network.crash(away, 0);
        for key in 0..100 {
            network.propose(leader, P1, key as u8, key);
            network.settle();
        }
        for node in [1, 2, 3].map(NodeId).into_iter().filter(|n| *n != away) {
            network.flush(node);
        }
        network.start(away);
        network.ticks(1);
        network.input(leader, Input::Tick);
        network.input(leader, Input::Tick);
        for _ in 0..at {
            network.step_once();
        }
        network.crash(away, 0);
        network.settle();
        network.start(away);
        network.ticks(200);
        let expected = network.position(network.leader(P1).unwrap(), P1);
        assert_eq!(network.position(away, P1), expected, "crash after {at} steps");
    }
}

#[test]
fn a_node_that_stops_hands_every_lead_over_first() {
    let mut network = elected(4);
    network.ticks(200);
    let leaving = network.leader(P1).unwrap();
    network.input(leaving, Input::HandOver);
    network.until(12, "handed over", |n| n.host(leaving).leading.is_empty());
    network.until(12, "led by others", |n| (0..=4).all(|p| n.leader(PartitionId(p)).is_some_and(|l| l != leaving)));
    let _ = RequestId(0);
}

#[test]
fn a_damaged_leader_hands_over_and_the_lead_does_not_come_back() {
    let mut network = elected(1);
    network.ticks(400);
    let damaged = network.leader(P1).unwrap();
    let replica = network.replica(damaged, P1);
    network.input(damaged, Input::Damaged { replica });
    network.until(12, "led by another", |n| n.leader(P1).is_some_and(|l| l != damaged));
    for tick in 0..1_600 {
        network.ticks(1);
        assert!(network.leader(P1).is_some_and(|l| l != damaged), "tick {tick}");
    }
    assert!(network.status(damaged, P1).is_some_and(|s| s.damaged) && network.leader(PartitionId::CONTROL).is_some());
    let next = network.leader(P1).unwrap();
    network.crash(next, 0);
    network.until(40, "led by the third", |n| n.leader(P1).is_some_and(|l| l != damaged && l != next));
}

#[test]
fn a_reluctant_node_leads_nothing_that_another_can_and_leads_again_when_that_is_over() {
    let mut network = elected(4);
    network.ticks(200);
    let short = network.leader(P1).unwrap();
    let led = |n: &Network, node| (0..=4).filter(|p| n.leader(PartitionId(*p)) == Some(node)).count();
    network.input(short, Input::Reluctant { reluctant: true });
    network.until(12, "led by others", |n| led(n, short) == 0 && (0..=4).all(|p| n.leader(PartitionId(p)).is_some()));
    for tick in 0..800 {
        network.ticks(1);
        assert_eq!(led(&network, short), 0, "tick {tick}");
    }
    assert!(network.status(short, P1).is_some_and(|s| !s.damaged));
    network.input(short, Input::Reluctant { reluctant: false });
    network.until(4_000, "it leads again", |n| led(n, short) > 0);
}

#[test]
fn where_all_are_reluctant_one_leads_and_takes_changes() {
    let mut network = elected(1);
    for node in [1, 2, 3].map(NodeId) {
        network.input(node, Input::Reluctant { reluctant: true });
    }
    network.ticks(40);
    let mut count = 0;
    for key in 0..100 {
        let leader = network.leader(P1).unwrap();
        let request = network.propose(leader, P1, key as u8, key);
        network.ticks(2);
        count += usize::from(accepted(network.proposal(leader, request)));
    }
    assert!(count > 50, "{count} of 100");
}

#[test]
fn where_all_are_damaged_one_leads_and_takes_changes() {
    let mut network = elected(1);
    for node in [1, 2, 3].map(NodeId) {
        let replica = network.replica(node, P1);
        network.input(node, Input::Damaged { replica });
    }
    network.ticks(40);
    let mut count = 0;
    for key in 0..100 {
        let leader = network.leader(P1).unwrap();
        let request = network.propose(leader, P1, key as u8, key);
        network.ticks(2);
        count += usize::from(accepted(network.proposal(leader, request)));
    }
    assert!(count > 50, "{count} of 100");
}

#[test]
fn a_node_with_a_damaged_control_group_leads_nothing() {
    let mut network = elected(4);
    network.ticks(200);
    let damaged = network.leader(P1).unwrap();
    let replica = network.replica(damaged, PartitionId::CONTROL);
    network.input(damaged, Input::Damaged { replica });
    network.until(12, "led by others", |n| (0..=4).all(|p| n.leader(PartitionId(p)).is_some_and(|l| l != damaged)));
}

#[test]
fn a_node_without_a_replica_hears_who_leads_and_who_leads_next() {
    let mut network = Network::new(5, 5);
    let knows = |n: &Network| {
        (0..=5).map(PartitionId).all(|p| {
            let leader = n.leader(p);
            let up = n.hosts.iter().filter(|h| n.is_up(h.id));
            leader.is_some() && up.into_iter().all(|h| h.leaders.get(&p).copied().flatten() == leader)
        })
    };
    network.until(60, "everyone knows every leader", knows);
    let dead = network.leader(P1).unwrap();
    network.crash(dead, 0);
    network.until(40, "everyone knows the next leaders", knows);
    network.start(dead);
    network.ticks(600);
    assert!(knows(&network));
}

/// A link between two living nodes is down, and the third hears both: it leads everything, as otherwise nobody at one end
/// could be served from the other, and the group that everybody logs in by is among that. Then all is as before.
#[test]
fn where_two_nodes_do_not_hear_each_other_who_hears_both_leads() {
    for one_way in [false, true] {
        let mut network = Network::new(3, 6);
        let all: Vec<PartitionId> = (0..=6).map(PartitionId).collect();
        let [one, two, three] = [1, 2, 3].map(NodeId);
        network.until(2_000, "every partition is led", |n| all.iter().all(|p| n.leader(*p).is_some()));
        network.ticks(1_200);
        let before: Vec<_> = all.iter().map(|p| network.leader(*p).unwrap()).collect();
        assert!([one, two, three].iter().all(|node| before.contains(node)), "{before:?}");
        network.cut.insert((one, two));
        if !one_way {
            network.cut.insert((two, one));
        }
        network.until(400, "who hears both leads", |n| all.iter().all(|p| n.leader(*p) == Some(three)));
        for second in 0..30 {
            network.ticks(40);
            assert!(all.iter().all(|p| network.leader(*p) == Some(three)), "{one_way} after {second} s");
            for (node, partition) in all.iter().flat_map(|p| [(one, *p), (two, *p)]) {
                let asked = network.read(node, partition, Reader::Visible);
                network.settle();
                network.ticks(4);
                let passed = matches!(network.barrier(node, asked), Some(BarrierOutcome::Passed { .. }));
                assert!(passed, "{node} is served from {partition}");
            }
        }
        network.cut.clear();
        let is_back = |n: &Network| all.iter().zip(&before).all(|(p, leader)| n.leader(*p) == Some(*leader));
        network.until(1_200, "leads are spread again", is_back);
    }
}
