//! Three cores in one process, over stores in memory that can lose what was not synced.
#![allow(clippy::unwrap_used, missing_docs)]

mod agreement;
mod chaos;
mod cluster;
mod load;
mod members;
mod network;
mod regions;
mod settings;
mod start;
mod takeover;
mod talk;
