//! How the cluster is, as this node sees it and as the others say.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_driver::Cluster;
use mailraft_storage::{NodeId, PartitionId};
use serde_json::json;

use super::{Admin, api};
use crate::config::Config;
use crate::links::{Rpc, RpcReply, StatusLinks};
use crate::region;
use crate::services::Services;
use crate::status::{ClusterStatus, OwnStatus};

/// How long another node may take to say how it is.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// This node's own status.
pub async fn own_status(services: &Services) -> OwnStatus {
    OwnStatus {
        node: services.cluster.status().await,
        name: Some(services.config().node.name.clone()),
        hostname: Some(services.config().tls.hostname.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        actors: services.registry.len(),
        uptime_s: crate::environment::uptime().as_secs(),
        sessions: Some(services.session_status()),
        descriptors: Some(services.descriptors),
        disk: Some(services.disk.status()),
        memory: Some(services.memory_status()),
        clock_unix_ms: Some(crate::environment::wall().0),
        takeover: services.failover.status(),
        queued: Some(services.queues.status()),
    }
}

pub(super) async fn local(State(admin): State<Admin>) -> Response {
    Json(own_status(&admin.services).await).into_response()
}

pub(super) async fn state_hash(State(admin): State<Admin>, Path(partition): Path<u32>) -> Response {
    state_hash_of(&admin.services.cluster, partition).await
}

/// The hash over all rows of a partition here.
pub(super) async fn state_hash_of(cluster: &Cluster, partition: u32) -> Response {
    match cluster.state_hash(PartitionId(partition)).await {
        Ok((index, hash)) => {
            Json(json!({"partition": partition, "index": index.0, "state_hash": hex::encode(hash)})).into_response()
        }
        Err(error) => api::error(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

/// Makes applied rows durable now, so that the log can be cut: for tests and before maintenance.
pub(super) async fn flush(State(admin): State<Admin>) -> Response {
    flush_of(&admin.services.cluster).await
}

/// The same of any node.
pub(super) async fn flush_of(cluster: &Cluster) -> Response {
    cluster.flush().await;
    Json(json!({"flushed": true})).into_response()
}

/// The whole cluster: every node is asked, and their answers are laid over each other.
pub(super) async fn cluster(State(admin): State<Admin>) -> Response {
    let services = &admin.services;
    of_all(&services.cluster, &services.config(), &services.far, near(services), own_status(services)).await
}

/// Asks all nodes what they call themselves: [`StatusLinks::called`] knows it then of those that answered, now or before.
pub(super) async fn learn_called(services: &Services) {
    ask_all(&services.cluster, &services.far, near(services), own_status(services)).await;
}

/// How a node of this region is asked.
fn near(services: &Services) -> impl Fn(NodeId) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + use<> {
    let (links, far) = (Arc::clone(&services.links), services.far.clone());
    move |node| {
        let (links, far) = (Arc::clone(&links), far.clone());
        Box::pin(async move {
            match links.ask(node, Rpc::Status).await {
                Ok(RpcReply::Status(text)) => Some(text),
                // One of this region that has no root key yet takes no connection for mail.
                _ => far.ask(node).await.ok(),
            }
        })
    }
}

/// Asks all other nodes how they are and lays their answers over each other.
pub(super) async fn of_all<F: Future<Output = Option<String>> + Send + 'static>(
    cluster: &Cluster,
    config: &Config,
    far: &StatusLinks,
    near: impl Fn(NodeId) -> F,
    own: impl Future<Output = OwnStatus>,
) -> Response {
    let regions = region::regions(cluster);
    let answers = ask_all(cluster, far, near, own).await;
    let name = |node| far.called(node).name.unwrap_or_else(|| config.node_name(node));
    let (id, node, partitions) = (cluster.cluster_id(), cluster.node(), cluster.partitions());
    Json(ClusterStatus::of(id.to_string(), node, partitions, regions.as_ref(), name, answers)).into_response()
}

/// What all nodes say of themselves: first those of other regions, over connections of their own, then those here by `near`,
/// and this one last, so that what leaders say is new.
async fn ask_all<F: Future<Output = Option<String>> + Send + 'static>(
    cluster: &Cluster,
    far: &StatusLinks,
    near: impl Fn(NodeId) -> F,
    own: impl Future<Output = OwnStatus>,
) -> BTreeMap<NodeId, Option<OwnStatus>> {
    let (there, here): (Vec<NodeId>, Vec<NodeId>) = cluster.peers().into_iter().partition(|node| cluster.is_far(*node));
    let ask_there = |node| {
        let far = far.clone();
        async move { far.ask(node).await.ok() }
    };
    let mut answers = ask_each(there, ask_there, ASK_TIMEOUT).await;
    answers.extend(ask_each(here, near, ASK_TIMEOUT).await);
    answers.insert(cluster.node(), Some(own.await));
    for (node, own) in &answers {
        if let Some(own) = own {
            far.learn_called(*node, own.name.as_deref(), own.hostname.as_deref());
        }
    }
    answers
}

/// What these nodes say of themselves, all asked at once; None for one that says nothing in this time.
async fn ask_each<F: Future<Output = Option<String>> + Send + 'static>(
    nodes: Vec<NodeId>,
    ask: impl Fn(NodeId) -> F,
    within: Duration,
) -> BTreeMap<NodeId, Option<OwnStatus>> {
    let asked: Vec<_> = nodes
        .into_iter()
        .map(|node| {
            let asked = ask(node);
            tokio::spawn(async move {
                let text = tokio::time::timeout(within, asked).await.ok().flatten();
                (node, text.and_then(|text| serde_json::from_str(&text).ok()))
            })
        })
        .collect();
    let mut answers = BTreeMap::new();
    for task in asked {
        if let Ok((node, status)) = task.await {
            answers.insert(node, status);
        }
    }
    answers
}
