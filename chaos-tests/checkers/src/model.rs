//! The model of one mailbox: what each command answers and changes, without rows, entries or keys.
//!
//! Deciding is pure: the steps it hands out are taken by [`Model::commit`]. So a command can be tried at several
//! places of an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mailraft_mailbox::api::{
    Answer, FOLDER_NAME_MAX_BYTES, FolderId, HIERARCHY_SEPARATOR, Refusal, SpecialUse, StoreMode,
};
use mailraft_mailbox::{Flags, SystemFlag, UidSet};

use crate::history::Op;
use crate::names::{INBOX, above, allowed, spelt};

/// UIDs go on so far above those that are known when another region takes over.
const UID_JUMP: u32 = 1 << 20;
/// A MODSEQ is a counter of this many bits below the incarnation's number.
const MODSEQ_COUNTER_BITS: u32 = 40;
/// UIDs go on so far above those that are known in a term that began while the home answered alone.
pub(crate) const ALONE_UID_JUMP: u32 = 1 << 13;
/// No entry takes MODSEQs as far as a term does that began while the home answered alone.
const ALONE_MODSEQ_JUMP: u64 = 1 << 20;
/// What a new mailbox has.
const FIRST_FOLDERS: [(&str, Option<SpecialUse>); 6] = [
    (INBOX, None),
    ("Drafts", Some(SpecialUse::Drafts)),
    ("Sent", Some(SpecialUse::Sent)),
    ("Junk", Some(SpecialUse::Junk)),
    ("Trash", Some(SpecialUse::Trash)),
    ("Archive", Some(SpecialUse::Archive)),
];

/// A folder in the order of making; one that was deleted and made again has another number.
pub(crate) type Number = u32;

/// A message in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub marker: u64,
    pub flags: Flags,
    pub modseq: u64,
    /// Flags and MODSEQ depend on an order within an entry that nobody told; the next read tells them.
    pub unsure: bool,
    /// It came from outside rather than from a COPY or MOVE.
    pub stored: bool,
}

/// A folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    pub name: String,
    pub id: Option<FolderId>,
    pub uid_validity: Option<u32>,
    pub uid_next: u32,
    /// UIDs go on at an unknown place: it was deleted and made again.
    pub uid_next_unknown: bool,
    pub highest_modseq: u64,
    /// The highest MODSEQ depends on an order that nobody told.
    pub highest_unsure: bool,
    pub selectable: bool,
    pub special_use: Option<SpecialUse>,
    pub messages: BTreeMap<u32, Message>,
    pub unseen: u32,
    /// How many messages are unsure.
    pub unsure: u32,
    /// Of UIDs and flags, so that views compare in one step.
    pub hash: u64,
}

/// All of a mailbox. A copy shares folders until one of both changes.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub incarnation: u32,
    counter: u64,
    folders: BTreeMap<Number, Arc<Folder>>,
    names: BTreeMap<String, Number>,
    pub subscriptions: BTreeSet<String>,
    ids: BTreeMap<FolderId, Number>,
    /// Every UIDVALIDITY that was seen: whose it is, and by which entry that folder was made.
    validities: BTreeMap<u32, (Number, usize)>,
    made_by: BTreeMap<Number, usize>,
    made: Number,
    /// Which entry commits now.
    pub entry: usize,
}

/// What a command would do.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    /// UIDVALIDITY is 0 where it is not known yet.
    pub result: Result<Answer, Refusal>,
    pub steps: Vec<Step>,
}

/// One change of one folder, or of names.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Make { name: String, special_use: Option<SpecialUse> },
    Revive { folder: Number },
    Add { folder: Number, messages: Vec<(u32, Message)> },
    Flag { folder: Number, changed: Vec<(u32, Flags)> },
    Take { folder: Number, uids: Vec<u32>, moved: bool },
    Empty { folder: Number },
    Touch { folder: Number },
    Forget { name: String },
    RenameTree { from: String, to: String },
    Subscribe { name: String, on: bool },
}

