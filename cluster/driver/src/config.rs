//! What the driver is told at its start.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use mailraft_cluster::config::REGION_LOG_KEEP_BYTES;
use mailraft_cluster::eviction::RESULTS_KEPT;
use mailraft_storage::{ClusterId, NodeId, StoreError};

use crate::fatal::{self, OnFatal};
use crate::tls::{PeerTls, TlsError};

/// In this time every row is read and compared with what was applied, unless the configuration says otherwise.
pub const SCRUB_EVERY: Duration = Duration::from_secs(7 * 86_400);

/// The rate of one snapshot to another region, in bytes a second, unless the configuration says otherwise: a link that
/// others pay for has more to carry.
pub const REGION_SNAPSHOT_BYTES_PER_SECOND: u64 = 20_000_000;

/// Connections from other nodes at a time where the configuration does not say how many.
const CONNECTIONS_MAX: usize = 1_024;

/// Everything the driver needs but the stores. [`DriverConfig::new`] fills in the defaults.
pub struct DriverConfig {
    /// The node whose driver this is.
    pub node: NodeId,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// How many mail partitions the cluster has, the control group not counted.
    pub partitions: u32,
    /// Where other nodes connect to. With port 0 the system chooses one: see `Cluster::listen_addr`.
    pub listen: SocketAddr,
    /// A socket that listens already; taken instead of `listen`.
    pub listener: Option<TcpListener>,
    /// The other nodes, as `host:port`.
    pub peers: BTreeMap<NodeId, String>,
    /// Certificates for connections between nodes.
    pub tls: PeerTls,
    /// Connections from other nodes at a time, those in their handshake included.
    pub connections_max: usize,
    /// Where received snapshots are staged. Made if it is not there.
    pub staging_dir: PathBuf,
    /// Rows are flushed this long after the last flush if any were written.
    pub flush_interval: Duration,
    /// Rows are flushed earlier once this many bytes of entries were applied.
    pub flush_after_bytes: u64,
    /// How many entries of a replica's log are kept for followers that are behind; past it they get a snapshot.
    pub log_keep_entries: u64,
    /// The rate of one snapshot that is sent, in bytes a second.
    pub snapshot_bytes_per_second: u64,
    /// The rate of one snapshot that is sent to another region, in bytes a second.
    pub region_snapshot_bytes_per_second: u64,
    /// What other regions do not hold is kept in the log up to so many bytes; past it they get snapshots.
    pub region_log_keep_bytes: u64,
    /// How long the result of a command is kept for who asks again.
    pub results_kept: Duration,
    /// Results past that time are looked for this often.
    pub evict_interval: Duration,
    /// Every row is read and compared with its replica's sum in this time.
    pub scrub_every: Duration,
    /// Where it is kept how far that is; None to begin anew at each start.
    pub scrub_file: Option<PathBuf>,
    /// Called with a sentence when the node must not go on: an fsync failed, a store is damaged, a thread
    /// panicked, replicas disagree. The default ends the process with exit code 1. If it returns, the driver
    /// has stopped.
    pub on_fatal: OnFatal,
}

impl DriverConfig {
    /// Flushes every 5 s or 64 MiB, keeps 50,000 entries of each log and results of commands for [`RESULTS_KEPT`], reads
    /// every row in [`SCRUB_EVERY`], sends snapshots at 100 MB/s, to another
    /// region at 20 MB/s, ends the process when something is fatal.
    pub fn new(
        node: NodeId,
        cluster: ClusterId,
        partitions: u32,
        listen: SocketAddr,
        peers: BTreeMap<NodeId, String>,
        tls: PeerTls,
        staging_dir: PathBuf,
    ) -> Self {
        DriverConfig {
            node,
            cluster,
            partitions,
            listen,
            listener: None,
            peers,
            tls,
            connections_max: CONNECTIONS_MAX,
            staging_dir,
            flush_interval: Duration::from_secs(5),
            flush_after_bytes: 64 << 20,
            log_keep_entries: 50_000,
            snapshot_bytes_per_second: 100_000_000,
            region_snapshot_bytes_per_second: REGION_SNAPSHOT_BYTES_PER_SECOND,
            region_log_keep_bytes: REGION_LOG_KEEP_BYTES,
            results_kept: RESULTS_KEPT,
            evict_interval: Duration::from_secs(60),
            scrub_every: SCRUB_EVERY,
            scrub_file: None,
            on_fatal: fatal::exit_process(),
        }
    }
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The certificates don't do.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The stores can't be read.
    #[error(
        "{0}: the data of this node can't be used as it is; see OPERATIONS, \"Rows that are not what was applied\""
    )]
    Store(#[from] StoreError),
    /// The core can't go on from what the stores hold.
    #[error("{0}")]
    Recover(String),
    /// The address to listen on is not to be had.
    #[error("can't listen for other nodes on {address}: {error}; is another node running there?")]
    Listen {
        /// The address that the configuration names.
        address: SocketAddr,
        /// The system's words.
        error: std::io::Error,
    },
    /// A file or a thread could not be made.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's words.
        error: std::io::Error,
    },
}
