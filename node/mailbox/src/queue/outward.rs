//! What the owner of a queue mailbox has sent to other servers, and told to senders, when, and what follows from how it ended.
//! When the next attempt is due stands in the mailbox's rows; only what is under way, and pauses in which nothing was
//! attempted, are in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use mailraft_storage::{CommandId, UnixMillis};

use super::items::{Items, Line, RecipientId};
use super::places::{Pace, Places, Sender};
use crate::accepted::{ASKED_FOR, AT_ONCE, Attempt, DeliveryStage, QueueChange, ReportKind, Told};
use crate::plant::{self, Fault};

/// Messages of one queue mailbox that are being sent at once.
pub const SENDINGS_MAX: usize = 32;
/// Of these, so many are kept for domains that were quick lately.
pub const SENDINGS_KEPT_FOR_QUICK: usize = 8;
/// A domain is quick where an attempt was answered and over within this, from when it was begun.
pub const QUICK_MAX: Duration = Duration::from_secs(15);
/// So many domains are known as quick; the one that was it longest ago makes room.
pub const QUICK_DOMAINS_MAX: usize = 1_000;
/// Of all, so many go to one domain: whoever answers slowly keeps no others waiting.
pub const SENDINGS_TO_ONE_DOMAIN_MAX: usize = 4;
/// Recipients of one sending.
pub const SENDING_RECIPIENTS_MAX: usize = 100;
/// Senders of one queue mailbox that are being told something at once.
pub const REPORTS_MAX: usize = 8;
/// Recipients that one report is about.
pub const REPORT_RECIPIENTS_MAX: usize = 100;
/// What an earlier owner had let go has so long to be answered, and the answer to come here from the node that got it, before an
/// owner begins to send what was due when it came: nobody else can know what is under way.
pub const PREDECESSOR_GRACE: Duration = Duration::from_secs(10);
/// What came so long after an owner did no earlier one had begun, though that one's clock may have been ahead.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);
/// Before what could not be attempted is begun again for the first time; twice as long each time after.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// No longer than this.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// No item has a greater id.
const LAST: CommandId = CommandId([u8::MAX; 16]);

/// Something that leaves the queue mailbox other than to a mailbox of the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outward {
    /// Names it for this owner; under this number its end is told.
    pub number: u64,
    /// The item.
    pub item: CommandId,
    /// What is done.
    pub what: OutwardKind,
}

/// The kinds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutwardKind {
    /// The message is sent to the servers of this domain.
    Send {
        /// The domain.
        domain: Arc<str>,
        /// Whose mail it is.
        sender: Sender,
        /// The recipients, and how many attempts failed for each.
        recipients: Vec<(u32, u32)>,
        /// An operator asked for it: it is attempted even if the domain's servers are left alone for a while.
        is_asked_for: bool,
    },
    /// Its sender is told something.
    Report {
        /// What.
        kind: ReportKind,
        /// Of these recipients.
        recipients: Vec<u32>,
    },
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutwardOutcome {
    /// An attempt to send it was made. Recipients that are missing are tried again.
    Attempted(Vec<Attempt>),
    /// The domain's servers are not to be asked before so long has passed.
    NotNow(Duration),
    /// The report is in the queue, and that is visible.
    Reported,
    /// There is nobody to tell, or he does not want to hear it.
    NobodyToTell,
    /// It was not done, or nobody knows.
    Failed,
}

/// Whether a node may say so whose owner led before: that other servers have what it sent, which its successor can't know. All else
/// the successor finds out for itself.
pub fn may_come_from_predecessor(change: &QueueChange) -> bool {
    match change {
        QueueChange::Attempted { attempts, .. } => {
            attempts.len() <= SENDING_RECIPIENTS_MAX && attempts.iter().all(Attempt::is_sent)
        }
        QueueChange::Delivered { .. }
        | QueueChange::Held { .. }
        | QueueChange::Released { .. }
        | QueueChange::NotTold(_) => false,
    }
}

