//! Entries on a partition's own rows (those of [`MailboxId::PARTITION`]), of which one is in flight at a time. Several
//! propose them, the evictor of results and, for the control group, the directory: their turns are taken here, in the
//! order in which they asked.

use std::collections::BTreeMap;

use mailraft_cluster::SlotOutcome;
use mailraft_storage::{MailboxId, PartitionId, Proposal, ProposalOutcome, Term};
use tokio::sync::{mpsc, oneshot};

use crate::fatal::Fatal;
use crate::inputs::Inputs;

/// A way to propose entries on the own rows of this node's partitions.
#[derive(Clone)]
pub(crate) struct OwnRows {
    turns: BTreeMap<PartitionId, mpsc::UnboundedSender<Turn>>,
}

/// Something that waits for its turn. Bounded by those who ask: each waits for its answer before it asks again.
enum Turn {
    Propose(Box<Proposal>, oneshot::Sender<ProposalOutcome>),
    /// A new owner waits until what earlier ones proposed has its verdict.
    AwaitSlot(Term, oneshot::Sender<SlotOutcome>),
}

impl OwnRows {
    /// Of these partitions.
    pub(crate) fn new(partitions: impl Iterator<Item = PartitionId>, inputs: &Inputs, fatal: &Fatal) -> Self {
        let turns = partitions.map(|partition| {
            let (turns, waiting) = mpsc::unbounded_channel();
            fatal.spawn_task("turns of a partition's own rows", take_turns(partition, inputs.clone(), waiting));
            (partition, turns)
        });
        OwnRows { turns: turns.collect() }
    }

    /// As [`Cluster::propose`](crate::Cluster::propose), once everything proposed before it has its verdict.
    pub(crate) fn propose(&self, partition: PartitionId, proposal: Proposal) -> oneshot::Receiver<ProposalOutcome> {
        let (reply, receiver) = oneshot::channel();
        self.ask(partition, Turn::Propose(Box::new(proposal), reply));
        receiver
    }

    /// As [`Cluster::await_slot`](crate::Cluster::await_slot).
    pub(crate) fn await_slot(&self, partition: PartitionId, term: Term) -> oneshot::Receiver<SlotOutcome> {
        let (reply, receiver) = oneshot::channel();
        self.ask(partition, Turn::AwaitSlot(term, reply));
        receiver
    }

    /// Where there is no such partition, or the node ends, the receiver fails.
    fn ask(&self, partition: PartitionId, turn: Turn) {
        if let Some(turns) = self.turns.get(&partition) {
            let _ = turns.send(turn);
        }
    }
}

/// One after another: whether or not somebody still waits for the outcome, the turn is over when it is there.
async fn take_turns(partition: PartitionId, inputs: Inputs, mut waiting: mpsc::UnboundedReceiver<Turn>) {
    while let Some(turn) = waiting.recv().await {
        match turn {
            Turn::Propose(proposal, reply) => {
                if let Ok(outcome) = inputs.propose(partition, *proposal).await {
                    let _ = reply.send(outcome);
                }
            }
            Turn::AwaitSlot(term, reply) => {
                if let Ok(outcome) = inputs.await_slot(partition, term, MailboxId::PARTITION).await {
                    let _ = reply.send(outcome);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_cluster::{Decision, Input};
    use mailraft_storage::entry::RowsBody;
    use mailraft_storage::{CommandId, EntryKind, Incarnation, Index, Verdict};

    use super::*;
    use crate::inputs::Queued;
    use crate::questions::Questions;

    const PARTITION: PartitionId = PartitionId(3);

    fn proposal(number: u8) -> Proposal {
        Proposal {
            incarnation: Incarnation::default(),
            term: Term(1),
            mailbox: MailboxId::PARTITION,
            command: CommandId([number; 16]),
            kind: EntryKind::Rows(RowsBody::default()),
        }
    }

    #[tokio::test]
    async fn one_is_in_flight_whoever_proposed_it_and_a_new_owner_waits_for_those_before_it() {
        let (inputs, queue) = Inputs::new();
        let (turns, waiting) = mpsc::unbounded_channel();
        tokio::spawn(take_turns(PARTITION, inputs, waiting));
        let own_rows = OwnRows { turns: BTreeMap::from([(PARTITION, turns)]) };
        let first = own_rows.propose(PARTITION, proposal(1));
        // Whoever proposed this one is gone; its turn is not over before its verdict all the same.
        drop(own_rows.propose(PARTITION, proposal(2)));
        let slot = own_rows.await_slot(PARTITION, Term(1));
        let last = own_rows.propose(PARTITION, proposal(3));
        let mut questions = Questions::default();
        let mut seen = Vec::new();
        for index in 0..4 {
            let (input, request, asked) = loop {
                match queue.try_recv() {
                    Ok(Queued::Ask(input, request, asked, _)) => break (input, request, asked),
                    Ok(_) => panic!("not a question"),
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            questions.insert(request, asked);
            tokio::task::yield_now().await;
            assert!(queue.is_empty(), "a second one is in flight");
            let decision = match input {
                Input::Propose { proposal, .. } => {
                    seen.push(proposal.command.0[0]);
                    Decision::Proposal(ProposalOutcome::Applied { index: Index(index), verdict: Verdict::Accepted })
                }
                Input::AwaitSlot { mailbox: MailboxId::PARTITION, .. } => {
                    seen.push(0);
                    Decision::Slot(SlotOutcome::Free)
                }
                other => panic!("{other:?}"),
            };
            questions.decided(request, decision);
        }
        assert_eq!(seen, [1, 2, 0, 3], "in the order in which they asked");
        let accepted = |index| ProposalOutcome::Applied { index: Index(index), verdict: Verdict::Accepted };
        assert_eq!((first.await, slot.await, last.await), (Ok(accepted(0)), Ok(SlotOutcome::Free), Ok(accepted(3))));
        assert!(own_rows.propose(PartitionId(4), proposal(1)).await.is_err(), "no replica of it is here");
    }
}
