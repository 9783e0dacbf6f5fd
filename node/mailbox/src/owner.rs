//! The owner of one mailbox in one term: the engine, the sessions that are attached, and what waits for the
//! log, for the read gate or for the mailbox to be loaded. An actor, or a simulator, is the thin shell around
//! it: it carries [`Step`]s out and reports what became of them.

use std::collections::{BTreeMap, VecDeque};

use mailraft_storage::plant::{self, Fault};
use mailraft_storage::{CommandId, Env, Index, Proposal, ProposalOutcome, StoreError, Verdict};

use crate::api::{Answer, Command, Event, FolderId, Refusal};
use crate::engine::{Mailbox, Submitted};
use crate::queue::SessionNumber;
use crate::reads::StoredRead;
use crate::said::{Detached, Refused, Said};

/// Commands that wait while the mailbox is being loaded.
pub const BACKLOG_MAX_COMMANDS: usize = 256;
/// Events that wait behind a session's read; past it the session is told to attach again.
pub const HELD_MAX_EVENTS: usize = 4_096;
/// Before deciding again what could not be appended, in milliseconds.
const AGAIN_PAUSE_MS: u64 = 5;
/// Before deciding again what the log had no room for, in milliseconds.
const OVERLOADED_PAUSE_MS: u64 = 50;

/// Something for the shell to do.
#[derive(Debug)]
pub enum Step<S> {
    /// Append it, then say [`Owner::decided`].
    Propose(Proposal),
    /// Ask the read gate, in the owner's term, and do the read if there is one; then say [`Owner::gated`].
    Gate {
        /// Names the read.
        number: u64,
        /// Rows to read, on a worker thread.
        rows: Option<StoredRead>,
    },
    /// Say something to a session.
    Say {
        /// To whom.
        to: S,
        /// What.
        what: Said,
    },
    /// Call [`Owner::again`] after this time.
    Pause {
        /// In milliseconds.
        millis: u64,
    },
    /// A store could not be read; for the operator.
    Failed {
        /// While doing this.
        command: CommandId,
        /// Why.
        error: StoreError,
    },
    /// This owner's reign is over: it does nothing more, and all sessions were told.
    End,
}

/// The owner of one mailbox; `S` names a session.
pub struct Owner<S> {
    engine: Option<Mailbox>,
    backlog: VecDeque<Ask<S>>,
    sessions: BTreeMap<S, Attached>,
    waiting: BTreeMap<CommandId, Vec<S>>,
    /// Commands among them that open a folder when they are answered; a resume knows which.
    opening: BTreeMap<CommandId, Option<FolderId>>,
    gates: BTreeMap<u64, Gated<S>>,
    next_gate: u64,
    ended: bool,
}

/// A question of a session.
#[derive(Debug)]
pub struct Ask<S> {
    /// Who asks.
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
    /// Reads of this session at the gate. Their answers show an earlier state than events that come meanwhile,
    /// which therefore wait.
    reading: usize,
    held: Vec<Event>,
}

/// A read at the gate.
struct Gated<S> {
    session: S,
    id: CommandId,
    /// None while rows are being read.
    result: Option<Result<Answer, Refused>>,
    index: Index,
}

