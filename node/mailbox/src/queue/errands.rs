//! What the owner of a queue mailbox has done for each recipient, when, and what follows from how it ended. What is to be
//! done stands in the mailbox's rows; only what is under way, and when it is tried again, is in memory: a successor begins
//! with everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailraft_storage::{CommandId, MailboxId, PartitionId, UnixMillis};

use super::items::{Items, RecipientId};
use crate::accepted::{Attempt, AttemptEnd, DeliveryStage, Diagnosis, QueueChange, QueueOrigin, QueuePosition};
use crate::plant::{self, Fault};

/// Errands of one queue mailbox that are under way at once.
pub const ERRANDS_MAX: usize = 32;
/// Of these, so many are for recipients for whom the last attempt failed: whoever can't be reached keeps nobody waiting who can.
pub const ERRANDS_AGAIN_MAX: usize = 8;
/// An errand that uploads more than this, in bytes, is a large one: such are bounded by their bytes as well.
pub const ERRAND_LARGE_ABOVE_BYTES: u64 = 1 << 20;
/// What the large errands of one queue mailbox upload at once, in bytes. One of them is always under way, however large.
pub const ERRANDS_UPLOAD_MAX_BYTES: u64 = 32 << 20;
/// Before an errand that failed is tried again for the first time; twice as long each time after.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// So much longer for each MiB that it uploads: what it cost was in vain.
pub const RETRY_FIRST_PER_MIB: Duration = Duration::from_millis(250);
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
    /// What is uploaded for it, in bytes: the message where its body is of several chunks, else nothing.
    pub upload_bytes: u64,
}

impl Errand {
    /// Whether it is bounded by its bytes too, and keeps no small one waiting.
    pub fn is_large(&self) -> bool {
        is_large(self.upload_bytes)
    }
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
    numbers: BTreeMap<u64, Begun>,
    /// Those that failed.
    waits: BTreeMap<RecipientId, Wait>,
    /// What the large errands under way upload, in bytes.
    uploads_bytes: u64,
    /// Where they upload it: nothing is released there meanwhile, or it would be stale when it is there.
    uploads_to: BTreeMap<u64, MailboxId>,
    /// The large errand that was begun last was for somebody for whom none had failed.
    large_was_first: bool,
    /// When it was last looked what is to be begun.
    looked: Duration,
    last: u64,
}

/// An errand that was begun and has not ended.
#[derive(Clone, Copy, Debug)]
struct Begun {
    id: RecipientId,
    what: ErrandKind,
    upload_bytes: u64,
}

/// An errand that failed.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// When it is tried again.
    until: Duration,
    /// How often it failed.
    failed: u32,
}

