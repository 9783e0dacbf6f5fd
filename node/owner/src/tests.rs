//! The rules of owners over the smallest engine that has everything an engine may do: a sum.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::{
    CommandId, Env, Index, MailboxId, ProposalOutcome, RowBatch, RowKey, Rows, StoreError, Table, Verdict,
};

use crate::conformance::{Bench, REPLICA, Subject, check};
use crate::engine::{Effect, Engine, Missed, Part, Place, RequestDigest};
use crate::log_owner::{Ask, LogOwner, Owner, Step, StepOf, Tell, Unanswered};
use crate::queue::{Queued, SessionNumber};
use crate::{Deciding, Submitted};

const MAILBOX: MailboxId = MailboxId([4; 16]);
/// No entry adds more.
const ENTRY_MAX: u64 = 1_000;

#[derive(Clone, Debug)]
enum Command {
    /// Adds to the sum, and answers it.
    Add(u64),
    Refuse,
    /// Adds one in so many entries and a last one.
    InParts(usize),
    /// Adds one if this row is there; what becomes of it if not.
    IfThere(u8, Missed),
    Unreadable,
}

struct Sum {
    place: Place,
    rows: Arc<dyn Rows>,
    position: Index,
    sum: u64,
    begun: bool,
    /// Entries of upkeep that are left to do.
    litter: usize,
    parts: usize,
}

#[derive(Clone)]
struct Entry {
    sum: u64,
    added: u64,
    requires: Vec<RowKey>,
    /// For each command what becomes of it if its row is missing.
    missed: Vec<Missed>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Commands,
    Part,
    Last,
    Upkeep,
}

fn sum_key(place: &Place) -> RowKey {
    RowKey::new(place.mailbox, Table::Counters, [])
}

fn row(place: &Place, name: u8) -> RowKey {
    RowKey::new(place.mailbox, Table::Contents, [name])
}

impl Sum {
    fn load(rows: Arc<dyn Rows>, place: Place) -> Self {
        let kept = rows.get(REPLICA, &sum_key(&place)).unwrap();
        let sum = kept.as_ref().map_or(0, |row| u64::from_be_bytes(row.as_ref().try_into().unwrap()));
        let position = Index(0);
        Sum { place, rows, position, sum, begun: kept.is_some(), litter: 0, parts: 0 }
    }

    fn entry(&self, kind: Kind) -> Entry {
        Entry { sum: self.sum, added: 0, requires: Vec::new(), missed: Vec::new(), kind }
    }
}

impl Engine for Sum {
    type Command = Command;
    type Answer = u64;
    type Refusal = ();
    type Entry = Entry;
    type Event = u64;
    type Error = StoreError;

    fn place(&self) -> &Place {
        &self.place
    }

    fn rows(&self) -> &dyn Rows {
        self.rows.as_ref()
    }

    fn position(&self) -> Index {
        self.position
    }

    fn command_bytes(_: &Command) -> usize {
        100
    }

    fn id_is_taken(&self) {}

    fn seal_result(&self, _: &mut Env, _: CommandId, _: Option<RequestDigest>, result: &Result<u64, ()>) -> Bytes {
        result.map_or(Bytes::new(), |sum| sum.to_be_bytes().to_vec().into())
    }

    fn open_result(
        &self,
        _: CommandId,
        sealed: &Bytes,
    ) -> Result<(Option<RequestDigest>, Result<u64, ()>), StoreError> {
        Ok((None, sealed.as_ref().try_into().map(u64::from_be_bytes).map_err(drop)))
    }

    fn must_begin(&self) -> bool {
        !self.begun
    }

    fn is_idle(&self) -> bool {
        self.litter == 0
    }

    fn upkeep(&mut self, _: &mut Env) -> Option<Entry> {
        (self.litter > 0).then(|| self.entry(Kind::Upkeep))
    }

    fn begin(&mut self, _: &mut Env) -> Entry {
        self.entry(Kind::Commands)
    }

    fn decide(&mut self, _: &mut Env, entry: &mut Entry, queued: &Queued<Command>) -> Effect<u64, (), StoreError> {
        let mut missed = Missed::Again;
        let add = match &queued.command {
            Command::Add(n) => *n,
            Command::IfThere(..) if queued.damaged => return Effect::Decided(Err(())),
            Command::IfThere(name, then) => {
                entry.requires.push(row(&self.place, *name));
                missed = *then;
                1
            }
            Command::InParts(_) if !entry.missed.is_empty() => return Effect::NoRoom,
            Command::InParts(parts) => {
                self.parts = *parts;
                return Effect::Parts;
            }
            Command::Refuse => {
                entry.missed.push(missed);
                return Effect::Decided(Err(()));
            }
            Command::Unreadable => return Effect::Unreadable(StoreError::damaged("a row", "as the test wants")),
        };
        if !entry.missed.is_empty() && entry.added + add > ENTRY_MAX {
            return Effect::NoRoom;
        }
        entry.missed.push(missed);
        entry.added += add;
        entry.sum += add;
        Effect::Decided(Ok(entry.sum))
    }

