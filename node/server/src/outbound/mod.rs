//! Mail to other servers: the sockets and TLS around `mailraft_outbound`.

pub mod policies;
pub mod tls;