/// All of it, of one owner.
#[derive(Debug)]
pub struct Outwards {
    under_way: BTreeMap<u64, UnderWay>,
    busy: BTreeMap<RecipientId, u64>,
    /// Under way for each domain.
    of_domain: BTreeMap<Arc<str>, usize>,
    sendings: usize,
    places: Places,
    quick: QuickDomains,
    /// Domains whose servers are not asked before.
    domains: BTreeMap<Arc<str>, Duration>,
    /// What was not done, when it is begun again, and how often that was so.
    again: BTreeMap<RecipientId, (Duration, u32)>,
    /// Whose turn was last.
    last_line: Option<Line>,
    last: u64,
    wakes_at: Option<Duration>,
    rest: Option<Rest>,
}

/// What an earlier owner may have let go.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// It is not sent before.
    until: Duration,
    /// It was due then, and had come by then.
    due: UnixMillis,
}

/// What is under way, when it was begun, and of which pace its place is, if it has one.
#[derive(Debug)]
struct UnderWay {
    outward: Outward,
    begun: Duration,
    pace: Option<Pace>,
}

impl Default for Outwards {
    fn default() -> Self {
        Outwards {
            under_way: BTreeMap::new(),
            busy: BTreeMap::new(),
            of_domain: BTreeMap::new(),
            sendings: 0,
            places: Places::new(SENDINGS_MAX, SENDINGS_KEPT_FOR_QUICK),
            quick: QuickDomains::default(),
            domains: BTreeMap::new(),
            again: BTreeMap::new(),
            last_line: None,
            last: 0,
            wakes_at: None,
            rest: None,
        }
    }
}

/// Domains whose servers were quick, by when that was: of each attempt that was, the number.
#[derive(Debug, Default)]
struct QuickDomains {
    of: BTreeMap<Arc<str>, u64>,
    by_age: BTreeMap<u64, Arc<str>>,
}

impl QuickDomains {
    fn pace(&self, domain: &str) -> Pace {
        if self.of.contains_key(domain) { Pace::Quick } else { Pace::Unproved }
    }

    fn set(&mut self, domain: &Arc<str>, pace: Pace, number: u64) {
        if let Some(before) = self.of.remove(domain) {
            self.by_age.remove(&before);
        }
        match pace {
            Pace::Quick => {
                self.of.insert(Arc::clone(domain), number);
                self.by_age.insert(number, Arc::clone(domain));
            }
            Pace::Unproved => {}
        }
        while self.of.len() > QUICK_DOMAINS_MAX {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.of.remove(&oldest);
        }
    }
}

/// What is due in a line: recipients of one item at one time, and how many attempts failed for each.
struct Due {
    at: UnixMillis,
    item: CommandId,
    recipients: Vec<(u32, u32)>,
}

impl Due {
    fn is_asked_for(&self) -> bool {
        self.at == ASKED_FOR
    }
}

impl Outwards {
    /// The queue of an owner that begins. An earlier one may be sending what is due; what falls due later it never began.
    pub fn loaded(&mut self, now: Duration, wall: UnixMillis, items: &Items) {
        let due = UnixMillis(wall.0.saturating_add(u64::try_from(CLOCKS_DIFFER.as_millis()).unwrap_or(u64::MAX)));
        let is_due = |(at, _, _): &(UnixMillis, CommandId, u32)| *at <= due;
        if items.sendings().values().any(|line| line.first().is_some_and(is_due)) {
            self.rest = Some(Rest { until: now + PREDECESSOR_GRACE, due });
        }
    }

    /// What is to be begun now. Domains, and their senders, take turns; of each the earliest first.
    pub fn next(&mut self, now: Duration, wall: UnixMillis, items: &Items) -> Vec<Outward> {
        self.wakes_at = None;
        self.domains.retain(|_, until| *until > now);
        self.again.retain(|id, _| items.recipient(*id).is_some());
        let mut begun = Vec::new();
        self.next_sendings(now, wall, items, &mut begun);
        self.next_reports(now, items, &mut begun);
        self.next_warnings(now, wall, items, &mut begun);
        begun
    }

