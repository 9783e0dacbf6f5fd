//! What a mail server must know of a message: its header fields raw, its ENVELOPE, its MIME tree with the
//! byte range of every part, text to search in, whether a message fits a query, where it comes in an order, and in which
//! conversation it is. Pure.
//!
//! Taking a message apart costs what is made of it, whatever it is made from: see [`budget`].

pub mod body_search;
pub mod breath;
pub mod budget;
pub mod claims;
pub mod date;
mod described;
pub mod envelope;
pub mod grams;
pub mod header;
pub mod octets;
pub mod preview;
pub mod query;
pub mod search;
pub mod sort;
pub mod structure;
pub mod subject;
pub mod thread;
pub mod transfer;

pub use body_search::BodySearch;
pub use budget::TooMuch;
pub use described::Described;
pub use envelope::{Address, Envelope};
pub use query::Query;
pub use structure::{Body, Part};
