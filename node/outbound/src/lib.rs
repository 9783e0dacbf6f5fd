//! Sends mail to other servers: where a message goes, how it is handed over, what came of it, and what its sender is told.
//!
//! Pure: what the DNS says is handed in, and so are the time and randomness. Sockets and TLS are the shell's
//! (`node/server/src/outbound`).

pub mod allowance;
pub mod client;
pub mod destinations;
pub mod encode;
pub mod outcome;
pub mod reply;
pub mod report;
pub mod route;
pub mod schedule;
pub mod seven_bit;
pub mod srs;
pub mod tls;
