//! What a home may have promised, as far as a log in another region has it: settings and modes that are not applied there yet.
//! Whether they are committed a standby hears late, and once the home is lost never; by what it may have answered meanwhile
//! they count as if they were.

use mailraft_storage::{Entry, EntryKind, Index};
use raft::eraftpb;
use serde::{Deserialize, Serialize};

use crate::mode::ModeRow;
use crate::regions::RegionsRow;

/// What an entry of the control group's log changes of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InLog {
    /// Where it stands.
    pub index: Index,
    /// The row about regions, if it writes that.
    pub row: Option<RegionsRow>,
    /// The row about the mode, if it writes that.
    pub mode: Option<ModeRow>,
}

impl InLog {
    /// What this entry changes; None if nothing, or if it can't be read.
    pub(crate) fn of(entry: &eraftpb::Entry) -> Option<Self> {
        if entry.data.is_empty() {
            return None;
        }
        let batch = match Entry::decode(&entry.data).ok()?.kind {
            EntryKind::Rows(body) => body.batch,
            EntryKind::Begin | EntryKind::Chunk(_) | EntryKind::Takeover(_) => return None,
        };
        let (row, mode) = (RegionsRow::of_batch(&batch).ok()?, ModeRow::of_batch(&batch).ok()?);
        (row.is_some() || mode.is_some()).then_some(InLog { index: Index(entry.index), row, mode })
    }
}
