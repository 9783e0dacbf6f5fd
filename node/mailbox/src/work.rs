//! What a command works on: a copy of the mailbox, and the rows, requirements and events that its change
//! means. A command that is refused leaves it half done, and it is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mailraft_owner::Place;
use mailraft_storage::body::BodyId;
use mailraft_storage::seal::{Key, SEAL_OVERHEAD_BYTES};
use mailraft_storage::{CommandId, Env, MailboxId, RowKey};
use serde::Serialize;

use crate::api::{Change, EmailId, Event, FolderId, MessageState, Refusal};
use crate::flags::{Flags, KEYWORD_MAX_BYTES, KEYWORDS_MAX};
use crate::heard::Heard;
use crate::limits::Limits;
use crate::listing::listing;
use crate::names;
use crate::notice::{ListChange, ListNews, News};
use crate::plant::{self, Fault};
use crate::records::{
    EmailInfo, ExpungedRecord, FlagGroup, FlagPageRecord, MailboxKey, PAGE_UIDS, PackedUids, PlaceRecord, StageId,
    StageRecord, encode, expunged_key, page_key, page_of, place_key, stage_key,
};
use crate::state::{Dead, Folder, Garbage, Message, State};
use crate::uids::UidSet;

/// The most messages in a mailbox, each place counted.
pub const MESSAGES_MAX: u64 = 2_000_000;
/// No UID is issued further above the last confirmed one.
pub const UID_AHEAD_MAX: u32 = 1 << 20;
/// A modification sequence counts in this many bits, below the incarnation's number.
pub const MODSEQ_COUNTER_BITS: u32 = 40;
/// A folder's UIDs go on so far above those that are known when an incarnation begins: what the home that was lost gave out
/// last is not known.
pub const UID_JUMP: u32 = 1 << 20;
/// UIDVALIDITY goes on so far above the last that is known, too.
pub const UID_VALIDITY_JUMP: u32 = 1 << 10;
/// An incarnation's number fits this many bits.
pub const MODSEQ_INCARNATION_BITS: u32 = 12;

/// What an owner knows of itself.
#[derive(Debug)]
pub(crate) struct Context {
    pub place: Place,
    pub key: MailboxKey,
    pub delivery_key: Key,
    pub repeat_key: Key,
    pub message_id_key: Key,
    pub email_key: Key,
    /// The most bytes of messages; None for no bound.
    pub quota_bytes: Option<u64>,
    pub heard: Heard,
    pub limits: Limits,
}

impl Context {
    pub fn new(place: Place, key: MailboxKey) -> Self {
        let bits = place.incarnation.number >> MODSEQ_INCARNATION_BITS;
        assert!(bits == 0, "the incarnation's number is past {MODSEQ_INCARNATION_BITS} bits");
        Context {
            delivery_key: key.key.derive("delivery"),
            repeat_key: key.key.derive("repeat"),
            message_id_key: key.key.derive("message-id"),
            email_key: key.key.derive("email"),
            place,
            key,
            quota_bytes: None,
            heard: Heard::default(),
            limits: Limits::default(),
        }
    }

    /// The id of the message whose body this is: a function of it, so that no body is stored twice.
    pub fn email_id(&self, body: BodyId) -> EmailId {
        let hash = self.email_key.keyed_hash(&[&self.place.mailbox.0, &body.0]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        EmailId(id)
    }
}

/// A row to write, not yet sealed, or to delete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    Plain(Vec<u8>),
    /// A place that was not there before: what a staged change writes ahead.
    NewPlace(PlaceRecord),
    /// Already sealed.
    Ready(Bytes),
    Delete,
}

/// One command's change in the making.
pub(crate) struct Work<'a> {
    pub cx: &'a Context,
    pub env: &'a mut Env,
    pub command: CommandId,
    pub state: State,
    pub rows: BTreeMap<RowKey, Row>,
    pub requires: BTreeSet<RowKey>,
    pub news: Vec<News>,
    /// Folders whose own row is to be written.
    pub touched: BTreeSet<FolderId>,
}

