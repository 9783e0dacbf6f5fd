//! The queue: what one commit accepted for several mailboxes, and how each of them gets it once.
//!
//! A *queue mailbox* is a mailbox of a partition without folders. Its items wait there until each recipient's mailbox has
//! the message. Both ends remember what the other may not know yet:
//!
//! ```text
//!   queue:      waiting ──── deliver(item, recipient, position) ───▶  delivered row, with the message
//!   queue:      delivered ◀──────────── done ─────────────────────
//!   queue:      delivered ──── release(item, recipient, position) ─▶  no row; the floor rises to position
//!   queue:      gone     ◀──────────── done ──────────────────────
//! ```
//!
//! A delivery that comes twice finds the row. One that comes after the release, held up anywhere, was decided on an older
//! state of the queue than the floor tells, and is answered *stale*. An honest one that is below the floor, as another
//! recipient of the same mailbox raised it, is sent again from the present position.
//!
//! * [`items`]: what waits, in the queue mailbox's memory. [`received`]: what a recipient's mailbox knows of queues.
//! * [`rows`]: both as rows. [`content`]: an item's message as it is delivered.
//! * [`errands`]: what the queue's owner has done for each recipient with a mailbox, when, and what follows.
//! * [`outward`]: the same for what is sent to other servers, and told to senders. [`outgoing`]: an item as that needs it.
//!   [`arrived`]: what other servers have, until that is recorded.
//! * [`places`]: who gets the places for sending, here and in a node.
//!
//! What leaves the cluster is *waiting* or *deferred*, and gone once another server has it, or *reporting* until its sender is
//! told: the commit that takes the report in is the one that forgets the recipients it is about.

pub mod arrived;
pub mod content;
pub mod errands;
pub(crate) mod items;
pub mod outgoing;
pub mod outward;
pub mod places;
pub(crate) mod received;
pub(crate) mod rows;
