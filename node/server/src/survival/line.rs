//! A backup region as it is now.

use serde::{Deserialize, Serialize};

use crate::filling::Filling;

/// How a backup region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionState {
    /// It holds all that was answered.
    Holds,
    /// It lacks something that was answered, within the bound.
    Behind,
    /// It does not confirm, and new mail waits or is deferred.
    Stopped,
    /// The home answers alone.
    Alone,
    /// The home was alone, and waits for it again; it does not hold yet all that was answered then.
    Returning,
    /// It does not hold everything yet, and answers do not wait for it.
    Filling,
    /// Answers do not wait for it: it was taken out.
    Removed,
    /// Of some partitions nobody says how far it is.
    Unknown,
    /// Another region took over from it: it has no standbys.
    LeftBehind,
}

/// A backup region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionLine {
    /// Its name.
    pub region: String,
    /// How it is.
    pub state: RegionState,
    /// The same in words.
    pub sentence: String,
    /// Whether answers wait for it.
    pub in_sync_set: bool,
    /// The oldest entry that it does not hold was applied so long ago at home, in milliseconds; 0 if it holds everything.
    pub behind_ms: u64,
    /// The home has answered alone, or has waited again, since then, in milliseconds since 1970; None where it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_since_unix_ms: Option<u64>,
    /// So many answers were given alone, by the processes that run.
    #[serde(default)]
    pub alone_answers: u64,
    /// So many entries are at home that it does not hold.
    pub lag_entries: u64,
    /// A majority of its standbys of some partition was not heard for so long, in milliseconds; None if never.
    pub silent_ms: Option<u64>,
    /// For so long it has confirmed nothing of some partition, in milliseconds; 0 if all is well. New mail is deferred, and
    /// the home goes on alone, by this.
    #[serde(default)]
    pub unconfirmed_ms: u64,
    /// There and back, in milliseconds, as far as that was measured.
    pub round_trip_ms: Option<u64>,
    /// Standbys of the partition that has fewest that confirm.
    pub standbys: usize,
    /// So many of those confirm.
    pub confirming: usize,
    /// Of all partitions, so many standbys were found to differ from home, and hold nothing any more.
    #[serde(default)]
    pub disagreeing: usize,
    /// Partitions of which it holds everything.
    pub partitions_held: usize,
    /// How much of its copy is there.
    #[serde(default)]
    pub filling: Filling,
    /// The sums over the rows of its standbys were found to be the home's so many seconds ago, of the partition of which that is
    /// longest; None before that was done once. (How long ago a node read every row of its disk is in its `scrub`.)
    pub compared_s: Option<u64>,
}

impl RegionLine {
    /// Whether a majority of its standbys of each partition confirms even if one more of them dies.
    pub(super) fn bears_one_more(&self) -> bool {
        self.confirming > self.standbys / 2 + 1
    }
}
