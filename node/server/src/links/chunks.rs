//! Chunks of large bodies on their way into the log.

use mailraft_storage::entry::ChunkBody;
use mailraft_storage::{EntryKind, Proposal, ProposalOutcome, Verdict};

use super::frame::UploadChunk;
use crate::world::World;

/// Chunks of one upload that may be under way.
pub const CHUNKS_UNANSWERED_MAX: usize = 8;

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
pub fn propose_chunk(world: &World, chunk: UploadChunk) -> ProposedChunk {
    let partition = chunk.mailbox.partition(world.cluster.partitions());
    let Some(leading) = world.cluster.leading().borrow().get(&partition).cloned() else {
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
    ProposedChunk(Some(world.cluster.propose(partition, proposal)))
}
