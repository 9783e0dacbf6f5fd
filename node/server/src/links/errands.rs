//! Carrying out what queue mailboxes' owners want done with other mailboxes: a session of its own for each errand.

use std::sync::Arc;

use bytes::Bytes;
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_mailbox::api::NewMessage;
use mailraft_mailbox::queue::content::QueuedMessage;
use mailraft_mailbox::queue::errands::{Errand, ErrandKind, ErrandOutcome};
use mailraft_mailbox::{Answer, Command, Finished, MailboxKey, NotDone, Place, Position, Refusal};
use mailraft_storage::{CommandId, NodeId, PartitionId, Rows, StoreError};
use tokio::sync::{Semaphore, mpsc};

use super::Reach;
use super::session::MailboxSession;
use super::source::MessageSource;
use crate::actors::ErrandJob;
use crate::environment::{command_id, os_env};
use crate::lookups::look_up;
use crate::trail::Step;

/// Errands of a node's queue mailboxes that are carried out at once, without the large ones. Each has a chunk and a
/// description of its message in memory, and uploads a MiB at the most.
pub const ERRANDS_AT_ONCE: usize = 64;
/// Large errands that are carried out at once: with two of the largest messages a node is busy, and a third one would only
/// keep its peers from answering. They have a lane of their own, so that no small one waits behind them.
pub const LARGE_ERRANDS_AT_ONCE: usize = 2;

/// Carries out errands for as long as the node runs.
pub async fn run_errands(reach: Reach, mut jobs: mpsc::UnboundedReceiver<ErrandJob>) {
    let lanes = Lanes::default();
    while let Some(job) = jobs.recv().await {
        let reach = reach.clone();
        lanes.take(job, move |place, errand| async move { carry_out(&reach, place, errand).await });
    }
}

/// What bounds how many errands are carried out at once.
struct Lanes {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Self {
        let lane = |places| Arc::new(Semaphore::new(places));
        Lanes { small: lane(ERRANDS_AT_ONCE), large: lane(LARGE_ERRANDS_AT_ONCE) }
    }
}

impl Lanes {
    /// Has an errand carried out in its turn. What waits is bounded by those who ask: each has so many under way.
    fn take<F>(&self, job: ErrandJob, carry_out: impl FnOnce(Place, Errand) -> F + Send + 'static)
    where
        F: Future<Output = ErrandOutcome> + Send,
    {
        let lane = Arc::clone(if job.task.is_large() { &self.large } else { &self.small });
        tokio::spawn(async move {
            // Nobody closes it.
            let Ok(place) = lane.acquire_owned().await else { return };
            // Whoever leads the queue meanwhile does it anew; twice at once is twice the bytes.
            if !job.is_wanted() {
                return;
            }
            let outcome = carry_out(job.place, job.task).await;
            drop(place);
            job.ended(outcome);
        });
    }
}

async fn carry_out(reach: &Reach, place: Place, errand: Errand) -> ErrandOutcome {
    tokio::select! {
        biased;
        outcome = carry_out_while_leading(reach, place, errand) => outcome,
        // A successor does it anew.
        () = is_deposed(reach, errand.origin.queue) => ErrandOutcome::Failed,
    }
}

/// Returns once another node leads the queue's partition, as this one knows.
async fn is_deposed(reach: &Reach, queue: PartitionId) {
    let (mut leaders, own) = (reach.cluster.leaders(), reach.cluster.node());
    let other = |leaders: &Arc<Vec<Option<NodeId>>>| {
        leaders.get(queue.0 as usize).copied().flatten().is_some_and(|leader| leader != own)
    };
    if leaders.wait_for(other).await.is_err() {
        // The core ended: the node does.
        std::future::pending::<()>().await;
    }
}

async fn carry_out_while_leading(reach: &Reach, place: Place, errand: Errand) -> ErrandOutcome {
    let id = command_id(&reach.cluster);
    let finished = match errand.what {
        ErrandKind::Deliver => match deliver(reach, place, &errand, id).await {
            Some(finished) => finished,
            None => return ErrandOutcome::Failed,
        },
        ErrandKind::Release => {
            // The recipient's mailbox forgets the delivery: that it was made must outlast the loss of a region here.
            let held = reach.cluster.read_barrier(errand.origin.queue, Reader::Held(place.term)).await;
            if !matches!(held, Ok(BarrierOutcome::Passed { .. })) {
                return ErrandOutcome::Failed;
            }
            let command = Command::ReleaseQueued { origin: errand.origin };
            MailboxSession::new(reach.clone(), errand.mailbox).ask(id, command).await
        }
    };
    let (item, recipient) = (errand.origin.item, errand.origin.recipient);
    let (result, outcome) = match finished {
        Finished::Done((_, at)) => {
            tracing::info!(%item, recipient, command = %id, %at, what = ?errand.what, "done for a recipient of the queue");
            if errand.what == ErrandKind::Deliver {
                reach.trail.add(Step { recipient: Some(recipient), ..Step::new(item, "delivered") });
            }
            ("done", ErrandOutcome::Done)
        }
        Finished::NotDone(NotDone::Refused(Refusal::Stale)) => ("stale", ErrandOutcome::Stale),
        Finished::NotDone(NotDone::NoSuchMailbox) => {
            tracing::warn!(%item, recipient, "the mailbox of a recipient is gone: what was accepted for it is held");
            ("held", ErrandOutcome::NoSuchMailbox)
        }
        Finished::NotDone(why) => {
            tracing::info!(%item, recipient, command = %id, %why, what = ?errand.what, "not done for a recipient of the queue");
            ("failed", ErrandOutcome::Failed)
        }
        Finished::Unknown => {
            tracing::info!(%item, recipient, command = %id, what = ?errand.what, "perhaps done for a recipient of the queue");
            ("failed", ErrandOutcome::Failed)
        }
    };
    let what = match errand.what {
        ErrandKind::Deliver => "deliver",
        ErrandKind::Release => "release",
    };
    ::metrics::counter!("mailraft_queue_errands_total", "what" => what, "result" => result).increment(1);
    outcome
}

/// Puts the message into the recipient's mailbox. None if it can't be read here.
async fn deliver(reach: &Reach, place: Place, errand: &Errand, id: CommandId) -> Option<Finished<(Answer, Position)>> {
    let mailbox = place.mailbox;
    let (key, epoch) =
        look_up(&reach.cluster, &reach.lookup, move |lookup| lookup.mailbox_key(mailbox)).await.ok()??;
    let (rows, recipient) = (Arc::clone(reach.cluster.rows()), (errand.origin.item, errand.origin.recipient));
    let from = Arc::clone(&rows);
    let read = move || QueuedMessage::read(from.as_ref(), place, &MailboxKey::new(key, epoch), recipient);
    let message = match tokio::task::spawn_blocking(read).await.ok()? {
        Ok(Some(message)) => message,
        Ok(None) => {
            let (item, recipient) = recipient;
            tracing::info!(%item, recipient, "what waits in a queue is not there, or not all of it");
            return None;
        }
        Err(error) => {
            report(reach, place, &error);
            return None;
        }
    };
    let kind = message.kind(errand.origin);
    let source = Stored { message, rows };
    Some(MailboxSession::new(reach.clone(), errand.mailbox).store_queued(id, kind, &source).await)
}

fn report(reach: &Reach, place: Place, error: &StoreError) {
    tracing::error!(mailbox = %place.mailbox, %error, "what waits in a queue can't be read");
    reach.cluster.found_damaged(place.replica, error);
}

/// A message in the rows of its queue mailbox.
struct Stored {
    message: QueuedMessage,
    rows: Arc<dyn Rows>,
}

impl MessageSource for Stored {
    fn seal(&self) -> Vec<NewMessage> {
        vec![self.message.new_message(&mut os_env())]
    }

