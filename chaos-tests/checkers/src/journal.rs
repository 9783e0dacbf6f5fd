//! What the log did to each folder, entry by entry: what sessions' views are compared with.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::FolderId;
use mailraft_storage::CommandId;

use crate::history::{At, Micros};
use crate::model::{Effect, Folder, Model, Number};

/// One change of one folder.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub entry: usize,
    /// Among the mailbox's operations.
    pub operation: usize,
    pub origin: CommandId,
    pub folder: Number,
    pub modseq: u64,
    /// Somebody told its MODSEQ.
    pub told: bool,
    /// MODSEQ and flags depend on an order that nobody told.
    pub unsure: bool,
    pub effect: Effect,
    /// The folder after it.
    pub after: FolderState,
}

/// A folder after an entry that changed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub entry: usize,
    /// The last entry of whose changes sessions are told.
    pub told: usize,
    pub state: FolderState,
}

/// What a folder comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FolderState {
    pub highest_modseq: u64,
    pub highest_unsure: bool,
    pub messages: usize,
    pub hash: u64,
    pub unsure: bool,
}

/// An entry of the log, by its number: 0 is the mailbox's beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub at: Option<At>,
    /// The mailbox's last MODSEQ after it.
    pub modseq: u64,
    /// Which MODSEQ that is depends on an order that nobody told.
    pub unsure: bool,
}

/// All changes of a mailbox in the log's order.
#[derive(Debug)]
pub(crate) struct Journal {
    pub entries: Vec<Entry>,
    pub logged: Vec<Logged>,
    points: BTreeMap<Number, Vec<Point>>,
    origins: BTreeMap<CommandId, Vec<usize>>,
    /// Whether a place that is no more went by MOVE; true for those that are there too once they went.
    gone: BTreeMap<(Number, u32), bool>,
    added: BTreeMap<(Number, u32), usize>,
    folders: BTreeMap<(FolderId, u32), Number>,
    /// So many MODSEQs were taken by what may have been done before a term began alone, or in it: which, the next answer with one
    /// tells.
    pub doubted: u64,
    /// Some changes here may not have been: what does not fit proves nothing.
    pub doubt: bool,
    /// Commands that may or may not have been carried out.
    pub doubtful: BTreeSet<CommandId>,
}

impl Journal {
    /// Of a mailbox that has its first folders.
    pub fn new(model: &Model) -> Self {
        let mut journal = Journal {
            entries: vec![Entry { at: None, modseq: model.modseq(), unsure: false }],
            logged: Vec::new(),
            points: BTreeMap::new(),
            origins: BTreeMap::new(),
            gone: BTreeMap::new(),
            added: BTreeMap::new(),
            folders: BTreeMap::new(),
            doubted: 0,
            doubt: false,
            doubtful: BTreeSet::new(),
        };
        for (number, folder) in model.folders() {
            journal.points.insert(number, vec![Point { entry: 0, told: 0, state: FolderState::of(folder) }]);
        }
        journal
    }

    /// The number of the entry that is being read.
    pub fn last_entry(&self) -> usize {
        self.entries.len() - 1
    }

    /// An entry begins.
    pub fn begin(&mut self, at: Option<At>, model: &Model) {
        self.entries.push(Entry { at, modseq: model.modseq(), unsure: false });
    }

    /// What comes next is of this position. If that is of a later incarnation, an entry begins it of which nothing is told, but
    /// folders are others. Before it a term may have begun alone, or another incarnation, of which nobody was told but who resumed
    /// a folder in it, at one of these MODSEQs; whether a term has.
    pub fn enters(&mut self, at: At, resumed: &[(Micros, u64)], model: &mut Model) -> bool {
        if at.incarnation <= model.incarnation {
            return false;
        }
        let mut told: Vec<u64> = resumed.iter().map(|(_, modseq)| *modseq).collect();
        told.sort_unstable();
        let mut jumped = false;
        for modseq in told {
            let of = Model::incarnation_of(modseq);
            if of > model.incarnation && of < at.incarnation {
                self.begins_incarnation(of, at.partition, jumped, model);
            }
            jumped |= self.jumps(Some(modseq), false, model);
        }
        self.begins_incarnation(at.incarnation, at.partition, jumped, model);
        jumped
    }

    fn begins_incarnation(&mut self, incarnation: u32, partition: u32, unsure: bool, model: &mut Model) {
        model.enters(incarnation, unsure);
        self.begins_anew(Some(At { partition, incarnation, index: 0 }), model);
    }

    /// What comes next tells of this MODSEQ. If it is as far above the last as only a term that began alone takes it, such a
    /// term has begun, by an entry of which nothing is told, and folders are others. Whether it is.
    pub fn jumps(&mut self, told: Option<u64>, within_entry: bool, model: &mut Model) -> bool {
        let jumps = told.is_some_and(|told| model.jumps_to(told, within_entry));
        if jumps {
            self.doubts_untold(model);
            // Between the entry before and the next one.
            let at = self.entries.last().and_then(|entry| entry.at);
            self.begins_anew(at, model);
            // What the first entries after it took nobody may have told.
            self.end(model, true);
        }
        jumps
    }

