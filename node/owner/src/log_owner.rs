//! The owner as its shell drives it: what waits for the log and for the rows to be loaded, and who asked. An actor, or
//! a simulator, is the thin shell around it: it carries [`Step`]s out and reports what became of them.

use std::collections::{BTreeMap, VecDeque};

use mailraft_storage::{CommandId, Env, Index, Proposal, ProposalOutcome, Verdict};
use serde::{Deserialize, Serialize};

use crate::deciding::{Deciding, Submitted};
use crate::engine::{Engine, Kept};
use crate::queue::SessionNumber;

/// Commands that wait while the rows are being loaded.
pub const BACKLOG_MAX_COMMANDS: usize = 256;
/// Before deciding again what could not be appended, in milliseconds.
const AGAIN_PAUSE_MS: u64 = 5;
/// Before deciding again what the log had no room for, in milliseconds.
const OVERLOADED_PAUSE_MS: u64 = 50;
/// Before trying again what must be done first, while other regions do not confirm, in milliseconds.
const NOT_CONFIRMED_PAUSE_MS: u64 = 500;

/// Something for the shell to do; `T` is what only this kind of owner wants, `X` why rows can't be read.
#[derive(Debug)]
pub enum Step<T, X> {
    /// Append it, then say [`Owner::decided`].
    Propose(Proposal),
    /// Call [`Owner::again`] after this time.
    Pause {
        /// In milliseconds.
        millis: u64,
    },
    /// Rows could not be read; for the operator.
    Unreadable {
        /// The command that needed them.
        command: CommandId,
        /// The error.
        error: X,
    },
    /// What this kind of owner wants beside that.
    Own(T),
    /// This owner has ended: it does nothing more, and everybody who asked was told.
    End {
        /// The reason.
        why: Detached,
    },
}

/// An owner as every shell drives it, whatever it owns.
pub trait Owner {
    /// What is loaded.
    type Engine;
    /// What it wants done that others don't.
    type Own;
    /// Why rows can't be read.
    type Error;

    /// The rows are in memory, or could not be loaded.
    fn loaded(
        &mut self,
        env: &mut Env,
        loaded: Result<Self::Engine, Detached>,
        out: &mut Vec<Step<Self::Own, Self::Error>>,
    );

    /// What became of the entry in flight.
    fn decided(&mut self, env: &mut Env, outcome: ProposalOutcome, out: &mut Vec<Step<Self::Own, Self::Error>>);

    /// Other regions have not confirmed for long, or do again: until then nothing more is taken in.
    fn set_unconfirmed(&mut self, unconfirmed: bool, out: &mut Vec<Step<Self::Own, Self::Error>>);

    /// A pause is over.
    fn again(&mut self, env: &mut Env, out: &mut Vec<Step<Self::Own, Self::Error>>);

    /// Ends this owner and tells everybody who asked why.
    fn end(&mut self, why: Detached, out: &mut Vec<Step<Self::Own, Self::Error>>);

    /// Whether nobody waits and nothing is to be done.
    fn is_idle(&self) -> bool;
}

/// Why a link to an owner ended or could not be made. It travels between nodes: variants are only ever added at the
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detached {
    /// The owner's node does not lead the partition, or not yet.
    NotLeader,
    /// The owner is gone: it panicked, fell idle, or its connection broke.
    Gone,
    /// Too much is waiting there.
    Overloaded,
    /// There is no such mailbox.
    NoSuchMailbox,
    /// The rows can't be loaded.
    Corrupt,
    /// Other regions have not confirmed for long.
    NotConfirmed,
}

/// Why an owner has no answer to a command. Nothing is recorded under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too much waits. Not decided.
    Overloaded,
    /// Nobody knows whether it was carried out.
    Unknown,
    /// A first attempt's id is below this floor of kept results. Not decided.
    Expired {
        /// The floor.
        floor: CommandId,
    },
    /// What it brings is gone. Not decided: whoever asked brings it again.
    Lost,
    /// Rows can't be read. Not decided.
    Unreadable,
    /// Other regions have not confirmed for long. Not decided.
    NotConfirmed,
    /// The owner ended before an answer: whether it was carried out, its successor knows.
    Ended(Detached),
}

/// A question to an owner; `A` names who asks.
#[derive(Clone, Debug)]
pub struct Ask<A, C> {
    /// Who asks.
    pub from: A,
    /// The session whose turn it is.
    pub turn: SessionNumber,
    /// The command's id.
    pub id: CommandId,
    /// 0 the first time.
    pub attempt: u32,
    /// The command.
    pub command: C,
}

