//! The server's side of SMTP and submission (RFC 5321, 6409), without I/O: an engine of `mailraft-protocol` whose
//! backend is a [`DeliveryAgent`]. The shell around it owns the socket, TLS and clocks.
//!
//! Framing is the security boundary: commands end at CRLF, data at CRLF.CRLF, and nothing else ends either. A
//! command that holds a bare CR or LF is wrong; a message that does is read to its true end, then refused.

mod agent;
mod chunks;
mod commands;
mod data;
mod dsn;
mod parse;
mod refusals;
mod reply;
mod session;
mod state;
pub mod trace;

pub use agent::{DeliveryAgent, Destination, Forward, Transaction, Verified, goes_by_queue};
pub use dsn::{Asked, ENVID_MAX_BYTES, Notify, ORCPT_MAX_BYTES, Return};
pub use parse::{
    DOMAIN_MAX_BYTES, LOCAL_PART_MAX_BYTES, Mailbox, PATH_MAX_BYTES, Path, SENDER_LOCAL_PART_MAX_BYTES,
    SENDER_PATH_MAX_BYTES,
};
pub use reply::REPLY_LINE_MAX_BYTES;
pub use session::{AUTH_LINE_MAX_BYTES, COMMAND_LINE_MAX_BYTES, MAIL_LINE_MAX_BYTES, RCPT_LINE_MAX_BYTES, Session};
pub use state::{Config, RECIPIENTS_MAX, Service, WRONG_COMMANDS_MAX, WRONG_LOGINS_MAX};
