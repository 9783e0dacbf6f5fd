//! What a sender is told of a message: delivery status notifications (RFC 3461, 3464, 6522, 6533), one for several recipients.
//!
//! Whatever stands in an address or in another server's reply, a report is one message of exactly three parts: words for a
//! person, fields for a program, and the message or its header.

mod address;
mod compose;
mod fields;
mod original;
mod request;
mod sentences;
mod status;
mod told;
mod words;

pub use compose::{Report, ReportRefusal, report};
pub use original::{ORIGINAL_HEADER_MAX_BYTES, ORIGINAL_MAX_BYTES, attached};
pub use request::{Event, Ret, wants};
pub use status::{Class, Status};
pub use told::{
    Action, Attached, DIAGNOSTIC_MAX_BYTES, Diagnostic, ECHO_MAX_BYTES, Original, RECIPIENTS_MAX, Recipient, Reporter,
};

#[cfg(test)]
mod tests;
