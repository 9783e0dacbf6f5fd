//! The server's side of POP3 (RFC 1939, 2449) without sockets: an engine of `mailraft-protocol` whose backend is a
//! [`Maildrop`]. The shell around it owns the socket, TLS and clocks.
//!
//! A session has the maildrop, which is INBOX, to itself, and sees it as it was at the login: messages are numbered by their
//! UIDs then, and what comes later is for the next session. Nothing is changed before QUIT.

mod commands;
mod maildrop;
mod message;
mod refusals;
mod reply;
mod session;
mod state;
#[cfg(test)]
mod testing;

pub use maildrop::Maildrop;
pub use reply::RESPONSE_LINE_MAX_BYTES;
pub use session::{AUTH_LINE_MAX_BYTES, COMMAND_LINE_MAX_BYTES, Session};
pub use state::{Config, WRONG_COMMANDS_MAX, WRONG_LOGINS_MAX};
