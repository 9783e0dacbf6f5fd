//! The handle by which a node's other parts use the cluster, and how its threads start and end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use mailraft_cluster::placement;
use mailraft_cluster::regions::RegionSettings;
use mailraft_cluster::{
    BarrierOutcome, Input, Node, NodeConfig, Reader, RecoverError, SettingsOutcome, SlotOutcome, TakeOverOutcome,
};
use mailraft_storage::log::Log;
use mailraft_storage::rows::state_hash;
use mailraft_storage::{
    ClusterId, CommandId, Env, Incarnation, Index, LogPosition, MailboxId, NodeId, PartitionId, Proposal,
    ProposalOutcome, ReplicaId, Rows, StoreError, Term, UnixMillis,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::beside::beside_leaders;
use crate::clock::SharedTime;
use crate::config::{DriverConfig, StartError};
use crate::connections::Connections;
use crate::core_thread::{CoreThread, Leaders, LeadingMap};
use crate::evictor::Evictor;
use crate::far::Far;
use crate::fatal::Fatal;
use crate::flush_thread::{self, Flusher};
use crate::inputs::Inputs;
use crate::listener::{Listener, Streams};
use crate::outgoing::Outgoing;
use crate::own_rows::OwnRows;
use crate::scrubber::{ScrubState, Scrubber};
use crate::snapshot::{self, Staging, UnderWay};
use crate::status::{NodeStatus, PeerStatus, Recent};
use crate::stream::{self, DialError, Identity, PeerStream, Purpose, StreamKind};
use crate::tls::{PeerTls, TlsError};
use crate::{apply_thread, clock, log_thread, metrics, slog_bridge};

/// A node that is to hand over waits this long for the next leadership to be taken: a transfer that nobody answers
/// is given up after an election timeout of 200 ms, and tried once more.
const HAND_OVER_QUIET: Duration = Duration::from_millis(500);

/// A standby has so long to adopt an incarnation: one synced write, and what apply has in hand before it.
pub const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// A node's part in the cluster. Clones are handles to the same.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    me: Identity,
    partitions: u32,
    peers: BTreeMap<NodeId, String>,
    listen: SocketAddr,
    replicas: BTreeMap<PartitionId, ReplicaId>,
    rows: Arc<dyn Rows>,
    inputs: Inputs,
    own_rows: OwnRows,
    outgoing: Outgoing,
    flusher: Flusher,
    fsyncs: Recent,
    applying: Box<dyn Fn() -> usize + Send + Sync>,
    leading: watch::Receiver<LeadingMap>,
    leaders: watch::Receiver<Leaders>,
    committed: watch::Receiver<Vec<LogPosition>>,
    time: SharedTime,
    fatal: Fatal,
    scrub: ScrubState,
    under_way: UnderWay,
    far: Far,
    threads: Mutex<Threads>,
}

impl Drop for Shared {
    /// Who drops the last handle without a shutdown has its threads end by themselves.
    fn drop(&mut self) {
        self.fatal.stop_tasks();
        self.inputs.stop();
        self.flusher.last();
    }
}

/// The threads, in the order in which they end.
#[derive(Default)]
struct Threads {
    workers: Vec<JoinHandle<()>>,
    flush: Option<JoinHandle<()>>,
    /// Nothing is sent: the scrubber ends when this goes.
    stop_scrub: Option<Sender<()>>,
}

/// Why there is no state hash.
#[derive(Debug, thiserror::Error)]
pub enum StateHashError {
    /// This node has no replica of the partition.
    #[error("this node has no replica of partition {0}")]
    NoReplica(PartitionId),
    /// The rows can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime is about to end.
    #[error("this node is about to stop")]
    Stopping,
}

