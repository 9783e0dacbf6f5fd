//! Where a command's effect stands, and how far a message is that was accepted for several.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_cluster::regions::ChangesRow;
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_directory::Lookup;
use mailraft_driver::Cluster;
use mailraft_mailbox::{Answer, MailboxKey, Place, Position, kept_result};
use mailraft_storage::entry::CommandRow;
use mailraft_storage::{CommandId, Incarnation, PartitionId, ReplicaId, RowKey, StoreError, Term};
use serde_json::json;

use super::api::error;
use super::{Admin, queue};
use crate::services::Services;

/// Where a command's effect stands: in the table of any replica here.
pub(super) async fn command(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    let Some(id) = CommandId::from_hex(&id.replace('-', "").to_ascii_lowercase()) else {
        return error(StatusCode::BAD_REQUEST, "a command id has 32 hexadecimal digits");
    };
    let services = &admin.services;
    match find_command(services, id).await {
        Ok(Some(at)) => found(services, id, at).await,
        Ok(None) => {
            // Replicas here may lag behind: hear what is committed everywhere, then look again.
            let barriers: Vec<_> = (0..=services.cluster.partitions())
                .map(|p| services.cluster.read_barrier(PartitionId(p), Reader::Visible))
                .collect();
            for barrier in barriers {
                if !matches!(barrier.await, Ok(BarrierOutcome::Passed { .. })) {
                    return error(StatusCode::SERVICE_UNAVAILABLE, "a partition does not answer; try again");
                }
            }
            match find_command(services, id).await {
                Ok(Some(at)) => found(services, id, at).await,
                Ok(None) => error(StatusCode::NOT_FOUND, "no command of this id is known, or it is too long ago"),
                Err(sentence) => error(StatusCode::INTERNAL_SERVER_ERROR, &sentence),
            }
        }
        Err(sentence) => error(StatusCode::INTERNAL_SERVER_ERROR, &sentence),
    }
}

/// A command that was carried out.
struct Found {
    at: Position,
    /// The id under which it was accepted, and the recipients' addresses, if it was a message for several.
    recipients: Option<(CommandId, Vec<String>)>,
}

async fn found(services: &Services, id: CommandId, Found { at, recipients }: Found) -> Response {
    let mut line = json!({
        "id": id.to_string(),
        "at": at.to_string(),
        "partition": at.partition.0,
        "incarnation": at.incarnation,
        "index": at.index.0,
    });
    if let Some((item, all)) = recipients {
        match queue::recipients(services, at.partition, item, &all).await {
            Some(recipients) => line["recipients"] = recipients,
            None => {
                return error(StatusCode::SERVICE_UNAVAILABLE, "the queue that it waits in does not answer; try again");
            }
        }
    }
    Json(line).into_response()
}

async fn find_command(services: &Services, id: CommandId) -> Result<Option<Found>, String> {
    let (cluster, lookup) = (services.cluster.clone(), Arc::clone(&services.lookup));
    let search = tokio::task::spawn_blocking(move || {
        for number in 0..=cluster.partitions() {
            let partition = PartitionId(number);
            let Some(replica) = cluster.replica(partition) else { continue };
            let said = |e: StoreError| e.to_string();
            let row = cluster.rows().get(replica, &RowKey::command(id)).map_err(said)?;
            let (index, recipients) = match row {
                Some(row) => {
                    let row = CommandRow::decode(&row).map_err(said)?;
                    (row.index, recipients_of(&cluster, &lookup, replica, id, &row)?)
                }
                // Settings of regions are nobody's command but the core's.
                None => match ChangesRow::read(cluster.rows().as_ref(), replica).map_err(said)?.made(id) {
                    Some(change) => (change.index, None),
                    None => continue,
                },
            };
            let applied = cluster.rows().applied(replica).map_err(|e| e.to_string())?;
            let incarnation = applied.and_then(|a| a.incarnation).map_or(0, |i| i.number);
            return Ok(Some(Found { at: Position { partition, incarnation, index }, recipients }));
        }
        Ok(None)
    });
    search.await.map_err(|e| e.to_string())?
}

/// Whom a message was accepted for, if the command was that.
fn recipients_of(
    cluster: &Cluster,
    lookup: &Lookup,
    replica: ReplicaId,
    id: CommandId,
    row: &CommandRow,
) -> Result<Option<(CommandId, Vec<String>)>, String> {
    if !row.mailbox.is_queue() {
        return Ok(None);
    }
    let Some((key, epoch)) = lookup.mailbox_key(row.mailbox).map_err(|e| e.to_string())? else { return Ok(None) };
    let place = Place {
        cluster: cluster.cluster_id(),
        mailbox: row.mailbox,
        replica,
        incarnation: Incarnation::default(),
        term: Term(0),
        began_alone: false,
    };
    let kept = kept_result(cluster.rows().as_ref(), &place, &MailboxKey::new(key, epoch), id);
    match kept.map_err(|e| e.to_string())?.and_then(|kept| kept.result) {
        Some(Ok(Answer::Accepted { item, recipients })) => Ok(Some((item, recipients))),
        Some(_) | None => Ok(None),
    }
}
