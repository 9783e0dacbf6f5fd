//! What waits is decided together as the next entry, one command after another, each on applied state and the
//! effects of those before it. One entry is in flight; after anything but acceptance its commands are decided again.

use std::collections::BTreeMap;

use mailraft_storage::entry::RowsBody;
use mailraft_storage::{CommandId, EntryKind, Env, Index, Proposal, Verdict};

use crate::engine::{Effect, Engine, Kept, Missed, Part, RequestDigest};
use crate::kept::{Known, known};
use crate::plant::{self, Fault};
use crate::queue::{Queue, Queued, SessionNumber};

/// The most commands decided together as one entry.
pub const BATCH_MAX_COMMANDS: usize = 64;
/// While commands wait, one entry in so many is upkeep.
const UPKEEP_EVERY_ENTRIES: u32 = 8;

/// What became of a command that was submitted.
#[derive(Debug)]
pub enum Submitted<A, R, X> {
    /// It was carried out before: its kept result, and the position of its entry. Or its id belongs to another command,
    /// and it is refused.
    Answered(Result<A, R>, Index),
    /// It waits; the answer comes with an [`Outcome`].
    Queued,
    /// The same id is in flight or waits already: its answer comes once, for all who asked.
    Joined,
    /// The queue is full. Not decided; try again later.
    Overloaded,
    /// Other regions have not confirmed for long. Not decided; try again later.
    NotConfirmed,
    /// The id is below the floor of kept results, or its result is another owner's: nobody knows whether it was
    /// carried out.
    Unknown,
    /// A first attempt's id is below this floor. Not decided. A session that never sent the id before takes a higher
    /// one.
    Expired(CommandId),
    /// Rows can't be read.
    Unreadable(X),
}

/// What became of a command of this engine that was submitted.
pub type SubmittedTo<E> = Submitted<<E as Engine>::Answer, <E as Engine>::Refusal, <E as Engine>::Error>;

/// What an applied entry means to those who asked. Events go first.
pub struct Outcome<E: Engine> {
    /// Answers by command, with the position that must be visible before they are given.
    pub answers: Vec<(CommandId, Kept<E>, Index)>,
    /// What changed, in the order of the log.
    pub events: Vec<E::Event>,
    /// Commands that were not decided and have no result, because what they bring is gone.
    pub lost: Vec<CommandId>,
}

/// An engine, the commands that wait for it, and its entry in flight.
pub struct Deciding<E: Engine> {
    engine: E,
    queue: Queue<E::Command>,
    /// Every id that waits or is in flight, with what was asked under it.
    known: BTreeMap<CommandId, Option<RequestDigest>>,
    in_flight: Option<Flight<E>>,
    /// The command whose change takes entries of its own.
    in_parts: Option<Queued<E::Command>>,
    unreadable: Vec<(CommandId, E::Error)>,
    since_upkeep: u32,
    /// Nothing more is taken in: other regions have not confirmed for long.
    unconfirmed: bool,
}

/// The entry whose verdict is awaited.
enum Flight<E: Engine> {
    Commands { entry: E::Entry, decided: Vec<Decided<E>> },
    Upkeep { entry: E::Entry },
    Part { entry: E::Entry },
    LastPart { entry: E::Entry, result: Kept<E> },
}

struct Decided<E: Engine> {
    queued: Queued<E::Command>,
    result: Kept<E>,
}

impl<E: Engine> Deciding<E> {
    /// Nothing waits yet.
    pub fn new(engine: E) -> Self {
        Deciding {
            engine,
            queue: Queue::default(),
            known: BTreeMap::new(),
            in_flight: None,
            in_parts: None,
            unreadable: Vec::new(),
            since_upkeep: 0,
            unconfirmed: false,
        }
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, to be read or set up.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Takes a command in. A result kept under its id is the answer. `attempt` is above 0 for a retry. First attempts
    /// are looked up too: one that was held up in the network may come after a later attempt was carried out. Below
    /// the floor of kept results even a first attempt is not taken: it may be a late copy, or its session's clock is
    /// far behind.
    pub fn submit(
        &mut self,
        session: SessionNumber,
        id: CommandId,
        attempt: u32,
        command: E::Command,
    ) -> SubmittedTo<E> {
        let request = self.engine.request_digest(&command);
        match self.known.get(&id) {
            Some(first) if is_another(request, *first) => {
                return Submitted::Answered(Err(self.engine.id_is_taken()), self.engine.position());
            }
            Some(_) => return Submitted::Joined,
            None => {}
        }
        match self.look_up(id, attempt, request) {
            Ok(None) => {}
            Ok(Some(known)) => return known,
            Err(error) => return Submitted::Unreadable(error),
        }
        if self.unconfirmed {
            return Submitted::NotConfirmed;
        }
        let bytes = E::command_bytes(&command);
        if self.queue.is_full_for(bytes) {
            return Submitted::Overloaded;
        }
        self.known.insert(id, request);
        self.queue.push(Queued { session, id, command, bytes, damaged: false });
        Submitted::Queued
    }

    /// Whether a command of this id was certainly never carried out, and does not wait to be.
    pub fn is_new(&self, id: CommandId) -> bool {
        const AGAIN: u32 = 1;
        !self.known.contains_key(&id) && matches!(self.look_up(id, AGAIN, None), Ok(None))
    }

    /// Decides what waits as one entry. None while one is in flight or nothing is to be done. Of commands that can't be
    /// decided because rows can't be read [`Deciding::take_unreadable`] tells.
    pub fn next_entry(&mut self, env: &mut Env) -> Option<Proposal> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.in_parts.is_some() && (self.queue.is_empty() || !plant::is(Fault::InterleaveStaged)) {
            return self.next_part(env);
        }
        let begun = !self.engine.must_begin();
        if begun && (self.queue.is_empty() || self.since_upkeep >= UPKEEP_EVERY_ENTRIES) {
            self.since_upkeep = 0;
            if let Some(mut entry) = self.engine.upkeep(env) {
                let id = env.command_id();
                let proposal = self.propose(env, id, &mut entry, &[]);
                self.in_flight = Some(Flight::Upkeep { entry });
                return Some(proposal);
            }
        }
        if begun && self.queue.is_empty() {
            return None;
        }
        self.since_upkeep += 1;
        self.next_batch(env, begun)
    }

