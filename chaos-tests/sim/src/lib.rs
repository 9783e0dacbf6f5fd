//! The simulator: the code that runs in production, in one thread, on virtual time, from one seed.
//!
//! * [`world`], [`run`]: the world, and a whole run of it. [`faults`]: what is broken when.
//! * [`suite`]: many runs from one seed, and the smallest form of one that fails.
//! * [`scenarios`]: interleavings that chance rarely finds, as scripts.
//! * `host`, `machine`: nodes around the production cores. `actors`, `reach`: mailbox actors around the production
//!   owners.
//! * `chain`: what running hashes must be. `questions`: whose read barriers are. `operator`, `moves`: members of groups change. `corruption`: rows turn bad.
//! * `directory`, `office`, `accounts`: the directory around its production owner, its administrators, and logins.
//! * `session`, `client`, `workload`, `message`: clients.
//! * `net`, `clock`, `queue`, `dice`, `trace`: network, clocks, time, chance and what happened.

mod accounts;
mod actors;
mod chain;
mod client;
mod clock;
mod corruption;
mod dice;
mod directory;
pub mod faults;
mod host;
mod machine;
mod message;
mod moves;
mod net;
pub mod node_log;
mod office;
mod operator;
pub mod plant;
mod questions;
mod queue;
mod reach;
pub mod run;
pub mod scenarios;
mod session;
pub mod suite;
mod trace;
mod workload;
pub mod world;

pub use run::{Ran, run_with};
pub use suite::{episode, long_episode, run_episode};
pub use world::Setup;
