//! The engine: queue, one entry in flight, and what follows from its verdict.
//!
//! Memory always equals applied state. What is decided is decided on a copy, and the copy takes memory's
//! place when its entry is accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mailraft_storage::entry::{CommandRow, RowsBody};
use mailraft_storage::plant::{self, Fault};
use mailraft_storage::seal::{SEAL_OVERHEAD_BYTES, seal_row};
use mailraft_storage::{
    CommandFloor, CommandId, EntryKind, Env, Index, Proposal, RowBatch, RowKey, Rows, StoreError, Table, Verdict,
};

use crate::api::{Answer, Command, Event, FolderId, Refusal};
use crate::commands;
use crate::limits::{BATCH_MAX_BYTES, Limits};
use crate::load::{OpenBody, load};
use crate::queue::{QUEUE_MAX_COMMANDS, Queue, Queued, SessionNumber};
use crate::reads::{Claims, Kind, ReadAnswer, StoredRead, read};
use crate::records::{
    self, FolderRow, MailboxKey, Place, StageId, chunk_key, content_key, counters_key, encode, encode_result,
    folder_key, open_body_key, seal_result,
};
use crate::stage::{Staged, bury, sweep};
use crate::state::State;
use crate::work::{Context, Row, UID_AHEAD_MAX, Work, key_bytes};

/// The most commands decided together as one entry.
pub const BATCH_MAX_COMMANDS: usize = 64;
/// While commands wait, one entry in so many sweeps.
const SWEEP_EVERY_ENTRIES: u32 = 8;
/// How many chunks of an abandoned upload one entry deletes.
const SWEEP_CHUNKS: u32 = 4_000;

/// What became of a command that was submitted.
#[derive(Debug)]
pub enum Submitted {
    /// Answered already, from the memory (or the kept result) of this position.
    Answered(Result<Answer, Refusal>, Index),
    /// A read that needs rows: run it on a worker thread.
    Read(StoredRead),
    /// It waits; the answer comes with an [`Outcome`].
    Queued,
    /// The same id is in flight or waits already: its answer comes once, for all who asked.
    Joined,
    /// The queue is full. Not decided; try again later.
    Overloaded,
    /// The id is below the floor of kept results: nobody knows whether it was carried out.
    Unknown,
    /// The same for a first attempt: this floor is above its id. Not decided. A session that never sent the id
    /// before takes a higher one.
    Expired(CommandId),
    /// The store can't be read.
    Failed(StoreError),
}

/// What an applied entry means to the sessions. Events go first.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers by command, with the position that must be visible before they are given.
    pub answers: Vec<(CommandId, Result<Answer, Refusal>, Index)>,
    /// What changed, in the order of the log.
    pub events: Vec<Event>,
    /// Commands whose uploaded body is no longer there. They were not decided and have no result: the session
    /// uploads again and submits under the same id.
    pub lost: Vec<CommandId>,
}

/// The state machine of one mailbox.
pub struct Mailbox {
    cx: Context,
    rows: Arc<dyn Rows>,
    state: State,
    position: Index,
    queue: Queue,
    /// Every id that waits or is in flight.
    known: BTreeSet<CommandId>,
    /// Reads of a mailbox that has no folders yet.
    early: VecDeque<(CommandId, Command)>,
    claims: Claims,
    in_flight: Option<Flight>,
    staged: Option<Box<Staged>>,
    open: VecDeque<OpenBody>,
    since_sweep: u32,
}

/// The entry whose verdict is awaited.
enum Flight {
    Decided(Box<Batch>),
    /// The first part of the staged change.
    Part,
    /// Its last entry.
    Last,
    Sweep(Box<State>),
    /// Deletion of chunks of the first open body; all of it if true.
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
    events: Vec<Event>,
    decided: Vec<Decided>,
    bytes: usize,
    max_bytes: usize,
}

