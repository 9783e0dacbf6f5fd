//! Commands that a client may ask once more because it heard no answer: they are done once within an hour, as long as
//! nobody has heard the first one's answer and what that made is there. Whoever has heard it wants the same twice.

use std::collections::BTreeMap;

use mailraft_mailbox::api::Answer;

use crate::deliveries::{Earlier, UNDER_WAY_MAX};
use crate::history::Op;
use crate::journal::Logged;
use crate::model::{Effect, Model, Number};
use crate::names::INBOX;
use crate::operation::{MailboxHistory, Operation, Outcome};
use crate::pending::Pending;
use crate::report::{Bounds, Report, Rule};

/// A session knows so many of its own latest answers.
const OWN_MAX: usize = 64;

/// The first of each, by what many of them have in common: a message, or a folder that is copied from.
#[derive(Debug)]
pub(crate) struct Repeats {
    bounds: Bounds,
    firsts: BTreeMap<u64, Vec<First>>,
    known: usize,
}

/// A command that was done, and may be asked again.
#[derive(Clone, Debug)]
pub(crate) struct First {
    operation: usize,
    answer: Answer,
    target: Option<Number>,
    /// Whose answer it was last: its own or a repeat's.
    latest: usize,
    /// In one entry were several of its repeats, so that nobody told which is the latest.
    ambiguous: bool,
    /// Another message like it was stored: which of them is there is not told.
    alone: bool,
}

impl First {
    /// Which operation it is in the history.
    pub fn operation(&self) -> usize {
        self.operation
    }

    /// Whether what it made is there, for who asks the same again, whatever that one made.
    pub fn is_there(&self, model: &Model, again: &Operation) -> bool {
        let (op, inbox) = (&again.op, model.named(INBOX));
        let own = match again.outcome() {
            Outcome::Took(_, Ok(answer)) if answer != self.answer => Some(answer),
            Outcome::Took(..) | Outcome::NotDone | Outcome::Unknown => None,
        };
        let own = |(number, at): (Number, u32)| {
            Some(number) == inbox && matches!(own, Some(Answer::Stored { uid, .. }) if uid == at)
        };
        let held = |uids: &[u32]| {
            let folder = self.target.and_then(|number| model.folder(number));
            folder.is_some_and(|folder| uids.iter().all(|uid| folder.messages.contains_key(uid)))
        };
        // Nothing came since that it would take too.
        let all = |from: &[u32], to: &[u32]| {
            let Op::Copy { folder, uids, .. } = op else { return true };
            let Ok((source, folder)) = model.opened(*folder) else { return true };
            let is_copy = |uid: &u32| Some(source) == self.target && to.contains(uid);
            folder.within(uids).all(|(uid, _)| from.contains(&uid) || is_copy(&uid))
        };
        match (op, &self.answer) {
            (Op::Deliver { marker, .. }, _) => model.places_of(*marker).any(|place| !own(place)),
            (_, Answer::Stored { uid, .. }) => target(model, op) == self.target && held(&[*uid]),
            (_, Answer::Copied { from, to, .. }) => target(model, op) == self.target && held(to) && all(from, to),
            _ => false,
        }
    }
}

impl Repeats {
    /// Of a mailbox of which nothing was asked.
    pub fn new(bounds: Bounds) -> Self {
        Repeats { bounds, firsts: BTreeMap::new(), known: 0 }
    }

    /// The one that an operation asks for again.
    pub fn first_of(&self, history: &MailboxHistory, model: &Model, op: &Op) -> Option<&First> {
        let alike = self.firsts.get(&common(op)?)?;
        let asked = |first: &First| &history.operations[first.operation].op;
        let exact = alike.iter().find(|first| asked(first) == op);
        // Or for the same folder, which had another name then.
        let target = target(model, op);
        let renamed = |first: &&First| is_alike(asked(first), op) && target.is_some() && first.target == target;
        exact.or_else(|| alike.iter().find(renamed))
    }

