//! Cores, their stores, and the messages between them. Everything happens in a fixed order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::apply::{AppliedJob, apply};
use mailraft_cluster::bootstrap::{NodeRow, Plan, plan, plan_regions};
use mailraft_cluster::placement::{self, MemberRow};
use mailraft_cluster::regions::{Durability, RegionName, Regions, RegionsRow, Unconfirmed};
use mailraft_cluster::seam::ApplyJob;
use mailraft_cluster::{
    BarrierOutcome, ChangeOutcome, CreateOutcome, Decision, Difference, Input, MemberChange, Node, NodeConfig, Output,
    OwnersTerm, PeerBody, PeerMessage, PeerRefusal, Reader, ReplicaSpec, ReplicaStatus, RequestId, SlotOutcome,
    SnapshotEvent, SnapshotJob, TakeOverOutcome,
};
use mailraft_storage::entry::{ChunkBody, RowsBody};
use mailraft_storage::log::{LOG_BATCH_MAX_BYTES, Log, LogBatch};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::{ReplicaBatch, state_hash};
use mailraft_storage::{
    Applied, ClusterId, CommandId, EntryKind, Env, Incarnation, Index, LogPosition, MailboxId, NodeId, PartitionId,
    Proposal, ProposalOutcome, ReplicaId, RowBatch, RowKey, Rows, Table, Term,
};
use raft::eraftpb::MessageType;

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A node with its stores; the core is gone while it is down.
pub struct Host {
    pub id: NodeId,
    pub log: MemoryLog,
    pub rows: MemoryRows,
    /// Replicas that came later; the rows that name them are flushed.
    pub came_later: Vec<ReplicaSpec>,
    core: Option<Node>,
    pub env: Env,
    persist: VecDeque<(u64, LogBatch)>,
    /// Of the batch in front: written, not yet synced.
    written: bool,
    apply: VecDeque<ApplyJob>,
    snapshots: VecDeque<SnapshotJob>,
    staged: BTreeMap<ReplicaId, (Applied, Vec<(RowKey, bytes::Bytes)>)>,
    pub leading: BTreeMap<PartitionId, (Term, Incarnation)>,
    pub leaders: BTreeMap<PartitionId, Option<NodeId>>,
    pub decided: BTreeMap<RequestId, Decision>,
    /// Up to where each replica's log was said to be committed since the start.
    pub committed: BTreeMap<ReplicaId, LogPosition>,
}

pub struct Network {
    pub hosts: Vec<Host>,
    messages: VecDeque<(NodeId, NodeId, PeerMessage)>,
    /// Nodes that hear nobody and are heard by nobody.
    pub cut_off: BTreeSet<NodeId>,
    /// What the first says does not reach the second.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    next_request: u64,
    pub log_keep: u64,
    pub region_log_keep_bytes: u64,
    /// What is said about partition 1, if anyone listens.
    pub talk: Option<Vec<String>>,
    led: BTreeMap<(PartitionId, Term), NodeId>,
    /// Who sent what only a leader sends.
    spoke_as_leader: BTreeMap<(PartitionId, u64), ReplicaId>,
    /// Whom a replica asked for pre-votes since it was cleared.
    pub asked_for_votes: BTreeMap<ReplicaId, BTreeSet<ReplicaId>>,
    /// Nodes whose apply stands still.
    pub apply_held: BTreeSet<NodeId>,
    /// Nodes whose disks make nothing durable.
    pub disk_stuck: BTreeSet<NodeId>,
    /// Removed, durably: they never speak again.
    pub gone: BTreeSet<ReplicaId>,
    /// Snapshots whose rows were put in place.
    pub installed: u64,
    /// Nodes that stopped by themselves and why, where a test expects it.
    pub stopped: Option<BTreeMap<NodeId, String>>,
    /// Which replicas were said to differ, by whom, and whether the other is wrong.
    pub differ: Vec<(NodeId, ReplicaId, Difference)>,
    /// Replicas whose rows are not what was applied: their sums are others than those of the rest.
    pub wrong_rows: BTreeSet<ReplicaId>,
    /// What was said to be trusted no more.
    pub distrusted: BTreeMap<NodeId, ReplicaId>,
    /// What was refused of what nodes said. While it is None that fails the test.
    pub refused: Option<Vec<(NodeId, PeerRefusal)>>,
    /// Nodes die when the rows of a snapshot are in place and nobody knows it yet.
    pub dies_at_install: bool,
    /// What is said to a node about a partition gets lost.
    pub deaf: BTreeSet<(NodeId, PartitionId)>,
    /// How many heartbeats about partition 1 were sent to each node.
    pub heartbeats: BTreeMap<NodeId, u64>,
    /// How long answers waited for other regions.
    pub waited: Vec<Duration>,
}

