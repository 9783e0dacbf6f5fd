//! How much TLS a connection to another server has to have, and what is told of how that went.
//!
//! [`mta_sts`] and [`dane`] are what the other domain asks for; [`policy`] makes one decision for each server of both, of the
//! configuration and of what the sender asked for; [`hello`] knows servers that can't stand our first message of TLS;
//! [`report`] has the words of reports, which `mailraft_feedback` makes.

pub mod dane;
pub mod domain;
pub mod hello;
pub mod mta_sts;
pub mod policy;
pub mod report;
