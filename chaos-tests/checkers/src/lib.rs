//! The checks: whether a history of clients, sessions and replicas keeps to the ten rules of [`Rule`]. One library
//! for simulated and for real clusters; pure, and linear in the history's length.
//!
//! The log is the witness: every acknowledgement names its place there, and UIDs and MODSEQs are in the answers.
//! A model of each mailbox applies what took effect in the log's order; every answer, read, event and session's
//! view is compared with it, and real-time order with the log's.

//! * [`history`]: what is told of a run. [`checker`]: takes it in. [`report`]: what comes out.
//! * `model`, `names`: one mailbox as its log makes it. `operation`: one command's fate.
//! * `replay`, `answers`, `reads`: rules 1 to 5 and 7. `journal`, `views`: what sessions saw, rules 3 and 6.
//! * `order`: rule 9. `replicas`: rule 8. `service`: rule 10.

mod answers;
pub mod checker;
pub mod history;
mod journal;
mod model;
mod names;
mod operation;
mod order;
mod reads;
mod replay;
mod replicas;
pub mod report;
mod service;
mod views;

pub use checker::Checker;
pub use history::{At, Ended, Micros, Op, Record, Reply};
pub use report::{Bounds, Report, Rule, Violation};
