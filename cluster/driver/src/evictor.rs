//! Evicts results of commands, beside the leader of each partition.

use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::eviction::{EVICTED_MAX_ROWS, Eviction, evict};
use mailraft_storage::{CommandId, PartitionId, ProposalOutcome, Rows, Verdict};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use crate::beside::TermOver;
use crate::core_thread::Leading;
use crate::inputs::Inputs;
use crate::metrics;
use crate::own_rows::OwnRows;

/// Entries by which one partition evicts in one round.
const ROUND_MAX_ENTRIES: usize = 64;

/// What the tasks work with.
#[derive(Clone)]
pub(crate) struct Evictor {
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) inputs: Inputs,
    pub(crate) own_rows: OwnRows,
    /// How long a result is kept.
    pub(crate) kept: Duration,
    /// From one round to the next.
    pub(crate) pause: Duration,
    /// One partition's round at a time.
    pub(crate) rounds: Arc<Semaphore>,
}

impl Evictor {
    /// Works beside the leader of a partition until its term is over. It begins with whatever an earlier term left.
    pub(crate) async fn run(self, partition: PartitionId, at: Leading, mut over: TermOver) {
        let mut from = CommandId::default();
        let mut rounds = interval(self.pause);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = over.wait() => return,
                _ = rounds.tick() => {}
            }
            let Ok(_round) = self.rounds.acquire().await else { return };
            for _ in 0..ROUND_MAX_ENTRIES {
                if over.is_over() || !self.evict(partition, &at, &mut from).await {
                    break;
                }
            }
        }
    }

    /// Evicts by one entry. Whether more may be due already.
    async fn evict(&self, partition: PartitionId, at: &Leading, from: &mut CommandId) -> bool {
        let Some(eviction) = self.next(partition, at, *from).await else { return false };
        let (evicted, next, more) = (eviction.evicted, eviction.next, eviction.more);
        match self.own_rows.propose(partition, eviction.proposal(at.incarnation, at.term)).await {
            Ok(ProposalOutcome::Applied { verdict: Verdict::Accepted, index }) => {
                tracing::debug!(%partition, %index, evicted, below = %next, "results of commands evicted");
                ::metrics::counter!(metrics::EVICTED).increment(evicted as u64);
                *from = next;
                more
            }
            // The next round, or the next leader, does it.
            Ok(
                ProposalOutcome::Applied { verdict: Verdict::Fenced | Verdict::Missing, .. }
                | ProposalOutcome::Dropped
                | ProposalOutcome::Overloaded
                | ProposalOutcome::NotConfirmed
                | ProposalOutcome::NotLeader { .. }
                | ProposalOutcome::Unknown,
            )
            | Err(_) => false,
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
