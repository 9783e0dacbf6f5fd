//! What every other crate of Mailraft stores and how: ids, the log entry, rows and their keys,
//! sealing, and the two store traits with implementations in memory.
//!
//! Pure: no I/O, no clock, no randomness of its own. The stores on disk are in `mailraft-disk`.
//!
//! * [`ids`]: who and where.
//! * [`entry`]: what travels through a Raft log.
//! * [`floor`]: below which id nothing is known of commands.
//! * [`row`]: tables, keys, batches.
//! * [`rows`] and [`log`]: the two store traits.
//! * [`sums`] and [`summed`]: how rows that were put back or deleted on disk are found.
//! * [`seal`] and [`body`]: encryption of rows and of message bodies.
//! * [`memory`]: both stores in memory, able to crash, tear and lose writes.
//! * [`plant`]: faults that tests plant to see that they are found; in no release.

pub mod body;
pub mod entry;
pub mod env;
pub mod error;
pub mod floor;
pub mod ids;
pub mod log;
pub mod memory;
pub mod plant;
pub mod row;
pub mod rows;
pub mod seal;
pub mod summed;
pub mod sums;
pub mod takeover;

pub use entry::{Entry, EntryHeader, EntryKind, Proposal, ProposalOutcome, Verdict};
pub use env::Env;
pub use error::{DAMAGED_NODE_ADVICE, StoreError};
pub use floor::CommandFloor;
pub use ids::{
    ClusterId, CommandId, Epoch, Incarnation, Index, LogPosition, MailboxId, NodeId, PartitionId, ReplicaId, Term,
    UnixMillis,
};
pub use row::{RowBatch, RowKey, Table};
pub use rows::{Applied, Rows};
pub use summed::SummedRows;
pub use takeover::{Adoption, IncarnationMark, TakenOver, TakeoverBody};
