//! The server's side of IMAP4rev1 (RFC 3501) without sockets: bytes go in, a [`Mailstore`] is asked, bytes come
//! out. The shell owns the socket, TLS, clocks and the mailbox:
//!
//! ```text
//! output.write(session.greeting())
//! loop { match session.drive(&mut store, &mut output).await? {
//!     Turn::NeedInput => session.input(what the socket gave),
//!     Turn::Idle      => wait for the socket or store events: session.input(..) or session.tell(..),
//!     Turn::StartTls  => take up TLS, then session.tls_started(),
//!     Turn::Close     => close,
//! }}
//! ```
//!
//! Sequence numbers are each session's own (`view`): others' expunges are told only where RFC 3501 allows it.

mod body;
mod commands;
mod cursor;
mod date;
mod decoder;
mod out;
mod outcome;
mod print;
mod section;
mod session;
mod state;
mod store;
#[cfg(test)]
mod testing;
mod utf7;
mod view;

pub use decoder::{INPUT_MAX_BYTES, LINE_MAX_BYTES, LITERAL_MAX_BYTES};
pub use out::OUTPUT_FLUSH_BYTES;
pub use session::{Session, Turn, WRONG_COMMANDS_MAX};
pub use state::Config;
pub use store::{LoginFailure, Mailstore, Output, ReceiveFailure, StoreFailure};
