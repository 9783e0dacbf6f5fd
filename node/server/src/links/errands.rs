//! Carrying out what queue mailboxes' owners want done with other mailboxes: a session of its own for each errand.

use std::sync::Arc;

use bytes::Bytes;
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_mailbox::api::NewMessage;
use mailraft_mailbox::queue::content::QueuedMessage;
use mailraft_mailbox::queue::errands::{Errand, ErrandKind, ErrandOutcome};
use mailraft_mailbox::{Answer, Command, Finished, MailboxKey, NotDone, Place, Position, Refusal};
use mailraft_storage::{CommandId, Rows, StoreError};
use tokio::sync::{Semaphore, mpsc};

use super::Reach;
use super::session::MailboxSession;
use super::source::MessageSource;
use crate::actors::ErrandJob;
use crate::environment::{command_id, os_env};
use crate::lookups::look_up;

/// Errands of a node's queue mailboxes that are carried out at once. Each has a chunk and a description of its message in
/// memory.
pub const ERRANDS_AT_ONCE: usize = 64;

/// Carries out errands for as long as the node runs.
pub async fn run_errands(reach: Reach, mut jobs: mpsc::UnboundedReceiver<ErrandJob>) {
    let places = Arc::new(Semaphore::new(ERRANDS_AT_ONCE));
    while let Some(job) = jobs.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let reach = reach.clone();
        tokio::spawn(async move {
            let outcome = carry_out(&reach, job.place, job.errand).await;
            drop(place);
            job.ended(outcome);
        });
    }
}

async fn carry_out(reach: &Reach, place: Place, errand: Errand) -> ErrandOutcome {
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
    fn seal(&self) -> NewMessage {
        self.message.new_message(&mut os_env())
    }

    fn chunk(&self, _: &NewMessage, number: u32) -> Option<Bytes> {
        match self.message.chunk(self.rows.as_ref(), number) {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::error!(%error, "a chunk of what waits in a queue can't be read");
                None
            }
        }
    }
}
