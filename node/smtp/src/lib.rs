//! The server's side of SMTP and submission (RFC 5321, 6409), without I/O: bytes go in, replies and steps
//! come out. The shell around it owns the socket, TLS, clocks and the mailbox.
//!
//! ```text
//! session.input(bytes)            // what the socket gave
//! loop { match session.next(&mut out) {
//!     Step::NeedInput             // write `out`, read more
//!     Step::CheckSender           // ask, then session.sender_checked(..)
//!     Step::Verify / Authenticate // ask, then session.verified(..) / authenticated(..)
//!     Step::Content(bytes)        // of the message, dots undone: spool them
//!     Step::Complete(transaction) // deliver, then session.delivered(..)
//!     Step::Discard               // the transaction is over: drop the spool
//!     Step::StartTls              // write `out`, take up TLS, session.tls_started()
//!     Step::Close                 // write `out`, close
//! }}
//! ```
//!
//! Framing is the security boundary: commands end at CRLF, data at CRLF.CRLF, and nothing else ends either. A
//! command that holds a bare CR or LF is wrong; a message that does is read to its true end, then refused.

mod commands;
mod data;
mod input;
mod parse;
mod reply;
mod session;
mod state;
mod step;
pub mod trace;

pub use input::INPUT_MAX_BYTES;
pub use parse::{DOMAIN_MAX_BYTES, LOCAL_PART_MAX_BYTES, Mailbox, PATH_MAX_BYTES, Path};
pub use reply::REPLY_LINE_MAX_BYTES;
pub use session::{AUTH_LINE_MAX_BYTES, COMMAND_LINE_MAX_BYTES, MAIL_LINE_MAX_BYTES, Session};
pub use state::{Config, RECIPIENTS_MAX, Service, WRONG_COMMANDS_MAX, WRONG_LOGINS_MAX};
pub use step::{AuthOutcome, Delivery, Destination, Recipient, Sender, Step, Transaction};
