//! Sessions of clients: sockets, TLS, time-outs and bounds around the pure protocol engines.

pub mod imap;
mod limits;
mod listen;
mod shared;
mod shell;
pub mod smtp;
pub mod tls;

pub use limits::SessionLimits;
pub use listen::{Service, listen};
pub use shared::Shared;
