//! The owner of one mailbox in one term: the log's owner with the mailbox's engine, the sessions that are attached, and
//! the reads that wait for a read barrier. An actor, or a simulator, is the thin shell around it: it carries
//! [`Step`]s out and reports what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mailraft_owner::{
    BACKLOG_MAX_COMMANDS, Detached, Engine, LogOwner, Owner, SessionNumber, Step as LogStep, StepOf, Tell, Unanswered,
};
use mailraft_storage::{CommandId, Env, Index, ProposalOutcome, StoreError};

use crate::accepted::{QueueChange, QueueOrigin, Told};
use crate::api::{Answer, Command, Event, FolderId, Refusal, Watching};
use crate::engine::{Mailbox, Read};
use crate::maildrop::Maildrop;
use crate::notice::{FolderNews, News, Notice};
use crate::plant::{self, Fault};
use crate::queue::errands::{Errand, ErrandKind, ErrandOutcome, Errands};
use crate::queue::outward::{Outward, OutwardOutcome, Outwards, may_come_from_predecessor};
use crate::reads::{RowsRead, StoredRead};
use crate::reply::{CommandError, Reply};

/// Reads that wait until the mailbox is loaded and has its first folders.
pub const EARLY_MAX_READS: usize = BACKLOG_MAX_COMMANDS;
/// Reads that wait until memory knows that what they did not find in the rows is gone.
pub const AHEAD_MAX_READS: usize = 64;
/// Events that wait behind a session's read; past it the session is told to attach again.
pub const HELD_MAX_EVENTS: usize = 4_096;

/// What the owner of a mailbox wants done beside what all owners want.
#[derive(Debug)]
pub enum Own<S> {
    /// Pass a read barrier in the owner's term, and do the read if there is one; then say [`MailboxOwner::confirmed`].
    Barrier {
        /// Names the read.
        number: u64,
        /// Rows to read, on a worker thread.
        rows: Option<StoredRead>,
        /// Other regions must hold what is read, too: whoever hears the answer forgets what this mailbox then alone knows.
        held: bool,
    },
    /// Reply to a session.
    Reply {
        /// The session.
        to: S,
        /// What it is told.
        reply: Reply,
    },
    /// Do something for a recipient of what waits in a queue mailbox; then say [`MailboxOwner::errand_ended`].
    Errand(Errand),
    /// Send what waits in a queue mailbox to another server, or tell its sender something; then say
    /// [`MailboxOwner::outward_ended`].
    Outward(Outward),
}

/// Something for the shell to do.
pub type Step<S> = mailraft_owner::Step<Own<S>, StoreError>;

/// What a read barrier says after a read was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// This node still leads in the owner's term.
    Confirmed,
    /// It does not, or nobody can say.
    Lost,
}

/// Before what came of an attempt is said again, where that could not be recorded.
const UNRECORDED_PAUSE: Duration = Duration::from_secs(1);

/// The owner of one mailbox; `S` names a session.
pub struct MailboxOwner<S> {
    /// Nobody asks what the owner itself wants changed.
    log: LogOwner<Mailbox, Option<S>>,
    sessions: BTreeMap<S, Attached>,
    /// Reads that came before the mailbox had its folders.
    early: VecDeque<Ask<S>>,
    barriers: BTreeMap<u64, AtBarrier<S>>,
    last_barrier: u64,
    /// Reads of rows that are ahead of memory: they wait for the entry in flight.
    ahead: Vec<Ahead<S>>,
    maildrop: Maildrop<S>,
    errands: Errands,
    outwards: Outwards,
    /// What came of attempts and could not be recorded yet, and when that is tried again. Bounded by what is under way.
    unrecorded: Vec<(Duration, QueueChange)>,
    /// Changes of the queue that are asked for, by the ids of their commands.
    changes: BTreeMap<CommandId, QueueChange>,
    /// Those that were answered, and whether they were made.
    changed: Vec<(QueueChange, bool)>,
    /// When the errands are looked at next, if nothing happens before.
    errands_at: Option<Duration>,
    /// Other regions have not confirmed for long.
    unconfirmed: bool,
    ended: bool,
}

/// A question of a session.
#[derive(Debug)]
pub struct Ask<S> {
    /// The session.
    pub session: S,
    /// The command's id.
    pub id: CommandId,
    /// 0 the first time.
    pub attempt: u32,
    /// The command.
    pub command: Command,
}