/// What a step did to a folder, as sessions are told.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Added(Vec<(u32, Flags)>),
    Flagged(Vec<(u32, Flags)>),
    Expunged {
        uids: UidSet,
        moved: bool,
    },
    Deleted {
        uids: UidSet,
    },
    /// Only HIGHESTMODSEQ rose: no session is told.
    Nothing,
}

impl Step {
    /// How many MODSEQs it takes.
    pub fn cost(&self) -> u64 {
        match self {
            Step::Make { .. }
            | Step::Revive { .. }
            | Step::Add { .. }
            | Step::Flag { .. }
            | Step::Take { .. }
            | Step::Empty { .. }
            | Step::Touch { .. } => 1,
            Step::Forget { .. } | Step::RenameTree { .. } | Step::Subscribe { .. } => 0,
        }
    }
}

impl Model {
    /// A new mailbox with its first folders.
    pub fn new(incarnation: u32) -> Self {
        let mut model = Model {
            incarnation,
            counter: 0,
            folders: BTreeMap::new(),
            names: BTreeMap::new(),
            subscriptions: BTreeSet::new(),
            ids: BTreeMap::new(),
            validities: BTreeMap::new(),
            made_by: BTreeMap::new(),
            made: 0,
            entry: 0,
        };
        for (name, special_use) in FIRST_FOLDERS {
            model.make(name.to_owned(), special_use);
            model.subscriptions.insert(name.to_owned());
        }
        // It may have been made in an earlier one, of which nobody told.
        for folder in model.folders.values_mut().map(Arc::make_mut).filter(|_| incarnation > 1) {
            (folder.uid_next_unknown, folder.highest_unsure) = (true, true);
        }
        model
    }

    /// The number of the incarnation in which a MODSEQ was given.
    pub fn incarnation_of(modseq: u64) -> u32 {
        u32::try_from(modseq >> MODSEQ_COUNTER_BITS).unwrap_or(u32::MAX)
    }

    /// The last MODSEQ.
    pub fn modseq(&self) -> u64 {
        (u64::from(self.incarnation) << MODSEQ_COUNTER_BITS) | self.counter
    }

    /// The mailbox lives on in another region: its UIDs, its UIDVALIDITY and its modification sequences jump. `unsure` if nobody
    /// told the last of these.
    pub fn enters(&mut self, incarnation: u32, unsure: bool) {
        // Whether it was loaded in those between, nobody told.
        let is_next = incarnation == self.incarnation + 1;
        self.incarnation = incarnation;
        let highest_modseq = self.modseq();
        for folder in self.folders.values_mut().map(Arc::make_mut) {
            folder.uid_next = folder.uid_next.saturating_add(UID_JUMP);
            folder.uid_next_unknown |= !is_next;
            (folder.highest_modseq, folder.highest_unsure) = (highest_modseq, unsure);
        }
    }

    /// Whether a MODSEQ that is told next is so far above the last as only a term that began alone takes it.
    pub fn is_jump(&self, modseq: u64) -> bool {
        // What nobody knows to be done may count for some.
        Model::incarnation_of(modseq) == self.incarnation && modseq >= self.modseq() + ALONE_MODSEQ_JUMP / 2
    }

    /// If a MODSEQ that is told next is such a jump, the mailbox is in such a term: its UIDs, its UIDVALIDITY and its modification
    /// sequences are further than those that are known, by how much is told with each folder. Modification sequences go on above
    /// this one, or as many below it as an entry takes. Whether it is.
    pub fn jumps_to(&mut self, modseq: u64, within_entry: bool) -> bool {
        if !self.is_jump(modseq) {
            return false;
        }
        self.skip_to(if within_entry { modseq - ALONE_MODSEQ_JUMP / 4 } else { modseq });
        for folder in self.folders.values_mut().map(Arc::make_mut) {
            (folder.uid_next_unknown, folder.highest_unsure) = (true, true);
        }
        true
    }

