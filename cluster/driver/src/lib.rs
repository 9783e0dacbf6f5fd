//! Threads and sockets around the cluster core.
//!
//! [`Cluster::start`] recovers a node's replicas from its two stores and runs:
//!
//! * one thread that owns the core and steps it ([`Cluster::propose`], [`Cluster::read_barrier`], ...),
//! * one that writes and syncs the Raft log, one that gives back its space,
//! * one that applies committed entries, one that flushes rows,
//! * a task beside each leader that evicts the results of commands whose time is over ([`beside_leaders`]),
//! * tasks for the connections to other nodes, all of mutual TLS 1.3 ([`tls`]), and for snapshots.
//!
//! An error of a store, a panic in one of these threads, or a core that finds what must never be, ends the
//! node: see [`DriverConfig::on_fatal`].

mod apply_thread;
mod beside;
mod clock;
mod cluster;
mod config;
mod connections;
mod core_thread;
mod evictor;
mod far;
mod fatal;
mod flush_thread;
mod inputs;
mod listener;
mod log_thread;
pub mod metrics;
mod outgoing;
mod own_rows;
pub mod pki;
mod purpose;
mod questions;
mod rarely;
mod revoked;
mod scrubber;
mod slog_bridge;
mod snapshot;
mod status;
mod stream;
pub mod testing;
pub mod tls;
mod wire;

pub use beside::{TermOver, beside_leaders};
pub use cluster::{Cluster, StateHashError, TAKE_OVER_MAX};
pub use config::{DriverConfig, REGION_SNAPSHOT_BYTES_PER_SECOND, SCRUB_EVERY, StartError};
pub use core_thread::{Leaders, Leading, LeadingMap};
pub use fatal::{OnFatal, exit_process};
pub use mailraft_cluster::{BarrierOutcome, Reader, SlotOutcome, TakeOverOutcome, TakeOverRefusal};
pub use revoked::{Revoked, RevokedError};
pub use slog_bridge::logger;
pub use snapshot::verify_snapshot;
pub use status::{NodeStatus, PeerStatus, ScrubStatus, SnapshotStatus};
pub use stream::{ConnectionRefusal, DialError, PeerStream, StreamKind};
pub use tls::{PeerTls, TlsError, node_name};