struct Attached {
    /// Whose turn it is goes by this.
    turn: SessionNumber,
    open: Option<FolderId>,
    /// Reads and kept results of this session at a barrier. Their answers show an earlier state than events that come meanwhile,
    /// which therefore wait.
    reading: usize,
    held: Vec<Reply>,
    /// It hears of folders that it does not have open.
    watches: bool,
    /// The change that it asked for last: where it only watches, it hears of that as its own.
    asked: Option<CommandId>,
    /// It delivers from a queue, which forgets the message once it hears that it is here: whatever it hears, other regions hold.
    from_queue: bool,
}

/// A read, or a kept result, that waits for a barrier.
struct AtBarrier<S> {
    session: S,
    id: CommandId,
    awaits: Awaited,
    index: Index,
    /// Other regions must hold it.
    held: bool,
}

/// What is known of a read that waits for a barrier.
enum Awaited {
    /// Its result.
    Result(Result<Answer, Refusal>),
    /// Its rows are being read.
    Rows,
    /// Its rows were read, and some were gone that no entry of this owner can have removed. If this node led even after that, they
    /// are lost.
    Unexplained(RowsRead),
}

/// A read that found rows gone which memory still has.
struct Ahead<S> {
    session: S,
    id: CommandId,
    read: RowsRead,
    index: Index,
}

impl<S: Copy + Ord> MailboxOwner<S> {
    /// An owner whose mailbox is not loaded yet.
    pub fn new() -> Self {
        MailboxOwner {
            log: LogOwner::new(),
            sessions: BTreeMap::new(),
            early: VecDeque::new(),
            barriers: BTreeMap::new(),
            last_barrier: 0,
            ahead: Vec::new(),
            maildrop: Maildrop::default(),
            errands: Errands::default(),
            outwards: Outwards::default(),
            unrecorded: Vec::new(),
            changes: BTreeMap::new(),
            changed: Vec::new(),
            errands_at: None,
            unconfirmed: false,
            ended: false,
        }
    }

    /// A session attaches. It hears nothing of a folder before it opens or resumes one.
    pub fn attach(&mut self, session: S, turn: SessionNumber) {
        let attached =
            Attached { turn, open: None, reading: 0, held: Vec::new(), watches: false, asked: None, from_queue: false };
        self.sessions.insert(session, attached);
    }

    /// A session is gone. What it asked is done all the same.
    pub fn detach(&mut self, session: S) {
        self.sessions.remove(&session);
        self.maildrop.leave(session);
    }

    /// A session asks.
    pub fn ask(&mut self, env: &mut Env, asked: Ask<S>, out: &mut Vec<Step<S>>) {
        if self.ended {
            return;
        }
        let Some(asked) = self.in_maildrop(env, asked, out) else { return };
        if asked.command.is_read() {
            return self.read(env, asked, out);
        }
        let Ask { session, id, attempt, command } = asked;
        if matches!(&command, Command::ChangeQueue { change } if !may_come_from_predecessor(change)) {
            return self.fail(session, id, CommandError::Unsupported, out);
        }
        let attached = self.sessions.get_mut(&session);
        let turn = attached.map_or_else(SessionNumber::default, |attached| {
            attached.from_queue |= matches!(command, Command::DeliverQueued { .. });
            attached.asked = Some(id);
            attached.turn
        });
        let asked = mailraft_owner::Ask { from: Some(session), turn, id, attempt, command };
        self.with_log(out, |log, out| log.ask(env, asked, out));
    }

    /// An errand ended.
    pub fn errand_ended(&mut self, env: &mut Env, number: u64, outcome: ErrandOutcome, out: &mut Vec<Step<S>>) {
        let Some(engine) = self.log.engine().filter(|_| !self.ended) else { return };
        let (items, at) = engine.queue();
        let change = self.errands.ended((env.now, env.wall), items, number, outcome);
        if let Some(change) = change {
            if let QueueChange::Delivered { item, recipient } = change
                && plant::is(Fault::ReleasedBeforeDone)
                && let (Some(queue), Some(to)) =
                    (engine.place().mailbox.queue_partition(), items.recipient((item, recipient)))
            {
                let origin = QueueOrigin { queue, at, item, recipient };
                let errand =
                    Errand { number: 0, mailbox: to.mailbox, origin, what: ErrandKind::Release, upload_bytes: 0 };
                out.push(Step::Own(Own::Errand(errand)));
            }
            self.change_queue(env, change, out);
        }
        self.go_on_errands(env, out);
    }

