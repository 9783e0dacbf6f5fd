//! Sessions of clients: sockets, TLS, time-outs and bounds around the pure protocol engines.

pub mod imap;
mod limits;
mod listen;
mod shared;
pub mod smtp;
pub mod tls;

pub use limits::SessionLimits;
pub use listen::{Service, listen};
pub use shared::Shared;

use tokio::io::{AsyncRead, AsyncWrite};

/// A client's connection, with or without TLS.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}
