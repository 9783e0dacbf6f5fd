//! Replays one mailbox in the order of its log, and compares every answer and read with the model.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{Answer, FolderId, Refusal};

use crate::answers::{Verdict, adopt, compare, modseq_of};
use crate::history::{At, Micros, Op};
use crate::journal::{Entry, Journal, Logged};
use crate::model::{Decision, Model, Number, Step, Told};
use crate::operation::{MailboxHistory, Outcome};
use crate::reads::{Lesson, Seen, Shown, subscribes};
use crate::report::{Report, Rule};

/// How long a repeated delivery is answered with the first one's answer, in microseconds.
const DELIVERY_KEPT_MICROS: Micros = 24 * 3_600 * 1_000_000;
/// The most deliveries that a mailbox remembers.
const DELIVERIES_MAX: usize = mailraft_mailbox::DELIVERIES_MAX;
/// The most operations of unknown outcome that are tried where something does not fit.
const TRIED_MAX: usize = 8;
/// The most orders of one entry that are tried.
const ORDERS_MAX: u32 = 64;

/// A changing operation that is to find its place in an entry.
#[derive(Clone, Debug)]
struct Pending {
    operation: usize,
    /// None: nobody told its result, or whether it was carried out.
    result: Option<Result<Answer, Refusal>>,
    /// Its last MODSEQ.
    modseq: Option<u64>,
    /// The MODSEQ is an event's word, not its answer's.
    hint: bool,
    /// Whether its result says that it changed something.
    changes: bool,
}

/// A delivery as it is remembered.
struct Delivered {
    asked: Micros,
    uid_validity: u32,
    uid: u32,
    modseq: u64,
}

/// What a read could not find, to be excused by a later removal that was asked before the read's end.
struct Awaited {
    ended: Micros,
    rule: Rule,
    what: String,
}

struct Replay<'a> {
    history: &'a MailboxHistory,
    report: &'a mut Report,
    model: Model,
    journal: Journal,
    /// Changes of the present entry.
    fresh: Vec<Logged>,
    /// Operations of unknown outcome.
    unknown: Vec<Pending>,
    deliveries: BTreeMap<u64, Delivered>,
    stored: BTreeMap<u64, (Number, u32)>,
    awaited: BTreeMap<(Number, u32), Vec<Awaited>>,
    /// Names that are subscribed to or not, nobody told which.
    maybe_subscribed: BTreeSet<String>,
    /// Those of them for which that stays so.
    open_subscriptions: BTreeSet<String>,
    validities: BTreeMap<FolderId, Vec<u32>>,
    /// What was told once is not told again.
    told: BTreeSet<(Rule, Number, u32, usize)>,
    /// The present entry's order was ambiguous.
    unsure: bool,
    orders: u32,
}

/// Replays all of it.
pub(crate) fn replay(history: &MailboxHistory, report: &mut Report) -> Journal {
    let positions = history.operations.iter().filter_map(|o| o.position);
    let incarnation = positions.map(|at| at.incarnation).min().unwrap_or(1);
    let model = Model::new(incarnation);
    let mut replay = Replay {
        history,
        report,
        journal: Journal::new(&model),
        model,
        fresh: Vec::new(),
        unknown: Vec::new(),
        deliveries: BTreeMap::new(),
        stored: BTreeMap::new(),
        awaited: BTreeMap::new(),
        maybe_subscribed: BTreeSet::new(),
        open_subscriptions: BTreeSet::new(),
        validities: BTreeMap::new(),
        told: BTreeSet::new(),
        unsure: false,
        orders: 0,
    };
    replay.run();
    replay.journal
}