    /// What leaves the cluster, or tells a sender something, ended.
    pub fn outward_ended(&mut self, env: &mut Env, number: u64, outcome: OutwardOutcome, out: &mut Vec<Step<S>>) {
        let Some(engine) = self.log.engine().filter(|_| !self.ended) else { return };
        if let Some(change) = self.outwards.ended(env.now, engine.queue().0, number, outcome) {
            self.change_queue(env, change, out);
        }
        self.go_on_errands(env, out);
    }

    fn change_queue(&mut self, env: &mut Env, change: QueueChange, out: &mut Vec<Step<S>>) {
        let id = env.command_id();
        self.changes.insert(id, change.clone());
        let command = Command::ChangeQueue { change };
        let asked = mailraft_owner::Ask { from: None, turn: SessionNumber::default(), id, attempt: 0, command };
        self.with_log(out, |log, out| log.ask(env, asked, out));
    }

    /// Begins what is to be done now for what waits in a queue mailbox.
    fn go_on_errands(&mut self, env: &mut Env, out: &mut Vec<Step<S>>) {
        for (change, is_made) in std::mem::take(&mut self.changed) {
            match change {
                QueueChange::Delivered { item, recipient }
                | QueueChange::Held { item, recipient, .. }
                | QueueChange::Released { item, recipient } => {
                    self.errands.changed(env.now, item, recipient, is_made);
                }
                // What came of an attempt is known: it is said again until it stands in rows, and never attempted again for that.
                QueueChange::Attempted { item, attempts } if !is_made => {
                    let due = env.now + UNRECORDED_PAUSE;
                    self.unrecorded.push((due, QueueChange::Attempted { item, attempts }));
                }
                QueueChange::Attempted { item, attempts } => {
                    let recipients: Vec<u32> = attempts.iter().map(|attempt| attempt.recipient).collect();
                    // That a mailbox is gone was found out by an errand.
                    recipients.iter().for_each(|recipient| self.errands.changed(env.now, item, *recipient, is_made));
                    self.outwards.changed(env.now, item, &recipients, is_made);
                }
                QueueChange::NotTold(Told { item, recipients, .. }) => {
                    self.outwards.changed(env.now, item, &recipients, is_made);
                }
            }
        }
        if self.ended || self.unconfirmed {
            return;
        }
        let (due, later) = std::mem::take(&mut self.unrecorded).into_iter().partition(|(due, _)| *due <= env.now);
        self.unrecorded = later;
        let due: Vec<(Duration, QueueChange)> = due;
        for (_, change) in due {
            self.change_queue(env, change, out);
        }
        let Some(engine) = self.log.engine().filter(|_| !self.ended) else { return };
        let Some(queue) = engine.place().mailbox.queue_partition() else { return };
        let (items, at) = engine.queue();
        let begun = self.errands.next(env.now, items, queue, at);
        out.extend(begun.into_iter().map(|errand| Step::Own(Own::Errand(errand))));
        let begun = self.outwards.next(env.now, env.wall, items);
        out.extend(begun.into_iter().map(|outward| Step::Own(Own::Outward(outward))));
        let unrecorded = self.unrecorded.iter().map(|(due, _)| *due).min();
        let wakes_at = [self.errands.wakes_at(), self.outwards.wakes_at(), unrecorded].into_iter().flatten().min();
        if let Some(at) = wakes_at.filter(|at| self.errands_at.is_none_or(|set| *at < set || set <= env.now)) {
            self.errands_at = Some(at);
            let millis = u64::try_from(at.saturating_sub(env.now).as_millis()).unwrap_or(u64::MAX);
            out.push(Step::Pause { millis: millis.saturating_add(1) });
        }
    }

