//! What a mailbox answers without an entry: from memory, or from its rows by a worker thread.

use std::collections::BTreeMap;

use mailraft_owner::Place;
use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, Index, RowKey, Rows, StoreError, UnixMillis};

use crate::accepted::DeliveryStage;
use crate::api::{
    Answer, Command, EmailId, FETCH_UIDS_MAX, FetchWhat, Fetched, FetchedContent, FetchedHeader, FolderId,
    FolderStatus, Maildrop, MaildropMessage, MessageState, QUEUE_ITEMS_LISTED_MAX, READ_CHUNKS_MAX, Refusal, Resumed,
    STATUSES_MAX, Selected,
};
use crate::flags::SystemFlag;
use crate::listing;
use crate::names;
use crate::plant::{self, Fault};
use crate::queue::rows::{read_asked, read_attempt, read_detail};
use crate::records::{self, ContentRecord, MailboxKey, chunk_key, content_key};
use crate::search_index::SearchIndex;
use crate::state::{Folder, State};
use crate::uids::UidSet;
use crate::work::states;

/// For each folder the first UID that no SELECT has claimed as \Recent, where it is above the saved one.
pub(crate) type Claims = BTreeMap<FolderId, u32>;

/// The counts that were asked for last of each folder, for the first UID that was \Recent then: what many sessions ask
/// after one change is counted once. Every change of a folder raises its HIGHESTMODSEQ, and no two of its states have the same.
pub(crate) type Counted = BTreeMap<FolderId, (u32, FolderStatus)>;

/// Folders whose counts are kept. Past that all are counted anew.
pub(crate) const COUNTED_MAX: usize = 1_000;

/// An answer, or what of it is still to be read.
pub(crate) enum ReadAnswer {
    Now(Result<Answer, Refusal>),
    Stored(Kind),
}

/// A read of content rows or chunks, detached from the engine: a worker thread does it.
#[derive(Debug)]
pub struct StoredRead {
    place: Place,
    key: MailboxKey,
    position: Index,
    kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Fetch { messages: Vec<(MessageState, EmailId)>, what: FetchWhat },
    Chunk(EmailId, RowKey),
    Chunks(Vec<Option<(EmailId, RowKey)>>),
    UniqueIds(Vec<(u32, EmailId)>),
    SaveDates(Vec<(u32, EmailId, Option<UnixMillis>)>),
    QueueItem(CommandId, Vec<(u32, DeliveryStage)>),
    QueueAttempts(CommandId, Vec<u32>),
    QueueAsked(CommandId, Vec<u32>),
    Narrow(SearchIndex, Vec<(u32, EmailId)>, Vec<Vec<u32>>),
}

/// What a read found. Rows may be ahead of memory: what removed a message may be applied, and not visible yet.
#[derive(Debug)]
pub struct RowsRead {
    /// The answer, without the messages whose rows are gone.
    pub answer: Answer,
    /// Those messages.
    pub(crate) gone: Vec<EmailId>,
}

impl StoredRead {
    pub(crate) fn new(place: Place, key: MailboxKey, position: Index, kind: Kind) -> Self {
        StoredRead { place, key, position, kind }
    }

    /// The position of the memory it was asked of: the answer waits until that is visible.
    pub fn position(&self) -> Index {
        self.position
    }

