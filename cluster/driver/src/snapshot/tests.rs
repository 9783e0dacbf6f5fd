//! Snapshots between two nodes over TLS, without a core.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Receiver as Queue;
use mailraft_cluster::{Input, PeerBody, PeerMessage, SnapshotEvent, SnapshotJob};
use mailraft_storage::log::{InstallMark, Log, LogBatch, LogWrite};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::{Applied, ReplicaBatch, state_hash};
use mailraft_storage::{
    ClusterId, Incarnation, Index, NodeId, PartitionId, ReplicaId, RowBatch, RowKey, Rows, Table, Term, UnixMillis,
};
use raft::eraftpb::{self, MessageType};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Context, SnapshotWork, Staging, UnderWay, start};
use crate::connections::Connections;
use crate::far::Far;
use crate::fatal::Fatal;
use crate::inputs::{Inputs, Queued};
use crate::listener::Listener;
use crate::outgoing::Outgoing;
use crate::stream::Identity;
use crate::testing::{PATIENCE, cluster_ca};

const CLUSTER: ClusterId = ClusterId([9; 16]);
const THERE: ReplicaId = ReplicaId(2);
const HERE: ReplicaId = ReplicaId(1);
const SILENT: NodeId = NodeId(9);
const FAR_BYTES_PER_SECOND: u64 = 1 << 20;

struct End {
    log: MemoryLog,
    rows: MemoryRows,
    queue: Queue<Queued>,
    work: mpsc::UnboundedSender<SnapshotWork>,
}

impl End {
    fn event(&self) -> SnapshotEvent {
        match self.queue.recv_timeout(PATIENCE).unwrap() {
            Queued::Own(Input::Snapshot(event)) => event,
            _ => panic!("something else than a snapshot's event"),
        }
    }
}

fn batch(replica: ReplicaId, index: u64, rows: usize) -> ReplicaBatch {
    let mut batch = RowBatch::default();
    for n in 0..rows {
        let value = vec![n as u8; if n % 50 == 0 { 300_000 } else { n }];
        batch.put(RowKey::partition(Table::Commands, (n as u128).to_be_bytes()), value);
    }
    let applied = Applied {
        index: Index(index),
        term: Term(3),
        voters: vec![HERE, THERE],
        count: index,
        hash: [index as u8; 32],
        ..Applied::default()
    };
    ReplicaBatch { replica, batch, applied }
}

fn message() -> PeerMessage {
    let mut raft = eraftpb::Message { from: HERE.0, to: THERE.0, term: 3, ..Default::default() };
    raft.set_msg_type(MessageType::MsgSnapshot);
    PeerMessage {
        cluster: CLUSTER,
        partition: PartitionId(1),
        from: HERE,
        to: THERE,
        incarnation: Incarnation { number: 1, nonce: [0; 16] },
        wall: UnixMillis(1),
        body: PeerBody::Raft(raft),
    }
}

fn job(job: SnapshotJob) -> SnapshotWork {
    SnapshotWork::Job(Box::new(job))
}

async fn ends(dir: &Path) -> (End, End) {
    ends_with(dir, Far::default()).await
}