    /// When [`Outwards::next`] has more to begin, as of its last call, if nothing else happens before; None if it waits for
    /// nothing.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.wakes_at
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// How many domains are known as quick.
    #[cfg(test)]
    pub fn quick_domains(&self) -> usize {
        self.quick.of.len().max(self.quick.by_age.len())
    }

    /// Whether a domain is.
    #[cfg(test)]
    pub fn is_quick(&self, domain: &str) -> bool {
        self.quick.pace(domain) == Pace::Quick
    }

    /// It ended. Returns the change that it means for the queue; until [`Outwards::changed`] says so, nothing else is done for
    /// its recipients.
    pub fn ended(&mut self, now: Duration, items: &Items, number: u64, outcome: OutwardOutcome) -> Option<QueueChange> {
        let UnderWay { outward: Outward { item, what, .. }, begun, pace } = self.under_way.remove(&number)?;
        if let (OutwardKind::Send { domain, sender, .. }, Some(pace)) = (&what, pace) {
            self.sendings -= 1;
            self.places.leave(*sender, pace);
            if let OutwardOutcome::Attempted(attempts) = &outcome {
                let is_quick =
                    attempts.iter().any(|attempt| attempt.diagnosis.is_reply) && now.saturating_sub(begun) <= QUICK_MAX;
                self.quick.set(domain, if is_quick { Pace::Quick } else { Pace::Unproved }, number);
            }
            if let Some(count) = self.of_domain.get_mut(domain) {
                *count -= 1;
                if *count == 0 {
                    self.of_domain.remove(domain);
                }
            }
        }
        let recipients = recipients_of(&what);
        match (what, outcome) {
            (OutwardKind::Send { .. }, OutwardOutcome::Attempted(attempts)) => {
                let is_one =
                    |a: &Attempt| recipients.contains(&a.recipient) && items.recipient((item, a.recipient)).is_some();
                let attempts: Vec<Attempt> = attempts.into_iter().filter(is_one).collect();
                for recipient in recipients {
                    if !attempts.iter().any(|attempt| attempt.recipient == recipient) {
                        self.again_later(now, (item, recipient));
                    }
                }
                if attempts.is_empty() { None } else { Some(QueueChange::Attempted { item, attempts }) }
            }
            (OutwardKind::Send { domain, is_asked_for, .. }, OutwardOutcome::NotNow(pause)) => {
                let until = now + pause.clamp(AGAIN_FIRST / 4, AGAIN_MAX);
                for recipient in recipients {
                    self.release((item, recipient));
                    if is_asked_for {
                        // For these the domain's own pause does not count.
                        self.again.insert((item, recipient), (until, 0));
                    }
                }
                if !is_asked_for {
                    self.domains.insert(domain, until);
                }
                None
            }
            (OutwardKind::Report { .. }, OutwardOutcome::Reported) => {
                recipients.iter().for_each(|recipient| self.release((item, *recipient)));
                None
            }
            (OutwardKind::Report { kind, .. }, OutwardOutcome::NobodyToTell) => {
                Some(QueueChange::NotTold(Told { item, kind, recipients }))
            }
            (
                _,
                OutwardOutcome::Failed
                | OutwardOutcome::Attempted(_)
                | OutwardOutcome::NotNow(_)
                | OutwardOutcome::Reported
                | OutwardOutcome::NobodyToTell,
            ) => {
                recipients.iter().for_each(|recipient| self.again_later(now, (item, *recipient)));
                None
            }
        }
    }

    /// The change that something meant is visible, or was not made: then it is begun again.
    pub fn changed(&mut self, now: Duration, item: CommandId, recipients: &[u32], is_made: bool) {
        for recipient in recipients {
            let id = (item, *recipient);
            if is_made {
                self.release(id);
                self.again.remove(&id);
            } else {
                self.again_later(now, id);
            }
        }
    }

