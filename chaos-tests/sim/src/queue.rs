//! The time, and what happens next: events in the order of their time, and of their making where that is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mailraft_checkers::Micros;

/// The time, and events to come: small keys in a heap, the events themselves where they stay.
pub struct Queue<E> {
    now: Micros,
    heap: BinaryHeap<Reverse<Due>>,
    events: Vec<Option<E>>,
    /// Places in `events` that hold none.
    free: Vec<u32>,
    made: u64,
}

/// When an event is due, how many were made before it, and its place. No two have the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Micros,
    made: u64,
    place: u32,
}

impl<E> Queue<E> {
    /// The beginning of time, and nothing to come.
    pub fn new() -> Self {
        Queue { now: 0, heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), made: 0 }
    }

    /// The time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Time passes until a moment, if that is to come.
    pub fn pass_until(&mut self, moment: Micros) {
        self.now = self.now.max(moment);
    }

    /// An event at a time. If that is past, it happens now.
    pub fn push(&mut self, at: Micros, event: E) {
        self.made += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() as u32 - 1
            }
        };
        self.heap.push(Reverse(Due { at, made: self.made, place }));
    }

    /// The next event and when it was due. Time passes until then.
    pub fn pop(&mut self) -> Option<(Micros, E)> {
        let Reverse(Due { at, place, .. }) = self.heap.pop()?;
        let event = self.events[place as usize].take();
        assert!(event.is_some(), "an event that is due is there");
        self.free.push(place);
        self.pass_until(at);
        event.map(|event| (at, event))
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
