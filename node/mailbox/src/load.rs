//! Reading a mailbox's rows into memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mailraft_storage::body::BodyId;
use mailraft_storage::seal::Key;
use mailraft_storage::{CommandId, Index, PartitionId, RowKey, Rows, StoreError, Table, UnixMillis};
use serde::de::DeserializeOwned;

use crate::accepted::QueuePosition;
use crate::api::{EmailId, FolderId, HIERARCHY_SEPARATOR};
use crate::flags::KeywordSharing;
use crate::plant::{self, Fault};
use crate::queue::items::{Item, Recipient};
use crate::queue::received::QueuedDelivery;
use crate::queue::rows::{self, AcceptRecord, ItemKeyRecord, RecipientRecord, RecipientRow, recipient_of};
use crate::records::{
    self, Counters, DeliveryRecord, EmailInfo, ExpungedRecord, FlagPageRecord, FolderRecord, FolderRow, KeyedHash,
    OpenBodyRecord, PAGE_UIDS, PlaceRecord, RepeatRecord, Repeated, StageId, StageRecord, counters_key, page_of,
};
use crate::stage::{bury, place_of};
use crate::state::{Dead, Garbage, Message, State};
use crate::uids::UidSet;
use crate::work::{Context, MODSEQ_COUNTER_BITS};

/// How many rows are read at once.
const SCAN_ROWS: usize = 1_000;
/// No folder's name has more levels.
const LEVELS_MAX: usize = 1_000;

/// A mailbox as its rows say.
pub(crate) struct Loaded {
    pub state: State,
    pub position: Index,
    pub open: VecDeque<OpenBody>,
}

/// An upload that is not live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenBody {
    pub body: BodyId,
    pub opened: UnixMillis,
    pub chunks: u32,
    /// How many chunks are deleted already.
    pub done: u32,
}

/// Reads everything.
///
/// # Errors
/// If the store can't be read, a row does not open or makes no sense, or the rows are not those that were applied.
pub(crate) fn load(rows: &dyn Rows, cx: &Context) -> Result<Loaded, StoreError> {
    if let Some(proof) = rows.proof() {
        proof.check_mailbox(cx.place.replica, cx.place.mailbox)?;
    }
    let reader = Reader { rows, cx };
    let position = rows.applied(cx.place.replica)?.map(|a| a.index).unwrap_or_default();
    let mut state = State::with_day(cx.limits.delivery_kept_ms);
    let mut open = VecDeque::new();
    let counters = counters_key(cx.place.mailbox);
    if let Some(sealed) = rows.get(cx.place.replica, &counters)? {
        state.counters = records::open(&cx.key, cx.place.cluster, &counters, &sealed)?;
        state.begun = true;
        let forks = records::forks_key(cx.place.mailbox);
        if let Some(sealed) = rows.get(cx.place.replica, &forks)? {
            state.forks = records::open(&cx.key, cx.place.cluster, &forks, &sealed)?;
        }
        let alone = records::alone_key(cx.place.mailbox);
        if let Some(sealed) = rows.get(cx.place.replica, &alone)? {
            state.alone = records::open(&cx.key, cx.place.cluster, &alone, &sealed)?;
        }
        reader.folders(&mut state)?;
        reader.messages(&mut state)?;
        reader.deliveries(&mut state)?;
        reader.repeats(&mut state)?;
        reader.received(&mut state)?;
        reader.queue(&mut state)?;
        forget(&mut state);
        state.loaded_in(cx);
    }
    reader.each(Table::OpenBodies, |key, record: OpenBodyRecord| {
        let body = BodyId(key.key.as_slice().try_into().map_err(|_| wrong_key(key))?);
        open.push_back(OpenBody { body, opened: record.opened, chunks: record.chunks, done: 0 });
        Ok(())
    })?;
    Ok(Loaded { state, position, open })
}

fn wrong_key(key: &RowKey) -> StoreError {
    StoreError::damaged(format!("row {:02x} of mailbox {}", key.table, key.mailbox), "its key has a wrong length")
}

/// Where planted so, what only counters remember is forgotten.
fn forget(state: &mut State) {
    let folders: Vec<FolderId> = state.folders().map(|(id, _)| id).collect();
    if plant::is(Fault::UidReusedAfterReload) {
        for folder in folders {
            let Some(folder) = state.folder_mut(folder) else { continue };
            folder.record.uid_next = folder.iter().last().map_or(1, |(uid, _)| uid + 1);
        }
    } else if plant::is(Fault::ModseqReusedAfterReload) {
        let mut highest = 0;
        for folder in folders {
            let Some(folder) = state.folder_mut(folder) else { continue };
            folder.record.highest_modseq = folder.iter().map(|(_, m)| m.modseq).max().unwrap_or(1);
            highest = highest.max(folder.record.highest_modseq);
        }
        state.counters.modseq = highest & ((1 << MODSEQ_COUNTER_BITS) - 1);
    }
}

