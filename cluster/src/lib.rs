//! One node's Raft groups: a pure core. Inputs in, outputs out; no I/O, no clock, no randomness of its
//! own, and no knowledge of mail.
//!
//! * [`seam`]: what goes in and comes out.
//! * [`node`]: all replicas of a node, and the one group of writes that is outstanding.
//! * `replica`: one Raft group.
//! * [`apply`]: committed entries become rows.
//! * [`bootstrap`]: the first state of a new cluster.
//! * [`frame`]: peer messages as bytes.

pub mod apply;
mod balance;
pub mod bootstrap;
pub mod frame;
mod hints;
mod log_store;
pub mod node;
mod owners;
pub mod placement;
mod reads;
mod replica;
pub mod seam;
pub mod status;
mod writes;

pub use node::{Node, NodeConfig, Refuse, ReplicaSpec};
pub use seam::{ApplyJob, Input, Outcome, Output, PeerBody, PeerMessage, RequestId, SnapshotEvent, SnapshotJob};
pub use status::ReplicaStatus;
