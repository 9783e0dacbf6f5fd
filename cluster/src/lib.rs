//! One node's Raft groups: a pure core. Inputs in, outputs out; no I/O, no clock, no randomness of its
//! own, and no knowledge of mail.

pub mod seam;

pub use seam::{Input, Outcome, Output, PeerMessage, RequestId, SnapshotEvent, SnapshotJob};
