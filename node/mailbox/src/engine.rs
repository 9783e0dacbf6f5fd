//! The engine: what a mailbox's commands come to, as entries of its log, and what follows from their verdicts.
//!
//! Memory always equals applied state. What is decided is decided on a copy, and the copy takes memory's
//! place when its entry is accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mailraft_owner::kept::kept_row;
use mailraft_owner::{Effect, Engine, Missed, Part, Place, Queued, RequestDigest};
use mailraft_storage::seal::{SEAL_OVERHEAD_BYTES, seal_row};
use mailraft_storage::{CommandId, Env, Index, RowBatch, RowKey, Rows, StoreError, Table};

use crate::accepted::QueuePosition;
use crate::alone::begin_alone;
use crate::api::{Answer, Command, EmailId, FolderId, FolderStatus, NewMessage, QuotaUsage, Refusal};
use crate::commands;
use crate::forks::begin_incarnation;
use crate::limits::{BATCH_MAX_BYTES, Limits};
use crate::load::{OpenBody, load};
use crate::notice::News;
use crate::plant::{self, Fault};
use crate::queue::items::Items;
use crate::reads::{Claims, Counted, ReadAnswer, StoredRead, narrow, read};
use crate::records::{
    self, FolderRow, MailboxKey, StageId, chunk_key, content_key, counters_key, encode, encode_result, folder_key,
    open_body_key, repeat_key, seal_result,
};
use crate::search_index::{GramSeed, SearchAnswer, SearchIndex, SearchQuestion, is_within_bounds};
use crate::sizes::command_bytes;
use crate::stage::{Staged, bury, sweep};
use crate::state::State;
use crate::work::{Context, Row, UID_AHEAD_MAX, Work, key_bytes};

/// How many chunks of an abandoned upload one entry deletes.
const SWEEP_CHUNKS: u32 = 1_000;

/// What a read comes to.
#[derive(Debug)]
pub enum Read {
    /// It is answered from the memory of this position.
    Answered(Result<Answer, Refusal>, Index),
    /// It needs rows: run it on a worker thread.
    Stored(StoredRead),
    /// It is heard, and nothing is answered.
    Heard,
    /// The mailbox is new and has no folders yet: ask again after its first entry.
    TooEarly,
}

/// The state machine of one mailbox.
pub struct Mailbox {
    cx: Context,
    rows: Arc<dyn Rows>,
    state: State,
    position: Index,
    claims: Claims,
    counted: Counted,
    staged: Option<Box<Staged>>,
    open: VecDeque<OpenBody>,
    search_index: SearchIndex,
}

/// An entry while it is decided, and until its verdict.
pub struct Entry(Kind);

enum Kind {
    Batch(Box<Batch>),
    /// The first part of the staged change that is still to be written.
    Part,
    /// Its last entry.
    Last,
    /// Deletions of what is gone, and the state after them.
    Sweep {
        deletions: RowBatch,
        next: Box<State>,
    },
    /// Deletion of chunks of the first open body; of all that are left, and its row, if it is the last.
    OpenBody {
        chunks: u32,
        last: bool,
    },
}

/// Commands decided together.
struct Batch {
    next: State,
    rows: BTreeMap<RowKey, Row>,
    requires: BTreeSet<RowKey>,
    touched: BTreeSet<FolderId>,
    news: Vec<News>,
    /// What each command requires of the rows before this entry.
    needs: Vec<Vec<RowKey>>,
    bytes: usize,
    max_bytes: usize,
}

impl Mailbox {
    /// Reads a mailbox into memory. Blocking: for a worker thread. A mailbox without rows is new: its first
    /// entry makes INBOX and the other first folders, before anything else.
    ///
    /// # Errors
    /// If the store can't be read or a row of the mailbox is damaged.
    pub fn load(rows: Arc<dyn Rows>, place: Place, key: MailboxKey) -> Result<Mailbox, StoreError> {
        Mailbox::load_with(rows, place, key, Limits::default())
    }

