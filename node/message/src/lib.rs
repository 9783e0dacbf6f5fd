//! What a mail server must know of a message: its header fields raw, its ENVELOPE, its MIME tree with the
//! byte range of every part, text to search in, and whether a message fits a query. Pure.

pub mod body_search;
pub mod envelope;
pub mod header;
pub mod query;
pub mod search;
pub mod structure;

pub use body_search::BodySearch;
pub use envelope::{Address, Envelope};
pub use query::Query;
pub use structure::{Body, Part};
