//! Read barriers of one replica: many questions share one safe ReadIndex.

use std::collections::BTreeMap;

use mailraft_storage::{Index, Term};

use crate::plant::{self, Fault};
use crate::seam::{Reader, RequestId};

/// ReadIndex rounds of a replica that may be under way at once; later questions share the next one.
pub const ROUNDS_MAX: usize = 2;
/// A round without an answer is asked again after so many ticks: two heartbeats.
pub const ASK_AGAIN_TICKS: u64 = 4;
/// The same where the leader is in another region (750 ms): a late answer confirms nothing, so it must have the time to
/// come there and back.
pub const ASK_FAR_AGAIN_TICKS: u64 = 30;
/// A question without an answer is given up after so many ticks (1.5 s).
const GIVE_UP_TICKS: u64 = 60;

/// Questions of one replica that may wait; past it they are answered as unavailable.
const READS_MAX: usize = 16_384;

/// A question that waits: when do the rows here hold everything acknowledged before it was asked?
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub request: RequestId,
    pub reader: Reader,
    asked_at: u64,
}

struct Round {
    reads: Vec<Read>,
    asked_at: u64,
}

/// The questions of one replica.
#[derive(Default)]
pub struct Reads {
    now: u64,
    next_context: u64,
    waiting: Vec<Read>,
    rounds: BTreeMap<u64, Round>,
    confirmed: Vec<(Index, Read)>,
}

impl Reads {
    /// Takes a question; false if too many wait.
    #[must_use]
    pub fn ask(&mut self, request: RequestId, reader: Reader) -> bool {
        let under_way: usize = self.rounds.values().map(|r| r.reads.len()).sum();
        let room = self.waiting.len() + under_way + self.confirmed.len() < READS_MAX;
        if room {
            self.waiting.push(Read { request, reader, asked_at: self.now });
        }
        room
    }

    /// The context of a new round for everything that waits, if one may start. A context is never used twice.
    pub fn next_round(&mut self) -> Option<u64> {
        if self.waiting.is_empty() || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        if plant::is(Fault::ReadNumbersRepeat) && self.rounds.is_empty() {
            self.next_context = 0;
        }
        self.next_context += 1;
        let round = Round { reads: std::mem::take(&mut self.waiting), asked_at: self.now };
        let other = self.rounds.insert(self.next_context, round);
        assert!(other.is_none(), "two rounds have the context {}", self.next_context);
        Some(self.next_context)
    }

    /// A majority has confirmed a round: its questions wait until this index is applied. A context that is
    /// not under way any more is ignored.
    pub fn confirmed(&mut self, context: u64, index: Index) {
        if let Some(round) = self.rounds.remove(&context) {
            self.confirmed.extend(round.reads.into_iter().map(|r| (index, r)));
        }
    }

    /// Questions whose index is reached.
    pub fn applied(&mut self, applied: Index, visible: Index, held: Index) -> Vec<Read> {
        if self.confirmed.is_empty() {
            return Vec::new();
        }
        let (done, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.confirmed).into_iter().partition(|(index, read)| match read.reader {
                Reader::Owner(_) | Reader::Applied => *index <= applied,
                Reader::Visible => *index <= visible,
                Reader::Held(_) => *index <= visible.min(held),
            });
        self.confirmed = wait;
        done.into_iter().map(|(_, r)| r).collect()
    }