struct Decided {
    queued: Queued,
    result: Result<Answer, Refusal>,
    requires: Vec<RowKey>,
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
        cx.limits = Limits { entry_max_bytes: limits.entry_max_bytes.min(BATCH_MAX_BYTES), ..limits };
        let loaded = load(rows.as_ref(), &cx)?;
        Ok(Mailbox {
            cx,
            rows,
            state: loaded.state,
            position: loaded.position,
            queue: Queue::default(),
            known: BTreeSet::new(),
            early: VecDeque::new(),
            claims: Claims::new(),
            in_flight: None,
            staged: None,
            open: loaded.open,
            since_sweep: 0,
        })
    }

    /// The most bytes of messages from now on, each counted once however many places it has; None for no bound.
    pub fn set_quota_bytes(&mut self, quota: Option<u64>) {
        self.cx.quota_bytes = quota;
    }

    /// Answers a read from memory or hands it out, and queues a change. A result kept under the id is
    /// the answer. `attempt` is above 0 for a retry. Below the floor of kept results even a first attempt is not
    /// taken: it may be a late copy, or its session's clock is far behind.
    pub fn submit(
        &mut self,
        _env: &mut Env,
        session: SessionNumber,
        id: CommandId,
        attempt: u32,
        command: Command,
    ) -> Submitted {
        if command.is_read() {
            return self.submit_read(id, command);
        }
        if self.known.contains(&id) {
            return Submitted::Joined;
        }
        match self.kept_result(id, attempt) {
            Ok(None) => {}
            Ok(Some(kept)) => return kept,
            Err(error) => return Submitted::Failed(error),
        }
        if self.queue.is_full_for(&command) {
            return Submitted::Overloaded;
        }
        self.known.insert(id);
        self.queue.push(Queued { session, id, command, damaged: false });
        Submitted::Queued
    }

    /// Decides what waits as one entry. None while one is in flight or nothing is to be done.
    pub fn next_entry(&mut self, env: &mut Env) -> Option<Proposal> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.staged.is_some() && (self.queue.is_empty() || !plant::is(Fault::InterleaveStaged)) {
            return self.next_staged(env);
        }
        if self.state.begun && (self.queue.is_empty() || self.since_sweep >= SWEEP_EVERY_ENTRIES) {
            self.since_sweep = 0;
            if let Some(proposal) = self.next_sweep(env) {
                return Some(proposal);
            }
        }
        if self.queue.is_empty() && self.state.begun {
            return None;
        }
        self.since_sweep += 1;
        self.next_batch(env)
    }

    /// The verdict of the entry in flight. After anything but [`Verdict::Accepted`] nothing changed and the
    /// commands wait again in their order. (After [`Verdict::Fenced`] this owner's reign is over: discard it.)
    ///
    /// # Panics
    /// If none is in flight.
    pub fn applied(&mut self, index: Index, verdict: Verdict) -> Outcome {
        let flight = self.in_flight.take();
        let Some(flight) = flight else { panic!("a verdict without an entry in flight") };
        match verdict {
            Verdict::Accepted => self.accepted(index, flight),
            Verdict::Fenced => {
                self.return_to_queue(flight);
                Outcome::default()
            }
            Verdict::Missing => self.missing(flight),
        }
    }

    /// The entry in flight was never appended: the same is decided again by [`Mailbox::next_entry`].
    pub fn dropped(&mut self) {
        if let Some(flight) = self.in_flight.take() {
            self.return_to_queue(flight);
        }
    }

    /// Whether a verdict is awaited.
    pub fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether nothing waits, is in flight or is left to sweep.
    pub fn idle(&self) -> bool {
        self.in_flight.is_none()
            && self.staged.is_none()
            && self.queue.is_empty()
            && self.early.is_empty()
            && self.state.begun
            && self.state.garbage.is_empty()
    }

    /// What it takes in memory, roughly, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.state.memory_bytes() + self.queue.bytes()
    }

    /// The position of the applied state in memory.
    pub fn position(&self) -> Index {
        self.position
    }

    /// The bytes of all messages, each counted once: what a quota bounds.
    pub fn usage_bytes(&self) -> u64 {
        self.state.counters.usage_bytes
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    fn submit_read(&mut self, id: CommandId, command: Command) -> Submitted {
        if !self.state.begun {
            if self.early.len() >= QUEUE_MAX_COMMANDS {
                return Submitted::Overloaded;
            }
            self.early.push_back((id, command));
            return Submitted::Queued;
        }
        match read(&self.state, &self.cx.place, &mut self.claims, &command) {
            ReadAnswer::Now(answer) => Submitted::Answered(answer, self.position),
            ReadAnswer::Stored(kind) => Submitted::Read(self.stored_read(kind)),
        }
    }

    fn stored_read(&self, kind: Kind) -> StoredRead {
        StoredRead::new(self.cx.place, self.cx.key.clone(), self.position, kind)
    }

    /// What the table of commands says to an id. Asked for first attempts too: one that was held up in the network
    /// may come after a later attempt was carried out.
    fn kept_result(&self, id: CommandId, attempt: u32) -> Result<Option<Submitted>, StoreError> {
        if plant::is(Fault::RetryNotLookedUp) {
            return Ok(None);
        }
        let (rows, place) = (self.rows.as_ref(), &self.cx.place);
        match kept_result(rows, place, &self.cx.key, id)? {
            Some(Kept { index, result: Some(result) }) => return Ok(Some(Submitted::Answered(result, index))),
            Some(Kept { result: None, .. }) => return Ok(Some(Submitted::Unknown)),
            None => {}
        }
        // The floor after the row: it rises in the batch that evicts.
        let floor = CommandFloor::read(rows, place.replica)?;
        let below = || if attempt == 0 { Submitted::Expired(floor.0) } else { Submitted::Unknown };
        let held = match attempt {
            0 => !plant::is(Fault::FloorNotForFirsts),
            _ => !plant::is(Fault::FloorNotForRetries),
        };
        Ok((held && floor.is_above(id)).then(below))
    }

    fn next_batch(&mut self, env: &mut Env) -> Option<Proposal> {
        let mut batch = Batch::on(&self.state, self.cx.limits.entry_max_bytes);
        if !self.state.begun {
            let first = env.command_id();
            let mut work = Work::on(&batch.next, &self.cx, env, first);
            commands::begin(&mut work).expect("a new mailbox has room for its first folders");
            let bytes = work.size_bytes();
            batch.absorb(work, bytes);
        }
        while batch.decided.len() < BATCH_MAX_COMMANDS {
            let Some(queued) = self.queue.pop() else { break };
            let blind = plant::is(Fault::BatchWithoutEffects) && self.state.begun;
            let base = if blind { &self.state } else { &batch.next };
            let mut work = Work::on(base, &self.cx, env, queued.id);
            let result =
                if queued.damaged { Err(Refusal::Corrupt) } else { commands::decide(&mut work, &queued.command) };
            if let Err(refusal) = result {
                if let Some(queued) = batch.refuse(&self.cx, queued, refusal) {
                    self.queue.push_front(queued);
                    break;
                }
                continue;
            }
            let bytes = work.size_bytes() + result_bytes(&result);
            if batch.bytes + bytes <= batch.max_bytes {
                let requires = batch.absorb(work, bytes);
                batch.decided.push(Decided { queued, result, requires });
                continue;
            }
            if !batch.is_empty() {
                self.queue.push_front(queued);
                break;
            }
            match stage(work, queued, result, self.cx.limits.entry_max_bytes) {
                Ok(staged) => {
                    self.staged = Some(staged);
                    return self.next_staged(env);
                }
                Err(queued) => {
                    let limit = Refusal::Limit("too large a change: do it in parts".to_owned());
                    // The batch is empty: there is room.
                    if let Some(queued) = batch.refuse(&self.cx, *queued, limit) {
                        self.queue.push_front(queued);
                        break;
                    }
                }
            }
        }
        Some(self.propose_batch(env, batch))
    }

    fn next_staged(&mut self, env: &mut Env) -> Option<Proposal> {
        let staged = self.staged.as_mut()?;
        let (cx, id) = (&self.cx, staged.queued.id);
        let Some(part) = staged.parts.front() else {
            let mut rows = staged.rows.clone();
            complete(&mut rows, cx, &mut staged.next, &self.state, &mut self.claims, &staged.touched, self.position);
            let batch = seal_rows(env, cx, rows);
            let result = seal_result(env, &cx.key, &cx.place, id, &encode_result(&staged.result));
            let requires = staged.requires.iter().cloned().collect();
            self.in_flight = Some(Flight::Last);
            return Some(proposal(cx, id, RowsBody { requires, batch, results: vec![(id, result)] }));
        };
        let rows = part.iter().map(|(key, record)| (key.clone(), Row::NewPlace(record.clone()))).collect();
        let contents: BTreeSet<RowKey> = part.iter().map(|(_, r)| content_key(cx.place.mailbox, r.email)).collect();
        let batch = seal_rows(env, cx, rows);
        self.in_flight = Some(Flight::Part);
        Some(proposal(cx, id, RowsBody { requires: contents.into_iter().collect(), batch, results: Vec::new() }))
    }

    fn next_sweep(&mut self, env: &mut Env) -> Option<Proposal> {
        let id = env.command_id();
        let swept =
            sweep(&self.state, &self.cx).or_else(|| commands::sweep_deliveries(&self.state, &self.cx, env.wall));
        if let Some((batch, next)) = swept {
            self.in_flight = Some(Flight::Sweep(Box::new(next)));
            return Some(proposal(&self.cx, id, RowsBody { requires: Vec::new(), batch, results: Vec::new() }));
        }
        let limit_ms = self.cx.limits.open_body_max_ms;
        let old = |open: &OpenBody| open.opened.0.saturating_add(limit_ms) < env.wall.0;
        let at = self.open.iter().position(old)?;
        self.open.swap(0, at);
        let open = self.open.front()?;
        let mailbox = self.cx.place.mailbox;
        let to = open.chunks.min(open.done + SWEEP_CHUNKS);
        let last = to == open.chunks;
        let mut batch = RowBatch::default();
        for number in open.done..to {
            batch.delete(chunk_key(mailbox, open.body, number));
        }
        let key = open_body_key(mailbox, open.body);
        if last {
            batch.delete(key.clone());
        }
        self.in_flight = Some(Flight::OpenBody { chunks: to, last });
        let requires = if plant::is(Fault::SweepLiveBody) { Vec::new() } else { vec![key] };
        Some(proposal(&self.cx, id, RowsBody { requires, batch, results: Vec::new() }))
    }

    fn propose_batch(&mut self, env: &mut Env, mut batch: Batch) -> Proposal {
        let cx = &self.cx;
        let mut rows = std::mem::take(&mut batch.rows);
        complete(&mut rows, cx, &mut batch.next, &self.state, &mut self.claims, &batch.touched, self.position);
        let sealed = seal_rows(env, cx, rows);
        let results = batch
            .decided
            .iter()
            .filter(|d| d.result.is_ok() || !plant::is(Fault::RefusalNotRecorded))
            .map(|d| (d.queued.id, seal_result(env, &cx.key, &cx.place, d.queued.id, &encode_result(&d.result))))
            .collect();
        let first = batch.decided.first().map(|d| d.queued.id).unwrap_or_else(|| env.command_id());
        let requires = std::mem::take(&mut batch.requires).into_iter().collect();
        if plant::is(Fault::DecideOnUnapplied) {
            self.state = batch.next.clone();
        }
        self.in_flight = Some(Flight::Decided(Box::new(batch)));
        proposal(cx, first, RowsBody { requires, batch: sealed, results })
    }

    fn accepted(&mut self, index: Index, flight: Flight) -> Outcome {
        assert!(index > self.position || self.position == Index(0), "applied positions rise");
        self.position = index;
        let mut outcome = Outcome::default();
        match flight {
            Flight::Decided(batch) => {
                self.forward(batch.next);
                outcome.events = batch.events;
                for decided in batch.decided {
                    self.known.remove(&decided.queued.id);
                    outcome.answers.push((decided.queued.id, decided.result, index));
                }
                self.answer_early(&mut outcome);
            }
            Flight::Part => {
                if let Some(staged) = &mut self.staged {
                    staged.part_written();
                }
            }
            Flight::Last => {
                if let Some(staged) = self.staged.take() {
                    self.forward(staged.next);
                    outcome.events = staged.events;
                    self.known.remove(&staged.queued.id);
                    outcome.answers.push((staged.queued.id, staged.result, index));
                }
            }
            Flight::Sweep(next) => self.state = *next,
            Flight::OpenBody { chunks, last } => {
                if last {
                    self.open.pop_front();
                } else if let Some(open) = self.open.front_mut() {
                    open.done = chunks;
                }
            }
        }
        outcome
    }

    /// Memory becomes what was applied.
    fn forward(&mut self, next: State) {
        let rises = next.counters.modseq >= self.state.counters.modseq;
        assert!(rises || plant::is(Fault::InterleaveStaged), "MODSEQ never falls");
        self.state = next;
        let state = &self.state;
        // A claim that is saved now, or whose folder is gone, needs no place in memory.
        self.claims.retain(|id, uid| state.folder(*id).is_some_and(|f| f.record.first_unclaimed < *uid));
    }

    fn answer_early(&mut self, outcome: &mut Outcome) {
        for (id, command) in std::mem::take(&mut self.early) {
            let answer = match read(&self.state, &self.cx.place, &mut self.claims, &command) {
                ReadAnswer::Now(answer) => answer,
                ReadAnswer::Stored(kind) => {
                    // A mailbox that was just made has next to nothing to read.
                    self.stored_read(kind).run(self.rows.as_ref()).unwrap_or(Err(Refusal::Corrupt))
                }
            };
            outcome.answers.push((id, answer, self.position));
        }
    }

    fn return_to_queue(&mut self, flight: Flight) {
        match flight {
            Flight::Decided(batch) => {
                for decided in batch.decided.into_iter().rev() {
                    self.queue.push_front(decided.queued);
                }
            }
            // The staged change is still there, and so is what is to be swept.
            Flight::Part | Flight::Last | Flight::Sweep(_) | Flight::OpenBody { .. } => {}
        }
    }

    /// A required row was missing: an upload is gone, or a content is damaged. Those commands are told apart
    /// from the others, which are decided again.
    fn missing(&mut self, flight: Flight) -> Outcome {
        let mut outcome = Outcome::default();
        match flight {
            Flight::Decided(batch) => {
                for mut decided in batch.decided.into_iter().rev() {
                    match decided.requires.iter().find(|key| self.is_missing(key)) {
                        None => self.queue.push_front(decided.queued),
                        Some(key) if key.table == Table::Contents.number() => {
                            decided.queued.damaged = true;
                            self.queue.push_front(decided.queued);
                        }
                        Some(_) => {
                            self.known.remove(&decided.queued.id);
                            outcome.lost.push(decided.queued.id);
                        }
                    }
                }
                outcome.lost.reverse();
            }
            Flight::Part | Flight::Last => {
                if let Some(mut staged) = self.staged.take() {
                    let mailbox = self.cx.place.mailbox;
                    let contents = staged.parts.iter().flatten().map(|(_, r)| content_key(mailbox, r.email));
                    staged.queued.damaged = contents.into_iter().any(|key| self.is_missing(&key));
                    bury(&mut self.state, staged.written);
                    self.queue.push_front(staged.queued);
                }
            }
            Flight::Sweep(_) => {}
            // It became live, or someone swept it.
            Flight::OpenBody { .. } => {
                self.open.pop_front();
            }
        }
        outcome
    }

    fn is_missing(&self, key: &RowKey) -> bool {
        matches!(self.rows.get(self.cx.place.replica, key), Ok(None))
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
    let Some(row) = rows.get(place.replica, &RowKey::command(id))? else { return Ok(None) };
    let row = CommandRow::decode(&row)?;
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
            events: Vec::new(),
            decided: Vec::new(),
            bytes: 0,
            max_bytes,
        }
    }

    fn is_empty(&self) -> bool {
        self.decided.is_empty() && self.rows.is_empty() && self.touched.is_empty()
    }

    /// Takes a command's change over. Returns what it requires of the rows before this entry.
    fn absorb(&mut self, work: Work<'_>, bytes: usize) -> Vec<RowKey> {
        // What this entry itself writes is not there yet when apply looks.
        let requires: Vec<RowKey> = work.requires.into_iter().filter(|key| !self.rows.contains_key(key)).collect();
        self.requires.extend(requires.iter().cloned());
        self.rows.extend(work.rows);
        self.touched.extend(work.touched);
        self.touched.retain(|id| work.state.folder(*id).is_some());
        self.events.extend(work.events);
        self.next = work.state;
        self.bytes += bytes;
        requires
    }

    /// Records a refusal, and deletes the upload that came to nothing. Gives the command back if
    /// there is no room.
    fn refuse(&mut self, cx: &Context, queued: Queued, refusal: Refusal) -> Option<Queued> {
        let result = Err(refusal);
        let bytes = result_bytes(&result);
        if self.bytes + bytes > self.max_bytes {
            return Some(queued);
        }
        self.bytes += bytes;
        let live =
            commands::new_message_of(&queued.command).is_some_and(|d| self.next.email(cx.email_id(d.body)).is_some());
        let upload = if live { Vec::new() } else { commands::upload_rows(cx, &queued.command) };
        let size: usize = upload.iter().map(key_bytes).sum();
        // Where there is no room the sweep of open uploads finds them later.
        if self.bytes + size <= self.max_bytes {
            self.bytes += size;
            self.rows.extend(upload.into_iter().map(|key| (key, Row::Delete)));
        }
        self.decided.push(Decided { queued, result, requires: Vec::new() });
        None
    }
}

