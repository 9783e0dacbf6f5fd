//! Where a mailbox begins to do things in another way: stage a change, write flags as a page, forget. A simulator lowers
//! these bounds, so that its small worlds reach what large mailboxes reach in production.

use mailraft_storage::entry::ENTRY_MAX_BYTES;
use serde::{Deserialize, Serialize};

/// The most bytes of rows and results in one entry: what is left of an entry beside its header.
pub const BATCH_MAX_BYTES: usize = ENTRY_MAX_BYTES - (16 << 10);
/// The most bytes of new places in one entry: about a thousand rows. While an entry is applied those of all other mailboxes
/// of the node wait, so that a change of many messages comes in parts.
pub const PART_MAX_BYTES: usize = 192 << 10;
/// An upload that has not become live after this time is deleted, in milliseconds.
pub const OPEN_BODY_MAX_MILLIS: u64 = 3_600_000;
/// More changed messages than this in one page are written as the page's row.
pub const PAGE_ABOVE_MESSAGES: usize = 16;
/// A change of more messages than this is written as pages wherever a page has several of them.
pub const PAGES_ABOVE_MESSAGES: usize = 1_000;
/// The most rows of expunge history that a folder keeps; past them the oldest are forgotten.
pub const EXPUNGED_ROWS_MAX: usize = 1_000;
/// A change that removes no more rows than this deletes them itself; a larger one leaves them to a sweep.
pub const DIRECT_DELETES_MAX: usize = 1_000;
/// The most rows that one sweeping entry deletes.
pub const SWEEP_ROWS_MAX: usize = 1_000;
/// How long a delivery's answer is kept for a sender that repeats it, in milliseconds.
pub const DELIVERY_KEPT_MILLIS: u64 = 24 * 3_600_000;
/// The most deliveries remembered; past them the oldest are forgotten.
pub const DELIVERIES_MAX: usize = 50_000;
/// What lies about this much longer, in milliseconds, because no delivery came to forget it, is left to a sweep.
pub const DELIVERY_LEFT_MILLIS: u64 = 6 * 3_600_000;
/// How long the answer to a command is kept for a client that may not have heard it and repeats the command, in
/// milliseconds.
pub const REPEAT_KEPT_MILLIS: u64 = 3_600_000;
/// What lies about this much longer, in milliseconds, because no other command came to forget it, is left to a sweep.
pub const REPEAT_LEFT_MILLIS: u64 = 600_000;
/// The most commands of a mailbox whose answers are kept so; past them the oldest are forgotten.
pub const REPEATS_MAX: usize = 1_024;
/// The longest record of such a command, in bytes: a COPY of UIDs with more gaps is not remembered.
pub const REPEAT_MAX_BYTES: usize = 4 << 10;
/// The most items in one queue mailbox.
pub const QUEUE_MAX_ITEMS: usize = 10_000;
/// The most recipients of all items of one queue mailbox.
pub const QUEUE_MAX_RECIPIENTS: usize = 100_000;
/// The most bytes of all messages in one queue mailbox.
pub const QUEUE_MAX_BYTES: u64 = 4 << 30;
/// The most answers of which one command says that they were heard.
pub const HEARD_MAX: usize = 64;
/// What was heard goes along with the mailbox's next entry. If none comes for so long, in milliseconds, one is written for
/// it: a successor of the owner knows only what is written.
pub const HEARD_UNWRITTEN_MILLIS: u64 = 30_000;
/// What one of them takes in memory, in bytes, roughly.
pub(crate) const HEARD_MEMORY_BYTES: usize = 100;
/// All that one mailbox may have of them, in bytes: they are among its repeats.
pub const HEARD_MEMORY_MAX_BYTES: usize = REPEATS_MAX * HEARD_MEMORY_BYTES;

/// What a mailbox takes of its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUsage {
    /// The bytes of all messages, each counted once however many places it has.
    pub used_bytes: u64,
    /// The most that they may have; None for no bound.
    pub limit_bytes: Option<u64>,
}

/// The bounds of one mailbox. [`Limits::default`] is production's, and none may be above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of rows and results in one entry; a larger change is staged.
    pub entry_max_bytes: usize,
    /// The most bytes of new places in one entry; a change with more of them is staged.
    pub part_max_bytes: usize,
    /// More changed messages than this in one page are written as the page's row.
    pub page_above_messages: usize,
    /// A change of more messages than this is written as pages wherever a page has several of them.
    pub pages_above_messages: usize,
    /// The most rows of expunge history that a folder keeps.
    pub expunged_max_rows: usize,
    /// A change that removes no more rows than this deletes them itself; a larger one leaves a tombstone.
    pub direct_deletes_max_rows: usize,
    /// The most rows that one sweeping entry deletes.
    pub sweep_max_rows: usize,
    /// How long a delivery is remembered, in milliseconds.
    pub delivery_kept_ms: u64,
    /// How much longer what no delivery came to forget lies about, in milliseconds.
    pub delivery_left_ms: u64,
    /// The most deliveries that are remembered.
    pub deliveries_max: usize,
    /// How long the answer to a command is kept for a client that may not have heard it, in milliseconds.
    pub repeat_kept_ms: u64,
    /// How much longer what no other command came to forget lies about, in milliseconds.
    pub repeat_left_ms: u64,
    /// The most commands whose answers are kept so.
    pub repeats_max: usize,
    /// An upload that has not become live after this time is deleted, in milliseconds.
    pub open_body_max_ms: u64,
    /// The most items in one queue mailbox.
    pub queue_max_items: usize,
    /// The most recipients of all items of one queue mailbox.
    pub queue_max_recipients: usize,
    /// The most bytes of all messages in one queue mailbox.
    pub queue_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entry_max_bytes: BATCH_MAX_BYTES,
            part_max_bytes: PART_MAX_BYTES,
            page_above_messages: PAGE_ABOVE_MESSAGES,
            pages_above_messages: PAGES_ABOVE_MESSAGES,
            expunged_max_rows: EXPUNGED_ROWS_MAX,
            direct_deletes_max_rows: DIRECT_DELETES_MAX,
            sweep_max_rows: SWEEP_ROWS_MAX,
            delivery_kept_ms: DELIVERY_KEPT_MILLIS,
            delivery_left_ms: DELIVERY_LEFT_MILLIS,
            deliveries_max: DELIVERIES_MAX,
            repeat_kept_ms: REPEAT_KEPT_MILLIS,
            repeat_left_ms: REPEAT_LEFT_MILLIS,
            repeats_max: REPEATS_MAX,
            open_body_max_ms: OPEN_BODY_MAX_MILLIS,
            queue_max_items: QUEUE_MAX_ITEMS,
            queue_max_recipients: QUEUE_MAX_RECIPIENTS,
            queue_max_bytes: QUEUE_MAX_BYTES,
        }
    }
}