impl Cluster {
    /// Recovers what the stores hold, starts all threads, listens, and calls the other nodes. Streams that
    /// other nodes open arrive in `streams`, each with its node and kind.
    ///
    /// # Errors
    /// If the configuration, the certificates or the stores are not fit.
    pub async fn start(
        config: DriverConfig,
        log: Arc<dyn Log>,
        rows: Arc<dyn Rows>,
        streams: mpsc::Sender<(NodeId, StreamKind, PeerStream)>,
    ) -> Result<Cluster, StartError> {
        check(&config)?;
        metrics::describe();
        let connections = Connections::default();
        let me = Identity {
            node: config.node,
            cluster: config.cluster,
            tls: config.tls.clone(),
            connections: connections.clone(),
        };
        let socket = listen(&config).await?;
        let listen = socket.local_addr().map_err(|error| StartError::Listen { address: config.listen, error })?;

        let fatal = Fatal::new(config.on_fatal.clone());
        let mut env = clock::env().map_err(|e| StartError::Io {
            what: "the operating system gives no random numbers".into(),
            error: std::io::Error::other(e.to_string()),
        })?;
        let (log_too, rows_too, dir) = (log.clone(), rows.clone(), config.staging_dir.clone());
        let recovery = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let staging = Staging::open(dir, log_too.as_ref())?;
            let far = Far::of(rows_too.as_ref(), config.node)?;
            let node = recover(&config, log_too, rows_too.as_ref(), &mut env)?;
            Ok((config, env, staging, node, far))
        });
        let (config, env, staging, node, far) =
            recovery.await.map_err(|e| StartError::Recover(format!("recovering the stores failed: {e}")))??;

        let (inputs, queue) = Inputs::new();
        let (flusher, flushes) = Flusher::new(config.flush_after_bytes);
        let (to_log, batches) = unbounded();
        let (to_apply, jobs) = unbounded();
        let (reclaim, reclaims) = bounded(1);
        let (witness, witness_syncs) = bounded(1);
        let (to_snapshots, snapshot_jobs) = mpsc::unbounded_channel();
        let outgoing = Outgoing::new(&config.peers, &far);
        let fsyncs = Recent::default();
        let nobody = vec![None; config.partitions as usize + 1];
        let (leaders_sender, leaders) = watch::channel(Arc::new(nobody));
        let nothing = vec![LogPosition::default(); config.partitions as usize + 1];
        let (committed_sender, committed) = watch::channel(nothing);
        let (leading_sender, leading) = watch::channel(LeadingMap::default());
        let time = SharedTime::new();
        let replicas = node.replica_ids();
        let applying = {
            let jobs = jobs.clone();
            Box::new(move || jobs.len())
        };

        let core = CoreThread {
            node,
            env,
            queue,
            to_log,
            to_apply,
            to_snapshots: to_snapshots.clone(),
            outgoing: outgoing.clone(),
            leading: leading_sender,
            leaders: leaders_sender,
            committed: committed_sender,
            time: time.clone(),
            fatal: fatal.clone(),
            rows: rows.clone(),
            inputs: inputs.clone(),
            connections,
        };
        inputs.tell_damage(rows.as_ref());
        let thread = |name, work: Box<dyn FnOnce() -> Result<(), String> + Send>| {
            fatal
                .spawn(name, work)
                .map_err(|error| StartError::Io { what: format!("can't start the thread {name}"), error })
        };
        let mut workers = Vec::new();
        {
            let (inputs, times, fatal) = (inputs.clone(), fsyncs.clone(), fatal.clone());
            let (log, to_snapshots) = (log.clone(), to_snapshots.clone());
            let beside = log_thread::Beside { witness, reclaim };
            let work = move || log_thread::write(log, batches, beside, to_snapshots, inputs, times, fatal);
            workers.push(thread("mailraft-log", Box::new(work))?);
        }
        {
            let (log, fatal) = (log.clone(), fatal.clone());
            let work = move || log_thread::sync_witness(log, witness_syncs, fatal);
            workers.push(thread("mailraft-witness", Box::new(work))?);
        }
        {
            let (log, inputs, fatal) = (log.clone(), inputs.clone(), fatal.clone());
            let work = move || log_thread::reclaim(log, reclaims, inputs, fatal);
            workers.push(thread("mailraft-reclaim", Box::new(work))?);
        }
        {
            let (rows, inputs, flusher, fatal) = (rows.clone(), inputs.clone(), flusher.clone(), fatal.clone());
            let partitions = replicas.iter().map(|(partition, replica)| (*replica, *partition)).collect();
            let work = move || apply_thread::run(rows, partitions, jobs, to_snapshots, flusher, inputs, fatal);
            workers.push(thread("mailraft-apply", Box::new(work))?);
        }
        let flush = {
            let (rows, inputs, flusher, fatal) = (rows.clone(), inputs.clone(), flusher.clone(), fatal.clone());
            let interval = config.flush_interval;
            let work = move || flush_thread::run(rows, flushes, flusher, interval, inputs, fatal);
            thread("mailraft-flush", Box::new(work))?
        };
        // First in the order of ending, last in that of starting: the others are there when it speaks.
        workers.insert(0, thread("mailraft-core", Box::new(move || core.run()))?);

        for lane in outgoing.lanes() {
            fatal.spawn_task("a connection to another node", outgoing.clone().run(me.clone(), lane, inputs.clone()));
        }
        let under_way = UnderWay::default();
        let snapshots = snapshot::start(
            snapshot::Context {
                me: me.clone(),
                peers: config.peers.clone(),
                log,
                rows: rows.clone(),
                staging,
                bytes_per_second: config.snapshot_bytes_per_second.max(1),
                far_bytes_per_second: config.region_snapshot_bytes_per_second.max(1),
                far: far.clone(),
                under_way: under_way.clone(),
                inputs: inputs.clone(),
                fatal: fatal.clone(),
            },
            snapshot_jobs,
        );
        let streams: Streams = streams;
        let listener = Listener::new(
            me.clone(),
            &config.peers,
            outgoing.clone(),
            inputs.clone(),
            snapshots,
            streams,
            fatal.clone(),
        );
        fatal.spawn_task("listener", listener.run(socket, config.connections_max));
        let own_rows = OwnRows::new(replicas.keys().copied(), &inputs, &fatal);
        let evictor = Evictor {
            rows: rows.clone(),
            inputs: inputs.clone(),
            own_rows: own_rows.clone(),
            kept: config.results_kept,
            pause: config.evict_interval,
            rounds: Arc::new(Semaphore::new(1)),
        };
        let evictors =
            beside_leaders(leading.clone(), move |partition, at, over| evictor.clone().run(partition, at, over));
        fatal.spawn_task("the evictors of results", evictors);
        let (stop_scrub, stopped) = bounded(0);
        let scrub = ScrubState::default();
        let scrubber = Scrubber {
            rows: rows.clone(),
            inputs: inputs.clone(),
            time: time.clone(),
            every: config.scrub_every,
            file: config.scrub_file,
            state: scrub.clone(),
            stop: stopped,
        };
        workers.push(thread("mailraft-scrub", Box::new(move || scrubber.run()))?);

        let shared = Shared {
            me,
            partitions: config.partitions,
            peers: config.peers,
            listen,
            replicas,
            rows,
            inputs,
            own_rows,
            outgoing,
            flusher,
            fsyncs,
            applying,
            leading,
            leaders,
            committed,
            time,
            fatal,
            scrub,
            under_way,
            far,
            threads: Mutex::new(Threads { workers, flush: Some(flush), stop_scrub: Some(stop_scrub) }),
        };
        Ok(Cluster { shared: Arc::new(shared) })
    }

    /// Asks to append a change. A receiver that fails (the node ends) means [`ProposalOutcome::Unknown`]. Changes of a
    /// partition's own rows wait until what was proposed before them has its verdict.
    pub fn propose(&self, partition: PartitionId, proposal: Proposal) -> oneshot::Receiver<ProposalOutcome> {
        if proposal.mailbox == MailboxId::PARTITION {
            return self.shared.own_rows.propose(partition, proposal);
        }
        self.shared.inputs.propose(partition, proposal)
    }

    /// Asks when no entry of a mailbox is in flight in this term. [`SlotOutcome::Overloaded`] comes at once if too
    /// many questions wait: ask again then.
    pub fn await_slot(&self, partition: PartitionId, term: Term, mailbox: MailboxId) -> oneshot::Receiver<SlotOutcome> {
        if mailbox == MailboxId::PARTITION {
            return self.shared.own_rows.await_slot(partition, term);
        }
        self.shared.inputs.await_slot(partition, term, mailbox)
    }

    /// Asks when this reader finds everything acknowledged before now.
    pub fn read_barrier(&self, partition: PartitionId, reader: Reader) -> oneshot::Receiver<BarrierOutcome> {
        self.shared.inputs.read_barrier(partition, reader)
    }

    /// Asks for other settings of regions, which the control group's leader makes whatever waits there. A receiver that fails
    /// (the node ends) means [`SettingsOutcome::Unknown`].
    pub fn set_regions(&self, id: CommandId, settings: RegionSettings) -> oneshot::Receiver<SettingsOutcome> {
        self.shared.inputs.set_regions(id, settings)
    }

    /// An operator's word that the home region is lost and this node's takes the cluster over: its standby of the control
    /// group adopts this incarnation, durably, or says why not. None if that does not end within [`TAKE_OVER_MAX`], as where
    /// a disk or apply stands still: it may adopt it later.
    pub async fn take_over(&self, incarnation: Incarnation, word: String) -> Option<TakeOverOutcome> {
        timeout(TAKE_OVER_MAX, self.shared.inputs.take_over(incarnation, word)).await.ok()?.ok()
    }

    /// What this node leads, ready for owners.
    pub fn leading(&self) -> watch::Receiver<LeadingMap> {
        self.shared.leading.clone()
    }

    /// The time that the nodes agree on: this machine's wall clock unless it is far from the others'.
    pub fn wall(&self) -> UnixMillis {
        self.shared.time.wall()
    }

    /// Whom this node believes to lead each partition, by partition number (0 is the control group).
    pub fn leaders(&self) -> watch::Receiver<Leaders> {
        self.shared.leaders.clone()
    }

    /// Up to where the log of each partition here is committed and durable, by partition number: for who reads
    /// entries out of it. The default where there is no replica, or nothing new since the start.
    pub fn committed(&self) -> watch::Receiver<Vec<LogPosition>> {
        self.shared.committed.clone()
    }

    /// An owner could not read, or not open, rows of a replica here: its lead goes to another node, if one can take it.
    pub fn found_damaged(&self, replica: ReplicaId, error: &dyn Display) {
        self.shared.inputs.damaged(replica, error);
    }

    /// The replica of a partition here.
    pub fn replica(&self, partition: PartitionId) -> Option<ReplicaId> {
        self.shared.replicas.get(&partition).copied()
    }

    /// The store of rows.
    pub fn rows(&self) -> &Arc<dyn Rows> {
        &self.shared.rows
    }

    /// The node whose driver this is.
    pub fn node(&self) -> NodeId {
        self.shared.me.node
    }

    /// The id of the cluster that the node belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.me.cluster
    }

    /// How many mail partitions there are, the control group not counted.
    pub fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    /// The other nodes.
    pub fn peers(&self) -> Vec<NodeId> {
        self.shared.peers.keys().copied().collect()
    }

    /// The other nodes to which the connection for Raft messages stands.
    pub fn connected(&self) -> Vec<NodeId> {
        self.shared.outgoing.connected()
    }

    /// Where this node listens for others.
    pub fn listen_addr(&self) -> SocketAddr {
        self.shared.listen
    }

    /// Takes new certificates, a new key and a new list of revoked certificates for connections between nodes. Those that
    /// stand go on, but for those whose other end showed a certificate that is revoked now; gives how many.
    ///
    /// # Errors
    /// If the new certificate is not this node's. The old ones stay.
    pub fn reload_peers(&self, new: &PeerTls) -> Result<usize, TlsError> {
        let Identity { node, cluster, tls, connections } = &self.shared.me;
        new.check_own(*node, *cluster)?;
        tls.replace_by(new);
        Ok(connections.end_of_certificates(|shown| tls.revokes(shown)))
    }

    /// Whether a node stands in another region than this one.
    pub fn is_far(&self, node: NodeId) -> bool {
        self.shared.far.region(node).is_some()
    }

    /// A new stream to another node.
    ///
    /// # Errors
    /// If the node is unknown, does not answer within 3 s, or refuses.
    pub async fn dial(&self, node: NodeId, kind: StreamKind) -> Result<PeerStream, DialError> {
        let address = self.shared.peers.get(&node).ok_or(DialError::UnknownNode(node))?;
        stream::connect(&self.shared.me, node, address, Purpose::User(kind)).await
    }

    /// The state of this node's part in the cluster. Without partitions if the core has ended.
    pub async fn status(&self) -> NodeStatus {
        let shared = &self.shared;
        let partitions = shared.inputs.status().await.unwrap_or_default();
        let [fsync_p50_us, fsync_p99_us] = shared.fsyncs.percentiles_us([50, 99]);
        let connected = shared.outgoing.connected();
        let peer = |(&node, address): (&NodeId, &String)| PeerStatus {
            node,
            address: address.clone(),
            connected: connected.contains(&node),
            queued_messages: shared.outgoing.waiting(node),
        };
        NodeStatus {
            node: shared.me.node,
            cluster: shared.me.cluster.to_string(),
            peers: shared.peers.iter().map(peer).collect(),
            partitions,
            fsync_p50_us,
            fsync_p99_us,
            log_write_ms: shared.fsyncs.lasts_ms(),
            core_queue: shared.inputs.waiting(),
            apply_queue: (shared.applying)(),
            scrub: shared.rows.proof().map(|_| shared.scrub.status(shared.time.wall())),
            // It is only for words: nothing is known of the size of rows that can't be read.
            rows_bytes: shared.rows.size_bytes().unwrap_or_default(),
            snapshots: shared.under_way.status(),
        }
    }

    /// The SHA-256 over all rows of a partition here, and the applied index that it belongs to.
    ///
    /// # Errors
    /// If there is no replica here or the rows can't be read.
    pub async fn state_hash(&self, partition: PartitionId) -> Result<(Index, [u8; 32]), StateHashError> {
        let replica = self.replica(partition).ok_or(StateHashError::NoReplica(partition))?;
        let rows = self.shared.rows.clone();
        let work = tokio::task::spawn_blocking(move || {
            let view = rows.view(replica)?.ok_or(StateHashError::NoReplica(partition))?;
            Ok((view.applied().index, state_hash(view.as_ref())?))
        });
        work.await.unwrap_or(Err(StateHashError::Stopping))
    }

    /// Makes everything applied so far durable in the rows.
    pub async fn flush(&self) {
        // If the thread has ended there is nothing more to flush.
        let _ = self.shared.flusher.now().await;
    }

    /// Whether this node is to lead only what no other can, because it is short of something.
    pub fn set_reluctant(&self, reluctant: bool) {
        self.shared.inputs.own(Input::Reluctant { reluctant });
    }

    /// Hands every leadership to other nodes; returns when none is left here, when no other node is connected, when
    /// nobody took one for a while (all of them stop too, or there is no majority), or when the time is up.
    pub async fn hand_over(&self, limit: Duration) {
        self.shared.inputs.own(Input::HandOver);
        let mut leading = self.leading();
        let taken = async {
            while !leading.borrow_and_update().is_empty() && !self.connected().is_empty() {
                // Quiet for so long, or the core has ended.
                if !matches!(timeout(HAND_OVER_QUIET, leading.changed()).await, Ok(Ok(()))) {
                    break;
                }
            }
        };
        // Time up: there is nothing left to wait for either way.
        let _ = timeout(limit, taken).await;
    }

    /// Ends all threads after a last flush. Hand over first.
    pub async fn shutdown(self) {
        self.shared.fatal.stop_tasks();
        self.shared.inputs.stop();
        let shared = self.shared.clone();
        let end = move || {
            let Threads { workers, flush, stop_scrub } =
                std::mem::take(&mut *shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
            drop(stop_scrub);
            join(workers);
            shared.flusher.last();
            join(flush);
        };
        // It fails only if the runtime ends, and everything with it.
        let _ = tokio::task::spawn_blocking(end).await;
    }

    /// Ends all threads at once, without flush or goodbye, as a crash would: nothing is written after it
    /// returned. For tests.
    pub async fn crash(self) {
        self.shared.fatal.kill();
        self.shutdown().await;
    }
}