    fn next_part(&mut self, _: &mut Env) -> Part<Entry, u64, ()> {
        if self.parts > 0 {
            return Part::Inner(self.entry(Kind::Part));
        }
        let mut last = self.entry(Kind::Last);
        last.sum += 1;
        let sum = last.sum;
        Part::Last(last, Ok(sum))
    }

    fn close(&mut self, _: &mut Env, entry: &mut Entry) -> (Vec<RowKey>, RowBatch) {
        let mut batch = RowBatch::default();
        batch.put(sum_key(&self.place), entry.sum.to_be_bytes().to_vec());
        (entry.requires.clone(), batch)
    }

    fn accepted(&mut self, index: Index, entry: Entry) -> Vec<u64> {
        self.position = index;
        self.begun = true;
        match entry.kind {
            Kind::Part => self.parts -= 1,
            Kind::Upkeep => self.litter -= 1,
            Kind::Commands | Kind::Last => {}
        }
        self.sum = entry.sum;
        vec![entry.sum]
    }

    fn missing(&mut self, entry: Entry, commands: usize) -> Vec<Missed> {
        match entry.kind {
            Kind::Commands => entry.missed,
            Kind::Part | Kind::Last | Kind::Upkeep => vec![Missed::Again; commands],
        }
    }
}

struct Sums;

impl Subject for Sums {
    type Engine = Sum;

    fn first_rows(&mut self, _: &mut Env, _: &Place) -> RowBatch {
        RowBatch::default()
    }

    fn load(&self, rows: Arc<dyn Rows>, place: Place) -> Sum {
        Sum::load(rows, place)
    }

    fn accepted(&self, _: &mut Env, _: usize) -> Command {
        Command::Add(1)
    }

    fn refused(&self) -> Command {
        Command::Refuse
    }

    fn carried_out(&self, rows: &MemoryRows, place: &Place) -> usize {
        Sum::load(Arc::new(rows.clone()), *place).sum as usize
    }
}

fn bench() -> Bench<Sums> {
    Bench::new(Sums, MAILBOX, 9)
}

fn submit(bench: &mut Bench<Sums>, deciding: &mut Deciding<Sum>, session: u64, command: Command) -> CommandId {
    let id = bench.env.command_id();
    assert!(matches!(deciding.submit(SessionNumber(session), id, 0, command), Submitted::Queued));
    id
}

/// The answers of the next entry.
fn step(bench: &mut Bench<Sums>, deciding: &mut Deciding<Sum>) -> Vec<(CommandId, Result<u64, ()>)> {
    let Some(proposal) = deciding.next_entry(&mut bench.env) else { return Vec::new() };
    let (index, verdict) = bench.apply(proposal);
    deciding.applied(index, verdict).answers.into_iter().map(|(id, result, _)| (id, result)).collect()
}

#[test]
fn an_owner_of_a_sum_keeps_to_every_rule() {
    check(|| Sums, MAILBOX);
}

#[test]
fn each_command_is_decided_on_the_effects_of_those_before_it() {
    let (mut bench, results) = (bench(), [Ok(3), Err(()), Ok(7), Ok(12)]);
    let mut deciding = bench.load();
    for command in [Command::Add(3), Command::Refuse, Command::Add(4), Command::Add(5)] {
        submit(&mut bench, &mut deciding, 1, command);
    }
    let answers = step(&mut bench, &mut deciding);
    assert_eq!(answers.into_iter().map(|a| a.1).collect::<Vec<_>>(), results);
}

#[test]
fn what_has_no_room_waits_for_the_next_entry_and_is_decided_there_first() {
    let mut bench = bench();
    let mut deciding = bench.load();
    let ids: Vec<CommandId> = [(1, 900), (2, 200), (3, 50)]
        .map(|(session, n)| submit(&mut bench, &mut deciding, session, Command::Add(n)))
        .to_vec();
    assert_eq!(step(&mut bench, &mut deciding), [(ids[0], Ok(900))]);
    assert_eq!(step(&mut bench, &mut deciding), [(ids[1], Ok(1_100)), (ids[2], Ok(1_150))]);
}

