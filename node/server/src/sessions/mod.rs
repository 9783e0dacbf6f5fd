//! Sessions of clients: sockets, TLS, time-outs and bounds around the pure protocol engines.

mod context;
pub mod imap;
mod limits;
mod listen;
mod shell;
pub mod smtp;
pub mod tls;
mod unheard;

pub use context::SessionContext;
pub use limits::SessionLimits;
pub use listen::{Service, listen};
