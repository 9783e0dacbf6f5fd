//! The checks: whether a history of clients, sessions and replicas keeps to the ten rules of [`Rule`]. One library
//! for simulated and for real clusters; pure, and linear in the history's length.
//!
//! The log is the witness: every acknowledgement names its place there, and UIDs and MODSEQs are in the answers.
//! A model of each mailbox applies what took effect in the log's order; every answer, read, event and session's
//! view is compared with it, and real-time order with the log's.

pub mod checker;
pub mod history;
pub mod report;

pub use checker::Checker;
pub use history::{At, Ended, Micros, Op, Record, Reply};
pub use report::{Bounds, Report, Rule, Violation};