impl Network {
    pub fn new(nodes: u64, partitions: u32) -> Self {
        let rows: Vec<NodeRow> = (1..=nodes).map(|id| row(id, "")).collect();
        let plan = plan(partitions, &rows, RowBatch::default(), &mut Env::seeded(1));
        Self::of(&rows, &plan)
    }

    /// With a backup region: the nodes behind those at home.
    pub fn with_south(home: u64, south: u64, durability: Durability) -> Self {
        let rows: Vec<NodeRow> =
            (1..=home + south).map(|id| row(id, if id <= home { "home" } else { "south" })).collect();
        let name = |name: &str| RegionName(name.to_owned());
        let regions = RegionsRow::new(name("home"), [name("south")].into(), durability);
        let regions = RegionsRow { unconfirmed: Unconfirmed::Refuse, ..regions };
        let plan = plan_regions(1, &rows, &regions, RowBatch::default(), &mut Env::seeded(1));
        Self::of(&rows, &plan)
    }

    fn of(rows: &[NodeRow], plan: &Plan) -> Self {
        let mut hosts = Vec::new();
        for node in rows {
            let (log, store) = (MemoryLog::new(), MemoryRows::new());
            let mut batch = LogBatch::default();
            for first in plan.of(node.id) {
                let write =
                    ReplicaBatch { replica: first.replica, batch: first.rows.clone(), applied: first.applied.clone() };
                store.write(&[write]).unwrap();
                batch.writes.push(first.log.clone());
            }
            store.flush().unwrap();
            log.write_synced(1, &batch).unwrap();
            hosts.push(Host {
                id: node.id,
                log,
                rows: store,
                came_later: Vec::new(),
                core: None,
                env: Env::seeded(node.id.0),
                persist: VecDeque::new(),
                written: false,
                apply: VecDeque::new(),
                snapshots: VecDeque::new(),
                staged: BTreeMap::new(),
                leading: BTreeMap::new(),
                leaders: BTreeMap::new(),
                decided: BTreeMap::new(),
                committed: BTreeMap::new(),
            });
        }
        let mut network = Network {
            hosts,
            messages: VecDeque::new(),
            cut_off: BTreeSet::new(),
            cut: BTreeSet::new(),
            next_request: 0,
            log_keep: 100_000,
            region_log_keep_bytes: 1 << 30,
            talk: None,
            led: BTreeMap::new(),
            spoke_as_leader: BTreeMap::new(),
            asked_for_votes: BTreeMap::new(),
            apply_held: BTreeSet::new(),
            disk_stuck: BTreeSet::new(),
            gone: BTreeSet::new(),
            installed: 0,
            stopped: None,
            differ: Vec::new(),
            wrong_rows: BTreeSet::new(),
            distrusted: BTreeMap::new(),
            refused: None,
            dies_at_install: false,
            deaf: BTreeSet::new(),
            heartbeats: BTreeMap::new(),
            waited: Vec::new(),
        };
        for node in rows {
            network.start(node.id);
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
        let (keep, region_keep) = (self.log_keep, self.region_log_keep_bytes);
        let host = self.host_mut(node);
        host.log.recover().unwrap();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut config = NodeConfig::from_rows(node, CLUSTER, &host.rows, keep, logger).unwrap();
        config.region_log_keep_bytes = region_keep;
        config.replicas.extend(host.came_later.iter().cloned());
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
        host.written = false;
        host.apply.clear();
        host.snapshots.clear();
        host.leading.clear();
        host.leaders.clear();
        host.committed.clear();
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
            if let Some(talk) = self.talk.as_mut() {
                talk.extend(line(node, &output));
            }
            match output {
                Output::Persist { number, batch } => {
                    let sizes: Vec<usize> = batch.writes.iter().flat_map(|w| &w.append).map(|e| e.data.len()).collect();
                    let bytes: usize = sizes.iter().sum();
                    assert!(bytes <= LOG_BATCH_MAX_BYTES || sizes.len() == 1, "a batch of {bytes} bytes");
                    let host = self.host_mut(node);
                    assert!(host.persist.is_empty(), "two batches outstanding");
                    host.persist.push_back((number, batch));
                }
                Output::Apply(job) => self.host_mut(node).apply.push_back(job),
                Output::Committed { replica, upto, .. } => {
                    let before = self.host_mut(node).committed.insert(replica, upto);
                    assert!(before.is_none_or(|before| before < upto), "committed {upto:?} after {before:?}");
                }
                Output::Send { to, message } => {
                    self.watch(&message);
                    self.counts_heartbeat(to, &message);
                    self.messages.push_back((node, to, message));
                }
                Output::Decided { request, decision } => {
                    let before = self.host_mut(node).decided.insert(request, decision);
                    assert!(before.is_none(), "{request:?} decided twice");
                }
                Output::Leads { partition, leading, .. } => {
                    if let Some(OwnersTerm { term, .. }) = leading {
                        let before = self.led.insert((partition, term), node);
                        assert!(before.is_none(), "term {term} of partition {partition} led by {before:?} and {node}");
                    }
                    let host = self.host_mut(node);
                    match leading {
                        Some(owners) => host.leading.insert(partition, (owners.term, owners.incarnation)),
                        None => host.leading.remove(&partition),
                    };
                }
                Output::Leader { partition, node: leader } => {
                    self.host_mut(node).leaders.insert(partition, leader);
                }
                Output::Snapshot(job) => {
                    if let SnapshotJob::Remove { replica } = &job {
                        self.gone.insert(*replica);
                    }
                    self.host_mut(node).snapshots.push_back(job);
                }
                Output::Time { .. } => {}
                Output::Waited { waited, .. } => self.waited.extend(waited),
                Output::Differs { other, difference, .. } | Output::RowsDiffer { other, difference, .. } => {
                    self.differ.push((node, other, difference));
                }
                Output::Distrust { replica, .. } => {
                    self.distrusted.insert(node, replica);
                }
                Output::Refused { from, refusal, .. } => match self.refused.as_mut() {
                    Some(refused) => refused.push((from, refusal)),
                    None => panic!("node {node} refuses what {from} says: {refusal}"),
                },
                Output::Abort(why) => {
                    let Some(stopped) = self.stopped.as_mut() else { panic!("node {node}: {why}") };
                    stopped.insert(node, why);
                    return self.crash(node, 0);
                }
            }
        }
    }

