//! Whether the replicas of a group agree on what was accepted. Each tells the others, now and then, how many entries it
//! has accepted and the running hash over them; where two differ, a majority of the voters decides which of them is
//! wrong.
//!
//! * The word of one other replica stops nobody: its hash may be the damaged one.
//! * A hash that a majority of the voters share at one count is right: each of them has computed it from the same log
//!   by itself. Who differs from it stops; who shares it goes on, and reports who differs.
//! * While voters are silent whose word could still make a majority, nobody stops: of three of which one is down, two
//!   that differ wait for the third.
//! * Once no majority can come about (of two voters never; of three when all differ) every voter stops: nobody knows
//!   what is right, and which answers were given would depend on who leads.
//! * A single voter is its own majority: a learner that differs from it stops.
//! * A learner's word does not count: it has its rows, and so perhaps its damage, from a snapshot of one of the voters.
//!
//! Who stops says first what it holds, and gives that [`STOP_AFTER_TICKS`] to leave: the others are to find the same.
//!
//! Replicas apply at their own pace, so what two of them tell is rarely about the same count. Who sees a difference
//! tells all others what its own hash at that count is; so do they, if theirs differs from that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mailraft_storage::ReplicaId;

/// Positions with hashes that are remembered to compare.
const HASHES_REMEMBERED: usize = 1_024;
/// Counts at which replicas differ that are remembered, the highest ones.
const DISPUTES_MAX: usize = 16;
/// What a replica holds at a disputed count it tells once in so many ticks (1 s).
const TELL_AGAIN_TICKS: u64 = 40;

/// Who is to stop does so after so many ticks (100 ms).
pub const STOP_AFTER_TICKS: u64 = 4;

/// The running hash over the entries accepted.
pub type Hash = [u8; 32];

/// What another replica's word comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No difference, or one that was reported.
    Nothing,
    /// The two differ, and which of them is wrong is not known yet.
    Undecided,
    /// These differ from a majority to which this replica belongs.
    OthersAreWrong(Vec<ReplicaId>),
    /// This replica differs from a majority.
    OwnIsWrong,
    /// No majority agrees, and none can any more.
    NobodyIsRight,
}

/// A count at which replicas differ.
struct Dispute {
    own: Hash,
    voices: BTreeMap<ReplicaId, Hash>,
    told_at: Option<u64>,
    reported: BTreeSet<ReplicaId>,
}

/// What one replica knows of its own hashes and of those of the others that differ.
#[derive(Default)]
pub struct Agreement {
    own: VecDeque<(u64, Hash)>,
    disputes: BTreeMap<u64, Dispute>,
    to_tell: BTreeSet<u64>,
}

impl Agreement {
    /// This replica has accepted so many entries.
    pub fn remember(&mut self, count: u64, hash: Hash) {
        if self.own.back().is_some_and(|(c, _)| *c == count) {
            return;
        }
        if self.own.len() == HASHES_REMEMBERED {
            self.own.pop_front();
        }
        self.own.push_back((count, hash));
    }

    /// Whether this replica remembers to have had the same at that count.
    pub fn had(&self, count: u64, hash: Hash) -> bool {
        self.own.iter().rev().any(|own| *own == (count, hash))
    }

    /// A snapshot takes the place of the rows: what was remembered says nothing about those that come.
    pub fn forget(&mut self) {
        *self = Agreement::default();
    }

    /// What is to be told to all members at this tick: own hashes at counts at which someone differs.
    pub fn tell(&mut self, now: u64) -> Vec<(u64, Hash)> {
        let mut told = Vec::new();
        for count in std::mem::take(&mut self.to_tell) {
            if let Some(dispute) = self.disputes.get_mut(&count) {
                dispute.told_at = Some(now);
                told.push((count, dispute.own));
            }
        }
        told
    }

    /// Another replica says what it holds at a count.
    pub fn heard(
        &mut self,
        now: u64,
        (from, count, hash): (ReplicaId, u64, Hash),
        own: ReplicaId,
        voters: &[ReplicaId],
    ) -> Finding {
        let Some(&(_, own_hash)) = self.own.iter().rev().find(|(c, _)| *c == count) else { return Finding::Nothing };
        if own_hash == hash && !self.disputes.contains_key(&count) {
            return Finding::Nothing;
        }
        let dispute = self.disputes.entry(count).or_insert_with(|| Dispute {
            own: own_hash,
            voices: BTreeMap::new(),
            told_at: None,
            reported: BTreeSet::new(),
        });
        let first = dispute.voices.insert(from, hash).is_none();
        let judged = dispute.judge(own, voters);
        let stops = matches!(judged, Finding::OwnIsWrong | Finding::NobodyIsRight);
        let due = dispute.told_at.is_none_or(|at| now - at >= TELL_AGAIN_TICKS);
        if stops || (own_hash != hash && due) {
            self.to_tell.insert(count);
        }
        let finding = match judged {
            Finding::Undecided if !first || own_hash == hash => Finding::Nothing,
            Finding::OthersAreWrong(mut others) => {
                others.retain(|other| dispute.reported.insert(*other));
                if others.is_empty() { Finding::Nothing } else { Finding::OthersAreWrong(others) }
            }
            other => other,
        };
        while self.disputes.len() > DISPUTES_MAX {
            if let Some((oldest, _)) = self.disputes.pop_first() {
                self.to_tell.remove(&oldest);
            }
        }
        finding
    }
}