    /// Whether nobody waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.rounds.is_empty() && self.confirmed.is_empty()
    }

    /// A tick passed: rounds without an answer go back to wait; returns questions that are given up.
    pub fn tick(&mut self, ask_again_ticks: u64) -> Vec<Read> {
        self.now += 1;
        if self.is_idle() {
            return Vec::new();
        }
        let late: Vec<u64> =
            self.rounds.iter().filter(|(_, r)| self.now - r.asked_at >= ask_again_ticks).map(|(c, _)| *c).collect();
        for context in late {
            if let Some(round) = self.rounds.remove(&context) {
                self.waiting.extend(round.reads);
            }
        }
        let now = self.now;
        let is_young = |r: &Read| now - r.asked_at < GIVE_UP_TICKS;
        let (young, mut old): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(is_young);
        self.waiting = young;
        // Confirmed, but what it waits for is not applied here in time.
        let (young, late): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.confirmed).into_iter().partition(|(_, r)| is_young(r));
        self.confirmed = young;
        old.extend(late.into_iter().map(|(_, r)| r));
        old
    }

    /// Takes every question out.
    pub fn all(&mut self) -> Vec<Read> {
        let rounds = std::mem::take(&mut self.rounds).into_values().flat_map(|r| r.reads);
        let confirmed = std::mem::take(&mut self.confirmed).into_iter().map(|(_, r)| r);
        std::mem::take(&mut self.waiting).into_iter().chain(rounds).chain(confirmed).collect()
    }

    /// Takes out every question that is bound to a term other than this.
    pub fn not_in(&mut self, leading: Option<Term>) -> Vec<Read> {
        let stays = |r: &Read| match r.reader {
            Reader::Owner(term) | Reader::Held(term) => leading == Some(term),
            Reader::Applied | Reader::Visible => true,
        };
        let mut out = Vec::new();
        let mut keep = |reads: &mut Vec<Read>| {
            let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(reads).into_iter().partition(stays);
            *reads = stay;
            out.extend(go);
        };
        keep(&mut self.waiting);
        for round in self.rounds.values_mut() {
            keep(&mut round.reads);
        }
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.confirmed).into_iter().partition(|(_, r)| stays(r));
        self.confirmed = stay;
        out.extend(go.into_iter().map(|(_, r)| r));
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ids(reads: Vec<Read>) -> Vec<u64> {
        reads.into_iter().map(|r| r.request.0).collect()
    }

    #[test]
    fn an_answer_from_far_away_has_the_time_to_come() {
        let mut reads = Reads::default();
        let _ = reads.ask(RequestId(1), Reader::Visible);
        let round = reads.next_round().unwrap();
        // 150 ms there and back again, and two ticks.
        for _ in 0..14 {
            assert!(reads.tick(ASK_FAR_AGAIN_TICKS).is_empty());
        }
        reads.confirmed(round, Index(5));
        assert_eq!(ids(reads.applied(Index(5), Index(5), Index(5))), [1]);
    }

    #[test]
    fn questions_share_rounds_and_wait_for_their_index() {
        let mut reads = Reads::default();
        let _ = reads.ask(RequestId(1), Reader::Visible);
        let first = reads.next_round().unwrap();
        let _ = reads.ask(RequestId(2), Reader::Visible);
        let _ = reads.ask(RequestId(3), Reader::Visible);
        let second = reads.next_round().unwrap();
        let _ = reads.ask(RequestId(4), Reader::Visible);
        assert_eq!(reads.next_round(), None, "two rounds are under way");
        reads.confirmed(second, Index(10));
        reads.confirmed(first, Index(9));
        assert_eq!(ids(reads.applied(Index(9), Index(9), Index(9))), [1]);
        assert_eq!(ids(reads.applied(Index(10), Index(10), Index(10))), [2, 3]);
        assert!(reads.next_round().unwrap() > second);
    }

    #[test]
    fn a_lost_round_is_asked_again_and_given_up_in_the_end() {
        let mut reads = Reads::default();
        let _ = reads.ask(RequestId(1), Reader::Visible);
        let lost = reads.next_round().unwrap();
        let mut given_up = Vec::new();
        for _ in 0..GIVE_UP_TICKS + ASK_AGAIN_TICKS {
            given_up.extend(ids(reads.tick(ASK_AGAIN_TICKS)));
            reads.next_round();
        }
        assert_eq!(given_up, [1]);
        reads.confirmed(lost, Index(1));
        assert!(reads.applied(Index(1), Index(1), Index(1)).is_empty(), "a late answer to a round that was given up");
    }

    #[test]
    fn questions_of_an_earlier_term_are_taken_out_wherever_they_are() {
        let mut reads = Reads::default();
        let _ = reads.ask(RequestId(1), Reader::Owner(Term(3)));
        let round = reads.next_round().unwrap();
        reads.confirmed(round, Index(5));
        let _ = reads.ask(RequestId(2), Reader::Owner(Term(3)));
        reads.next_round();
        let _ = reads.ask(RequestId(3), Reader::Owner(Term(3)));
        let _ = reads.ask(RequestId(4), Reader::Visible);
        assert_eq!(ids(reads.not_in(Some(Term(4)))), [3, 2, 1]);
    }

    #[test]
    fn a_question_whose_index_is_not_applied_in_time_is_given_up() {
        let mut reads = Reads::default();
        assert!(reads.ask(RequestId(1), Reader::Visible));
        let round = reads.next_round().unwrap();
        reads.confirmed(round, Index(5));
        let given_up: Vec<u64> = (0..GIVE_UP_TICKS).flat_map(|_| ids(reads.tick(ASK_AGAIN_TICKS))).collect();
        assert_eq!(given_up, [1]);
        assert!(reads.applied(Index(5), Index(5), Index(5)).is_empty());
    }

    #[test]
    fn more_questions_than_the_bound_are_refused() {
        let mut reads = Reads::default();
        let taken = (0..READS_MAX as u64 + 5).filter(|n| reads.ask(RequestId(*n), Reader::Visible)).count();
        assert_eq!(taken, READS_MAX);
    }
}