impl Errands {
    /// What is to be begun now: first for those for whom nothing failed yet, in the order in which they were accepted. A
    /// large one that finds no room waits for it, all large ones in turn, and small ones go past.
    pub fn next(&mut self, now: Duration, items: &Items, queue: PartitionId, at: QueuePosition) -> Vec<Errand> {
        self.looked = now;
        let mut begun = Vec::new();
        if self.under_way.len() >= ERRANDS_MAX || !items.has_errands() {
            return begun;
        }
        self.waits.retain(|id, _| items.recipient(*id).is_some());
        let mut again = self.due(now, items);
        let mut large_waits = false;
        // Those for whom it failed and others take turns where both are large.
        let large_again = again.iter().position(|id| is_large(upload_bytes(items, *id)));
        if let Some(position) =
            large_again.filter(|_| self.large_was_first && self.again_under_way() < ERRANDS_AGAIN_MAX)
        {
            let id = again.remove(position);
            large_waits = !self.begin_if_room(items, id, (queue, at), &mut begun);
        }
        // Those of whom something failed before come last.
        let all = items.open().map(|id| (id, false)).chain(again.into_iter().map(|id| (id, true)));
        for (id, is_again) in all {
            if self.under_way.len() >= ERRANDS_MAX || is_again && self.again_under_way() >= ERRANDS_AGAIN_MAX {
                break;
            }
            if self.under_way.contains_key(&id) || !is_again && self.waits.contains_key(&id) {
                continue;
            }
            if is_large(upload_bytes(items, id)) {
                large_waits = large_waits || !self.begin_if_room(items, id, (queue, at), &mut begun);
            } else {
                self.begin_if_room(items, id, (queue, at), &mut begun);
            }
        }
        begun
    }

    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        self.numbers.is_empty()
    }

    /// When [`Errands::next`] has more to begin, if nothing else happens before; None if it waits for nothing.
    pub fn wakes_at(&self) -> Option<Duration> {
        if self.under_way.len() >= ERRANDS_MAX || self.again_under_way() >= ERRANDS_AGAIN_MAX {
            return None;
        }
        // What was due when it was looked last, and was not begun, waits for another to end.
        let later = |(id, wait): &(&RecipientId, &Wait)| wait.until > self.looked && !self.under_way.contains_key(*id);
        self.waits.iter().filter(later).map(|(_, wait)| wait.until).min()
    }

    /// Errands under way for recipients for whom the last attempt failed.
    fn again_under_way(&self) -> usize {
        self.under_way.keys().filter(|id| self.waits.contains_key(id)).count()
    }

    /// Those that failed and are to be tried again, the longest due first.
    fn due(&self, now: Duration, items: &Items) -> Vec<RecipientId> {
        let is_due = |(id, wait): &(&RecipientId, &Wait)| {
            wait.until <= now && !self.under_way.contains_key(*id) && items.is_open(**id)
        };
        let due = self.waits.iter().filter(is_due).map(|(id, wait)| (wait.until, *id));
        due.collect::<BTreeSet<_>>().into_iter().map(|(_, id)| id).collect()
    }

    /// Begins what is to be done for a recipient. False if that is a large errand for which there is no room.
    fn begin_if_room(
        &mut self,
        items: &Items,
        id: RecipientId,
        (queue, at): (PartitionId, QueuePosition),
        begun: &mut Vec<Errand>,
    ) -> bool {
        let Some(recipient) = items.recipient(id) else { return true };
        let what = match recipient.stage {
            DeliveryStage::Waiting => ErrandKind::Deliver,
            DeliveryStage::Delivered => ErrandKind::Release,
            DeliveryStage::Held(_) | DeliveryStage::Deferred { .. } | DeliveryStage::Reporting(_) => return true,
        };
        let mailbox = recipient.mailbox;
        if what == ErrandKind::Release && self.uploads_to.values().any(|to| *to == mailbox) {
            return true;
        }
        let upload_bytes = upload_bytes(items, id);
        let with_it = self.uploads_bytes.saturating_add(upload_bytes);
        if is_large(upload_bytes) && !self.uploads_to.is_empty() && with_it > ERRANDS_UPLOAD_MAX_BYTES {
            return false;
        }
        self.last += 1;
        if is_large(upload_bytes) {
            self.uploads_bytes = with_it;
            self.uploads_to.insert(self.last, mailbox);
            self.large_was_first = !self.waits.contains_key(&id);
        }
        self.under_way.insert(id, self.last);
        self.numbers.insert(self.last, Begun { id, what, upload_bytes });
        let origin = QueueOrigin { queue, at, item: id.0, recipient: id.1 };
        begun.push(Errand { number: self.last, mailbox, origin, what, upload_bytes });
        true
    }

    /// An errand ended. Returns the change that it means for the queue; until [`Errands::changed`] says so, nothing else is
    /// done for that recipient.
    pub fn ended(
        &mut self,
        (now, wall): (Duration, UnixMillis),
        items: &Items,
        number: u64,
        outcome: ErrandOutcome,
    ) -> Option<QueueChange> {
        let Begun { id, what, upload_bytes } = self.numbers.remove(&number)?;
        if self.uploads_to.remove(&number).is_some() {
            self.uploads_bytes -= upload_bytes;
        }
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
                Some(QueueChange::Attempted { item, attempts: vec![no_such_mailbox(recipient, wall)] })
            }
            (_, ErrandOutcome::Stale) => {
                self.under_way.remove(&id);
                None
            }
            (ErrandKind::Deliver | ErrandKind::Release, ErrandOutcome::Failed) => {
                self.again_later(now, id, upload_bytes);
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
            self.again_later(now, id, 0);
        }
    }

    fn forget(&mut self, id: RecipientId) {
        self.under_way.remove(&id);
        self.waits.remove(&id);
    }

    fn again_later(&mut self, now: Duration, id: RecipientId, upload_bytes: u64) {
        self.under_way.remove(&id);
        if plant::is(Fault::QueueSleeps) {
            self.waits.insert(id, Wait { until: Duration::MAX, failed: 0 });
            return;
        }
        let failed = self.waits.get(&id).map_or(0, |wait| wait.failed);
        let uploaded = RETRY_FIRST_PER_MIB.saturating_mul(u32::try_from(upload_bytes >> 20).unwrap_or(u32::MAX));
        let first = RETRY_FIRST.saturating_add(uploaded);
        let pause = first.saturating_mul(1 << failed.min(16)).min(RETRY_MAX);
        self.waits.insert(id, Wait { until: now + pause, failed: failed.saturating_add(1) });
    }
}

