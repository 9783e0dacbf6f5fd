//! Both stores in memory. They can crash, tear and lose writes, as the real ones can.

#[doc(hidden)]
pub mod conformance;
mod log;
mod rows;

pub use log::MemoryLog;
pub use rows::MemoryRows;