    /// Which MODSEQ the messages of this one in a folder have is not known any more, nor what comes next is compared with.
    pub fn doubts(&mut self, number: Number, modseq: u64) {
        let Some(folder) = self.folder_mut(number) else { return };
        let unsure: Vec<u32> =
            folder.messages.iter().filter(|(_, m)| m.modseq == modseq).map(|(uid, _)| *uid).collect();
        for uid in unsure {
            if let Some(message) = folder.take(uid) {
                folder.put(uid, Message { unsure: true, ..message });
            }
        }
    }

    /// Goes on above this MODSEQ, if that is further.
    pub fn skip_to(&mut self, modseq: u64) {
        self.counter = self.counter.max(modseq & ((1 << MODSEQ_COUNTER_BITS) - 1));
    }

    pub fn folder(&self, number: Number) -> Option<&Folder> {
        self.folders.get(&number).map(AsRef::as_ref)
    }

    pub fn folder_mut(&mut self, number: Number) -> Option<&mut Folder> {
        self.folders.get_mut(&number).map(Arc::make_mut)
    }

    pub fn folders(&self) -> impl Iterator<Item = (Number, &Folder)> {
        self.folders.iter().map(|(number, folder)| (*number, folder.as_ref()))
    }

    /// The places of a message.
    pub fn places_of(&self, marker: u64) -> impl Iterator<Item = (Number, u32)> {
        let folders = self.folders.iter().flat_map(|(number, f)| f.messages.iter().map(|(uid, m)| (*number, *uid, m)));
        folders.filter(move |(.., message)| message.marker == marker).map(|(number, uid, _)| (number, uid))
    }

    pub fn named(&self, name: &str) -> Option<Number> {
        self.names.get(&spelt(name)).copied()
    }

    /// Which folder an id stands for, be it there or gone. None if nobody told.
    pub fn number_of(&self, id: FolderId) -> Option<Number> {
        self.ids.get(&id).copied()
    }

    /// The folder of this UIDVALIDITY.
    pub fn of_validity(&self, uid_validity: u32) -> Option<Number> {
        self.validities.get(&uid_validity).map(|(number, _)| *number)
    }

    /// The folder of a name that can be opened.
    pub fn opened_name(&self, name: &str) -> Option<(Number, &Folder)> {
        let number = self.named(name)?;
        self.folder(number).filter(|f| f.selectable).map(|f| (number, f))
    }

    /// The folder of an id if it can be opened.
    pub fn opened(&self, id: FolderId) -> Result<(Number, &Folder), Refusal> {
        let number = self.number_of(id).ok_or(Refusal::FolderGone)?;
        let folder = self.folder(number).filter(|f| f.selectable).ok_or(Refusal::FolderGone)?;
        Ok((number, folder))
    }

    /// Learns a folder's id.
    ///
    /// # Errors
    /// If the id is another folder's, or the folder has another.
    pub fn learn_id(&mut self, number: Number, id: FolderId) -> Result<(), String> {
        if let Some(other) = self.ids.get(&id).filter(|other| **other != number) {
            return Err(format!("folder id {} is that of folder number {other}, now of {number}", id.0));
        }
        let Some(folder) = self.folders.get(&number) else { return Ok(()) };
        match folder.id {
            Some(known) if known != id => Err(format!("{} had the id {}, now {}", folder.name, known.0, id.0)),
            Some(_) => Ok(()),
            None => {
                self.ids.insert(id, number);
                if let Some(folder) = self.folder_mut(number) {
                    folder.id = Some(id);
                }
                Ok(())
            }
        }
    }

    /// Whether a folder may have this UIDVALIDITY.
    ///
    /// # Errors
    /// If it has another, another folder had it, or UIDVALIDITYs would not rise with the folders made.
    pub fn fits_validity(&self, number: Number, uid_validity: u32) -> Result<(), String> {
        let Some(folder) = self.folders.get(&number) else { return Ok(()) };
        if let Some(known) = folder.uid_validity {
            if known == uid_validity {
                return Ok(());
            }
            return Err(format!("{} had UIDVALIDITY {known}, now {uid_validity}", folder.name));
        }
        if uid_validity == 0 || self.validities.contains_key(&uid_validity) {
            return Err(format!("{} has UIDVALIDITY {uid_validity}, which was another folder's", folder.name));
        }
        let made = self.made_by.get(&number).copied().unwrap_or_default();
        let below = self.validities.range(..uid_validity).next_back();
        let above = self.validities.range(uid_validity..).next();
        if below.is_some_and(|(_, (_, by))| *by > made) || above.is_some_and(|(_, (_, by))| *by < made) {
            return Err(format!("{} has UIDVALIDITY {uid_validity}: they don't rise as folders are made", folder.name));
        }
        Ok(())
    }