/// Adds the rows of folders and counters, and saves what SELECTs claimed meanwhile.
fn complete(
    rows: &mut BTreeMap<RowKey, Row>,
    cx: &Context,
    next: &mut State,
    applied: &State,
    claims: &mut Claims,
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
            let rises = ahead.is_some_and(|n| n <= UID_AHEAD_MAX) || plant::is(Fault::InterleaveStaged);
            assert!(rises, "UIDs rise, but not far above the confirmed ones");
        }
        rows.insert(folder_key(mailbox, id), Row::Plain(encode(&FolderRow::Folder(folder.record.clone()))));
    }
    next.counters.position = position;
    next.counters.incarnation = cx.place.incarnation.number;
    rows.insert(counters_key(mailbox), Row::Plain(encode(&next.counters)));
}

/// Takes a change apart that fits no entry, if all but its new places fit one. Else gives the command back, and so
/// where it brings a message: a place requires its content, which only the last entry would write.
fn stage(
    work: Work<'_>,
    queued: Queued,
    result: Result<Answer, Refusal>,
    max_bytes: usize,
) -> Result<Box<Staged>, Box<Queued>> {
    let Ok(answer) = result else { return Err(Box::new(queued)) };
    let has_places = work.rows.values().any(|row| matches!(row, Row::NewPlace(_)));
    if !has_places || commands::new_message_of(&queued.command).is_some() {
        return Err(Box::new(queued));
    }
    let stage = StageId(if plant::is(Fault::StageIdsRepeat) { [0; 16] } else { work.env.bytes() });
    let staged = Staged::split(work, stage, queued, answer, max_bytes);
    if staged.last_bytes() + result_bytes(&staged.result) > max_bytes {
        return Err(Box::new(staged.queued));
    }
    Ok(Box::new(staged))
}

fn seal_rows(env: &mut Env, cx: &Context, rows: BTreeMap<RowKey, Row>) -> RowBatch {
    let mut batch = RowBatch::default();
    let (key, epoch, cluster) = (&cx.key.key, cx.key.epoch, cx.place.cluster);
    for (place, row) in rows {
        let value = match row {
            Row::Plain(plain) => seal_row(env, key, epoch, cluster, &place, &plain),
            Row::NewPlace(record) => seal_row(env, key, epoch, cluster, &place, &encode(&record)),
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

fn proposal(cx: &Context, command: CommandId, body: RowsBody) -> Proposal {
    Proposal {
        incarnation: cx.place.incarnation,
        term: cx.place.term,
        mailbox: cx.place.mailbox,
        command,
        kind: EntryKind::Rows(body),
    }
}

/// What a result takes of an entry, in bytes, as an upper bound.
fn result_bytes(result: &Result<Answer, Refusal>) -> usize {
    encode_result(result).len() + SEAL_OVERHEAD_BYTES + 32
}
