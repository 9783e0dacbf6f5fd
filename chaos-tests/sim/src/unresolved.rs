//! Changes of which their clients heard nothing: what became of them stands in the table of commands, for a while.

use std::collections::BTreeMap;

use mailraft_checkers::{At, Micros};
use mailraft_mailbox::{Answer, Refusal};
use mailraft_storage::{CommandId, MailboxId};

/// What the table of commands keeps.
pub type KeptResult = Result<Answer, Refusal>;

/// What a client gave up is carried out within this time or never: no message is under way for longer.
const RESOLVED_WITHIN: Micros = 300_000_000;

/// Commands that nobody knows about.
#[derive(Default)]
pub struct Unresolved {
    /// Those whose clients gave up, and when.
    given_up: BTreeMap<CommandId, (MailboxId, Micros)>,
    /// Results that were seen while their clients still waited: they may be evicted before those give up.
    found: BTreeMap<CommandId, (At, KeptResult)>,
}

impl Unresolved {
    /// A client gives up.
    pub fn given_up(&mut self, id: CommandId, mailbox: MailboxId, now: Micros) {
        self.given_up.insert(id, (mailbox, now));
    }

    /// A result was seen whose client still waits.
    pub fn found(&mut self, id: CommandId, at: At, result: KeptResult) {
        self.found.insert(id, (at, result));
    }

    /// Those that may yet be carried out; with `all` every one of which nothing is known.
    pub fn to_look_for(&self, all: bool, now: Micros) -> Vec<(CommandId, MailboxId)> {
        let since = if all { 0 } else { now.saturating_sub(RESOLVED_WITHIN) };
        let young = self.given_up.iter().filter(|(_, (_, asked))| *asked >= since);
        young.map(|(id, (mailbox, _))| (*id, *mailbox)).collect()
    }

    /// What was seen of one while its client still waited.
    pub fn take_found(&mut self, id: CommandId) -> Option<(At, KeptResult)> {
        self.found.remove(&id)
    }

    /// It is known what became of it.
    pub fn resolved(&mut self, id: CommandId) {
        self.given_up.remove(&id);
    }
}
