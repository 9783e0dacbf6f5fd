//! The server: actors that own mailboxes, sessions that speak to clients, and the links between them.
//!
//! * [`config`]: the configuration file.
//! * [`bootstrap`]: the first state of a new cluster.
//! * [`actors`]: the only place that knows actix; beside each partition's leader.
//! * [`outbox`]: what an actor says to a session. [`spool`]: a message on its way in.
//! * [`links`]: how a session reaches the mailbox actor, here or on another node.
//! * [`sessions`]: SMTP and IMAP over tokio and rustls.
//! * `forwarding`: what addresses of this cluster forward to other domains, and what comes back of it.
//! * [`outbound`]: mail to other servers. [`proved_dns`]: what DNSSEC proves of where it goes.
//! * [`pages`]: what everybody may read over HTTPS.
//! * `counted`: what is counted for reports to other domains. `reports`: those reports, once a day.
//! * [`descriptors`]: how many files and connections there may be, and for whom.
//! * [`memory_limit`], [`memory`]: how much memory there is, and for what. `freed_memory`: what comes back of it.
//! * [`disk_space`]: how much room the disk has.
//! * [`credentials`], `throttle`, `argon2_queue`: who may log in. [`logged_in`]: who is.
//! * [`admin`]: health, metrics and the API that the command line uses.
//! * [`region`]: what a node is there for. `begun`: what it has in any part; `standby`: a node of a backup region; `sealed`:
//!   one of a home that was taken over; `turn_away`: their ports. [`failover`]: how a region takes over.
//! * [`status`]: how a node and the cluster are. [`survival`]: what several regions survive.
//! * [`refusals`]: why something was not done, and how each protocol says so.

pub mod actors;
pub mod admin;
mod argon2_queue;
mod begun;
pub mod bootstrap;
pub mod config;
mod confirmation;
mod counted;
pub mod credentials;
pub mod descriptors;
pub mod disk_space;
mod dns;
mod dns_turns;
pub mod environment;
pub mod failover;
mod filling;
mod forwarding;
mod freed_memory;
mod guesses;
pub mod links;
pub mod logged_in;
mod lookups;
pub mod memory;
pub mod memory_limit;
pub mod metrics;
pub mod outbound;
pub mod outbox;
pub mod pages;
mod permits;
pub mod places;
pub mod proved_dns;
pub mod queues;
mod refusals;
pub mod region;
mod reload;
mod reports;
mod run;
mod sealed;
mod sender_auth;
mod service_manager;
pub mod services;
pub mod sessions;
pub mod settings;
pub mod spool;
mod standby;
pub mod status;
pub mod survival;
mod taken;
pub mod throttle;
mod trail;
mod turn_away;
mod turns;

pub use run::{RunError, keep_memory_private, run};

use std::path::Path;
use std::sync::Arc;

use mailraft_storage::log::Log;
use mailraft_storage::summed::Missing;
use mailraft_storage::{ClusterId, Rows};

/// Opens the stores of a data directory. The binary brings the real ones; tests may bring those in memory.
pub trait OpenStores: Send + Sync {
    /// Opens, and creates if need be, both stores below this directory; the rows with so many files open at once, and so
    /// much memory.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do.
    fn open(&self, data_dir: &Path, cluster: ClusterId, rows: RowsBounds) -> Result<Stores, String>;

    /// Keeps in mind that the rows have their sums from now on.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do.
    fn sums_are_made(&self, data_dir: &Path, cluster: ClusterId) -> Result<(), String>;
}

/// What the rows may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsBounds {
    /// Files open at once.
    pub files: usize,
    /// Memory, in bytes.
    pub memory_bytes: usize,
}

/// A node's two stores.
#[derive(Clone)]
pub struct Stores {
    /// Raft logs.
    pub log: Arc<dyn Log>,
    /// Applied state.
    pub rows: Arc<dyn Rows>,
    /// What rows without sums mean.
    pub missing: Missing,
    /// Memory that the rows take now, in bytes.
    pub rows_memory: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Gives the machine back what this process freed and its allocator keeps; whether that was something.
    pub give_back_freed: fn() -> bool,
}