    /// A read barrier has answered, after the read was done.
    pub fn confirmed(
        &mut self,
        number: u64,
        lead: Lead,
        rows: Option<Result<RowsRead, StoreError>>,
        out: &mut Vec<Step<S>>,
    ) {
        if self.ended {
            return;
        }
        let Some(AtBarrier { session, id, awaits, index, held }) = self.barriers.remove(&number) else { return };
        if lead == Lead::Lost && held {
            // The queue asks again.
            self.fail(session, id, CommandError::Unknown, out);
            return self.has_read(session, out);
        }
        if lead == Lead::Lost {
            // Whoever does not lead any more says nothing: the session asks the next leader.
            return self.end(Detached::NotLeader, out);
        }
        match (awaits, rows) {
            (Awaited::Result(result), _) => self.answer(session, id, result, index, out),
            (Awaited::Rows, Some(Ok(read))) => return self.finds(Ahead { session, id, read, index }, out),
            (Awaited::Rows, Some(Err(error))) => {
                out.push(Step::Unreadable { command: id, error });
                self.fail(session, id, CommandError::Corrupt, out);
            }
            (Awaited::Unexplained(read), _) if self.knows_gone(&read) => {
                self.answer(session, id, Ok(read.answer), index, out);
            }
            (Awaited::Unexplained(_), _) => {
                let error = StoreError::damaged("rows of messages", "they are gone, and nobody removed them");
                out.push(Step::Unreadable { command: id, error });
                self.fail(session, id, CommandError::Corrupt, out);
            }
            (Awaited::Rows, None) => self.fail(session, id, CommandError::Corrupt, out),
        }
        self.has_read(session, out);
    }

    /// Whether memory knows that everything is gone which a read did not find.
    fn knows_gone(&self, read: &RowsRead) -> bool {
        let left_out = plant::is(Fault::RowsAheadOfMemory);
        left_out || !self.log.engine().is_some_and(|engine| engine.has_any(&read.gone))
    }

    /// A read has its rows. Where some are gone that memory has, the entry in flight removed them: it is applied, and not
    /// visible yet. Its fate decides what is answered.
    fn finds(&mut self, found: Ahead<S>, out: &mut Vec<Step<S>>) {
        let Ahead { session, id, .. } = found;
        if self.knows_gone(&found.read) {
            self.answer(session, id, Ok(found.read.answer), found.index, out);
        } else if !self.log.in_flight() {
            let awaits = Awaited::Unexplained(found.read);
            return self.at_barrier(AtBarrier { session, id, awaits, index: found.index, held: false }, None, out);
        } else if self.unconfirmed {
            self.fail(session, id, CommandError::NotConfirmed, out);
        } else if self.ahead.len() >= AHEAD_MAX_READS {
            self.fail(session, id, CommandError::Overloaded, out);
        } else {
            return self.ahead.push(found);
        }
        self.has_read(session, out);
    }

    /// The entry in flight has its verdict: memory and rows agree, or the rows are not what this owner made of them.
    fn settle(&mut self, out: &mut Vec<Step<S>>) {
        for Ahead { session, id, read, index } in std::mem::take(&mut self.ahead) {
            if self.knows_gone(&read) {
                self.answer(session, id, Ok(read.answer), index, out);
                self.has_read(session, out);
            } else {
                let awaits = Awaited::Unexplained(read);
                self.at_barrier(AtBarrier { session, id, awaits, index, held: false }, None, out);
            }
        }
    }

    /// A read of a session is over: events that waited behind it may go.
    fn has_read(&mut self, session: S, out: &mut Vec<Step<S>>) {
        let Some(attached) = self.sessions.get_mut(&session) else { return };
        attached.reading = attached.reading.saturating_sub(1);
        if attached.reading == 0 {
            let held = std::mem::take(&mut attached.held);
            out.extend(held.into_iter().map(|held| reply(session, held)));
        }
    }

    /// What the mailbox's index for searches takes in memory, roughly, in bytes.
    pub fn search_index_bytes(&self) -> usize {
        self.log.engine().map_or(0, Mailbox::search_index_bytes)
    }

    /// Forgets the index for searches: others need its memory.
    pub fn drop_search_index(&mut self) {
        if let Some(engine) = self.log.engine_mut() {
            engine.drop_search_index();
        }
    }

    /// What the mailbox takes in memory, roughly, in bytes; 0 while it is not loaded. Takes time: every message is looked at.
    pub fn memory_bytes(&mut self) -> usize {
        self.log.engine_mut().map_or(0, |engine| engine.memory_bytes())
    }

    /// Whether a command of this id was certainly never carried out, and does not wait to be.
    pub fn is_new(&self, id: CommandId) -> bool {
        self.log.is_new(id)
    }

