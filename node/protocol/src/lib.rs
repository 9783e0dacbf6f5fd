//! What the engines of all line protocols (SMTP, IMAP, POP3; later ManageSieve) have in common: the shape that one
//! socket shell drives, responses on their way out, and the list of reasons why a request was not carried out; and what
//! two of them need: lines on their way in, logins by SASL, and bodies read chunk by chunk.
//!
//! An engine is a session without a socket: bytes go in, its backend is asked, responses come out. It owns its
//! backend, a trait of its own crate, so that a test puts one in that answers from memory and needs no runtime.
//!
//! ```text
//! out.write(engine.greeting())
//! loop { match engine.drive(&mut out).await {
//!     Turn::Again     => next frame, when it is this session's turn,
//!     Turn::NeedInput => flush, engine.input(what the socket gave),
//!     Turn::Idle      => flush, the same, or after engine.wait_for_news(): engine.tell(..),
//!     Turn::Compress  => flush, compress from here on,
//!     Turn::StartTls  => flush, take up TLS, engine.tls_started(..),
//!     Turn::Close     => flush, close,
//! }}
//! ```

mod body;
mod engine;
mod input;
mod out;
mod refusal;
pub mod sasl;

pub use body::{BodyReader, Mailbox};
pub use engine::{Engine, Farewell, Patience, Tls, Turn};
pub use input::{INPUT_MAX_BYTES, Input, Line};
pub use out::{Mark, OUTPUT_FLUSH_BYTES, Out, Output};
pub use refusal::{Failure, Refusal};
