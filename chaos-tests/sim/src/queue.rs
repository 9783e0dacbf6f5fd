//! What happens next: events in the order of their time, and of their making where that is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mailraft_checkers::Micros;

/// Events to come.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    made: u64,
}

struct Due<E> {
    at: Micros,
    made: u64,
    event: E,
}

impl<E> Queue<E> {
    /// Nothing to come.
    pub fn new() -> Self {
        Queue { heap: BinaryHeap::new(), made: 0 }
    }

    /// An event at a time.
    pub fn push(&mut self, at: Micros, event: E) {
        self.made += 1;
        self.heap.push(Reverse(Due { at, made: self.made, event }));
    }

    /// The next event and its time.
    pub fn pop(&mut self) -> Option<(Micros, E)> {
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.made) == (other.at, other.made)
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.made).cmp(&(other.at, other.made))
    }
}
