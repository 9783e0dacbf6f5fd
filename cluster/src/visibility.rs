//! The step between applied and visible. What an entry did is told to nobody before it is visible: neither its verdict,
//! nor that its mailbox's slot is free, nor an answer to a read barrier, which would let it be read.
//!
//! In a cluster of one region an entry is visible as soon as it is applied here. With others it is, on the leader:
//!
//! * under `geo` once every region of the sync set holds it. So nothing is ever answered that a majority of a backup
//!   region's standbys lack;
//! * under `region` as long as the oldest entry that they do not hold was applied no longer than `rpo_max` ago. Past that
//!   it waits as under `geo`: what the home's loss takes was answered within `rpo_max`. The clock runs through a suspend,
//!   and a new leader, which can't know how old what it found is, waits as under `geo` for its term's first entry.
//!
//! Committed comes first in either: what is held and not committed may be overwritten by the home's next leader, in the
//! backup region too. Other replicas know only what their leader tells them.

use std::collections::VecDeque;
use std::time::Duration;

use mailraft_storage::{Index, Verdict};

use crate::plant::{self, Fault};

/// Verdicts that may wait to become visible; past it nothing more is proposed.
pub const VERDICTS_MAX: usize = 65_536;
/// Entries that were applied within so long of each other count as applied together, as the first of them was.
const TOGETHER: Duration = Duration::from_millis(10);
/// Moments that are remembered at which entries were applied that are not held; past it those become one that lie close to
/// each other for how long ago they are, and else the last takes in what follows.
const MOMENTS_MAX: usize = 4_096;
/// Moments become one if all of it was applied within a hundredth of how long ago that is. So 1,500 of them reach from a second to
/// a month.
const CLOSE: u32 = 100;

/// Who has a say in what is visible, beside that it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Nobody: there is one region.
    None,
    /// The regions of the sync set, as their leader knows.
    Held {
        /// They hold the log up to here.
        upto: Index,
        /// For so long answers may run ahead of that, if they may.
        rpo_max: Option<Duration>,
        /// But not past here: what follows rests on what is not visible itself.
        needs_met: Index,
    },
    /// The leader, which told that entries up to here are visible.
    Told(Index),
}

/// How far one replica's entries are visible, and the verdicts that wait for that, in the order of the log.
#[derive(Default)]
pub struct Visibility {
    visible: Index,
    waiting: VecDeque<(Index, Verdict, Duration)>,
    /// How long each verdict had waited for other regions that became visible since that was last asked.
    waited: Vec<Duration>,
    unheld: Unheld,
    /// Nothing after this index is visible yet.
    #[cfg(test)]
    held_at: Option<Index>,
}

impl Visibility {
    /// Of a replica that begins with these entries visible.
    pub fn from(visible: Index) -> Self {
        Visibility { visible, ..Visibility::default() }
    }

    /// Everything up to here may be seen.
    pub fn index(&self) -> Index {
        self.visible
    }

    /// Whether so many verdicts wait that no further ones should be caused.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= VERDICTS_MAX
    }

    /// For how long the oldest entry has been applied here that is not held elsewhere. Zero without other regions, or if
    /// they hold everything.
    pub fn unheld_for(&self, now: Duration) -> Duration {
        self.unheld.oldest(now).unwrap_or_default()
    }

    /// For how long the oldest entry has been applied here that is not among those up to `held`: what one region holds, where
    /// others hold less.
    pub fn unheld_from(&self, held: Index, now: Duration) -> Duration {
        self.unheld.oldest_after(held, now).unwrap_or_default()
    }

    /// This replica leads from now on: how old what it found is, it does not know.
    pub fn leads(&mut self) {
        self.unheld = Unheld::default();
    }

    /// So many verdicts wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How long each verdict had waited for other regions that became visible since the last call.
    pub fn take_waited(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.waited)
    }

    /// An entry has its verdict, and somebody waits for it.
    ///
    /// # Panics
    /// If verdicts do not come in the order of the log.
    pub fn decided(&mut self, now: Duration, index: Index, verdict: Verdict) {
        let last = self.waiting.back();
        assert!(last.is_none_or(|(last, _, _)| *last < index), "the verdict on {index} comes out of order");
        self.waiting.push_back((index, verdict, now));
    }

    /// Entries up to here are applied. Gives the verdicts that may be told now, in the order of the log.
    pub fn applied(&mut self, now: Duration, applied: Index, confirmation: Confirmation) -> Vec<(Index, Verdict)> {
        let visible = self.may_be_seen(now, applied, confirmation);
        self.visible = self.visible.max(visible);
        let ready = self.waiting.partition_point(|(index, _, _)| *index <= self.visible);
        let ready: Vec<_> = self.waiting.drain(..ready).collect();
        if let Confirmation::Held { .. } = confirmation {
            self.waited.extend(ready.iter().map(|(_, _, since)| now.saturating_sub(*since)));
        }
        ready.into_iter().map(|(index, verdict, _)| (index, verdict)).collect()
    }

    fn may_be_seen(&mut self, now: Duration, applied: Index, confirmation: Confirmation) -> Index {
        #[cfg(test)]
        let applied = applied.min(self.held_at.unwrap_or(applied));
        match confirmation {
            Confirmation::None => applied,
            Confirmation::Told(upto) => applied.min(upto),
            Confirmation::Held { upto, rpo_max, needs_met } => {
                let upto = upto.min(needs_met);
                self.unheld.applied(now, applied, upto);
                let within = rpo_max.is_some_and(|max| self.unheld_for(now) <= max);
                if within || plant::is(Fault::ShownBeforeHeld) { applied.min(needs_met) } else { applied.min(upto) }
            }
        }
    }

    /// Holds everything after this index back, or nothing any more.
    #[cfg(test)]
    pub fn hold_at(&mut self, index: Option<Index>) {
        self.held_at = index;
    }
}