/// Besides the two there is a node 9 that takes connections and says nothing.
async fn ends_with(dir: &Path, far: Far) -> (End, End) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    // For the rest of the process.
    std::mem::forget(silent);
    let (_, tls) = cluster_ca(CLUSTER, 2);
    let mut sockets = BTreeMap::new();
    for node in tls.keys() {
        sockets.insert(*node, TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: BTreeMap<NodeId, String> =
        sockets.iter().map(|(n, s)| (*n, s.local_addr().unwrap().to_string())).collect();
    let mut ends = Vec::new();
    for (node, tls) in tls {
        let mut peers = addresses.clone();
        peers.remove(&node);
        peers.insert(SILENT, silent_address.clone());
        let me = Identity { node, cluster: CLUSTER, tls, connections: Connections::default() };
        let (inputs, queue) = Inputs::new();
        let (work, jobs) = mpsc::unbounded_channel();
        let (log, rows) = (MemoryLog::new(), MemoryRows::new());
        let fatal = Fatal::new(Arc::new(|sentence| panic!("{sentence}")));
        let staging = Staging::open(dir.join(node.to_string()), &MemoryLog::new()).unwrap();
        let context = Context {
            me: me.clone(),
            peers: peers.clone(),
            log: Arc::new(log.clone()),
            rows: Arc::new(rows.clone()),
            staging,
            bytes_per_second: 1 << 30,
            far_bytes_per_second: FAR_BYTES_PER_SECOND,
            far: far.clone(),
            under_way: UnderWay::default(),
            inputs: inputs.clone(),
            fatal: fatal.clone(),
        };
        let receiver = start(context, jobs);
        let (streams, _) = mpsc::channel(1);
        let listener = Listener::new(me, &peers, Outgoing::new(&peers, &far), inputs, receiver, streams, fatal.clone());
        fatal.spawn_task("listener", listener.run(sockets.remove(&node).unwrap(), 64));
        ends.push(End { log, rows, queue, work });
    }
    let second = ends.pop().unwrap();
    (ends.pop().unwrap(), second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_arrive_whole_are_installed_and_the_file_goes_when_the_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ends(dir.path()).await;
    one.rows.write(&[batch(HERE, 40, 400)]).unwrap();
    two.rows.write(&[batch(THERE, 1, 3)]).unwrap();
    one.work.send(job(SnapshotJob::Send { replica: HERE, to: NodeId(2), message: message() })).unwrap();

    let SnapshotEvent::Staged { from, message, applied } = two.event() else { panic!("not staged") };
    assert_eq!((from, applied.index, applied.term), (NodeId(1), Index(40), Term(3)));
    let PeerBody::Raft(raft) = &message.body else { panic!("no message of raft") };
    let metadata = raft.get_snapshot().get_metadata();
    assert_eq!((metadata.index, metadata.get_conf_state().get_voters()), (40, &[1, 2][..]));
    assert!(matches!(one.event(), SnapshotEvent::Sent { replica: HERE, to: THERE, ok: true }));

    two.work.send(job(SnapshotJob::Install { replica: THERE, applied: applied.clone() })).unwrap();
    assert!(matches!(two.event(), SnapshotEvent::Installed { replica: THERE, .. }));
    assert_eq!(two.rows.applied(THERE).unwrap(), Some(applied));
    let hash = |rows: &MemoryRows, replica| state_hash(rows.view(replica).unwrap().unwrap().as_ref()).unwrap();
    assert_eq!(hash(&one.rows, HERE), hash(&two.rows, THERE));

    let file = dir.path().join("2/2-40.snap");
    // A discard between the installation and the log's word leaves the file: a crash would ask for it again.
    two.work.send(job(SnapshotJob::Discard { replica: THERE })).unwrap();
    assert!(file.exists());
    two.work.send(SnapshotWork::Over(THERE)).unwrap();
    let gone = async {
        while file.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_to_another_region_take_no_place_of_the_homes_and_have_their_own_pace() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ends_with(dir.path(), Far::with([(SILENT, "south")])).await;
    one.rows.write(&[batch(HERE, 40, 400)]).unwrap();
    two.rows.write(&[batch(THERE, 1, 3)]).unwrap();
    let send = |end: &End, to| end.work.send(job(SnapshotJob::Send { replica: HERE, to, message: message() })).unwrap();
    for _ in 0..3 {
        send(&one, SILENT);
    }
    send(&one, NodeId(2));
    // Those that the other region's node keeps waiting have not failed yet.
    assert!(matches!(one.event(), SnapshotEvent::Sent { ok: true, .. }));
    assert!(matches!(one.event(), SnapshotEvent::Sent { ok: false, .. }));

    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ends_with(dir.path(), Far::with([(NodeId(2), "south")])).await;
    one.rows.write(&[batch(HERE, 40, 400)]).unwrap();
    two.rows.write(&[batch(THERE, 1, 3)]).unwrap();
    let begun = Instant::now();
    send(&one, NodeId(2));
    assert!(matches!(one.event(), SnapshotEvent::Sent { ok: true, .. }));
    assert!(begun.elapsed() > Duration::from_secs(2), "2.4 MB at 1 MB/s took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_there_is_not_sent_and_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _two) = ends(dir.path()).await;
    let send = || job(SnapshotJob::Send { replica: HERE, to: NodeId(2), message: message() });
    one.work.send(send()).unwrap();
    assert!(matches!(one.event(), SnapshotEvent::Sent { ok: false, .. }), "no such replica here");
    one.rows.write(&[batch(HERE, 40, 4)]).unwrap();
    one.work.send(send()).unwrap();
    assert!(matches!(one.event(), SnapshotEvent::Sent { ok: false, .. }), "no such replica there");
    let mut other = message();
    other.cluster = ClusterId([8; 16]);
    one.work.send(job(SnapshotJob::Send { replica: HERE, to: NodeId(2), message: other })).unwrap();
    assert!(matches!(one.event(), SnapshotEvent::Sent { ok: false, .. }), "another cluster's message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_this_node_could_not_read_are_refused_before_they_are_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ends(dir.path()).await;
    two.rows.write(&[batch(THERE, 1, 3)]).unwrap();
    let send = || job(SnapshotJob::Send { replica: HERE, to: NodeId(2), message: message() });
    let regions = RowKey::partition(Table::Regions, []);
    let member = |n: u32| RowKey::partition(Table::Members, [&[1][..], &n.to_be_bytes()].concat());
    let many = (0..40).map(|n| (member(n), vec![0; 100 << 10])).collect::<Vec<_>>();
    let invented = [
        vec![(mailraft_cluster::placement::member_key(THERE), b"\x01?".to_vec())],
        vec![(mailraft_cluster::placement::highest_key(), Vec::new())],
        vec![(regions, vec![1; 7])],
        vec![(RowKey::partition(Table::Nodes, [1]), vec![9; 7])],
        vec![(RowKey::partition(Table::Placement, [1]), vec![1])],
        [many, vec![(member(99), vec![0; 100 << 10])]].concat(),
    ];
    for (at, rows) in invented.into_iter().enumerate() {
        let mut forged = batch(HERE, 40 + 2 * at as u64, 0);
        rows.iter().for_each(|(key, value)| forged.batch.put(key.clone(), value.clone()));
        one.rows.write(&[forged]).unwrap();
        one.work.send(send()).unwrap();
        assert!(matches!(one.event(), SnapshotEvent::Sent { ok: false, .. }), "{at}: {rows:?}");
        let mut gone = batch(HERE, 41 + 2 * at as u64, 0);
        gone.batch.deletes = rows.into_iter().map(|(key, _)| key).collect();
        one.rows.write(&[gone]).unwrap();
    }
    one.work.send(send()).unwrap();
    assert!(matches!(two.event(), SnapshotEvent::Staged { .. }), "an honest one is still taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_that_has_a_log_and_no_rows_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ends(dir.path()).await;
    one.rows.write(&[batch(HERE, 40, 4)]).unwrap();
    let hard_state = Some(eraftpb::HardState { term: 3, ..Default::default() });
    let born = LogWrite { replica: THERE, hard_state, ..LogWrite::default() };
    two.log.write_synced(1, &LogBatch { writes: vec![born] }).unwrap();
    one.work.send(job(SnapshotJob::Send { replica: HERE, to: NodeId(2), message: message() })).unwrap();
    let SnapshotEvent::Staged { applied, .. } = two.event() else { panic!("not staged") };
    two.work.send(job(SnapshotJob::Install { replica: THERE, applied: applied.clone() })).unwrap();
    assert!(matches!(two.event(), SnapshotEvent::Installed { replica: THERE, .. }));
    assert_eq!(two.rows.applied(THERE).unwrap(), Some(applied));
}

#[test]
fn a_start_keeps_only_what_is_being_installed() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["5.snap.part", "5-30.snap", "5-40.snap", "6-40.snap", "x.snap", "notes.txt"] {
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let log = MemoryLog::new();
    let mark = Applied { index: Index(40), ..Applied::default() };
    let write = LogWrite { replica: ReplicaId(5), mark: Some(InstallMark::Begun(mark)), ..LogWrite::default() };
    log.write_synced(1, &LogBatch { writes: vec![write] }).unwrap();
    let staging = Staging::open(dir.path().to_owned(), &log).unwrap();
    let left = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(left(), ["5-40.snap", "notes.txt"]);

    assert!(staging.claim(ReplicaId(5)).is_none(), "one is being installed");
    staging.discard(ReplicaId(5));
    assert_eq!(left(), ["5-40.snap", "notes.txt"], "it is needed until the log says otherwise");
    staging.over(ReplicaId(5));
    assert_eq!(left(), ["notes.txt"]);
}

#[test]
fn one_snapshot_of_a_replica_at_a_time_until_the_core_has_judged_it() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path().to_owned(), &MemoryLog::new()).unwrap();
    let replica = ReplicaId(5);
    let claim = staging.claim(replica).unwrap();
    assert!(staging.claim(replica).is_none() && staging.claim(ReplicaId(6)).is_some());
    std::fs::write(staging.part(replica), b"").unwrap();
    staging.publish(replica, Index(50)).unwrap();
    drop(claim);
    // However long the core takes: a second one would take the place of one that it may have accepted.
    assert!(staging.claim(replica).is_none(), "the core has not said what becomes of it");
    staging.discard(replica);
    assert!(!staging.path(replica, Index(50)).exists());
    drop(staging.claim(replica).unwrap());
    staging.begin(replica, Index(60));
    assert!(staging.claim(replica).is_none());
    staging.over(replica);
    assert!(staging.claim(replica).is_some());
}

#[test]
fn a_damaged_file_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path().to_owned(), &MemoryLog::new()).unwrap();
    let rows = MemoryRows::new();
    rows.write(&[batch(THERE, 1, 3)]).unwrap();
    let before = state_hash(rows.view(THERE).unwrap().unwrap().as_ref()).unwrap();
    let applied = Applied { index: Index(9), ..Applied::default() };
    let header = super::file::Header { cluster: CLUSTER, applied: applied.clone(), message: Bytes::new() };
    let (mut writer, mut bytes) = super::file::Writer::begin(&header);
    bytes.extend(writer.page(&[(RowKey::partition(Table::Commands, [1; 16]), Bytes::from_static(b"row"))]));
    bytes.extend(writer.end());
    let path = staging.path(THERE, Index(9));

    let missing = super::install::install(&staging, &rows, THERE, &applied).unwrap_err();
    assert!(missing.contains("2-9.snap"), "{missing}");
    let at = bytes.len() - 45;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let damaged = super::install::install(&staging, &rows, THERE, &applied).unwrap_err();
    assert!(damaged.contains("damaged data in snapshot"), "{damaged}");
    assert_eq!(state_hash(rows.view(THERE).unwrap().unwrap().as_ref()).unwrap(), before);
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let other = Applied { count: 1, ..applied.clone() };
    assert!(super::install::install(&staging, &rows, THERE, &other).is_err(), "another position");
    super::install::install(&staging, &rows, THERE, &applied).unwrap();
    assert_eq!(rows.applied(THERE).unwrap(), Some(applied));
}
