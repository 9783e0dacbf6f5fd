//! What the owner of a queue mailbox has done for each recipient, when, and what follows from how it ended. What is to be
//! done stands in the mailbox's rows; only what is under way, and when it is tried again, is in memory: a successor begins
//! with everything at once.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_storage::{CommandId, MailboxId, PartitionId};

use super::items::{Items, RecipientId};
use crate::accepted::{DeliveryStage, HeldBecause, QueueChange, QueueOrigin, QueuePosition};
use crate::plant::{self, Fault};

/// Errands of one queue mailbox that are under way at once.
pub const ERRANDS_MAX: usize = 32;
/// Of these, so many are for recipients for whom the last attempt failed: whoever can't be reached keeps nobody waiting who can.
pub const ERRANDS_AGAIN_MAX: usize = 8;
/// Before an errand that failed is tried again for the first time; twice as long each time after.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// No longer than this.
pub const RETRY_MAX: Duration = Duration::from_secs(60);

/// Something to be done for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Names it for this owner; under this number its end is told.
    pub number: u64,
    /// The recipient's mailbox.
    pub mailbox: MailboxId,
    /// The item and the recipient, and the state of the queue on which this was decided.
    pub origin: QueueOrigin,
    /// What is done.
    pub what: ErrandKind,
}

/// The kinds of errands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrandKind {
    /// The message is put into the mailbox.
    Deliver,
    /// The mailbox is told that it may forget where it has it from.
    Release,
}

/// How an errand ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrandOutcome {
    /// It is done, and durable.
    Done,
    /// The mailbox has released later ones of this queue: it is to be decided on the present state.
    Stale,
    /// There is no such mailbox, as a read barrier of the control group says.
    NoSuchMailbox,
    /// It was not done, or nobody knows.
    Failed,
}

/// The errands of one owner.
#[derive(Debug, Default)]
pub struct Errands {
    under_way: BTreeMap<RecipientId, u64>,
    numbers: BTreeMap<u64, (RecipientId, ErrandKind)>,
    /// When those that failed are tried again, and how often they failed.
    waits: BTreeMap<RecipientId, (Duration, u32)>,
    last: u64,
}

impl Errands {
    /// What is to be begun now: first for those for whom nothing failed yet, in the order in which they were accepted.
    pub fn next(&mut self, now: Duration, items: &Items, queue: PartitionId, at: QueuePosition) -> Vec<Errand> {
        let mut begun = Vec::new();
        if self.under_way.len() >= ERRANDS_MAX || !items.has_open() {
            return begun;
        }
        self.waits.retain(|id, _| items.recipient(*id).is_some());
        let is_new = |id: &RecipientId| !self.under_way.contains_key(id) && !self.waits.contains_key(id);
        let mut chosen: Vec<RecipientId> =
            items.open().filter(is_new).take(ERRANDS_MAX - self.under_way.len()).collect();
        let is_due = |(id, (until, _)): &(&RecipientId, &(Duration, u32))| {
            *until <= now && !self.under_way.contains_key(*id) && items.is_open(**id)
        };
        let mut again: Vec<(Duration, RecipientId)> =
            self.waits.iter().filter(is_due).map(|(id, (until, _))| (*until, *id)).collect();
        again.sort_unstable();
        let places = ERRANDS_AGAIN_MAX.saturating_sub(self.again_under_way());
        let places = places.min(ERRANDS_MAX - self.under_way.len() - chosen.len());
        chosen.extend(again.into_iter().take(places).map(|(_, id)| id));
        for id in chosen {
            let Some(recipient) = items.recipient(id) else { continue };
            let what = match recipient.stage {
                DeliveryStage::Waiting => ErrandKind::Deliver,
                DeliveryStage::Delivered => ErrandKind::Release,
                DeliveryStage::Held(_) => continue,
            };
            self.last += 1;
            self.under_way.insert(id, self.last);
            self.numbers.insert(self.last, (id, what));
            let origin = QueueOrigin { queue, at, item: id.0, recipient: id.1 };
            begun.push(Errand { number: self.last, mailbox: recipient.mailbox, origin, what });
        }
        begun
    }

