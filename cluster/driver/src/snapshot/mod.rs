//! Snapshots: rows of a whole replica, sent over a connection of their own, staged as a file, and put in
//! place when the core says so.

mod file;
mod group_rows;
mod install;
mod receive;
mod send;
mod staging;
#[cfg(test)]
mod tests;
mod under_way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::{Input, PeerMessage, SnapshotEvent, SnapshotJob};
use mailraft_storage::log::Log;
use mailraft_storage::{NodeId, ReplicaId, Rows};
use tokio::sync::{Semaphore, mpsc};

use crate::far::Far;
use crate::fatal::Fatal;
use crate::inputs::Inputs;
use crate::stream::Identity;

pub use install::verify as verify_snapshot;
pub(crate) use receive::Receiver;
pub(crate) use staging::Staging;
pub(crate) use under_way::UnderWay;

/// Snapshots sent at a time; others wait. As many to other regions: theirs take long, and none at home waits for them.
const SENDING_MAX: usize = 2;
/// After one that failed the next is sent to the same node.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What snapshots need of the driver.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) me: Identity,
    pub(crate) peers: BTreeMap<NodeId, String>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) staging: Staging,
    pub(crate) bytes_per_second: u64,
    /// The same to nodes of other regions.
    pub(crate) far_bytes_per_second: u64,
    pub(crate) far: Far,
    /// What is being sent there.
    pub(crate) under_way: UnderWay,
    pub(crate) inputs: Inputs,
    pub(crate) fatal: Fatal,
}

/// What is to be done about snapshots.
pub(crate) enum SnapshotWork {
    /// The core wants something.
    Job(Box<SnapshotJob>),
    /// The log says durably that a replica's installation is over: its file may go.
    Over(ReplicaId),
}

/// Starts the task that does what is to be done; returns who takes snapshots of other nodes.
pub(crate) fn start(context: Context, work: mpsc::UnboundedReceiver<SnapshotWork>) -> Receiver {
    let receiver = Receiver::new(context.clone());
    context.fatal.clone().spawn_task("snapshots", run(context, work));
    receiver
}

async fn run(context: Context, mut queue: mpsc::UnboundedReceiver<SnapshotWork>) {
    let (near, far) = (Arc::new(Semaphore::new(SENDING_MAX)), Arc::new(Semaphore::new(SENDING_MAX)));
    while let Some(work) = queue.recv().await {
        let job = match work {
            SnapshotWork::Job(job) => *job,
            SnapshotWork::Over(replica) => {
                let staging = context.staging.clone();
                tokio::task::spawn_blocking(move || staging.over(replica));
                continue;
            }
        };
        match job {
            SnapshotJob::Send { replica, to, message } => {
                let places = if context.far.region(to).is_some() { &far } else { &near };
                let (context, places) = (context.clone(), Arc::clone(places));
                context.fatal.clone().spawn_task("sending a snapshot", async move {
                    send(&context, &places, replica, to, message).await;
                });
            }
            SnapshotJob::Install { replica, applied } => {
                let fatal = context.fatal.clone();
                let context = context.clone();
                let spawned = context.fatal.clone().spawn("mailraft-install", move || {
                    let (group, regions) =
                        install::install(&context.staging, context.rows.as_ref(), replica, &applied)?;
                    if !context.fatal.is_dead() {
                        context.inputs.own(Input::Snapshot(SnapshotEvent::Installed { replica, group, regions }));
                    }
                    Ok(())
                });
                if let Err(error) = spawned {
                    fatal.raise(format!(
                        "can't start a thread to install a snapshot: {error}; raise the limit of threads"
                    ));
                }
            }
            SnapshotJob::Discard { replica } => {
                let staging = context.staging.clone();
                tokio::task::spawn_blocking(move || staging.discard(replica));
            }
            SnapshotJob::Remove { replica } => {
                let context = context.clone();
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = context.rows.remove(replica) {
                        return context.fatal.raise(format!(
                            "the rows of replica {replica}, which left its group, can't be deleted: {error}. Check the \
                             disk, then start the node again"
                        ));
                    }
                    context.staging.over(replica);
                    context.staging.discard(replica);
                    tracing::info!(%replica, "removed a replica that left its group");
                });
            }
        }
    }
}

async fn send(context: &Context, places: &Semaphore, replica: ReplicaId, to: NodeId, message: PeerMessage) {
    let receiver = message.to;
    // The semaphore is never closed.
    let place = places.acquire().await;
    let result = send::send(context, replica, to, message).await;
    drop(place);
    match &result {
        Ok(index) => tracing::info!(peer = %to, %replica, %index, "sent a snapshot"),
        Err(error) => tracing::warn!(peer = %to, %replica, %error, "a snapshot could not be sent"),
    }
    let ok = result.is_ok();
    if !ok {
        // Raft asks for the next one as soon as it hears of it.
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    context.inputs.own(Input::Snapshot(SnapshotEvent::Sent { replica, to: receiver, ok }));
}
