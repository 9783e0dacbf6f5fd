//! A mailbox in memory: what was applied, and copies of it to decide on.
//!
//! Everything large is shared between a state and its copies and copied only where one of them changes,
//! page by page. So deciding takes a copy of the whole mailbox, and what is not applied is thrown away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mailraft_storage::{CommandId, MailboxId, RowKey, UnixMillis};

use crate::api::{EmailId, FolderId, HIERARCHY_SEPARATOR, MessageState};
use crate::flags::{Flags, KeywordMemory, SystemFlag};
use crate::queue::items::Items;
use crate::queue::received::Received;
use crate::records::{
    AloneRecord, Counters, DeliveryRecord, EmailInfo, FolderRecord, ForkRecord, KeyedHash, RepeatRecord, StageId,
    chunk_key, content_key, expunged_key, message_id_key, page_key, page_of, place_key,
};
use crate::uids::UidSet;

const EMAIL_SHARDS: usize = 256;
/// What a message costs in memory, roughly, in bytes: its place, its entry among the emails.
const MESSAGE_MEMORY_BYTES: usize = 256;
/// What a folder costs in memory, roughly, in bytes.
const FOLDER_MEMORY_BYTES: usize = 512;
/// What a remembered delivery costs in memory, roughly, in bytes.
const DELIVERY_MEMORY_BYTES: usize = 120;
/// What a command costs in memory whose answer may not have been heard, roughly, in bytes.
const REPEAT_MEMORY_BYTES: usize = 200;
/// What a row that waits to be swept costs in memory, roughly, in bytes.
const DEAD_MEMORY_BYTES: usize = 80;
/// Deliveries are forgotten by the hour they came in.
const HOUR_MILLIS: u64 = 3_600_000;

/// All of one mailbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub counters: Counters,
    /// Whether the mailbox has its first folders.
    pub begun: bool,
    /// Where incarnations began in it, in rising order.
    pub forks: Vec<ForkRecord>,
    /// Terms that began alone in which it was loaded, in rising order; and whether the last of them is no row yet.
    pub alone: Vec<AloneRecord>,
    pub must_begin_alone: bool,
    folders: Arc<BTreeMap<FolderId, Arc<Folder>>>,
    names: Arc<BTreeMap<String, FolderId>>,
    subscriptions: Arc<BTreeMap<String, FolderId>>,
    emails: Emails,
    deliveries: Deliveries,
    /// Commands whose answers may not have been heard.
    repeats: Arc<BTreeMap<KeyedHash, Arc<RepeatRecord>>>,
    /// What waits here for others, in a queue mailbox.
    pub queue: Items,
    /// What came from queues.
    pub received: Received,
    /// Messages that lost their last place since memory went forward; some may have got one again.
    pub released: Vec<EmailId>,
    /// Rows that are logically gone and wait to be deleted.
    pub garbage: Arc<VecDeque<Arc<Garbage>>>,
}

/// A folder with its messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Folder {
    pub record: FolderRecord,
    /// What was expunged at which MODSEQ, above the record's floor.
    pub expunged: Arc<BTreeMap<u64, Arc<UidSet>>>,
    pages: BTreeMap<u32, Arc<Page>>,
    messages: u32,
}

/// The messages whose UIDs fall into one page, UIDs rising.
type Page = Vec<(u32, Message)>;

/// A message in a folder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub email: EmailId,
    pub flags: Flags,
    pub modseq: u64,
    pub size_bytes: u64,
    /// Whether the flags stand in the page's row rather than in the place's.
    pub paged: bool,
    /// When it came to the folder; None for what came before that was noted.
    pub saved: Option<UnixMillis>,
}

impl Message {
    pub fn seen_by_client(&self, uid: u32) -> MessageState {
        MessageState { uid, flags: self.flags.clone(), modseq: self.modseq }
    }
}

/// A message's content as far as it is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Email {
    pub info: EmailInfo,
    /// In how many places it is.
    pub places: u32,
}