    /// The verdict of the entry in flight. After anything but [`Verdict::Accepted`] nothing changed and the
    /// commands wait again in their order. (After [`Verdict::Fenced`] this owner's term is over: discard it.)
    ///
    /// # Panics
    /// If none is in flight, or the position is not above that of the applied state.
    pub fn applied(&mut self, index: Index, verdict: Verdict) -> Outcome<E> {
        let Some(flight) = self.in_flight.take() else { panic!("a verdict without an entry in flight") };
        match verdict {
            Verdict::Accepted => self.accepted(index, flight),
            Verdict::Fenced => {
                self.return_to_queue(flight);
                Outcome::default()
            }
            Verdict::Missing => self.missing(flight),
        }
    }

    /// The entry in flight was never appended: the same is decided again by [`Deciding::next_entry`].
    ///
    /// # Panics
    /// If none is in flight.
    pub fn dropped(&mut self) {
        let Some(flight) = self.in_flight.take() else { panic!("dropped without an entry in flight") };
        self.return_to_queue(flight);
    }

    /// Whether other regions have not confirmed for long: then nothing more is taken in. Gives what waited, of which nothing
    /// was decided. What is in flight stays, and so does a change of which parts may be there already.
    pub fn set_unconfirmed(&mut self, unconfirmed: bool) -> Vec<CommandId> {
        self.unconfirmed = unconfirmed;
        if unconfirmed { self.refuse_waiting() } else { Vec::new() }
    }

    /// The entry in flight was never appended, because other regions have not confirmed for long. Gives what it had and
    /// what waited: nothing of that was decided.
    ///
    /// # Panics
    /// If none is in flight.
    pub fn not_confirmed(&mut self) -> Vec<CommandId> {
        self.dropped();
        self.refuse_waiting()
    }

    fn refuse_waiting(&mut self) -> Vec<CommandId> {
        let waiting: Vec<CommandId> = std::iter::from_fn(|| self.queue.pop()).map(|queued| queued.id).collect();
        for id in &waiting {
            self.known.remove(id);
        }
        waiting
    }

    /// Commands that could not be decided because rows can't be read. Nothing is recorded of them: they may come again.
    pub fn take_unreadable(&mut self) -> Vec<(CommandId, E::Error)> {
        std::mem::take(&mut self.unreadable)
    }