    /// Learns a folder's UIDVALIDITY that fits.
    pub fn learn_validity(&mut self, number: Number, uid_validity: u32) {
        if self.folders.get(&number).is_some_and(|f| f.uid_validity.is_none()) {
            let made = self.made_by.get(&number).copied().unwrap_or_default();
            self.validities.insert(uid_validity, (number, made));
            if let Some(folder) = self.folder_mut(number) {
                folder.uid_validity = Some(uid_validity);
            }
        }
    }

    /// What a changing command would do now.
    pub fn decide(&self, op: &Op) -> Decision {
        match self.try_decide(op) {
            Ok(decision) => decision,
            Err(refusal) => Decision { result: Err(refusal), steps: Vec::new() },
        }
    }

    fn try_decide(&self, op: &Op) -> Result<Decision, Refusal> {
        match op {
            Op::Deliver { marker, .. } => self.put(INBOX, *marker, &Flags::none(), Refusal::NoSuchFolder),
            Op::Append { folder, marker, flags, date: _ } => self.put(folder, *marker, flags, Refusal::TryCreate),
            Op::Store { folder, uids, mode, flags, unchanged_since } => {
                self.store(*folder, uids, *mode, flags, *unchanged_since)
            }
            Op::Copy { folder, uids, to } => self.copy(*folder, uids, to, false),
            Op::Move { folder, uids, to } => self.copy(*folder, uids, to, true),
            Op::Expunge { folder, uids } => {
                let all = UidSet::range(1, u32::MAX);
                self.take(*folder, uids.as_ref().unwrap_or(&all), |message| message.flags.has(SystemFlag::Deleted))
            }
            Op::Remove { folder, uids } => self.take(*folder, uids, |_| true),
            Op::Create { name } => self.create(name),
            Op::Delete { name } => self.delete(name),
            Op::Rename { from, to } => self.rename(from, to),
            Op::Subscribe { name, on } => {
                let name = if *on { allowed(name)? } else { spelt(name) };
                Ok(Decision { result: Ok(Answer::Done), steps: vec![Step::Subscribe { name, on: *on }] })
            }
            Op::Sync
            | Op::List
            | Op::Status { .. }
            | Op::Select { .. }
            | Op::Fetch { .. }
            | Op::Unselect
            | Op::ReadBody { .. }
            | Op::Maildrop
            | Op::UniqueIds { .. } => Ok(Decision { result: Ok(Answer::Done), steps: Vec::new() }),
        }
    }

    fn put(&self, name: &str, marker: u64, flags: &Flags, refusal: Refusal) -> Result<Decision, Refusal> {
        let (number, folder) = self.opened_name(name).ok_or(refusal)?;
        let modseq = self.modseq() + 1;
        let message = Message { marker, flags: flags.clone(), modseq, unsure: false, stored: true };
        Ok(Decision {
            result: Ok(Answer::Stored {
                uid_validity: folder.uid_validity.unwrap_or_default(),
                uid: folder.uid_next,
                modseq,
            }),
            steps: vec![Step::Add { folder: number, messages: vec![(folder.uid_next, message)] }],
        })
    }

