//! The checks: whether a history of clients, sessions and replicas keeps to the rules of [`Rule`]. One library
//! for simulated and for real clusters; pure, and linear in the history's length.
//!
//! The log is the witness: every acknowledgement names its place there, and UIDs and MODSEQs are in the answers.
//! A model of each mailbox applies what took effect in the log's order; every answer, read, event and session's
//! view is compared with it, and real-time order with the log's.
//!
//! What whoever tells a history owes to it:
//!
//! * every command that changes a mailbox, whoever asked it, with its position, or its fate as [`Record::Resolved`]:
//!   after a command of unknown fate most of what does not fit proves nothing, and is only counted as skipped;
//! * a SELECT or LIST before the first command that names a folder by its id: ids are learnt, not foreseen;
//! * both [`Record::Opened`] (before the folder's events) and [`Record::Ended`] of a SELECT;
//! * at the end a read of every folder: what was accepted and is never read can't be missed.
//!
//! * [`history`]: what is told of a run. [`checker`]: takes it in. [`report`]: what comes out.
//! * `model`, `names`: one mailbox as its log makes it. `operation`: one command's fate.
//! * `orders`, `replay`, `pending`, `traces`, `answers`, `deliveries`, `repeats`, `subscriptions`, `reads`: rules 1 to 5 and 7.
//! * `journal`, `views`: what sessions saw, rules 3 and 6.
//! * `takeovers`: what of it is lost, rule 16.
//! * `order`: rule 9. `replicas`: rule 8. `service`: rule 10.

mod answers;
pub mod checker;
mod deliveries;
pub mod history;
mod journal;
mod model;
mod names;
mod operation;
mod order;
mod orders;
mod pending;
mod reads;
mod repeats;
mod replay;
mod replicas;
pub mod report;
mod service;
mod subscriptions;
mod takeovers;
mod traces;
mod unique_ids;
mod views;

pub use checker::Checker;
pub use history::{At, Ended, Micros, Op, Record, Reply};
pub use report::{Bounds, Report, Rule, Violation};
