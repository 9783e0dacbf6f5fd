//! The checks against histories of the real mailbox engine, as they were and with something wrong in them.

#![allow(clippy::unwrap_used)]

mod alone;
mod generated;
mod repeats;
mod rules;
mod takeovers;
mod world;