/// When what is applied and not held was applied.
#[derive(Default)]
struct Unheld {
    /// A moment, and the last entry applied then or soon after.
    moments: VecDeque<(Duration, Index)>,
}

impl Unheld {
    fn applied(&mut self, now: Duration, applied: Index, held: Index) {
        while self.moments.front().is_some_and(|(_, upto)| *upto <= held) {
            self.moments.pop_front();
        }
        if self.moments.len() >= MOMENTS_MAX {
            self.thin_out(now);
        }
        let full = self.moments.len() >= MOMENTS_MAX;
        match self.moments.back_mut() {
            Some((_, upto)) if *upto >= applied => {}
            Some((since, upto)) if full || now.saturating_sub(*since) < TOGETHER => *upto = applied,
            Some(_) => self.moments.push_back((now, applied)),
            None if applied > held => self.moments.push_back((now, applied)),
            None => {}
        }
    }

    /// Moments that lie close to each other become one, as old as the oldest of them. A region that lacks the newest alone is
    /// not said to lack more because another has been away for hours.
    fn thin_out(&mut self, now: Duration) {
        let mut moments = std::mem::take(&mut self.moments).into_iter().peekable();
        while let Some((since, upto)) = moments.next() {
            // What is of this moment was applied before the next.
            let end = moments.peek().map_or(now, |(next, _)| *next);
            let close = now.saturating_sub(end) / CLOSE;
            match self.moments.back_mut().filter(|(first, _)| end.saturating_sub(*first) <= close) {
                Some((_, last)) => *last = upto,
                None => self.moments.push_back((since, upto)),
            }
        }
    }

    fn oldest(&self, now: Duration) -> Option<Duration> {
        self.oldest_after(Index(0), now)
    }

