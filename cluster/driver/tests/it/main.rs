//! Whole clusters of drivers over loopback TLS, with stores in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::{Reader, Role};
use mailraft_driver::testing::{PATIENCE, TestCluster, cluster_ca, peer_tls};
use mailraft_driver::{
    BarrierOutcome, Cluster, ConnectionRefusal, DialError, DriverConfig, SlotOutcome, StartError, StreamKind,
};
use mailraft_storage::entry::RowsBody;
use mailraft_storage::log::Log;
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::{
    ClusterId, CommandFloor, CommandId, EntryKind, Index, MailboxId, NodeId, PartitionId, Proposal, ProposalOutcome,
    RowBatch, RowKey, Rows, Table, UnixMillis, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

const P1: PartitionId = PartitionId(1);
const MAILBOX: MailboxId = MailboxId([5; 16]);

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn row(number: u32) -> RowKey {
    RowKey::new(MAILBOX, Table::Folders, number.to_be_bytes())
}

/// Writes a row through whoever leads, as an owner would: again after Dropped or a change of the lead.
async fn write(cluster: &TestCluster, partition: PartitionId, number: u32, value: Vec<u8>) -> Index {
    let attempts = async {
        loop {
            let (node, leading) = cluster.leader(partition).await;
            let mut batch = RowBatch::default();
            batch.put(row(number), value.clone());
            let proposal = Proposal {
                incarnation: leading.incarnation,
                term: leading.term,
                mailbox: MAILBOX,
                command: CommandId([number as u8; 16]),
                kind: EntryKind::Rows(RowsBody { batch, ..RowsBody::default() }),
            };
            match cluster.node(node.0).propose(partition, proposal).await {
                Ok(ProposalOutcome::Applied { index, verdict: Verdict::Accepted }) => break index,
                Ok(ProposalOutcome::Dropped | ProposalOutcome::NotLeader { .. } | ProposalOutcome::Unknown) => {
                    tokio::task::yield_now().await
                }
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, attempts).await.expect("a write that commits")
}

/// Waits until a node's rows hold everything acknowledged before.
async fn barrier(node: &Cluster, partition: PartitionId) -> Index {
    let attempts = async {
        loop {
            match node.read_barrier(partition, Reader::Visible).await.unwrap() {
                BarrierOutcome::Passed { index } => break index,
                BarrierOutcome::Unavailable | BarrierOutcome::NotLeader { .. } => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, attempts).await.expect("a read barrier that is answered")
}

fn value(node: &Cluster, partition: PartitionId, number: u32) -> Option<Vec<u8>> {
    let replica = node.replica(partition).unwrap();
    node.rows().get(replica, &row(number)).unwrap().map(|v| v.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_read_on_every_node_and_survives_the_leaders_death() {
    let dir = tempdir();
    let mut cluster = TestCluster::start(3, 2, dir.path(), |_| {}).await;
    let index = write(&cluster, P1, 1, b"first".to_vec()).await;
    for node in 1..=3 {
        assert!(barrier(cluster.node(node), P1).await >= index);
        assert_eq!(value(cluster.node(node), P1, 1).unwrap(), b"first");
        assert!(cluster.node(node).committed().borrow()[P1.0 as usize].index >= index);
    }
    let (first, leading) = cluster.leader(P1).await;
    let own = cluster.node(first.0).read_barrier(P1, Reader::Owner(leading.term)).await.unwrap();
    assert!(matches!(own, BarrierOutcome::Passed { .. }), "{own:?}");
    let slot = cluster.node(first.0).await_slot(P1, leading.term, MAILBOX).await.unwrap();
    assert_eq!(slot, SlotOutcome::Free);

    cluster.crash(first.0).await;
    let (second, later) = cluster.leader(P1).await;
    assert_ne!(first, second);
    assert!(later.term > leading.term && later.incarnation == leading.incarnation);
    write(&cluster, P1, 2, b"second".to_vec()).await;
    assert_eq!(value(cluster.node(second.0), P1, 1).unwrap(), b"first");
    let survivors = (1..=3).filter(|n| *n != first.0);
    for node in survivors {
        let mut leaders = cluster.node(node).leaders();
        let known = leaders.wait_for(|l| l[1].is_some_and(|leader| leader != first));
        timeout(PATIENCE, known).await.unwrap().unwrap();
    }

    cluster.restart(first.0).await;
    barrier(cluster.node(first.0), P1).await;
    assert_eq!(value(cluster.node(first.0), P1, 2).unwrap(), b"second");
    let mut hashes = Vec::new();
    for node in 1..=3 {
        barrier(cluster.node(node), P1).await;
        hashes.push(cluster.node(node).state_hash(P1).await.unwrap().1);
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(cluster.fatal.lock().unwrap().is_empty());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_gets_a_snapshot() {
    let dir = tempdir();
    let mut cluster = TestCluster::start(3, 1, dir.path(), |config| config.log_keep_entries = 4).await;
    write(&cluster, P1, 0, b"before".to_vec()).await;
    barrier(cluster.node(3), P1).await;
    cluster.crash(3).await;
    let mut last = Index(0);
    for number in 0..40 {
        last = write(&cluster, P1, number, vec![number as u8; 1_000]).await;
    }
    for node in [1, 2] {
        barrier(cluster.node(node), P1).await;
        cluster.node(node).flush().await;
        // The cut is written with the next group; an answered barrier says nothing of it, the status does.
        let cut = async {
            loop {
                let status = cluster.node(node).status().await;
                let replica = status.partitions.iter().find(|p| p.partition == P1).unwrap();
                if replica.first > Index(20) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, cut).await.expect("a log that is cut");
    }
    cluster.restart(3).await;
    assert!(barrier(cluster.node(3), P1).await >= last);
    assert_eq!(value(cluster.node(3), P1, 39).unwrap(), vec![39; 1_000]);
    let replica = cluster.node(3).replica(P1).unwrap();
    let log = &cluster.nodes[&NodeId(3)].log;
    let reset = async {
        while log.state(replica).unwrap().unwrap().cut.index <= Index(20) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reset).await.expect("a log set up anew by a snapshot");
    let staged = std::fs::read_dir(dir.path().join("staging-3")).unwrap();
    let gone = async {
        let mut staged: Vec<_> = staged.map(|entry| entry.unwrap().path()).collect();
        while !staged.is_empty() {
            staged.retain(|path| path.exists());
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the staged file goes");

    // It counts like the others again: with another one down, writes still commit.
    cluster.crash(1).await;
    write(&cluster, P1, 50, b"after".to_vec()).await;
    barrier(cluster.node(3), P1).await;
    assert_eq!(value(cluster.node(3), P1, 50).unwrap(), b"after");
    assert_eq!(cluster.node(3).state_hash(P1).await.unwrap().1, {
        barrier(cluster.node(2), P1).await;
        cluster.node(2).state_hash(P1).await.unwrap().1
    });
    assert!(cluster.fatal.lock().unwrap().is_empty());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_commands_are_evicted_on_every_replica_and_the_newest_stay() {
    let dir = tempdir();
    let cluster = TestCluster::start(3, 1, dir.path(), |config| {
        config.results_kept = Duration::from_secs(60);
        config.evict_interval = Duration::from_millis(20);
    })
    .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    // More than one entry evicts, and one that is not due.
    let old: Vec<CommandId> = (0..2_500).map(|n| CommandId::v7(UnixMillis(now - 3_600_000 + n), 1)).collect();
    let new = CommandId::v7(UnixMillis(now), 1);
    let results = old.iter().chain([&new]).map(|id| (*id, b"done".to_vec().into())).collect::<Vec<_>>();
    let (node, leading) = cluster.leader(P1).await;
    let proposal = Proposal {
        incarnation: leading.incarnation,
        term: leading.term,
        mailbox: MAILBOX,
        command: new,
        kind: EntryKind::Rows(RowsBody { results, ..RowsBody::default() }),
    };
    let done = cluster.node(node.0).propose(P1, proposal).await.unwrap();
    assert!(matches!(done, ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }), "{done:?}");
    for node in 1..=3 {
        let node = cluster.node(node);
        let replica = node.replica(P1).unwrap();
        let kept = || node.rows().scan(replica, MailboxId::PARTITION, Table::Commands, &[], &[], 10).unwrap();
        let only_the_newest = async {
            while kept().iter().map(|(id, _)| id.as_slice()).collect::<Vec<_>>() != [new.0.as_slice()] {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, only_the_newest).await.expect("old results go");
        let above = u128::from_be_bytes(old.last().unwrap().0) + 1;
        let floor = CommandFloor::read(node.rows().as_ref(), replica).unwrap();
        assert_eq!(floor, CommandFloor(CommandId(above.to_be_bytes())));
    }
    assert!(cluster.fatal.lock().unwrap().is_empty());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hands_over_leads_nothing_and_stops_with_everything_flushed() {
    let dir = tempdir();
    let mut cluster = TestCluster::start(3, 4, dir.path(), |_| {}).await;
    let index = write(&cluster, P1, 1, b"kept".to_vec()).await;
    let (leader, _) = cluster.leader(P1).await;
    let node = cluster.nodes.get_mut(&leader).unwrap();
    let driver = node.cluster.take().unwrap();
    let replica = driver.replica(P1).unwrap();
    driver.hand_over(PATIENCE).await;
    assert!(driver.leading().borrow().is_empty());
    driver.shutdown().await;
    let rows = node.rows.clone();
    rows.crash();
    assert!(rows.applied(replica).unwrap().unwrap().index >= index);
    let (next, _) = cluster.leader(P1).await;
    assert_ne!(next, leader);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_all_stop_at_once_do_not_wait_for_each_other() {
    let dir = tempdir();
    let mut cluster = TestCluster::start(3, 4, dir.path(), |_| {}).await;
    for partition in 1..=4 {
        cluster.leader(PartitionId(partition)).await;
    }
    let nodes: Vec<Cluster> = (1..=3).map(|node| cluster.node(node).clone()).collect();
    let begun = std::time::Instant::now();
    tokio::join!(nodes[0].hand_over(PATIENCE), nodes[1].hand_over(PATIENCE), nodes[2].hand_over(PATIENCE));
    assert!(begun.elapsed() < PATIENCE / 6, "{:?}", begun.elapsed());
    // And one whose peers are gone does not wait at all.
    drop(nodes);
    cluster.crash(2).await;
    cluster.crash(3).await;
    let alone = cluster.node(1).clone();
    let unconnected = async {
        while !alone.connected().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, unconnected).await.expect("connections that end");
    alone.hand_over(PATIENCE).await;
    drop(alone);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_reach_the_other_node_with_their_kind() {
    let dir = tempdir();
    let mut cluster = TestCluster::start(2, 1, dir.path(), |_| {}).await;
    let mut stream = cluster.node(1).dial(NodeId(2), StreamKind::Bodies).await.unwrap();
    let (from, kind, mut other) = cluster.nodes.get_mut(&NodeId(2)).unwrap().streams.recv().await.unwrap();
    assert_eq!((from, kind), (NodeId(1), StreamKind::Bodies));
    let sending = tokio::spawn(async move {
        stream.write_all(&[7; 200_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let mut received = Vec::new();
    other.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, [7; 200_000]);
    other.write_all(b"thanks").await.unwrap();
    other.shutdown().await.unwrap();
    assert_eq!(sending.await.unwrap(), b"thanks");

    let unknown = cluster.node(1).dial(NodeId(9), StreamKind::Sessions).await.unwrap_err();
    assert!(matches!(unknown, DialError::UnknownNode(NodeId(9))));
    cluster.crash(2).await;
    assert!(matches!(cluster.node(1).dial(NodeId(2), StreamKind::Sessions).await, Err(DialError::Io { .. })));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_this_cluster_get_in_and_garbage_does_no_harm() {
    let dir = tempdir();
    let cluster = TestCluster::start(3, 1, dir.path(), |_| {}).await;
    let address = cluster.nodes[&NodeId(1)].address;
    let id = cluster.id;

    // Each caller is a whole node that dials node 1 under some identity.
    let (other_ca, _) = cluster_ca(id, 1);
    let known = NodeId(2);
    let stranger = NodeId(8);
    let cases = [
        ("another CA", known, id, peer_tls(&other_ca, known, id), None),
        (
            "a node that is no peer",
            stranger,
            id,
            peer_tls(&cluster.ca, stranger, id),
            Some(ConnectionRefusal::Identity),
        ),
        ("another cluster", known, ClusterId([3; 16]), peer_tls(&cluster.ca, known, ClusterId([3; 16])), None),
    ];
    for (what, node, as_cluster, tls, refusal) in cases {
        let caller = Caller { node, cluster: as_cluster, tls };
        let error = caller.dial(NodeId(1), address).await.expect_err(what);
        match (&error, refusal) {
            (DialError::Refused { reason, .. }, Some(refusal)) => assert_eq!(*reason, refusal, "{what}"),
            (DialError::Io { .. }, None) => {}
            _ => panic!("{what}: {error}"),
        }
    }
    // Node 1 listens there, and can't prove to be node 3.
    let caller = Caller { node: known, cluster: id, tls: peer_tls(&cluster.ca, known, id) };
    let error = caller.dial(NodeId(3), address).await.expect_err("another node's address");
    assert!(error.to_string().contains("certificate"), "{error}");

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100_000], &[0x16, 3, 1, 0xff, 0xff], b""] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        // It may be closed before all of it is written.
        let _ = tcp.write_all(garbage).await;
        let _ = tcp.shutdown().await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.expect("the connection is closed");
    }
    write(&cluster, P1, 1, b"unharmed".to_vec()).await;
    barrier(cluster.node(1), P1).await;
    assert_eq!(value(cluster.node(1), P1, 1).unwrap(), b"unharmed");
    assert!(cluster.fatal.lock().unwrap().is_empty());
    cluster.shutdown().await;
}

/// A node outside the cluster that calls one inside.
struct Caller {
    node: NodeId,
    cluster: ClusterId,
    tls: mailraft_driver::PeerTls,
}

impl Caller {
    async fn dial(self, to: NodeId, address: std::net::SocketAddr) -> Result<(), DialError> {
        mailraft_driver::testing::dial_as(
            self.node,
            self.cluster,
            self.tls,
            to,
            &address.to_string(),
            StreamKind::Sessions,
        )
        .await
        .map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_ends_the_node_and_the_others_go_on() {
    let dir = tempdir();
    let cluster = TestCluster::start(3, 1, dir.path(), |_| {}).await;
    write(&cluster, P1, 1, b"first".to_vec()).await;
    let (leader, leading) = cluster.leader(P1).await;
    cluster.nodes[&leader].log.fail_next_sync();
    let mut batch = RowBatch::default();
    batch.put(row(2), b"lost or not".to_vec());
    let proposal = Proposal {
        incarnation: leading.incarnation,
        term: leading.term,
        mailbox: MAILBOX,
        command: CommandId([9; 16]),
        kind: EntryKind::Rows(RowsBody { batch, ..RowsBody::default() }),
    };
    let failed = cluster.node(leader.0).propose(P1, proposal);
    let mut leaders = cluster.node((leader.0 % 3) + 1).leaders();
    let successor = leaders.wait_for(|l| l[1].is_some_and(|l| l != leader));
    timeout(PATIENCE, successor).await.unwrap().unwrap();
    // Its core has ended: it answers nothing any more, or had answered by then.
    let _ = timeout(PATIENCE, failed).await.expect("an end");
    let told = cluster.fatal.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("mailraft-log: batch ") && told[0].contains("told to fail"), "{}", told[0]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_configuration_that_contradicts_itself_is_refused_in_a_sentence() {
    let dir = tempdir();
    let id = ClusterId([1; 16]);
    let (_, tls) = cluster_ca(id, 2);
    let config = |node: u64, peers: &[u64]| {
        let peers = peers.iter().map(|n| (NodeId(*n), "127.0.0.1:1".to_owned())).collect();
        let listen = "127.0.0.1:0".parse().unwrap();
        DriverConfig::new(NodeId(node), id, 4, listen, peers, tls[&NodeId(1)].clone(), dir.path().join("staging"))
    };
    let start = async |config| {
        let (streams, _) = mpsc::channel(1);
        Cluster::start(config, Arc::new(MemoryLog::new()), Arc::new(MemoryRows::new()), streams).await.err().unwrap()
    };
    assert!(matches!(start(config(1, &[1, 2])).await, StartError::Config(_)));
    assert!(matches!(start(config(0, &[2])).await, StartError::Config(_)));
    assert!(matches!(start(config(2, &[1])).await, StartError::Tls(_)), "node 1's certificate");
    let empty = start(config(1, &[2])).await;
    assert!(matches!(&empty, StartError::Recover(what) if what.contains("control group")), "{empty}");
    let mut taken = config(1, &[2]);
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    taken.listen = occupied.local_addr().unwrap();
    assert!(start(taken).await.to_string().contains("can't listen for other nodes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_of_every_partition_and_peer() {
    let dir = tempdir();
    let cluster =
        TestCluster::start(3, 2, dir.path(), |config| config.flush_interval = Duration::from_millis(50)).await;
    let index = write(&cluster, P1, 1, b"row".to_vec()).await;
    let (leader, _) = cluster.leader(P1).await;
    let node = cluster.node(leader.0);
    let flushed = async {
        loop {
            let status = node.status().await;
            let partition = status.partitions.iter().find(|p| p.partition == P1).unwrap();
            let whole = partition.flushed >= index && partition.followers.iter().all(|f| f.lag == 0);
            if whole && status.peers.iter().all(|peer| peer.connected) {
                break status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = timeout(PATIENCE, flushed).await.expect("a flush after its interval");
    assert_eq!(status.partitions.iter().map(|p| p.partition.0).collect::<Vec<_>>(), [0, 1, 2]);
    let partition = &status.partitions[1];
    assert_eq!((partition.role, partition.leader, partition.followers.len()), (Role::Leader, Some(leader), 2));
    assert_eq!(status.peers.len(), 2);
    assert!(status.fsync_p50_us <= status.fsync_p99_us);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["partitions"][1]["hash"].as_str().unwrap().len(), 64);
    cluster.shutdown().await;
}
