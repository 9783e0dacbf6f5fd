//! How the cluster is, as this node sees it and as the others say.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_storage::{NodeId, PartitionId};
use serde_json::json;

use super::{Admin, api};
use crate::links::{Rpc, RpcReply};
use crate::services::Services;
use crate::status::{ClusterStatus, OwnStatus};

/// How long another node may take to say how it is.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// This node's own status.
pub async fn own_status(services: &Services) -> OwnStatus {
    OwnStatus {
        node: services.cluster.status().await,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        actors: services.registry.len(),
        uptime_s: crate::environment::uptime().as_secs(),
        sessions: Some(services.session_status()),
        descriptors: Some(services.descriptors),
        disk: Some(services.disk.status()),
        memory: Some(services.memory_status()),
        clock_unix_ms: Some(crate::environment::wall().0),
    }
}

pub(super) async fn local(State(admin): State<Admin>) -> Response {
    Json(own_status(&admin.services).await).into_response()
}

pub(super) async fn state_hash(State(admin): State<Admin>, Path(partition): Path<u32>) -> Response {
    match admin.services.cluster.state_hash(PartitionId(partition)).await {
        Ok((index, hash)) => {
            Json(json!({"partition": partition, "index": index.0, "state_hash": hex::encode(hash)})).into_response()
        }
        Err(error) => api::error(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

/// Makes applied rows durable now, so that the log can be cut: for tests and before maintenance.
pub(super) async fn flush(State(admin): State<Admin>) -> Response {
    admin.services.cluster.flush().await;
    Json(json!({"flushed": true})).into_response()
}

/// The whole cluster: every node is asked, and their answers are laid over each other.
pub(super) async fn cluster(State(admin): State<Admin>) -> Response {
    let services = &admin.services;
    let mut answers: BTreeMap<NodeId, Option<OwnStatus>> = BTreeMap::new();
    answers.insert(services.cluster.node(), Some(own_status(services).await));
    let asked: Vec<_> = services
        .cluster
        .peers()
        .into_iter()
        .map(|node| {
            let links = std::sync::Arc::clone(&services.links);
            tokio::spawn(async move {
                let reply = tokio::time::timeout(ASK_TIMEOUT, links.ask(node, Rpc::Status)).await;
                let status = match reply {
                    Ok(Ok(RpcReply::Status(text))) => serde_json::from_str(&text).ok(),
                    _ => None,
                };
                (node, status)
            })
        })
        .collect();
    for task in asked {
        if let Ok((node, status)) = task.await {
            answers.insert(node, status);
        }
    }
    let (id, node, partitions) =
        (services.cluster.cluster_id(), services.cluster.node(), services.cluster.partitions());
    let config = services.config();
    let name = |node| config.node_name(node);
    Json(ClusterStatus::of(id.to_string(), node, partitions, name, answers)).into_response()
}
