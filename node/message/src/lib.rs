//! What a mail server must know of a message: its header fields raw, its ENVELOPE, its MIME tree with the
//! byte range of every part, and text to search in. Pure.

pub mod envelope;
pub mod header;
pub mod search;
pub mod structure;

pub use envelope::{Address, Envelope};
pub use structure::{Body, Part};