impl<S: Copy + Ord> Owner<S> {
    /// An owner whose mailbox is not loaded yet.
    pub fn new() -> Self {
        Owner {
            engine: None,
            backlog: VecDeque::new(),
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            opening: BTreeMap::new(),
            gates: BTreeMap::new(),
            next_gate: 0,
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
    }

    /// The mailbox is in memory, or could not be loaded.
    pub fn loaded(&mut self, env: &mut Env, loaded: Result<Mailbox, Detached>, out: &mut Vec<Step<S>>) {
        if self.ended {
            return;
        }
        match loaded {
            Ok(engine) => {
                assert!(self.engine.is_none(), "a mailbox is loaded once");
                self.engine = Some(engine);
                // A new mailbox makes its first folders before anything else.
                self.pump(env, out);
                for asked in std::mem::take(&mut self.backlog) {
                    self.submit(env, asked, out);
                }
                self.pump(env, out);
            }
            Err(why) => self.end(why, out),
        }
    }

    /// A session asks.
    pub fn ask(&mut self, env: &mut Env, asked: Ask<S>, out: &mut Vec<Step<S>>) {
        if self.ended {
            return;
        }
        if self.engine.is_none() {
            if self.backlog.len() >= BACKLOG_MAX_COMMANDS {
                self.answer_one(asked.session, asked.id, Err(Refused::Overloaded), Index(0), out);
            } else {
                self.backlog.push_back(asked);
            }
            return;
        }
        self.submit(env, asked, out);
        self.pump(env, out);
    }

    /// The gate has answered: this node still leads in the owner's term (`leads`) after the read was done.
    pub fn gated(
        &mut self,
        number: u64,
        leads: bool,
        rows: Option<Result<Result<Answer, Refusal>, StoreError>>,
        out: &mut Vec<Step<S>>,
    ) {
        if self.ended {
            return;
        }
        let Some(Gated { session, id, result, index }) = self.gates.remove(&number) else { return };
        if !leads {
            // Whoever does not lead any more says nothing: the session asks the next leader.
            return self.end(Detached::NotLeader, out);
        }
        let result = match (result, rows) {
            (Some(result), _) => result,
            (None, Some(Ok(result))) => result.map_err(Refused::Mailbox),
            (None, Some(Err(error))) => {
                out.push(Step::Failed { command: id, error });
                Err(Refused::Corrupt)
            }
            (None, None) => Err(Refused::Corrupt),
        };
        self.answer_one(session, id, result, index, out);
        let Some(attached) = self.sessions.get_mut(&session) else { return };
        attached.reading = attached.reading.saturating_sub(1);
        if attached.reading == 0 {
            let held = std::mem::take(&mut attached.held);
            out.extend(held.into_iter().map(|event| Step::Say { to: session, what: Said::Event(event) }));
        }
    }

    /// What became of the entry in flight.
    pub fn decided(&mut self, env: &mut Env, outcome: ProposalOutcome, out: &mut Vec<Step<S>>) {
        let Some(engine) = self.engine.as_mut().filter(|_| !self.ended) else { return };
        match outcome {
            ProposalOutcome::Applied { index, verdict: verdict @ (Verdict::Accepted | Verdict::Missing) } => {
                let said = engine.applied(index, verdict);
                for event in said.events {
                    self.tell(&event, out);
                }
                for id in said.lost {
                    // The body it needs is gone and nothing was done: the session uploads it again.
                    self.answer(id, &Err(Refused::BodyLost), index, out);
                }
                for (id, result, at) in said.answers {
                    self.answer(id, &result.map_err(Refused::Mailbox), at, out);
                }
                self.pump(env, out);
            }
            ProposalOutcome::Dropped => {
                engine.dropped();
                out.push(Step::Pause { millis: AGAIN_PAUSE_MS });
            }
            ProposalOutcome::Overloaded => {
                engine.dropped();
                out.push(Step::Pause { millis: OVERLOADED_PAUSE_MS });
            }
            ProposalOutcome::Applied { verdict: Verdict::Fenced, .. }
            | ProposalOutcome::NotLeader { .. }
            | ProposalOutcome::Unknown => self.end(Detached::NotLeader, out),
        }
    }

    /// A pause is over.
    pub fn again(&mut self, env: &mut Env, out: &mut Vec<Step<S>>) {
        if !self.ended {
            self.pump(env, out);
        }
    }

    /// Ends this owner's reign and tells all sessions why.
    pub fn end(&mut self, why: Detached, out: &mut Vec<Step<S>>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        for (to, _) in std::mem::take(&mut self.sessions) {
            out.push(Step::Say { to, what: Said::Detached(why) });
        }
        self.engine = None;
        self.backlog.clear();
        self.waiting.clear();
        self.opening.clear();
        self.gates.clear();
        out.push(Step::End);
    }

    /// Whether nobody is attached and nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.backlog.is_empty() && self.engine.as_ref().is_some_and(Mailbox::idle)
    }