    /// The same with other bounds than production's.
    ///
    /// # Errors
    /// As [`Mailbox::load`].
    pub fn load_with(
        rows: Arc<dyn Rows>,
        place: Place,
        key: MailboxKey,
        limits: Limits,
    ) -> Result<Mailbox, StoreError> {
        let mut cx = Context::new(place, key);
        let entry_max_bytes = limits.entry_max_bytes.min(BATCH_MAX_BYTES);
        let part_max_bytes = limits.part_max_bytes.min(entry_max_bytes);
        cx.limits = Limits { entry_max_bytes, part_max_bytes, ..limits };
        let loaded = load(rows.as_ref(), &cx)?;
        Ok(Mailbox {
            cx,
            rows,
            state: loaded.state,
            position: loaded.position,
            claims: Claims::new(),
            counted: Counted::new(),
            staged: None,
            open: loaded.open,
            search_index: SearchIndex::default(),
        })
    }

    /// The most bytes of messages from now on, each counted once however many places it has; None for no bound.
    pub fn set_quota_bytes(&mut self, quota: Option<u64>) {
        self.cx.quota_bytes = quota;
    }

    /// Answers a read from memory, or hands it out.
    pub fn read(&mut self, env: &Env, command: &Command) -> Read {
        if self.must_begin() {
            return Read::TooEarly;
        }
        if let Command::Heard { commands } = command {
            self.cx.heard.hear(&self.state, commands, env.now);
            return Read::Heard;
        }
        if let Command::Quota = command {
            let usage = QuotaUsage { used_bytes: self.usage_bytes(), limit_bytes: self.cx.quota_bytes };
            return Read::Answered(Ok(Answer::Quota(usage)), self.position);
        }
        let answer = match command {
            Command::Search(question) => self.search(question),
            _ => read(&self.state, &self.cx.place, (&mut self.claims, &mut self.counted), command),
        };
        match answer {
            ReadAnswer::Now(answer) => Read::Answered(answer, self.position),
            ReadAnswer::Stored(kind) => {
                Read::Stored(StoredRead::new(self.cx.place, self.cx.key.clone(), self.position, kind))
            }
        }
    }

    /// What is asked about the index. Whatever becomes of it, no message is found or not found for it.
    fn search(&mut self, question: &SearchQuestion) -> ReadAnswer {
        if !is_within_bounds(question) {
            return ReadAnswer::Now(Err(Refusal::Limit(
                "too much is asked of the index at once, or by another version".to_owned(),
            )));
        }
        match question {
            SearchQuestion::Key { .. } => {
                let seed = GramSeed::of(&self.cx.key.key);
                ReadAnswer::Now(Ok(Answer::Search(SearchAnswer::Key(seed))))
            }
            SearchQuestion::Narrow { folder, uids, texts } => {
                narrow(&self.state, &self.search_index, (*folder, uids), texts)
            }
            SearchQuestion::Add { filters } => {
                for (email, filter) in filters {
                    // What is gone leaves nothing behind.
                    if self.state.email(*email).is_some() && self.search_index.add(*email, filter.clone()).is_err() {
                        return ReadAnswer::Now(Err(Refusal::Limit("the index is full".to_owned())));
                    }
                }
                ReadAnswer::Now(Ok(Answer::Done))
            }
        }
    }

    /// What the index for searches takes in memory, roughly, in bytes.
    pub fn search_index_bytes(&self) -> usize {
        self.search_index.memory_bytes()
    }

    /// Forgets the index for searches: others need its memory.
    pub fn drop_search_index(&mut self) {
        self.search_index.clear();
    }

    /// Whether one of these messages is in the mailbox.
    pub(crate) fn has_any(&self, emails: &[EmailId]) -> bool {
        emails.iter().any(|email| self.state.email(*email).is_some())
    }

    /// What it takes in memory, roughly, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let counted = self.counted.len() * size_of::<(FolderId, u32, FolderStatus)>();
        size_of::<Self>()
            + self.state.memory_bytes()
            + self.cx.heard.memory_bytes()
            + counted
            + self.search_index.memory_bytes()
    }

    /// The bytes of all messages, each counted once: what a quota bounds.
    pub fn usage_bytes(&self) -> u64 {
        self.state.counters.usage_bytes
    }

    /// What waits in it, if it is a queue mailbox, and the state of its partition at which that is so.
    pub(crate) fn queue(&self) -> (&Items, QueuePosition) {
        let incarnation = self.cx.place.incarnation.number;
        (&self.state.queue, QueuePosition { incarnation, index: self.position })
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    #[cfg(test)]
    pub(crate) fn counted(&mut self) -> &mut Counted {
        &mut self.counted
    }

    /// Memory becomes what was applied.
    fn forward(&mut self, next: State) {
        let rises = next.counters.modseq >= self.state.counters.modseq;
        assert!(
            rises || mailraft_owner::plant::is(mailraft_owner::plant::Fault::InterleaveStaged),
            "MODSEQ never falls"
        );
        self.state = next;
        for email in std::mem::take(&mut self.state.released) {
            if self.state.email(email).is_none() {
                self.search_index.remove(email);
            }
        }
        let state = &self.state;
        self.cx.heard.keep_those_in(state);
        // A claim that is saved now, or whose folder is gone, needs no place in memory.
        self.claims.retain(|id, uid| state.folder(*id).is_some_and(|f| f.record.first_unclaimed < *uid));
    }

    /// A required row was missing: an upload is gone, or a content is damaged.
    fn missed(&self, needs: &[RowKey]) -> Missed {
        match needs.iter().find(|key| self.is_missing(key)) {
            None => Missed::Again,
            Some(key) if key.table == Table::Contents.number() => Missed::Damaged,
            Some(_) => Missed::Lost,
        }
    }

    fn is_missing(&self, key: &RowKey) -> bool {
        matches!(self.rows.get(self.cx.place.replica, key), Ok(None))
    }
}

