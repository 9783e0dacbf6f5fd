//! The mailbox engine: the pure state machine of one mailbox. A command comes in, effects or a refusal
//! come out; nothing here reads a clock, a disk or a socket by itself.
//!
//! * [`api`]: commands, answers, events and refusals, as sessions on any node speak them.
//! * [`flags`] and [`uids`]: sets of flags and of UIDs.

pub mod api;
pub mod flags;
pub mod uids;

pub use api::{Answer, Command, Event, Refusal};
pub use flags::{Flags, SystemFlag};
pub use uids::UidSet;
