//! Actors end whose mailboxes are gone. A mailbox's owner decides on the mailbox's rows alone, in which the deletion of its
//! account does not stand: without this it would go on for as long as it is in memory.

use std::time::Duration;

use mailraft_owner::Detached;
use mailraft_storage::{Index, MailboxId, PartitionId};

use super::Registry;
use crate::lookups::look_up;

/// The control group's position is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Registry {
    /// Ends the actors of mailboxes that are gone, for as long as the node runs: whenever this node's replica of the control
    /// group has gone on. Whoever asks for one of them next has it loaded, and hears after a read barrier that it is not there.
    pub async fn end_actors_of_deleted(self) {
        let mut seen: Option<Index> = None;
        let mut pause = tokio::time::interval(LOOK_EVERY);
        loop {
            pause.tick().await;
            let cluster = self.cluster();
            let Some(control) = cluster.replica(PartitionId::CONTROL) else { continue };
            let Ok(Some(applied)) = cluster.rows().applied(control) else { continue };
            if seen == Some(applied.index) {
                continue;
            }
            let mailboxes = self.mailboxes();
            let look = move |lookup: &mailraft_directory::Lookup| {
                let is_there = |mailbox: &MailboxId| Ok((*mailbox, lookup.has_mailbox(*mailbox)?));
                mailboxes.iter().map(is_there).collect::<Result<Vec<_>, mailraft_directory::LookupError>>()
            };
            // What can't be read now says nothing about anybody, and is looked at again.
            let Ok(found) = look_up(cluster, self.lookup(), look).await else { continue };
            seen = Some(applied.index);
            for (mailbox, _) in found.into_iter().filter(|(_, is_there)| !is_there) {
                tracing::info!(%mailbox, "the mailbox was deleted: its actor ends");
                self.end_actor(mailbox, Detached::Gone);
            }
        }
    }
}
