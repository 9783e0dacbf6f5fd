//! What whoever sends reports for all nodes asks each of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Parts of a day that are told at once; each has at most [`mailraft_feedback::PART_MAX_BYTES`].
pub const PARTS_AT_ONCE: usize = 16;

/// What was counted. Goes between nodes: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum What {
    /// Sessions of TLS with other servers.
    Sessions,
    /// Messages that DMARC judged.
    Messages,
}

/// The question. Goes between nodes: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedbackQuestion {
    /// What was counted on a day that is over.
    Parts {
        /// Of what.
        what: What,
        /// The day, in days since 1970-01-01.
        day: u64,
        /// From this part on.
        from: u32,
    },
    /// The day's reports are sent: it need not be kept.
    Told {
        /// The day.
        day: u64,
    },
}

/// The answer. Goes between nodes: variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedbackAnswer {
    /// These.
    Parts {
        /// At most [`PARTS_AT_ONCE`].
        parts: Vec<Bytes>,
        /// Whether there are others behind them.
        more: bool,
    },
    /// It is taken note of.
    Noted,
    /// By this node's clock the day is not over, or it can't say now.
    NotNow,
}