impl Engine for Mailbox {
    type Command = Command;
    type Answer = Answer;
    type Refusal = Refusal;
    type Entry = Entry;
    type Event = News;
    type Error = StoreError;

    fn place(&self) -> &Place {
        &self.cx.place
    }

    fn rows(&self) -> &dyn Rows {
        self.rows.as_ref()
    }

    fn position(&self) -> Index {
        self.position
    }

    fn command_bytes(command: &Command) -> usize {
        command_bytes(command)
    }

    fn id_is_taken(&self) -> Refusal {
        Refusal::NotAllowed("the id belongs to another command".to_owned())
    }

    fn seal_result(
        &self,
        env: &mut Env,
        id: CommandId,
        _: Option<RequestDigest>,
        result: &Result<Answer, Refusal>,
    ) -> Bytes {
        seal_result(env, &self.cx.key, &self.cx.place, id, &encode_result(result))
    }

    fn open_result(
        &self,
        id: CommandId,
        sealed: &Bytes,
    ) -> Result<(Option<RequestDigest>, Result<Answer, Refusal>), StoreError> {
        Ok((None, records::open_result(&self.cx.key, &self.cx.place, id, sealed)?))
    }

    fn must_begin(&self) -> bool {
        // A queue mailbox has no folders, and nothing that clients hold on to.
        let begun = self.state.is_of(self.cx.place.incarnation.number) && !self.state.must_begin_alone;
        !self.cx.place.mailbox.is_queue() && !begun
    }

    fn is_idle(&self) -> bool {
        !self.state.queue.has_open()
            && self.staged.is_none()
            && self.state.garbage.is_empty()
            && self.cx.heard.is_empty()
    }

    /// Deletes what is gone: rows of large removals, forgotten deliveries, answers that were heard, abandoned uploads.
    fn upkeep(&mut self, env: &mut Env) -> Option<Entry> {
        let swept =
            sweep(&self.state, &self.cx).or_else(|| commands::sweep_deliveries(&self.state, &self.cx, env.wall));
        let swept = swept.or_else(|| commands::sweep_heard(&self.state, &self.cx, env.now));
        let swept = swept.or_else(|| commands::sweep_repeats(&self.state, &self.cx, env.wall));
        if let Some((deletions, next)) = swept {
            return Some(Entry(Kind::Sweep { deletions, next: Box::new(next) }));
        }
        let limit_ms = self.cx.limits.open_body_max_ms;
        let old = |open: &OpenBody| open.opened.0.saturating_add(limit_ms) < env.wall.0;
        let at = self.open.iter().position(old)?;
        self.open.swap(0, at);
        let open = self.open.front()?;
        let chunks = open.chunks.min(open.done + SWEEP_CHUNKS);
        Some(Entry(Kind::OpenBody { chunks, last: chunks == open.chunks }))
    }

    fn begin(&mut self, env: &mut Env) -> Entry {
        let mut batch = Batch::on(&self.state, self.cx.limits.entry_max_bytes);
        if self.cx.place.mailbox.is_queue() {
            batch.next.begun = true;
        } else if !self.state.begun {
            let first = env.command_id();
            let mut work = Work::on(&batch.next, &self.cx, env, first);
            commands::begin(&mut work).expect("a new mailbox has room for its first folders");
            let bytes = work.size_bytes();
            batch.absorb(work, bytes);
        } else if self.must_begin() {
            let first = env.command_id();
            let mut work = Work::on(&batch.next, &self.cx, env, first);
            if !work.state.is_of(self.cx.place.incarnation.number) {
                begin_incarnation(&mut work);
            }
            if work.state.must_begin_alone {
                begin_alone(&mut work);
            }
            let bytes = work.size_bytes();
            batch.absorb(work, bytes);
        }
        Entry(Kind::Batch(Box::new(batch)))
    }

