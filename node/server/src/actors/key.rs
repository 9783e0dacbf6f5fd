//! Names for attached sessions.

/// A session among all that are attached on this node: connection 0 is this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The connection it came by.
    pub connection: u64,
    /// Its number on it.
    pub session: u64,
}
