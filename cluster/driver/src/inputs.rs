//! The one queue in front of the core thread. What other nodes and users put into it is bounded in bytes;
//! what the driver's own threads answer is bounded by what the core asked of them.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mailraft_cluster::regions::RegionSettings;
use mailraft_cluster::{
    BarrierOutcome, Input, Reader, ReplicaStatus, RequestId, SettingsOutcome, SlotOutcome, TakeOverOutcome,
    TakeOverRefusal,
};
use mailraft_storage::rows::RowsProof;
use mailraft_storage::{
    CommandId, EntryKind, Incarnation, MailboxId, PartitionId, Proposal, ProposalOutcome, ReplicaId, Rows, Term,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::metrics;
use crate::questions::{Asked, Waiting};

/// Bytes of proposals and other questions that wait for the core thread.
pub(crate) const ASKED_MAX_BYTES: usize = 64 << 20;
/// What a question counts beside its content, in bytes. Bounds their number too.
const QUESTION_BYTES: usize = 1 << 10;

/// What the core thread finds in its queue.
pub(crate) enum Queued {
    /// From a thread of this driver.
    Own(Input),
    /// From another node; its permit gives the connection its bytes back.
    Peer(Input, OwnedSemaphorePermit),
    /// From a user, to be answered.
    Ask(Input, RequestId, Asked, OwnedSemaphorePermit),
    /// How are you?
    Status(oneshot::Sender<Vec<ReplicaStatus>>),
    /// The core thread is to end.
    Stop,
}

/// The queue's entrance.
#[derive(Clone)]
pub(crate) struct Inputs {
    queue: Sender<Queued>,
    asked: Arc<Semaphore>,
    next: Arc<AtomicU64>,
}

impl Inputs {
    pub(crate) fn new() -> (Self, Receiver<Queued>) {
        let (queue, receiver) = unbounded();
        let inputs =
            Inputs { queue, asked: Arc::new(Semaphore::new(ASKED_MAX_BYTES)), next: Arc::new(AtomicU64::new(1)) };
        (inputs, receiver)
    }

    /// From a thread of this driver. False once the core has ended.
    pub(crate) fn own(&self, input: Input) -> bool {
        self.queue.send(Queued::Own(input)).is_ok()
    }

    /// Rows of a replica here can't be read: the core hands its lead over, the operator replaces it.
    pub(crate) fn damaged(&self, replica: ReplicaId, error: &dyn Display) {
        tracing::error!(%replica, %error, "rows or entries can't be read: another node is to lead; check the disk, and replace this replica if they are damaged");
        ::metrics::counter!(metrics::DAMAGED).increment(1);
        // If the core has ended, so has its lead.
        self.own(Input::Damaged { replica });
    }

    /// Tells what was found wrong with rows since the last call, and how much.
    pub(crate) fn tell_damage(&self, rows: &dyn Rows) -> usize {
        let news = rows.proof().map(RowsProof::take_news).unwrap_or_default();
        news.iter().for_each(|(replica, why)| self.damaged(*replica, why));
        news.len()
    }

    /// From another node. False once the core has ended.
    pub(crate) fn peer(&self, input: Input, permit: OwnedSemaphorePermit) -> bool {
        self.queue.send(Queued::Peer(input, permit)).is_ok()
    }

    /// Asks to append a change.
    pub(crate) fn propose(&self, partition: PartitionId, proposal: Proposal) -> oneshot::Receiver<ProposalOutcome> {
        let bytes = proposal_bytes(&proposal);
        self.ask(bytes, Asked::Proposal, ProposalOutcome::Overloaded, |request| Input::Propose {
            request,
            partition,
            proposal,
        })
    }

    /// Asks when the rows hold everything acknowledged before now.
    pub(crate) fn read_barrier(&self, partition: PartitionId, reader: Reader) -> oneshot::Receiver<BarrierOutcome> {
        self.ask(0, Asked::Barrier, BarrierOutcome::Unavailable, |request| Input::ReadBarrier {
            request,
            partition,
            reader,
        })
    }

    /// Asks when no entry of a mailbox is in flight in a term.
    pub(crate) fn await_slot(
        &self,
        partition: PartitionId,
        term: Term,
        mailbox: MailboxId,
    ) -> oneshot::Receiver<SlotOutcome> {
        self.ask(0, Asked::Slot, SlotOutcome::Overloaded, |request| Input::AwaitSlot {
            request,
            partition,
            term,
            mailbox,
        })
    }

    /// Asks for other settings of regions.
    pub(crate) fn set_regions(&self, id: CommandId, settings: RegionSettings) -> oneshot::Receiver<SettingsOutcome> {
        self.ask(0, Asked::Settings, SettingsOutcome::Overloaded, |request| Input::SetRegions { request, id, settings })
    }

    /// Gives an operator's word that this node's region takes the cluster over.
    pub(crate) fn take_over(&self, incarnation: Incarnation, word: String) -> oneshot::Receiver<TakeOverOutcome> {
        let full = TakeOverOutcome::Refused(TakeOverRefusal::Busy);
        self.ask(word.len(), Asked::TakeOver, full, |request| Input::TakeOver { request, incarnation, word })
    }

    /// Asks something; `bytes` is the size of its content, `full` the answer if too much waits already. The
    /// receiver fails if the node ends before an answer.
    fn ask<T>(
        &self,
        bytes: usize,
        asked: impl FnOnce(Waiting<T>) -> Asked,
        full: T,
        input: impl FnOnce(RequestId) -> Input,
    ) -> oneshot::Receiver<T> {
        let (reply, receiver) = oneshot::channel();
        let permits = u32::try_from(bytes + QUESTION_BYTES).unwrap_or(u32::MAX);
        match self.asked.clone().try_acquire_many_owned(permits) {
            Ok(permit) => {
                let request = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
                let asked = asked(Waiting::new(reply));
                // If the core has ended the reply is dropped with what could not be sent.
                let _ = self.queue.send(Queued::Ask(input(request), request, asked, permit));
            }
            // It does no harm if nobody waits any more.
            Err(_) => drop(reply.send(full)),
        }
        receiver
    }

    pub(crate) fn status(&self) -> oneshot::Receiver<Vec<ReplicaStatus>> {
        let (reply, receiver) = oneshot::channel();
        let _ = self.queue.send(Queued::Status(reply));
        receiver
    }

    pub(crate) fn stop(&self) {
        let _ = self.queue.send(Queued::Stop);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// The bytes of a proposal's content, nearly.
fn proposal_bytes(proposal: &Proposal) -> usize {
    match &proposal.kind {
        EntryKind::Begin | EntryKind::Takeover(_) => 0,
        EntryKind::Rows(body) => {
            let keys: usize = body.requires.iter().map(|k| k.key.len() + 17).sum();
            let results: usize = body.results.iter().map(|(_, result)| result.len() + 16).sum();
            keys + results + body.batch.size_bytes()
        }
        EntryKind::Chunk(body) => body.data.len() + body.open.as_ref().map_or(0, |open| open.len()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_queue_answers_at_once_and_gives_bytes_back() {
        let (inputs, queue) = Inputs::new();
        let ask = |bytes| {
            inputs.ask(bytes, Asked::Barrier, BarrierOutcome::Unavailable, |request| Input::ReadBarrier {
                request,
                partition: PartitionId(1),
                reader: Reader::Visible,
            })
        };
        let mut first = ask(ASKED_MAX_BYTES - QUESTION_BYTES);
        assert_eq!(ask(0).try_recv().unwrap(), BarrierOutcome::Unavailable);
        assert!(first.try_recv().is_err(), "not answered yet");
        drop(queue.recv().unwrap());
        assert!(ask(0).try_recv().is_err(), "there is room again");
        drop(queue);
        assert_eq!(ask(0).try_recv(), Err(oneshot::error::TryRecvError::Closed), "nobody is there to answer");
    }
}