    fn counts_heartbeat(&mut self, to: NodeId, message: &PeerMessage) {
        if let PeerBody::Raft(raft) = &message.body
            && raft.get_msg_type() == MessageType::MsgHeartbeat
            && message.partition == PartitionId(1)
        {
            *self.heartbeats.entry(to).or_default() += 1;
        }
    }

    /// One leader in a term; nothing is heard of those who are gone.
    fn watch(&mut self, message: &PeerMessage) {
        assert!(!self.gone.contains(&message.from), "{} speaks: {message:?}", message.from);
        let PeerBody::Raft(raft) = &message.body else { return };
        if raft.get_msg_type() == MessageType::MsgRequestPreVote {
            self.asked_for_votes.entry(message.from).or_default().insert(message.to);
        }
        if matches!(raft.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat) {
            let leader = *self.spoke_as_leader.entry((message.partition, raft.term)).or_insert(message.from);
            assert_eq!(leader, message.from, "two leaders of partition {} in term {}", message.partition, raft.term);
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
            if self.persist_once(at) || self.apply_once(at, 1) || self.snapshot_once(at) {
                return true;
            }
        }
        match self.messages.pop_front() {
            Some(message) => {
                self.deliver(message);
                true
            }
            None => false,
        }
    }

    /// Any one thing that waits, as the dice fall: messages overtake each other, get lost and come twice.
    pub fn step_at_random(&mut self, dice: &mut Env) {
        let at = roll(dice, self.hosts.len());
        match roll(dice, 8) {
            0 | 1 => drop(self.persist_once(at)),
            2 => {
                let jobs = 1 + roll(dice, 3);
                self.apply_once(at, jobs);
            }
            3 => drop(self.snapshot_once(at)),
            _ if self.messages.is_empty() => {}
            _ => {
                let near = roll(dice, self.messages.len().min(4));
                let Some(message) = self.messages.remove(near) else { return };
                match roll(dice, 20) {
                    0 => return,
                    1 => self.deliver(message.clone()),
                    _ => {}
                }
                self.deliver(message);
            }
        }
    }

