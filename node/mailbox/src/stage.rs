//! Changes too large for one entry, and the deletion of what is gone.
//!
//! A COPY of many messages writes its places in parts under a stage id; they count once the last entry
//! writes the stage's row. Until then they are garbage that only a new owner finds and sweeps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mailraft_storage::{RowBatch, RowKey, Table};

use crate::api::{Answer, FolderId, Refusal};
use crate::notice::News;
use crate::plant::{self, Fault};
use crate::records::{PlaceRecord, StageId, StageRecord, encode, stage_key};
use crate::state::{Dead, Garbage, State};
use crate::work::{Context, Row, Work, folder_bytes, key_bytes, place_bytes, row_bytes};

/// A staged change in progress. Meanwhile no other command is decided.
#[derive(Debug)]
pub(crate) struct Staged {
    pub result: Result<Answer, Refusal>,
    /// The parts that are still to be written before the last entry.
    pub parts: VecDeque<Vec<(RowKey, PlaceRecord)>>,
    /// Places already written.
    pub written: Vec<Dead>,
    /// What the last entry does.
    pub rows: BTreeMap<RowKey, Row>,
    pub requires: BTreeSet<RowKey>,
    pub touched: BTreeSet<FolderId>,
    pub news: Vec<News>,
    pub next: State,
}

impl Staged {
    /// Takes a change apart: new places into parts of at most `part_bytes`, all else into the last entry.
    pub fn split(work: Work<'_>, stage: StageId, result: Result<Answer, Refusal>, part_bytes: usize) -> Self {
        let mailbox = work.mailbox();
        let (mut rows, mut parts, mut part, mut bytes) = (BTreeMap::new(), VecDeque::new(), Vec::new(), 0);
        for (key, row) in work.rows {
            let Row::NewPlace(mut record) = row else {
                rows.insert(key, row);
                continue;
            };
            record.stage = Some(stage);
            // Its row and the content that it requires.
            let size = 2 * key_bytes(&key) + place_bytes(&record);
            if bytes + size > part_bytes && !part.is_empty() {
                parts.push_back(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.push((key, record));
        }
        parts.push_back(part);
        if !plant::is(Fault::StageNeverCounts) {
            rows.insert(stage_key(mailbox, stage), Row::Plain(encode(&StageRecord::Live)));
        }
        let requires = work.requires.into_iter().filter(|k| k.table != Table::Contents.number()).collect();
        Staged {
            result,
            parts,
            written: Vec::new(),
            rows,
            requires,
            touched: if plant::is(Fault::StageWithoutFolder) { BTreeSet::new() } else { work.touched },
            news: work.news,
            next: work.state,
        }
    }

    /// What the last entry's rows take of it, in bytes, as an upper bound.
    pub fn last_bytes(&self) -> usize {
        let rows: usize = self.rows.iter().map(|(key, row)| row_bytes(key, row)).sum();
        rows + self.requires.iter().map(key_bytes).sum::<usize>() + folder_bytes(&self.next, &self.touched)
    }

    /// Notes that the first part is written.
    pub fn part_written(&mut self) {
        for (key, _) in self.parts.pop_front().unwrap_or_default() {
            self.written.extend(place_of(&key).map(|(folder, uid)| Dead::Place(folder, uid)));
        }
    }
}

/// The folder and UID in a place's key.
pub(crate) fn place_of(key: &RowKey) -> Option<(FolderId, u32)> {
    let (folder, uid) = key.key.split_at_checked(4)?;
    Some((FolderId(u32::from_be_bytes(folder.try_into().ok()?)), u32::from_be_bytes(uid.try_into().ok()?)))
}

/// Rows that never counted, to be swept. None if there are none.
pub(crate) fn bury(state: &mut State, dead: Vec<Dead>) {
    if !dead.is_empty() {
        Arc::make_mut(&mut state.garbage).push_back(Arc::new(Garbage { tombstone: None, dead, done: 0 }));
    }
}

/// The next deletions: the rows, and the state after them. None if nothing is left to sweep.
pub(crate) fn sweep(state: &State, cx: &Context) -> Option<(RowBatch, State)> {
    let mailbox = cx.place.mailbox;
    let mut next = state.clone();
    let garbage = Arc::make_mut(&mut next.garbage);
    let mut item = garbage.pop_front()?;
    let mut keys = BTreeSet::new();
    let (mut done, all) = (item.done, item.dead.len());
    while done < all && keys.len() < cx.limits.sweep_max_rows {
        // A dead place's number may be in use again if its stage never counted.
        let dead = item.dead[done];
        let in_use = match dead {
            Dead::Place(folder, uid) => state.folder(folder).is_some_and(|f| f.get(uid).is_some()),
            Dead::Page(folder, page) => state.folder(folder).is_some_and(|f| f.has_page(page)),
            Dead::Expunged(folder, modseq) => state.folder(folder).is_some_and(|f| f.expunged.contains_key(&modseq)),
            Dead::Email(email, _) => state.email(email).is_some(),
        };
        if !in_use || plant::is(Fault::SweepInUse) {
            keys.extend(dead.keys(mailbox));
        }
        done += 1;
    }
    if plant::is(Fault::TombstoneFirst) {
        keys.extend(item.tombstone.map(|stage| stage_key(mailbox, stage)));
    }
    if done < all {
        Arc::make_mut(&mut item).done = done;
        garbage.push_front(item);
    } else {
        keys.extend(item.tombstone.map(|stage| stage_key(mailbox, stage)));
    }
    Some((RowBatch { puts: Vec::new(), deletes: keys.into_iter().collect() }, next))
}
