//! Three cores in one process, over stores in memory that can lose what was not synced.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod network;