    fn next_sendings(&mut self, now: Duration, wall: UnixMillis, items: &Items, begun: &mut Vec<Outward>) {
        if self.places.is_full() {
            // One that ends says so, and then it is looked again.
            return;
        }
        let all = items.sendings();
        let may = |(domain, sender): &&Line| self.places.has_room(*sender, self.quick.pace(domain));
        // Those behind the one that had its turn last, then the others.
        let order: Vec<Line> = match self.last_line.clone() {
            Some(last) => {
                let behind = all.range((Bound::Excluded(last.clone()), Bound::Unbounded));
                behind.chain(all.range(..=last)).map(|(line, _)| line).filter(may).cloned().collect()
            }
            None => all.keys().filter(may).cloned().collect(),
        };
        let mut round = true;
        while round {
            round = false;
            for line in &order {
                let (domain, sender) = line;
                let pace = self.quick.pace(domain);
                if !self.places.has_room(*sender, pace) {
                    continue;
                }
                let pause = self.domains.get(domain).copied();
                if let Some(until) = pause {
                    self.wake(until);
                }
                if self.of_domain.get(domain).copied().unwrap_or(0) >= SENDINGS_TO_ONE_DOMAIN_MAX {
                    continue;
                }
                let due = self.due(now, wall, items, line).filter(|due| pause.is_none() || due.is_asked_for());
                let Some(due) = due else { continue };
                let is_asked_for = due.is_asked_for();
                *self.of_domain.entry(Arc::clone(domain)).or_default() += 1;
                self.sendings += 1;
                self.places.take(*sender, pace);
                self.last_line = Some(line.clone());
                let (domain, recipients) = (Arc::clone(domain), due.recipients);
                let what = OutwardKind::Send { domain, sender: *sender, recipients, is_asked_for };
                begun.push(self.begin(now, due.item, what, Some(pace)));
                round = true;
            }
        }
    }

    /// The earliest item that is due in a line, and for whom.
    fn due(&mut self, now: Duration, wall: UnixMillis, items: &Items, line: &Line) -> Option<Due> {
        let mut found: Option<Due> = None;
        let of_line = items.sendings().get(line)?;
        // New mail, then what is tried again, without what rests; or all.
        let (new, again) = match self.rest.filter(|rest| now < rest.until) {
            Some(Rest { until, due }) => {
                self.wake(until);
                let first_new = CommandId::v7(UnixMillis(due.0.saturating_add(1)), 0);
                let new = (Bound::Included((AT_ONCE, first_new, 0)), Bound::Included((AT_ONCE, LAST, u32::MAX)));
                (
                    of_line.range(new),
                    of_line.range((Bound::Excluded((due.max(AT_ONCE), LAST, u32::MAX)), Bound::Unbounded)),
                )
            }
            None => {
                let none = Bound::Excluded((UnixMillis(u64::MAX), LAST, u32::MAX));
                (of_line.range(..), of_line.range((none, Bound::Unbounded)))
            }
        };
        for (due, item, recipient) in new.chain(again) {
            let id = (*item, *recipient);
            if *due > wall && plant::is(Fault::SendingSleeps) {
                break;
            }
            if *due > wall {
                self.wake(now + Duration::from_millis(due.0 - wall.0));
                break;
            }
            if self.busy.contains_key(&id) {
                continue;
            }
            if let Some((until, _)) = self.again.get(&id).filter(|(until, _)| *until > now) {
                self.wake(*until);
                continue;
            }
            let failed = match items.recipient(id).map(|r| r.stage) {
                Some(DeliveryStage::Deferred { failed, .. }) => failed,
                Some(
                    DeliveryStage::Waiting
                    | DeliveryStage::Delivered
                    | DeliveryStage::Held(_)
                    | DeliveryStage::Reporting(_),
                )
                | None => 0,
            };
            match &mut found {
                None => found = Some(Due { at: *due, item: *item, recipients: vec![(*recipient, failed)] }),
                Some(of) if of.at == *due && of.item == *item && of.recipients.len() < SENDING_RECIPIENTS_MAX => {
                    of.recipients.push((*recipient, failed));
                }
                Some(_) => break,
            }
        }
        found
    }

