//! The stores on disk: rows in RocksDB, Raft logs in raft-engine. The only crate that links either.
//!
//! * [`DiskRows`]: RocksDB without its write-ahead log.
//! * [`DiskLog`]: all Raft logs of a node in one raft-engine.
//! * [`marker`]: which cluster and format a data directory belongs to.
//! * [`probe`]: what this disk can do.
//! * `freed`: memory that the C library keeps, here as it is the one place with `unsafe`.

mod freed;
mod keys;
mod log;
mod manifest;
pub mod marker;
mod options;
pub mod probe;
mod rows;
mod view;

pub use freed::give_back_freed_memory;
pub use log::DiskLog;
pub use probe::{fdatasync_latency, free_bytes};
pub use rows::DiskRows;

/// The file in the log's directory that names the newest durable batch, so that a log whose end was lost is noticed.
pub const WITNESS_FILE: &str = "witness";