/// What a [`LogOwner`] has to say.
pub enum Tell<E: Engine, A> {
    /// Something changed. Before the answer to what changed it.
    Event(E::Event),
    /// The answer to a command, or why there is none.
    Answer {
        /// Who asked.
        to: A,
        /// The command.
        id: CommandId,
        /// The answer.
        result: Result<Kept<E>, Unanswered>,
        /// The position of the change.
        at: Index,
    },
    /// The kept result of a command that was carried out before, perhaps in an earlier term: nothing that this owner
    /// did shows that it still leads.
    Kept {
        /// Who asked.
        to: A,
        /// The command.
        id: CommandId,
        /// Its result.
        result: Kept<E>,
        /// The position of the change.
        at: Index,
    },
}

/// What a [`LogOwner`] wants done.
pub type StepOf<E, A> = Step<Tell<E, A>, <E as Engine>::Error>;

/// An owner whose commands all are changes; `A` names who asks.
pub struct LogOwner<E: Engine, A> {
    deciding: Option<Deciding<E>>,
    backlog: VecDeque<Ask<A, E::Command>>,
    waiting: BTreeMap<CommandId, Vec<A>>,
    unconfirmed: bool,
    ended: bool,
}

impl<E: Engine, A> LogOwner<E, A> {
    /// An owner whose rows are not loaded yet.
    pub fn new() -> Self {
        LogOwner {
            deciding: None,
            backlog: VecDeque::new(),
            waiting: BTreeMap::new(),
            unconfirmed: false,
            ended: false,
        }
    }

    /// Someone asks.
    pub fn ask(&mut self, env: &mut Env, asked: Ask<A, E::Command>, out: &mut Vec<StepOf<E, A>>) {
        if self.ended {
            let ended = Err(Unanswered::Ended(Detached::Gone));
            return answer_one(asked.from, asked.id, ended, Index(0), out);
        }
        if self.deciding.is_none() {
            if self.backlog.len() >= BACKLOG_MAX_COMMANDS {
                answer_one(asked.from, asked.id, Err(Unanswered::Overloaded), Index(0), out);
            } else {
                self.backlog.push_back(asked);
            }
            return;
        }
        self.submit(asked, out);
        self.pump(env, out);
    }

    /// Whether a command of this id was certainly never carried out, and does not wait to be: however often it was asked,
    /// whoever refuses it now can say so.
    pub fn is_new(&self, id: CommandId) -> bool {
        self.deciding.as_ref().is_some_and(|deciding| deciding.is_new(id))
    }

    /// The engine, once it is loaded and until the end.
    pub fn engine(&self) -> Option<&E> {
        self.deciding.as_ref().map(Deciding::engine)
    }

    /// The engine, to be read or set up.
    pub fn engine_mut(&mut self) -> Option<&mut E> {
        self.deciding.as_mut().map(Deciding::engine_mut)
    }

    /// Whether an entry is in flight.
    pub fn in_flight(&self) -> bool {
        self.deciding.as_ref().is_some_and(Deciding::in_flight)
    }

    fn submit(&mut self, asked: Ask<A, E::Command>, out: &mut Vec<StepOf<E, A>>) {
        let Ask { from, turn, id, attempt, command } = asked;
        let Some(deciding) = self.deciding.as_mut() else { return };
        let why = match deciding.submit(turn, id, attempt, command) {
            Submitted::Answered(result, at) => return out.push(Step::Own(Tell::Kept { to: from, id, result, at })),
            Submitted::Queued | Submitted::Joined => return self.waiting.entry(id).or_default().push(from),
            Submitted::Overloaded => Unanswered::Overloaded,
            Submitted::NotConfirmed => Unanswered::NotConfirmed,
            Submitted::Unknown => Unanswered::Unknown,
            Submitted::Expired(floor) => Unanswered::Expired { floor },
            Submitted::Unreadable(error) => {
                out.push(Step::Unreadable { command: id, error });
                Unanswered::Unreadable
            }
        };
        answer_one(from, id, Err(why), Index(0), out);
    }

    /// Proposes what the engine decides, if nothing is in flight.
    fn pump(&mut self, env: &mut Env, out: &mut Vec<StepOf<E, A>>) {
        let Some(deciding) = self.deciding.as_mut() else { return };
        let proposal = deciding.next_entry(env);
        for (id, error) in deciding.take_unreadable() {
            out.push(Step::Unreadable { command: id, error });
            self.answer(id, &Err(Unanswered::Unreadable), Index(0), out);
        }
        out.extend(proposal.map(Step::Propose));
    }