    fn persist_once(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        if self.disk_stuck.contains(&host.id) {
            return false;
        }
        let Some((number, batch)) = host.persist.front() else { return false };
        if host.written {
            let number = *number;
            // As `sync` does, without reading the whole log anew.
            host.log.crash(0);
            host.log.write_synced(number, batch).unwrap();
            host.written = false;
            host.persist.pop_front();
            let node = host.id;
            self.input(node, Input::Persisted { number });
        } else {
            host.log.write_unsynced(*number, batch).unwrap();
            host.written = true;
        }
        true
    }

    fn apply_once(&mut self, at: usize, most: usize) -> bool {
        let host = &mut self.hosts[at];
        if self.apply_held.contains(&host.id) {
            return false;
        }
        let jobs: Vec<ApplyJob> = host.apply.drain(..most.min(host.apply.len())).collect();
        let node = host.id;
        for done in apply(&host.rows, &jobs).unwrap() {
            // In the place of a sum over rows: any value that is the same on all.
            let wrong = u8::from(self.wrong_rows.contains(&done.replica));
            let sum = Some(done.applied.hash.map(|byte| byte ^ wrong));
            let AppliedJob { replica, applied, verdicts, regions, .. } = done;
            self.input(node, Input::Applied { replica, applied, verdicts, sum, regions });
        }
        !jobs.is_empty()
    }

    fn snapshot_once(&mut self, at: usize) -> bool {
        let Some(job) = self.hosts[at].snapshots.pop_front() else { return false };
        if matches!(job, SnapshotJob::Remove { .. }) {
            // In its turn after what was handed to apply before.
            self.apply_once(at, usize::MAX);
        }
        self.snapshot(self.hosts[at].id, job);
        true
    }

    fn deliver(&mut self, (from, to, message): (NodeId, NodeId, PeerMessage)) {
        if self.cut_off.contains(&from) || self.cut_off.contains(&to) || self.deaf.contains(&(to, message.partition)) {
            return;
        }
        if self.cut.contains(&(from, to)) {
            return;
        }
        // Over the wire and back.
        let message = mailraft_cluster::frame::decode(&mailraft_cluster::frame::encode(&message)).unwrap().unwrap();
        self.input(to, Input::Peer { from, message });
    }

