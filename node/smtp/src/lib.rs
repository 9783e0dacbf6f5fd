//! The server's side of SMTP and submission (RFC 5321, 6409), without I/O: bytes go in, replies and steps
//! come out. The shell around it owns the socket, TLS, clocks and the mailbox.
//!
//! ```text
//! session.input(bytes)            // what the socket gave
//! loop { match session.next(&mut out) {
//!     Step::NeedInput             // write `out`, read more
//!     Step::Verify / Authenticate // ask, then session.verified(..) / authenticated(..)
//!     Step::Content(bytes)        // of the message, dots undone: spool them
//!     Step::Complete(transaction) // deliver, then session.delivered(..)
//!     Step::Discard               // the transaction is over: drop the spool
//!     Step::StartTls              // write `out`, take up TLS, session.tls_started()
//!     Step::Close                 // write `out`, close
//! }}
//! ```
//!
//! Framing is the security boundary: commands end at CRLF, data at CRLF.CRLF, and nothing else ends either.

mod commands;
mod data;
mod parse;
mod reply;
mod session;
pub mod trace;

pub use parse::{Mailbox, Path};
pub use session::{
    AuthOutcome, Config, Delivery, INPUT_MAX_BYTES, LINE_MAX_BYTES, RECIPIENTS_MAX, Recipient, Service, Session, Step,
    Transaction, WRONG_COMMANDS_MAX,
};
