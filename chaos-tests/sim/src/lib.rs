//! The simulator: the code that runs in production, in one thread, on virtual time, from one seed.
//!
//! * [`world`]: the world, its parts put together, and [a whole run](world::run) of it. [`setup`]: its size and length.
//!   `event`, `queue`, `inputs`: what happens, and when.
//! * [`suite`]: many runs from one seed, and the smallest form of one that fails. [`takeovers`]: worlds whose takeovers are
//!   broken off.
//! * [`scenarios`]: interleavings that chance rarely finds, as scripts.
//! * [`faults`], `under_way`: what is broken when, and now. `net`, `clock`, `dice`: network, clocks, chance.
//! * `host`, [`node_log`], `actors`: nodes around the production cores, and actors around the production owners. `chain`: what running
//!   hashes must be. `questions`: whose read barriers are. `moves`: members of groups change.
//! * [`queues`]: messages for several mailboxes, in a small world of their own.
//! * `promise`: a backup region, and what was answered.
//! * `mailboxes`, `clients`, `session`, `message`: what there is, and who asks for it. `office`, `accounts`:
//!   administrators, logins, and what they heard.
//! * `witness`, `trace`, `unresolved`: what was seen, what happened, and what nobody heard of. [`moments`]: what a takeover came to.

mod accounts;
mod actors;
mod chain;
mod clients;
mod clock;
mod dice;
mod event;
pub mod faults;
mod host;
mod inputs;
mod mailboxes;
mod message;
pub mod moments;
mod moves;
mod net;
pub mod node_log;
mod office;
pub mod plant;
mod promise;
mod questions;
mod queue;
pub mod queues;
pub mod scenarios;
mod session;
pub mod setup;
pub mod suite;
pub mod takeovers;
mod trace;
mod under_way;
mod unresolved;
mod witness;
pub mod world;

pub use setup::Setup;
pub use suite::{episode, long_episode, region_episode, run_episode, takeover_episode};
pub use takeovers::broken_takeover_episode;
pub use world::run::{Ran, run_with};