    /// The moment in which the first entry after this one was applied is that, or an earlier one.
    fn oldest_after(&self, held: Index, now: Duration) -> Option<Duration> {
        let first = self.moments.partition_point(|(_, upto)| *upto <= held);
        self.moments.get(first).map(|(since, _)| now.saturating_sub(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn held(upto: u64, rpo_max: Option<Duration>) -> Confirmation {
        Confirmation::Held { upto: Index(upto), rpo_max, needs_met: Index(u64::MAX) }
    }

    #[test]
    fn verdicts_wait_for_their_index_and_come_in_the_order_of_the_log() {
        let mut visibility = Visibility::from(Index(4));
        visibility.hold_at(Some(Index(6)));
        for (index, verdict) in [(5, Verdict::Accepted), (7, Verdict::Missing), (8, Verdict::Accepted)] {
            visibility.decided(NOW, Index(index), verdict);
        }
        assert_eq!(visibility.applied(NOW, Index(9), Confirmation::None), [(Index(5), Verdict::Accepted)]);
        assert_eq!(visibility.index(), Index(6));
        assert!(visibility.applied(NOW, Index(9), Confirmation::None).is_empty());
        visibility.hold_at(None);
        let rest = [(Index(7), Verdict::Missing), (Index(8), Verdict::Accepted)];
        assert_eq!(visibility.applied(NOW, Index(9), Confirmation::None), rest);
        assert_eq!(visibility.index(), Index(9));
    }

    #[test]
    fn so_many_verdicts_may_wait_and_no_more() {
        let mut visibility = Visibility::default();
        visibility.hold_at(Some(Index(0)));
        for index in 1..=VERDICTS_MAX as u64 {
            assert!(!visibility.is_full());
            visibility.decided(NOW, Index(index), Verdict::Accepted);
        }
        assert!(visibility.is_full());
        visibility.hold_at(None);
        assert_eq!(visibility.applied(NOW, Index(u64::MAX), Confirmation::None).len(), VERDICTS_MAX);
        assert!(!visibility.is_full());
    }

    #[test]
    fn under_geo_nothing_is_visible_that_is_not_both_applied_and_held() {
        let mut visibility = Visibility::default();
        for (applied, held_upto, visible) in [(5, 3, 3), (5, 9, 5), (8, 2, 5), (8, 8, 8)] {
            visibility.applied(NOW, Index(applied), held(held_upto, None));
            assert_eq!(visibility.index(), Index(visible), "applied {applied}, held {held_upto}");
        }
        visibility.applied(NOW, Index(20), Confirmation::Told(Index(11)));
        assert_eq!(visibility.index(), Index(11));
        visibility.applied(NOW, Index(20), Confirmation::Told(Index(30)));
        assert_eq!(visibility.index(), Index(20));
    }

    #[test]
    fn under_region_answers_run_ahead_for_the_bound_and_go_on_when_the_oldest_is_held() {
        let mut visibility = Visibility::default();
        let mut sees = |ms, applied, upto| {
            visibility.applied(at(ms), Index(applied), held(upto, Some(at(1_000))));
            visibility.index().0
        };
        assert_eq!(sees(0, 5, 5), 5);
        // The first that is not held is applied at 100 ms.
        assert_eq!(sees(100, 6, 5), 6);
        assert_eq!(sees(900, 7, 5), 7);
        assert_eq!(sees(1_100, 8, 5), 8);
        assert_eq!(sees(1_101, 9, 5), 8);
        // Held up to 7: the oldest that is not was applied at 1,100 ms.
        assert_eq!(sees(2_000, 10, 7), 10);
        assert_eq!(sees(2_101, 11, 7), 10);
        assert_eq!(sees(9_000, 11, 11), 11);
        // A suspend of an hour ends the bound at once.
        assert_eq!(sees(9_100, 12, 11), 12);
        assert_eq!(sees(3_609_100, 13, 11), 12);
    }

    #[test]
    fn nothing_is_visible_whose_need_is_not_and_it_waits_as_if_it_were_not_held() {
        for rpo_max in [None, Some(at(1_000))] {
            let mut visibility = Visibility::default();
            let mut sees = |ms, needs_met| {
                let needs_met = Index(needs_met);
                let confirmation = Confirmation::Held { upto: Index(9), rpo_max, needs_met };
                visibility.applied(at(ms), Index(9), confirmation);
                (visibility.index().0, visibility.unheld_for(at(ms)))
            };
            assert_eq!(sees(0, 4), (4, at(0)));
            assert_eq!(sees(300, 6), (6, at(300)));
            assert_eq!(sees(400, 9), (9, at(0)));
        }
    }

    #[test]
    fn moments_are_bounded_and_those_that_are_one_count_as_old_as_the_oldest() {
        let mut unheld = Unheld::default();
        let last = 20 * MOMENTS_MAX as u64;
        for n in 1..=last {
            unheld.applied(at(n * 20), Index(n), Index(0));
            assert!(unheld.moments.len() <= MOMENTS_MAX);
        }
        let now = at(last * 20 + 5);
        assert_eq!(unheld.oldest(now), Some(now - at(20)));
        for held in 0..last {
            let (said, real) = (unheld.oldest_after(Index(held), now).unwrap(), now - at((held + 1) * 20));
            assert!(said >= real && said - real <= at(20) + real / CLOSE, "held up to {held}: {said:?} for {real:?}");
        }
        assert_eq!(unheld.oldest_after(Index(last - 1), now), Some(at(5)));
        unheld.applied(now, Index(last), Index(last));
        assert_eq!(unheld.oldest(now), None);
    }

    #[test]
    fn where_moments_can_not_be_thinned_out_the_last_takes_in_what_follows() {
        let mut unheld = Unheld::default();
        // Each is more than a hundredth longer ago than the next, up to a million years: none lies close.
        let ago = |n: usize| Duration::from_secs_f64(1e-6 * 1.011_f64.powi(i32::try_from(MOMENTS_MAX - n).unwrap()));
        let ages: Vec<Duration> = (0..MOMENTS_MAX).map(ago).collect();
        let now = ages[0] * 2;
        unheld.moments = ages.iter().enumerate().map(|(n, ago)| (now - *ago, Index(n as u64 + 1))).collect();
        unheld.applied(now, Index(90_000), Index(0));
        assert_eq!((unheld.moments.len(), unheld.moments[MOMENTS_MAX - 1].1), (MOMENTS_MAX, Index(90_000)));
        assert_eq!(unheld.oldest(now), Some(ages[0]));
    }

    #[test]
    fn what_one_region_lacks_is_as_old_as_that_whatever_another_lacks() {
        let mut visibility = Visibility::default();
        for n in 1..=50 {
            visibility.applied(at(n * 100), Index(n), held(0, None));
        }
        assert_eq!(visibility.unheld_for(at(5_050)), at(4_950));
        for (upto, age) in [(0, 4_950), (30, 1_950), (49, 50), (50, 0)] {
            assert_eq!(visibility.unheld_from(Index(upto), at(5_050)), at(age), "held up to {upto}");
        }
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn verdicts_out_of_order_are_a_bug_that_stops() {
        let mut visibility = Visibility::default();
        visibility.decided(NOW, Index(2), Verdict::Accepted);
        visibility.decided(NOW, Index(1), Verdict::Accepted);
    }
}