    fn snapshot(&mut self, node: NodeId, job: SnapshotJob) {
        match job {
            SnapshotJob::Send { replica, to, mut message } => {
                // Its replica may be gone by now.
                let Some(view) = self.host(node).rows.view(replica).unwrap() else { return };
                let applied = view.applied().clone();
                let rows = view.rows(None, usize::MAX).unwrap();
                assert!(message.set_position(&applied), "no snapshot");
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
                self.installed += 1;
                if self.dies_at_install {
                    self.host(node).rows.replace(replica, &applied, &mut rows.into_iter().map(Ok)).unwrap();
                    self.crash(node, 0);
                    return;
                }
                self.host(node).rows.replace(replica, &applied, &mut rows.into_iter().map(Ok)).unwrap();
                let group = placement::group(&self.host(node).rows, replica).unwrap();
                let regions = Regions::from_rows(&self.host(node).rows, replica).unwrap().map(Arc::new);
                self.input(node, Input::Snapshot(SnapshotEvent::Installed { replica, group, regions }));
            }
            SnapshotJob::Remove { replica } => {
                let host = self.host_mut(node);
                host.rows.remove(replica).unwrap();
                host.staged.remove(&replica);
            }
            SnapshotJob::Discard { replica } => {
                self.host_mut(node).staged.remove(&replica);
            }
        }
    }

    pub fn tick(&mut self) {
        self.tick_only();
        self.settle();
    }

    /// A tick without what follows from it.
    pub fn tick_only(&mut self) {
        for at in 0..self.hosts.len() {
            let node = self.hosts[at].id;
            let host = &mut self.hosts[at];
            host.env.now += std::time::Duration::from_millis(25);
            host.env.wall.0 += 25;
            self.input(node, Input::Tick);
        }
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
    /// An id for a question.
    pub fn next_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub fn propose(&mut self, node: NodeId, partition: PartitionId, mailbox: u8, key: u64) -> RequestId {
        self.propose_value(node, partition, mailbox, key, key.to_be_bytes().to_vec())
    }

    pub fn propose_value(
        &mut self,
        node: NodeId,
        partition: PartitionId,
        mailbox: u8,
        key: u64,
        value: Vec<u8>,
    ) -> RequestId {
        let mut batch = RowBatch::default();
        batch.put(RowKey::new(MailboxId([mailbox; 16]), Table::Places, key.to_be_bytes()), value);
        self.propose_rows(node, partition, MailboxId([mailbox; 16]), batch)
    }

    pub fn propose_rows(
        &mut self,
        node: NodeId,
        partition: PartitionId,
        mailbox: MailboxId,
        batch: RowBatch,
    ) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (term, incarnation) = self.host(node).leading[&partition];
        let mut body = RowsBody { batch, ..RowsBody::default() };
        let mut id = [0; 16];
        id[8..].copy_from_slice(&request.0.to_be_bytes());
        body.results.push((CommandId(id), bytes::Bytes::from_static(b"done")));
        let proposal = Proposal { incarnation, term, mailbox, command: CommandId(id), kind: EntryKind::Rows(body) };
        self.input(node, Input::Propose { request, partition, proposal });
        request
    }

