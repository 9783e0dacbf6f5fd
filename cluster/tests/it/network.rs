//! Cores, their stores, and the messages between them. Everything happens in a fixed order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mailraft_cluster::apply::apply;
use mailraft_cluster::bootstrap::{plan, NodeRow};
use mailraft_cluster::seam::ApplyJob;
use mailraft_cluster::{Input, Node, NodeConfig, Outcome, Output, PeerBody, PeerMessage, RequestId, SnapshotEvent, SnapshotJob};
use mailraft_storage::entry::RowsBody;
use mailraft_storage::log::{Log, LogBatch};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::{state_hash, ReplicaBatch};
use mailraft_storage::{
    Applied, ClusterId, CommandId, EntryKind, Env, Incarnation, Index, MailboxId, NodeId, PartitionId, Proposal,
    ReplicaId, RowBatch, RowKey, Rows, Table, Term,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A node with its stores; the core is gone while it is down.
pub struct Host {
    pub id: NodeId,
    pub log: MemoryLog,
    pub rows: MemoryRows,
    core: Option<Node>,
    env: Env,
    persist: VecDeque<(u64, LogBatch)>,
    apply: VecDeque<ApplyJob>,
    snapshots: VecDeque<SnapshotJob>,
    staged: BTreeMap<ReplicaId, (Applied, Vec<(RowKey, bytes::Bytes)>)>,
    pub leading: BTreeMap<PartitionId, (Term, Incarnation)>,
    pub leaders: BTreeMap<PartitionId, Option<NodeId>>,
    pub decided: BTreeMap<RequestId, Outcome>,
}

pub struct Network {
    pub hosts: Vec<Host>,
    messages: VecDeque<(NodeId, NodeId, PeerMessage)>,
    /// Nodes that hear nobody and are heard by nobody.
    pub cut_off: BTreeSet<NodeId>,
    next_request: u64,
    pub log_keep: u64,
    pub trace: Option<Vec<String>>,
}

impl Network {
    pub fn new(nodes: u64, partitions: u32) -> Self {
        let row = |id| NodeRow { id: NodeId(id), name: String::new(), region: String::new(), zone: String::new(), peer: String::new() };
        let rows: Vec<NodeRow> = (1..=nodes).map(row).collect();
        let plan = plan(CLUSTER, partitions, &rows, RowBatch::default(), &mut Env::seeded(1));
        let mut hosts = Vec::new();
        for node in &rows {
            let (log, store) = (MemoryLog::new(), MemoryRows::new());
            let mut batch = LogBatch::default();
            for first in plan.of(node.id) {
                let write = ReplicaBatch { replica: first.replica, batch: first.rows.clone(), applied: first.applied.clone() };
                store.write(&[write]).unwrap();
                batch.writes.push(first.log.clone());
            }
            store.flush().unwrap();
            log.write_synced(1, &batch).unwrap();
            hosts.push(Host {
                id: node.id,
                log,
                rows: store,
                core: None,
                env: Env::seeded(node.id.0),
                persist: VecDeque::new(),
                apply: VecDeque::new(),
                snapshots: VecDeque::new(),
                staged: BTreeMap::new(),
                leading: BTreeMap::new(),
                leaders: BTreeMap::new(),
                decided: BTreeMap::new(),
            });
        }
        let mut network = Network { hosts, messages: VecDeque::new(), cut_off: BTreeSet::new(), next_request: 0, log_keep: 100_000, trace: None };
        for node in 1..=nodes {
            network.start(NodeId(node));
        }
        network
    }

    pub fn host(&self, node: NodeId) -> &Host {
        self.hosts.iter().find(|h| h.id == node).unwrap()
    }

    fn host_mut(&mut self, node: NodeId) -> &mut Host {
        self.hosts.iter_mut().find(|h| h.id == node).unwrap()
    }

    pub fn start(&mut self, node: NodeId) {
        let keep = self.log_keep;
        let host = self.host_mut(node);
        host.log.recover().unwrap();
        let config = NodeConfig::from_rows(node, CLUSTER, &host.rows, keep, slog::Logger::root(slog::Discard, slog::o!())).unwrap();
        let mut core = Node::recover(config, Arc::new(host.log.clone()), &host.rows, &mut host.env).unwrap();
        let mut out = Vec::new();
        core.start(&mut host.env, &mut out);
        host.core = Some(core);
        self.take(node, out);
    }

    /// The process dies: nothing unsynced survives but `keep` bytes of log.
    pub fn crash(&mut self, node: NodeId, keep: usize) {
        let host = self.host_mut(node);
        host.core = None;
        host.log.crash(keep);
        host.rows.crash();
        host.persist.clear();
        host.apply.clear();
        host.snapshots.clear();
        host.leading.clear();
        host.leaders.clear();
        self.messages.retain(|(from, to, _)| *from != node && *to != node);
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.host(node).core.is_some()
    }

    pub fn input(&mut self, node: NodeId, input: Input) {
        let host = self.host_mut(node);
        let mut out = Vec::new();
        let Some(core) = host.core.as_mut() else { return };
        core.step(&mut host.env, input, &mut out);
        self.take(node, out);
    }

    fn take(&mut self, node: NodeId, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Persist { group, batch } => self.host_mut(node).persist.push_back((group, batch)),
                Output::Apply(job) => self.host_mut(node).apply.push_back(job),
                Output::Send { to, message } => self.messages.push_back((node, to, message)),
                Output::Decided { request, outcome } => {
                    let before = self.host_mut(node).decided.insert(request, outcome);
                    assert!(before.is_none(), "{request:?} decided twice");
                }
                Output::Leads { partition, leading, .. } => {
                    if let Some(trace) = self.trace.as_mut() {
                        trace.push(match leading {
                            Some((term, _)) => format!("node {node} leads partition {partition} in term {term}"),
                            None => format!("node {node} leads partition {partition} no more"),
                        });
                    }
                    let host = self.host_mut(node);
                    match leading {
                        Some(leading) => host.leading.insert(partition, leading),
                        None => host.leading.remove(&partition),
                    };
                }
                Output::Leader { partition, node: leader } => {
                    self.host_mut(node).leaders.insert(partition, leader);
                }
                Output::Snapshot(job) => self.host_mut(node).snapshots.push_back(job),
                Output::Abort(why) => panic!("node {node}: {why}"),
            }
        }
    }

    /// Carries out everything that waits, until nothing does.
    pub fn settle(&mut self) {
        while self.step_once() {}
    }

    /// One thing that waits, in a fixed order; false if nothing does.
    pub fn step_once(&mut self) -> bool {
        for at in 0..self.hosts.len() {
            let node = self.hosts[at].id;
            if !self.is_up(node) {
                continue;
            }
            if let Some((group, batch)) = self.hosts[at].persist.pop_front() {
                self.hosts[at].log.write_synced(group, &batch).unwrap();
                self.input(node, Input::Persisted { group });
                return true;
            }
            if let Some(job) = self.hosts[at].apply.pop_front() {
                for done in apply(&self.hosts[at].rows, &[job]).unwrap() {
                    self.input(node, Input::Applied { replica: done.replica, applied: done.applied, verdicts: done.verdicts });
                }
                return true;
            }
            if let Some(job) = self.hosts[at].snapshots.pop_front() {
                self.snapshot(node, job);
                return true;
            }
        }
        match self.messages.pop_front() {
            Some((from, to, message)) => {
                if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
                    return true;
                }
                // Over the wire and back.
                let message = mailraft_cluster::frame::decode(&mailraft_cluster::frame::encode(&message)).unwrap();
                self.input(to, Input::Peer { from, message });
                true
            }
            None => false,
        }
    }

    fn snapshot(&mut self, node: NodeId, job: SnapshotJob) {
        match job {
            SnapshotJob::Send { replica, to, mut message } => {
                let view = self.host(node).rows.view(replica).unwrap().unwrap();
                let applied = view.applied().clone();
                let rows = view.rows(None, usize::MAX).unwrap();
                let PeerBody::Raft(raft) = &mut message.body else { panic!("no snapshot") };
                let meta = raft.mut_snapshot().mut_metadata();
                meta.index = applied.index.0;
                meta.term = applied.term.0;
                let receiver = message.to;
                let reached = self.is_up(to) && !self.cut_off.contains(&to) && !self.cut_off.contains(&node);
                if reached {
                    self.host_mut(to).staged.insert(receiver, (applied.clone(), rows));
                    self.input(to, Input::Snapshot(SnapshotEvent::Staged { from: node, message, applied }));
                }
                self.input(node, Input::Snapshot(SnapshotEvent::Sent { replica, to: receiver, ok: reached }));
            }
            SnapshotJob::Install { replica, applied } => {
                let (staged, rows) = self.host(node).staged.get(&replica).unwrap().clone();
                assert_eq!(staged, applied);
                self.host(node).rows.replace(replica, &applied, &mut rows.into_iter().map(Ok)).unwrap();
                self.input(node, Input::Snapshot(SnapshotEvent::Installed { replica }));
            }
            SnapshotJob::Discard { replica } => {
                self.host_mut(node).staged.remove(&replica);
            }
        }
    }

    pub fn tick(&mut self) {
        for at in 0..self.hosts.len() {
            let node = self.hosts[at].id;
            let host = &mut self.hosts[at];
            host.env.now += std::time::Duration::from_millis(25);
            host.env.wall.0 += 25;
            self.input(node, Input::Tick);
        }
        self.settle();
    }

    pub fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.tick();
        }
    }

    /// Ticks until a condition holds.
    pub fn until(&mut self, ticks: u32, what: &str, holds: impl Fn(&Network) -> bool) {
        for _ in 0..ticks {
            if holds(self) {
                return;
            }
            self.tick();
        }
        assert!(holds(self), "not within {ticks} ticks: {what}");
    }

    pub fn leader(&self, partition: PartitionId) -> Option<NodeId> {
        let mut leading: Vec<(Term, NodeId)> =
            self.hosts.iter().filter_map(|h| Some((h.leading.get(&partition)?.0, h.id))).collect();
        leading.sort();
        leading.pop().map(|(_, node)| node)
    }

    /// A write of one row to a mailbox through a node that leads.
    pub fn propose(&mut self, node: NodeId, partition: PartitionId, mailbox: u8, key: u64) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (term, incarnation) = self.host(node).leading[&partition];
        let mut body = RowsBody::default();
        body.batch.put(RowKey::new(MailboxId([mailbox; 16]), Table::Places, key.to_be_bytes()), key.to_be_bytes().to_vec());
        let mut id = [0; 16];
        id[8..].copy_from_slice(&request.0.to_be_bytes());
        body.results.push((CommandId(id), bytes::Bytes::from_static(b"done")));
        let proposal = Proposal { incarnation, term, mailbox: MailboxId([mailbox; 16]), command: CommandId(id), kind: EntryKind::Rows(body) };
        self.input(node, Input::Propose { request, partition, proposal });
        request
    }

    pub fn read(&mut self, node: NodeId, partition: PartitionId, term: Option<Term>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.input(node, Input::ReadBarrier { request, partition, term });
        request
    }

    pub fn await_slot(&mut self, node: NodeId, partition: PartitionId, mailbox: u8) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (term, _) = self.host(node).leading[&partition];
        self.input(node, Input::AwaitSlot { request, partition, term, mailbox: MailboxId([mailbox; 16]) });
        request
    }

    pub fn outcome(&self, node: NodeId, request: RequestId) -> Option<&Outcome> {
        self.host(node).decided.get(&request)
    }

    pub fn has_row(&self, node: NodeId, partition: PartitionId, mailbox: u8, key: u64) -> bool {
        let replica = self.replica(node, partition);
        let key = RowKey::new(MailboxId([mailbox; 16]), Table::Places, key.to_be_bytes());
        self.host(node).rows.get(replica, &key).unwrap().is_some()
    }

    pub fn replica(&self, node: NodeId, partition: PartitionId) -> ReplicaId {
        let core = self.host(node).core.as_ref().unwrap();
        core.replica_ids()[&partition]
    }

    pub fn position(&self, node: NodeId, partition: PartitionId) -> (Index, [u8; 32]) {
        let view = self.host(node).rows.view(self.replica(node, partition)).unwrap().unwrap();
        (view.applied().index, state_hash(view.as_ref()).unwrap())
    }

    pub fn first_index(&self, node: NodeId, partition: PartitionId) -> Index {
        let core = self.host(node).core.as_ref().unwrap();
        core.status().into_iter().find(|s| s.partition == partition).unwrap().first
    }

    pub fn flush(&mut self, node: NodeId) {
        let upto = self.host(node).rows.flush().unwrap();
        self.input(node, Input::Flushed { upto });
        self.settle();
    }
}