    /// The sessions that are attached.
    pub fn sessions(&self) -> impl Iterator<Item = S> + '_ {
        self.sessions.keys().copied()
    }

    /// The most bytes of messages from now on.
    pub fn set_quota_bytes(&mut self, quota: Option<u64>) {
        if let Some(engine) = self.log.engine_mut() {
            engine.set_quota_bytes(quota);
        }
    }

    /// Of a command in the maildrop: the command, if its session has the maildrop to itself.
    fn in_maildrop(&mut self, env: &Env, asked: Ask<S>, out: &mut Vec<Step<S>>) -> Option<Ask<S>> {
        let Ask { session, id, attempt, command } = asked;
        let Command::InMaildrop { holder, command } = command else {
            return Some(Ask { session, id, attempt, command });
        };
        if self.maildrop.enter(env.now, session, holder, &command) {
            return Some(Ask { session, id, attempt, command: *command });
        }
        if command.is_read() || attempt == 0 {
            // Whoever leads no more may be wrong about who has it.
            let index = self.log.engine_mut().map_or(Index(0), |engine| mailraft_owner::Engine::position(engine));
            self.await_barrier((session, id), Some(Err(Refusal::MaildropInUse)), index, None, false, out);
        } else {
            // An earlier attempt may have been done.
            self.fail(session, id, CommandError::Unknown, out);
        }
        None
    }

    /// Answers a read from memory, or has its rows read; either way after a read barrier.
    fn read(&mut self, env: &Env, asked: Ask<S>, out: &mut Vec<Step<S>>) {
        let Ask { session, id, command, .. } = &asked;
        let (session, id) = (*session, *id);
        let read = self.log.engine_mut().map_or(Read::TooEarly, |engine| engine.read(env, command));
        let (result, index, rows) = match read {
            Read::Heard => return,
            Read::Answered(result, index) => {
                self.opens(session, command, &result);
                (Some(result), index, None)
            }
            Read::Stored(read) => (None, read.position(), Some(read)),
            // Its first folders can't be made now.
            Read::TooEarly if self.unconfirmed && self.log.engine().is_some() => {
                return self.fail(session, id, CommandError::NotConfirmed, out);
            }
            Read::TooEarly if self.early.len() < EARLY_MAX_READS => return self.early.push_back(asked),
            Read::TooEarly => return self.fail(session, id, CommandError::Overloaded, out),
        };
        self.await_barrier((session, id), result, index, rows, false, out);
    }

    /// It is answered when a majority has confirmed that this node still leads in the owner's term: a read, and the kept
    /// result of a change too. Events that come meanwhile wait behind the answer.
    fn await_barrier(
        &mut self,
        (session, id): (S, CommandId),
        result: Option<Result<Answer, Refusal>>,
        index: Index,
        rows: Option<StoredRead>,
        held: bool,
        out: &mut Vec<Step<S>>,
    ) {
        if let Some(attached) = self.sessions.get_mut(&session) {
            attached.reading += 1;
        }
        let awaits = result.map_or(Awaited::Rows, Awaited::Result);
        self.at_barrier(AtBarrier { session, id, awaits, index, held }, rows, out);
    }

    fn at_barrier(&mut self, waits: AtBarrier<S>, rows: Option<StoredRead>, out: &mut Vec<Step<S>>) {
        let held = waits.held;
        if plant::is(Fault::BarrierNumbersRepeat) && self.barriers.len() < 2 {
            self.last_barrier = 0;
        }
        self.last_barrier += 1;
        let other = self.barriers.insert(self.last_barrier, waits);
        assert!(other.is_none(), "two reads have the number {}", self.last_barrier);
        out.push(Step::Own(Own::Barrier { number: self.last_barrier, rows, held }));
    }

    /// The folder that a session has open after a read.
    fn opens(&mut self, session: S, command: &Command, result: &Result<Answer, Refusal>) {
        let Some(attached) = self.sessions.get_mut(&session) else { return };
        match command {
            Command::Select { .. } | Command::Resume { .. } => {
                attached.open = match (result, command) {
                    (Ok(Answer::Selected(selected)), _) => Some(selected.folder),
                    (Ok(Answer::Resumed(_)), Command::Resume { folder, .. }) => Some(*folder),
                    (Ok(_) | Err(_), _) => None,
                };
            }
            Command::Unselect => {
                attached.open = None;
                attached.held.retain(|held| matches!(held, Reply::Notice(_)));
            }
            Command::Watch { what } => {
                attached.watches = *what == Watching::Folders;
            }
            _ => {}
        }
    }

    /// Lets the log's owner do something, and passes on what it wants done.
    fn with_log(
        &mut self,
        out: &mut Vec<Step<S>>,
        act: impl FnOnce(&mut LogOwner<Mailbox, Option<S>>, &mut Vec<StepOf<Mailbox, Option<S>>>),
    ) {
        let mut steps = Vec::new();
        act(&mut self.log, &mut steps);
        for step in steps {
            match step {
                LogStep::Propose(proposal) => out.push(Step::Propose(proposal)),
                LogStep::Pause { millis } => out.push(Step::Pause { millis }),
                LogStep::Unreadable { command, error } => out.push(Step::Unreadable { command, error }),
                LogStep::Own(Tell::Event(News::InFolder(event))) => self.tell(&Arc::new(event), out),
                LogStep::Own(Tell::Event(News::OfList { origin, news })) => {
                    self.notify(None, origin, &FolderNews::List(news), out);
                }
                LogStep::Own(Tell::Answer { to: None, id, result, .. }) => {
                    let change = self.changes.remove(&id);
                    self.changed.extend(change.map(|change| {
                        let is_made = match &change {
                            // Were a refusal to count as made, it would be attempted once more.
                            QueueChange::Attempted { .. } => matches!(result, Ok(Ok(_))),
                            QueueChange::Delivered { .. }
                            | QueueChange::Held { .. }
                            | QueueChange::Released { .. }
                            | QueueChange::NotTold(_) => result.is_ok(),
                        };
                        (change, is_made)
                    }));
                }
                LogStep::Own(Tell::Kept { to: None, id, .. }) => {
                    self.changed.extend(self.changes.remove(&id).map(|change| (change, true)));
                }
                LogStep::Own(Tell::Answer { to: Some(to), id, result, at }) => match result {
                    Ok(result) if result.is_ok() && self.is_from_queue(to) => {
                        self.await_barrier((to, id), Some(result), at, None, true, out);
                    }
                    Ok(result) => self.answer(to, id, result, at, out),
                    Err(why) => {
                        if let Some(error) = command_error(why) {
                            self.fail(to, id, error, out);
                        }
                    }
                },
                LogStep::Own(Tell::Kept { to: Some(to), id, result, at }) => {
                    let held = self.is_from_queue(to);
                    self.await_barrier((to, id), Some(result), at, None, held, out);
                }
                LogStep::End { why } => {
                    self.ended = true;
                    for (to, _) in std::mem::take(&mut self.sessions) {
                        out.push(reply(to, Reply::Detached(why)));
                    }
                    self.early.clear();
                    self.ahead.clear();
                    self.barriers.clear();
                    out.push(Step::End { why });
                }
            }
        }
    }

    /// Reads that came too early are asked now.
    fn read_early(&mut self, env: &Env, out: &mut Vec<Step<S>>) {
        for asked in std::mem::take(&mut self.early) {
            self.read(env, asked, out);
        }
    }

    /// Tells an event to every session that has its folder open.
    fn tell(&mut self, event: &Arc<Event>, out: &mut Vec<Step<S>>) {
        self.pass_on(|attached| attached.open == Some(event.folder), |_| Reply::Event(Arc::clone(event)), out);
        if let Some(news) = FolderNews::of(event) {
            self.notify(Some(event.folder), event.origin, &news, out);
        }
    }

    /// Tells every session that watches, unless it hears all of this folder; who did it hears that it did.
    fn notify(&mut self, of: Option<FolderId>, origin: CommandId, news: &FolderNews, out: &mut Vec<Step<S>>) {
        let hears = |attached: &Attached| attached.watches && (of.is_none() || attached.open != of);
        let notice = |attached: &Attached| match attached.asked == Some(origin) {
            true => Notice::Own(news.clone()),
            false => Notice::OfOthers(news.clone()),
        };
        self.pass_on(hears, |attached| Reply::Notice(notice(attached)), out);
    }

    /// Tells something to these sessions, behind the answers that they wait for.
    fn pass_on(&mut self, to: impl Fn(&Attached) -> bool, what: impl Fn(&Attached) -> Reply, out: &mut Vec<Step<S>>) {
        let mut too_slow = Vec::new();
        for (session, attached) in self.sessions.iter_mut().filter(|(_, attached)| to(attached)) {
            if attached.reading == 0 || plant::is(Fault::EventOvertakesAnswer) {
                out.push(reply(*session, what(attached)));
            } else if attached.held.len() < HELD_MAX_EVENTS {
                let what = what(attached);
                attached.held.push(what);
            } else {
                too_slow.push(*session);
            }
        }
        for session in too_slow {
            self.sessions.remove(&session);
            out.push(reply(session, Reply::Detached(Detached::Gone)));
        }
    }

    fn is_from_queue(&self, session: S) -> bool {
        !plant::is(Fault::QueuedDeliveryNotHeld)
            && self.sessions.get(&session).is_some_and(|attached| attached.from_queue)
    }

    fn answer(&mut self, to: S, id: CommandId, result: Result<Answer, Refusal>, at: Index, out: &mut Vec<Step<S>>) {
        if self.sessions.contains_key(&to) {
            out.push(reply(to, Reply::Answer { id, result, at }));
        }
    }

    fn fail(&mut self, to: S, id: CommandId, error: CommandError, out: &mut Vec<Step<S>>) {
        if self.sessions.contains_key(&to) {
            out.push(reply(to, Reply::Failed { id, error }));
        }
    }
}

