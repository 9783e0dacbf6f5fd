//! One node's Raft groups: a pure core. Inputs in, outputs out; no I/O, no clock, no randomness of its
//! own, and no knowledge of mail.
//!
//! * [`seam`]: what goes in and comes out.
//! * [`outcome`]: what each question is answered with.
//! * [`node`]: all replicas of a node, and the one batch of writes that is outstanding.
//! * `replica`: one Raft group.
//! * [`apply`]: committed entries become rows.
//! * [`members`]: who is in a Raft group and where.
//! * [`bootstrap`]: the first state of a new cluster.
//! * [`regions`]: where nodes stand, and whom an answer waits for.
//! * [`reach`]: which nodes hear each other, and who should lead where not all do.
//! * [`takeover`]: another region takes the cluster over.
//! * [`mode`]: whether answers wait for other regions, or the home goes on alone.
//! * [`eviction`]: kept results of commands go after a time.
//! * `peer_check`: what another node may say.
//! * [`frame`]: peer messages as bytes.
//! * [`plant`]: faults that tests plant here.

mod agreement;
pub mod apply;
mod balance;
pub mod bootstrap;
mod clocks;
pub mod config;
pub mod eviction;
pub mod frame;
mod hints;
mod installation;
mod log_store;
pub mod low_water;
pub mod members;
pub mod mode;
pub mod node;
pub mod outcome;
mod owners;
mod peer_check;
mod peer_refusal;
pub mod placement;
pub mod plant;
pub mod promised;
pub mod reach;
mod reads;
pub mod regions;
mod replica;
pub mod seam;
pub mod status;
pub mod taken_over;
pub mod takeover;
mod visibility;
mod writes;

pub use clocks::ClusterTime;
pub use config::{NodeConfig, RecoverError, ReplicaSpec};
pub use members::{ChangeRefusal, MemberChange};
pub use node::Node;
pub use outcome::{
    BarrierOutcome, ChangeOutcome, CreateOutcome, Decision, SettingsOutcome, SlotOutcome, TakeOverOutcome,
    TakeOverRefusal,
};
pub use peer_refusal::PeerRefusal;
pub use replica::PROMOTE_LAG_MAX_ENTRIES;
pub use seam::{
    ApplyJob, Difference, Input, Output, OwnersTerm, PeerBody, PeerMessage, Reader, RequestId, SnapshotEvent,
    SnapshotJob,
};
pub use status::{AnswersStatus, FollowerStatus, ModeStatus, RegionStatus, ReplicaStatus, Role};
