//! Whole clusters in one process, over loopback TLS and with stores in memory, for tests of this crate and
//! of those above it. Everything here panics where it can't go on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailraft_cluster::bootstrap::{self, NodeRow};
use mailraft_storage::log::{Log, LogBatch};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{ClusterId, Env, NodeId, PartitionId, RowBatch, Rows};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::config::{DriverConfig, StartError};
use crate::connections::Connections;
use crate::core_thread::Leading;
use crate::pki::ClusterCa;
use crate::stream::{self, DialError, Identity, PeerStream, Purpose, StreamKind};
use crate::tls::PeerTls;

/// Longer than anything in a test takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A new CA, and certificates for nodes 1 to `nodes`.
pub fn cluster_ca(cluster: ClusterId, nodes: u64) -> (ClusterCa, BTreeMap<NodeId, PeerTls>) {
    let ca = ClusterCa::create(cluster).expect("a CA");
    let tls = (1..=nodes).map(|n| (NodeId(n), peer_tls(&ca, NodeId(n), cluster))).collect();
    (ca, tls)
}

/// A node's certificate by this CA.
pub fn peer_tls(ca: &ClusterCa, node: NodeId, cluster: ClusterId) -> PeerTls {
    let issued = ca.issue_node(node, cluster, &[]).expect("a certificate");
    PeerTls::from_pem(ca.cert_pem().as_bytes(), issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).expect("TLS")
}

/// Opens a stream to an address as any node of any cluster.
///
/// # Errors
/// Those of `Cluster::dial`.
pub async fn dial_as(
    node: NodeId,
    cluster: ClusterId,
    tls: PeerTls,
    to: NodeId,
    address: &str,
    kind: StreamKind,
) -> Result<PeerStream, DialError> {
    let me = Identity { node, cluster, tls, connections: Connections::default() };
    stream::connect(&me, to, address, Purpose::User(kind)).await
}

/// A node of a [`TestCluster`]; its stores outlive crashes.
pub struct TestNode {
    /// Its Raft log.
    pub log: MemoryLog,
    /// The rows of its replicas.
    pub rows: MemoryRows,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its driver, while it runs.
    pub cluster: Option<Cluster>,
    /// Streams that other nodes opened to it.
    pub streams: mpsc::Receiver<(NodeId, StreamKind, PeerStream)>,
    tls: PeerTls,
}

/// A whole cluster in this process.
pub struct TestCluster {
    /// The id of the cluster.
    pub id: ClusterId,
    /// The certificate authority that its nodes trust.
    pub ca: ClusterCa,
    /// The nodes of the cluster, those too that do not run.
    pub nodes: BTreeMap<NodeId, TestNode>,
    /// What was fatal on any node.
    pub fatal: Arc<Mutex<Vec<String>>>,
    partitions: u32,
    dir: PathBuf,
    configure: fn(&mut DriverConfig),
}

impl TestCluster {
    /// Writes the first state of nodes 1 to `nodes` and starts them; `dir` is for staged snapshots,
    /// `configure` may change each node's configuration.
    pub async fn start(nodes: u64, partitions: u32, dir: impl Into<PathBuf>, configure: fn(&mut DriverConfig)) -> Self {
        Self::start_with(nodes, partitions, RowBatch::default(), dir, configure).await
    }