    /// Reads. Whose rows are gone is left out; the owner answers once its memory knows that they are.
    ///
    /// # Errors
    /// If a row can't be read or opened. Other replicas may have it whole, so it is no refusal of the mailbox's.
    pub fn run(self, rows: &dyn Rows) -> Result<RowsRead, StoreError> {
        let mut gone = Vec::new();
        let chunk = |email: EmailId, key: &RowKey, gone: &mut Vec<EmailId>| {
            let found = rows.get(self.place.replica, key)?;
            if found.is_none() {
                gone.push(email);
            }
            Ok(found)
        };
        let content = |email: EmailId, gone: &mut Vec<EmailId>| {
            let key = content_key(self.place.mailbox, email);
            let Some(sealed) = rows.get(self.place.replica, &key)? else {
                gone.push(email);
                return Ok(None);
            };
            records::open_with(&self.key, self.place.cluster, &key, &sealed, ContentRecord::decode).map(Some)
        };
        let answer = match self.kind {
            Kind::Chunk(email, key) => Answer::Chunk(chunk(email, &key, &mut gone)?),
            Kind::Chunks(keys) => {
                let read = |key: &Option<(EmailId, RowKey)>| match key {
                    Some((email, key)) => chunk(*email, key, &mut gone),
                    None => Ok(None),
                };
                Answer::Chunks(keys.iter().map(read).collect::<Result<_, StoreError>>()?)
            }
            Kind::Fetch { messages, what } => {
                let mut fetched = Vec::with_capacity(messages.len());
                for (state, email) in messages {
                    if let Some(record) = content(email, &mut gone)? {
                        fetched.push(answer(state, email, record, what));
                    }
                }
                Answer::Fetched(fetched)
            }
            Kind::SaveDates(messages) => {
                let mut dates = Vec::with_capacity(messages.len());
                for (uid, email, saved) in messages {
                    if let Some(saved) = saved {
                        dates.push((uid, saved));
                    } else if let Some(record) = content(email, &mut gone)? {
                        // It came before that was noted of each place: then its content came then.
                        dates.push((uid, record.saved));
                    }
                }
                Answer::SaveDates(dates)
            }
            Kind::QueueAttempts(item, recipients) => {
                let mut attempts = Vec::new();
                for recipient in recipients {
                    let found = read_attempt(rows, &self.place, &self.key, (item, recipient))?;
                    attempts.extend(found.map(|found| (recipient, found)));
                }
                Answer::QueueAttempts(attempts)
            }
            Kind::QueueAsked(item, recipients) => {
                Answer::QueueAsked(read_asked(rows, &self.place, &self.key, item, &recipients)?)
            }
            Kind::QueueItem(item, stages) => {
                Answer::QueueItem(read_detail(rows, &self.place, &self.key, item, &stages)?)
            }
            Kind::Narrow(index, messages, texts) => Answer::Search(index.narrow(&messages, &texts)),
            Kind::UniqueIds(messages) => {
                let mut unique_ids = Vec::with_capacity(messages.len());
                for (uid, email) in messages {
                    if let Some(record) = content(email, &mut gone)? {
                        unique_ids.push((uid, record.unique_id(email)));
                    }
                }
                Answer::UniqueIds(unique_ids)
            }
        };
        Ok(RowsRead { answer, gone })
    }
}

fn answer(state: MessageState, email: EmailId, record: ContentRecord, what: FetchWhat) -> Fetched {
    Fetched {
        state,
        content: what.content.then_some(FetchedContent {
            email,
            thread: record.thread,
            internal_date: record.internal_date,
            size_bytes: record.size_bytes,
            // Whoever reads it opens it as it was sealed.
            body: record.sealed_as.unwrap_or(record.body),
            body_key: record.body_key,
            chunks: record.chunks,
        }),
        header: what.header.then_some(FetchedHeader {
            header: record.header,
            envelope: record.envelope,
            structure: record.structure,
        }),
    }
}

