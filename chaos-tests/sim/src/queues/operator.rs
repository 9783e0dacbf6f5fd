//! The operator of the queues' world, who decides about what waits, at any moment.

use mailraft_mailbox::accepted::QueueDecision;
use mailraft_mailbox::{Answer, Command, Refusal};
use mailraft_storage::{CommandId, MailboxId};

use super::{Asker, PARTITIONS, World};

/// What an operator asked for.
#[derive(Clone, Debug)]
pub struct Decision {
    item: CommandId,
    recipients: Vec<u32>,
    decision: QueueDecision,
}

impl World {
    /// Somebody decides about a recipient outside.
    pub(super) fn decide(&mut self) -> Result<(), String> {
        let mut all = Vec::new();
        for (id, item) in self.books.items.iter().filter(|(_, item)| item.accepted) {
            if !self.has_item(*id)? {
                continue;
            }
            let outside = (0..).zip(&item.recipients).filter(|(_, of)| of.mailbox.is_none());
            all.extend(outside.map(|(number, _)| (*id, number)));
        }
        let Some((item, recipient)) = self.dice.pick(&all).copied() else { return Ok(()) };
        let decision = match self.dice.below(20) {
            0..6 => QueueDecision::Hold,
            6..11 => QueueDecision::Release,
            11..15 => QueueDecision::Retry,
            15..18 => QueueDecision::Return,
            _ => QueueDecision::Drop,
        };
        self.decided(Decision { item, recipients: vec![recipient], decision })
    }

    /// Whatever is held goes on. True if nothing is.
    pub(super) fn release_all(&mut self) -> Result<bool, String> {
        let held = self.items(|item| item.held > 0)?;
        for item in &held {
            self.decided(Decision { item: *item, recipients: Vec::new(), decision: QueueDecision::Release })?;
        }
        Ok(held.is_empty())
    }

    fn decided(&mut self, decision: Decision) -> Result<(), String> {
        let Decision { item, recipients, decision: what } = decision.clone();
        let queue = MailboxId::queue_of(item.queue_partition(PARTITIONS));
        let id = self.env.command_id();
        self.books.decisions.insert(id, (item, recipients.clone(), what));
        let session = self.session(Asker::Operator(decision));
        self.ask(queue, session, id, 0, Command::DecideQueued { item, recipients, decision: what })
    }

    /// He hears for how many it was, or nothing.
    pub(super) fn is_decided(&mut self, decision: &Decision, result: Option<Result<Answer, Refusal>>) {
        let Some(Ok(Answer::Counted(count))) = result else { return };
        let most = decision.recipients.len().max(1) as u32;
        assert!(decision.recipients.is_empty() || count <= most, "{decision:?} was for {count}");
        self.summary.decided += count as usize;
    }

    fn has_item(&self, item: CommandId) -> Result<bool, String> {
        let id = item.queue_partition(PARTITIONS);
        self.partitions[id.0 as usize - 1].has_item(MailboxId::queue_of(id), item)
    }
}