    fn not_confirmed(&mut self, refused: Vec<CommandId>, out: &mut Vec<StepOf<E, A>>) {
        for id in refused {
            self.answer(id, &Err(Unanswered::NotConfirmed), Index(0), out);
        }
    }

    fn answer(&mut self, id: CommandId, result: &Result<Kept<E>, Unanswered>, at: Index, out: &mut Vec<StepOf<E, A>>) {
        for to in self.waiting.remove(&id).unwrap_or_default() {
            answer_one(to, id, result.clone(), at, out);
        }
    }
}

impl<E: Engine, A> Owner for LogOwner<E, A> {
    type Engine = E;
    type Own = Tell<E, A>;
    type Error = E::Error;

    fn loaded(&mut self, env: &mut Env, loaded: Result<E, Detached>, out: &mut Vec<StepOf<E, A>>) {
        if self.ended {
            return;
        }
        match loaded {
            Ok(engine) => {
                assert!(self.deciding.is_none(), "an owner's rows are loaded once");
                let mut deciding = Deciding::new(engine);
                // Nothing waits in it yet.
                let _ = deciding.set_unconfirmed(self.unconfirmed);
                self.deciding = Some(deciding);
                // What must be made first is made before anything else is decided.
                self.pump(env, out);
                for asked in std::mem::take(&mut self.backlog) {
                    self.submit(asked, out);
                }
                self.pump(env, out);
            }
            Err(why) => self.end(why, out),
        }
    }

    fn decided(&mut self, env: &mut Env, outcome: ProposalOutcome, out: &mut Vec<StepOf<E, A>>) {
        let Some(deciding) = self.deciding.as_mut() else { return };
        match outcome {
            ProposalOutcome::Applied { index, verdict: verdict @ (Verdict::Accepted | Verdict::Missing) } => {
                let outcome = deciding.applied(index, verdict);
                out.extend(outcome.events.into_iter().map(|event| Step::Own(Tell::Event(event))));
                for id in outcome.lost {
                    self.answer(id, &Err(Unanswered::Lost), index, out);
                }
                for (id, result, at) in outcome.answers {
                    self.answer(id, &Ok(result), at, out);
                }
                self.pump(env, out);
            }
            ProposalOutcome::Dropped => {
                deciding.dropped();
                out.push(Step::Pause { millis: AGAIN_PAUSE_MS });
            }
            ProposalOutcome::Overloaded => {
                deciding.dropped();
                out.push(Step::Pause { millis: OVERLOADED_PAUSE_MS });
            }
            ProposalOutcome::NotConfirmed => {
                let refused = deciding.not_confirmed();
                self.not_confirmed(refused, out);
                // What must be made first, and the rest of a change in parts, is still to be done.
                out.push(Step::Pause { millis: NOT_CONFIRMED_PAUSE_MS });
            }
            // A successor knows, or decides anew.
            ProposalOutcome::Applied { verdict: Verdict::Fenced, .. }
            | ProposalOutcome::NotLeader { .. }
            | ProposalOutcome::Unknown => self.end(Detached::NotLeader, out),
        }
    }

    fn set_unconfirmed(&mut self, unconfirmed: bool, out: &mut Vec<StepOf<E, A>>) {
        self.unconfirmed = unconfirmed;
        let Some(deciding) = self.deciding.as_mut() else { return };
        let refused = deciding.set_unconfirmed(unconfirmed);
        self.not_confirmed(refused, out);
    }

    fn again(&mut self, env: &mut Env, out: &mut Vec<StepOf<E, A>>) {
        self.pump(env, out);
    }

    fn end(&mut self, why: Detached, out: &mut Vec<StepOf<E, A>>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.deciding = None;
        for asked in std::mem::take(&mut self.backlog) {
            answer_one(asked.from, asked.id, Err(Unanswered::Ended(why)), Index(0), out);
        }
        for id in Vec::from_iter(self.waiting.keys().copied()) {
            self.answer(id, &Err(Unanswered::Ended(why)), Index(0), out);
        }
        out.push(Step::End { why });
    }

    fn is_idle(&self) -> bool {
        self.backlog.is_empty() && self.deciding.as_ref().is_some_and(Deciding::is_idle)
    }
}

impl<E: Engine, A> Default for LogOwner<E, A> {
    fn default() -> Self {
        Self::new()
    }
}

fn answer_one<E: Engine, A>(
    to: A,
    id: CommandId,
    result: Result<Kept<E>, Unanswered>,
    at: Index,
    out: &mut Vec<StepOf<E, A>>,
) {
    out.push(Step::Own(Tell::Answer { to, id, result, at }));
}