/// Answers a read on applied state. A SELECT raises the claims.
pub(crate) fn read(
    state: &State,
    place: &Place,
    (claims, counted): (&mut Claims, &mut Counted),
    command: &Command,
) -> ReadAnswer {
    match command {
        Command::Sync | Command::Unselect | Command::Watch { .. } => ReadAnswer::Now(Ok(Answer::Done)),
        Command::List => ReadAnswer::Now(Ok(Answer::Folders(listing::list(state)))),
        Command::Status { folder } => ReadAnswer::Now(status(state, claims, counted, folder).map(Answer::Status)),
        Command::Statuses { known } if known.len() > STATUSES_MAX => {
            ReadAnswer::Now(Err(Refusal::Limit(format!("at most {STATUSES_MAX} folders are counted at once"))))
        }
        Command::Statuses { known } => ReadAnswer::Now(Ok(Answer::Statuses(statuses(state, claims, counted, known)))),
        Command::Select { folder, claim_recent } => {
            ReadAnswer::Now(select(state, claims, folder, *claim_recent).map(Answer::Selected))
        }
        Command::Resume { folder, uid_validity, since, known } => {
            ReadAnswer::Now(resume(state, *folder, *uid_validity, *since, known).map(Answer::Resumed))
        }
        Command::Fetch { folder, uids, what } => fetch(state, *folder, uids, *what),
        Command::CountDeleted { folder } => ReadAnswer::Now(count_deleted(state, folder).map(Answer::Counted)),
        Command::Maildrop => ReadAnswer::Now(maildrop(state).map(Answer::Maildrop)),
        Command::UniqueIds { folder, uids } => match opened(state, *folder) {
            Ok(folder) => {
                let messages = folder.within(uids).take(FETCH_UIDS_MAX).map(|(uid, m)| (uid, m.email));
                ReadAnswer::Stored(Kind::UniqueIds(messages.collect()))
            }
            Err(refusal) => ReadAnswer::Now(Err(refusal)),
        },
        Command::SaveDates { folder, uids } => match opened(state, *folder) {
            Ok(folder) => {
                let messages = folder.within(uids).take(FETCH_UIDS_MAX).map(|(uid, m)| (uid, m.email, m.saved));
                ReadAnswer::Stored(Kind::SaveDates(messages.collect()))
            }
            Err(refusal) => ReadAnswer::Now(Err(refusal)),
        },
        Command::QueueItems { after } => {
            ReadAnswer::Now(Ok(Answer::QueueItems(state.queue.list(*after, QUEUE_ITEMS_LISTED_MAX))))
        }
        Command::QueueItem { item } => match state.queue.get(*item) {
            Some(found) => {
                let stages = found.recipients.iter().map(|(number, recipient)| (*number, recipient.stage)).collect();
                ReadAnswer::Stored(Kind::QueueItem(*item, stages))
            }
            None => ReadAnswer::Now(Ok(Answer::QueueItem(None))),
        },
        Command::QueueAttempts { item } => match state.queue.get(*item) {
            Some(found) => ReadAnswer::Stored(Kind::QueueAttempts(*item, found.recipients.keys().copied().collect())),
            None => ReadAnswer::Now(Ok(Answer::QueueAttempts(Vec::new()))),
        },
        Command::QueueAsked { item } => match state.queue.get(*item) {
            Some(found) => ReadAnswer::Stored(Kind::QueueAsked(*item, found.recipients.keys().copied().collect())),
            None => ReadAnswer::Now(Ok(Answer::QueueAsked(None))),
        },
        // The owner has looked who has the maildrop.
        Command::InMaildrop { command, .. } => read(state, place, (claims, counted), command),
        Command::ReadChunk { email, body: _, number } => match chunk_of(state, place, *email, *number) {
            Some(key) => ReadAnswer::Stored(Kind::Chunk(*email, key)),
            None => ReadAnswer::Now(Ok(Answer::Chunk(None))),
        },
        Command::ReadChunks { chunks } if chunks.len() > READ_CHUNKS_MAX => {
            ReadAnswer::Now(Err(Refusal::Limit(format!("at most {READ_CHUNKS_MAX} chunks are read at once"))))
        }
        Command::ReadChunks { chunks } => {
            let key =
                |(email, _, number): &(EmailId, BodyId, u32)| Some((*email, chunk_of(state, place, *email, *number)?));
            ReadAnswer::Stored(Kind::Chunks(chunks.iter().map(key).collect()))
        }
        Command::Deliver { .. }
        | Command::Append { .. }
        | Command::AppendMany { .. }
        | Command::Store { .. }
        | Command::Copy { .. }
        | Command::Move { .. }
        | Command::Expunge { .. }
        | Command::CreateFolder { .. }
        | Command::CreateFolderFor { .. }
        | Command::DeleteFolder { .. }
        | Command::RenameFolder { .. }
        | Command::Subscribe { .. }
        | Command::Remove { .. }
        | Command::Once { .. }
        | Command::Quota
        | Command::Search(_)
        | Command::Replace { .. }
        | Command::Accept { .. }
        | Command::DeliverQueued { .. }
        | Command::ReleaseQueued { .. }
        | Command::ChangeQueue { .. }
        | Command::Report { .. }
        | Command::DecideQueued { .. }
        | Command::Heard { .. } => {
            ReadAnswer::Now(Err(Refusal::NotAllowed("this needs the mailbox's owner".to_owned())))
        }
    }
}

/// Hands out which of these messages of a folder lack texts.
pub(crate) fn narrow(
    state: &State,
    index: &SearchIndex,
    (folder, uids): (FolderId, &UidSet),
    texts: &[Vec<u32>],
) -> ReadAnswer {
    match opened(state, folder) {
        Ok(folder) => {
            let messages = folder.within(uids).map(|(uid, message)| (uid, message.email)).collect();
            ReadAnswer::Stored(Kind::Narrow(index.clone(), messages, texts.to_vec()))
        }
        Err(refusal) => ReadAnswer::Now(Err(refusal)),
    }
}

