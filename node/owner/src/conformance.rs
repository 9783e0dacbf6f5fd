//! What every owner keeps to, whatever its engine: run by the tests of this crate over a small engine, and by those of
//! each engine over that. Panics where something is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mailraft_storage::entry::CommandRow;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{
    Applied, ClusterId, CommandFloor, CommandId, EntryKind, Env, Incarnation, Index, MailboxId, Proposal,
    ProposalOutcome, ReplicaId, RowBatch, RowKey, Rows, Term, Verdict,
};

use crate::deciding::{BATCH_MAX_COMMANDS, Deciding, Submitted};
use crate::engine::{Engine, Kept, Place};
use crate::log_owner::{Ask, BACKLOG_MAX_COMMANDS, Detached, LogOwner, Owner, Step, StepOf, Tell, Unanswered};
use crate::queue::{QUEUE_MAX_COMMANDS, SessionNumber};

/// The replica of every check.
pub const REPLICA: ReplicaId = ReplicaId(5);
/// Steps of a random schedule.
const SCHEDULE_STEPS: usize = 400;

/// An engine to be checked.
pub trait Subject {
    /// The engine.
    type Engine: Engine;

    /// Rows as they are before the first command.
    fn first_rows(&mut self, env: &mut Env, place: &Place) -> RowBatch;

    /// Loads the engine from a replica's rows.
    fn load(&self, rows: Arc<dyn Rows>, place: Place) -> Self::Engine;

    /// A command that is carried out, another one for each number.
    fn accepted(&self, env: &mut Env, number: usize) -> <Self::Engine as Engine>::Command;

    /// A command that is refused.
    fn refused(&self) -> <Self::Engine as Engine>::Command;

    /// How many commands were carried out, as the rows say.
    fn carried_out(&self, rows: &MemoryRows, place: &Place) -> usize;
}

/// A replica of the owned rows, and an owner beside it.
pub struct Bench<S: Subject> {
    /// What is checked.
    pub subject: S,
    /// Time and randomness.
    pub env: Env,
    /// The replica's rows.
    pub rows: MemoryRows,
    /// Which rows they are.
    pub place: Place,
    index: u64,
}

type CommandOf<S> = <<S as Subject>::Engine as Engine>::Command;
type Owned<S> = LogOwner<<S as Subject>::Engine, u32>;
type Answers<S> = Vec<(u32, CommandId, Result<Kept<<S as Subject>::Engine>, Unanswered>)>;

impl<S: Subject> Bench<S> {
    /// A replica with the first rows.
    pub fn new(mut subject: S, mailbox: MailboxId, seed: u64) -> Self {
        let mut env = Env::seeded(seed);
        let place = Place {
            cluster: ClusterId([9; 16]),
            mailbox,
            replica: REPLICA,
            incarnation: Incarnation { number: 1, nonce: [7; 16] },
            term: Term(3),
            began_alone: false,
        };
        let first = subject.first_rows(&mut env, &place);
        let mut bench = Bench { subject, env, rows: MemoryRows::new(), place, index: 0 };
        bench.write(first);
        bench
    }

    /// The next owner, which only knows the rows. What must be made first is made.
    pub fn load(&mut self) -> Deciding<S::Engine> {
        let mut deciding = Deciding::new(self.engine());
        if deciding.engine().must_begin() {
            let first = deciding.next_entry(&mut self.env).expect("what must be made first");
            let (index, verdict) = self.apply(first);
            deciding.applied(index, verdict);
        }
        deciding
    }

    /// The engine as the rows have it.
    pub fn engine(&self) -> S::Engine {
        self.subject.load(Arc::new(self.rows.clone()), self.place)
    }

