//! The commands that wait for the next entry: bounded, and taken from the sessions in turn.

use std::collections::{BTreeMap, VecDeque};

use mailraft_storage::CommandId;

use crate::api::{Command, NewMessage};
use crate::flags::Flags;
use crate::uids::UidSet;

/// The most commands that wait.
pub const QUEUE_MAX_COMMANDS: usize = 1_024;
/// The most bytes of commands that wait.
pub const QUEUE_MAX_BYTES: usize = 16 << 20;
/// What a command takes beside its texts, in bytes, roughly.
const COMMAND_BYTES: usize = 256;

/// A session, numbered by whoever submits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub u64);

/// A command that waits or is in flight.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub session: SessionNumber,
    pub id: CommandId,
    pub command: Command,
    /// Whether rows that it needs turned out to be missing.
    pub damaged: bool,
}

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    sessions: BTreeMap<SessionNumber, VecDeque<Queued>>,
    /// Who was served last.
    last: SessionNumber,
    commands: usize,
    bytes: usize,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one more of this size would pass a bound.
    pub fn is_full_for(&self, command: &Command) -> bool {
        self.commands >= QUEUE_MAX_COMMANDS || self.bytes + command_bytes(command) > QUEUE_MAX_BYTES
    }

    pub fn push(&mut self, queued: Queued) {
        self.count(&queued);
        self.sessions.entry(queued.session).or_default().push_back(queued);
    }

    /// Puts one back that was taken, before all others. Were its session to wait for its turn again, a change
    /// that needs an entry of its own would never find an empty one.
    pub fn push_front(&mut self, queued: Queued) {
        self.count(&queued);
        self.last = SessionNumber(queued.session.0.wrapping_sub(1));
        self.sessions.entry(queued.session).or_default().push_front(queued);
    }

    /// The next session's oldest command.
    pub fn pop(&mut self) -> Option<Queued> {
        let after = (std::ops::Bound::Excluded(self.last), std::ops::Bound::Unbounded);
        let session = self.sessions.range(after).next().or_else(|| self.sessions.iter().next()).map(|(s, _)| *s)?;
        let waiting = self.sessions.get_mut(&session)?;
        let queued = waiting.pop_front()?;
        if waiting.is_empty() {
            self.sessions.remove(&session);
        }
        self.last = session;
        self.commands -= 1;
        self.bytes -= command_bytes(&queued.command);
        Some(queued)
    }

    fn count(&mut self, queued: &Queued) {
        self.commands += 1;
        self.bytes += command_bytes(&queued.command);
    }
}

fn command_bytes(command: &Command) -> usize {
    let new_message = |d: &NewMessage| {
        d.inline.as_ref().map_or(0, bytes::Bytes::len)
            + d.header.len()
            + d.envelope.len()
            + d.structure.len()
            + d.message_id.as_ref().map_or(0, String::len)
    };
    let set = |uids: &UidSet| uids.ranges().len() * 8;
    let flags = |flags: &Flags| flags.keywords().map(|k| k.len() + 32).sum::<usize>();
    COMMAND_BYTES
        + match command {
            Command::Sync | Command::List | Command::Unselect | Command::ReadChunk { .. } => 0,
            Command::Status { folder } | Command::Select { folder, .. } => folder.len(),
            Command::Resume { known, .. } => set(known),
            Command::Fetch { uids, .. } => set(uids),
            Command::Deliver { new_message: d, reverse_path, detail, .. } => {
                new_message(d) + reverse_path.len() + detail.as_ref().map_or(0, String::len)
            }
            Command::Append { folder, new_message: d, flags: f, .. } => folder.len() + new_message(d) + flags(f),
            Command::Store { uids, flags: f, .. } => set(uids) + flags(f),
            Command::Copy { uids, to, .. } | Command::Move { uids, to, .. } => set(uids) + to.len(),
            Command::Expunge { uids, .. } => uids.as_ref().map_or(0, set),
            Command::CreateFolder { name } | Command::DeleteFolder { name } | Command::Subscribe { name, .. } => {
                name.len()
            }
            Command::RenameFolder { from, to } => from.len() + to.len(),
        }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn queued(session: u64, n: u8) -> Queued {
        let command = Command::CreateFolder { name: "x".to_owned() };
        Queued { session: SessionNumber(session), id: CommandId([n; 16]), command, damaged: false }
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
}
