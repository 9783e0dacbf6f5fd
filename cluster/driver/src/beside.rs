//! Tasks beside the leaders on this node: one for each partition that it leads, for as long as it leads it in one term.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::future::Future;

use mailraft_storage::PartitionId;
use tokio::sync::{oneshot, watch};
use tokio::task::{Id, JoinSet};

use crate::core_thread::{Leading, LeadingMap};

/// Tells a task that the term beside whose leader it runs is over.
pub struct TermOver {
    over: oneshot::Receiver<()>,
}

impl TermOver {
    /// Until the term is over. Cancel safe.
    pub async fn wait(&mut self) {
        if !self.is_over() {
            // Nothing is ever sent: the sender goes.
            let _ = (&mut self.over).await;
        }
    }

    /// Whether the term is over.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.over.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

/// A task, until it has ended and its term is over: one that ends earlier is not started again in its term.
struct Running {
    at: Leading,
    /// Goes when the term is over.
    term: Option<oneshot::Sender<()>>,
    has_ended: bool,
}

/// Starts a task whenever this node leads a partition in another term than before, and tells it when that is over. Of
/// a partition two never run at once: the next term's waits until the earlier one has ended by itself. Returns when
/// nothing will be led here any more and every task has ended.
///
/// # Panics
/// With the panic of a task.
pub async fn beside_leaders<F>(
    mut leading: watch::Receiver<LeadingMap>,
    mut start: impl FnMut(PartitionId, Leading, TermOver) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running: BTreeMap<PartitionId, Running> = BTreeMap::new();
    let mut partitions: HashMap<Id, PartitionId> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut may_change = true;
    loop {
        let now = if may_change { leading.borrow_and_update().clone() } else { LeadingMap::default() };
        running.retain(|partition, task| {
            if now.get(partition) != Some(&task.at) {
                task.term = None;
            }
            task.term.is_some() || !task.has_ended
        });
        for (&partition, &at) in now.iter() {
            if let Entry::Vacant(free) = running.entry(partition) {
                let (sender, over) = oneshot::channel();
                let task = tasks.spawn(start(partition, at, TermOver { over }));
                partitions.insert(task.id(), partition);
                free.insert(Running { at, term: Some(sender), has_ended: false });
            }
        }
        if !may_change && tasks.is_empty() {
            return;
        }
        tokio::select! {
            changed = leading.changed(), if may_change => may_change = changed.is_ok(),
            Some(ended) = tasks.join_next_with_id() => {
                let id = match &ended {
                    Ok((id, ())) => *id,
                    Err(error) => error.id(),
                };
                if let Some(task) = partitions.remove(&id).and_then(|partition| running.get_mut(&partition)) {
                    task.has_ended = true;
                }
                if let Err(error) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use mailraft_storage::{Incarnation, ReplicaId, Term};
    use tokio::sync::mpsc;

    use super::*;

    fn led(terms: &[(u32, u64)]) -> LeadingMap {
        let leading = |(partition, term): &(u32, u64)| {
            let at = Leading {
                replica: ReplicaId(1),
                term: Term(*term),
                incarnation: Incarnation::default(),
                began_alone: false,
            };
            (PartitionId(*partition), at)
        };
        Arc::new(terms.iter().map(leading).collect())
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Starts(u32, u64),
        Over(u32, u64),
    }

    #[tokio::test]
    async fn a_task_runs_beside_each_leader_and_the_next_waits_for_the_one_before() {
        let (lead, leading) = watch::channel(LeadingMap::default());
        let (seen_by, mut seen) = mpsc::unbounded_channel();
        let (end, ends) = watch::channel(0);
        let all = tokio::spawn(beside_leaders(leading, move |partition, at, mut over| {
            let (seen, mut ends) = (seen_by.clone(), ends.clone());
            async move {
                seen.send(Seen::Starts(partition.0, at.term.0)).unwrap();
                over.wait().await;
                assert!(over.is_over());
                seen.send(Seen::Over(partition.0, at.term.0)).unwrap();
                ends.wait_for(|term| *term >= at.term.0).await.unwrap();
            }
        }));
        lead.send_replace(led(&[(1, 5)]));
        assert_eq!(seen.recv().await, Some(Seen::Starts(1, 5)));
        // What did not change goes on; a term is over when another begins.
        lead.send_replace(led(&[(1, 5), (2, 7)]));
        assert_eq!(seen.recv().await, Some(Seen::Starts(2, 7)));
        lead.send_replace(led(&[(1, 6), (2, 7)]));
        assert_eq!(seen.recv().await, Some(Seen::Over(1, 5)));
        lead.send_replace(led(&[(1, 8), (3, 1)]));
        let mut two = [seen.recv().await.unwrap(), seen.recv().await.unwrap()];
        two.sort_by_key(|seen| matches!(seen, Seen::Starts(..)));
        assert_eq!(two, [Seen::Over(2, 7), Seen::Starts(3, 1)]);
        assert!(seen.try_recv().is_err(), "the one of term 5 has not ended: no other starts for its partition");
        end.send_replace(5);
        assert_eq!(seen.recv().await, Some(Seen::Starts(1, 8)), "term 6 passed meanwhile");
        // The node ends.
        drop(lead);
        let mut two = [seen.recv().await.unwrap(), seen.recv().await.unwrap()];
        two.sort_by_key(|seen| matches!(seen, Seen::Over(3, _)));
        assert_eq!(two, [Seen::Over(1, 8), Seen::Over(3, 1)]);
        assert!(!all.is_finished());
        end.send_replace(9);
        all.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_ends_before_its_term_is_not_started_again_in_it() {
        let (lead, leading) = watch::channel(led(&[(1, 5)]));
        let (seen_by, mut seen) = mpsc::unbounded_channel();
        let all = tokio::spawn(beside_leaders(leading, move |_, at, _| {
            seen_by.send(at.term.0).unwrap();
            async {}
        }));
        assert_eq!(seen.recv().await, Some(5));
        lead.send_replace(led(&[(1, 5), (2, 9)]));
        assert_eq!(seen.recv().await, Some(9));
        lead.send_replace(led(&[(1, 6), (2, 9)]));
        assert_eq!(seen.recv().await, Some(6));
        drop(lead);
        all.await.unwrap();
        assert!(seen.recv().await.is_none());
    }
}