    /// One operation in the log's order, after all that came before it; `new` if it changed something there. `earlier` is
    /// what became of what its first made, and `unknown` whether one like it may have been done of which nobody told.
    pub fn check(
        &mut self,
        history: &MailboxHistory,
        model: &Model,
        (operation, new): (usize, bool),
        (earlier, unknown): (Earlier, bool),
        report: &mut Report,
    ) {
        let of = &history.operations[operation];
        let Some(common) = common(&of.op) else { return };
        let Outcome::Took(_, Ok(answer)) = of.outcome() else { return };
        if matches!(&answer, Answer::Copied { to, .. } if to.is_empty()) {
            return;
        }
        let first = self.first_of(history, model, &of.op).cloned();
        let ended = of.ended_at().unwrap_or(of.asked);
        let told = || format!("mailbox {} command {}: {:?}", history.mailbox, of.id, of.op);
        let Some(first) = first else {
            report.check(Rule::ExactlyOnce, ended, new || unknown, || {
                format!("{}: answered {answer:?}, which is not its own", told())
            });
            if new {
                self.remember(history, operation, answer, model, common);
            }
            return;
        };
        if new {
            let did = &history.operations[first.operation];
            let decided = if of.position.is_some() { ended } else { ended + UNDER_WAY_MAX };
            let within = decided.saturating_sub(did.asked) <= self.bounds.repeat_kept;
            let heard = first.ambiguous || may_be_heard(history, first.latest, of);
            let there = first.alone && earlier == Earlier::Stays;
            let repeats = within && !heard && there && self.known <= self.bounds.repeats_max;
            report.check(Rule::ExactlyOnce, ended, !repeats, || {
                format!("{}: done again, and nobody had heard {:?}", told(), first.answer)
            });
            return self.remember(history, operation, answer, model, common);
        }
        report.check(Rule::ExactlyOnce, ended, first.answer == answer || unknown, || {
            format!("{}: answered {answer:?}, which is neither its own nor its first's", told())
        });
        if first.answer != answer {
            return;
        }
        let known_heard = !first.ambiguous && is_heard(history, first.latest, of);
        report.check(Rule::ExactlyOnce, ended, !known_heard, || {
            format!("{}: not done, though {answer:?} had been heard", told())
        });
        report.check(Rule::ExactlyOnce, ended, earlier != Earlier::Gone, || {
            format!("{}: not done, though what {answer:?} had made was gone", told())
        });
        let did = &history.operations[first.operation];
        let done = did.ended_at().filter(|_| did.position.is_some()).unwrap_or(did.asked + UNDER_WAY_MAX);
        let late = of.asked.saturating_sub(done) > self.bounds.repeat_forgotten;
        report.check(Rule::ExactlyOnce, ended, !late, || format!("{}: not done, long after {answer:?}", told()));
        let place = |operation: &Operation| match operation.outcome() {
            Outcome::Took(at, _) => at,
            Outcome::NotDone | Outcome::Unknown => None,
        };
        // Which of two in one entry came first is known only if an event named the one that did it.
        let did_it = first.latest == first.operation && history.operations[first.operation].hint.is_some();
        let latest = place(&history.operations[first.latest]);
        let same_entry = latest.is_some() && latest == place(of) && !did_it;
        for known in self.firsts.get_mut(&common).into_iter().flatten() {
            if known.operation == first.operation {
                (known.latest, known.ambiguous) = (operation, same_entry);
            }
        }
    }

    /// This was done. From now on repeats are told its answer.
    fn remember(&mut self, history: &MailboxHistory, operation: usize, answer: Answer, model: &Model, common: u64) {
        let op = &history.operations[operation].op;
        let alike = self.firsts.entry(common).or_default();
        let before = alike.len();
        alike.retain(|first| history.operations[first.operation].op != *op);
        let alone = alike.len() == before || !matches!(op, Op::Deliver { .. });
        self.known += usize::from(alike.len() == before);
        let target = target(model, op);
        alike.push(First { operation, answer, target, latest: operation, ambiguous: false, alone });
    }
}

/// Marks those that were answered as one that came before: they changed nothing. `changes` are in the log's order.
pub(crate) fn mark<'p>(history: &MailboxHistory, changes: impl Iterator<Item = &'p mut Vec<Pending>>) {
    let mut answered: BTreeMap<u64, Vec<(usize, Answer)>> = BTreeMap::new();
    for pending in changes {
        // Of several in one entry, the one that events name was done.
        let mut order: Vec<&mut Pending> = pending.iter_mut().collect();
        order.sort_by_key(|p| history.operations[p.operation].hint.is_none());
        for p in order {
            let op = &history.operations[p.operation].op;
            let (Some(common), Some(Ok(answer))) = (common(op), &p.result) else { continue };
            if matches!(answer, Answer::Copied { to, .. } if to.is_empty()) {
                continue;
            }
            let alike = answered.entry(common).or_default();
            if alike.iter().any(|(other, same)| same == answer && is_alike(&history.operations[*other].op, op)) {
                (p.repeats, p.changes) = (true, false);
            } else {
                alike.push((p.operation, answer.clone()));
            }
        }
    }
}