impl<S: Copy + Ord> Owner for MailboxOwner<S> {
    type Engine = Mailbox;
    type Own = Own<S>;
    type Error = StoreError;

    fn loaded(&mut self, env: &mut Env, loaded: Result<Mailbox, Detached>, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.loaded(env, loaded, out));
        if let Some(engine) = self.log.engine() {
            self.outwards.loaded(env.now, env.wall, engine.queue().0);
        }
        self.read_early(env, out);
        self.go_on_errands(env, out);
    }

    fn decided(&mut self, env: &mut Env, outcome: ProposalOutcome, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.decided(env, outcome, out));
        self.settle(out);
        self.read_early(env, out);
        self.go_on_errands(env, out);
    }

    fn set_unconfirmed(&mut self, unconfirmed: bool, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.set_unconfirmed(unconfirmed, out));
        self.unconfirmed = unconfirmed;
        if unconfirmed {
            for Ahead { session, id, .. } in std::mem::take(&mut self.ahead) {
                self.fail(session, id, CommandError::NotConfirmed, out);
                self.has_read(session, out);
            }
        }
        if !unconfirmed && self.log.engine().is_some_and(|engine| engine.queue().0.has_open()) {
            // What was to be done meanwhile was not begun, and nothing else says when it is.
            self.errands_at = None;
            out.push(Step::Pause { millis: 0 });
        }
        if unconfirmed && self.log.engine().is_some() {
            // They wait for folders that can't be made now.
            for asked in std::mem::take(&mut self.early) {
                self.fail(asked.session, asked.id, CommandError::NotConfirmed, out);
            }
        }
    }

    fn again(&mut self, env: &mut Env, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.again(env, out));
        self.go_on_errands(env, out);
    }

    fn end(&mut self, why: Detached, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.end(why, out));
    }

    fn is_idle(&self) -> bool {
        // What is under way is waited for, whatever was decided about its item meanwhile: what came of it is to be recorded.
        self.sessions.is_empty()
            && self.early.is_empty()
            && self.errands.is_idle()
            && self.outwards.is_idle()
            && self.unrecorded.is_empty()
            && self.log.is_idle()
    }
}

impl<S: Copy + Ord> Default for MailboxOwner<S> {
    fn default() -> Self {
        Self::new()
    }
}

fn reply<S>(to: S, reply: Reply) -> Step<S> {
    Step::Own(Own::Reply { to, reply })
}

/// Why there is no answer, as sessions hear it; None where they hear that they are detached.
fn command_error(why: Unanswered) -> Option<CommandError> {
    match why {
        Unanswered::Overloaded => Some(CommandError::Overloaded),
        Unanswered::Unknown => Some(CommandError::Unknown),
        Unanswered::Expired { floor } => Some(CommandError::Expired { floor }),
        // The session uploads the body again.
        Unanswered::Lost => Some(CommandError::BodyLost),
        Unanswered::Unreadable => Some(CommandError::Corrupt),
        Unanswered::NotConfirmed => Some(CommandError::NotConfirmed),
        Unanswered::Ended(_) => None,
    }
}
