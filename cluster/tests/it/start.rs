//! What a node does not start with.

use std::sync::Arc;

use mailraft_cluster::bootstrap::{NodeRow, plan};
use mailraft_cluster::{
    Input, Node, NodeConfig, Output, PeerBody, PeerMessage, RecoverError, SnapshotEvent, SnapshotJob,
};
use mailraft_storage::log::{Log, LogBatch, LogWrite};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{
    Applied, ClusterId, Env, Incarnation, Index, LogPosition, NodeId, PartitionId, ReplicaId, RowBatch, Rows, Term,
    UnixMillis,
};
use raft::eraftpb::{self, Entry, HardState};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const ONE: NodeId = NodeId(1);

/// A new cluster's first node with its control replica 1 and the replica of partition 1.
fn stores() -> (MemoryLog, MemoryRows, ReplicaId) {
    let row = |id| NodeRow {
        id: NodeId(id),
        name: String::new(),
        region: String::new(),
        zone: String::new(),
        peer: String::new(),
    };
    let plan = plan(1, &[row(1), row(2), row(3)], RowBatch::default(), &mut Env::seeded(1));
    let (log, rows) = (MemoryLog::new(), MemoryRows::new());
    let mut batch = LogBatch::default();
    for first in plan.of(ONE) {
        let (replica, applied) = (first.replica, first.applied.clone());
        rows.write(&[ReplicaBatch { replica, batch: first.rows.clone(), applied }]).unwrap();
        batch.writes.push(first.log.clone());
    }
    rows.flush().unwrap();
    log.write_synced(1, &batch).unwrap();
    (log, rows, plan.of(ONE).last().unwrap().replica)
}

fn start(log: &MemoryLog, rows: &MemoryRows) -> Result<Node, RecoverError> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let config = NodeConfig::from_rows(ONE, CLUSTER, rows, 100, logger)?;
    Node::recover(config, Arc::new(log.clone()), rows, &mut Env::seeded(1))
}

fn damage(write: LogWrite) -> String {
    let (log, rows, _) = stores();
    log.write_synced(2, &LogBatch { writes: vec![write] }).unwrap();
    match start(&log, &rows) {
        Err(error @ RecoverError::Damaged { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
}

fn hard_state(term: u64, commit: u64) -> Option<HardState> {
    Some(HardState { term, commit, ..HardState::default() })
}

#[test]
fn a_staged_snapshot_that_is_nobodys_is_thrown_away() {
    let (log, rows, replica) = stores();
    let (mut node, mut env, mut out) = (start(&log, &rows).unwrap(), Env::seeded(1), Vec::new());
    node.start(&mut env, &mut out);
    let staged = |cluster, to| {
        let raft = eraftpb::Message { from: 99, to: replica.0, ..Default::default() };
        let message = PeerMessage {
            cluster,
            partition: PartitionId(1),
            from: ReplicaId(99),
            to,
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            wall: UnixMillis(1),
            body: PeerBody::Raft(raft),
        };
        SnapshotEvent::Staged { from: NodeId(2), message, applied: Applied::default() }
    };
    for (cluster, to) in [(CLUSTER, replica), (CLUSTER, ReplicaId(77)), (ClusterId([8; 16]), replica)] {
        out.clear();
        node.step(&mut env, Input::Snapshot(staged(cluster, to)), &mut out);
        let thrown =
            out.iter().any(|o| matches!(o, Output::Snapshot(SnapshotJob::Discard { replica }) if *replica == to));
        assert!(thrown, "{to} of {cluster}");
    }
}

#[test]
fn damage_is_refused_with_a_sentence_before_raft_sees_it() {
    let (log, rows, replica) = stores();
    assert!(start(&log, &rows).is_ok());
    let write = |hard_state| LogWrite { replica, hard_state, ..LogWrite::default() };
    assert!(damage(write(hard_state(1, 9))).contains("entries up to 9 are committed, and its log ends at 1"));
    let entry = Entry { index: 2, term: 5, ..Entry::default() };
    let later = LogWrite { append: vec![entry], ..write(hard_state(1, 1)) };
    assert!(damage(later).contains("entry 2 of term 5, and it has seen only term 1"));
    let cut = LogWrite { reset: Some(LogPosition { index: Index(8), term: Term(1) }), ..write(hard_state(1, 8)) };
    assert!(damage(cut).contains("its rows end at 1, and its log begins after 8"));
    assert!(damage(LogWrite { remove: true, ..write(None) }).contains("its log is not there"));
}

#[test]
fn rows_ahead_of_the_log_and_missing_rows_are_refused() {
    let (log, rows, replica) = stores();
    let applied = Applied { index: Index(4), ..rows.applied(replica).unwrap().unwrap() };
    rows.write(&[ReplicaBatch { replica, batch: RowBatch::default(), applied }]).unwrap();
    let sentence = start(&log, &rows).err().unwrap().to_string();
    assert!(sentence.contains("its rows are at 4, and its log ends at 1"), "{sentence}");
    rows.remove(replica).unwrap();
    assert!(start(&log, &rows).err().unwrap().to_string().contains("its rows are not there"));
    assert!(matches!(start(&log, &MemoryRows::new()), Err(RecoverError::NoControl(ONE))));
}