/// Something that is gone, and whose rows are to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dead {
    Place(FolderId, u32),
    Page(FolderId, u32),
    Expunged(FolderId, u64),
    Email(EmailId, DeadEmail),
}

/// Where the rows of a message without places are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeadEmail {
    pub body: mailraft_storage::body::BodyId,
    pub chunks: u32,
    pub message_id: Option<KeyedHash>,
}

impl From<EmailInfo> for DeadEmail {
    fn from(info: EmailInfo) -> Self {
        DeadEmail { body: info.body, chunks: info.chunks, message_id: info.message_id }
    }
}

impl Dead {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        match self {
            Dead::Place(..) | Dead::Page(..) | Dead::Expunged(..) => 1,
            Dead::Email(_, email) => 2 + email.chunks as usize,
        }
    }

    pub fn keys(&self, mailbox: MailboxId) -> Vec<RowKey> {
        match self {
            Dead::Place(folder, uid) => vec![place_key(mailbox, *folder, *uid)],
            Dead::Page(folder, page) => vec![page_key(mailbox, *folder, *page)],
            Dead::Expunged(folder, modseq) => vec![expunged_key(mailbox, *folder, *modseq)],
            Dead::Email(id, email) => {
                let mut keys = vec![content_key(mailbox, *id)];
                keys.extend(email.message_id.map(|hash| message_id_key(mailbox, &hash, *id)));
                keys.extend((0..email.chunks).map(|n| chunk_key(mailbox, email.body, n)));
                keys
            }
        }
    }
}

/// What one change left behind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Garbage {
    /// The row that says these places are gone; deleted last. None for rows that never counted.
    pub tombstone: Option<StageId>,
    pub dead: Vec<Dead>,
    /// How many of them are deleted.
    pub done: usize,
}

impl State {
    pub fn folder(&self, id: FolderId) -> Option<&Folder> {
        self.folders.get(&id).map(Arc::as_ref)
    }

    pub fn folder_mut(&mut self, id: FolderId) -> Option<&mut Folder> {
        // Looked up first, so that a wrong id copies nothing.
        self.folders.contains_key(&id).then_some(())?;
        Arc::make_mut(&mut self.folders).get_mut(&id).map(Arc::make_mut)
    }

    pub fn folders(&self) -> impl Iterator<Item = (FolderId, &Folder)> {
        self.folders.iter().map(|(id, folder)| (*id, folder.as_ref()))
    }

    /// All names with their folders, sorted.
    pub fn names(&self) -> impl Iterator<Item = (&str, FolderId)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// The folder of an exact name, selectable or not.
    pub fn named(&self, name: &str) -> Option<FolderId> {
        self.names.get(name).copied()
    }

    /// The name of a folder, put together from its levels.
    #[cfg(test)]
    pub fn name_of(&self, id: FolderId) -> Option<String> {
        let mut record = &self.folder(id)?.record;
        let mut name = record.leaf.clone();
        while let Some(parent) = record.parent {
            record = &self.folder(parent)?.record;
            name = format!("{}{HIERARCHY_SEPARATOR}{name}", record.leaf);
        }
        Some(name)
    }

    /// The names below a name, at any depth.
    pub fn below(&self, name: &str) -> Vec<(String, FolderId)> {
        let prefix = format!("{name}{HIERARCHY_SEPARATOR}");
        self.names
            .range(prefix.clone()..)
            .take_while(|(n, _)| n.starts_with(&prefix))
            .map(|(n, id)| (n.clone(), *id))
            .collect()
    }

    /// Whether there is any.
    pub fn has_below(&self, name: &str) -> bool {
        let prefix = format!("{name}{HIERARCHY_SEPARATOR}");
        self.names.range(prefix.clone()..).next().is_some_and(|(n, _)| n.starts_with(&prefix))
    }

    pub fn add_folder(&mut self, id: FolderId, name: String, record: FolderRecord) {
        let folder = Folder { record, expunged: Arc::default(), pages: BTreeMap::new(), messages: 0 };
        let before = Arc::make_mut(&mut self.folders).insert(id, Arc::new(folder));
        assert!(before.is_none(), "folder id {} is used twice", id.0);
        Arc::make_mut(&mut self.names).insert(name, id);
    }

