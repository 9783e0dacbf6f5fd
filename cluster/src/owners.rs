//! What owners have in flight in a term: for each mailbox at most one entry, whose slot only its own verdict
//! frees.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_storage::{Index, MailboxId};

use crate::plant::{self, Fault};
use crate::seam::RequestId;

/// New owners that may wait for one slot; one actor at a time is usual.
const WAITERS_MAX: usize = 16;

/// The answer to who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAnswer {
    Free,
    /// Answered when the entry in flight has its verdict.
    Wait,
    /// Too many wait.
    Full,
}

#[derive(Default)]
struct Slot {
    index: Option<Index>,
    waiting: Vec<RequestId>,
}

/// A proposal that is appended and has no verdict.
struct InFlight {
    /// Who asked.
    request: RequestId,
    /// Whose slot it has.
    mailbox: Option<MailboxId>,
}

/// Proposals of one replica that are appended and have no verdict.
#[derive(Default)]
pub struct Owners {
    in_flight: BTreeMap<Index, InFlight>,
    slots: BTreeMap<MailboxId, Slot>,
}

impl Owners {
    /// Whether an entry of the mailbox is in flight.
    pub fn is_taken(&self, mailbox: MailboxId) -> bool {
        self.slots.get(&mailbox).is_some_and(|s| s.index.is_some())
    }

    /// Whether somebody waits for the verdict on this entry.
    pub fn is_in_flight(&self, index: Index) -> bool {
        self.in_flight.contains_key(&index)
    }

    /// Whether an entry in flight changes what its mailbox is, so that its verdict waits until it is visible. A part of a
    /// body does not: what makes the body live comes behind all its parts.
    pub fn has_slot(&self, index: Index) -> bool {
        self.in_flight.get(&index).is_some_and(|entry| entry.mailbox.is_some())
    }

    /// A proposal was appended here. With a mailbox it takes the slot.
    pub fn appended(&mut self, request: RequestId, index: Index, mailbox: Option<MailboxId>) {
        if let Some(mailbox) = mailbox {
            let slot = self.slots.entry(mailbox).or_default();
            let free = slot.index.is_none() || plant::is(Fault::TwoEntriesInFlight);
            assert!(free, "two entries of mailbox {mailbox} in flight");
            slot.index = Some(index);
        }
        self.in_flight.insert(index, InFlight { request, mailbox });
    }

    /// Asks for a free slot.
    pub fn await_slot(&mut self, request: RequestId, mailbox: MailboxId) -> SlotAnswer {
        match self.slots.get_mut(&mailbox).filter(|s| s.index.is_some()) {
            None => SlotAnswer::Free,
            Some(_) if plant::is(Fault::TwoEntriesInFlight) => SlotAnswer::Free,
            Some(slot) if slot.waiting.len() == WAITERS_MAX => SlotAnswer::Full,
            Some(slot) => {
                slot.waiting.push(request);
                SlotAnswer::Wait
            }
        }
    }

    /// An entry has its verdict: its request and those that waited for its slot.
    pub fn decided(&mut self, index: Index) -> Option<(RequestId, Vec<RequestId>)> {
        let InFlight { request, mailbox } = self.in_flight.remove(&index)?;
        let waiting = mailbox.and_then(|m| self.slots.remove(&m)).map_or(Vec::new(), |slot| {
            let own = slot.index == Some(index) || plant::is(Fault::TwoEntriesInFlight);
            assert!(own, "the slot of {:?} freed by entry {index}", slot.index);
            if plant::is(Fault::SlotNeverFreed) { Vec::new() } else { slot.waiting }
        });
        Some((request, waiting))
    }

    /// The term is over: requests whose outcome is not known here, and those that waited for slots.
    pub fn term_over(&mut self) -> (Vec<RequestId>, Vec<RequestId>) {
        let unknown = std::mem::take(&mut self.in_flight).into_values().map(|e| e.request).collect();
        let waiting: BTreeSet<RequestId> =
            std::mem::take(&mut self.slots).into_values().flat_map(|s| s.waiting).collect();
        (unknown, waiting.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_freed_only_by_its_own_verdict() {
        let (a, b) = (MailboxId([1; 16]), MailboxId([2; 16]));
        let mut owners = Owners::default();
        owners.appended(RequestId(1), Index(5), Some(a));
        owners.appended(RequestId(2), Index(6), Some(b));
        owners.appended(RequestId(3), Index(7), None);
        assert_eq!(owners.await_slot(RequestId(4), a), SlotAnswer::Wait);
        assert_eq!(owners.await_slot(RequestId(5), MailboxId([3; 16])), SlotAnswer::Free);
        assert_eq!(owners.decided(Index(6)), Some((RequestId(2), vec![])));
        assert!(owners.is_taken(a) && !owners.is_taken(b));
        assert_eq!(owners.decided(Index(5)), Some((RequestId(1), vec![RequestId(4)])));
        assert_eq!(owners.decided(Index(5)), None);
        assert_eq!(owners.term_over(), (vec![RequestId(3)], vec![]));
    }

    #[test]
    #[should_panic(expected = "two entries of mailbox")]
    fn two_entries_in_flight_are_a_bug_that_stops() {
        let mut owners = Owners::default();
        owners.appended(RequestId(1), Index(5), Some(MailboxId([1; 16])));
        owners.appended(RequestId(2), Index(6), Some(MailboxId([1; 16])));
    }

    #[test]
    fn so_many_may_wait_for_a_slot_and_no_more() {
        let a = MailboxId([1; 16]);
        let mut owners = Owners::default();
        owners.appended(RequestId(1), Index(5), Some(a));
        let answers: Vec<SlotAnswer> =
            (0..=WAITERS_MAX as u64).map(|n| owners.await_slot(RequestId(10 + n), a)).collect();
        assert!(answers[..WAITERS_MAX].iter().all(|a| *a == SlotAnswer::Wait));
        assert_eq!(answers[WAITERS_MAX], SlotAnswer::Full);
        assert_eq!(owners.term_over().1.len(), WAITERS_MAX);
    }
}