fn recover(config: &DriverConfig, log: Arc<dyn Log>, rows: &dyn Rows, env: &mut Env) -> Result<Node, StartError> {
    let failed = |error| match error {
        RecoverError::Store(error) => StartError::Store(error),
        other @ (RecoverError::Damaged { .. } | RecoverError::NoControl(_)) => StartError::Recover(other.to_string()),
    };
    let logger = slog_bridge::logger();
    let mut core =
        NodeConfig::from_rows(config.node, config.cluster, rows, config.log_keep_entries, logger).map_err(failed)?;
    core.region_log_keep_bytes = config.region_log_keep_bytes;
    if let Some(control) = placement::control_replica(rows, config.node)? {
        let placed = placement::placements(rows, control)?.len().saturating_sub(1);
        if placed != config.partitions as usize {
            return Err(StartError::Config(format!(
                "the cluster has {placed} partitions, and cluster.partitions says {}: the number is fixed when a cluster is \
                 created; set cluster.partitions = {placed}",
                config.partitions
            )));
        }
    }
    Node::recover(core, log, rows, env).map_err(failed)
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        // A panic inside was caught and reported.
        let _ = thread.join();
    }
}

fn check(config: &DriverConfig) -> Result<(), StartError> {
    let wrong = |what: &str| Err(StartError::Config(what.to_owned()));
    if config.node.0 == 0 || config.peers.contains_key(&NodeId(0)) {
        return wrong("node id 0 is not allowed: number nodes from 1");
    }
    if config.peers.contains_key(&config.node) {
        return wrong("this node is among its own peers: name only the others");
    }
    if config.partitions == 0 {
        return wrong("a cluster has at least one partition");
    }
    config.tls.check_own(config.node, config.cluster)?;
    Ok(())
}

async fn listen(config: &DriverConfig) -> Result<TcpListener, StartError> {
    let address = config.listen;
    let failed = |error| StartError::Listen { address, error };
    match &config.listener {
        Some(listener) => {
            let listener = listener.try_clone().map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            TcpListener::from_std(listener).map_err(failed)
        }
        None => TcpListener::bind(address).await.map_err(failed),
    }
}
