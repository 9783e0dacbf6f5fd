//! Evicts results of commands, beside the leader of each mail partition. The control group's directory does so
//! itself: of a partition's own rows only one entry may be in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::eviction::{EVICTED_MAX_ROWS, Eviction, evict};
use mailraft_storage::{CommandId, PartitionId, ProposalOutcome, Rows, Term, Verdict};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::core_thread::{Leading, LeadingMap};
use crate::inputs::Inputs;
use crate::metrics;

/// Entries by which one partition evicts in one round.
const ROUND_MAX_ENTRIES: usize = 64;

/// What the task works with.
pub(crate) struct Evictor {
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) inputs: Inputs,
    pub(crate) leading: watch::Receiver<LeadingMap>,
    /// How long a result is kept.
    pub(crate) kept: Duration,
    /// From one round to the next.
    pub(crate) pause: Duration,
}

impl Evictor {
    /// Works until the node ends.
    pub(crate) async fn run(self) {
        // Where each term's next eviction goes on; a term begins with whatever an earlier one left.
        let mut reached: BTreeMap<PartitionId, (Term, CommandId)> = BTreeMap::new();
        let mut rounds = interval(self.pause);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let leading = self.leading.borrow().clone();
            reached.retain(|partition, (term, _)| leading.get(partition).is_some_and(|l| l.term == *term));
            for (&partition, at) in leading.iter().filter(|(partition, _)| **partition != PartitionId::CONTROL) {
                let (_, from) = reached.entry(partition).or_insert((at.term, CommandId::default()));
                self.partition(partition, at, from).await;
            }
        }
    }

    async fn partition(&self, partition: PartitionId, at: &Leading, from: &mut CommandId) {
        for _ in 0..ROUND_MAX_ENTRIES {
            let Some(eviction) = self.next(partition, at, *from).await else { return };
            let (evicted, next, more) = (eviction.evicted, eviction.next, eviction.more);
            // Always awaited to its end: two entries of the partition's own rows are never in flight.
            match self.inputs.propose(partition, eviction.proposal(at.incarnation, at.term)).await {
                Ok(ProposalOutcome::Applied { verdict: Verdict::Accepted, index }) => {
                    tracing::debug!(%partition, %index, evicted, below = %next, "results of commands evicted");
                    ::metrics::counter!(metrics::EVICTED).increment(evicted as u64);
                    *from = next;
                }
                // The next round, or the next leader, does it.
                Ok(
                    ProposalOutcome::Applied { verdict: Verdict::Fenced | Verdict::Missing, .. }
                    | ProposalOutcome::Dropped
                    | ProposalOutcome::Overloaded
                    | ProposalOutcome::NotLeader { .. }
                    | ProposalOutcome::Unknown,
                )
                | Err(_) => return,
            }
            if !more {
                return;
            }
        }
    }

    async fn next(&self, partition: PartitionId, at: &Leading, from: CommandId) -> Option<Eviction> {
        let (rows, replica, kept) = (Arc::clone(&self.rows), at.replica, self.kept);
        let work = move || evict(rows.as_ref(), replica, from, kept, EVICTED_MAX_ROWS);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(eviction)) => eviction,
            Ok(Err(error)) => {
                tracing::error!(%partition, "results of commands can't be evicted");
                self.inputs.damaged(at.replica, &error);
                None
            }
            // The node ends.
            Err(_) => None,
        }
    }
}
