//! The mailbox engine: the pure state machine of one mailbox. A command comes in, effects or a refusal
//! come out; nothing here reads a clock, a disk or a socket by itself.
//!
//! * [`api`]: commands, answers, events and refusals, as sessions on any node speak them.
//! * [`flags`] and [`uids`]: sets of flags and of UIDs. `folders`: what is known of folders; `listing`: what LIST says of them.
//!   [`notice`]: what those hear who watch all of them; `waiting`: what of that they have not looked at yet.
//! * [`engine`]: what commands come to as entries, answers and events.
//! * [`owner`]: the engine with its sessions, and what an actor does around it. [`reply`]: what they hear.
//! * [`session`]: a session's way to its mailbox, through retries and failovers. [`following`]: what it knows of its open
//!   folder. [`request`]: what its client wants, and how that ends. [`unheard`]: which answers its client may not have
//!   heard; `heard`: what the owner knows of that. `busy`: its command on its way, and how long its client waits.
//!   `upload`: which messages go with their command, and how far the others are.
//! * [`maildrop`]: which POP3 session has the maildrop to itself.
//! * `kinds`: which commands change something. [`limits`]: where small becomes large. [`reads`]: reads that a worker thread does. [`plant`]: faults that tests plant.
//! * [`accepted`]: what is accepted for several mailboxes, as it travels. [`queue`]: how each of them gets it once.
//! * `email_id`: what names a message.
//! * `state`, `work`, `commands`: the mailbox in memory, and how a command changes a copy of it.
//! * `records`, `load`, `stage`: its rows, reading them, and changes larger than an entry.

pub mod accepted;
mod alone;
pub mod api;
mod busy;
mod commands;
mod email_id;
pub mod engine;
#[cfg(test)]
mod engine_tests;
pub mod flags;
mod folders;
pub mod following;
mod forks;
#[cfg(test)]
mod harness;
mod heard;
mod kinds;
pub mod limits;
mod listing;
mod load;
pub mod maildrop;
mod names;
pub mod notice;
#[cfg(test)]
mod outward_tests;
pub mod owner;
#[cfg(test)]
mod owner_tests;
mod packed;
pub mod plant;
#[cfg(test)]
mod properties;
mod quarantine;
pub mod queue;
#[cfg(test)]
mod queue_tests;
pub mod reads;
mod records;
pub mod reply;
pub mod request;
pub mod search_index;
pub mod session;
#[cfg(test)]
mod session_tests;
mod sizes;
mod stage;
mod state;
pub mod uids;
pub mod unheard;
mod upload;
mod waiting;
mod work;

pub use api::{Answer, Command, Event, Once, Refusal};
pub use commands::COPY_UIDS_MAX;
pub use engine::{Kept, Mailbox, Read, kept_result};
pub use flags::{Flags, SystemFlag};
pub use following::Following;
pub use forks::is_of_earlier_incarnation;
pub use limits::{DELIVERIES_MAX, DELIVERY_KEPT_MILLIS, DIRECT_DELETES_MAX, EXPUNGED_ROWS_MAX, Limits};
pub use mailraft_owner::{Deciding, Detached, Owner, Place, SessionNumber, Submitted};
pub use names::spelt;
pub use notice::{FolderNews, ListChange, ListNews, Notice};
pub use owner::MailboxOwner;
pub use packed::PackedMessages;
pub use quarantine::quarantined;
pub use reads::{RowsRead, StoredRead};
pub use records::{MailboxKey, chunk_key, open_body_key, open_body_row};
pub use reply::{CommandError, Reply};
pub use request::{Finished, MessageKind, NotDone, Position, Request};
pub use sizes::{answer_bytes, event_bytes, notice_bytes};
pub use uids::UidSet;
pub use unheard::Unheard;
pub use waiting::WaitingNotices;
pub use work::MESSAGES_MAX;
