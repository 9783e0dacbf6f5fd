//! Mailbox actors and the directory's actor. The only place that knows actix.
//!
//! An actor lives beside its partition's leader and decides in one (incarnation, term). It starts when a
//! session attaches, after whatever an earlier actor of this term has in flight, and ends when the term
//! does, when it has been idle for a while, or when it panics; the registry then makes the next.

mod deleted;
mod directory;
mod key;
mod mailbox;
mod owner;
mod registry;
mod tasks;
#[cfg(test)]
mod tests;
mod threads;

pub use key::SessionKey;
pub use mailbox::Idle;
pub use registry::{Limits, LocalLink, Registry};
#[cfg(test)]
pub use tasks::testing as tasks_testing;
pub use tasks::{ErrandJob, OutwardJob, TaskJobs};
pub use threads::{ActorThreads, CLIENTS_NICE, nicer_by};