    /// The sessions that are attached.
    pub fn sessions(&self) -> impl Iterator<Item = S> + '_ {
        self.sessions.keys().copied()
    }

    /// The most bytes of messages from now on.
    pub fn set_quota_bytes(&mut self, quota: Option<u64>) {
        if let Some(engine) = self.engine.as_mut() {
            engine.set_quota_bytes(quota);
        }
    }

    fn submit(&mut self, env: &mut Env, asked: Ask<S>, out: &mut Vec<Step<S>>) {
        let Ask { session, id, attempt, command } = asked;
        let Some(engine) = self.engine.as_mut() else { return };
        let opens = matches!(command, Command::Select { .. } | Command::Resume { .. });
        let resumes = if let Command::Resume { folder, .. } = &command { Some(*folder) } else { None };
        let closes = matches!(command, Command::Unselect);
        let turn = self.sessions.get(&session).map_or_else(SessionNumber::default, |a| a.turn);
        match engine.submit(env, turn, id, attempt, command) {
            Submitted::Answered(result, index) => {
                if let Some(attached) = self.sessions.get_mut(&session) {
                    if opens {
                        attached.open = opened(&result, resumes);
                    } else if closes {
                        attached.open = None;
                        attached.held.clear();
                    }
                }
                self.gate(session, id, Some(result.map_err(Refused::Mailbox)), index, None, out);
            }
            Submitted::Read(read) => self.gate(session, id, None, read.position(), Some(read), out),
            Submitted::Queued | Submitted::Joined => {
                self.waiting.entry(id).or_default().push(session);
                if opens {
                    self.opening.insert(id, resumes);
                }
            }
            Submitted::Overloaded => self.answer_one(session, id, Err(Refused::Overloaded), Index(0), out),
            Submitted::Unknown => self.answer_one(session, id, Err(Refused::Unknown), Index(0), out),
            Submitted::Expired(floor) => {
                self.answer_one(session, id, Err(Refused::Expired { floor }), Index(0), out);
            }
            Submitted::Failed(error) => {
                out.push(Step::Failed { command: id, error });
                self.answer_one(session, id, Err(Refused::Corrupt), Index(0), out);
            }
        }
    }

    /// A read is answered when a majority has confirmed that this node still leads in the owner's term.
    fn gate(
        &mut self,
        session: S,
        id: CommandId,
        result: Option<Result<Answer, Refused>>,
        index: Index,
        rows: Option<StoredRead>,
        out: &mut Vec<Step<S>>,
    ) {
        if let Some(attached) = self.sessions.get_mut(&session) {
            attached.reading += 1;
        }
        if plant::is(Fault::GateNumbersRepeat) && self.gates.len() < 2 {
            self.next_gate = 0;
        }
        self.next_gate += 1;
        let other = self.gates.insert(self.next_gate, Gated { session, id, result, index });
        assert!(other.is_none(), "two reads have the number {}", self.next_gate);
        out.push(Step::Gate { number: self.next_gate, rows });
    }

    /// Proposes what the engine decides, if nothing is in flight.
    fn pump(&mut self, env: &mut Env, out: &mut Vec<Step<S>>) {
        let Some(engine) = self.engine.as_mut() else { return };
        out.extend(engine.next_entry(env).map(Step::Propose));
    }

    /// Tells an event to every session that has its folder open.
    fn tell(&mut self, event: &Event, out: &mut Vec<Step<S>>) {
        let mut too_slow = Vec::new();
        for (session, attached) in self.sessions.iter_mut().filter(|(_, a)| a.open == Some(event.folder)) {
            if attached.reading == 0 || plant::is(Fault::EventOvertakesAnswer) {
                out.push(Step::Say { to: *session, what: Said::Event(event.clone()) });
            } else if attached.held.len() < HELD_MAX_EVENTS {
                attached.held.push(event.clone());
            } else {
                too_slow.push(*session);
            }
        }
        for session in too_slow {
            self.sessions.remove(&session);
            out.push(Step::Say { to: session, what: Said::Detached(Detached::Gone) });
        }
    }

    fn answer(&mut self, id: CommandId, result: &Result<Answer, Refused>, at: Index, out: &mut Vec<Step<S>>) {
        let sessions = self.waiting.remove(&id).unwrap_or_default();
        if let Some(resumes) = self.opening.remove(&id) {
            for session in &sessions {
                if let Some(attached) = self.sessions.get_mut(session) {
                    attached.open = opened(result, resumes);
                }
            }
        }
        for session in sessions {
            self.answer_one(session, id, result.clone(), at, out);
        }
    }

    fn answer_one(&mut self, to: S, id: CommandId, result: Result<Answer, Refused>, at: Index, out: &mut Vec<Step<S>>) {
        if self.sessions.contains_key(&to) {
            out.push(Step::Say { to, what: Said::Answer { id, result, at } });
        }
    }
}