    pub fn remove_folder(&mut self, id: FolderId, name: &str) {
        Arc::make_mut(&mut self.folders).remove(&id);
        Arc::make_mut(&mut self.names).remove(name);
    }

    /// Changes only under which name a folder is found.
    pub fn rename_key(&mut self, from: &str, to: String) {
        let names = Arc::make_mut(&mut self.names);
        if let Some(id) = names.remove(from) {
            names.insert(to, id);
        }
    }

    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, FolderId)> {
        self.subscriptions.iter().map(|(name, id)| (name.as_str(), *id))
    }

    pub fn subscribed(&self, name: &str) -> Option<FolderId> {
        self.subscriptions.get(name).copied()
    }

    pub fn subscribe(&mut self, name: String, row: FolderId) {
        Arc::make_mut(&mut self.subscriptions).insert(name, row);
    }

    pub fn unsubscribe(&mut self, name: &str) {
        Arc::make_mut(&mut self.subscriptions).remove(name);
    }

    pub fn email(&self, id: EmailId) -> Option<&Email> {
        self.emails.get(id)
    }

    /// One more place of a message; the counters follow.
    pub fn hold_email(&mut self, id: EmailId, info: EmailInfo) {
        let email = self.emails.shard(id).entry(id).or_insert(Email { info, places: 0 });
        email.places += 1;
        if email.places == 1 {
            self.counters.messages += 1;
            self.counters.usage_bytes += info.size_bytes;
        }
    }

    /// One place less of a message; what it was if that was the last one.
    pub fn release_email(&mut self, id: EmailId) -> Option<EmailInfo> {
        let shard = self.emails.shard(id);
        let email = shard.get_mut(&id)?;
        email.places -= 1;
        if email.places > 0 {
            return None;
        }
        let info = email.info;
        shard.remove(&id);
        self.released.push(id);
        self.counters.messages -= 1;
        self.counters.usage_bytes -= info.size_bytes;
        Some(info)
    }

    pub fn delivery(&self, hash: &KeyedHash) -> Option<&DeliveryRecord> {
        self.deliveries.hours.values().rev().find_map(|hour| hour.get(hash))
    }

    pub fn remember_delivery(&mut self, hash: KeyedHash, record: DeliveryRecord) {
        let hour = Arc::make_mut(&mut self.deliveries.hours).entry(record.at.0 / self.deliveries.hour_ms).or_default();
        if Arc::make_mut(hour).insert(hash, record).is_none() {
            self.deliveries.count += 1;
        }
    }

    /// A state without anything, whose deliveries are forgotten by these stretches of a day.
    pub fn with_day(day_ms: u64) -> Self {
        let hour_ms = HOUR_MILLIS.min((day_ms / 24).max(1));
        State { deliveries: Deliveries { hour_ms, ..Deliveries::default() }, ..State::default() }
    }

    /// Whether [`State::forget_deliveries`] finds any that came before.
    pub fn has_deliveries_before(&self, before: UnixMillis) -> bool {
        self.deliveries.hours.keys().next().is_some_and(|hour| (hour + 1) * self.deliveries.hour_ms <= before.0)
    }

    /// Forgets at most `limit` deliveries, the oldest first, that came before `before` or exceed `keep`.
    pub fn forget_deliveries(&mut self, before: UnixMillis, keep: usize, limit: usize) -> Vec<KeyedHash> {
        let mut gone = Vec::new();
        while gone.len() < limit {
            let Some((&hour, rows)) = self.deliveries.hours.iter().next() else { break };
            let over = self.deliveries.count.saturating_sub(keep);
            let old = (hour + 1) * self.deliveries.hour_ms <= before.0;
            let room = if old { limit - gone.len() } else { over.min(limit - gone.len()) };
            if room == 0 {
                break;
            }
            let hashes: Vec<KeyedHash> = rows.keys().take(room).copied().collect();
            for hash in &hashes {
                self.remove_delivery(hour, hash);
            }
            gone.extend(hashes);
        }
        gone
    }

    /// Forgets one delivery, if it is there.
    pub fn forget_delivery(&mut self, hash: &KeyedHash) {
        let found = self.deliveries.hours.iter().find(|(_, rows)| rows.contains_key(hash)).map(|(hour, _)| *hour);
        if let Some(hour) = found {
            self.remove_delivery(hour, hash);
        }
    }

    fn remove_delivery(&mut self, hour: u64, hash: &KeyedHash) {
        let hours = Arc::make_mut(&mut self.deliveries.hours);
        let Some(rows) = hours.get_mut(&hour) else { return };
        let rows = Arc::make_mut(rows);
        if rows.remove(hash).is_some() {
            self.deliveries.count -= 1;
        }
        if rows.is_empty() {
            hours.remove(&hour);
        }
    }

    /// A command whose answer may not have been heard.
    pub fn repeat(&self, hash: &KeyedHash) -> Option<&RepeatRecord> {
        self.repeats.get(hash).map(Arc::as_ref)
    }

    pub fn remember_repeat(&mut self, hash: KeyedHash, record: RepeatRecord) {
        Arc::make_mut(&mut self.repeats).insert(hash, Arc::new(record));
    }

    /// Those of these commands that are there, by their hashes.
    pub fn repeats_of(&self, commands: &[CommandId]) -> impl Iterator<Item = (KeyedHash, CommandId)> {
        let there = self.repeats.iter().filter(|(_, repeat)| commands.contains(&repeat.command));
        there.map(|(hash, repeat)| (*hash, repeat.command))
    }

    /// Forgets these commands, of those that are there.
    pub fn forget_repeats_of(&mut self, commands: &[CommandId]) -> Vec<KeyedHash> {
        let gone = self.repeats_of(commands).map(|(hash, _)| hash).collect();
        self.remove_repeats(gone)
    }

    /// Whether [`State::forget_repeats`] finds any that came before.
    pub fn has_repeats_before(&self, before: UnixMillis) -> bool {
        self.repeats.values().any(|r| r.at < before)
    }

    /// Forgets the commands that came before `before`, and the oldest that exceed `keep`.
    pub fn forget_repeats(&mut self, before: UnixMillis, keep: usize) -> Vec<KeyedHash> {
        if self.repeats.len() <= keep && !self.has_repeats_before(before) {
            return Vec::new();
        }
        let mut by_age: Vec<(UnixMillis, KeyedHash)> = self.repeats.iter().map(|(hash, r)| (r.at, *hash)).collect();
        by_age.sort_unstable();
        let over = by_age.len().saturating_sub(keep);
        let gone = by_age.iter().enumerate().filter(|(n, (at, _))| *n < over || *at < before);
        let gone = gone.map(|(_, (_, hash))| *hash).collect();
        self.remove_repeats(gone)
    }

    pub fn remove_repeats(&mut self, gone: Vec<KeyedHash>) -> Vec<KeyedHash> {
        if !gone.is_empty() {
            let repeats = Arc::make_mut(&mut self.repeats);
            gone.iter().for_each(|hash| drop(repeats.remove(hash)));
        }
        gone
    }

    /// A rough measure of what all of it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let folders: usize = self
            .folders
            .values()
            .map(|f| {
                FOLDER_MEMORY_BYTES + f.messages as usize * MESSAGE_MEMORY_BYTES + f.expunged.len() * DEAD_MEMORY_BYTES
            })
            .sum();
        let mut keywords = KeywordMemory::default();
        self.folders.values().flat_map(|f| f.iter()).for_each(|(_, message)| keywords.count(&message.flags));
        let garbage: usize = self.garbage.iter().map(|g| g.dead.len() * DEAD_MEMORY_BYTES).sum();
        folders
            + keywords.bytes()
            + garbage
            + self.subscriptions.len() * FOLDER_MEMORY_BYTES
            + self.deliveries.count * DELIVERY_MEMORY_BYTES
            + self.repeats.len() * REPEAT_MEMORY_BYTES
            + self.queue.memory_bytes()
            + self.received.memory_bytes()
    }

    /// Whether both are the same mailbox, whatever was swept meanwhile.
    #[cfg(test)]
    pub fn same_mail(&self, other: &State) -> Result<(), String> {
        let check = |what: &str, same: bool| if same { Ok(()) } else { Err(format!("{what} differ")) };
        check("counters", self.counters == other.counters)?;
        check("begun", self.begun == other.begun)?;
        check("forks", self.forks == other.forks)?;
        check("terms that began alone", self.alone == other.alone)?;
        check("names", self.names == other.names)?;
        for (name, id) in self.names() {
            check("a name and its levels", self.name_of(id).as_deref() == Some(name))?;
        }
        check("subscriptions", self.subscriptions == other.subscriptions)?;
        for (id, folder) in self.folders() {
            if other.folder(id) != Some(folder) {
                return Err(format!("folder {} differs: {folder:#?} and {:#?}", id.0, other.folder(id)));
            }
        }
        check("folders", self.folders.len() == other.folders.len())?;
        check("emails", self.emails == other.emails)?;
        check("queue", self.queue == other.queue)?;
        check("received", self.received == other.received)?;
        check("repeats", self.repeats == other.repeats)?;
        check("deliveries", self.deliveries == other.deliveries)
    }
}