/// What the stages' table says.
#[derive(Default)]
struct Stages {
    live: BTreeSet<StageId>,
    removed: BTreeMap<FolderId, Vec<(StageId, UidSet)>>,
}

impl Stages {
    fn removed_by(&self, folder: FolderId, uid: u32) -> Option<StageId> {
        let sets = self.removed.get(&folder).filter(|_| !plant::is(Fault::TombstoneNotRead))?;
        sets.iter().find(|(_, uids)| uids.contains(uid)).map(|(stage, _)| *stage)
    }
}

struct Reader<'a> {
    rows: &'a dyn Rows,
    cx: &'a Context,
}

impl Reader<'_> {
    /// Every row of a table, opened, in the order of keys.
    fn each<T: DeserializeOwned>(
        &self,
        table: Table,
        row: impl FnMut(&RowKey, T) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_with(table, records::decode, row)
    }

    /// Every row of a table whose records are decoded by a rule of their own.
    fn each_with<T>(
        &self,
        table: Table,
        decode: impl Fn(&str, &[u8]) -> Result<T, StoreError>,
        mut row: impl FnMut(&RowKey, T) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_sealed(table, |key, sealed| {
            row(key, records::open_with(&self.cx.key, self.cx.place.cluster, key, sealed, &decode)?)
        })
    }

    /// Every row of a table as it is.
    fn each_sealed(
        &self,
        table: Table,
        mut row: impl FnMut(&RowKey, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let place = &self.cx.place;
        let mut from = Vec::new();
        loop {
            let page = self.rows.scan(place.replica, place.mailbox, table, &[], &from, SCAN_ROWS)?;
            let full = page.len() == SCAN_ROWS;
            for (key, sealed) in page {
                let key = RowKey::new(place.mailbox, table, key);
                row(&key, &sealed)?;
                from = key.key;
            }
            if !full {
                return Ok(());
            }
            from.push(0);
        }
    }

    fn folders(&self, state: &mut State) -> Result<(), StoreError> {
        let mut folders: BTreeMap<FolderId, FolderRecord> = BTreeMap::new();
        self.each(Table::Folders, |key, row: FolderRow| {
            let id = key.key.as_slice().try_into().map_err(|_| wrong_key(key))?;
            let id = FolderId(u32::from_be_bytes(id));
            match row {
                FolderRow::Folder(record) => {
                    folders.insert(id, record);
                }
                FolderRow::Subscription(name) => state.subscribe(name, id),
            }
            Ok(())
        })?;
        for (id, record) in &folders {
            state.add_folder(*id, full_name(&folders, record)?, record.clone());
        }
        Ok(())
    }

    fn messages(&self, state: &mut State) -> Result<(), StoreError> {
        let mut stages = Stages::default();
        self.each(Table::Stages, |key, record: StageRecord| {
            let stage = StageId(key.key.as_slice().try_into().map_err(|_| wrong_key(key))?);
            match record {
                StageRecord::Live => {
                    stages.live.insert(stage);
                }
                StageRecord::Removed { folder, uids } => {
                    stages.removed.entry(folder).or_default().push((stage, uids.unpack()?));
                }
            }
            Ok(())
        })?;
        let expected: Counters = std::mem::take(&mut state.counters);
        state.counters = Counters { usage_bytes: 0, messages: 0, ..expected };
        let mut removed: BTreeMap<StageId, Vec<(EmailId, EmailInfo, Dead)>> = BTreeMap::new();
        for sets in stages.removed.values() {
            removed.extend(sets.iter().map(|(stage, _)| (*stage, Vec::new())));
        }
        let mut dead = Vec::new();
        let mut sharing = KeywordSharing::default();
        self.each_with(Table::Places, PlaceRecord::decode, |key, record| {
            let (folder, uid) = place_of(key).ok_or_else(|| wrong_key(key))?;
            let counts = record.stage.is_none_or(|stage| stages.live.contains(&stage));
            if !counts && !plant::is(Fault::StageCountsAtOnce) {
                dead.push(Dead::Place(folder, uid));
            } else if let Some(stage) = stages.removed_by(folder, uid) {
                removed.entry(stage).or_default().push((record.email, record.info, Dead::Place(folder, uid)));
            } else if let Some(folder) = state.folder_mut(folder) {
                let mut flags = record.flags;
                sharing.share(&mut flags);
                let message = Message {
                    email: record.email,
                    flags,
                    modseq: record.modseq,
                    size_bytes: record.info.size_bytes,
                    paged: false,
                    saved: record.saved,
                };
                folder.insert(uid, message);
                state.hold_email(record.email, record.info);
            } else {
                return Err(StoreError::damaged(format!("place of mailbox {}", key.mailbox), "its folder is missing"));
            }
            Ok(())
        })?;
        let agree = (state.counters.messages, state.counters.usage_bytes) == (expected.messages, expected.usage_bytes);
        if !agree && !plant::is(Fault::StageCountsAtOnce) {
            let place = format!("counters of mailbox {}", self.cx.place.mailbox);
            return Err(StoreError::damaged(place, "they don't agree with the messages"));
        }
        self.flag_pages(state, &mut dead, &mut sharing)?;
        self.expunged(state, &mut dead)?;
        bury(state, dead);
        self.tombstones(state, removed);
        Ok(())
    }

    /// Removed places whose rows are still there, and the messages that have no other place.
    fn tombstones(&self, state: &mut State, removed: BTreeMap<StageId, Vec<(EmailId, EmailInfo, Dead)>>) {
        let mut ended = BTreeSet::new();
        for (stage, places) in removed {
            let mut dead = Vec::new();
            for (email, info, place) in places {
                if state.email(email).is_none() && ended.insert(email) {
                    dead.push(Dead::Email(email, info.into()));
                }
                dead.push(place);
            }
            let garbage = Garbage { tombstone: Some(stage), dead, done: 0 };
            Arc::make_mut(&mut state.garbage).push_back(Arc::new(garbage));
        }
    }

    fn flag_pages(
        &self,
        state: &mut State,
        dead: &mut Vec<Dead>,
        sharing: &mut KeywordSharing,
    ) -> Result<(), StoreError> {
        let over = plant::is(Fault::PageOverPlace);
        self.each(Table::FlagPages, |key, record: FlagPageRecord| {
            let (id, page) = place_of(key).ok_or_else(|| wrong_key(key))?;
            let Some(folder) = state.folder_mut(id).filter(|f| f.has_page(page) || page >= page_of(f.record.uid_next))
            else {
                dead.push(Dead::Page(id, page));
                return Ok(());
            };
            for mut group in record.groups {
                sharing.share(&mut group.flags);
                for offset in group.offsets.unpack()?.iter() {
                    let uid = page.saturating_mul(PAGE_UIDS).saturating_add(offset.saturating_sub(1));
                    if let Some(message) = folder.get_mut(uid).filter(|m| m.modseq < group.modseq || over) {
                        message.flags = group.flags.clone();
                        message.modseq = group.modseq;
                        message.paged = true;
                    }
                }
            }
            Ok(())
        })
    }

    fn expunged(&self, state: &mut State, dead: &mut Vec<Dead>) -> Result<(), StoreError> {
        self.each(Table::Expunged, |key, record: ExpungedRecord| {
            let (id, modseq) = key.key.split_at_checked(4).ok_or_else(|| wrong_key(key))?;
            let id = FolderId(u32::from_be_bytes(id.try_into().map_err(|_| wrong_key(key))?));
            let modseq = u64::from_be_bytes(modseq.try_into().map_err(|_| wrong_key(key))?);
            match state.folder_mut(id).filter(|f| modseq > f.record.expunged_floor) {
                Some(folder) => {
                    let set = Arc::new(record.uids.unpack()?);
                    Arc::make_mut(&mut folder.expunged).insert(modseq, set);
                }
                None => dead.push(Dead::Expunged(id, modseq)),
            }
            Ok(())
        })
    }

    fn deliveries(&self, state: &mut State) -> Result<(), StoreError> {
        self.each_with(Table::Deliveries, DeliveryRecord::decode, |key, record| {
            let hash: KeyedHash = key.key.as_slice().try_into().map_err(|_| wrong_key(key))?;
            state.remember_delivery(hash, record);
            Ok(())
        })
    }

    fn repeats(&self, state: &mut State) -> Result<(), StoreError> {
        self.each(Table::Repeats, |key, record: RepeatRecord| {
            let hash: KeyedHash = key.key.as_slice().try_into().map_err(|_| wrong_key(key))?;
            if let Repeated::Copied { from, .. } = &record.made {
                from.unpack()?;
            }
            state.remember_repeat(hash, record);
            Ok(())
        })
    }
}