    /// What came last and nobody told the MODSEQ of may have been done in that term already.
    fn doubts_untold(&mut self, model: &mut Model) {
        self.doubted = 0;
        for logged in self.logged.iter_mut().rev().take_while(|logged| !logged.told) {
            self.doubted += 1;
            logged.unsure = true;
            model.doubts(logged.folder, logged.modseq);
            self.entries[logged.entry..].iter_mut().for_each(|entry| entry.unsure = true);
            let points = self.points.get_mut(&logged.folder).into_iter().flatten();
            for point in points.filter(|point| point.entry >= logged.entry) {
                (point.state.unsure, point.state.highest_unsure) = (true, true);
            }
        }
    }

    fn begins_anew(&mut self, at: Option<At>, model: &mut Model) {
        self.begin(at, model);
        let entry = self.last_entry();
        model.entry = entry;
        for (number, folder) in model.folders() {
            let points = self.points.entry(number).or_default();
            let told = points.last().map_or(0, |p| p.told);
            points.push(Point { entry, told, state: FolderState::of(folder) });
        }
    }

    /// The last entry is whole.
    pub fn end(&mut self, model: &Model, unsure: bool) {
        if let Some(entry) = self.entries.last_mut() {
            entry.modseq = model.modseq();
            entry.unsure |= unsure;
        }
    }

    /// Takes the changes of the last entries over.
    pub fn settle(&mut self, fresh: Vec<Logged>) {
        for change in fresh {
            let (folder, entry) = (change.folder, change.entry);
            let tells = match &change.effect {
                Effect::Added(messages) => {
                    self.added.extend(messages.iter().map(|(uid, _)| ((folder, *uid), entry)));
                    true
                }
                Effect::Flagged(_) => true,
                Effect::Expunged { uids, moved } => {
                    self.gone.extend(uids.iter().map(|uid| ((folder, uid), *moved)));
                    true
                }
                Effect::Deleted { uids } => {
                    self.gone.extend(uids.iter().map(|uid| ((folder, uid), false)));
                    true
                }
                Effect::Nothing => false,
            };
            let points = self.points.entry(folder).or_default();
            let before = points.last().map_or(0, |p| p.told);
            if points.last().is_some_and(|p| p.entry == entry) {
                points.pop();
            }
            let told = if tells { entry } else { before };
            points.push(Point { entry, told, state: change.after });
            self.origins.entry(change.origin).or_default().push(self.logged.len());
            self.logged.push(change);
        }
    }

    pub fn learn_folder(&mut self, id: FolderId, uid_validity: u32, number: Number) {
        self.folders.entry((id, uid_validity)).or_insert(number);
    }

    pub fn folder(&self, id: FolderId, uid_validity: u32) -> Option<Number> {
        self.folders.get(&(id, uid_validity)).copied()
    }

    /// Every folder that had this id.
    pub fn folders_of(&self, id: FolderId) -> impl Iterator<Item = Number> {
        self.folders.range((id, 0)..=(id, u32::MAX)).map(|(_, number)| *number)
    }

    /// What a command changed.
    pub fn of_origin(&self, id: CommandId) -> impl Iterator<Item = &Logged> {
        self.origins.get(&id).into_iter().flatten().map(|at| &self.logged[*at])
    }

    /// The last entry that a position shows.
    pub fn entry_at(&self, position: At) -> usize {
        self.entries.partition_point(|entry| entry.at.is_none_or(|at| at <= position)).saturating_sub(1)
    }

    /// The entry that gave this MODSEQ; None if none did.
    pub fn entry_of_modseq(&self, modseq: u64) -> Option<usize> {
        let at = self.entries.partition_point(|entry| entry.modseq < modseq);
        (at < self.entries.len()).then_some(at)
    }

    /// A folder after an entry.
    pub fn point(&self, folder: Number, entry: usize) -> Option<&Point> {
        let points = self.points.get(&folder)?;
        points.partition_point(|p| p.entry <= entry).checked_sub(1).map(|at| &points[at])
    }

    /// Which entry put a message there.
    pub fn added(&self, folder: Number, uid: u32) -> Option<usize> {
        self.added.get(&(folder, uid)).copied()
    }

    /// Whether a message is no more, and then whether it went by MOVE.
    pub fn gone(&self, folder: Number, uid: u32) -> Option<bool> {
        self.gone.get(&(folder, uid)).copied()
    }
}

impl FolderState {
    /// A folder as the model has it.
    pub fn of(folder: &Folder) -> Self {
        FolderState {
            highest_modseq: folder.highest_modseq,
            highest_unsure: folder.highest_unsure,
            messages: folder.messages.len(),
            hash: folder.hash,
            unsure: folder.unsure > 0,
        }
    }
}