    fn decide(
        &mut self,
        env: &mut Env,
        entry: &mut Entry,
        queued: &Queued<Command>,
    ) -> Effect<Answer, Refusal, StoreError> {
        let Kind::Batch(batch) = &mut entry.0 else { panic!("a command is decided in a batch") };
        let blind = plant::is(Fault::BatchWithoutEffects) && self.state.begun;
        let base = if blind { &self.state } else { &batch.next };
        let mut work = Work::on(base, &self.cx, env, queued.id);
        let decided = if queued.damaged { Err(Refusal::Corrupt) } else { commands::decide(&mut work, &queued.command) };
        let answer = match decided {
            Ok(answer) => answer,
            Err(refusal) => return batch.refuse(&self.cx, &queued.command, refusal),
        };
        let result = Ok(answer);
        let bytes = work.size_bytes() + result_bytes(&result);
        let in_parts = work.new_places_bytes() > self.cx.limits.part_max_bytes;
        if batch.bytes + bytes <= batch.max_bytes && !(in_parts && may_be_staged(&queued.command)) {
            let needs = batch.absorb(work, bytes);
            batch.needs.push(needs);
            return Effect::Decided(result);
        }
        if !batch.is_empty() {
            return Effect::NoRoom;
        }
        match stage(work, &queued.command, result, &self.cx.limits) {
            Some(staged) => {
                self.staged = Some(staged);
                Effect::Parts
            }
            None => {
                let limit = Refusal::Limit("too large a change: do it in parts".to_owned());
                batch.refuse(&self.cx, &queued.command, limit)
            }
        }
    }

    fn next_part(&mut self, _: &mut Env) -> Part<Entry, Answer, Refusal> {
        let Some(staged) = &self.staged else { panic!("no change is staged") };
        if staged.parts.is_empty() {
            Part::Last(Entry(Kind::Last), staged.result.clone())
        } else {
            Part::Inner(Entry(Kind::Part))
        }
    }

    fn close(&mut self, env: &mut Env, entry: &mut Entry) -> (Vec<RowKey>, RowBatch) {
        let (cx, mailbox) = (&self.cx, self.cx.place.mailbox);
        let (requires, rows) = match &mut entry.0 {
            Kind::Batch(batch) => {
                let mut rows = std::mem::take(&mut batch.rows);
                batch.forget_heard(cx, &mut rows);
                let (next, touched) = (&mut batch.next, &batch.touched);
                complete(&mut rows, cx, next, &self.state, &self.claims, touched, self.position);
                (std::mem::take(&mut batch.requires), rows)
            }
            Kind::Part => {
                let part = self.staged.as_ref().and_then(|s| s.parts.front()).into_iter().flatten();
                let contents = part.clone().map(|(_, r)| content_key(mailbox, r.email)).collect();
                (contents, part.map(|(key, record)| (key.clone(), Row::NewPlace(record.clone()))).collect())
            }
            Kind::Last => {
                let Some(staged) = self.staged.as_mut() else { panic!("no change is staged") };
                let mut rows = staged.rows.clone();
                let (next, touched) = (&mut staged.next, &staged.touched);
                complete(&mut rows, cx, next, &self.state, &self.claims, touched, self.position);
                (staged.requires.clone(), rows)
            }
            Kind::Sweep { deletions, .. } => return (Vec::new(), std::mem::take(deletions)),
            Kind::OpenBody { chunks, last } => {
                let Some(open) = self.open.front() else { panic!("no body is open") };
                let mut batch = RowBatch::default();
                for number in open.done..*chunks {
                    batch.delete(chunk_key(mailbox, open.body, number));
                }
                let key = open_body_key(mailbox, open.body);
                if *last {
                    batch.delete(key.clone());
                }
                return (if plant::is(Fault::SweepLiveBody) { Vec::new() } else { vec![key] }, batch);
            }
        };
        if plant::is(Fault::DecideOnUnapplied)
            && let Kind::Batch(batch) = &entry.0
        {
            self.state = batch.next.clone();
        }
        (requires.into_iter().collect(), seal_rows(env, &self.cx, rows))
    }