impl Dispute {
    fn judge(&self, own: ReplicaId, voters: &[ReplicaId]) -> Finding {
        let of = |voter: &ReplicaId| if *voter == own { Some(self.own) } else { self.voices.get(voter).copied() };
        let mut shared: BTreeMap<Hash, usize> = BTreeMap::new();
        voters.iter().filter_map(of).for_each(|hash| *shared.entry(hash).or_default() += 1);
        let majority = voters.len() / 2 + 1;
        if let Some((right, _)) = shared.iter().find(|(_, count)| **count >= majority) {
            if *right != self.own {
                return Finding::OwnIsWrong;
            }
            let wrong = self.voices.iter().filter(|(_, hash)| *hash != right);
            return Finding::OthersAreWrong(wrong.map(|(replica, _)| *replica).collect());
        }
        let silent = voters.len() - shared.values().sum::<usize>();
        let most = shared.values().max().copied().unwrap_or(0);
        let hopeless = most + silent < majority;
        if hopeless && voters.contains(&own) { Finding::NobodyIsRight } else { Finding::Undecided }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Hash = [1; 32];
    const WRONG: Hash = [2; 32];
    const OTHER: Hash = [3; 32];

    fn ids(numbers: &[u64]) -> Vec<ReplicaId> {
        numbers.iter().map(|n| ReplicaId(*n)).collect()
    }

    /// What replica 1, with this hash at count 7, finds after each word of others at that count.
    fn findings(own: Hash, voters: &[u64], said: &[(u64, Hash)]) -> Vec<Finding> {
        let mut agreement = Agreement::default();
        agreement.remember(7, own);
        let hear =
            |(from, hash): &(u64, Hash)| agreement.heard(0, (ReplicaId(*from), 7, *hash), ReplicaId(1), &ids(voters));
        said.iter().map(hear).collect()
    }

    #[test]
    fn a_majority_that_agrees_decides_and_nobody_stops_before_it_is_heard() {
        use Finding::{NobodyIsRight, Nothing, OthersAreWrong, OwnIsWrong, Undecided};
        let wrong = |n: &[u64]| OthersAreWrong(ids(n));
        for (voters, own, said, found) in [
            (&[1, 2, 3][..], RIGHT, &[(2, RIGHT), (3, RIGHT)][..], &[Nothing, Nothing][..]),
            // The third word decides, whichever of the two it supports.
            (&[1, 2, 3], RIGHT, &[(2, WRONG), (3, RIGHT)], &[Undecided, wrong(&[2])]),
            (&[1, 2, 3], WRONG, &[(2, RIGHT), (3, RIGHT)], &[Undecided, OwnIsWrong]),
            (&[1, 2, 3], RIGHT, &[(2, WRONG), (2, WRONG)], &[Undecided, Nothing]),
            (&[1, 2, 3], RIGHT, &[(2, WRONG), (3, OTHER)], &[Undecided, NobodyIsRight]),
            // Of two there is no majority but both.
            (&[1, 2], RIGHT, &[(2, WRONG)], &[NobodyIsRight]),
            // One voter is its own majority, and a learner's word counts nothing.
            (&[1], RIGHT, &[(9, WRONG)], &[wrong(&[9])]),
            (&[2], WRONG, &[(2, RIGHT)], &[OwnIsWrong]),
            (&[1, 2, 3], RIGHT, &[(9, WRONG), (8, WRONG)], &[Undecided, Undecided]),
            // Of five, three.
            (
                &[1, 2, 3, 4, 5],
                RIGHT,
                &[(2, WRONG), (3, WRONG), (4, RIGHT), (5, RIGHT)],
                &[Undecided, Undecided, Nothing, wrong(&[2, 3])],
            ),
            (
                &[1, 2, 3, 4, 5],
                WRONG,
                &[(2, WRONG), (3, RIGHT), (4, RIGHT), (5, RIGHT)],
                &[Nothing, Undecided, Undecided, OwnIsWrong],
            ),
            // A learner hears two voters that differ, and waits with the others; so does it where voters stop.
            (&[2, 3], RIGHT, &[(2, WRONG), (3, OTHER)], &[Undecided, Undecided]),
        ] {
            assert_eq!(findings(own, voters, said), found, "{voters:?} {said:?}");
        }
    }

    #[test]
    fn what_differs_is_reported_once_and_told_once_a_second() {
        let mut agreement = Agreement::default();
        agreement.remember(7, RIGHT);
        let voters = ids(&[1, 2, 3]);
        let mut found = Vec::new();
        let mut told = 0;
        for now in 0..2 * TELL_AGAIN_TICKS {
            for (from, hash) in [(2, WRONG), (3, RIGHT)] {
                found.push(agreement.heard(now, (ReplicaId(from), 7, hash), ReplicaId(1), &voters));
            }
            told += agreement.tell(now).len();
        }
        found.retain(|f| *f != Finding::Nothing);
        assert_eq!((found, told), (vec![Finding::Undecided, Finding::OthersAreWrong(ids(&[2]))], 2));
    }

    #[test]
    fn so_much_is_remembered_and_no_more() {
        let mut agreement = Agreement::default();
        let last = 2 * HASHES_REMEMBERED as u64;
        for count in 1..=last {
            agreement.remember(count, RIGHT);
        }
        let voters = ids(&[1, 2, 3]);
        for count in 1..=last {
            agreement.heard(0, (ReplicaId(2), count, WRONG), ReplicaId(1), &voters);
        }
        assert_eq!((agreement.own.len(), agreement.disputes.len()), (HASHES_REMEMBERED, DISPUTES_MAX));
        assert_eq!(agreement.to_tell.len(), DISPUTES_MAX);
        assert_eq!(agreement.tell(0).last(), Some(&(last, RIGHT)));
        assert!(agreement.tell(0).is_empty());
        assert!(agreement.had(last, RIGHT) && !agreement.had(last, WRONG) && !agreement.had(1, RIGHT));
        agreement.forget();
        assert_eq!(agreement.heard(0, (ReplicaId(2), last, WRONG), ReplicaId(1), &voters), Finding::Nothing);
    }
}
