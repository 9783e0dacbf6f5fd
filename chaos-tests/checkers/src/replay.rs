//! Replays one mailbox in the order of its log, and compares every answer and read with the model.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{Answer, FolderId, Refusal};
use mailraft_storage::CommandId;

use crate::answers::{Verdict, adopt, compare};
use crate::deliveries::{Deliveries, Earlier};
use crate::history::{At, Ended, Micros, Op};
use crate::journal::{FolderState, Journal, Logged};
use crate::model::{ALONE_UID_JUMP, Decision, Effect, Folder, Model, Number, Step};
use crate::operation::{
    MailboxHistory, Outcome, delivered, folder_of, is_simple, may_cause, may_undo, rule_of, subscribes,
};
use crate::pending::{End, Pending, ends, first_incarnation};
use crate::reads::{Found, Lesson, Seen, Shown};
use crate::repeats::{Repeats, mark, repeats_one_of};
use crate::report::{Bounds, Report, Rule};
use crate::subscriptions::Subscriptions;
use crate::traces::Traces;

/// The most operations of unknown outcome that are tried where something does not fit.
const TRIED_MAX: usize = 8;
/// The most orders of one entry that are tried.
const ORDERS_MAX: u32 = 64;

/// What a read could not find, to be excused by a later removal that was asked before the read's end.
struct Awaited {
    ended: Micros,
    rule: Rule,
    what: String,
}

struct Replay<'a> {
    history: &'a MailboxHistory,
    report: Report,
    model: Model,
    journal: Journal,
    /// Changes of the present entry.
    fresh: Vec<Logged>,
    /// Operations of unknown outcome.
    unknown: Vec<Pending>,
    deliveries: Deliveries,
    repeats: Repeats,
    traces: Traces,
    stored: BTreeMap<u64, (Number, u32)>,
    awaited: BTreeMap<(Number, u32), Vec<Awaited>>,
    subscriptions: Subscriptions,
    validities: BTreeMap<FolderId, Vec<u32>>,
    /// What was told once is not told again.
    told: BTreeSet<(Rule, Number, u32, usize)>,
    /// The present entry's order was ambiguous.
    unsure: bool,
    /// How many more orders of the present entry are tried.
    tries: u32,
    /// The mailbox's MODSEQ depends on an order that nobody told, until the next answer tells it.
    drift: bool,
    end: End,
    /// Whether a MODSEQ that nothing took may lie between two.
    gaps: bool,
    /// How many orders that fit are passed over.
    passed: usize,
    /// Something whose outcome nobody knows was taken to be carried out, and may not have been: what does not fit
    /// from then on proves nothing.
    doubt: bool,
    wrong: Option<usize>,
    ambiguous: Vec<usize>,
}

/// One replay, with which entries in another than the first order that fits them.
pub(crate) fn replay_with(history: &MailboxHistory, bounds: Bounds, orders: &BTreeMap<usize, usize>) -> Replayed {
    let model = Model::new(first_incarnation(&history.operations));
    let mut replay = Replay {
        history,
        report: Report::default(),
        journal: Journal::new(&model),
        model,
        fresh: Vec::new(),
        unknown: Vec::new(),
        deliveries: Deliveries::new(bounds),
        repeats: Repeats::new(bounds),
        traces: Traces::of(history),
        stored: BTreeMap::new(),
        awaited: BTreeMap::new(),
        subscriptions: Subscriptions::default(),
        validities: BTreeMap::new(),
        told: BTreeSet::new(),
        unsure: false,
        tries: 0,
        drift: false,
        end: End::OPEN,
        gaps: false,
        passed: 0,
        doubt: false,
        wrong: None,
        ambiguous: Vec::new(),
    };
    replay.run(orders);
    let Replay { report, journal, wrong, ambiguous, .. } = replay;
    Replayed { report, journal, wrong, ambiguous }
}

/// What one replay gave.
pub(crate) struct Replayed {
    pub report: Report,
    pub journal: Journal,
    /// The entry after which something did not fit first.
    pub wrong: Option<usize>,
    /// Entries that fit in more than one order.
    pub ambiguous: Vec<usize>,
}