    fn accepted(&mut self, index: Index, entry: Entry) -> Vec<News> {
        self.position = index;
        match entry.0 {
            Kind::Batch(batch) => {
                self.forward(batch.next);
                return batch.news;
            }
            Kind::Part => {
                if let Some(staged) = &mut self.staged {
                    staged.part_written();
                }
            }
            Kind::Last => {
                if let Some(staged) = self.staged.take() {
                    self.forward(staged.next);
                    return staged.news;
                }
            }
            Kind::Sweep { next, .. } => {
                self.state = *next;
                self.cx.heard.keep_those_in(&self.state);
            }
            Kind::OpenBody { chunks, last } => {
                if last {
                    self.open.pop_front();
                } else if let Some(open) = self.open.front_mut() {
                    open.done = chunks;
                }
            }
        }
        Vec::new()
    }

    fn missing(&mut self, entry: Entry, commands: usize) -> Vec<Missed> {
        match entry.0 {
            Kind::Batch(batch) => batch.needs.iter().map(|needs| self.missed(needs)).collect(),
            Kind::Part | Kind::Last => {
                let Some(staged) = self.staged.take() else { return vec![Missed::Again; commands] };
                let mailbox = self.cx.place.mailbox;
                let mut contents = staged.parts.iter().flatten().map(|(_, r)| content_key(mailbox, r.email));
                let damaged = contents.any(|key| self.is_missing(&key));
                bury(&mut self.state, staged.written);
                vec![if damaged { Missed::Damaged } else { Missed::Again }; commands]
            }
            Kind::Sweep { .. } => Vec::new(),
            // It became live, or someone swept it.
            Kind::OpenBody { .. } => {
                self.open.pop_front();
                Vec::new()
            }
        }
    }
}

/// What the table of commands keeps of a command.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The index of its entry.
    pub index: Index,
    /// Its result; None if it is another mailbox's.
    pub result: Option<Result<Answer, Refusal>>,
}

/// What the table of commands keeps under an id; None if it keeps nothing.
///
/// # Errors
/// If the store can't be read or the row is damaged.
pub fn kept_result(
    rows: &dyn Rows,
    place: &Place,
    key: &MailboxKey,
    id: CommandId,
) -> Result<Option<Kept>, StoreError> {
    let Some(row) = kept_row(rows, place.replica, id)? else { return Ok(None) };
    let own = row.mailbox == place.mailbox;
    let result = own.then(|| records::open_result(key, place, id, &row.result)).transpose()?;
    Ok(Some(Kept { index: row.index, result }))
}

impl Batch {
    fn on(state: &State, max_bytes: usize) -> Self {
        Batch {
            next: state.clone(),
            rows: BTreeMap::new(),
            requires: BTreeSet::new(),
            touched: BTreeSet::new(),
            news: Vec::new(),
            needs: Vec::new(),
            bytes: 0,
            max_bytes,
        }
    }

    fn is_empty(&self) -> bool {
        self.needs.is_empty() && self.rows.is_empty() && self.touched.is_empty()
    }

    /// Takes a command's change over. Returns what it requires of the rows before this entry.
    fn absorb(&mut self, work: Work<'_>, bytes: usize) -> Vec<RowKey> {
        // What this entry itself writes is not there yet when apply looks.
        let requires: Vec<RowKey> = work.requires.into_iter().filter(|key| !self.rows.contains_key(key)).collect();
        self.requires.extend(requires.iter().cloned());
        self.rows.extend(work.rows);
        self.touched.extend(work.touched);
        self.touched.retain(|id| work.state.folder(*id).is_some());
        self.news.extend(work.news);
        self.next = work.state;
        self.bytes += bytes;
        requires
    }

    /// Adds the deletion of what was heard meanwhile to its rows, as far as there is room: the next entry takes the rest.
    fn forget_heard(&mut self, cx: &Context, rows: &mut BTreeMap<RowKey, Row>) {
        let mut gone = Vec::new();
        for hash in cx.heard.in_state(&self.next) {
            let key = repeat_key(cx.place.mailbox, &hash);
            let bytes = key_bytes(&key);
            if self.bytes + bytes > self.max_bytes {
                break;
            }
            self.bytes += bytes;
            rows.insert(key, Row::Delete);
            gone.push(hash);
        }
        self.next.remove_repeats(gone);
    }