impl Reader<'_> {
    /// What came from queues.
    fn received(&self, state: &mut State) -> Result<(), StoreError> {
        self.each(Table::QueuedDeliveries, |key, record: QueuedDelivery| {
            match recipient_of(&key.key) {
                Some(RecipientRow::Recipient(id)) => state.received.remember(id, record),
                Some(RecipientRow::Stage(_) | RecipientRow::Attempt(_)) | None => return Err(wrong_key(key)),
            }
            Ok(())
        })?;
        self.each(Table::QueueFloors, |key, floor: QueuePosition| {
            let queue = key.key.as_slice().try_into().map_err(|_| wrong_key(key))?;
            state.received.raise(PartitionId(u32::from_be_bytes(queue)), floor);
            Ok(())
        })
    }

    /// What waits in a queue mailbox.
    fn queue(&self, state: &mut State) -> Result<(), StoreError> {
        let Context { place, key: mailbox_key, .. } = self.cx;
        let mut keys: BTreeMap<CommandId, Key> = BTreeMap::new();
        self.each(Table::QueueKeys, |key, record: ItemKeyRecord| {
            keys.insert(CommandId(key.key.as_slice().try_into().map_err(|_| wrong_key(key))?), record.key);
            Ok(())
        })?;
        let mut items: BTreeMap<CommandId, Item> = BTreeMap::new();
        let mut identities: BTreeMap<CommandId, String> = BTreeMap::new();
        let no_key =
            || StoreError::damaged(format!("queue of mailbox {}", place.mailbox), "the key of an item is missing");
        self.each_sealed(Table::Queue, |key, sealed| {
            let item = CommandId(key.key.as_slice().try_into().map_err(|_| wrong_key(key))?);
            let own = keys.get(&item).ok_or_else(no_key)?;
            let AcceptRecord { accepted, body, chunks, size_bytes, identity, .. } =
                rows::open(own, mailbox_key, place, key, sealed)?;
            identities.extend(identity.map(|identity| (item, identity)));
            items.insert(item, Item { accepted, body, chunks, size_bytes, recipients: BTreeMap::new() });
            Ok(())
        })?;
        self.each_sealed(Table::QueueRecipients, |key, sealed| {
            let no_item = || StoreError::damaged(format!("queue of mailbox {}", place.mailbox), "an item is missing");
            match recipient_of(&key.key).ok_or_else(|| wrong_key(key))? {
                RecipientRow::Recipient(id) => {
                    let own = keys.get(&id.0).ok_or_else(no_key)?;
                    let RecipientRecord { recipient, .. } = rows::open(own, mailbox_key, place, key, sealed)?;
                    let found = Recipient::of(&recipient, identities.get(&id.0).map(String::as_str));
                    items.get_mut(&id.0).ok_or_else(no_item)?.recipients.insert(id.1, found);
                }
                // Right behind who it is, in the order of keys.
                RecipientRow::Stage(id) => {
                    let stage = records::open(mailbox_key, place.cluster, key, sealed)?;
                    let item = items.get_mut(&id.0).ok_or_else(no_item)?;
                    item.recipients.get_mut(&id.1).ok_or_else(no_item)?.stage = stage;
                }
                // It is read when somebody asks for it.
                RecipientRow::Attempt(_) => {}
            }
            Ok(())
        })?;
        for (id, item) in items {
            state.queue.insert(id, item);
        }
        Ok(())
    }
}

