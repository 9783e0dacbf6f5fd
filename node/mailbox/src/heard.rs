//! Answers that an owner knows to have been heard, until the rows by which repeats of them are known are deleted.
//!
//! Who asks for the same again is done again from the moment on that this owner hears of it. The rows go along with the
//! mailbox's next entry, or with one of upkeep if none comes: an entry of their own for each would cost as much as a
//! delivery. A successor does not know what this owner only had in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_storage::CommandId;

use crate::limits::{HEARD_MAX, HEARD_MEMORY_BYTES, HEARD_UNWRITTEN_MILLIS};
use crate::records::KeyedHash;
use crate::state::State;

/// They are among the mailbox's repeats as they are applied, and so as bounded as those.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The commands, by the hashes of what was asked.
    commands: BTreeMap<KeyedHash, CommandId>,
    /// When the oldest of them was heard.
    since: Duration,
}

impl Heard {
    /// These answers were heard, as far as the mailbox knows the commands.
    pub fn hear(&mut self, state: &State, commands: &[CommandId], now: Duration) {
        let commands = commands.get(..HEARD_MAX).unwrap_or(commands);
        if self.commands.is_empty() {
            self.since = now;
        }
        self.commands.extend(state.repeats_of(commands));
    }

    /// Whether the answer to this command was heard.
    pub fn is_heard(&self, hash: &KeyedHash, command: CommandId) -> bool {
        self.commands.get(hash) == Some(&command)
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// A mailbox came to this state: what is not in it any more needs no place here.
    pub fn keep_those_in(&mut self, state: &State) {
        self.commands.retain(|hash, command| state.repeat(hash).is_some_and(|repeat| repeat.command == *command));
    }

    /// The hashes of those whose rows a state still has, for as long as they are to be deleted there.
    pub fn in_state(&self, state: &State) -> Vec<KeyedHash> {
        let there = |(hash, command): &(&KeyedHash, &CommandId)| {
            state.repeat(hash).is_some_and(|repeat| repeat.command == **command)
        };
        self.commands.iter().filter(there).map(|(hash, _)| *hash).collect()
    }

    /// Whether no entry came for a while that could have taken the oldest along.
    pub fn is_overdue(&self, now: Duration) -> bool {
        !self.is_empty() && now >= self.since + Duration::from_millis(HEARD_UNWRITTEN_MILLIS)
    }

    pub fn memory_bytes(&self) -> usize {
        self.commands.len() * HEARD_MEMORY_BYTES
    }
}