    /// Writes rows as no command would.
    pub fn write(&mut self, batch: RowBatch) {
        self.index += 1;
        let applied = Applied { index: Index(self.index), ..Applied::default() };
        self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).expect("memory is written");
    }

    /// Applies an entry as a replica does.
    pub fn apply(&mut self, proposal: Proposal) -> (Index, Verdict) {
        assert_eq!((proposal.mailbox, proposal.term), (self.place.mailbox, self.place.term));
        let EntryKind::Rows(body) = proposal.kind else { panic!("no rows") };
        let keys: BTreeSet<&RowKey> = body.batch.puts.iter().map(|(key, _)| key).chain(&body.batch.deletes).collect();
        assert_eq!(keys.len(), body.batch.puts.len() + body.batch.deletes.len(), "a key stands in an entry once");
        let there = |key: &RowKey| self.rows.get(REPLICA, key).expect("memory is read").is_some();
        let missing = !body.requires.iter().all(there);
        let mut batch = if missing { RowBatch::default() } else { body.batch };
        for (id, result) in body.results.into_iter().filter(|_| !missing) {
            assert!(!there(&RowKey::command(id)), "a command is carried out twice");
            let row = CommandRow { index: Index(self.index + 1), mailbox: self.place.mailbox, result };
            batch.put(RowKey::command(id), row.encode());
        }
        self.write(batch);
        (Index(self.index), if missing { Verdict::Missing } else { Verdict::Accepted })
    }

    fn accepted(&mut self, number: usize) -> (CommandId, CommandOf<S>) {
        self.env.wall.0 += 1;
        (self.env.command_id(), self.subject.accepted(&mut self.env, number))
    }

    /// Everything that waits, entry by entry.
    fn drain(&mut self, deciding: &mut Deciding<S::Engine>) -> Vec<(CommandId, Kept<S::Engine>, Index)> {
        let mut answers = Vec::new();
        while let Some(proposal) = deciding.next_entry(&mut self.env) {
            let (index, verdict) = self.apply(proposal);
            answers.extend(deciding.applied(index, verdict).answers);
        }
        answers
    }

    fn carried_out(&self) -> usize {
        self.subject.carried_out(&self.rows, &self.place)
    }
}

/// Runs every check. `make` makes a subject, `mailbox` says whose rows it owns.
pub fn check<S: Subject>(mut make: impl FnMut() -> S, mailbox: MailboxId)
where
    CommandOf<S>: Clone,
    Kept<S::Engine>: PartialEq + std::fmt::Debug,
{
    repeats_are_done_once(&mut Bench::new(make(), mailbox, 1));
    below_the_floor_nothing_is_done(&mut Bench::new(make(), mailbox, 2));
    what_is_not_accepted_is_decided_again_in_its_order(&mut Bench::new(make(), mailbox, 3));
    what_waits_is_bounded_and_decided_together(&mut Bench::new(make(), mailbox, 4));
    everybody_who_asked_is_told(&mut Bench::new(make(), mailbox, 5));
    an_owner_pauses_before_it_proposes_again(&mut Bench::new(make(), mailbox, 6));
    for seed in 0..20 {
        whatever_happens_a_command_is_done_once(&mut Bench::new(make(), mailbox, 100 + seed));
    }
}

fn repeats_are_done_once<S: Subject>(bench: &mut Bench<S>)
where
    CommandOf<S>: Clone,
    Kept<S::Engine>: PartialEq + std::fmt::Debug,
{
    let mut deciding = bench.load();
    let (id, command) = bench.accepted(0);
    let (no, refused) = (bench.env.command_id(), bench.subject.refused());
    for (id, command) in [(id, &command), (no, &refused)] {
        assert!(matches!(deciding.submit(SessionNumber(1), id, 0, command.clone()), Submitted::Queued));
        assert!(matches!(deciding.submit(SessionNumber(2), id, 1, command.clone()), Submitted::Joined));
    }
    let proposal = deciding.next_entry(&mut bench.env).expect("an entry");
    assert!(deciding.next_entry(&mut bench.env).is_none() && deciding.in_flight(), "one entry is in flight");
    assert!(matches!(deciding.submit(SessionNumber(1), id, 2, command.clone()), Submitted::Joined), "in flight too");
    let (index, verdict) = bench.apply(proposal);
    let answers = deciding.applied(index, verdict).answers;
    assert_eq!(answers.iter().map(|a| a.0).collect::<Vec<_>>(), [id, no], "each is answered once");
    assert!(answers[0].1.is_ok() && answers[1].1.is_err());
    // Its own owner and the next one know, be it a retry or a first attempt that was held up.
    for owner in 0..2 {
        for attempt in [0, 1] {
            for (id, result, at) in &answers {
                let asked = if *id == no { &refused } else { &command };
                let known = deciding.submit(SessionNumber(1), *id, attempt, asked.clone());
                let Submitted::Answered(kept, index) = known else { panic!("owner {owner}: not kept") };
                assert!(kept == *result && index == *at, "owner {owner} says {kept:?}, first it was {result:?}");
            }
        }
        assert!(bench.drain(&mut deciding).is_empty());
        deciding = bench.load();
    }
    assert_eq!(bench.carried_out(), 1);
    // Another owner's result tells nothing of this one's rows.
    let foreign = bench.env.command_id();
    let mut batch = RowBatch::default();
    let row = CommandRow { index: Index(1), mailbox: MailboxId([0xee; 16]), result: Vec::new().into() };
    batch.put(RowKey::command(foreign), row.encode());
    bench.write(batch);
    assert!(matches!(deciding.submit(SessionNumber(1), foreign, 0, command), Submitted::Unknown));
}

