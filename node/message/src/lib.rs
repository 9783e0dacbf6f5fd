//! What a mail server must know of a message: its header fields raw, its ENVELOPE, its MIME tree with the
//! byte range of every part, text to search in, and whether a message fits a query. Pure.
//!
//! Taking a message apart costs what is made of it, whatever it is made from: see [`budget`].

pub mod body_search;
pub mod budget;
pub mod date;
mod described;
pub mod envelope;
pub mod header;
pub mod octets;
pub mod query;
pub mod search;
pub mod structure;
pub mod transfer;

pub use body_search::BodySearch;
pub use budget::TooMuch;
pub use described::Described;
pub use envelope::{Address, Envelope};
pub use query::Query;
pub use structure::{Body, Part};