    /// A part of a large body through a node that leads.
    pub fn propose_chunk(&mut self, node: NodeId, partition: PartitionId) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (term, incarnation) = self.host(node).leading[&partition];
        let open = Some(bytes::Bytes::from_static(b"open"));
        let chunk = ChunkBody { body: [9; 16], number: 0, open, data: bytes::Bytes::from_static(b"frames") };
        let (mailbox, command) = (MailboxId([9; 16]), CommandId([9; 16]));
        let proposal = Proposal { incarnation, term, mailbox, command, kind: EntryKind::Chunk(chunk) };
        self.input(node, Input::Propose { request, partition, proposal });
        request
    }

    pub fn read(&mut self, node: NodeId, partition: PartitionId, reader: Reader) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.input(node, Input::ReadBarrier { request, partition, reader });
        request
    }

    pub fn await_slot(&mut self, node: NodeId, partition: PartitionId, mailbox: u8) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (term, _) = self.host(node).leading[&partition];
        self.input(node, Input::AwaitSlot { request, partition, term, mailbox: MailboxId([mailbox; 16]) });
        request
    }

    /// Asks the leader on a node for a change of members.
    pub fn reconfigure(&mut self, node: NodeId, partition: PartitionId, change: MemberChange) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (term, _) = self.host(node).leading[&partition];
        self.input(node, Input::Reconfigure { request, partition, term, change });
        request
    }

    /// Gives a node the word that its region takes the cluster over.
    pub fn take_over(&mut self, node: NodeId, incarnation: Incarnation) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.input(node, Input::TakeOver { request, incarnation, word: "the old region is off".into() });
        request
    }

    /// What became of that word, if it is decided.
    pub fn taken_over(&self, node: NodeId, request: RequestId) -> Option<TakeOverOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::TakeOver(outcome) => Some(*outcome),
            other => panic!("an operator's word is answered with {other:?}"),
        }
    }

    /// Where each node stands, as a node knows from its rows.
    pub fn regions(&self, node: NodeId) -> Regions {
        let host = self.host(node);
        let control = placement::control_replica(&host.rows, host.id).unwrap().unwrap();
        Regions::from_rows(&host.rows, control).unwrap().unwrap()
    }

    /// Makes a new, empty replica on a node.
    pub fn create(&mut self, node: NodeId, partition: PartitionId, replica: ReplicaId) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let mut members = self.placed(partition);
        members.push(MemberRow { replica, node, voter: false });
        let spec = ReplicaSpec { partition, replica, nonce: [0; 16], members };
        let later = &mut self.host_mut(node).came_later;
        if later.iter().all(|s| s.replica != replica) {
            later.push(spec.clone());
        }
        self.input(node, Input::Create { request, spec });
        request
    }

    /// The members that a partition was born with.
    pub fn placed(&self, partition: PartitionId) -> Vec<MemberRow> {
        let host = &self.hosts[0];
        let control = placement::control_replica(&host.rows, host.id).unwrap().unwrap();
        let placements = placement::placements(&host.rows, control).unwrap();
        placements.into_iter().find(|p| p.partition == partition).unwrap().members
    }

    pub fn status(&self, node: NodeId, partition: PartitionId) -> Option<ReplicaStatus> {
        let core = self.host(node).core.as_ref()?;
        core.status().into_iter().find(|s| s.partition == partition)
    }

    /// What became of a proposal, if it is decided.
    pub fn proposal(&self, node: NodeId, request: RequestId) -> Option<ProposalOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::Proposal(outcome) => Some(*outcome),
            other => panic!("a proposal is answered with {other:?}"),
        }
    }

    pub fn barrier(&self, node: NodeId, request: RequestId) -> Option<BarrierOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::Barrier(outcome) => Some(*outcome),
            other => panic!("a read barrier is answered with {other:?}"),
        }
    }

    pub fn slot(&self, node: NodeId, request: RequestId) -> Option<SlotOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::Slot(outcome) => Some(*outcome),
            other => panic!("who waits for a slot is answered with {other:?}"),
        }
    }

    pub fn change(&self, node: NodeId, request: RequestId) -> Option<&ChangeOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::Change(outcome) => Some(outcome),
            other => panic!("a change of members is answered with {other:?}"),
        }
    }

    pub fn created(&self, node: NodeId, request: RequestId) -> Option<&CreateOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::Create(outcome) => Some(outcome),
            other => panic!("a new replica is answered with {other:?}"),
        }
    }

    /// A bit of the running hash that a node's store holds of a partition turns over, while the node is down.
    pub fn corrupt_hash(&mut self, node: NodeId, partition: PartitionId, replica: ReplicaId) {
        assert!(!self.is_up(node), "the core holds the hash in memory");
        let rows = self.host(node).rows.clone();
        let view = rows.view(replica).unwrap().unwrap();
        let mut applied = view.applied().clone();
        let kept = view.rows(None, usize::MAX).unwrap();
        applied.hash[partition.0 as usize] ^= 1 << (node.0 % 8);
        rows.replace(replica, &applied, &mut kept.into_iter().map(Ok)).unwrap();
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
        self.flush_only(node);
        self.settle();
    }

    /// A flush without what follows from it.
    pub fn flush_only(&mut self, node: NodeId) {
        let upto = self.host(node).rows.flush().unwrap();
        self.input(node, Input::Flushed { upto });
    }
}