fn below_the_floor_nothing_is_done<S: Subject>(bench: &mut Bench<S>)
where
    CommandOf<S>: Clone,
{
    let mut deciding = bench.load();
    let (old, command) = bench.accepted(0);
    let (floor, _) = bench.accepted(0);
    bench.write(floor_rows(floor));
    assert!(matches!(deciding.submit(SessionNumber(1), old, 1, command.clone()), Submitted::Unknown));
    // A late copy of the first attempt, or a session whose clock is far behind.
    let late = deciding.submit(SessionNumber(1), old, 0, command.clone());
    assert!(matches!(late, Submitted::Expired(told) if told == floor));
    assert!(bench.drain(&mut deciding).is_empty());
    assert!(matches!(deciding.submit(SessionNumber(1), floor, 1, command.clone()), Submitted::Queued));
    // A floor that can't be read lets nothing be carried out again.
    let id = bench.env.command_id();
    for damaged in [&[][..], &[1], &[1, 0xff, 0xff]] {
        let mut batch = RowBatch::default();
        batch.put(CommandFloor::key(), damaged.to_vec());
        bench.write(batch);
        for attempt in [0, 1] {
            let submitted = deciding.submit(SessionNumber(1), id, attempt, command.clone());
            assert!(matches!(submitted, Submitted::Unreadable(_)), "{damaged:?} is taken for a floor");
        }
    }
}

fn what_is_not_accepted_is_decided_again_in_its_order<S: Subject>(bench: &mut Bench<S>) {
    let mut deciding = bench.load();
    let mut ids = Vec::new();
    for number in 0..4 {
        let (id, command) = bench.accepted(number);
        assert!(matches!(deciding.submit(SessionNumber(1), id, 0, command), Submitted::Queued));
        ids.push(id);
    }
    for verdict in [None, Some(Verdict::Missing), Some(Verdict::Fenced)] {
        let proposal = deciding.next_entry(&mut bench.env).expect("an entry");
        assert_eq!(proposal.command, ids[0]);
        match verdict {
            None => deciding.dropped(),
            Some(verdict) => {
                let outcome = deciding.applied(Index(bench.index + 1), verdict);
                assert!(outcome.answers.is_empty() && outcome.events.is_empty() && outcome.lost.is_empty());
            }
        }
    }
    let answered: Vec<CommandId> = bench.drain(&mut deciding).into_iter().map(|(id, ..)| id).collect();
    assert_eq!((answered, bench.carried_out()), (ids, 4));
}

fn what_waits_is_bounded_and_decided_together<S: Subject>(bench: &mut Bench<S>) {
    let mut deciding = bench.load();
    for n in 0..QUEUE_MAX_COMMANDS {
        let session = SessionNumber(if n == BATCH_MAX_COMMANDS { 2 } else { 1 });
        let id = bench.env.command_id();
        assert!(matches!(deciding.submit(session, id, 0, bench.subject.refused()), Submitted::Queued));
    }
    let id = bench.env.command_id();
    let refused = || bench.subject.refused();
    assert!(matches!(deciding.submit(SessionNumber(3), id, 0, refused()), Submitted::Overloaded));
    let proposal = deciding.next_entry(&mut bench.env).expect("an entry");
    let EntryKind::Rows(body) = &proposal.kind else { panic!("no rows") };
    assert_eq!(body.results.len(), BATCH_MAX_COMMANDS, "so many are decided together");
    assert!(matches!(deciding.submit(SessionNumber(3), id, 0, refused()), Submitted::Queued));
    deciding.dropped();
    let entries = QUEUE_MAX_COMMANDS.div_ceil(BATCH_MAX_COMMANDS) + 1;
    let before = bench.index;
    assert_eq!(bench.drain(&mut deciding).len(), QUEUE_MAX_COMMANDS + 1);
    assert!((bench.index - before) as usize <= entries && deciding.is_idle());
}

