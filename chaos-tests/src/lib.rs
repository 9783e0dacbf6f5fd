//! Drives the built `mailraft` binary from outside: real processes, real sockets, real kills.
//!
//! * [`cluster`]: a quickstart cluster of its own: start, kill, start again, ask.
//! * [`smtp`] and [`imap`]: small blocking clients over TLS, for load and for looking.
//! * [`wan`]: a slow link between two regions, that can be cut.
//! * [`plain`]: connections in clear, from many addresses.
//! * [`name_server`]: a DNS of a test's own.
//! * [`set_clock`]: a wall clock that a test sets.
//! * [`history`]: what was acknowledged, and the check that it is all there exactly once.
//! * [`bench`]: figures, beside this disk's own.
//! * [`simulate`]: what `mailraft-chaos sim` runs, without any process.
//! * [`scenarios`]: what `mailraft-chaos run` runs.

pub mod bench;
pub mod cluster;
pub mod history;
pub mod hung_disk;
pub mod imap;
pub mod name_server;
pub mod other_server;
pub mod plain;
pub mod scenarios;
pub mod set_clock;
pub mod simulate;
pub mod smtp;
pub mod wan;
pub mod wire;
