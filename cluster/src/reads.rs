//! Read barriers of one replica: many questions share one safe ReadIndex.

use std::collections::BTreeMap;

use mailraft_storage::{Index, Term};

use crate::seam::RequestId;

/// ReadIndex rounds of a replica that may be under way at once; later questions share the next one.
pub const ROUNDS_MAX: usize = 2;
/// A round without an answer is asked again after so many ticks: two heartbeats.
const ASK_AGAIN_TICKS: u64 = 4;
/// A question without an answer is given up after so many ticks (1.5 s).
const GIVE_UP_TICKS: u64 = 60;

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub request: RequestId,
    /// Only while this node leads in this term.
    pub term: Option<Term>,
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
    pub fn ask(&mut self, request: RequestId, term: Option<Term>) {
        self.waiting.push(Read { request, term, asked_at: self.now });
    }

    /// The context of a new round for everything that waits, if one may start. A context is never used twice.
    pub fn next_round(&mut self) -> Option<u64> {
        if self.waiting.is_empty() || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        self.next_context += 1;
        let round = Round { reads: std::mem::take(&mut self.waiting), asked_at: self.now };
        self.rounds.insert(self.next_context, round);
        Some(self.next_context)
    }

    /// A majority has confirmed a round: its questions wait until this index is applied. A context that is
    /// not under way any more is ignored.
    pub fn confirmed(&mut self, context: u64, index: Index) {
        if let Some(round) = self.rounds.remove(&context) {
            self.confirmed.extend(round.reads.into_iter().map(|r| (index, r)));
        }
    }

    /// Questions whose index is applied.
    pub fn applied(&mut self, applied: Index) -> Vec<Read> {
        let (done, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut self.confirmed).into_iter().partition(|(i, _)| *i <= applied);
        self.confirmed = wait;
        done.into_iter().map(|(_, r)| r).collect()
    }

    /// A tick passed: rounds without an answer go back to wait; returns questions that are given up.
    pub fn tick(&mut self) -> Vec<Read> {
        self.now += 1;
        let late: Vec<u64> =
            self.rounds.iter().filter(|(_, r)| self.now - r.asked_at >= ASK_AGAIN_TICKS).map(|(c, _)| *c).collect();
        for context in late {
            if let Some(round) = self.rounds.remove(&context) {
                self.waiting.extend(round.reads);
            }
        }
        let now = self.now;
        let (old, young): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|r| now - r.asked_at >= GIVE_UP_TICKS);
        self.waiting = young;
        old
    }

    /// Takes out every question that is bound to a term other than this.
    pub fn not_in(&mut self, leading: Option<Term>) -> Vec<Read> {
        let stays = |r: &Read| r.term.is_none() || r.term == leading;
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
    use super::*;

    fn ids(reads: Vec<Read>) -> Vec<u64> {
        reads.into_iter().map(|r| r.request.0).collect()
    }

    #[test]
    fn questions_share_rounds_and_wait_for_their_index() {
        let mut reads = Reads::default();
        reads.ask(RequestId(1), None);
        let first = reads.next_round().unwrap();
        reads.ask(RequestId(2), None);
        reads.ask(RequestId(3), None);
        let second = reads.next_round().unwrap();
        reads.ask(RequestId(4), None);
        assert_eq!(reads.next_round(), None, "two rounds are under way");
        reads.confirmed(second, Index(10));
        reads.confirmed(first, Index(9));
        assert_eq!(ids(reads.applied(Index(9))), [1]);
        assert_eq!(ids(reads.applied(Index(10))), [2, 3]);
        assert!(reads.next_round().unwrap() > second);
    }

    #[test]
    fn a_lost_round_is_asked_again_and_given_up_in_the_end() {
        let mut reads = Reads::default();
        reads.ask(RequestId(1), None);
        let lost = reads.next_round().unwrap();
        let mut given_up = Vec::new();
        for _ in 0..GIVE_UP_TICKS + ASK_AGAIN_TICKS {
            given_up.extend(ids(reads.tick()));
            reads.next_round();
        }
        assert_eq!(given_up, [1]);
        reads.confirmed(lost, Index(1));
        assert!(reads.applied(Index(1)).is_empty(), "a late answer to a round that was given up");
    }

    #[test]
    fn questions_of_an_earlier_term_are_taken_out_wherever_they_are() {
        let mut reads = Reads::default();
        reads.ask(RequestId(1), Some(Term(3)));
        let round = reads.next_round().unwrap();
        reads.confirmed(round, Index(5));
        reads.ask(RequestId(2), Some(Term(3)));
        reads.next_round();
        reads.ask(RequestId(3), Some(Term(3)));
        reads.ask(RequestId(4), None);
        assert_eq!(ids(reads.not_in(Some(Term(4)))), [3, 2, 1]);
    }
}
