//! How the cluster is, as this node sees it and as the others say.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_storage::{NodeId, PartitionId};
use serde_json::{Map, Value, json};

use super::{Admin, api};
use crate::links::{Rpc, RpcReply};
use crate::world::World;

/// How long another node may take to say how it is.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// This node's own status as JSON.
pub async fn own_status(world: &World) -> String {
    let status = world.cluster.status().await;
    let mut value = serde_json::to_value(&status).unwrap_or(Value::Null);
    if let Value::Object(fields) = &mut value {
        fields.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        fields.insert("actors".into(), json!(world.registry.len()));
        fields.insert("uptime_s".into(), json!(crate::environment::uptime().as_secs()));
    }
    value.to_string()
}

pub(super) async fn local(State(admin): State<Admin>) -> Response {
    ([("content-type", "application/json")], own_status(&admin.world).await).into_response()
}

pub(super) async fn state_hash(State(admin): State<Admin>, Path(partition): Path<u32>) -> Response {
    match admin.world.cluster.state_hash(PartitionId(partition)).await {
        Ok((index, hash)) => {
            Json(json!({"partition": partition, "index": index.0, "state_hash": hex::encode(hash)})).into_response()
        }
        Err(error) => api::error(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

/// Makes applied rows durable now, so that the log can be cut: for tests and before maintenance.
pub(super) async fn flush(State(admin): State<Admin>) -> Response {
    admin.world.cluster.flush().await;
    Json(json!({"flushed": true})).into_response()
}

/// The whole cluster: every node is asked, and their answers are laid over each other.
pub(super) async fn cluster(State(admin): State<Admin>) -> Response {
    let world = &admin.world;
    let mut nodes: BTreeMap<NodeId, Option<Value>> = BTreeMap::new();
    nodes.insert(world.cluster.node(), serde_json::from_str(&own_status(world).await).ok());
    let asked: Vec<_> = world
        .cluster
        .peers()
        .into_iter()
        .map(|node| {
            let links = std::sync::Arc::clone(&world.links);
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
            nodes.insert(node, status);
        }
    }
    Json(merge(world, &nodes)).into_response()
}

fn merge(world: &World, nodes: &BTreeMap<NodeId, Option<Value>>) -> Value {
    let mut problems = Vec::new();
    let mut partitions: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    let mut listed = Vec::new();
    for (node, status) in nodes {
        let name = world.config().node_name(*node);
        let Some(status) = status else {
            problems.push(format!("node {node} does not answer: start it again with mailraft node --config"));
            listed.push(json!({"id": node.0, "name": name, "up": false, "leads": 0, "partitions": []}));
            continue;
        };
        let own: Vec<Value> = status["partitions"].as_array().cloned().unwrap_or_default();
        let mut leads = 0;
        for replica in &own {
            let number = replica["partition"].as_u64().unwrap_or(0);
            let entry = partitions.entry(number).or_default();
            let replicas = entry.entry("replicas").or_insert_with(|| json!([]));
            if let Some(list) = replicas.as_array_mut() {
                list.push(json!({"node": node.0, "applied": replica["applied"], "role": replica["role"]}));
            }
            if replica["damaged"] == true {
                problems.push(format!(
                    "node {node} could not read rows of its replica of partition {number}: see its log, check its disk"
                ));
            }
            if replica["role"] == "leader" {
                let newer =
                    entry.get("term").and_then(Value::as_u64).is_none_or(|t| t < replica["term"].as_u64().unwrap_or(0));
                if newer {
                    entry.insert("leader".into(), json!(node.0));
                    entry.insert("term".into(), replica["term"].clone());
                    entry.insert("commit".into(), replica["commit"].clone());
                }
                leads += 1;
            }
        }
        let mut line = status.clone();
        if let Value::Object(fields) = &mut line {
            fields.insert("id".into(), json!(node.0));
            fields.insert("name".into(), json!(name));
            fields.insert("up".into(), json!(true));
            fields.insert("leads".into(), json!(leads));
        }
        listed.push(line);
    }
    for number in 0..=u64::from(world.cluster.partitions()) {
        partitions.entry(number).or_default();
    }
    let mut table = Vec::new();
    for (number, mut entry) in partitions {
        let commit = entry.get("commit").and_then(Value::as_u64);
        if entry.get("leader").is_none() {
            problems.push(format!("partition {number} has no leader: a majority of its nodes must run"));
        }
        if let Some(replicas) = entry.get_mut("replicas").and_then(Value::as_array_mut) {
            for replica in replicas {
                let applied = replica["applied"].as_u64().unwrap_or(0);
                let lag = commit.map(|c| c.saturating_sub(applied));
                replica["lag"] = json!(lag);
            }
        }
        entry.insert("partition".into(), json!(number));
        entry.entry("leader").or_insert(Value::Null);
        table.push(Value::Object(entry));
    }
    json!({
        "cluster": world.cluster.cluster_id().to_string(),
        "asked_node": world.cluster.node().0,
        "nodes": listed,
        "partitions": table,
        "healthy": problems.is_empty(),
        "problems": problems,
    })
}
