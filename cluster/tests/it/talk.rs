//! What nodes say to each other and to their disks, word for word. `MAILRAFT_GOLDEN=write` writes it anew.

use std::fs;
use std::path::PathBuf;

use mailraft_storage::{NodeId, PartitionId};

use crate::network::Network;

const P1: PartitionId = PartitionId(1);

fn check(name: &str, network: &mut Network) {
    let talk = network.talk.replace(Vec::new()).unwrap().join("\n") + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/testdata").join(name);
    if std::env::var("MAILRAFT_GOLDEN").is_ok_and(|v| v == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &talk).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let differs = talk.lines().zip(golden.lines()).position(|(a, b)| a != b);
    assert!(talk == golden, "{name} differs at line {:?}:\n{talk}", differs.map(|n| n + 1));
}

#[test]
fn an_election_a_write_and_a_lost_leader_go_as_written_down() {
    let mut network = Network::new(3, 1);
    network.talk = Some(Vec::new());
    network.until(20, "led", |n| n.leader(P1).is_some());
    check("election.txt", &mut network);

    let leader = network.leader(P1).unwrap();
    network.propose(leader, P1, 1, 7);
    network.settle();
    network.ticks(3);
    check("write.txt", &mut network);

    network.propose(leader, P1, 1, 8);
    network.crash(leader, 0);
    network.until(20, "led again", |n| n.leader(P1).is_some_and(|l| l != leader));
    network.talk = Some(network.talk.take().unwrap().into_iter().filter(|l| !l.contains("MsgHeartbeat")).collect());
    check("leader-loss.txt", &mut network);
    let survivors = [1, 2, 3].map(NodeId).into_iter().filter(|n| *n != leader);
    assert!(survivors.into_iter().all(|n| !network.has_row(n, P1, 1, 8)), "nobody else had it");
}