    /// Whether a verdict is awaited.
    pub fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether nothing waits, is in flight or is left to do.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
            && self.in_parts.is_none()
            && self.queue.is_empty()
            && !self.engine.must_begin()
            && self.engine.is_idle()
    }

    /// The commands that wait, in bytes, roughly.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn look_up(
        &self,
        id: CommandId,
        attempt: u32,
        request: Option<RequestDigest>,
    ) -> Result<Option<SubmittedTo<E>>, E::Error> {
        if plant::is(Fault::RetryNotLookedUp) {
            return Ok(None);
        }
        let place = self.engine.place();
        Ok(match known(self.engine.rows(), place.replica, id)? {
            Known::New => None,
            Known::Result(row) if row.mailbox == place.mailbox => {
                let (first, result) = self.engine.open_result(id, &row.result)?;
                let result = if is_another(request, first) { Err(self.engine.id_is_taken()) } else { result };
                Some(Submitted::Answered(result, row.index))
            }
            Known::Result(_) => Some(Submitted::Unknown),
            Known::BelowFloor(floor) if attempt == 0 => {
                (!plant::is(Fault::FloorNotForFirsts)).then_some(Submitted::Expired(floor))
            }
            Known::BelowFloor(_) => (!plant::is(Fault::FloorNotForRetries)).then_some(Submitted::Unknown),
        })
    }

    fn next_batch(&mut self, env: &mut Env, begun: bool) -> Option<Proposal> {
        let mut entry = self.engine.begin(env);
        let mut decided = Vec::new();
        while decided.len() < BATCH_MAX_COMMANDS {
            let Some(queued) = self.queue.pop() else { break };
            match self.engine.decide(env, &mut entry, &queued) {
                Effect::Decided(result) => decided.push(Decided { queued, result }),
                Effect::NoRoom => {
                    assert!(!decided.is_empty() || !begun, "an entry with nothing in it has no room");
                    self.queue.push_front(queued);
                    break;
                }
                Effect::Parts => {
                    assert!(decided.is_empty() && begun, "a change in parts shares an entry");
                    self.in_parts = Some(queued);
                    return self.next_part(env);
                }
                Effect::Unreadable(error) => {
                    self.known.remove(&queued.id);
                    self.unreadable.push((queued.id, error));
                }
            }
        }
        let first = match decided.first() {
            Some(first) => first.queued.id,
            None if begun => return None,
            None => env.command_id(),
        };
        let results: Vec<_> = decided.iter().map(|d| (&d.queued, &d.result)).collect();
        let proposal = self.propose(env, first, &mut entry, &results);
        self.in_flight = Some(Flight::Commands { entry, decided });
        Some(proposal)
    }

    fn next_part(&mut self, env: &mut Env) -> Option<Proposal> {
        let queued = self.in_parts.take()?;
        let (proposal, flight) = match self.engine.next_part(env) {
            Part::Inner(mut entry) => (self.propose(env, queued.id, &mut entry, &[]), Flight::Part { entry }),
            Part::Last(mut entry, result) => {
                (self.propose(env, queued.id, &mut entry, &[(&queued, &result)]), Flight::LastPart { entry, result })
            }
        };
        self.in_parts = Some(queued);
        self.in_flight = Some(flight);
        Some(proposal)
    }

    fn propose(
        &mut self,
        env: &mut Env,
        command: CommandId,
        entry: &mut E::Entry,
        results: &[(&Queued<E::Command>, &Kept<E>)],
    ) -> Proposal {
        let (requires, batch) = self.engine.close(env, entry);
        let recorded = results.iter().filter(|(_, result)| result.is_ok() || !plant::is(Fault::RefusalNotRecorded));
        let results = recorded
            .map(|(queued, result)| {
                let request = self.engine.request_digest(&queued.command);
                (queued.id, self.engine.seal_result(env, queued.id, request, result))
            })
            .collect();
        let place = self.engine.place();
        Proposal {
            incarnation: place.incarnation,
            term: place.term,
            mailbox: place.mailbox,
            command,
            kind: EntryKind::Rows(RowsBody { requires, batch, results }),
        }
    }

    fn accepted(&mut self, index: Index, flight: Flight<E>) -> Outcome<E> {
        assert!(index > self.engine.position(), "applied positions rise");
        let mut outcome = Outcome::default();
        match flight {
            Flight::Commands { entry, decided } => {
                outcome.events = self.engine.accepted(index, entry);
                for Decided { queued, result } in decided {
                    self.known.remove(&queued.id);
                    outcome.answers.push((queued.id, result, index));
                }
            }
            Flight::LastPart { entry, result } => {
                outcome.events = self.engine.accepted(index, entry);
                if let Some(queued) = self.in_parts.take() {
                    self.known.remove(&queued.id);
                    outcome.answers.push((queued.id, result, index));
                }
            }
            Flight::Upkeep { entry } | Flight::Part { entry } => outcome.events = self.engine.accepted(index, entry),
        }
        outcome
    }

    fn return_to_queue(&mut self, flight: Flight<E>) {
        match flight {
            Flight::Commands { entry: _, decided } => {
                for decided in decided.into_iter().rev() {
                    self.queue.push_front(decided.queued);
                }
            }
            // The change in parts is still there, and so is the upkeep.
            Flight::Upkeep { .. } | Flight::Part { .. } | Flight::LastPart { .. } => {}
        }
    }

    fn missing(&mut self, flight: Flight<E>) -> Outcome<E> {
        let (entry, commands) = match flight {
            Flight::Commands { entry, decided } => (entry, decided.into_iter().map(|d| d.queued).collect()),
            Flight::Part { entry } | Flight::LastPart { entry, .. } => (entry, Vec::from_iter(self.in_parts.take())),
            Flight::Upkeep { entry } => (entry, Vec::new()),
        };
        let missed = self.engine.missing(entry, commands.len());
        assert_eq!(missed.len(), commands.len(), "of each command it is said what becomes of it");
        let mut outcome = Outcome::default();
        for (mut queued, missed) in commands.into_iter().zip(missed).rev() {
            match missed {
                Missed::Again => self.queue.push_front(queued),
                Missed::Damaged => {
                    queued.damaged = true;
                    self.queue.push_front(queued);
                }
                Missed::Lost => {
                    self.known.remove(&queued.id);
                    outcome.lost.push(queued.id);
                }
            }
        }
        outcome.lost.reverse();
        outcome
    }
}

/// Whether two commands of one id ask for different things.
fn is_another(one: Option<RequestDigest>, other: Option<RequestDigest>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

impl<E: Engine> Default for Outcome<E> {
    fn default() -> Self {
        Outcome { answers: Vec::new(), events: Vec::new(), lost: Vec::new() }
    }
}