fn is_large(upload_bytes: u64) -> bool {
    upload_bytes > ERRAND_LARGE_ABOVE_BYTES
}

/// What is uploaded for a recipient, in bytes, if something is to be done now.
fn upload_bytes(items: &Items, id: RecipientId) -> u64 {
    let Some(item) = items.get(id.0).filter(|item| item.chunks > 1) else { return 0 };
    match item.recipients.get(&id.1).map(|recipient| recipient.stage) {
        Some(DeliveryStage::Waiting) => item.size_bytes,
        Some(
            DeliveryStage::Delivered
            | DeliveryStage::Held(_)
            | DeliveryStage::Deferred { .. }
            | DeliveryStage::Reporting(_),
        )
        | None => 0,
    }
}

fn no_such_mailbox(recipient: u32, at: UnixMillis) -> Attempt {
    let text = "the account was deleted after the message was accepted".to_owned();
    let diagnosis = Diagnosis { at, host: None, status: "5.1.1".to_owned(), text, is_reply: false };
    Attempt { recipient, end: AttemptEnd::Failed, diagnosis }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::body::BodyId;

    use super::super::items::{Item, Recipient};
    use super::super::places::Sender;
    use super::*;
    use crate::accepted::HeldBecause;

    const WALL: UnixMillis = UnixMillis(1_000);
    const ITEM: CommandId = CommandId([1; 16]);

    fn items(recipients: u32) -> Items {
        let mut items = Items::default();
        insert(&mut items, ITEM, recipients, 5);
        items
    }

    /// Accepts a message for so many mailboxes.
    fn insert(items: &mut Items, id: CommandId, recipients: u32, size_bytes: u64) {
        let mailbox = |number: u32| MailboxId([number as u8 + 1; 16]);
        let recipient = |number| {
            (
                number,
                Recipient {
                    mailbox: mailbox(number),
                    domain: None,
                    sender: Sender::default(),
                    stage: DeliveryStage::Waiting,
                    wants_success: false,
                },
            )
        };
        let recipients = (0..recipients).map(recipient).collect();
        let chunks = mailraft_storage::body::chunk_count(size_bytes);
        items.insert(id, Item { accepted: WALL, body: BodyId([2; 16]), chunks, size_bytes, recipients });
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
        let change = errands.ended((Duration::ZERO, WALL), &items, begun[7].number, ErrandOutcome::Done);
        assert_eq!(change, Some(QueueChange::Delivered { item: ITEM, recipient: 7 }));
        assert!(next(&mut errands, Duration::ZERO, &items).is_empty(), "until that is visible");
        errands.changed(Duration::ZERO, ITEM, 7, true);
        assert_eq!(next(&mut errands, Duration::ZERO, &items).len(), 1);
        assert_eq!(
            errands.ended((Duration::ZERO, WALL), &items, begun[7].number, ErrandOutcome::Done),
            None,
            "it ends once"
        );
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
                assert!(errands.ended((now, WALL), &items, errand.number, ErrandOutcome::Done).is_some());
            } else {
                assert_eq!(errands.ended((now, WALL), &items, errand.number, ErrandOutcome::Failed), None);
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
    fn so_many_bytes_are_uploaded_at_once_and_small_errands_go_past_those_that_wait() {
        let (mut items, mut errands) = (Items::default(), Errands::default());
        let [large, huge, small] = [1, 2, 3].map(|n| CommandId([n; 16]));
        insert(&mut items, large, 9, ERRANDS_UPLOAD_MAX_BYTES / 4);
        insert(&mut items, huge, 2, 3 * ERRANDS_UPLOAD_MAX_BYTES);
        insert(&mut items, small, 5, ERRAND_LARGE_ABOVE_BYTES);
        let mut under_way = next(&mut errands, Duration::ZERO, &items);
        let of = |errands: &[Errand], item| errands.iter().filter(|errand| errand.origin.item == item).count();
        let counts = |errands: &[Errand]| [large, huge, small].map(|item| of(errands, item));
        assert_eq!(counts(&under_way), [4, 0, 5], "the bytes are full, and small ones have theirs");
        let (mut done, mut most_bytes) = (Vec::new(), 0);
        while !under_way.is_empty() {
            let bytes: u64 = under_way.iter().filter(|e| e.is_large()).map(|e| e.upload_bytes).sum();
            let is_alone = under_way.iter().filter(|e| e.is_large()).count() == 1;
            assert!(is_alone || bytes <= ERRANDS_UPLOAD_MAX_BYTES, "{bytes} bytes at once");
            most_bytes = most_bytes.max(bytes);
            let errand = under_way.remove(0);
            errands.ended((Duration::ZERO, WALL), &items, errand.number, ErrandOutcome::Done);
            items.remove((errand.origin.item, errand.origin.recipient));
            errands.changed(Duration::ZERO, errand.origin.item, errand.origin.recipient, true);
            done.push(errand);
            under_way.extend(next(&mut errands, Duration::ZERO, &items));
        }
        assert_eq!(counts(&done), [9, 2, 5]);
        assert_eq!(most_bytes, 3 * ERRANDS_UPLOAD_MAX_BYTES, "one is always under way, however large");
        assert_eq!((errands.uploads_bytes, errands.uploads_to.len()), (0, 0));
    }

    #[test]
    fn an_upload_that_failed_waits_by_what_it_cost_and_keeps_no_other_waiting() {
        let (mut items, mut errands) = (Items::default(), Errands::default());
        let size = 40 << 20;
        insert(&mut items, ITEM, 3, size);
        let mut first = Vec::new();
        for _ in 0..3 {
            let begun = next(&mut errands, Duration::ZERO, &items);
            assert_eq!(begun.len(), 1);
            errands.ended((Duration::ZERO, WALL), &items, begun[0].number, ErrandOutcome::Failed);
            first.push(begun[0].origin.recipient);
        }
        assert_eq!(first, [0, 1, 2]);
        assert!(next(&mut errands, Duration::ZERO, &items).is_empty());
        let pause = errands.wakes_at().unwrap();
        assert_eq!(pause, RETRY_FIRST + 40 * RETRY_FIRST_PER_MIB);
        // All are due: one is tried, and no time is named at which the others could be.
        assert_eq!(next(&mut errands, pause, &items).len(), 1);
        assert_eq!(errands.wakes_at(), None);
        // Another that is accepted meanwhile has every other turn.
        insert(&mut items, CommandId([9; 16]), 3, size);
        let (mut now, mut turns) = (pause, Vec::new());
        for _ in 0..6 {
            errands.ended((now, WALL), &items, errands.last, ErrandOutcome::Failed);
            now += Duration::from_secs(120);
            let begun = next(&mut errands, now, &items);
            assert_eq!(begun.len(), 1);
            turns.push(begun[0].origin.item == ITEM);
        }
        assert_eq!(turns, [false, true, false, true, false, true]);
    }

    #[test]
    fn nothing_is_released_where_a_large_message_is_on_its_way() {
        let (mut items, mut errands) = (Items::default(), Errands::default());
        let [small, large] = [1, 2].map(|n| CommandId([n; 16]));
        insert(&mut items, small, 2, 5);
        (0..2).for_each(|recipient| assert!(items.set_stage((small, recipient), DeliveryStage::Delivered)));
        insert(&mut items, large, 1, ERRANDS_UPLOAD_MAX_BYTES);
        items.set_stage((small, 0), DeliveryStage::Waiting);
        let begun = next(&mut errands, Duration::ZERO, &items);
        assert_eq!(begun.len(), 3);
        let delivery = begun.iter().find(|errand| errand.origin.item == small && errand.origin.recipient == 0).unwrap();
        let change = errands.ended((Duration::ZERO, WALL), &items, delivery.number, ErrandOutcome::Done);
        assert_eq!(change, Some(QueueChange::Delivered { item: small, recipient: 0 }));
        items.set_stage((small, 0), DeliveryStage::Delivered);
        errands.changed(Duration::ZERO, small, 0, true);
        assert!(next(&mut errands, Duration::ZERO, &items).is_empty(), "or the large one would be stale");
        let delivery = begun.iter().find(|errand| errand.is_large()).unwrap();
        errands.ended((Duration::ZERO, WALL), &items, delivery.number, ErrandOutcome::Failed);
        let begun = next(&mut errands, Duration::ZERO, &items);
        assert_eq!(begun.iter().map(|errand| errand.what).collect::<Vec<_>>(), [ErrandKind::Release]);
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later_and_never_given_up() {
        let (items, mut errands) = (items(1), Errands::default());
        let (mut now, mut pauses) = (Duration::ZERO, Vec::new());
        for _ in 0..14 {
            let begun = next(&mut errands, now, &items);
            assert_eq!(errands.ended((now, WALL), &items, begun[0].number, ErrandOutcome::Failed), None);
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
        assert_eq!(errands.ended((Duration::ZERO, WALL), &items, begun[0].number, ErrandOutcome::Stale), None);
        let begun = next(&mut errands, Duration::ZERO, &items);
        let change = errands.ended((Duration::ZERO, WALL), &items, begun[0].number, ErrandOutcome::NoSuchMailbox);
        let attempts = vec![no_such_mailbox(0, WALL)];
        assert_eq!(change, Some(QueueChange::Attempted { item: ITEM, attempts }));
        errands.changed(Duration::ZERO, ITEM, 0, true);
        items.set_stage((ITEM, 0), DeliveryStage::Held(HeldBecause::Operator));
        assert!(!items.has_errands() && next(&mut errands, Duration::ZERO, &items).is_empty());
        items.set_stage((ITEM, 0), DeliveryStage::Delivered);
        let begun = next(&mut errands, Duration::ZERO, &items);
        assert_eq!(begun[0].what, ErrandKind::Release);
        let change = errands.ended((Duration::ZERO, WALL), &items, begun[0].number, ErrandOutcome::NoSuchMailbox);
        assert_eq!(change, Some(QueueChange::Released { item: ITEM, recipient: 0 }));
    }
}