    fn chunk(&self, _: usize, _: &NewMessage, number: u32) -> Option<Bytes> {
        match self.message.chunk(self.rows.as_ref(), number) {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::error!(%error, "a chunk of what waits in a queue can't be read");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_mailbox::queue::errands::ERRAND_LARGE_ABOVE_BYTES;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

    use super::*;
    use crate::actors::tasks_testing::{ends, job, owner};

    /// Says that it has begun and goes on for ever.
    fn begins(
        begun: &UnboundedSender<u64>,
    ) -> impl FnOnce(Place, Errand) -> std::future::Pending<ErrandOutcome> + use<> {
        let begun = begun.clone();
        move |_, errand| {
            begun.send(errand.upload_bytes).unwrap();
            std::future::pending()
        }
    }

    async fn begun(begun: &mut UnboundedReceiver<u64>, count: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(begun.recv().await.unwrap());
        }
        all
    }

    #[actix::test]
    async fn two_large_errands_are_carried_out_at_once_and_no_small_one_waits_behind_them() {
        let (lanes, (owner, _hears)) = (Lanes::default(), owner());
        let (says, mut hears) = mpsc::unbounded_channel();
        let large = ERRAND_LARGE_ABOVE_BYTES + 1;
        (0..5).for_each(|_| lanes.take(job(&owner, large), begins(&says)));
        (0..70).for_each(|_| lanes.take(job(&owner, ERRAND_LARGE_ABOVE_BYTES), begins(&says)));
        let all = begun(&mut hears, LARGE_ERRANDS_AT_ONCE + ERRANDS_AT_ONCE).await;
        assert_eq!(all.iter().filter(|bytes| **bytes == large).count(), LARGE_ERRANDS_AT_ONCE);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(hears.try_recv().is_err(), "the others wait");
        assert_eq!((lanes.small.available_permits(), lanes.large.available_permits()), (0, 0));
    }

    #[actix::test]
    async fn what_waits_for_its_turn_is_not_carried_out_for_an_owner_that_ended() {
        let (lanes, (gone, _), (other, _)) = (Lanes::default(), owner(), owner());
        let (says, mut hears) = mpsc::unbounded_channel();
        let held = Arc::clone(&lanes.large).acquire_many_owned(LARGE_ERRANDS_AT_ONCE as u32).await.unwrap();
        lanes.take(job(&gone, 40 << 20), begins(&says));
        ends(gone).await;
        lanes.take(job(&other, 41 << 20), begins(&says));
        drop(held);
        assert_eq!(begun(&mut hears, 1).await, [41 << 20]);
    }
}