impl Replay<'_> {
    fn run(&mut self, orders: &BTreeMap<usize, usize>) {
        for selected in &self.history.opened {
            self.validities.entry(selected.folder).or_default().push(selected.uid_validity);
        }
        let (mut changes, mut reads) = (BTreeMap::<At, Vec<Pending>>::new(), Vec::new());
        for (operation, of) in self.history.operations.iter().enumerate() {
            if of.op.is_read() {
                match (of.position, &of.ended) {
                    (Some(at), Some(_)) => reads.push((at, operation)),
                    (None, Some((_, Ended::Done(_)))) => {
                        self.report.skipped += u64::from(!matches!(of.op, Op::Sync | Op::Unselect));
                    }
                    (_, Some(_) | None) => {}
                }
                continue;
            }
            match of.outcome() {
                Outcome::Took(Some(at), result) => {
                    changes.entry(at).or_default().push(Pending::new(operation, of, Some(result)));
                }
                Outcome::Took(None, result) => self.leave_open(operation, Some(result)),
                Outcome::Unknown => self.leave_open(operation, None),
                Outcome::NotDone => {}
            }
        }
        mark(self.history, changes.values_mut());
        reads.sort_by_key(|(at, _)| *at);
        let mut reads = reads.into_iter().peekable();
        let ends = ends(&changes, &self.history.operations);
        for ((at, pending), end) in changes.into_iter().zip(ends) {
            while let Some((shown, operation)) = reads.next_if(|(shown, _)| *shown < at) {
                self.enters(shown, operation);
                self.read(operation);
                self.note_wrong();
            }
            self.end = end;
            let passed = orders.get(&self.journal.entries.len()).copied().unwrap_or_default();
            self.entry(at, pending, passed);
            self.note_wrong();
        }
        for (shown, operation) in reads {
            self.enters(shown, operation);
            self.read(operation);
        }
        self.note_wrong();
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
        self.journal.doubt = self.doubt;
        self.journal.doubtful = self.unknown.iter().map(|p| self.history.operations[p.operation].id).collect();
    }

    /// A read shows this position.
    fn enters(&mut self, shown: At, operation: usize) {
        self.comes_to(shown, self.history.operations[operation].told_modseq(), false);
    }

    /// What comes next is of this position and tells of this MODSEQ. If UIDs and MODSEQs jump before it, what was done last before
    /// that is known by what was seen of it.
    fn comes_to(&mut self, at: At, told: Option<u64>, within_entry: bool) {
        let last = At { partition: at.partition, incarnation: self.model.incarnation, index: u64::MAX }.min(at);
        if last < at || told.is_some_and(|told| self.model.is_jump(told)) {
            while let Some(p) = self.traces.next_before_jump(self.history, &self.model, &self.unknown) {
                self.unknown.retain(|other| other.operation != p.operation);
                self.begins_entry(Some(last));
                let decision = self.decide(&p);
                self.apply(&p, decision);
                self.settle();
            }
        }
        self.drift |= self.journal.enters(at, &self.history.resumed, &mut self.model);
        self.drift |= self.journal.jumps(told, within_entry, &mut self.model);
    }

    fn note_wrong(&mut self) {
        if self.report.violations_found > 0 && self.wrong.is_none() {
            self.wrong = Some(self.journal.last_entry());
        }
    }

    fn leave_open(&mut self, operation: usize, result: Option<Result<Answer, Refusal>>) {
        if let Some((name, _)) = subscribes(&self.history.operations[operation].op) {
            self.subscriptions.leave_open(name);
            return;
        }
        let pending = Pending::new(operation, &self.history.operations[operation], result);
        if pending.changes {
            self.unknown.push(pending);
        } else {
            self.report.skipped += 1;
        }
    }

    /// Applies one entry: its commands in an order in which all their answers are right.
    fn entry(&mut self, at: At, pending: Vec<Pending>, passed: usize) {
        self.comes_to(at, pending.iter().filter_map(|p| p.modseq).max(), true);
        self.begins_entry(Some(at));
        let number = self.journal.last_entry();
        self.unsure = false;
        let operations: Vec<usize> = pending.iter().map(|p| p.operation).collect();
        for p in &pending {
            self.learn_folder_of(&self.history.operations[p.operation].op);
        }
        let known = |operation: &usize| {
            delivered(&self.history.operations[*operation].op).filter(|m| self.deliveries.knows(*m))
        };
        let before: BTreeMap<u64, bool> = operations
            .iter()
            .filter_map(known)
            .map(|marker| (marker, self.model.places_of(marker).next().is_some()))
            .collect();
        let made = self.made_by_firsts(&operations);
        self.find_order(pending, passed);
        if self.unsure {
            self.ambiguous.push(number);
        }
        if !self.drift {
            self.journal.doubted = 0;
        }
        self.settle();
        // A delivery before its repeats.
        let is_new =
            |operation: &usize| self.journal.of_origin(self.history.operations[*operation].id).next().is_some();
        let (mut deliveries, repeats): (Vec<usize>, Vec<usize>) = operations.iter().copied().partition(is_new);
        let new = deliveries.len();
        deliveries.extend(repeats);
        let after = self.made_by_firsts(&operations);
        for (n, operation) in deliveries.iter().copied().enumerate().filter(|_| !self.doubt) {
            let op = &self.history.operations[operation].op;
            // What was done for the first time in this entry is no older one's any more.
            let first = self.repeats.first_of(self.history, &self.model, op).filter(|_| n >= new);
            let first_is_here = first.is_some_and(|first| operations.contains(&first.operation()));
            let earlier = match (made.get(&operation), after.get(&operation)) {
                _ if first_is_here => Earlier::Unsure,
                (Some(true), Some(true))
                    if !self.unknown.iter().any(|p| may_undo(&self.history.operations[p.operation].op, op)) =>
                {
                    Earlier::Stays
                }
                (Some(false), Some(false)) => Earlier::Gone,
                _ => Earlier::Unsure,
            };
            let unknown = self.is_alike_unknown(op) || self.repeats_taken(operation);
            let (how, first) = ((operation, n < new), (earlier, unknown));
            self.repeats.check(self.history, &self.model, how, first, &mut self.report);
        }
        for (n, operation) in deliveries.into_iter().enumerate() {
            let of = &self.history.operations[operation];
            if !self.doubt {
                let before = delivered(&of.op).and_then(|marker| Some((marker, *before.get(&marker)?)));
                let earlier = before.map_or(Earlier::Unsure, |(marker, before)| self.earlier(of.id, marker, before));
                let unheard = n >= new && self.repeats_unheard(operation);
                self.deliveries.check(self.history.mailbox, of, n < new, earlier, unheard, &mut self.report);
            }
        }
        let named = operations.iter().filter_map(|n| subscribes(&self.history.operations[*n].op));
        self.subscriptions.settle(named);
    }

    /// Which of these ask for something again, and whether what that made is there now.
    fn made_by_firsts(&self, operations: &[usize]) -> BTreeMap<usize, bool> {
        let made = |operation: &usize| {
            let of = &self.history.operations[*operation];
            let first = self.repeats.first_of(self.history, &self.model, &of.op)?;
            Some((*operation, first.is_there(&self.model, of)))
        };
        operations.iter().filter_map(made).collect()
    }

    /// What became of a message, of which there was a place `before` the entry that delivers it again.
    fn earlier(&self, again: CommandId, marker: u64, before: bool) -> Earlier {
        let own = self.journal.of_origin(again).next().is_some();
        let places = self.model.places_of(marker).count();
        let removes = |p: &Pending| {
            matches!(
                self.history.operations[p.operation].op,
                Op::Expunge { .. } | Op::Remove { .. } | Op::Delete { .. }
            )
        };
        match (before, places > usize::from(own)) {
            (true, true) if !self.unknown.iter().any(removes) => Earlier::Stays,
            (false, false) => Earlier::Gone,
            _ => Earlier::Unsure,
        }
    }

    /// What is applied from now on is of this entry.
    fn begins_entry(&mut self, at: Option<At>) {
        self.journal.begin(at, &self.model);
        self.model.entry = self.journal.last_entry();
    }

    fn end_entry(&mut self) {
        self.journal.end(&self.model, self.unsure || self.drift);
    }

    /// Applies all in an order that fits what came later; else in one that fits alone; else as answered.
    fn find_order(&mut self, mut pending: Vec<Pending>, passed: usize) {
        let end = self.end;
        let loose = End { exact: None, ..end };
        for (tried, gaps) in [(end, false), (loose, false), (end, true), (loose, true), (End::OPEN, true)] {
            (self.end, self.gaps, self.tries, self.passed) = (tried, gaps, ORDERS_MAX, passed);
            match self.order(pending) {
                Ok(()) => {
                    self.drift |= self.unsure && tried.exact.is_none();
                    return;
                }
                Err(left) => pending = left,
            }
            if pending.is_empty() {
                return;
            }
        }
        self.force(pending);
    }

    /// Finds a place for each. Where several could be next it tries one after another. Those left are given
    /// back if there is none.
    fn order(&mut self, mut pending: Vec<Pending>) -> Result<(), Vec<Pending>> {
        loop {
            pending.retain(|p| !self.is_right_without_change(p));
            if pending.is_empty() {
                let modseq = self.model.modseq();
                let fits = self.end.exact.is_none_or(|exact| exact == modseq) && modseq < self.end.below;
                if fits && self.passed == 0 {
                    return Ok(());
                }
                self.passed -= usize::from(fits);
                return Err(pending);
            }
            let (choices, sure) = self.choices(&pending);
            self.unsure |= !sure;
            let before_doubt = self.doubt;
            if let [choice] = choices.as_slice() {
                self.doubt |= self.is_guess(choice, sure);
                self.take(choice, &mut pending);
                continue;
            }
            for choice in &choices {
                if self.tries == 0 {
                    break;
                }
                self.tries -= 1;
                let before = (self.model.clone(), self.fresh.len(), self.unknown.clone());
                let entries = self.journal.entries.len();
                let mut rest = pending.clone();
                self.doubt |= self.is_guess(choice, sure);
                self.take(choice, &mut rest);
                if self.order(rest).is_ok() {
                    return Ok(());
                }
                self.fresh.truncate(before.1);
                self.journal.entries.truncate(entries);
                (self.model, self.unknown, self.doubt) = (before.0, before.2, before_doubt);
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
        // Of a delivery and its repeat in one entry, the one that events name was stored.
        let named = |p: &Pending| self.history.operations[p.operation].hint.is_some();
        let next = pending.iter().filter(|p| p.changes && p.modseq.is_some()).min_by_key(|p| (p.modseq, !named(p)));
        let next = next.map(|p| (p, fits(p), p.modseq.unwrap_or_default()));
        // How many MODSEQs a RENAME takes depends on the folders that are there before it.
        let varies =
            next.as_ref().is_some_and(|(p, ..)| matches!(self.history.operations[p.operation].op, Op::Rename { .. }));
        let mut exact = false;
        let gap = match &next {
            Some((p, Some(cost), modseq)) if base + cost == *modseq => {
                if !varies {
                    return (vec![(*p).clone()], true);
                }
                exact = true;
                cost.saturating_sub(1)
            }
            Some((_, cost, modseq)) => modseq.saturating_sub(base + cost.unwrap_or(1)),
            None => u64::MAX,
        };
        let mut choices: Vec<(Pending, u64)> = Vec::new();
        for p in pending.iter().filter(|p| p.changes && p.modseq.is_none()) {
            choices.extend(fits(p).filter(|cost| *cost <= gap).map(|cost| (p.clone(), cost)));
        }
        if choices.is_empty() && gap > 0 && !exact {
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
            [(_, cost)] => next.is_none() || (*cost == gap && !varies),
            _ => false,
        };
        let mut choices: Vec<Pending> = choices.into_iter().map(|(p, _)| p).collect();
        // What came before a term that began alone may have been done in it: then its MODSEQs lie between.
        let doubted = self.journal.doubted;
        let is_behind = |c: u64, modseq: u64| base + c < modseq && modseq - base - c <= doubted;
        if let Some((p, ..)) = next.as_ref().filter(|(_, cost, modseq)| cost.is_some_and(|c| is_behind(c, *modseq))) {
            choices.insert(0, (*p).clone());
            return (choices, false);
        }
        if !(sure && choices.len() == 1) {
            choices.extend(
                next.filter(|(_, fits, modseq)| {
                    fits.is_some_and(|c| base + c == *modseq || (self.gaps && base + c < *modseq))
                })
                .map(|n| n.0.clone()),
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
        if self.unlearnt(op) {
            return Verdict::Unknowable;
        }
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
        if p.repeats || self.is_repeat(p) {
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
        let op = &self.history.operations[p.operation].op;
        let known = p.modseq.is_some_and(|modseq| modseq <= self.model.modseq());
        known && matches!(op, Op::Deliver { deduplicate: true, .. })
            || known && op.is_once() && self.is_alike_unknown(op)
            || op.is_once() && self.repeats_taken(p.operation)
    }

    /// Whether the same was asked by a command of which nobody knows whether it was carried out.
    fn is_alike_unknown(&self, op: &Op) -> bool {
        self.unknown.iter().any(|p| self.history.operations[p.operation].op == *op)
    }

    /// Whether this may be told the answer of a delivery that left a trace for its repeats, and that nobody heard.
    fn repeats_unheard(&self, operation: usize) -> bool {
        let op = &self.history.operations[operation].op;
        let is_unanswered = delivered(op).is_some_and(|marker| !self.deliveries.is_answered(marker));
        is_unanswered && (self.is_alike_unknown(op) || self.repeats_taken(operation))
    }

    /// Whether a command is answered as a repeat of one that nobody had an answer of, and that was taken to be carried out.
    fn repeats_taken(&self, operation: usize) -> bool {
        repeats_one_of(self.history, operation, self.journal.logged.iter().chain(&self.fresh))
    }

    /// Whether one whose outcome nobody knows is taken to be carried out though others could be instead.
    fn is_guess(&self, choice: &Pending, sure: bool) -> bool {
        let unknown = self.unknown.iter().any(|p| p.operation == choice.operation);
        unknown && !(sure && (choice.modseq.is_some() || is_simple(&self.history.operations[choice.operation].op)))
    }

    /// Applies one whose answer is right. One whose position nobody told may have been an entry of its own before this
    /// one, which sessions saw: the present entry begins behind it, if nothing that is known to be in it was applied.
    fn take(&mut self, p: &Pending, pending: &mut Vec<Pending>) {
        pending.retain(|other| other.operation != p.operation);
        let unknown = self.unknown.len();
        self.unknown.retain(|other| other.operation != p.operation);
        let entry = self.journal.last_entry();
        let may_be_before = self.unknown.len() < unknown && self.fresh.last().is_none_or(|last| last.entry < entry);
        let decision = self.decide(p);
        self.report.held(rule_of(&self.history.operations[p.operation].op), 1);
        self.apply(p, decision);
        if may_be_before {
            self.end_entry();
            self.begins_entry(self.journal.entries[entry].at);
        }
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
        self.drift |= steps.iter().any(|step| self.begins_a_term_alone(step));
        let cost: u64 = steps.iter().map(Step::cost).sum();
        if let Some(modseq) = p.modseq {
            self.model.skip_to(modseq.saturating_sub(cost));
        }
        let unsure = (self.unsure || self.drift) && p.modseq.is_none();
        self.drift &= p.modseq.is_none() || p.hint || cost == 0 || self.is_beside_unsure();
        let origin = self.history.operations[p.operation].id;
        for step in steps {
            if let Some((folder, modseq, effect)) = self.model.commit(step, unsure) {
                let entry = self.journal.last_entry();
                let gone = Folder { highest_modseq: modseq, ..Folder::default() };
                let after = FolderState::of(self.model.folder(folder).unwrap_or(&gone));
                self.fresh.push(Logged {
                    entry,
                    operation: p.operation,
                    origin,
                    folder,
                    modseq,
                    told: p.modseq.is_some(),
                    unsure,
                    effect,
                    after,
                });
            }
        }
    }

    /// Whether a change of which nobody told the MODSEQ was applied at this position: it may have come before or after the one
    /// that is applied now, whose MODSEQ says then nothing of what comes next.
    fn is_beside_unsure(&self) -> bool {
        let at = |entry: usize| self.journal.entries.get(entry).and_then(|entry| entry.at);
        let here = at(self.journal.last_entry());
        self.fresh.iter().rev().take_while(|logged| at(logged.entry) == here).any(|logged| logged.unsure)
    }

    /// Whether new messages have UIDs so far above the last as only a term that began alone takes it. Then MODSEQs are higher too,
    /// by how much the next answer with one tells.
    fn begins_a_term_alone(&self, step: &Step) -> bool {
        let Step::Add { folder, messages } = step else { return false };
        let first = messages.first().map_or(0, |(uid, _)| *uid);
        self.model.folder(*folder).is_some_and(|f| first >= f.uid_next.saturating_add(ALONE_UID_JUMP))
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
                Verdict::Wrong(rule, _) if self.may_excuse(std::slice::from_ref(&p), rule) => {
                    self.report.skipped += 1;
                    self.doubt = true;
                }
                Verdict::Wrong(..) if self.doubt => self.report.skipped += 1,
                Verdict::Wrong(rule, why) => {
                    let what = told(&why);
                    self.report.check(rule, at, false, || what);
                }
                Verdict::Right if !p.changes && !self.doubt => {
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
            match (&change.effect, &of.op) {
                (Effect::Added(messages), Op::Deliver { marker, .. } | Op::Append { marker, .. }) => {
                    if let Some((uid, _)) = messages.first() {
                        self.stored.entry(*marker).or_insert((change.folder, *uid));
                    }
                }
                (Effect::Expunged { uids, .. } | Effect::Deleted { uids }, _) if !self.awaited.is_empty() => {
                    for uid in uids.iter() {
                        if let Some(awaited) = self.awaited.get_mut(&(change.folder, uid)) {
                            awaited.retain(|one| one.ended < of.asked);
                        }
                    }
                }
                (Effect::Added(_) | Effect::Flagged(_) | Effect::Nothing, _)
                | (Effect::Expunged { .. } | Effect::Deleted { .. }, _) => {}
            }
        }
        self.end_entry();
        self.journal.settle(fresh);
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
        let maybe_subscribed = self.subscriptions.maybe();
        Shown { model: &self.model, journal: &self.journal, stored: &self.stored, maybe_subscribed }
    }

    /// A read does not fit: perhaps because of an operation whose outcome nobody knows. Tries them one by one, each
    /// as an entry of its own between the last one and what the read shows; leaves out what they could have caused if
    /// none explains it.
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
            self.begins_entry(of.position);
            self.apply(&p, decision);
            let now = self.shown().compare(&of.op, ended, of.opened.as_ref());
            if now.found.len() < seen.found.len() {
                self.unknown.retain(|other| other.operation != p.operation);
                seen = now;
                self.settle();
                self.doubt |= !(seen.found.is_empty() && is_simple(&self.history.operations[p.operation].op));
                if seen.found.is_empty() {
                    return seen;
                }
            } else {
                self.fresh.clear();
                self.model = before;
                self.journal.entries.pop();
            }
        }
        let operations = &self.history.operations;
        let unknown: Vec<&Op> = self.unknown.iter().filter(asked_before).map(|p| &operations[p.operation].op).collect();
        let may_be = |found: &Found| unknown.iter().any(|op| may_cause(op, found.rule));
        let (excused, found): (Vec<Found>, Vec<Found>) = seen.found.into_iter().partition(may_be);
        seen.found = found;
        seen.skipped += excused.len() as u64;
        // As it is shown it is, whichever of them did it.
        let shown = excused.into_iter().filter_map(|found| Some(Lesson::Message(found.folder, found.shown?)));
        seen.lessons.extend(shown);
        seen
    }

    fn learn(&mut self, lesson: Lesson) {
        let number = lesson.folder();
        if let Err(what) = lesson.teach(&mut self.model) {
            let what = format!("mailbox {}: {what}", self.history.mailbox);
            self.tell(Rule::Uids, 0, (number, 0, 0), what);
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
        if self.doubt {
            self.report.skipped += 1;
        } else if self.told.insert((rule, of.0, of.1, of.2)) {
            self.report.check(rule, at, false, || what);
        }
    }
}
