//! Random schedules: messages lost, doubled and out of order, crashes that tear the log, slow disks, cut-off
//! nodes. Whatever was acknowledged is there in the end, and everywhere the same.

use std::collections::BTreeMap;

use mailraft_cluster::RequestId;
use mailraft_storage::{Env, NodeId, PartitionId, ProposalOutcome, Verdict};

use crate::network::{Network, roll};

const PARTITIONS: u32 = 2;
const ROUNDS: usize = 250;

/// How many writes were acknowledged, and how many snapshots installed.
fn run(seed: u64) -> (u64, u64) {
    let mut dice = Env::seeded(seed);
    let mut network = Network::new(3, PARTITIONS);
    // Told at a start.
    network.log_keep = 4;
    for node in [1, 2, 3].map(NodeId) {
        network.crash(node, 0);
        network.start(node);
    }
    let mut asked: BTreeMap<RequestId, (NodeId, PartitionId, u8, u64)> = BTreeMap::new();
    let mut in_flight: BTreeMap<(NodeId, PartitionId, u8), RequestId> = BTreeMap::new();
    for round in 0..ROUNDS {
        for _ in 0..roll(&mut dice, 100) {
            network.step_at_random(&mut dice);
        }
        network.dies_at_install = roll(&mut dice, 4) == 0;
        let node = NodeId(1 + roll(&mut dice, 3) as u64);
        match roll(&mut dice, 40) {
            0 if network.is_up(node) => {
                let torn = roll(&mut dice, 400);
                network.crash(node, torn);
            }
            1..=2 if !network.is_up(node) => network.start(node),
            5 => drop(network.cut_off.insert(node)),
            6..=8 => network.cut_off.clear(),
            9..=18 if network.is_up(node) => network.flush_only(node),
            _ => {}
        }
        for partition in (1..=PARTITIONS).map(PartitionId) {
            if let (true, Some(_)) = (network.is_up(node), network.host(node).leading.get(&partition)) {
                let mailbox = roll(&mut dice, 4) as u8;
                let owner = (node, partition, mailbox);
                // One owner: its entry in flight has its answer, or its term is over.
                let free = in_flight.get(&owner).is_none_or(|r| network.proposal(node, *r).is_some());
                if free {
                    let request = network.propose(node, partition, mailbox, round as u64);
                    asked.insert(request, (node, partition, mailbox, round as u64));
                    in_flight.insert(owner, request);
                }
            }
        }
        network.tick_only();
        in_flight.retain(|(node, _, _), _| network.is_up(*node));
    }
    network.cut_off.clear();
    network.dies_at_install = false;
    for node in [1, 2, 3].map(NodeId).into_iter().filter(|n| !network.is_up(*n)).collect::<Vec<_>>() {
        network.start(node);
    }
    network.ticks(200);
    for partition in (0..=PARTITIONS).map(PartitionId) {
        assert!(
            network.leader(partition).is_some(),
            "seed {seed}: nobody leads partition {partition} after all is well again"
        );
    }
    let mut acknowledged = 0;
    for (request, (node, partition, mailbox, key)) in &asked {
        if let Some(ProposalOutcome::Applied { verdict, .. }) = network.proposal(*node, *request) {
            assert_eq!(verdict, Verdict::Accepted);
            acknowledged += 1;
            for node in [1, 2, 3].map(NodeId) {
                assert!(
                    network.has_row(node, *partition, *mailbox, *key),
                    "seed {seed}: {request:?} is lost on {node}"
                );
            }
        }
    }
    for partition in (0..=PARTITIONS).map(PartitionId) {
        let states: Vec<_> = [1, 2, 3].map(|n| network.position(NodeId(n), partition)).to_vec();
        assert!(states.windows(2).all(|w| w[0] == w[1]), "seed {seed}, partition {partition}: {states:?}");
    }
    (acknowledged, network.installed)
}

#[test]
fn nothing_acknowledged_is_lost_in_any_schedule() {
    let seeds = std::env::var("MAILRAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let (acknowledged, installed) = (0..seeds).map(run).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{acknowledged} writes and {installed} snapshots in {seeds} schedules");
    // Schedules in which hardly anything happens prove nothing.
    assert!(acknowledged > 10 * seeds && installed >= seeds);
}