fn row(id: u64, region: &str) -> NodeRow {
    NodeRow { id: NodeId(id), name: String::new(), region: region.into(), zone: String::new(), peer: String::new() }
}

/// A number below `sides`.
pub fn roll(dice: &mut Env, sides: usize) -> usize {
    u32::from_be_bytes(dice.bytes()) as usize % sides
}

/// An output as a line of talk, if it is about partition 1 and not about time or hashes.
fn line(node: NodeId, output: &Output) -> Option<String> {
    const P1: PartitionId = PartitionId(1);
    let text = match output {
        Output::Send { to, message } if message.partition == P1 => match &message.body {
            PeerBody::Raft(raft) => {
                let kind = raft.get_msg_type();
                let mut text = format!("to {to}: {kind:?} term {}", raft.term);
                if kind == MessageType::MsgAppend {
                    let entries: Vec<u64> = raft.get_entries().iter().map(|e| e.index).collect();
                    text += &format!(" after {} entries {entries:?} commit {}", raft.index, raft.commit);
                }
                if kind == MessageType::MsgAppendResponse {
                    text += &format!(" index {}", raft.index);
                }
                if raft.reject {
                    text += " reject";
                }
                text
            }
            PeerBody::Hash { .. }
            | PeerBody::Rows { .. }
            | PeerBody::Visible { .. }
            | PeerBody::Leads(_)
            | PeerBody::Modes(_)
            | PeerBody::HeldBut(_)
            | PeerBody::TakenOver(_) => {
                return None;
            }
            PeerBody::Removed => format!("to {to}: removed"),
            PeerBody::Hears { nodes, links } => format!("to {to}: hears {nodes:?}, {links} links"),
        },
        // Replica ids rise with the partition: those of partition 1 of three nodes are 4, 5 and 6.
        Output::Persist { number: _, batch } => {
            let write = batch.writes.iter().find(|w| (4..=6).contains(&w.replica.0))?;
            let entries: Vec<u64> = write.append.iter().map(|e| e.index).collect();
            let hard =
                write.hard_state.as_ref().map(|h| format!(" term {} vote {} commit {}", h.term, h.vote, h.commit));
            format!("sync: entries {entries:?}{}", hard.unwrap_or_default())
        }
        Output::Apply(job) if (4..=6).contains(&job.replica.0) => {
            format!("apply: {:?}", job.entries.iter().map(|(e, _)| e.index).collect::<Vec<_>>())
        }
        Output::Leads { partition, leading, .. } if *partition == P1 => {
            format!("leads: {:?}", leading.map(|owners| (owners.term.0, owners.incarnation.number)))
        }
        Output::Leader { partition, node } if *partition == P1 => format!("leader: {:?}", node.map(|n| n.0)),
        Output::Decided { request, decision } => format!("decided: {} {decision:?}", request.0),
        Output::Committed { .. }
        | Output::Send { .. }
        | Output::Apply(_)
        | Output::Leads { .. }
        | Output::Leader { .. }
        | Output::Waited { .. }
        | Output::Time { .. } => {
            return None;
        }
        Output::Snapshot(job) => format!("snapshot: {job:?}"),
        Output::Differs { other, difference, .. } | Output::RowsDiffer { other, difference, .. } => {
            format!("differs: {other} {difference:?}")
        }
        Output::Distrust { replica, .. } => format!("distrusts: {replica}"),
        Output::Refused { from, refusal, .. } => format!("refuses what {from} says: {refusal}"),
        Output::Abort(why) => format!("abort: {why}"),
    };
    Some(format!("{node} {text}"))
}