    /// As [`TestCluster::start`], with first rows of the control group.
    pub async fn start_with(
        nodes: u64,
        partitions: u32,
        control: RowBatch,
        dir: impl Into<PathBuf>,
        configure: fn(&mut DriverConfig),
    ) -> Self {
        let id = ClusterId([0xc1; 16]);
        let (ca, mut tls) = cluster_ca(id, nodes);
        let listeners: BTreeMap<NodeId, TcpListener> =
            (1..=nodes).map(|n| (NodeId(n), TcpListener::bind("127.0.0.1:0").expect("a port"))).collect();
        let rows: Vec<NodeRow> = listeners
            .iter()
            .map(|(id, listener)| NodeRow {
                id: *id,
                name: format!("node{id}"),
                region: "home".into(),
                zone: format!("zone{id}"),
                peer: listener.local_addr().expect("an address").to_string(),
            })
            .collect();
        let plan = bootstrap::plan(partitions, &rows, control, &mut Env::seeded(7));
        let mut cluster = TestCluster {
            id,
            ca,
            nodes: BTreeMap::new(),
            fatal: Arc::default(),
            partitions,
            dir: dir.into(),
            configure,
        };
        for (node, listener) in &listeners {
            let (log, rows) = (MemoryLog::new(), MemoryRows::new());
            let first = plan.of(*node);
            let writes = first.iter().map(|replica| replica.log.clone()).collect();
            log.write_synced(1, &LogBatch { writes }).expect("a log");
            let batches: Vec<ReplicaBatch> = first
                .iter()
                .map(|f| ReplicaBatch { replica: f.replica, batch: f.rows.clone(), applied: f.applied.clone() })
                .collect();
            rows.write(&batches).expect("rows");
            rows.flush().expect("rows");
            let (_, streams) = mpsc::channel(1);
            let address = listener.local_addr().expect("an address");
            let tls = tls.remove(node).expect("a certificate");
            cluster.nodes.insert(*node, TestNode { log, rows, address, cluster: None, streams, tls });
        }
        for (node, listener) in listeners {
            cluster.run(node, listener).await.expect("a node that starts");
        }
        cluster
    }

    /// The driver of a node that runs.
    pub fn node(&self, node: u64) -> &Cluster {
        self.nodes[&NodeId(node)].cluster.as_ref().expect("a running node")
    }

    /// Stops a node as a crash would: what was not synced or flushed is lost.
    pub async fn crash(&mut self, node: u64) {
        let node = self.nodes.get_mut(&NodeId(node)).expect("a node");
        node.cluster.take().expect("a running node").crash().await;
        node.log.crash(0);
        node.rows.crash();
    }

    /// Starts a node again.
    pub async fn restart(&mut self, node: u64) {
        let address = self.nodes[&NodeId(node)].address;
        let listener = timeout(PATIENCE, async {
            loop {
                // The old socket is closed by a task that may not have run yet.
                match TcpListener::bind(address) {
                    Ok(listener) => break listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        let listener = listener.await.expect("the node's port");
        self.run(NodeId(node), listener).await.expect("a node that starts");
    }

    /// Waits until some running node leads a partition and its owners may start.
    pub async fn leader(&self, partition: PartitionId) -> (NodeId, Leading) {
        let mut waiting = JoinSet::new();
        for (id, node) in &self.nodes {
            let Some(cluster) = &node.cluster else { continue };
            let (id, mut leading) = (*id, cluster.leading());
            waiting.spawn(async move {
                let found = leading.wait_for(|l| l.contains_key(&partition)).await.ok()?.get(&partition).copied();
                found.map(|leading| (id, leading))
            });
        }
        let found = async {
            loop {
                if let Some(found) = waiting.join_next().await.expect("a node that runs on").expect("no panic") {
                    break found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("a leader")
    }

    /// Ends all nodes.
    pub async fn shutdown(mut self) {
        for node in self.nodes.values_mut() {
            if let Some(cluster) = node.cluster.take() {
                cluster.shutdown().await;
            }
        }
    }

    async fn run(&mut self, id: NodeId, listener: TcpListener) -> Result<(), StartError> {
        let peers =
            self.nodes.iter().filter(|(n, _)| **n != id).map(|(n, node)| (*n, node.address.to_string())).collect();
        let node = self.nodes.get_mut(&id).expect("a node");
        let staging = self.dir.join(format!("staging-{id}"));
        let mut config =
            DriverConfig::new(id, self.id, self.partitions, node.address, peers, node.tls.clone(), staging);
        config.listener = Some(listener);
        let fatal = self.fatal.clone();
        config.on_fatal = Arc::new(move |sentence| fatal.lock().expect("no panic").push(sentence));
        (self.configure)(&mut config);
        let (sender, streams) = mpsc::channel(16);
        node.streams = streams;
        let (log, rows) = (Arc::new(node.log.clone()), Arc::new(node.rows.clone()));
        node.cluster = Some(Cluster::start(config, log, rows, sender).await?);
        Ok(())
    }
}