impl Folder {
    pub fn messages(&self) -> u32 {
        self.messages
    }

    pub fn get(&self, uid: u32) -> Option<&Message> {
        let page = self.pages.get(&page_of(uid))?;
        page.binary_search_by_key(&uid, |(u, _)| *u).ok().map(|at| &page[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Message)> {
        self.pages.values().flat_map(|page| page.iter().map(|(uid, message)| (*uid, message)))
    }

    /// The messages of one page.
    pub fn page(&self, page: u32) -> impl Iterator<Item = (u32, &Message)> {
        self.pages.get(&page).into_iter().flat_map(|page| page.iter().map(|(uid, message)| (*uid, message)))
    }

    pub fn has_page(&self, page: u32) -> bool {
        self.pages.contains_key(&page)
    }

    /// Those of a set that exist, UIDs rising. The set may be as huge as `1:*`.
    pub fn within<'a>(&'a self, uids: &'a UidSet) -> impl Iterator<Item = (u32, &'a Message)> {
        uids.ranges().iter().flat_map(move |&(lo, hi)| self.between(lo, hi))
    }

    /// From one UID to another, both included.
    pub fn between(&self, lo: u32, hi: u32) -> impl Iterator<Item = (u32, &Message)> {
        self.pages.range(page_of(lo)..=page_of(hi)).flat_map(move |(_, page)| {
            let (from, to) = (page.partition_point(|(u, _)| *u < lo), page.partition_point(|(u, _)| *u <= hi));
            page[from..to].iter().map(|(uid, message)| (*uid, message))
        })
    }

    pub fn insert(&mut self, uid: u32, message: Message) {
        let page = Arc::make_mut(self.pages.entry(page_of(uid)).or_default());
        assert!(page.last().is_none_or(|(last, _)| *last < uid), "UIDs rise");
        page.push((uid, message));
        self.messages += 1;
    }

    pub fn remove(&mut self, uid: u32) -> Option<Message> {
        let page = self.pages.get_mut(&page_of(uid))?;
        let at = page.binary_search_by_key(&uid, |(u, _)| *u).ok()?;
        let page = Arc::make_mut(page);
        let (_, message) = page.remove(at);
        if page.is_empty() {
            self.pages.remove(&page_of(uid));
        }
        self.messages -= 1;
        Some(message)
    }

    pub fn get_mut(&mut self, uid: u32) -> Option<&mut Message> {
        let page = self.pages.get_mut(&page_of(uid))?;
        let at = page.binary_search_by_key(&uid, |(u, _)| *u).ok()?;
        Arc::make_mut(page).get_mut(at).map(|(_, message)| message)
    }

    /// Takes all messages out.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.messages = 0;
    }

