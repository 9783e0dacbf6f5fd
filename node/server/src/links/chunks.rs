//! Chunks of large bodies on their way into the log.

use mailraft_driver::Cluster;
use mailraft_mailbox::session::ChunkOutcome;
use mailraft_storage::entry::ChunkBody;
use mailraft_storage::{EntryKind, Proposal, ProposalOutcome, Verdict};
use tokio::sync::mpsc::OwnedPermit;

use super::frame::{ChunkDone, UploadChunk};

/// A chunk on its way into the log.
pub struct ProposedChunk(Option<tokio::sync::oneshot::Receiver<ProposalOutcome>>);

impl ProposedChunk {
    /// What becomes of it.
    pub async fn outcome(self) -> ChunkOutcome {
        let Some(outcome) = self.0 else { return ChunkOutcome::NotDurable };
        match outcome.await {
            Ok(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }) => ChunkOutcome::Durable,
            Ok(ProposalOutcome::NotConfirmed) => ChunkOutcome::NotConfirmed,
            // Which of the others it is changes nothing for who uploads.
            Ok(_) | Err(_) => ChunkOutcome::NotDurable,
        }
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
    let outcome = chunk.outcome().await;
    place.send(ChunkDone { number, outcome });
}