fn everybody_who_asked_is_told<S: Subject>(bench: &mut Bench<S>)
where
    CommandOf<S>: Clone,
{
    let mut owner = Owned::<S>::new();
    let mut out = Vec::new();
    let mut ids = Vec::new();
    for number in 0..=BACKLOG_MAX_COMMANDS {
        let (id, command) = bench.accepted(number);
        let asked = Ask { from: number as u32, turn: SessionNumber(1), id, attempt: 0, command };
        owner.ask(&mut bench.env, asked, &mut out);
        ids.push(id);
    }
    let told = answers::<S>(&mut out);
    assert!(matches!(told.as_slice(), [(_, id, Err(Unanswered::Overloaded))] if *id == ids[BACKLOG_MAX_COMMANDS]));
    let engine = bench.engine();
    owner.loaded(&mut bench.env, Ok(engine), &mut out);
    let told = carry_out(bench, &mut owner, &mut out);
    assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), (0..BACKLOG_MAX_COMMANDS as u32).collect::<Vec<_>>());
    assert!(told.iter().all(|(.., result)| matches!(result, Ok(Ok(_)))) && owner.is_idle());
    // Two who ask the same are both answered; whoever waits when the owner ends hears that.
    let (id, command) = bench.accepted(1_000);
    for from in [7, 8] {
        let asked = Ask { from, turn: SessionNumber(1), id, attempt: 0, command: command.clone() };
        owner.ask(&mut bench.env, asked, &mut out);
    }
    let told = carry_out(bench, &mut owner, &mut out);
    assert!(matches!(told.as_slice(), [(7, _, Ok(Ok(_))), (8, _, Ok(Ok(_)))]));
    for outcome in [
        ProposalOutcome::NotLeader { leader: None },
        ProposalOutcome::Unknown,
        ProposalOutcome::Applied { index: Index(u64::MAX), verdict: Verdict::Fenced },
    ] {
        let mut owner = Owned::<S>::new();
        let engine = bench.engine();
        owner.loaded(&mut bench.env, Ok(engine), &mut out);
        for (from, number) in [(1, 2_000), (2, 2_001)] {
            let (id, command) = bench.accepted(number);
            owner.ask(&mut bench.env, Ask { from, turn: SessionNumber(1), id, attempt: 0, command }, &mut out);
        }
        assert!(matches!(out.as_slice(), [Step::Propose(_)]), "one entry is in flight");
        out.clear();
        owner.decided(&mut bench.env, outcome, &mut out);
        assert!(matches!(out.pop(), Some(Step::End { why: Detached::NotLeader })));
        let told = answers::<S>(&mut out);
        let ended = |(_, _, result): &(u32, CommandId, Result<_, Unanswered>)| {
            matches!(result, Err(Unanswered::Ended(Detached::NotLeader)))
        };
        assert!(told.len() == 2 && told.iter().all(ended));
        let (id, command) = bench.accepted(2_002);
        owner.ask(&mut bench.env, Ask { from: 3, turn: SessionNumber(1), id, attempt: 0, command }, &mut out);
        assert!(matches!(answers::<S>(&mut out).as_slice(), [(3, _, Err(Unanswered::Ended(Detached::Gone)))]));
        owner.again(&mut bench.env, &mut out);
        owner.end(Detached::Gone, &mut out);
        assert!(out.is_empty(), "an owner ends once and does nothing after that");
    }
}

fn an_owner_pauses_before_it_proposes_again<S: Subject>(bench: &mut Bench<S>) {
    let mut owner = Owned::<S>::new();
    let mut out = Vec::new();
    let engine = bench.load();
    drop(engine);
    let engine = bench.engine();
    owner.loaded(&mut bench.env, Ok(engine), &mut out);
    let (first, command) = bench.accepted(0);
    owner.ask(&mut bench.env, Ask { from: 1, turn: SessionNumber(1), id: first, attempt: 0, command }, &mut out);
    for outcome in [ProposalOutcome::Dropped, ProposalOutcome::Overloaded, ProposalOutcome::Dropped] {
        let Some(Step::Propose(proposal)) = out.pop() else { panic!("nothing is proposed") };
        assert_eq!(proposal.command, first);
        owner.decided(&mut bench.env, outcome, &mut out);
        let Some(Step::Pause { millis }) = out.pop() else { panic!("it does not wait") };
        assert!(millis > 0 && out.is_empty() && !owner.is_idle());
        owner.again(&mut bench.env, &mut out);
        owner.again(&mut bench.env, &mut Vec::new());
    }
    let told = carry_out(bench, &mut owner, &mut out);
    assert!(matches!(told.as_slice(), [(1, _, Ok(Ok(_)))]) && bench.carried_out() == 1);
}

