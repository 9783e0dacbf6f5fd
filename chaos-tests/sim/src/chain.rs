//! What the running hash of a replica must be: that of every accepted entry, whatever its kind, byte by byte.

use std::collections::BTreeMap;

use mailraft_cluster::ApplyJob;
use mailraft_cluster::apply::AppliedJob;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::{ReplicaId, Rows, Verdict};
use raft::eraftpb::EntryType;
use sha2::{Digest, Sha256};

/// Hash and count of replicas.
pub type Chains = BTreeMap<ReplicaId, ([u8; 32], u64)>;

/// Where the replicas of these jobs are before those are applied; None if a store can't be read.
pub fn chains_of(rows: &MemoryRows, jobs: &[ApplyJob]) -> Option<Chains> {
    let mut chains = Chains::new();
    for job in jobs {
        let applied = rows.applied(job.replica).ok()??;
        chains.insert(job.replica, (applied.hash, applied.count));
    }
    Some(chains)
}

/// What is wrong with the hashes after the jobs.
pub fn wrong_chain(mut chains: Chains, jobs: &[ApplyJob], done: &[AppliedJob]) -> Option<String> {
    let verdicts: BTreeMap<(ReplicaId, u64), Verdict> =
        done.iter().flat_map(|d| d.verdicts.iter().map(|(index, verdict)| ((d.replica, index.0), *verdict))).collect();
    for job in jobs {
        let (hash, count) = chains.get_mut(&job.replica)?;
        for (entry, _) in &job.entries {
            let counts = entry.get_entry_type() == EntryType::EntryNormal
                && verdicts.get(&(job.replica, entry.index)) == Some(&Verdict::Accepted);
            if counts {
                let mut next = Sha256::new();
                next.update(*hash);
                next.update(&entry.data);
                (*hash, *count) = (next.finalize().into(), *count + 1);
            }
        }
    }
    let wrong = done.iter().find(|d| chains.get(&d.replica) != Some(&(d.applied.hash, d.applied.count)))?;
    Some(format!(
        "the running hash of replica {} at {} is not that of its {} accepted entries",
        wrong.replica, wrong.applied.index, wrong.applied.count
    ))
}
