//! The commands that wait for the next entry: bounded, and taken from the sessions in turn.

use std::collections::{BTreeMap, VecDeque};

use mailraft_storage::CommandId;

/// The most commands that wait.
pub const QUEUE_MAX_COMMANDS: usize = 1_024;
/// The most bytes of commands that wait.
pub const QUEUE_MAX_BYTES: usize = 16 << 20;

/// A session, numbered by whoever submits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub u64);

/// A command that waits or is in flight.
#[derive(Clone, Debug)]
pub struct Queued<C> {
    /// The session whose turn it is.
    pub session: SessionNumber,
    /// The command's id.
    pub id: CommandId,
    /// The command.
    pub command: C,
    /// What it takes, in bytes, roughly.
    pub bytes: usize,
    /// Rows that it needs turned out to be missing: [`Missed::Damaged`](crate::Missed::Damaged) was said of it.
    pub damaged: bool,
}

/// All that wait.
#[derive(Debug)]
pub struct Queue<C> {
    sessions: BTreeMap<SessionNumber, VecDeque<Queued<C>>>,
    /// The session that was served last.
    last: SessionNumber,
    commands: usize,
    bytes: usize,
}

impl<C> Queue<C> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// What waits, in bytes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one more of so many bytes would pass a bound.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.commands >= QUEUE_MAX_COMMANDS || self.bytes + bytes > QUEUE_MAX_BYTES
    }

    /// One more, after the others of its session.
    pub fn push(&mut self, queued: Queued<C>) {
        self.count(&queued);
        self.sessions.entry(queued.session).or_default().push_back(queued);
    }

    /// Puts one back that was taken, before all others. Were its session to wait for its turn again, a change
    /// that needs an entry of its own would never find an empty one.
    pub fn push_front(&mut self, queued: Queued<C>) {
        self.count(&queued);
        self.last = SessionNumber(queued.session.0.wrapping_sub(1));
        self.sessions.entry(queued.session).or_default().push_front(queued);
    }

    /// The next session's oldest command.
    pub fn pop(&mut self) -> Option<Queued<C>> {
        let after = (std::ops::Bound::Excluded(self.last), std::ops::Bound::Unbounded);
        let session = self.sessions.range(after).next().or_else(|| self.sessions.iter().next()).map(|(s, _)| *s)?;
        let waiting = self.sessions.get_mut(&session)?;
        let queued = waiting.pop_front()?;
        if waiting.is_empty() {
            self.sessions.remove(&session);
        }
        self.last = session;
        self.commands -= 1;
        self.bytes -= queued.bytes;
        Some(queued)
    }

    fn count(&mut self, queued: &Queued<C>) {
        self.commands += 1;
        self.bytes += queued.bytes;
    }
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Queue { sessions: BTreeMap::new(), last: SessionNumber::default(), commands: 0, bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn queued(session: u64, n: u8) -> Queued<()> {
        Queued { session: SessionNumber(session), id: CommandId([n; 16]), command: (), bytes: 7, damaged: false }
    }

    #[test]
    fn sessions_take_turns_and_each_keeps_its_order() {
        let mut queue = Queue::default();
        for (session, n) in [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (2, 6)] {
            queue.push(queued(session, n));
        }
        let first = queue.pop().unwrap();
        assert_eq!(first.id.0[0], 1);
        queue.push_front(first);
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|q| q.id.0[0]).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }

    #[test]
    fn commands_and_bytes_are_bounded() {
        let mut queue = Queue::default();
        for _ in 0..QUEUE_MAX_COMMANDS {
            assert!(!queue.is_full_for(7));
            queue.push(queued(1, 1));
        }
        assert!(queue.is_full_for(0));
        queue.pop();
        let left = QUEUE_MAX_BYTES - queue.bytes();
        assert!(!queue.is_full_for(left) && queue.is_full_for(left + 1));
    }
}
