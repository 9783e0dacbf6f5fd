//! What a report is made of: who reports, of which message, and what became of it to whom.

use super::request::Event;
use super::status::Status;

/// Recipients that a report tells of one by one; of more it tells how many.
pub const RECIPIENTS_MAX: usize = 100;
/// What is told of another server's reply, in bytes.
pub const DIAGNOSTIC_MAX_BYTES: usize = 1_000;
/// The longest ENVID or ORCPT that is told, in bytes (RFC 3461, sections 5.4 and 5.2, allow 100 and 500).
pub const ECHO_MAX_BYTES: usize = 512;

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// The name of this host.
    pub host: &'a str,
    /// The address in From, such as `MAILER-DAEMON@example.org`.
    pub from: &'a str,
}

/// The message that a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Who sent it, whom the report goes to; None where the reverse-path is null.
    pub reverse_path: Option<&'a str>,
    /// ENVID as it came, in xtext (RFC 3461, section 4.4).
    pub envelope_id: Option<&'a str>,
    /// When it arrived here, in seconds since 1970-01-01 UTC.
    pub arrived_unix_s: i64,
    /// Whether it was sent with SMTPUTF8 (RFC 6531): only then may a report have what is not ASCII.
    pub smtputf8: bool,
    /// Its header, or the beginning of it: it says what the report is an answer to, and is attached where the whole message is
    /// not.
    pub header: &'a [u8],
    /// All of it, where it comes back whole if it can.
    pub whole: Option<&'a [u8]>,
}

/// A recipient, and what became of the message to it.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Its address, as it was last handed over.
    pub address: &'a str,
    /// ORCPT as it came: a type and an address in xtext (RFC 3461, section 4.2).
    pub original: Option<&'a str>,
    /// NOTIFY as it came.
    pub notify: Option<&'a str>,
    /// What became of it.
    pub action: Action,
    /// The same as a code.
    pub status: Status,
    /// Why.
    pub diagnostic: Diagnostic<'a>,
    /// When it was last tried, in seconds since 1970-01-01 UTC.
    pub last_attempt_unix_s: Option<i64>,
}

/// What became of a message to one recipient (RFC 3464, section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It will not arrive.
    Failed,
    /// It has not arrived yet.
    Delayed {
        /// How long it is tried, in seconds since 1970-01-01 UTC.
        retry_until_unix_s: i64,
    },
    /// It was handed over to a server that tells nothing more of it.
    Relayed,
    /// It is in the mailbox.
    Delivered,
}

/// Why something became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnostic<'a> {
    /// Nothing was said.
    None,
    /// Another server said it.
    Reply {
        /// Its name.
        host: &'a str,
        /// Its reply, perhaps of several lines.
        reply: &'a str,
    },
    /// We say it, in a sentence.
    Own(&'a str),
}

/// What of a message is attached to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Its header.
    Header,
    /// All of it.
    Whole,
}

impl Action {
    /// What somebody must have asked for to be told of it.
    pub fn event(self) -> Event {
        match self {
            Action::Failed => Event::Failure,
            Action::Delayed { .. } => Event::Delay,
            Action::Relayed | Action::Delivered => Event::Success,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed { .. } => "delayed",
            Action::Relayed => "relayed",
            Action::Delivered => "delivered",
        }
    }
}