#[test]
fn between_the_parts_of_a_change_nothing_else_is_decided() {
    let mut bench = bench();
    let mut deciding = bench.load();
    let before = submit(&mut bench, &mut deciding, 1, Command::Add(1));
    let parts = submit(&mut bench, &mut deciding, 1, Command::InParts(2));
    assert_eq!(step(&mut bench, &mut deciding), [(before, Ok(1))], "it shares no entry");
    assert_eq!(step(&mut bench, &mut deciding), []);
    let later = submit(&mut bench, &mut deciding, 2, Command::Add(1));
    assert!(matches!(deciding.submit(SessionNumber(1), parts, 1, Command::InParts(2)), Submitted::Joined));
    // A part that was never appended is proposed again.
    deciding.next_entry(&mut bench.env).unwrap();
    deciding.dropped();
    assert_eq!(step(&mut bench, &mut deciding), []);
    deciding.next_entry(&mut bench.env).unwrap();
    deciding.dropped();
    assert!(!deciding.is_idle());
    assert_eq!(step(&mut bench, &mut deciding), [(parts, Ok(2))]);
    assert_eq!(step(&mut bench, &mut deciding), [(later, Ok(3))]);
    assert!(deciding.is_idle());
    // One whose part was not applied is decided again from the beginning, before what waits.
    let parts = submit(&mut bench, &mut deciding, 1, Command::InParts(1));
    deciding.next_entry(&mut bench.env).unwrap();
    let later = submit(&mut bench, &mut deciding, 2, Command::Add(1));
    assert!(deciding.applied(Index(1_000), Verdict::Missing).answers.is_empty());
    assert_eq!(step(&mut bench, &mut deciding), []);
    assert_eq!(step(&mut bench, &mut deciding), [(parts, Ok(4))]);
    assert_eq!(step(&mut bench, &mut deciding), [(later, Ok(5))]);
}

#[test]
fn of_an_entry_with_a_missing_row_each_command_goes_its_own_way() {
    let mut bench = bench();
    let mut deciding = bench.load();
    let commands = [
        Command::Add(1),
        Command::IfThere(1, Missed::Lost),
        Command::IfThere(2, Missed::Damaged),
        Command::IfThere(3, Missed::Lost),
        Command::Add(1),
    ];
    let ids = commands.clone().map(|command| submit(&mut bench, &mut deciding, 1, command));
    let proposal = deciding.next_entry(&mut bench.env).unwrap();
    let (index, verdict) = bench.apply(proposal);
    assert_eq!(verdict, Verdict::Missing);
    let outcome = deciding.applied(index, verdict);
    assert!(outcome.answers.is_empty() && outcome.lost == [ids[1], ids[3]], "they are told in their order");
    assert_eq!(step(&mut bench, &mut deciding), [(ids[0], Ok(1)), (ids[2], Err(())), (ids[4], Ok(2))]);
    // Nothing is recorded of what was lost: it comes again, and finds its row.
    let mut batch = RowBatch::default();
    batch.put(row(&bench.place, 1), b"there".to_vec());
    bench.write(batch);
    let again = deciding.submit(SessionNumber(1), ids[1], 1, commands[1].clone());
    assert!(matches!(again, Submitted::Queued), "{again:?}");
    assert_eq!(step(&mut bench, &mut deciding), [(ids[1], Ok(3))]);
}

/// An owner of what the bench has.
fn loaded(bench: &mut Bench<Sums>) -> (LogOwner<Sum, u32>, Vec<StepOf<Sum, u32>>) {
    let (mut owner, mut out) = (LogOwner::new(), Vec::new());
    bench.load();
    let engine = bench.engine();
    owner.loaded(&mut bench.env, Ok(engine), &mut out);
    (owner, out)
}

fn ask(
    owner: &mut LogOwner<Sum, u32>,
    bench: &mut Bench<Sums>,
    out: &mut Vec<StepOf<Sum, u32>>,
    from: u32,
    command: Command,
) -> CommandId {
    let id = bench.env.command_id();
    owner.ask(&mut bench.env, Ask { from, turn: SessionNumber(1), id, attempt: 0, command }, out);
    id
}

