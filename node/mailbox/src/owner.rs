//! The owner of one mailbox in one term: the log's owner with the mailbox's engine, the sessions that are attached, and
//! the reads that wait for a read barrier. An actor, or a simulator, is the thin shell around it: it carries
//! [`Step`]s out and reports what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mailraft_owner::{
    BACKLOG_MAX_COMMANDS, Detached, LogOwner, Owner, SessionNumber, Step as LogStep, StepOf, Tell, Unanswered,
};
use mailraft_storage::{CommandId, Env, Index, ProposalOutcome, StoreError};

use crate::api::{Answer, Command, Event, FolderId, Refusal};
use crate::engine::{Mailbox, Read};
use crate::maildrop::Maildrop;
use crate::plant::{self, Fault};
use crate::reads::StoredRead;
use crate::reply::{CommandError, Reply};

/// Reads that wait until the mailbox is loaded and has its first folders.
pub const EARLY_MAX_READS: usize = BACKLOG_MAX_COMMANDS;
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
    },
    /// Reply to a session.
    Reply {
        /// The session.
        to: S,
        /// What it is told.
        reply: Reply,
    },
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

/// The owner of one mailbox; `S` names a session.
pub struct MailboxOwner<S> {
    log: LogOwner<Mailbox, S>,
    sessions: BTreeMap<S, Attached>,
    /// Reads that came before the mailbox had its folders.
    early: VecDeque<Ask<S>>,
    barriers: BTreeMap<u64, AtBarrier<S>>,
    last_barrier: u64,
    maildrop: Maildrop<S>,
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
    held: Vec<Arc<Event>>,
}