    fn store(
        &self,
        id: FolderId,
        uids: &UidSet,
        mode: StoreMode,
        flags: &Flags,
        unchanged_since: Option<u64>,
    ) -> Result<Decision, Refusal> {
        let (number, folder) = self.opened(id)?;
        let (mut modified, mut changed) = (UidSet::new(), Vec::new());
        for (uid, message) in folder.within(uids) {
            if unchanged_since.is_some_and(|limit| message.modseq > limit) {
                modified.insert(uid);
                continue;
            }
            let now = match mode {
                StoreMode::Replace => flags.clone(),
                StoreMode::Add => message.flags.clone().union(flags),
                StoreMode::Remove => message.flags.clone().minus(flags),
            };
            if now != message.flags {
                changed.push((uid, now));
            }
        }
        let modseq = (!changed.is_empty()).then(|| self.modseq() + 1);
        let steps = if changed.is_empty() { Vec::new() } else { vec![Step::Flag { folder: number, changed }] };
        Ok(Decision { result: Ok(Answer::Flagged { modified, modseq }), steps })
    }

    fn copy(&self, id: FolderId, uids: &UidSet, to: &str, moved: bool) -> Result<Decision, Refusal> {
        let (source, _) = self.opened(id)?;
        let (target, folder) = self.opened_name(to).ok_or(Refusal::TryCreate)?;
        let uid_validity = folder.uid_validity.unwrap_or_default();
        let (from, steps) = self.copy_to(source, uids, target, folder.uid_next, moved);
        let to = (0..from.len() as u32).map(|n| folder.uid_next.saturating_add(n)).collect();
        Ok(Decision { result: Ok(Answer::Copied { uid_validity, from, to }), steps })
    }

    fn copy_to(&self, source: Number, uids: &UidSet, target: Number, first: u32, moved: bool) -> (Vec<u32>, Vec<Step>) {
        let (mut from, mut messages) = (Vec::new(), Vec::new());
        for (uid, message) in self.folder(source).into_iter().flat_map(|f| f.within(uids)) {
            messages.push((first.saturating_add(from.len() as u32), Message { stored: false, ..message.clone() }));
            from.push(uid);
        }
        let mut steps = Vec::new();
        if !from.is_empty() {
            steps.push(Step::Add { folder: target, messages });
            if moved {
                steps.push(Step::Take { folder: source, uids: from.clone(), moved: true });
            }
        }
        (from, steps)
    }

    fn take(&self, id: FolderId, uids: &UidSet, goes: impl Fn(&Message) -> bool) -> Result<Decision, Refusal> {
        let (number, folder) = self.opened(id)?;
        let gone: Vec<u32> = folder.within(uids).filter(|(_, message)| goes(message)).map(|(uid, _)| uid).collect();
        let result = Answer::Expunged {
            uids: gone.iter().copied().collect(),
            modseq: (!gone.is_empty()).then(|| self.modseq() + 1),
        };
        let take = Step::Take { folder: number, uids: gone.clone(), moved: false };
        Ok(Decision { result: Ok(result), steps: if gone.is_empty() { Vec::new() } else { vec![take] } })
    }

    fn create(&self, name: &str) -> Result<Decision, Refusal> {
        let name = allowed(name.strip_suffix(HIERARCHY_SEPARATOR).unwrap_or(name))?;
        let steps = match self.named(&name) {
            Some(number) if self.folder(number).is_some_and(|f| f.selectable) => return Err(Refusal::FolderExists),
            Some(folder) => vec![Step::Revive { folder }],
            None => {
                let mut steps = self.make_above(&name);
                steps.push(Step::Make { name, special_use: None });
                steps
            }
        };
        Ok(Decision { result: Ok(Answer::Done), steps })
    }

    fn make_above(&self, name: &str) -> Vec<Step> {
        let missing = above(name).filter(|above| self.named(above).is_none());
        missing.map(|above| Step::Make { name: above.to_owned(), special_use: None }).collect()
    }