impl Replay<'_> {
    fn run(&mut self) {
        for selected in &self.history.opened {
            self.validities.entry(selected.folder).or_default().push(selected.uid_validity);
        }
        let (mut changes, mut reads) = (BTreeMap::<At, Vec<Pending>>::new(), Vec::new());
        for (operation, of) in self.history.operations.iter().enumerate() {
            if of.op.is_read() {
                match (of.position, &of.ended) {
                    (Some(at), Some(_)) => reads.push((at, operation)),
                    (None, Some((_, ended))) if matches!(ended, crate::history::Ended::Done(_)) => {
                        self.report.skipped += u64::from(!matches!(of.op, Op::Sync | Op::Unselect));
                    }
                    (_, Some(_) | None) => {}
                }
                continue;
            }
            match of.outcome() {
                Outcome::Took(Some(at), result) => {
                    changes.entry(at).or_default().push(self.pending(operation, Some(result)));
                }
                Outcome::Took(None, result) => self.leave_open(operation, Some(result)),
                Outcome::Unknown => self.leave_open(operation, None),
                Outcome::NotDone => {}
            }
        }
        reads.sort_by_key(|(at, _)| *at);
        let mut reads = reads.into_iter().peekable();
        for (at, pending) in changes {
            while let Some((_, operation)) = reads.next_if(|(shown, _)| *shown < at) {
                self.read(operation);
            }
            self.entry(at, pending);
        }
        for (_, operation) in reads {
            self.read(operation);
        }
        for ((folder, uid), awaited) in std::mem::take(&mut self.awaited) {
            for one in awaited {
                self.tell(one.rule, one.ended, (folder, uid, 0), one.what);
            }
        }
        for selected in &self.history.opened {
            if let Some(number) = self.model.of_validity(selected.uid_validity) {
                self.journal.learn_folder(selected.folder, selected.uid_validity, number);
            }
        }
        self.journal.doubtful = self.unknown.iter().map(|p| self.history.operations[p.operation].id).collect();
    }

    fn pending(&self, operation: usize, result: Option<Result<Answer, Refusal>>) -> Pending {
        let hint = self.history.operations[operation].hint;
        let told = result.as_ref().and_then(modseq_of);
        let changes = match &result {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(Answer::Flagged { modseq, .. } | Answer::Expunged { modseq, .. })) => modseq.is_some(),
            Some(Ok(Answer::Copied { from, .. })) => !from.is_empty(),
            Some(Ok(_)) => true,
        };
        Pending { operation, changes, modseq: told.or(hint), hint: told.is_none(), result }
    }

    fn leave_open(&mut self, operation: usize, result: Option<Result<Answer, Refusal>>) {
        if let Some((name, _)) = subscribes(&self.history.operations[operation].op) {
            self.maybe_subscribed.insert(name.clone());
            self.open_subscriptions.insert(name);
            return;
        }
        let pending = self.pending(operation, result);
        self.unknown.push(pending);
    }

    /// Applies one entry: its commands in an order in which all their answers are right.
    fn entry(&mut self, at: At, pending: Vec<Pending>) {
        self.model.incarnation = at.incarnation;
        self.journal.entries.push(Entry { at: Some(at), modseq: self.model.modseq() });
        self.model.entry = self.journal.last_entry();
        self.unsure = false;
        self.orders = ORDERS_MAX;
        let operations: Vec<usize> = pending.iter().map(|p| p.operation).collect();
        for p in &pending {
            self.learn_folder_of(&self.history.operations[p.operation].op);
        }
        if let Err(left) = self.order(pending) {
            self.force(left);
        }
        self.settle();
        let mut subscribed = BTreeMap::new();
        for operation in operations {
            self.delivered(operation);
            if let Some((name, on)) = subscribes(&self.history.operations[operation].op) {
                if !self.open_subscriptions.contains(&name) {
                    self.maybe_subscribed.remove(&name);
                }
                if subscribed.insert(name.clone(), on).is_some_and(|other| other != on) {
                    self.maybe_subscribed.insert(name);
                }
            }
        }
    }

    /// Finds a place for each. Where several could be next it tries one after another. Those left are given
    /// back if there is none.
    fn order(&mut self, mut pending: Vec<Pending>) -> Result<(), Vec<Pending>> {
        loop {
            pending.retain(|p| !self.is_right_without_change(p));
            if pending.is_empty() {
                return Ok(());
            }
            let (choices, sure) = self.choices(&pending);
            self.unsure |= !sure;
            if let [choice] = choices.as_slice() {
                self.take(choice, &mut pending);
                continue;
            }
            for choice in &choices {
                if self.orders == 0 {
                    break;
                }
                self.orders -= 1;
                let before = (self.model.clone(), self.fresh.len(), self.unknown.clone());
                let mut rest = pending.clone();
                self.take(choice, &mut rest);
                if self.order(rest).is_ok() {
                    return Ok(());
                }
                self.fresh.truncate(before.1);
                (self.model, self.unknown) = (before.0, before.2);
            }
            if choices.is_empty() && pending.iter().any(|p| p.hint && p.modseq.is_some()) {
                // Perhaps it is the events that are wrong.
                pending.iter_mut().filter(|p| p.hint).for_each(|p| p.modseq = None);
                continue;
            }
            return Err(pending);
        }
    }

    /// Which may be next, and whether there is no doubt about it.
    fn choices(&self, pending: &[Pending]) -> (Vec<Pending>, bool) {
        let base = self.model.modseq();
        let cost = |d: &Decision| d.steps.iter().map(Step::cost).sum::<u64>();
        let fits = |p: &Pending| {
            let decision = self.decide(p);
            let right = p.result.as_ref().is_none_or(|r| self.verdict(p, &decision, r).is_right());
            (right && (p.result.is_some() || !decision.steps.is_empty())).then(|| cost(&decision))
        };
        let next = pending.iter().filter(|p| p.changes && p.modseq.is_some()).min_by_key(|p| p.modseq);
        let next = next.map(|p| (p, fits(p), p.modseq.unwrap_or_default()));
        let gap = match &next {
            Some((p, Some(cost), modseq)) if base + cost == *modseq => return (vec![(*p).clone()], true),
            Some((_, cost, modseq)) => modseq.saturating_sub(base + cost.unwrap_or(1)),
            None => u64::MAX,
        };
        let mut choices: Vec<(Pending, u64)> = Vec::new();
        for p in pending.iter().filter(|p| p.changes && p.modseq.is_none()) {
            choices.extend(fits(p).filter(|cost| *cost <= gap).map(|cost| (p.clone(), cost)));
        }
        if choices.is_empty() && gap > 0 {
            for p in self.open_before(pending).take(TRIED_MAX) {
                let Some(cost) = fits(p).filter(|cost| *cost <= gap) else { continue };
                match p.modseq {
                    Some(modseq) if base + cost == modseq => return (vec![p.clone()], true),
                    Some(_) => {}
                    None => choices.push((p.clone(), cost)),
                }
            }
        }
        let sure = match choices.as_slice() {
            [] => true,
            [(_, cost)] => next.is_none() || *cost == gap,
            _ => false,
        };
        let mut choices: Vec<Pending> = choices.into_iter().map(|(p, _)| p).collect();
        if !(sure && choices.len() == 1) {
            choices.extend(
                next.filter(|(_, fits, modseq)| fits.is_some_and(|c| base + c <= *modseq)).map(|n| n.0.clone()),
            );
        }
        (choices, sure)
    }

    /// Those of unknown outcome that were asked before one of these ended.
    fn open_before<'s>(&'s self, pending: &[Pending]) -> impl Iterator<Item = &'s Pending> + use<'s> {
        let operations = &self.history.operations;
        let end = pending.iter().map(|p| operations[p.operation].ended_at().unwrap_or(Micros::MAX)).max();
        self.unknown.iter().filter(move |p| end.is_none_or(|end| operations[p.operation].asked <= end))
    }

    fn decide(&self, p: &Pending) -> Decision {
        self.model.decide(&self.history.operations[p.operation].op)
    }

    /// How an answer compares. What depends on an order that nobody told can't be known.
    fn verdict(&self, p: &Pending, decision: &Decision, result: &Result<Answer, Refusal>) -> Verdict {
        let op = &self.history.operations[p.operation].op;
        match compare(&self.model, decision, result) {
            Verdict::Wrong(rule, why) => {
                let number = folder_of(op).and_then(|id| self.model.number_of(id));
                let unsure = number.and_then(|n| self.model.folder(n)).is_some_and(|f| f.unsure > 0);
                if unsure && matches!(rule, Rule::Flags | Rule::Atomic) {
                    Verdict::Unknowable
                } else {
                    Verdict::Wrong(rule, why)
                }
            }
            verdict => verdict,
        }
    }

    /// Whether a command that changed nothing is answered rightly as things are now.
    fn is_right_without_change(&mut self, p: &Pending) -> bool {
        let Some(result) = &p.result else { return false };
        if self.is_repeat(p) {
            return true;
        }
        if p.changes {
            return false;
        }
        let decision = self.decide(p);
        let right = match self.verdict(p, &decision, result) {
            Verdict::Right => decision.steps.is_empty(),
            Verdict::Unknowable => {
                self.report.skipped += 1;
                true
            }
            Verdict::Wrong(..) => false,
        };
        if right {
            self.report.held(rule_of(&self.history.operations[p.operation].op), 1);
        }
        right
    }

    /// Whether a delivery is answered with an earlier one's answer.
    fn is_repeat(&self, p: &Pending) -> bool {
        matches!(self.history.operations[p.operation].op, Op::Deliver { deduplicate: true, .. })
            && p.modseq.is_some_and(|modseq| modseq <= self.model.modseq())
    }

    /// Applies one whose answer is right.
    fn take(&mut self, p: &Pending, pending: &mut Vec<Pending>) {
        pending.retain(|other| other.operation != p.operation);
        self.unknown.retain(|other| other.operation != p.operation);
        let decision = self.decide(p);
        self.report.held(rule_of(&self.history.operations[p.operation].op), 1);
        self.apply(p, decision);
    }

    fn apply(&mut self, p: &Pending, decision: Decision) {
        let mut steps = decision.steps;
        if let Some(result) = &p.result {
            adopt(&mut steps, result);
            if let Ok(Answer::Stored { uid_validity, .. } | Answer::Copied { uid_validity, .. }) = result {
                for step in &steps {
                    if let Step::Add { folder, .. } = step
                        && self.model.fits_validity(*folder, *uid_validity).is_ok()
                    {
                        self.model.learn_validity(*folder, *uid_validity);
                    }
                }
            }
        }
        let cost: u64 = steps.iter().map(Step::cost).sum();
        if let Some(modseq) = p.modseq {
            self.model.skip_to(modseq.saturating_sub(cost));
        }
        let unsure = self.unsure && p.modseq.is_none();
        let origin = self.history.operations[p.operation].id;
        for step in steps {
            if let Some((folder, modseq, told)) = self.model.commit(step, unsure) {
                let entry = self.journal.last_entry();
                self.fresh.push(Logged { entry, operation: p.operation, origin, folder, modseq, unsure, told });
            }
        }
    }

    /// Tells what is wrong with those that fit nowhere, and goes on as they were answered.
    fn force(&mut self, mut left: Vec<Pending>) {
        left.sort_by_key(|p| (p.modseq.is_none(), p.modseq, self.history.operations[p.operation].asked));
        for p in left {
            if self.is_right_without_change(&p) {
                continue;
            }
            let of = &self.history.operations[p.operation];
            let decision = self.decide(&p);
            let Some(result) = &p.result else { continue };
            let at = of.ended_at().unwrap_or(of.asked);
            let place = self.journal.entries.last().and_then(|e| e.at).unwrap_or_default();
            let told = |why: &str| {
                format!("mailbox {} command {} at {place}: {:?}: {why}", self.history.mailbox, of.id, of.op)
            };
            match self.verdict(&p, &decision, result) {
                Verdict::Wrong(rule, _) if self.may_excuse(std::slice::from_ref(&p), rule) => self.report.skipped += 1,
                _ if self.unlearnt(&of.op) => self.report.skipped += 1,
                Verdict::Wrong(rule, why) => {
                    let what = told(&why);
                    self.report.check(rule, at, false, || what);
                }
                Verdict::Right if !p.changes => {
                    let what = told(&format!("it changes {:?}, answered {result:?}", decision.steps));
                    self.report.check(rule_of(&of.op), at, false, || what);
                }
                Verdict::Right | Verdict::Unknowable => {}
            }
            if p.changes {
                self.apply(&p, decision);
            }
        }
    }

    /// Whether something whose outcome nobody knows could be why this does not fit.
    fn may_excuse(&self, pending: &[Pending], rule: Rule) -> bool {
        self.open_before(pending).any(|p| may_cause(&self.history.operations[p.operation].op, rule))
    }

    /// Moves the entry's changes into the journal.
    fn settle(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        for change in &fresh {
            let of = &self.history.operations[change.operation];
            match (&change.told, &of.op) {
                (Told::Added(messages), Op::Deliver { marker, .. } | Op::Append { marker, .. }) => {
                    if let Some((uid, _)) = messages.first() {
                        self.stored.entry(*marker).or_insert((change.folder, *uid));
                    }
                }
                (Told::Expunged { uids, .. } | Told::Deleted { uids }, _) if !self.awaited.is_empty() => {
                    for uid in uids.iter() {
                        if let Some(awaited) = self.awaited.get_mut(&(change.folder, uid)) {
                            awaited.retain(|one| one.ended < of.asked);
                        }
                    }
                }
                (Told::Added(_) | Told::Flagged(_) | Told::Nothing, _)
                | (Told::Expunged { .. } | Told::Deleted { .. }, _) => {}
            }
        }
        self.journal.settle(&self.model, fresh);
    }

    /// A delivery that may be repeated: once within a day.
    fn delivered(&mut self, operation: usize) {
        let of = &self.history.operations[operation];
        let (Op::Deliver { marker, deduplicate: true }, Outcome::Took(_, Ok(answer))) = (&of.op, of.outcome()) else {
            return;
        };
        let Answer::Stored { uid_validity, uid, modseq } = answer else { return };
        let ended = of.ended_at().unwrap_or(of.asked);
        let new = self.journal.of_origin(of.id).next().is_some();
        let told = || format!("mailbox {} command {} of marker {marker}", self.history.mailbox, of.id);
        match self.deliveries.get(marker) {
            Some(first) if !new => {
                let same = (first.uid_validity, first.uid, first.modseq) == (uid_validity, uid, modseq);
                self.report.check(Rule::ExactlyOnce, ended, same, || {
                    format!("{}: repeated, and answered {answer:?}; first it was UID {}", told(), first.uid)
                });
                return;
            }
            Some(first) => {
                let within = ended.saturating_sub(first.asked) <= DELIVERY_KEPT_MICROS;
                let remembered = self.deliveries.len() <= DELIVERIES_MAX;
                self.report.check(Rule::ExactlyOnce, ended, !(within && remembered), || {
                    format!("{}: stored again as UID {uid} within a day, first as {}", told(), first.uid)
                });
            }
            None => {
                self.report.check(Rule::ExactlyOnce, ended, new, || {
                    format!("{}: answered {answer:?}, which is not its own", told())
                });
            }
        }
        self.deliveries.insert(*marker, Delivered { asked: of.asked, uid_validity, uid, modseq });
    }

    fn read(&mut self, operation: usize) {
        let of = &self.history.operations[operation];
        let Some((ended_at, ended)) = &of.ended else { return };
        self.learn_folder_of(&of.op);
        let mut seen = self.shown().compare(&of.op, ended, of.opened.as_ref());
        if !seen.found.is_empty()
            && self.unknown.iter().any(|p| self.history.operations[p.operation].asked <= *ended_at)
        {
            seen = self.explain(operation, seen);
        }
        self.report.skipped += seen.skipped;
        for (rule, comparisons) in seen.held {
            self.report.held(rule, comparisons);
        }
        let position = of.position.unwrap_or_default();
        for found in seen.found {
            let what = format!(
                "mailbox {} command {} at {position} by session {}: {}",
                self.history.mailbox, of.id, of.session, found.what
            );
            if found.unless_gone {
                let awaited = Awaited { ended: *ended_at, rule: found.rule, what };
                self.awaited.entry((found.folder, found.uid)).or_default().push(awaited);
            } else {
                let once = if found.folder == 0 { operation + 1 } else { 0 };
                self.tell(found.rule, *ended_at, (found.folder, found.uid, once), what);
            }
        }
        for lesson in seen.lessons {
            self.learn(lesson);
        }
        if let (Op::Select { folder }, Some(selected)) = (&of.op, of.selected())
            && let Some(number) = self.model.named(folder)
        {
            self.journal.learn_folder(selected.folder, selected.uid_validity, number);
        }
    }

    fn shown(&self) -> Shown<'_> {
        let maybe_subscribed = &self.maybe_subscribed;
        Shown { model: &self.model, journal: &self.journal, stored: &self.stored, maybe_subscribed }
    }

    /// A read does not fit: perhaps because of an operation whose outcome nobody knows. Tries them one by one;
    /// leaves out what they could have caused if none explains it.
    fn explain(&mut self, operation: usize, mut seen: Seen) -> Seen {
        let of = &self.history.operations[operation];
        let Some((ended_at, ended)) = &of.ended else { return seen };
        let asked_before = |p: &&Pending| self.history.operations[p.operation].asked <= *ended_at;
        let tried: Vec<Pending> = self.unknown.iter().filter(asked_before).take(TRIED_MAX).cloned().collect();
        for p in tried {
            let decision = self.decide(&p);
            let fits = p.result.as_ref().is_none_or(|r| self.verdict(&p, &decision, r).is_right());
            if decision.steps.is_empty() || !fits {
                continue;
            }
            let before = self.model.clone();
            self.apply(&p, decision);
            let now = self.shown().compare(&of.op, ended, of.opened.as_ref());
            if now.found.len() < seen.found.len() {
                self.unknown.retain(|other| other.operation != p.operation);
                seen = now;
                self.settle();
                if seen.found.is_empty() {
                    return seen;
                }
            } else {
                self.fresh.clear();
                self.model = before;
            }
        }
        let operations = &self.history.operations;
        let unknown: Vec<&Op> = self.unknown.iter().filter(asked_before).map(|p| &operations[p.operation].op).collect();
        let found = seen.found.len();
        seen.found.retain(|f| !unknown.iter().any(|op| may_cause(op, f.rule)));
        seen.skipped += (found - seen.found.len()) as u64;
        seen
    }

    fn learn(&mut self, lesson: Lesson) {
        match lesson {
            Lesson::Id(number, id) => {
                if let Err(what) = self.model.learn_id(number, id) {
                    let what = format!("mailbox {}: {what}", self.history.mailbox);
                    self.tell(Rule::Uids, 0, (number, 0, 0), what);
                }
            }
            Lesson::Validity(number, uid_validity) => {
                if self.model.fits_validity(number, uid_validity).is_ok() {
                    self.model.learn_validity(number, uid_validity);
                }
            }
            Lesson::UidNext(number, uid_next) => {
                if let Some(folder) = self.model.folder_mut(number).filter(|f| f.uid_next_unknown) {
                    (folder.uid_next, folder.uid_next_unknown) = (uid_next, false);
                }
            }
            Lesson::Highest(number, modseq) => {
                if let Some(folder) = self.model.folder_mut(number).filter(|f| f.highest_unsure) {
                    (folder.highest_modseq, folder.highest_unsure) = (modseq, false);
                }
            }
            Lesson::Message(number, state) => {
                if let Some(folder) = self.model.folder_mut(number)
                    && let Some(message) = folder.take(state.uid)
                {
                    let (flags, modseq) = (state.flags, state.modseq);
                    folder.put(state.uid, crate::model::Message { flags, modseq, unsure: false, ..message });
                }
            }
        }
    }

    /// Learns the id of the folder that a command names from what sessions saw at any time.
    fn learn_folder_of(&mut self, op: &Op) {
        let Some(id) = folder_of(op).filter(|id| self.model.number_of(*id).is_none()) else { return };
        let known = self.validities.get(&id).into_iter().flatten().find_map(|v| self.model.of_validity(*v));
        if let Some(number) = known {
            self.learn(Lesson::Id(number, id));
        }
    }

    /// Whether a command names a folder that nothing is known of.
    fn unlearnt(&self, op: &Op) -> bool {
        folder_of(op).is_some_and(|id| self.model.number_of(id).is_none())
    }

    /// Tells a violation, once for each message.
    fn tell(&mut self, rule: Rule, at: Micros, of: (Number, u32, usize), what: String) {
        if self.told.insert((rule, of.0, of.1, of.2)) {
            self.report.check(rule, at, false, || what);
        }
    }
}