impl<'a> Work<'a> {
    pub fn on(state: &State, cx: &'a Context, env: &'a mut Env, command: CommandId) -> Self {
        Work {
            cx,
            env,
            command,
            state: state.clone(),
            rows: BTreeMap::new(),
            requires: BTreeSet::new(),
            news: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    pub fn mailbox(&self) -> MailboxId {
        self.cx.place.mailbox
    }

    pub fn put<T: Serialize>(&mut self, key: RowKey, record: &T) {
        self.rows.insert(key, Row::Plain(encode(record)));
    }

    pub fn delete(&mut self, key: RowKey) {
        self.rows.insert(key, Row::Delete);
    }

    /// The next modification sequence.
    pub fn next_modseq(&mut self) -> u64 {
        let counters = &mut self.state.counters;
        counters.modseq += 1;
        assert!(counters.modseq >> MODSEQ_COUNTER_BITS == 0, "the MODSEQ counter is used up");
        (u64::from(self.cx.place.incarnation.number) << MODSEQ_COUNTER_BITS) | counters.modseq
    }

    /// A folder that a session has open.
    pub fn opened(&self, id: FolderId) -> Result<&Folder, Refusal> {
        self.state.folder(id).filter(|f| f.record.selectable).ok_or(Refusal::FolderGone)
    }

    /// Notes that a folder changed, at this MODSEQ.
    pub fn touch(&mut self, id: FolderId, modseq: u64) -> Result<&mut Folder, Refusal> {
        self.touched.insert(id);
        let folder = self.state.folder_mut(id).ok_or(Refusal::FolderGone)?;
        assert!(modseq > folder.record.highest_modseq, "MODSEQ rises");
        folder.record.highest_modseq = modseq;
        Ok(folder)
    }

    /// Puts messages into a folder, all at one new MODSEQ, and tells of it. Returns their UIDs, rising.
    pub fn add_messages(
        &mut self,
        id: FolderId,
        messages: Vec<(EmailId, EmailInfo, Flags)>,
    ) -> Result<(Vec<u32>, u64), Refusal> {
        let count = self.state.folders().map(|(_, f)| u64::from(f.messages())).sum::<u64>() + messages.len() as u64;
        if count > MESSAGES_MAX {
            return Err(Refusal::Limit(format!("a mailbox has at most {MESSAGES_MAX} messages")));
        }
        let modseq = self.next_modseq();
        let mailbox = self.mailbox();
        let folder = self.touch(id, modseq)?;
        let first = folder.record.uid_next;
        if messages.len() as u64 + u64::from(first) > u64::from(u32::MAX) || messages.len() > UID_AHEAD_MAX as usize / 2
        {
            return Err(Refusal::Limit("the folder has no UIDs left for these".to_owned()));
        }
        let (mut uids, mut added) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        for (uid, (email, info, flags)) in (first..).zip(messages) {
            let folder = self.state.folder_mut(id).ok_or(Refusal::FolderGone)?;
            let saved = Some(self.env.wall);
            let message = Message { email, flags, modseq, size_bytes: info.size_bytes, paged: false, saved };
            added.push(message.seen_by_client(uid));
            let record = PlaceRecord { email, flags: message.flags.clone(), modseq, stage: None, info, saved };
            self.rows.insert(place_key(mailbox, id, uid), Row::NewPlace(record));
            folder.record.uid_next = uid + 1;
            folder.insert(uid, message);
            self.state.hold_email(email, info);
            uids.push(uid);
        }
        self.tell(id, modseq, Change::Added(added));
        Ok((uids, modseq))
    }

    /// Takes messages out of a folder, all at one new MODSEQ, and tells of it.
    pub fn remove_messages(&mut self, id: FolderId, uids: &[u32]) -> Result<u64, Refusal> {
        let modseq = self.next_modseq();
        let kept_max_rows = self.cx.limits.expunged_max_rows;
        let folder = self.touch(id, modseq)?;
        let mut dead = Vec::new();
        let mut removed = Vec::with_capacity(uids.len());
        for &uid in uids {
            removed.extend(folder.remove(uid).map(|message| (uid, message)));
        }
        let set: UidSet = removed.iter().map(|(uid, _)| *uid).collect();
        // The page that new UIDs fall into stays, or a late sweep could take a newer row.
        let pages: BTreeSet<u32> = uids.iter().map(|uid| page_of(*uid)).collect();
        let growing = page_of(folder.record.uid_next);
        dead.extend(pages.into_iter().filter(|p| *p < growing && !folder.has_page(*p)).map(|p| Dead::Page(id, p)));
        let history = Arc::make_mut(&mut folder.expunged);
        let kept = !plant::is(Fault::ExpungeWithoutHistory);
        if kept {
            history.insert(modseq, Arc::new(set.clone()));
        }
        let mut forgotten = Vec::new();
        while history.len() > kept_max_rows {
            let Some((oldest, _)) = history.pop_first() else { break };
            if !plant::is(Fault::ExpungeFloorStays) {
                folder.record.expunged_floor = oldest - u64::from(plant::is(Fault::ExpungeFloorLow));
            }
            forgotten.push(oldest);
        }
        let mailbox = self.mailbox();
        for oldest in forgotten {
            self.delete(expunged_key(mailbox, id, oldest));
        }
        if kept {
            self.put(expunged_key(mailbox, id, modseq), &ExpungedRecord { uids: PackedUids::pack(&set) });
        }
        self.release(id, removed, &mut dead);
        self.bury(id, &set, dead);
        self.tell(id, modseq, Change::Expunged(set));
        Ok(modseq)
    }

    /// Ends the places of messages that were taken out, and the messages that have no other.
    pub fn release(&mut self, id: FolderId, removed: Vec<(u32, Message)>, dead: &mut Vec<Dead>) {
        for (uid, message) in removed {
            if let Some(info) = self.state.release_email(message.email) {
                dead.push(Dead::Email(message.email, info.into()));
            }
            // After its email: as long as the place's row is there, the email's rows can be found.
            dead.push(Dead::Place(id, uid));
        }
    }

    /// Deletes rows at once if they are few, and else leaves them to a sweep: then one row says that these
    /// places are gone.
    pub fn bury(&mut self, folder: FolderId, uids: &UidSet, dead: Vec<Dead>) {
        let mailbox = self.mailbox();
        if dead.iter().map(Dead::rows).sum::<usize>() <= self.cx.limits.direct_deletes_max_rows {
            for key in dead.iter().flat_map(|d| d.keys(mailbox)) {
                self.delete(key);
            }
            return;
        }
        let stage = StageId(if plant::is(Fault::StageIdsRepeat) { [0; 16] } else { self.env.bytes() });
        self.put(stage_key(mailbox, stage), &StageRecord::Removed { folder, uids: PackedUids::pack(uids) });
        let garbage = Garbage { tombstone: Some(stage), dead, done: 0 };
        Arc::make_mut(&mut self.state.garbage).push_back(Arc::new(garbage));
    }

    /// Writes a message's place anew with its present flags.
    pub fn write_place(&mut self, id: FolderId, uid: u32) {
        if plant::is(Fault::FlagsNotWritten) {
            return;
        }
        let Some(message) = self.state.folder(id).and_then(|f| f.get(uid)) else { return };
        let Some(email) = self.state.email(message.email) else { return };
        let record = PlaceRecord {
            email: message.email,
            flags: message.flags.clone(),
            modseq: message.modseq,
            stage: None,
            info: email.info,
            saved: message.saved,
        };
        self.rows.insert(place_key(self.mailbox(), id, uid), Row::Plain(record.encode()));
    }

    /// Writes the flags of all messages of a page that keep them there.
    pub fn write_page(&mut self, id: FolderId, page: u32) {
        let Some(folder) = self.state.folder(id) else { return };
        let blind = plant::is(Fault::PageOfOneChange);
        let mut groups: BTreeMap<(u64, &Flags), UidSet> = BTreeMap::new();
        for (uid, message) in
            folder.page(page).filter(|(_, m)| m.paged && (!blind || m.modseq == folder.record.highest_modseq))
        {
            groups.entry((message.modseq, &message.flags)).or_default().insert(uid % PAGE_UIDS + 1);
        }
        let groups = groups
            .into_iter()
            .map(|((modseq, flags), set)| FlagGroup { modseq, flags: flags.clone(), offsets: PackedUids::pack(&set) })
            .collect();
        self.put(page_key(self.mailbox(), id, page), &FlagPageRecord { groups });
    }

    pub fn tell(&mut self, folder: FolderId, modseq: u64, change: Change) {
        self.news.push(News::InFolder(Event { folder, origin: self.command, modseq, change }));
    }

    /// Tells those that watch the folders how their list changed, once it has.
    pub fn tell_list(&mut self, change: ListChange, name: &str) {
        let mut above = Vec::new();
        let parent = names::parent(name);
        match &change {
            ListChange::Made | ListChange::Removed(_) => above.extend(parent),
            ListChange::Renamed { from, .. } => {
                let before = names::parent(from);
                above.extend([before, parent].into_iter().flatten().filter(|_| before != parent));
            }
            ListChange::Subscription => {}
        }
        let above = above.into_iter().map(|name| listing(&self.state, name)).collect();
        let news = Arc::new(ListNews { change, name: listing(&self.state, name), above });
        self.news.push(News::OfList { origin: self.command, news });
    }

    /// What the change takes of an entry, in bytes, as an upper bound.
    pub fn size_bytes(&self) -> usize {
        let rows: usize = self.rows.iter().map(|(key, row)| row_bytes(key, row)).sum();
        let requires: usize = self.requires.iter().map(key_bytes).sum();
        rows + requires + folder_bytes(&self.state, &self.touched)
    }

    /// What its new places take of an entry, with the contents that they require, in bytes, as an upper bound.
    pub fn new_places_bytes(&self) -> usize {
        let places = self.rows.iter().filter(|(_, row)| matches!(row, Row::NewPlace(_)));
        places.map(|(key, row)| key_bytes(key) + row_bytes(key, row)).sum()
    }
}

/// A folder's row without its name, in bytes, at most.
pub(crate) const FOLDER_ROW_BYTES: usize = 200;
/// A place's record without keywords, in bytes, at most.
pub(crate) const PLACE_RECORD_BYTES: usize = 150;

/// What a row takes of an entry, in bytes, as an upper bound.
pub(crate) fn row_bytes(key: &RowKey, row: &Row) -> usize {
    key_bytes(key)
        + match row {
            Row::Plain(plain) => plain.len() + SEAL_OVERHEAD_BYTES,
            Row::NewPlace(record) => place_bytes(record),
            Row::Ready(sealed) => sealed.len(),
            Row::Delete => 0,
        }
}

pub(crate) fn place_bytes(record: &PlaceRecord) -> usize {
    record.flags.keywords().map(|k| k.len() + 2).sum::<usize>() + PLACE_RECORD_BYTES + SEAL_OVERHEAD_BYTES
}

/// What the rows of folders take of an entry, in bytes, as an upper bound.
pub(crate) fn folder_bytes(state: &State, touched: &BTreeSet<FolderId>) -> usize {
    touched.iter().filter_map(|id| state.folder(*id)).map(|f| f.record.leaf.len() + FOLDER_ROW_BYTES).sum()
}

pub(crate) fn key_bytes(key: &RowKey) -> usize {
    17 + key.key.len() + 16
}

/// Whether a message may have these flags.
pub(crate) fn check_flags(flags: &Flags) -> Result<(), Refusal> {
    if flags.keyword_count() > KEYWORDS_MAX {
        return Err(Refusal::Limit(format!("a message has at most {KEYWORDS_MAX} keywords")));
    }
    if flags.keywords().any(|k| k.len() > KEYWORD_MAX_BYTES || k.is_empty()) {
        return Err(Refusal::Limit(format!("a keyword has 1 to {KEYWORD_MAX_BYTES} bytes")));
    }
    Ok(())
}

/// Several messages as their sessions see them.
pub(crate) fn states<'m>(messages: impl Iterator<Item = (u32, &'m Message)>) -> Vec<MessageState> {
    messages.map(|(uid, message)| message.seen_by_client(uid)).collect()
}
