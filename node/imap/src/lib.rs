//! The server's side of IMAP4rev1 (RFC 3501) without sockets: an engine of `mailraft-protocol` whose backend is a
//! [`Mailstore`]. The shell around it owns the socket, TLS and clocks.
//!
//! Sequence numbers are each session's own (`view`): others' expunges are told only where RFC 3501 allows it.

mod binary;
mod commands;
mod cursor;
mod date;
mod decoder;
mod differences;
mod finding;
mod folders;
mod items;
mod narrowing;
mod notify;
mod objectid;
mod opened;
mod outcome;
mod print;
mod refusals;
mod returns;
mod search_key;
mod section;
mod session;
mod state;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod utf7;
mod view;

pub use decoder::{INPUT_MAX_BYTES, LINE_MAX_BYTES, LITERAL_MAX_BYTES};
pub use session::{Session, WRONG_COMMANDS_MAX};
pub use state::Config;
pub use store::Mailstore;