    fn below<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a String, Number)> + use<'a> {
        let prefix = format!("{name}{HIERARCHY_SEPARATOR}");
        let from = self.names.range(prefix.clone()..);
        from.take_while(move |(name, _)| name.starts_with(&prefix)).map(|(name, number)| (name, *number))
    }

    fn delete(&self, name: &str) -> Result<Decision, Refusal> {
        let name = spelt(name);
        let number = self.named(&name).ok_or(Refusal::NoSuchFolder)?;
        let not_allowed = || Refusal::NotAllowed(String::new());
        if name == INBOX {
            return Err(not_allowed());
        }
        let has_below = self.below(&name).next().is_some();
        if has_below && !self.folder(number).is_some_and(|f| f.selectable) {
            return Err(not_allowed());
        }
        let mut steps = vec![Step::Empty { folder: number }];
        if !has_below {
            steps.push(Step::Forget { name });
        }
        Ok(Decision { result: Ok(Answer::Done), steps })
    }

    fn rename(&self, from: &str, to: &str) -> Result<Decision, Refusal> {
        let from = spelt(from);
        let number = self.named(&from).ok_or(Refusal::NoSuchFolder)?;
        let to = allowed(to)?;
        if self.named(&to).is_some() {
            return Err(Refusal::FolderExists);
        }
        let mut steps = self.make_above(&to);
        if from == INBOX {
            steps.push(Step::Make { name: to, special_use: None });
            let target = self.made + steps.len() as Number;
            steps.extend(self.copy_to(number, &UidSet::range(1, u32::MAX), target, 1, true).1);
            return Ok(Decision { result: Ok(Answer::Done), steps });
        }
        if to.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with(HIERARCHY_SEPARATOR)) {
            return Err(Refusal::NotAllowed(String::new()));
        }
        if self.below(&from).any(|(name, _)| name.len() - from.len() + to.len() > FOLDER_NAME_MAX_BYTES) {
            return Err(Refusal::BadName(String::new()));
        }
        steps.push(Step::Touch { folder: number });
        steps.push(Step::RenameTree { from, to });
        Ok(Decision { result: Ok(Answer::Done), steps })
    }

    /// Takes one step, and tells of it: which folder, at which MODSEQ. `unsure` marks what depends on an order
    /// that nobody told.
    pub fn commit(&mut self, step: Step, unsure: bool) -> Option<(Number, u64, Effect)> {
        match step {
            Step::Make { name, special_use } => {
                let (number, modseq) = self.make(name, special_use);
                self.folder_mut(number)?.highest_unsure = unsure;
                Some((number, modseq, Effect::Nothing))
            }
            Step::Revive { folder } => {
                let (number, modseq) = self.revive(folder, unsure)?;
                Some((number, modseq, Effect::Nothing))
            }
            Step::Add { folder: number, messages } => {
                let (folder, modseq) = self.touch(number, unsure)?;
                let mut told = Vec::with_capacity(messages.len());
                for (uid, message) in messages {
                    told.push((uid, message.flags.clone()));
                    let unsure = unsure || message.unsure;
                    folder.put(uid, Message { modseq, unsure, ..message });
                    folder.uid_next = folder.uid_next.max(uid.saturating_add(1));
                    folder.uid_next_unknown = false;
                }
                Some((number, modseq, Effect::Added(told)))
            }
            Step::Flag { folder: number, changed } => {
                let (folder, modseq) = self.touch(number, unsure)?;
                for (uid, flags) in &changed {
                    if let Some(message) = folder.take(*uid) {
                        folder.put(*uid, Message { flags: flags.clone(), modseq, ..message });
                    }
                }
                Some((number, modseq, Effect::Flagged(changed)))
            }
            Step::Take { folder: number, uids, moved } => {
                let (folder, modseq) = self.touch(number, unsure)?;
                for uid in &uids {
                    folder.take(*uid);
                }
                Some((number, modseq, Effect::Expunged { uids: uids.into_iter().collect(), moved }))
            }
            Step::Empty { folder: number } => {
                let (folder, modseq) = self.touch(number, unsure)?;
                let uids = folder.messages.keys().copied().collect();
                folder.messages.clear();
                (folder.unseen, folder.unsure, folder.hash) = (0, 0, 0);
                (folder.selectable, folder.special_use) = (false, None);
                Some((number, modseq, Effect::Deleted { uids }))
            }
            Step::Touch { folder: number } => {
                let (_, modseq) = self.touch(number, unsure)?;
                Some((number, modseq, Effect::Nothing))
            }
            Step::Forget { name } => {
                self.forget(&name);
                self.prune_above(&name);
                None
            }
            Step::RenameTree { from, to } => {
                let mut tree: Vec<(String, Number)> = self.below(&from).map(|(n, f)| (n.clone(), f)).collect();
                tree.extend(self.names.get(&from).map(|number| (from.clone(), *number)));
                for (name, number) in tree {
                    let renamed = format!("{to}{}", &name[from.len()..]);
                    self.names.remove(&name);
                    self.names.insert(renamed.clone(), number);
                    self.folder_mut(number)?.name = renamed;
                }
                self.prune_above(&from);
                None
            }
            Step::Subscribe { name, on } => {
                if on {
                    self.subscriptions.insert(name);
                } else {
                    self.subscriptions.remove(&name);
                }
                None
            }
        }
    }

    fn make(&mut self, name: String, special_use: Option<SpecialUse>) -> (Number, u64) {
        self.counter += 1;
        self.made += 1;
        let modseq = self.modseq();
        self.names.insert(name.clone(), self.made);
        self.made_by.insert(self.made, self.entry);
        let folder =
            Folder { name, uid_next: 1, highest_modseq: modseq, selectable: true, special_use, ..Folder::default() };
        self.folders.insert(self.made, Arc::new(folder));
        (self.made, modseq)
    }

    /// A mere level is a folder again: the same id, another UIDVALIDITY, and so another number here.
    fn revive(&mut self, level: Number, unsure: bool) -> Option<(Number, u64)> {
        let old = self.folders.remove(&level)?;
        let (number, modseq) = self.make(old.name.clone(), None);
        let folder = self.folder_mut(number)?;
        folder.id = old.id;
        folder.uid_next = old.uid_next;
        folder.uid_next_unknown = true;
        folder.highest_unsure = unsure;
        if let Some(id) = old.id {
            self.ids.insert(id, number);
        }
        Some((number, modseq))
    }

    fn touch(&mut self, number: Number, unsure: bool) -> Option<(&mut Folder, u64)> {
        self.counter += 1;
        let modseq = self.modseq();
        let folder = self.folder_mut(number)?;
        folder.highest_modseq = modseq;
        folder.highest_unsure = unsure;
        Some((folder, modseq))
    }

    fn forget(&mut self, name: &str) {
        if let Some(number) = self.names.remove(name) {
            self.folders.remove(&number);
        }
    }

    /// Mere levels without anything below them go with the last folder below.
    fn prune_above(&mut self, name: &str) {
        for above in above(name).rev() {
            let Some(number) = self.named(above) else { break };
            if self.folder(number).is_some_and(|f| f.selectable) || self.below(above).next().is_some() {
                break;
            }
            self.forget(above);
        }
    }
}

