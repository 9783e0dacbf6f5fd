//! Chunks of large bodies on their way into the log.

use mailraft_driver::Cluster;
use mailraft_storage::entry::ChunkBody;
use mailraft_storage::{EntryKind, Proposal, ProposalOutcome, Verdict};
use tokio::sync::mpsc::OwnedPermit;

use super::frame::{ChunkDone, UploadChunk};

/// A chunk on its way into the log.
pub struct ProposedChunk(Option<tokio::sync::oneshot::Receiver<ProposalOutcome>>);

impl ProposedChunk {
    /// Whether it is on a majority's disks; false if it is not and won't be by this attempt.
    pub async fn durable(self) -> bool {
        let Some(outcome) = self.0 else { return false };
        matches!(outcome.await, Ok(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }))
    }
}

/// Hands a chunk to the log of its partition in the term that this node leads, if it leads it.
pub fn propose_chunk(cluster: &Cluster, chunk: UploadChunk) -> ProposedChunk {
    let partition = chunk.mailbox.partition(cluster.partitions());
    let Some(leading) = cluster.leading().borrow().get(&partition).cloned() else {
        return ProposedChunk(None);
    };
    let proposal = Proposal {
        incarnation: leading.incarnation,
        term: leading.term,
        mailbox: chunk.mailbox,
        command: chunk.command,
        kind: EntryKind::Chunk(ChunkBody {
            body: chunk.body.0,
            number: chunk.number,
            open: chunk.open,
            data: chunk.data,
        }),
    };
    ProposedChunk(Some(cluster.propose(partition, proposal)))
}

/// Says in the place kept for it what became of a chunk.
pub async fn tell_when_durable(chunk: ProposedChunk, number: u32, place: OwnedPermit<ChunkDone>) {
    let ok = chunk.durable().await;
    place.send(ChunkDone { number, ok });
}