    /// When [`Errands::next`] has more to begin, if nothing else happens before; None if it waits for nothing.
    pub fn wakes_at(&self) -> Option<Duration> {
        if self.under_way.len() >= ERRANDS_MAX || self.again_under_way() >= ERRANDS_AGAIN_MAX {
            return None;
        }
        self.waits.iter().filter(|(id, _)| !self.under_way.contains_key(id)).map(|(_, (until, _))| *until).min()
    }

    /// Errands under way for recipients for whom the last attempt failed.
    fn again_under_way(&self) -> usize {
        self.under_way.keys().filter(|id| self.waits.contains_key(id)).count()
    }

    /// An errand ended. Returns the change that it means for the queue; until [`Errands::changed`] says so, nothing else is
    /// done for that recipient.
    pub fn ended(&mut self, now: Duration, items: &Items, number: u64, outcome: ErrandOutcome) -> Option<QueueChange> {
        let (id, what) = self.numbers.remove(&number)?;
        let (item, recipient) = id;
        if items.recipient(id).is_none() {
            self.forget(id);
            return None;
        }
        match (what, outcome) {
            (ErrandKind::Deliver, ErrandOutcome::Done) => Some(QueueChange::Delivered { item, recipient }),
            // A mailbox that is gone knows nothing any more.
            (ErrandKind::Release, ErrandOutcome::Done | ErrandOutcome::NoSuchMailbox) => {
                Some(QueueChange::Released { item, recipient })
            }
            (ErrandKind::Deliver, ErrandOutcome::NoSuchMailbox) => {
                Some(QueueChange::Held { item, recipient, because: HeldBecause::NoSuchMailbox })
            }
            (_, ErrandOutcome::Stale) => {
                self.under_way.remove(&id);
                None
            }
            (ErrandKind::Deliver | ErrandKind::Release, ErrandOutcome::Failed) => {
                self.again_later(now, id);
                None
            }
        }
    }

    /// The change that an errand meant is visible, or was not made: then what it rests on is done again.
    pub fn changed(&mut self, now: Duration, item: CommandId, recipient: u32, is_made: bool) {
        let id = (item, recipient);
        if is_made {
            self.forget(id);
        } else {
            self.again_later(now, id);
        }
    }

    fn forget(&mut self, id: RecipientId) {
        self.under_way.remove(&id);
        self.waits.remove(&id);
    }