fn folder_of(op: &Op) -> Option<FolderId> {
    match op {
        Op::Store { folder, .. }
        | Op::Copy { folder, .. }
        | Op::Move { folder, .. }
        | Op::Expunge { folder, .. }
        | Op::Fetch { folder, .. }
        | Op::ReadBody { folder, .. } => Some(*folder),
        Op::Deliver { .. }
        | Op::Append { .. }
        | Op::Create { .. }
        | Op::Delete { .. }
        | Op::Rename { .. }
        | Op::Subscribe { .. }
        | Op::Sync
        | Op::List
        | Op::Status { .. }
        | Op::Select { .. }
        | Op::Unselect => None,
    }
}

/// The rule that a command's answer is held to.
fn rule_of(op: &Op) -> Rule {
    match op {
        Op::Deliver { .. } | Op::Append { .. } => Rule::Uids,
        Op::Store { .. } => Rule::Flags,
        Op::Copy { .. } | Op::Move { .. } | Op::Expunge { .. } => Rule::Atomic,
        Op::Create { .. }
        | Op::Delete { .. }
        | Op::Rename { .. }
        | Op::Subscribe { .. }
        | Op::Sync
        | Op::List
        | Op::Status { .. }
        | Op::Select { .. }
        | Op::Fetch { .. }
        | Op::Unselect
        | Op::ReadBody { .. } => Rule::Stale,
    }
}

/// Whether an operation of unknown outcome can be why something seems to break a rule.
fn may_cause(op: &Op, rule: Rule) -> bool {
    match op {
        Op::Deliver { .. } | Op::Append { .. } => !matches!(rule, Rule::Flags | Rule::ExactlyOnce),
        Op::Store { .. } => matches!(rule, Rule::Flags | Rule::Modseq | Rule::Atomic | Rule::Uncommitted),
        Op::Subscribe { .. } => false,
        _ => true,
    }
}