    fn next_reports(&mut self, now: Duration, items: &Items, begun: &mut Vec<Outward>) {
        let mut found: BTreeMap<(CommandId, ReportKind), Vec<u32>> = BTreeMap::new();
        let mut places = REPORTS_MAX.saturating_sub(self.under_way.len() - self.sendings);
        for id in items.reports() {
            if self.is_waiting(now, *id) {
                continue;
            }
            let Some(DeliveryStage::Reporting(kind)) = items.recipient(*id).map(|r| r.stage) else { continue };
            let is_new = !found.contains_key(&(id.0, kind));
            if is_new && places == 0 {
                break;
            }
            places -= usize::from(is_new);
            let recipients = found.entry((id.0, kind)).or_default();
            if recipients.len() < REPORT_RECIPIENTS_MAX {
                recipients.push(id.1);
            }
        }
        for ((item, kind), recipients) in found {
            begun.push(self.begin(now, item, OutwardKind::Report { kind, recipients }, None));
        }
    }

    fn next_warnings(&mut self, now: Duration, wall: UnixMillis, items: &Items, begun: &mut Vec<Outward>) {
        let mut found: BTreeMap<CommandId, Vec<u32>> = BTreeMap::new();
        let mut places = REPORTS_MAX.saturating_sub(self.under_way.len() - self.sendings);
        for (due, item, recipient) in items.warnings() {
            if *due > wall {
                self.wake(now + Duration::from_millis(due.0 - wall.0));
                break;
            }
            if self.is_waiting(now, (*item, *recipient)) {
                continue;
            }
            let is_new = !found.contains_key(item);
            if is_new && places == 0 {
                break;
            }
            places -= usize::from(is_new);
            let recipients = found.entry(*item).or_default();
            if recipients.len() < REPORT_RECIPIENTS_MAX {
                recipients.push(*recipient);
            }
        }
        for (item, recipients) in found {
            begun.push(self.begin(now, item, OutwardKind::Report { kind: ReportKind::Delayed, recipients }, None));
        }
    }

    /// Whether something is under way for a recipient, or is not begun again yet.
    fn is_waiting(&mut self, now: Duration, id: RecipientId) -> bool {
        if self.busy.contains_key(&id) {
            return true;
        }
        match self.again.get(&id).map(|(until, _)| *until).filter(|until| *until > now) {
            Some(until) => {
                self.wake(until);
                true
            }
            None => false,
        }
    }

    fn begin(&mut self, now: Duration, item: CommandId, what: OutwardKind, pace: Option<Pace>) -> Outward {
        self.last += 1;
        for recipient in recipients_of(&what) {
            self.busy.insert((item, recipient), self.last);
        }
        let begun = Outward { number: self.last, item, what };
        self.under_way.insert(self.last, UnderWay { outward: begun.clone(), begun: now, pace });
        begun
    }

    fn wake(&mut self, at: Duration) {
        self.wakes_at = Some(self.wakes_at.map_or(at, |set| set.min(at)));
    }

    fn release(&mut self, id: RecipientId) {
        self.busy.remove(&id);
    }

    fn again_later(&mut self, now: Duration, id: RecipientId) {
        self.release(id);
        let failed = self.again.get(&id).map_or(0, |(_, failed)| *failed);
        let pause = AGAIN_FIRST.saturating_mul(1 << failed.min(16)).min(AGAIN_MAX);
        self.again.insert(id, (now + pause, failed.saturating_add(1)));
    }
}

fn recipients_of(what: &OutwardKind) -> Vec<u32> {
    match what {
        OutwardKind::Send { recipients, .. } => recipients.iter().map(|(recipient, _)| *recipient).collect(),
        OutwardKind::Report { recipients, .. } => recipients.clone(),
    }
}