/// The row of a chunk, if its message is still in the mailbox. The asker knows the id under which the body was sealed, which
/// may be another than that of its rows.
fn chunk_of(state: &State, place: &Place, email: EmailId, number: u32) -> Option<RowKey> {
    let email = state.email(email).filter(|e| number < e.info.chunks)?;
    Some(chunk_key(place.mailbox, email.info.body, number))
}

fn named<'s>(state: &'s State, name: &str) -> Result<(FolderId, &'s Folder), Refusal> {
    let id = state.named(&names::spelt(name)).ok_or(Refusal::NoSuchFolder)?;
    let folder = state.folder(id).ok_or(Refusal::NoSuchFolder)?;
    if !folder.record.selectable {
        return Err(Refusal::NotAllowed("this level was deleted and only has folders below it".to_owned()));
    }
    Ok((id, folder))
}

fn opened(state: &State, id: FolderId) -> Result<&Folder, Refusal> {
    state.folder(id).filter(|f| f.record.selectable).ok_or(Refusal::FolderGone)
}

fn first_unclaimed(claims: &Claims, id: FolderId, folder: &Folder) -> u32 {
    claims.get(&id).copied().unwrap_or_default().max(folder.record.first_unclaimed)
}

fn status(state: &State, claims: &Claims, counted: &mut Counted, name: &str) -> Result<FolderStatus, Refusal> {
    let (id, folder) = named(state, name)?;
    Ok(counts(claims, counted, id, folder))
}

/// Only what has changed is looked at.
fn statuses(
    state: &State,
    claims: &Claims,
    counted: &mut Counted,
    known: &[(FolderId, u64)],
) -> Vec<(FolderId, FolderStatus)> {
    let changed = known.iter().filter_map(|(id, modseq)| {
        let folder = opened(state, *id).ok().filter(|folder| folder.record.highest_modseq != *modseq)?;
        Some((*id, counts(claims, counted, *id, folder)))
    });
    changed.collect()
}

/// Counting takes a look at each message.
fn counts(claims: &Claims, counted: &mut Counted, id: FolderId, folder: &Folder) -> FolderStatus {
    let (record, first_unclaimed) = (&folder.record, first_unclaimed(claims, id, folder));
    if let Some((first, counts)) = counted.get(&id)
        && (*first, counts.highest_modseq) == (first_unclaimed, record.highest_modseq)
    {
        return *counts;
    }
    let counts = FolderStatus {
        messages: folder.messages(),
        recent: folder.between(first_unclaimed, u32::MAX).count() as u32,
        unseen: folder.unseen(),
        uid_next: record.uid_next,
        uid_validity: record.uid_validity,
        highest_modseq: record.highest_modseq,
        size_bytes: folder.size_bytes(),
    };
    if counted.len() >= COUNTED_MAX {
        counted.clear();
    }
    counted.insert(id, (first_unclaimed, counts));
    counts
}

fn count_deleted(state: &State, name: &str) -> Result<u32, Refusal> {
    let (_, folder) = named(state, name)?;
    let deleted = folder.iter().filter(|(_, message)| message.flags.has(SystemFlag::Deleted));
    Ok(u32::try_from(deleted.count()).unwrap_or(u32::MAX))
}

fn select(state: &State, claims: &mut Claims, name: &str, claim_recent: bool) -> Result<Selected, Refusal> {
    let (id, folder) = named(state, name)?;
    let first_recent_uid = first_unclaimed(claims, id, folder);
    let record = &folder.record;
    if claim_recent && record.uid_next > first_recent_uid {
        claims.insert(id, record.uid_next);
    }
    Ok(Selected {
        folder: id,
        uid_validity: record.uid_validity,
        uid_next: record.uid_next,
        highest_modseq: record.highest_modseq,
        first_recent_uid,
        messages: states(folder.iter()),
    })
}

fn maildrop(state: &State) -> Result<Maildrop, Refusal> {
    let (id, folder) = named(state, "INBOX")?;
    let messages = folder.iter().map(|(uid, m)| MaildropMessage { uid, size_bytes: m.size_bytes });
    Ok(Maildrop { folder: id, messages: messages.collect() })
}