impl<S: Copy + Ord> Default for Owner<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// The folder that an answer opens.
fn opened<E>(result: &Result<Answer, E>, resumes: Option<FolderId>) -> Option<FolderId> {
    match result {
        Ok(Answer::Selected(selected)) => Some(selected.folder),
        Ok(Answer::Resumed(_)) => resumes,
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::api::Change;
    use crate::harness::World;

    /// An owner over the rows of a world, with its steps carried out but for gates.
    struct Shell {
        world: World,
        owner: Owner<u8>,
        gates: VecDeque<(u64, Option<StoredRead>)>,
        said: Vec<(u8, Said)>,
        ended: bool,
    }

    impl Shell {
        fn new() -> Self {
            let world = World::new();
            let mut shell =
                Shell { world, owner: Owner::new(), gates: VecDeque::new(), said: Vec::new(), ended: false };
            for session in [1, 2] {
                shell.owner.attach(session, SessionNumber(u64::from(session)));
            }
            let loaded = shell.world.load();
            shell.run(|owner, env, out| owner.loaded(env, Ok(loaded), out));
            shell
        }

        fn run(&mut self, what: impl FnOnce(&mut Owner<u8>, &mut Env, &mut Vec<Step<u8>>)) {
            let mut out = Vec::new();
            what(&mut self.owner, &mut self.world.env, &mut out);
            let mut steps = VecDeque::from(out);
            while let Some(step) = steps.pop_front() {
                match step {
                    Step::Propose(proposal) => {
                        let (index, verdict) = self.world.apply(proposal);
                        let mut out = Vec::new();
                        self.owner.decided(&mut self.world.env, ProposalOutcome::Applied { index, verdict }, &mut out);
                        steps.extend(out);
                    }
                    Step::Gate { number, rows } => self.gates.push_back((number, rows)),
                    Step::Say { to, what } => self.said.push((to, what)),
                    Step::End => self.ended = true,
                    Step::Pause { .. } | Step::Failed { .. } => panic!("{step:?}"),
                }
            }
        }

        fn ask(&mut self, session: u8, command: Command) -> CommandId {
            let id = self.world.env.command_id();
            self.run(|owner, env, out| owner.ask(env, Ask { session, id, attempt: 0, command }, out));
            id
        }

        fn open_gate(&mut self, leads: bool) {
            let (number, rows) = self.gates.pop_front().unwrap();
            let rows = rows.map(|read| read.run(&self.world.rows));
            self.run(|owner, _, out| owner.gated(number, leads, rows, out));
        }

        fn append(&mut self, session: u8) {
            let new_message = self.world.new_message("Subject: x\r\n\r\nhello\r\n");
            let folder = "INBOX".to_owned();
            let (flags, internal_date) = Default::default();
            self.ask(session, Command::Append { folder, new_message, flags, internal_date });
        }

        /// What session 1 has heard since the last call, in a letter each.
        fn heard(&mut self) -> String {
            let of = |(to, what): &(u8, Said)| match (to, what) {
                (1, Said::Answer { result: Ok(Answer::Selected(s)), .. }) => format!("S{}", s.messages.len()),
                (1, Said::Answer { result: Ok(Answer::Fetched(f)), .. }) => format!("F{}", f.len()),
                (1, Said::Answer { result: Ok(_), .. }) => "A".to_owned(),
                (1, Said::Answer { result: Err(e), .. }) => format!("{e:?}"),
                (1, Said::Event(Event { change: Change::Added(m), .. })) => format!("+{}", m[0].uid),
                (1, Said::Event(_)) => "E".to_owned(),
                (1, Said::Detached(why)) => format!("{why:?}"),
                _ => String::new(),
            };
            self.said.drain(..).map(|said| of(&said)).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }

    fn select() -> Command {
        Command::Select { folder: "INBOX".to_owned(), claim_recent: true }
    }

    #[test]
    fn what_happens_while_a_read_waits_at_the_gate_is_told_after_its_answer() {
        let mut shell = Shell::new();
        shell.append(2);
        shell.ask(1, select());
        shell.append(2);
        assert_eq!(shell.heard(), "", "the gate has not answered");
        shell.open_gate(true);
        assert_eq!(shell.heard(), "S1 +2");
        let folder = FolderId(1);
        let uids = (1..=9).collect();
        shell.ask(1, Command::Fetch { folder, uids, what: Default::default() });
        shell.ask(1, Command::Sync);
        shell.append(2);
        shell.open_gate(true);
        assert_eq!(shell.heard(), "F2", "another read of the same state still waits");
        shell.open_gate(true);
        assert_eq!(shell.heard(), "A +3");
        shell.append(2);
        assert_eq!(shell.heard(), "+4");
    }

    #[test]
    fn after_a_lost_lead_nothing_is_answered_and_everyone_is_told() {
        let mut shell = Shell::new();
        shell.ask(1, select());
        shell.open_gate(false);
        assert_eq!((shell.heard().as_str(), shell.ended), ("NotLeader", true));
        shell.ask(1, Command::Sync);
        assert_eq!((shell.heard().as_str(), shell.gates.len()), ("", 0));
    }

    #[test]
    fn what_waits_for_loading_is_bounded_and_then_done_in_its_order() {
        let mut shell = Shell::new();
        shell.owner = Owner::new();
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
        shell.open_gate(true);
        assert_eq!(shell.heard(), "");
    }
}
