//! Changes of which their clients heard nothing: what became of them stands in the table of commands, for a while.

use std::collections::BTreeMap;

use mailraft_checkers::{At, Micros};
use mailraft_mailbox::{Answer, Refusal};
use mailraft_storage::{CommandId, MailboxId, Term};

/// What the table of commands keeps.
pub type KeptResult = Result<Answer, Refusal>;

/// What a client gave up is carried out within this time or never: no message is under way for longer.
const RESOLVED_WITHIN: Micros = 300_000_000;

/// A result as a table of commands had it.
pub struct Seen {
    /// Where the command's entry stands.
    pub at: At,
    /// The entry's term; None if the log is cut above it.
    pub term: Option<Term>,
    /// What was kept.
    pub result: KeptResult,
}

/// Commands that nobody knows about.
#[derive(Default)]
pub struct Unresolved {
    /// Those whose clients gave up, and when.
    given_up: BTreeMap<CommandId, (MailboxId, Micros)>,
    /// Results that were seen while their clients still waited: they may be evicted before those give up.
    found: BTreeMap<CommandId, (At, KeptResult)>,
    /// Results that only a home had that may be lost: a takeover decides whether they count.
    at_risk: BTreeMap<CommandId, Seen>,
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

    /// A result was seen at a home that may be lost, and nowhere else.
    pub fn seen_at_risk(&mut self, id: CommandId, seen: Seen) {
        self.at_risk.insert(id, seen);
    }

    /// Whether one was seen there, and nobody knows yet whether that counts.
    pub fn is_at_risk(&self, id: CommandId) -> bool {
        self.at_risk.contains_key(&id)
    }

    /// All that was seen there.
    pub fn take_at_risk(&mut self) -> BTreeMap<CommandId, Seen> {
        std::mem::take(&mut self.at_risk)
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