/// QRESYNC (RFC 7162) for clients and for sessions after a failover. Past the kept expunge history
/// everything known that does not exist has vanished. Over a fork everything is told, whatever the client names: it may have
/// kept messages and flags that are lost without the modification sequence that it saw with them.
fn resume(state: &State, id: FolderId, uid_validity: u32, since: u64, known: &UidSet) -> Result<Resumed, Refusal> {
    let folder = opened(state, id)?;
    let record = &folder.record;
    if record.uid_validity != uid_validity {
        return Err(Refusal::FolderGone);
    }
    // UIDs that were never given can't have vanished, however far the client's set reaches.
    let known = intersect(known, &UidSet::range(1, record.uid_next - 1));
    let is_before_fork = state.is_before_fork(since);
    let vanished = if since + u64::from(plant::is(Fault::ResumeBelowFloor)) >= record.expunged_floor && !is_before_fork
    {
        let sets = folder.expunged.range(since.saturating_add(1 + u64::from(plant::is(Fault::ResumeMissesExpunge)))..);
        let gone = UidSet::from_ranges(sets.flat_map(|(_, set)| set.ranges().iter().copied()).collect());
        intersect(&known, &gone)
    } else {
        without_existing(&known, folder)
    };
    let known_changes = if is_before_fork { 0 } else { since + u64::from(plant::is(Fault::ResumeMissesChange)) };
    let mut changed = states(folder.iter().filter(|(_, m)| m.modseq > known_changes));
    if plant::is(Fault::ResumeLeavesOut) {
        changed.pop();
    }
    let highest_modseq = if plant::is(Fault::ResumeStaleModseq) { since } else { record.highest_modseq };
    Ok(Resumed { uid_next: record.uid_next, highest_modseq, vanished, changed })
}

fn intersect(a: &UidSet, b: &UidSet) -> UidSet {
    let (mut a, mut b) = (a.ranges().iter().copied().peekable(), b.ranges().iter().copied().peekable());
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.peek().copied(), b.peek().copied()) {
        let (lo, hi) = (x.0.max(y.0), x.1.min(y.1));
        if lo <= hi {
            both.push((lo, hi));
        }
        if x.1 < y.1 {
            a.next();
        } else {
            b.next();
        }
    }
    UidSet::from_ranges(both)
}

fn without_existing(known: &UidSet, folder: &Folder) -> UidSet {
    let mut gaps = Vec::new();
    for &(lo, hi) in known.ranges() {
        let mut from = u64::from(lo);
        for (uid, _) in folder.between(lo, hi) {
            if u64::from(uid) > from {
                gaps.push((from as u32, uid - 1));
            }
            from = u64::from(uid) + 1;
        }
        if from <= u64::from(hi) {
            gaps.push((from as u32, hi));
        }
    }
    UidSet::from_ranges(gaps)
}

fn fetch(state: &State, id: FolderId, uids: &UidSet, what: FetchWhat) -> ReadAnswer {
    let folder = match opened(state, id) {
        Ok(folder) => folder,
        Err(refusal) => return ReadAnswer::Now(Err(refusal)),
    };
    let messages = folder.within(uids).take(FETCH_UIDS_MAX);
    if what.content || what.header {
        let messages = messages.map(|(uid, m)| (m.seen_by_client(uid), m.email)).collect();
        return ReadAnswer::Stored(Kind::Fetch { messages, what });
    }
    let fetched = messages.map(|(uid, m)| Fetched { state: m.seen_by_client(uid), content: None, header: None });
    ReadAnswer::Now(Ok(Answer::Fetched(fetched.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_intersect_like_sets() {
        for (a, b, both) in [
            (vec![(1, 10)], vec![(3, 4), (9, 20)], "3:4,9:10"),
            (vec![(1, 2), (5, 6)], vec![(3, 4)], ""),
            (vec![(1, u32::MAX)], vec![(7, 7), (9, u32::MAX)], "7,9:4294967295"),
        ] {
            let (a, b) = (UidSet::from_ranges(a), UidSet::from_ranges(b));
            assert_eq!(intersect(&a, &b).to_string(), both);
            assert_eq!(intersect(&b, &a).to_string(), both);
        }
    }
}