/// A read, or a kept result, that waits for a barrier.
struct AtBarrier<S> {
    session: S,
    id: CommandId,
    /// None while rows are being read.
    result: Option<Result<Answer, Refusal>>,
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
            maildrop: Maildrop::default(),
            unconfirmed: false,
            ended: false,
        }
    }

    /// A session attaches. It hears nothing of a folder before it opens or resumes one.
    pub fn attach(&mut self, session: S, turn: SessionNumber) {
        self.sessions.insert(session, Attached { turn, open: None, reading: 0, held: Vec::new() });
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
        let turn = self.sessions.get(&session).map_or_else(SessionNumber::default, |a| a.turn);
        let asked = mailraft_owner::Ask { from: session, turn, id, attempt, command };
        self.with_log(out, |log, out| log.ask(env, asked, out));
    }

    /// A read barrier has answered, after the read was done.
    pub fn confirmed(
        &mut self,
        number: u64,
        lead: Lead,
        rows: Option<Result<Answer, StoreError>>,
        out: &mut Vec<Step<S>>,
    ) {
        if self.ended {
            return;
        }
        let Some(AtBarrier { session, id, result, index }) = self.barriers.remove(&number) else { return };
        if lead == Lead::Lost {
            // Whoever does not lead any more says nothing: the session asks the next leader.
            return self.end(Detached::NotLeader, out);
        }
        match (result, rows) {
            (Some(result), _) => self.answer(session, id, result, index, out),
            (None, Some(Ok(answer))) => self.answer(session, id, Ok(answer), index, out),
            (None, Some(Err(error))) => {
                out.push(Step::Unreadable { command: id, error });
                self.fail(session, id, CommandError::Corrupt, out);
            }
            (None, None) => self.fail(session, id, CommandError::Corrupt, out),
        }
        let Some(attached) = self.sessions.get_mut(&session) else { return };
        attached.reading = attached.reading.saturating_sub(1);
        if attached.reading == 0 {
            let held = std::mem::take(&mut attached.held);
            out.extend(held.into_iter().map(|event| reply(session, Reply::Event(event))));
        }
    }

    /// What the mailbox takes in memory, roughly, in bytes; 0 while it is not loaded. Takes time: every message is looked at.
    pub fn memory_bytes(&mut self) -> usize {
        self.log.engine_mut().map_or(0, |engine| engine.memory_bytes())
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
            self.await_barrier(session, id, Some(Err(Refusal::MaildropInUse)), index, None, out);
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
        self.await_barrier(session, id, result, index, rows, out);
    }

    /// It is answered when a majority has confirmed that this node still leads in the owner's term: a read, and the kept
    /// result of a change too. Events that come meanwhile wait behind the answer.
    fn await_barrier(
        &mut self,
        session: S,
        id: CommandId,
        result: Option<Result<Answer, Refusal>>,
        index: Index,
        rows: Option<StoredRead>,
        out: &mut Vec<Step<S>>,
    ) {
        if let Some(attached) = self.sessions.get_mut(&session) {
            attached.reading += 1;
        }
        if plant::is(Fault::BarrierNumbersRepeat) && self.barriers.len() < 2 {
            self.last_barrier = 0;
        }
        self.last_barrier += 1;
        let other = self.barriers.insert(self.last_barrier, AtBarrier { session, id, result, index });
        assert!(other.is_none(), "two reads have the number {}", self.last_barrier);
        out.push(Step::Own(Own::Barrier { number: self.last_barrier, rows }));
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
                attached.held.clear();
            }
            _ => {}
        }
    }

    /// Lets the log's owner do something, and passes on what it wants done.
    fn with_log(
        &mut self,
        out: &mut Vec<Step<S>>,
        act: impl FnOnce(&mut LogOwner<Mailbox, S>, &mut Vec<StepOf<Mailbox, S>>),
    ) {
        let mut steps = Vec::new();
        act(&mut self.log, &mut steps);
        for step in steps {
            match step {
                LogStep::Propose(proposal) => out.push(Step::Propose(proposal)),
                LogStep::Pause { millis } => out.push(Step::Pause { millis }),
                LogStep::Unreadable { command, error } => out.push(Step::Unreadable { command, error }),
                LogStep::Own(Tell::Event(event)) => self.tell(&Arc::new(event), out),
                LogStep::Own(Tell::Answer { to, id, result, at }) => match result {
                    Ok(result) => self.answer(to, id, result, at, out),
                    Err(why) => {
                        if let Some(error) = command_error(why) {
                            self.fail(to, id, error, out);
                        }
                    }
                },
                LogStep::Own(Tell::Kept { to, id, result, at }) => {
                    self.await_barrier(to, id, Some(result), at, None, out)
                }
                LogStep::End { why } => {
                    self.ended = true;
                    for (to, _) in std::mem::take(&mut self.sessions) {
                        out.push(reply(to, Reply::Detached(why)));
                    }
                    self.early.clear();
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
        let mut too_slow = Vec::new();
        for (session, attached) in self.sessions.iter_mut().filter(|(_, a)| a.open == Some(event.folder)) {
            if attached.reading == 0 || plant::is(Fault::EventOvertakesAnswer) {
                out.push(reply(*session, Reply::Event(Arc::clone(event))));
            } else if attached.held.len() < HELD_MAX_EVENTS {
                attached.held.push(Arc::clone(event));
            } else {
                too_slow.push(*session);
            }
        }
        for session in too_slow {
            self.sessions.remove(&session);
            out.push(reply(session, Reply::Detached(Detached::Gone)));
        }
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
        self.read_early(env, out);
    }

    fn decided(&mut self, env: &mut Env, outcome: ProposalOutcome, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.decided(env, outcome, out));
        self.read_early(env, out);
    }

    fn set_unconfirmed(&mut self, unconfirmed: bool, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.set_unconfirmed(unconfirmed, out));
        self.unconfirmed = unconfirmed;
        if unconfirmed && self.log.engine().is_some() {
            // They wait for folders that can't be made now.
            for asked in std::mem::take(&mut self.early) {
                self.fail(asked.session, asked.id, CommandError::NotConfirmed, out);
            }
        }
    }

    fn again(&mut self, env: &mut Env, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.again(env, out));
    }

    fn end(&mut self, why: Detached, out: &mut Vec<Step<S>>) {
        self.with_log(out, |log, out| log.end(why, out));
    }

    fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.early.is_empty() && self.log.is_idle()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::api::Change;
    use crate::harness::World;

    /// An owner over the rows of a world, with its steps carried out but for read barriers.
    struct Shell {
        world: World,
        owner: MailboxOwner<u8>,
        barriers: VecDeque<(u64, Option<StoredRead>)>,
        replies: Vec<(u8, Reply)>,
        ended: bool,
    }

    impl Shell {
        fn new() -> Self {
            let world = World::new();
            let mut shell = Shell {
                world,
                owner: MailboxOwner::new(),
                barriers: VecDeque::new(),
                replies: Vec::new(),
                ended: false,
            };
            for session in [1, 2] {
                shell.owner.attach(session, SessionNumber(u64::from(session)));
            }
            let loaded = shell.world.load();
            shell.run(|owner, env, out| owner.loaded(env, Ok(loaded), out));
            shell
        }

        fn run(&mut self, what: impl FnOnce(&mut MailboxOwner<u8>, &mut Env, &mut Vec<Step<u8>>)) {
            let mut out = Vec::new();
            what(&mut self.owner, &mut self.world.env, &mut out);
            let mut steps = VecDeque::from(out);
            while let Some(step) = steps.pop_front() {
                match step {
                    Step::Propose(proposal) => {
                        let (index, verdict) = self.world.apply(proposal);
                        let mut out = Vec::new();
                        let outcome = ProposalOutcome::Applied { index, verdict };
                        self.owner.decided(&mut self.world.env, outcome, &mut out);
                        steps.extend(out);
                    }
                    Step::Own(Own::Barrier { number, rows }) => self.barriers.push_back((number, rows)),
                    Step::Own(Own::Reply { to, reply }) => self.replies.push((to, reply)),
                    Step::End { .. } => self.ended = true,
                    Step::Pause { .. } | Step::Unreadable { .. } => panic!("{step:?}"),
                }
            }
        }

        fn ask(&mut self, session: u8, command: Command) -> CommandId {
            let id = self.world.env.command_id();
            self.run(|owner, env, out| owner.ask(env, Ask { session, id, attempt: 0, command }, out));
            id
        }

        fn confirm(&mut self, lead: Lead) {
            let (number, rows) = self.barriers.pop_front().unwrap();
            let rows = rows.map(|read| read.run(&self.world.rows));
            self.run(|owner, _, out| owner.confirmed(number, lead, rows, out));
        }

        fn append(&mut self, session: u8) {
            let new_message = self.world.new_message("Subject: x\r\n\r\nhello\r\n");
            let folder = "INBOX".to_owned();
            let (flags, internal_date) = Default::default();
            self.ask(session, Command::Append { folder, new_message, flags, internal_date });
        }

        /// What session 1 has heard since the last call, in a letter each.
        fn heard(&mut self) -> String {
            let of = |(to, what): &(u8, Reply)| match (to, what) {
                (1, Reply::Answer { result: Ok(Answer::Selected(s)), .. }) => format!("S{}", s.messages.len()),
                (1, Reply::Answer { result: Ok(Answer::Fetched(f)), .. }) => format!("F{}", f.len()),
                (1, Reply::Answer { result: Ok(_), .. }) => "A".to_owned(),
                (1, Reply::Answer { result: Err(e), .. }) => format!("{e:?}"),
                (1, Reply::Failed { error, .. }) => format!("{error:?}"),
                (1, Reply::Event(event)) => match &event.change {
                    Change::Added(m) => format!("+{}", m[0].uid),
                    _ => "E".to_owned(),
                },
                (1, Reply::Detached(why)) => format!("{why:?}"),
                _ => String::new(),
            };
            self.replies.drain(..).map(|reply| of(&reply)).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }

    fn select() -> Command {
        Command::Select { folder: "INBOX".to_owned(), claim_recent: true }
    }

    #[test]
    fn what_happens_while_a_read_waits_for_its_barrier_is_told_after_its_answer() {
        let mut shell = Shell::new();
        shell.append(2);
        shell.ask(1, select());
        shell.append(2);
        assert_eq!(shell.heard(), "", "the barrier has not answered");
        shell.confirm(Lead::Confirmed);
        assert_eq!(shell.heard(), "S1 +2");
        let folder = FolderId(1);
        let uids = (1..=9).collect();
        shell.ask(1, Command::Fetch { folder, uids, what: Default::default() });
        shell.ask(1, Command::Sync);
        shell.append(2);
        shell.confirm(Lead::Confirmed);
        assert_eq!(shell.heard(), "F2", "another read of the same state still waits");
        shell.confirm(Lead::Confirmed);
        assert_eq!(shell.heard(), "A +3");
        shell.append(2);
        assert_eq!(shell.heard(), "+4");
    }

    #[test]
    fn the_kept_result_of_a_repeat_waits_for_a_barrier_and_events_behind_it() {
        let mut shell = Shell::new();
        shell.ask(1, select());
        shell.confirm(Lead::Confirmed);
        let subscribe = || Command::Subscribe { name: "x".to_owned(), on: true };
        let id = shell.ask(1, subscribe());
        assert_eq!(shell.heard(), "S0 A", "its own entry shows that this owner led");
        let repeat = |shell: &mut Shell| {
            let asked = Ask { session: 1, id, attempt: 1, command: subscribe() };
            shell.run(|owner, env, out| owner.ask(env, asked, out));
        };
        repeat(&mut shell);
        shell.append(2);
        assert_eq!(shell.heard(), "", "the barrier has not answered");
        shell.confirm(Lead::Confirmed);
        assert_eq!(shell.heard(), "A +1");
        repeat(&mut shell);
        shell.confirm(Lead::Lost);
        assert_eq!((shell.heard().as_str(), shell.ended), ("NotLeader", true));
    }

    #[test]
    fn a_removal_that_may_have_been_done_is_not_refused_because_another_has_the_maildrop() {
        let mut shell = Shell::new();
        shell.append(2);
        let in_maildrop = |holder: u8, command| Command::InMaildrop {
            holder: crate::api::MaildropHolder([holder; 16]),
            command: Box::new(command),
        };
        let remove = || in_maildrop(1, Command::Remove { folder: FolderId(1), uids: [1].into_iter().collect() });
        shell.ask(2, in_maildrop(2, Command::Maildrop));
        shell.confirm(Lead::Confirmed);
        shell.ask(1, remove());
        assert_eq!(shell.heard(), "", "whoever leads no more may be wrong about who has it");
        shell.confirm(Lead::Confirmed);
        assert_eq!(shell.heard(), "MaildropInUse");
        // The first attempt was with another owner.
        let id = shell.world.env.command_id();
        let asked = Ask { session: 1, id, attempt: 1, command: remove() };
        shell.run(|owner, env, out| owner.ask(env, asked, out));
        let messages = |shell: &Shell| shell.world.load().state().folder(FolderId(1)).unwrap().messages();
        assert_eq!((shell.heard().as_str(), messages(&shell)), ("Unknown", 1));
        // The holder's link ends, and with it the lock.
        shell.owner.detach(2);
        shell.ask(1, remove());
        assert_eq!((shell.heard().as_str(), messages(&shell)), ("A", 0));
    }

    #[test]
    fn after_a_lost_lead_nothing_is_answered_and_everyone_is_told() {
        let mut shell = Shell::new();
        shell.ask(1, select());
        shell.confirm(Lead::Lost);
        assert_eq!((shell.heard().as_str(), shell.ended), ("NotLeader", true));
        shell.ask(1, Command::Sync);
        assert_eq!((shell.heard().as_str(), shell.barriers.len()), ("", 0));
    }

    #[test]
    fn what_waits_for_loading_is_bounded_and_then_done_in_its_order() {
        let mut shell = Shell::new();
        shell.owner = MailboxOwner::new();
        shell.owner.attach(1, SessionNumber(1));
        for _ in 0..=BACKLOG_MAX_COMMANDS {
            shell.ask(1, Command::Subscribe { name: "x".to_owned(), on: true });
        }
        assert_eq!(shell.heard(), "Overloaded");
        let loaded = shell.world.load();
        shell.run(|owner, env, out| owner.loaded(env, Ok(loaded), out));
        assert_eq!(shell.heard().matches('A').count(), BACKLOG_MAX_COMMANDS);
        assert!(!shell.owner.is_idle(), "a session is attached");
        shell.owner.detach(1);
        assert!(shell.owner.is_idle());
    }

    #[test]
    fn a_session_that_hears_nothing_while_too_much_happens_attaches_again() {
        let mut shell = Shell::new();
        shell.append(2);
        shell.ask(1, select());
        for n in 0..=HELD_MAX_EVENTS {
            let mode = if n % 2 == 0 { crate::api::StoreMode::Add } else { crate::api::StoreMode::Remove };
            let flags = crate::Flags::none().with(crate::SystemFlag::Seen);
            let uids = [1].into_iter().collect();
            shell.ask(2, Command::Store { folder: FolderId(1), uids, mode, flags, unchanged_since: None });
        }
        assert_eq!(shell.heard(), "Gone");
        shell.confirm(Lead::Confirmed);
        assert_eq!(shell.heard(), "");
    }
}
