//! What connections between nodes are for.

/// What a stream between two nodes is for, as far as users of the driver are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Commands of sessions for mailboxes led elsewhere.
    Sessions,
    /// Message bodies in both directions.
    Bodies,
    /// Questions how a node is, between regions: no mail and no key.
    Status,
}

/// Everything that a stream can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Raft,
    Snapshot,
    User(StreamKind),
}

impl Purpose {
    /// Its number in the preamble.
    pub(crate) fn number(self) -> u8 {
        match self {
            Purpose::Raft => 1,
            Purpose::Snapshot => 2,
            Purpose::User(StreamKind::Sessions) => 3,
            Purpose::User(StreamKind::Bodies) => 4,
            Purpose::User(StreamKind::Status) => 5,
        }
    }

    /// The inverse of [`Purpose::number`].
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Purpose::Raft),
            2 => Some(Purpose::Snapshot),
            3 => Some(Purpose::User(StreamKind::Sessions)),
            4 => Some(Purpose::User(StreamKind::Bodies)),
            5 => Some(Purpose::User(StreamKind::Status)),
            _ => None,
        }
    }
}