/// Whether a command is answered with the places of messages that the same one put there, of which nobody had an answer.
pub(crate) fn repeats_one_of<'l>(
    history: &MailboxHistory,
    operation: usize,
    mut logged: impl Iterator<Item = &'l Logged>,
) -> bool {
    let of = &history.operations[operation];
    let Outcome::Took(_, Ok(answer)) = of.outcome() else { return false };
    let uids: &[u32] = match &answer {
        Answer::Stored { uid, .. } => std::slice::from_ref(uid),
        Answer::Copied { to, .. } => to,
        _ => return false,
    };
    let is_alike = |logged: &Logged| {
        let other = &history.operations[logged.operation];
        logged.operation != operation && other.op == of.op && matches!(other.outcome(), Outcome::Unknown)
    };
    let put = |logged: &Logged| match &logged.effect {
        Effect::Added(messages) => messages.iter().map(|(uid, _)| *uid).eq(uids.iter().copied()),
        Effect::Flagged(_) | Effect::Expunged { .. } | Effect::Deleted { .. } | Effect::Nothing => false,
    };
    !uids.is_empty() && logged.any(|logged| is_alike(logged) && put(logged))
}

/// What an operation that is done once has in common with others. None for any other.
fn common(op: &Op) -> Option<u64> {
    match op {
        Op::Append { marker, .. } | Op::Deliver { marker, deduplicate: false } => Some(*marker),
        Op::Copy { folder, .. } => Some(u64::from(folder.0)),
        _ => None,
    }
}

/// Whether both ask for the same, but perhaps for the name of the folder.
fn is_alike(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (
            Op::Append { marker, flags, date, folder: _ },
            Op::Append { marker: its, flags: its_flags, date: its_date, folder: _ },
        ) => (marker, flags, date) == (its, its_flags, its_date),
        (Op::Copy { folder, uids, to: _ }, Op::Copy { folder: its, uids: its_uids, to: _ }) => {
            (folder, uids) == (its, its_uids)
        }
        _ => one == other,
    }
}

fn target(model: &Model, op: &Op) -> Option<Number> {
    match op {
        Op::Append { folder, .. } => model.named(folder),
        Op::Copy { to, .. } => model.named(to),
        _ => None,
    }
}

/// Whether the mailbox knew, when it decided `of`, that the answer to `answered` had been heard.
fn is_heard(history: &MailboxHistory, answered: usize, of: &Operation) -> bool {
    let id = history.operations[answered].id;
    let tells = |other: &&Operation| other.hears.contains(&id) && matches!(other.outcome(), Outcome::Took(_, Ok(_)));
    let before = |other: &Operation| other.position.zip(of.position).is_some_and(|(told, now)| told < now);
    history.operations.iter().filter(tells).any(before) || has_answer(history, answered, of)
}

/// Whether a session asks for what it has the answer of. One that delivers forgets its answers when it turns to another
/// mailbox, and back.
fn has_answer(history: &MailboxHistory, answered: usize, of: &Operation) -> bool {
    let done = |other: &Operation| match other.ended_at() {
        Some(at) => other.op.is_once() && at <= of.asked && matches!(other.answered(), Some(Ok(_))),
        None => false,
    };
    let by = &history.operations[answered];
    if by.session != of.session || matches!(of.op, Op::Deliver { .. }) || !done(by) {
        return false;
    }
    let since = by.ended_at();
    let later = |other: &&Operation| other.session == of.session && done(other) && other.ended_at() > since;
    history.operations.iter().filter(later).count() < OWN_MAX
}

/// Whether the mailbox may have known that the answer to `answered` had been heard.
fn may_be_heard(history: &MailboxHistory, answered: usize, of: &Operation) -> bool {
    let by = &history.operations[answered];
    let told = history.told_heard.contains(&by.id) || history.operations.iter().any(|o| o.hears.contains(&by.id));
    told || (by.session == of.session && by.answered().is_some())
}