impl Folder {
    /// Those of a set that exist, UIDs rising.
    pub fn within<'a>(&'a self, uids: &'a UidSet) -> impl Iterator<Item = (u32, &'a Message)> {
        let ranges = uids.ranges().iter();
        ranges.flat_map(|&(lo, hi)| self.messages.range(lo..=hi).map(|(uid, message)| (*uid, message)))
    }

    pub fn put(&mut self, uid: u32, message: Message) {
        self.take(uid);
        self.hash = self.hash.wrapping_add(hash(uid, &message.flags));
        self.unseen += u32::from(!message.flags.has(SystemFlag::Seen));
        self.unsure += u32::from(message.unsure);
        self.messages.insert(uid, message);
    }

    pub fn take(&mut self, uid: u32) -> Option<Message> {
        let message = self.messages.remove(&uid)?;
        self.hash = self.hash.wrapping_sub(hash(uid, &message.flags));
        self.unseen -= u32::from(!message.flags.has(SystemFlag::Seen));
        self.unsure -= u32::from(message.unsure);
        Some(message)
    }
}

/// One message's share of a folder's hash; shares are added up.
pub(crate) fn hash(uid: u32, flags: &Flags) -> u64 {
    let mut hasher = DefaultHasher::new();
    (uid, flags).hash(&mut hasher);
    hasher.finish()
}
