//! What is written of a takeover: another region takes a partition over from its home by force.

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, LogPosition, NodeId, ReplicaId, Term};
use crate::row::RowBatch;

/// The longest word that a takeover keeps, in bytes.
pub const WORD_MAX_BYTES: usize = 512;

impl Incarnation {
    /// No term of an incarnation is as low as this, and every term of an earlier one is lower: so the logs of two of them
    /// agree only where they are one.
    pub fn first_term(&self) -> Term {
        if self.number < 2 { Term(0) } else { Term(u64::from(self.number) << 32) }
    }
}

/// A partition was taken over: what whoever has applied it tells those who do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOver {
    /// The incarnation that began.
    pub incarnation: Incarnation,
    /// Who votes in it, in rising order.
    pub voters: Vec<ReplicaId>,
    /// The last position of what was before it: all that follows it in a log of an earlier incarnation is not part of this
    /// one.
    pub fork: LogPosition,
}

/// A replica goes on as a voter of an incarnation. Durable before anything that follows from it, and never undone: only a
/// higher number takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Who votes in it, in rising order, until a change of members that is made in it.
    pub voters: Vec<ReplicaId>,
    /// Who said so and when, for people; at most [`WORD_MAX_BYTES`]. Empty where another replica told it.
    pub word: String,
}

/// What a replica's log keeps of takeovers, beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationMark {
    /// It is a voter of this incarnation; of the first one if there is none.
    pub adopted: Option<Adoption>,
    /// It heard of the same number with another nonce, and serves nothing until a higher one.
    pub contested: bool,
    /// It is no voter of this one, and serves nothing any more.
    pub sealed: Option<TakenOver>,
}

/// What the first entry of a new incarnation says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverBody {
    /// Who votes, with the nodes that they are on, in rising order.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// The highest replica id that the group ever had.
    pub highest: ReplicaId,
    /// The last position of what was before.
    pub fork: LogPosition,
    /// Rows of the control group that change with it; nothing in another partition.
    pub batch: RowBatch,
}

impl TakeoverBody {
    /// What is told of it.
    pub fn taken_over(&self, incarnation: Incarnation) -> TakenOver {
        let voters = self.voters.iter().map(|(replica, _)| *replica).collect();
        TakenOver { incarnation, voters, fork: self.fork }
    }
}