#[test]
fn what_can_not_be_read_is_told_of_and_not_recorded_and_the_rest_is_done() {
    let mut bench = bench();
    let (mut owner, mut out) = loaded(&mut bench);
    let alone = ask(&mut owner, &mut bench, &mut out, 1, Command::Unreadable);
    let [Step::Unreadable { command, .. }, Step::Own(Tell::Answer { to: 1, result: Err(Unanswered::Unreadable), .. })] =
        out.as_slice()
    else {
        panic!("{} steps", out.len())
    };
    assert_eq!(*command, alone);
    out.clear();
    ask(&mut owner, &mut bench, &mut out, 2, Command::Add(1));
    ask(&mut owner, &mut bench, &mut out, 3, Command::Unreadable);
    ask(&mut owner, &mut bench, &mut out, 4, Command::Add(1));
    let Some(Step::Propose(proposal)) = out.pop() else { panic!("nothing is proposed") };
    let (index, verdict) = bench.apply(proposal);
    owner.decided(&mut bench.env, ProposalOutcome::Applied { index, verdict }, &mut out);
    let told: Vec<u32> = out
        .drain(..)
        .filter_map(|step| match step {
            Step::Own(Tell::Answer { to, .. } | Tell::Kept { to, .. }) => Some(to),
            Step::Propose(proposal) => {
                bench.apply(proposal);
                None
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [2, 3]);
    assert_eq!(Sums.carried_out(&bench.rows, &bench.place), 2);
}

#[test]
fn while_other_regions_do_not_confirm_what_waits_is_refused_and_what_is_in_flight_is_not() {
    let mut bench = bench();
    let (mut owner, mut out) = loaded(&mut bench);
    let told = |out: &mut Vec<StepOf<Sum, u32>>| -> Vec<(u32, Result<bool, Unanswered>)> {
        let told = out.drain(..).filter_map(|step| match step {
            Step::Own(Tell::Answer { to, result, .. }) => Some((to, result.map(|kept| kept.is_ok()))),
            Step::Own(Tell::Kept { to, result, .. }) => Some((to, Ok(result.is_ok()))),
            _ => None,
        });
        told.collect()
    };
    let first = ask(&mut owner, &mut bench, &mut out, 1, Command::Add(1));
    let Some(Step::Propose(in_flight)) = out.pop() else { panic!("nothing is proposed") };
    ask(&mut owner, &mut bench, &mut out, 2, Command::Add(1));
    owner.set_unconfirmed(true, &mut out);
    assert_eq!(told(&mut out), [(2, Err(Unanswered::NotConfirmed))]);
    ask(&mut owner, &mut bench, &mut out, 3, Command::Add(1));
    assert_eq!(told(&mut out), [(3, Err(Unanswered::NotConfirmed))]);
    // Who asks once more for what is in flight joins it.
    let again = Ask { from: 4, turn: SessionNumber(1), id: first, attempt: 1, command: Command::Add(1) };
    owner.ask(&mut bench.env, again, &mut out);
    assert_eq!(told(&mut out), []);
    let (index, verdict) = bench.apply(in_flight);
    owner.decided(&mut bench.env, ProposalOutcome::Applied { index, verdict }, &mut out);
    assert_eq!(told(&mut out), [(1, Ok(true)), (4, Ok(true))]);
    owner.set_unconfirmed(false, &mut out);
    // The log may say it before anybody told this owner.
    ask(&mut owner, &mut bench, &mut out, 5, Command::Add(1));
    ask(&mut owner, &mut bench, &mut out, 6, Command::Add(1));
    owner.decided(&mut bench.env, ProposalOutcome::NotConfirmed, &mut out);
    let refused = [(5, Err(Unanswered::NotConfirmed)), (6, Err(Unanswered::NotConfirmed))];
    assert_eq!(told(&mut out), refused);
    assert!(owner.is_idle());
    assert_eq!(Sums.carried_out(&bench.rows, &bench.place), 1);
}

#[test]
fn upkeep_waits_for_commands_but_not_for_ever() {
    let mut bench = bench();
    let mut deciding = bench.load();
    deciding.engine_mut().litter = 2;
    for _ in 0..600 {
        submit(&mut bench, &mut deciding, 1, Command::Refuse);
    }
    let entries: Vec<usize> = (0..10).map(|_| step(&mut bench, &mut deciding).len()).collect();
    let upkeep = entries.iter().filter(|answers| **answers == 0).count();
    assert!(upkeep == 1 && entries[0] > 0, "one entry in some is upkeep: {entries:?}");
    while !step(&mut bench, &mut deciding).is_empty() {}
    assert!(deciding.is_idle());
}

#[test]
#[should_panic(expected = "applied positions rise")]
fn a_position_that_falls_is_a_bug_that_stops() {
    let mut bench = bench();
    let mut deciding = bench.load();
    submit(&mut bench, &mut deciding, 1, Command::Add(1));
    step(&mut bench, &mut deciding);
    submit(&mut bench, &mut deciding, 1, Command::Add(1));
    deciding.next_entry(&mut bench.env).unwrap();
    deciding.applied(Index(1), Verdict::Accepted);
}

#[test]
#[should_panic(expected = "a verdict without an entry in flight")]
fn a_verdict_that_nobody_waits_for_is_a_bug_that_stops() {
    bench().load().applied(Index(1), Verdict::Accepted);
}
