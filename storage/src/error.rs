//! What a store says when it can't.

/// What to do with a node whose data is damaged, for the end of a message. OPERATIONS has the rest.
pub const DAMAGED_NODE_ADVICE: &str =
    "leave this node down and keep its data: see \"A damaged node\" in docs/OPERATIONS.md";

/// A store could not read or write. A write error ends the process; nothing retries.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{what}: {detail}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The system's own words.
        detail: String,
    },
    /// Bytes were read that no version of Mailraft wrote, or a checksum is wrong.
    #[error("damaged data in {place}: {detail}")]
    Damaged {
        /// Table, row, file or entry.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by a newer version than this one knows.
    #[error("{place} has format version {found}, this binary reads up to {known}: run the newer mailraft")]
    Newer {
        /// Table, row, file or entry.
        place: String,
        /// The version found.
        found: u8,
        /// The newest version this binary reads.
        known: u8,
    },
}

impl StoreError {
    /// An I/O error with what was being done.
    pub fn io(what: impl Into<String>, error: impl std::fmt::Display) -> Self {
        StoreError::Io { what: what.into(), detail: error.to_string() }
    }

    /// Damage with its place.
    pub fn damaged(place: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        StoreError::Damaged { place: place.into(), detail: detail.to_string() }
    }
}
