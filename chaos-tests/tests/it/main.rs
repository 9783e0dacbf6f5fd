//! Real node processes and clients that nobody here wrote. Needs the built binary: `cargo build --release`.
#![allow(clippy::unwrap_used, missing_docs)]

mod bounds;
mod clients;
mod doctor;
mod failover;
mod faults;
mod limits_table;
mod logins;
mod machines;
mod mbsync;
mod memory;
mod outcomes;
mod peers;
mod pop3;
mod power;
mod quickstart;
mod regions;
mod rfc;
mod rows;
mod secrecy;
mod sender_auth;
mod sending;
mod several;
mod siege;
mod simulated;
mod tidy;