    /// Takes a refusal in, and deletes the upload that came to nothing.
    fn refuse(&mut self, cx: &Context, command: &Command, refusal: Refusal) -> Effect<Answer, Refusal, StoreError> {
        let result = Err(refusal);
        let bytes = result_bytes(&result);
        if self.bytes + bytes > self.max_bytes && !self.is_empty() {
            return Effect::NoRoom;
        }
        self.bytes += bytes;
        let is_live = |d: &NewMessage| self.next.email(cx.email_id(d.body)).is_some();
        let live = commands::new_messages_of(command).into_iter().any(is_live);
        let upload = if live { Vec::new() } else { commands::upload_rows(cx, command) };
        let size: usize = upload.iter().map(key_bytes).sum();
        // Where there is no room the sweep of open uploads finds them later.
        if self.bytes + size <= self.max_bytes {
            self.bytes += size;
            self.rows.extend(upload.into_iter().map(|key| (key, Row::Delete)));
        }
        self.needs.push(Vec::new());
        Effect::Decided(result)
    }
}

/// Adds the rows of folders and counters, and saves what SELECTs claimed meanwhile.
fn complete(
    rows: &mut BTreeMap<RowKey, Row>,
    cx: &Context,
    next: &mut State,
    applied: &State,
    claims: &Claims,
    touched: &BTreeSet<FolderId>,
    position: Index,
) {
    let mailbox = cx.place.mailbox;
    let mut written = touched.clone();
    for (id, uid) in claims.iter() {
        if let Some(folder) = next.folder_mut(*id).filter(|f| f.record.first_unclaimed < *uid) {
            folder.record.first_unclaimed = *uid;
            written.insert(*id);
        }
    }
    for id in written {
        let Some(folder) = next.folder(id) else { continue };
        if let Some(before) = applied.folder(id).filter(|f| f.record.selectable && folder.record.selectable) {
            let ahead = folder.record.uid_next.checked_sub(before.record.uid_next);
            let rises = ahead.is_some_and(|n| n <= UID_AHEAD_MAX)
                || mailraft_owner::plant::is(mailraft_owner::plant::Fault::InterleaveStaged);
            assert!(rises, "UIDs rise, but not far above the confirmed ones");
        }
        rows.insert(folder_key(mailbox, id), Row::Plain(encode(&FolderRow::Folder(folder.record.clone()))));
    }
    next.counters.position = position;
    next.counters.incarnation = cx.place.incarnation.number;
    rows.insert(counters_key(mailbox), Row::Plain(encode(&next.counters)));
}

/// Whether a command's new places may be written before its last entry. Not where it brings a message: a place requires its
/// content, which only the last entry would write.
fn may_be_staged(command: &Command) -> bool {
    commands::new_messages_of(command).is_empty()
}

/// Takes a change with new places apart, if all else of it fits an entry.
fn stage(work: Work<'_>, command: &Command, result: Result<Answer, Refusal>, limits: &Limits) -> Option<Box<Staged>> {
    let has_places = work.rows.values().any(|row| matches!(row, Row::NewPlace(_)));
    if !has_places || !may_be_staged(command) {
        return None;
    }
    let stage = StageId(if plant::is(Fault::StageIdsRepeat) { [0; 16] } else { work.env.bytes() });
    let staged = Staged::split(work, stage, result, limits.part_max_bytes);
    (staged.last_bytes() + result_bytes(&staged.result) <= limits.entry_max_bytes).then(|| Box::new(staged))
}

fn seal_rows(env: &mut Env, cx: &Context, rows: BTreeMap<RowKey, Row>) -> RowBatch {
    let mut batch = RowBatch::default();
    let (key, epoch, cluster) = (&cx.key.key, cx.key.epoch, cx.place.cluster);
    for (place, row) in rows {
        let value = match row {
            Row::Plain(plain) => seal_row(env, key, epoch, cluster, &place, &plain),
            Row::NewPlace(record) => seal_row(env, key, epoch, cluster, &place, &record.encode()),
            Row::Ready(sealed) => sealed,
            Row::Delete => {
                batch.delete(place);
                continue;
            }
        };
        batch.put(place, value);
    }
    batch
}

/// What a result takes of an entry, in bytes, as an upper bound.
fn result_bytes(result: &Result<Answer, Refusal>) -> usize {
    encode_result(result).len() + SEAL_OVERHEAD_BYTES + 32
}
