//! The step between applied and visible. What an entry did is told to nobody before it is visible: neither its verdict,
//! nor that its mailbox's slot is free, nor an answer to a read barrier, which would let it be read. Today an entry is
//! visible as soon as it is applied here.

use std::collections::VecDeque;

use mailraft_storage::{Index, Verdict};

/// Verdicts that may wait to become visible; past it nothing more is proposed.
pub const VERDICTS_MAX: usize = 65_536;

/// How far one replica's entries are visible, and the verdicts that wait for that, in the order of the log.
#[derive(Default)]
pub struct Visibility {
    visible: Index,
    waiting: VecDeque<(Index, Verdict)>,
    /// Nothing after this index is visible yet.
    #[cfg(test)]
    held_at: Option<Index>,
}

impl Visibility {
    /// Of a replica that begins with these entries applied.
    pub fn from(applied: Index) -> Self {
        Visibility { visible: applied, ..Visibility::default() }
    }

    /// Everything up to here may be seen.
    pub fn index(&self) -> Index {
        self.visible
    }

    /// Whether so many verdicts wait that no further ones should be caused.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= VERDICTS_MAX
    }

    /// An entry has its verdict, and somebody waits for it.
    ///
    /// # Panics
    /// If verdicts do not come in the order of the log.
    pub fn decided(&mut self, index: Index, verdict: Verdict) {
        assert!(self.waiting.back().is_none_or(|(last, _)| *last < index), "the verdict on {index} comes out of order");
        self.waiting.push_back((index, verdict));
    }

    /// Entries up to here are applied. Gives the verdicts that may be told now, in the order of the log.
    pub fn applied(&mut self, applied: Index) -> Vec<(Index, Verdict)> {
        let visible = self.may_be_seen(applied);
        self.visible = self.visible.max(visible);
        let ready = self.waiting.partition_point(|(index, _)| *index <= self.visible);
        self.waiting.drain(..ready).collect()
    }

    /// Today's rule: what is applied may be seen.
    #[cfg(not(test))]
    fn may_be_seen(&self, applied: Index) -> Index {
        applied
    }

    #[cfg(test)]
    fn may_be_seen(&self, applied: Index) -> Index {
        applied.min(self.held_at.unwrap_or(applied))
    }

    /// Holds everything after this index back, or nothing any more.
    #[cfg(test)]
    pub fn hold_at(&mut self, index: Option<Index>) {
        self.held_at = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_wait_for_their_index_and_come_in_the_order_of_the_log() {
        let mut visibility = Visibility::from(Index(4));
        visibility.hold_at(Some(Index(6)));
        for (index, verdict) in [(5, Verdict::Accepted), (7, Verdict::Missing), (8, Verdict::Accepted)] {
            visibility.decided(Index(index), verdict);
        }
        assert_eq!(visibility.applied(Index(9)), [(Index(5), Verdict::Accepted)]);
        assert_eq!((visibility.index(), visibility.applied(Index(9)).len()), (Index(6), 0));
        visibility.hold_at(None);
        assert_eq!(visibility.applied(Index(9)), [(Index(7), Verdict::Missing), (Index(8), Verdict::Accepted)]);
        assert_eq!(visibility.index(), Index(9));
    }

    #[test]
    fn so_many_verdicts_may_wait_and_no_more() {
        let mut visibility = Visibility::default();
        visibility.hold_at(Some(Index(0)));
        for index in 1..=VERDICTS_MAX as u64 {
            assert!(!visibility.is_full());
            visibility.decided(Index(index), Verdict::Accepted);
        }
        assert!(visibility.is_full());
        visibility.hold_at(None);
        assert_eq!(visibility.applied(Index(u64::MAX)).len(), VERDICTS_MAX);
        assert!(!visibility.is_full());
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn verdicts_out_of_order_are_a_bug_that_stops() {
        let mut visibility = Visibility::default();
        visibility.decided(Index(2), Verdict::Accepted);
        visibility.decided(Index(1), Verdict::Accepted);
    }
}