    fn again_later(&mut self, now: Duration, id: RecipientId) {
        self.under_way.remove(&id);
        if plant::is(Fault::QueueSleeps) {
            self.waits.insert(id, (Duration::MAX, 0));
            return;
        }
        let failed = self.waits.get(&id).map_or(0, |(_, failed)| *failed);
        let pause = RETRY_FIRST.saturating_mul(1 << failed.min(16)).min(RETRY_MAX);
        self.waits.insert(id, (now + pause, failed.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::UnixMillis;
    use mailraft_storage::body::BodyId;

    use super::super::items::{Item, Recipient};
    use super::*;

    const WALL: UnixMillis = UnixMillis(1_000);
    const ITEM: CommandId = CommandId([1; 16]);

    fn items(recipients: u32) -> Items {
        let recipient = |number| (number, Recipient { mailbox: MailboxId([1; 16]), stage: DeliveryStage::Waiting });
        let recipients = (0..recipients).map(recipient).collect();
        let mut items = Items::default();
        items.insert(ITEM, Item { accepted: WALL, body: BodyId([2; 16]), chunks: 1, size_bytes: 5, recipients });
        items
    }

    fn next(errands: &mut Errands, now: Duration, items: &Items) -> Vec<Errand> {
        errands.next(now, items, PartitionId(1), QueuePosition::default())
    }

    #[test]
    fn so_many_errands_are_under_way_and_each_that_ends_makes_room() {
        let (items, mut errands) = (items(ERRANDS_MAX as u32 + 5), Errands::default());
        let begun = next(&mut errands, Duration::ZERO, &items);
        assert_eq!(begun.len(), ERRANDS_MAX);
        assert!(next(&mut errands, Duration::ZERO, &items).is_empty());
        let change = errands.ended(Duration::ZERO, &items, begun[7].number, ErrandOutcome::Done);
        assert_eq!(change, Some(QueueChange::Delivered { item: ITEM, recipient: 7 }));
        assert!(next(&mut errands, Duration::ZERO, &items).is_empty(), "until that is visible");
        errands.changed(Duration::ZERO, ITEM, 7, true);
        assert_eq!(next(&mut errands, Duration::ZERO, &items).len(), 1);
        assert_eq!(errands.ended(Duration::ZERO, &items, begun[7].number, ErrandOutcome::Done), None, "it ends once");
    }

    #[test]
    fn those_for_whom_it_failed_keep_nobody_else_waiting() {
        let (items, mut errands) = (items(ERRANDS_MAX as u32 * 3), Errands::default());
        let mut now = Duration::ZERO;
        // Nobody of the first three quarters can be reached.
        let is_reached = |errand: &Errand| errand.origin.recipient >= ERRANDS_MAX as u32 * 9 / 4;
        let mut first = std::collections::BTreeSet::new();
        let mut under_way = next(&mut errands, now, &items);
        while first.len() < ERRANDS_MAX * 3 {
            assert!(!under_way.is_empty(), "something is always to be done");
            let errand = under_way.remove(0);
            first.insert(errand.origin.recipient);
            now += Duration::from_secs(2);
            if is_reached(&errand) {
                assert!(errands.ended(now, &items, errand.number, ErrandOutcome::Done).is_some());
            } else {
                assert_eq!(errands.ended(now, &items, errand.number, ErrandOutcome::Failed), None);
            }
            under_way.extend(next(&mut errands, now, &items));
            let again = under_way.iter().filter(|e| errands.waits.contains_key(&(ITEM, e.origin.recipient))).count();
            assert!(again <= ERRANDS_AGAIN_MAX, "{again} are tried again at once");
        }
        assert!(now <= Duration::from_secs(2 * 5 * ERRANDS_MAX as u64), "all were tried once within {now:?}");
        assert_eq!(under_way.len(), ERRANDS_AGAIN_MAX, "others are tried again");
        assert_eq!(errands.wakes_at(), None, "until one of them ends");
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later_and_never_given_up() {
        let (items, mut errands) = (items(1), Errands::default());
        let (mut now, mut pauses) = (Duration::ZERO, Vec::new());
        for _ in 0..14 {
            let begun = next(&mut errands, now, &items);
            assert_eq!(errands.ended(now, &items, begun[0].number, ErrandOutcome::Failed), None);
            assert!(next(&mut errands, now, &items).is_empty());
            let wakes_at = errands.wakes_at().unwrap();
            pauses.push(wakes_at - now);
            now = wakes_at;
        }
        assert_eq!((pauses[0], pauses[1], pauses[13]), (RETRY_FIRST, 2 * RETRY_FIRST, RETRY_MAX));
        // Whoever was told that it is accepted was promised that: it is tried for as long as it takes.
        now += Duration::from_secs(30 * 24 * 3_600);
        assert_eq!(next(&mut errands, now, &items).len(), 1);
    }

    #[test]
    fn a_mailbox_that_is_gone_holds_a_delivery_and_ends_a_release_and_what_is_stale_begins_at_once() {
        let (mut items, mut errands) = (items(1), Errands::default());
        let begun = next(&mut errands, Duration::ZERO, &items);
        assert_eq!(errands.ended(Duration::ZERO, &items, begun[0].number, ErrandOutcome::Stale), None);
        let begun = next(&mut errands, Duration::ZERO, &items);
        let change = errands.ended(Duration::ZERO, &items, begun[0].number, ErrandOutcome::NoSuchMailbox);
        let because = HeldBecause::NoSuchMailbox;
        assert_eq!(change, Some(QueueChange::Held { item: ITEM, recipient: 0, because }));
        errands.changed(Duration::ZERO, ITEM, 0, true);
        items.set_stage((ITEM, 0), DeliveryStage::Held(because));
        assert!(!items.has_open() && next(&mut errands, Duration::ZERO, &items).is_empty());
        items.set_stage((ITEM, 0), DeliveryStage::Delivered);
        let begun = next(&mut errands, Duration::ZERO, &items);
        assert_eq!(begun[0].what, ErrandKind::Release);
        let change = errands.ended(Duration::ZERO, &items, begun[0].number, ErrandOutcome::NoSuchMailbox);
        assert_eq!(change, Some(QueueChange::Released { item: ITEM, recipient: 0 }));
    }
}
