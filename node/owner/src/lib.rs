//! The owner of some rows beside the leader of their partition: what waits is decided together as one entry, one
//! entry is in flight, and each command is carried out once, however often it comes. What the rows mean is its
//! engine's affair ([`Engine`]): a mailbox's, the directory's. Nothing here reads a clock, a disk or a socket by
//! itself.
//!
//! * [`engine`]: what an engine decides.
//! * [`queue`]: the commands that wait, and whose turn it is.
//! * [`deciding`]: the queue, the one entry in flight, kept results, and what follows from a verdict.
//! * [`log_owner`]: that, with whoever asked; what a shell, be it an actor or a simulator, drives.
//! * [`kept`]: what the table of commands keeps under an id.
//! * [`conformance`]: the checks that every engine's owner passes. [`plant`]: faults that tests plant here.

pub mod conformance;
pub mod deciding;
pub mod engine;
pub mod kept;
pub mod log_owner;
pub mod plant;
pub mod queue;
#[cfg(test)]
mod tests;

pub use deciding::{BATCH_MAX_COMMANDS, Deciding, Outcome, Submitted};
pub use engine::{Effect, Engine, Kept, Missed, Part, Place, RequestDigest};
pub use log_owner::{Ask, BACKLOG_MAX_COMMANDS, Detached, LogOwner, Owner, Step, StepOf, Tell, Unanswered};
pub use queue::{QUEUE_MAX_BYTES, QUEUE_MAX_COMMANDS, Queued, SessionNumber};
