//! What keeps entries in a replica's log: it is cut below the lowest of a few named marks, and its status says which.

use mailraft_storage::Index;
use serde::{Deserialize, Serialize};

/// What still needs the entries after its mark. Whatever is to keep entries gets a name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LowWater {
    /// The rows: after a crash they are made again from what is not flushed.
    Flushed,
    /// Apply: it has not written so far yet.
    Applied,
    /// The log itself: entries after it are not durable.
    Synced,
    /// The other members: the slowest that its leader knows of, or whoever a follower may have to serve once it leads.
    /// Only up to the bounds for a slow follower's log; then it gets a snapshot.
    Followers,
    /// Other regions: the log after what all of them hold is kept on every replica, as any of them may have to serve them
    /// next, up to a bound of its own.
    Regions,
}

/// The index up to which each lets the log go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LowWaterMarks {
    pub flushed: Index,
    pub applied: Index,
    pub synced: Index,
    pub followers: Index,
    pub regions: Index,
}

impl LowWaterMarks {
    /// The lowest mark, by which the log is cut; of equal ones the first in the order of [`LowWater`].
    pub fn lowest(&self) -> (LowWater, Index) {
        let LowWaterMarks { flushed, applied, synced, followers, regions } = *self;
        let mut lowest = (LowWater::Flushed, flushed);
        let others = [
            (LowWater::Applied, applied),
            (LowWater::Synced, synced),
            (LowWater::Followers, followers),
            (LowWater::Regions, regions),
        ];
        for other in others {
            if other.1 < lowest.1 {
                lowest = other;
            }
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_mark_holds_the_log_whichever_it_is() {
        let marks = |flushed, applied, synced, followers, regions| LowWaterMarks {
            flushed: Index(flushed),
            applied: Index(applied),
            synced: Index(synced),
            followers: Index(followers),
            regions: Index(regions),
        };
        for (marks, holds) in [
            (marks(3, 9, 9, 9, 9), (LowWater::Flushed, Index(3))),
            (marks(9, 3, 9, 9, 9), (LowWater::Applied, Index(3))),
            (marks(9, 9, 3, 9, 9), (LowWater::Synced, Index(3))),
            (marks(9, 9, 9, 3, 9), (LowWater::Followers, Index(3))),
            (marks(9, 9, 9, 9, 3), (LowWater::Regions, Index(3))),
            (marks(9, 9, 9, 9, 9), (LowWater::Flushed, Index(9))),
        ] {
            assert_eq!(marks.lowest(), holds);
        }
    }
}