/// Commands come, come again, late and early; entries are dropped, and lost on the way to their owner or not; owners
/// follow each other.
fn whatever_happens_a_command_is_done_once<S: Subject>(bench: &mut Bench<S>)
where
    CommandOf<S>: Clone,
    Kept<S::Engine>: PartialEq + std::fmt::Debug,
{
    let mut deciding = bench.load();
    let mut sent: Vec<(CommandId, CommandOf<S>)> = Vec::new();
    let mut told: BTreeMap<CommandId, Kept<S::Engine>> = BTreeMap::new();
    for _ in 0..SCHEDULE_STEPS {
        let [what, which, session] = bench.env.bytes::<3>();
        match what % 16 {
            0..=5 => {
                let (id, command) = bench.accepted(sent.len());
                sent.push((id, command.clone()));
                deciding.submit(SessionNumber(u64::from(session % 4)), id, 0, command);
            }
            6..=8 if !sent.is_empty() => {
                let (id, command) = sent[usize::from(which) % sent.len()].clone();
                let submitted =
                    deciding.submit(SessionNumber(u64::from(session % 4)), id, u32::from(which % 2), command);
                match submitted {
                    Submitted::Answered(kept, _) => {
                        assert!(told.get(&id).is_none_or(|before| *before == kept), "answered otherwise than before");
                        told.insert(id, kept);
                    }
                    Submitted::Queued => assert!(!told.contains_key(&id), "decided again after its answer"),
                    Submitted::Joined | Submitted::Overloaded => {}
                    Submitted::Unknown | Submitted::Expired(_) | Submitted::Unreadable(_) | Submitted::NotConfirmed => {
                        panic!("nothing evicted, everything confirmed")
                    }
                }
            }
            9..=13 => {
                if let Some(proposal) = deciding.next_entry(&mut bench.env) {
                    let (index, verdict) = bench.apply(proposal);
                    for (id, kept, _) in deciding.applied(index, verdict).answers {
                        assert!(told.insert(id, kept).is_none(), "answered twice");
                    }
                }
            }
            14 if deciding.next_entry(&mut bench.env).is_some() => deciding.dropped(),
            14 => {}
            15 => {
                // The owner dies; its entry is applied all the same, or was never appended.
                if let Some(proposal) = deciding.next_entry(&mut bench.env)
                    && which % 2 == 0
                {
                    bench.apply(proposal);
                }
                deciding = bench.load();
            }
            _ => {}
        }
    }
    // Whoever has no answer asks until it has one.
    for (id, command) in &sent {
        match deciding.submit(SessionNumber(1), *id, 1, command.clone()) {
            Submitted::Overloaded => panic!("too many wait"),
            Submitted::Answered(kept, _) => drop(told.insert(*id, kept)),
            _ => {}
        }
    }
    told.extend(bench.drain(&mut deciding).into_iter().map(|(id, kept, _)| (id, kept)));
    assert!(sent.iter().all(|(id, _)| matches!(told.get(id), Some(Ok(_)))), "a command has no answer");
    assert_eq!(bench.carried_out(), sent.len(), "each was done once");
}

/// The rows of a floor of kept results.
fn floor_rows(floor: CommandId) -> RowBatch {
    let mut batch = RowBatch::default();
    batch.put(CommandFloor::key(), CommandFloor(floor).encode());
    batch
}

/// Applies what the owner proposes until it proposes nothing more, and takes its answers.
fn carry_out<S: Subject>(
    bench: &mut Bench<S>,
    owner: &mut Owned<S>,
    out: &mut Vec<StepOf<S::Engine, u32>>,
) -> Answers<S> {
    let mut told = Vec::new();
    loop {
        let at = out.iter().position(|step| matches!(step, Step::Propose(_)));
        let proposal = at.map(|at| out.remove(at));
        told.extend(answers::<S>(out));
        let Some(Step::Propose(proposal)) = proposal else { return told };
        let (index, verdict) = bench.apply(proposal);
        owner.decided(&mut bench.env, ProposalOutcome::Applied { index, verdict }, out);
    }
}

fn answers<S: Subject>(out: &mut Vec<StepOf<S::Engine, u32>>) -> Answers<S> {
    let answer = |step| match step {
        Step::Own(Tell::Answer { to, id, result, .. }) => Some((to, id, result)),
        Step::Own(Tell::Kept { to, id, result, .. }) => Some((to, id, Ok(result))),
        Step::Own(Tell::Event(_)) => None,
        Step::Propose(_) | Step::Pause { .. } | Step::Unreadable { .. } | Step::End { .. } => panic!("not an answer"),
    };
    out.drain(..).filter_map(answer).collect()
}