fn full_name(folders: &BTreeMap<FolderId, FolderRecord>, record: &FolderRecord) -> Result<String, StoreError> {
    let mut levels = vec![record.leaf.as_str()];
    let mut above = record.parent;
    while let Some(id) = above {
        let parent = folders.get(&id).filter(|_| levels.len() < LEVELS_MAX);
        let parent = parent.ok_or_else(|| StoreError::damaged("folder row", "the levels above it are missing"))?;
        levels.push(parent.leaf.as_str());
        above = parent.parent;
    }
    levels.reverse();
    Ok(levels.join(&HIERARCHY_SEPARATOR.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::SummedRows;
    use mailraft_storage::rows::RowsProof;
    use mailraft_storage::seal::Key;
    use mailraft_storage::summed::Missing;
    use mailraft_storage::sums::SumKey;

    use super::*;
    use crate::Mailbox;
    use crate::flags::Flags;
    use crate::harness::{World, append};

    #[test]
    fn a_mailbox_with_a_row_that_was_put_back_under_its_seal_is_not_loaded() {
        let mut world = World::new();
        let message = world.new_message("first");
        world.run(append("INBOX", message, Flags::none())).unwrap();
        let key = counters_key(world.place.mailbox);
        let older = world.rows.get(world.place.replica, &key).unwrap().unwrap();
        let message = world.new_message("second");
        world.run(append("INBOX", message, Flags::none())).unwrap();
        let sums = SumKey::derived_from(&Key::from_bytes([5; 32]));
        let open = |missing| {
            Arc::new(SummedRows::open(Arc::new(world.rows.clone()), sums.clone(), missing, |_, _| ()).unwrap())
        };
        let load = |rows| Mailbox::load(rows, world.place, world.key.clone());
        load(open(Missing::Make)).unwrap();
        world.rows.flush().unwrap();
        world.rows.corrupt(world.place.replica, &key, older);
        let rows = open(Missing::Damaged);
        assert!(matches!(load(rows.clone()), Err(StoreError::Damaged { .. })));
        rows.check_trusted(world.place.replica).unwrap();
    }
}