    pub fn unseen(&self) -> u32 {
        self.iter().filter(|(_, m)| !m.flags.has(SystemFlag::Seen)).count() as u32
    }

    pub fn size_bytes(&self) -> u64 {
        self.iter().map(|(_, m)| m.size_bytes).sum()
    }
}

/// All messages' contents, spread by the first byte of their id so that a change copies few.
#[derive(Clone, Debug, PartialEq)]
struct Emails(Arc<Vec<Arc<BTreeMap<EmailId, Email>>>>);

impl Default for Emails {
    fn default() -> Self {
        Emails(Arc::new(vec![Arc::default(); EMAIL_SHARDS]))
    }
}

impl Emails {
    fn get(&self, id: EmailId) -> Option<&Email> {
        self.0[usize::from(id.0[0])].get(&id)
    }

    fn shard(&mut self, id: EmailId) -> &mut BTreeMap<EmailId, Email> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[usize::from(id.0[0])])
    }
}

/// Deliveries of the last day by the hour they came in.
#[derive(Clone, Debug, PartialEq)]
struct Deliveries {
    hours: Arc<BTreeMap<u64, Arc<BTreeMap<KeyedHash, DeliveryRecord>>>>,
    count: usize,
    /// How long an hour is, in milliseconds: shorter where a simulator lets days pass in minutes.
    hour_ms: u64,
}

