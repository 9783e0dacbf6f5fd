//! What other servers have is to stand in the queue, also where its owner leads no more when that is heard: the node that heard it
//! tells the successor, which sends nothing before [`PREDECESSOR_GRACE`](mailraft_mailbox::queue::outward::PREDECESSOR_GRACE) is over.

use std::sync::Arc;
use std::time::Duration;

use mailraft_mailbox::Finished;
use mailraft_mailbox::queue::arrived::Arrived;
use tokio::time::sleep;

use super::LetGo;
use crate::environment::command_id;
use crate::links::{MailboxSession, Reach};

/// The owner that sent it has so long to record it, while nothing changes its lead.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many looks a successor has long sent it once more.
const LOOKS_MAX: usize = 30;

/// Waits until the queue has recorded it, and tells whoever leads it if that takes long. A node that is to stop waits for it.
pub async fn until_recorded(reach: Reach, arrived: Arrived, _let_go: LetGo) {
    let mut leading = reach.cluster.leading();
    leading.mark_unchanged();
    tokio::select! {
        () = sleep(FIRST_LOOK) => {}
        _ = leading.changed() => {}
    }
    let arrived = Arc::new(arrived);
    for _ in 0..LOOKS_MAX {
        let (of_reader, rows) = (Arc::clone(&arrived), Arc::clone(reach.cluster.rows()));
        // Rows that can't be read say nothing: then it is told.
        if let Ok(Ok(true)) = tokio::task::spawn_blocking(move || of_reader.is_recorded(rows.as_ref())).await {
            return;
        }
        let mut session = MailboxSession::new(reach.clone(), arrived.queue());
        match session.ask(command_id(&reach.cluster), arrived.command()).await {
            Finished::Done(_) => {
                tracing::info!(item = %arrived.item(), "told the queue that it was sent, as its owner had not recorded that");
                return;
            }
            Finished::NotDone(why) => {
                tracing::info!(item = %arrived.item(), %why, "a queue can't be told yet that it was sent")
            }
            Finished::Unknown => {}
        }
        sleep(PAUSE).await;
    }
}
