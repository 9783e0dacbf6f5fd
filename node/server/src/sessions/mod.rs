//! Sessions of clients: sockets, TLS, time-outs and bounds around the pure protocol engines.

mod context;
mod deflated;
pub mod imap;
mod listen;
pub mod pop3;
mod request;
mod shell;
pub mod smtp;
pub mod tls;

pub use context::SessionContext;
pub use listen::{Service, listen};