impl Default for Deliveries {
    fn default() -> Self {
        Deliveries { hours: Arc::default(), count: 0, hour_ms: HOUR_MILLIS }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record() -> FolderRecord {
        FolderRecord {
            parent: None,
            leaf: "INBOX".into(),
            uid_validity: 1,
            uid_next: 1,
            highest_modseq: 1,
            special_use: None,
            selectable: true,
            first_unclaimed: 1,
            expunged_floor: 0,
        }
    }

    #[test]
    fn a_copy_changes_alone() {
        let mut state = State::default();
        state.add_folder(FolderId(1), "INBOX".into(), record());
        let message = |n: u8| Message {
            email: EmailId([n; 16]),
            flags: Flags::none(),
            modseq: 1,
            size_bytes: 5,
            paged: false,
            saved: None,
        };
        for uid in [1, 2, 1_023, 1_024, 5_000] {
            state.folder_mut(FolderId(1)).unwrap().insert(uid, message(1));
        }
        let mut copy = state.clone();
        let folder = copy.folder_mut(FolderId(1)).unwrap();
        assert!(folder.remove(1_023).is_some() && folder.remove(1_023).is_none());
        folder.get_mut(2).unwrap().modseq = 9;
        let uids =
            |s: &State, set: &UidSet| s.folder(FolderId(1)).unwrap().within(set).map(|(u, _)| u).collect::<Vec<_>>();
        assert_eq!(uids(&state, &UidSet::range(2, 1_024)), [2, 1_023, 1_024]);
        assert_eq!(uids(&copy, &UidSet::range(1, u32::MAX)), [1, 2, 1_024, 5_000]);
        assert_eq!(state.folder(FolderId(1)).unwrap().get(2).unwrap().modseq, 1);
    }

    #[test]
    fn old_deliveries_are_forgotten_first_and_a_few_at_a_time() {
        let mut state = State::default();
        let at = |hours: u64| DeliveryRecord {
            at: UnixMillis(hours * HOUR_MILLIS),
            uid_validity: 1,
            uid: 1,
            modseq: 1,
            email: None,
        };
        for n in 0..10 {
            state.remember_delivery([n; 32], at(u64::from(n)));
        }
        assert_eq!(state.forget_deliveries(UnixMillis(5 * HOUR_MILLIS), 100, 3), [[0; 32], [1; 32], [2; 32]]);
        assert_eq!(state.forget_deliveries(UnixMillis(5 * HOUR_MILLIS), 100, 30).len(), 2);
        assert_eq!(state.forget_deliveries(UnixMillis(0), 4, 30), [[5; 32]]);
        assert!(state.delivery(&[5; 32]).is_none() && state.delivery(&[6; 32]).is_some());
    }
}
