//! Looking things up in the directory, in this node's own replica of the control group: it may lag behind, and it may be
//! damaged.

use std::future::Future;
use std::sync::Arc;

use mailraft_directory::{Lookup, LookupError};
use mailraft_driver::{BarrierOutcome, Cluster, Reader};
use mailraft_storage::PartitionId;

/// Why a look-up has no answer. Temporary to whoever asked: another node may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncertain {
    /// Rows of the control group can't be read here, which was reported.
    Damaged,
    /// Nobody can say now whether this replica is up to date, or the node ends.
    Unavailable,
}

/// Looks something up on a worker thread. Damage that it meets is reported: another node is to answer.
///
/// # Errors
/// If the rows can't be read.
pub async fn look_up<T: Send + 'static>(
    cluster: &Cluster,
    lookup: &Arc<Lookup>,
    look: impl FnOnce(&Lookup) -> Result<T, LookupError> + Send + 'static,
) -> Result<T, Uncertain> {
    let lookup = Arc::clone(lookup);
    match tokio::task::spawn_blocking(move || look(&lookup)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(%error, "the directory can't be read");
            if let Some(control) = cluster.replica(PartitionId::CONTROL) {
                cluster.found_damaged(control, &error);
            }
            Err(Uncertain::Damaged)
        }
        Err(_) => Err(Uncertain::Unavailable),
    }
}

/// Looks; and where the answer is a "no", looks again after a read barrier of the control group. A "no" is permanent to
/// whoever hears it ("no such mailbox", "wrong password"), and this replica may lag behind.
///
/// # Errors
/// If the barrier is not passed, or looking fails.
pub async fn look_twice_before_no<T, X: From<Uncertain>, F: Future<Output = Result<T, X>>>(
    cluster: &Cluster,
    is_no: impl Fn(&T) -> bool,
    mut look: impl FnMut() -> F,
) -> Result<T, X> {
    let found = look().await?;
    if !is_no(&found) {
        return Ok(found);
    }
    up_to_date(cluster, Reader::Visible).await?;
    look().await
}

/// Waits until this replica of the control group has all that was answered before, for a "yes"
/// ([`Reader::Applied`]: a change that waits for another region stops no login) or a "no" ([`Reader::Visible`]).
///
/// # Errors
/// If nobody can say.
pub async fn up_to_date(cluster: &Cluster, reader: Reader) -> Result<(), Uncertain> {
    match cluster.read_barrier(PartitionId::CONTROL, reader).await {
        Ok(BarrierOutcome::Passed { .. }) => Ok(()),
        Ok(BarrierOutcome::NotLeader { .. } | BarrierOutcome::Unavailable) | Err(_) => Err(Uncertain::Unavailable),
    }
}
