//! A message's way over all nodes, as they remember it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use mailraft_storage::{CommandId, NodeId};
use serde_json::json;

use super::Admin;
use crate::links::{Rpc, RpcReply};
use crate::services::Services;
use crate::trail::{Step, TrailQuestion, messages_of};

/// How long another node may take to tell what it remembers.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Everything that is remembered of a message, or of the newest messages from an address and to it.
pub(super) async fn trace(State(admin): State<Admin>, Path(what): Path<String>) -> Response {
    let services = &admin.services;
    let question = match CommandId::from_hex(&what.replace('-', "").to_ascii_lowercase()) {
        Some(id) => TrailQuestion { address: None, ids: vec![id.to_string()] },
        None => TrailQuestion { address: Some(what), ids: Vec::new() },
    };
    let (first, _) = ask_all(services, question).await;
    let found: Vec<Step> = first.into_iter().map(|(_, step)| step).collect();
    let (mut steps, silent) = ask_all(services, TrailQuestion { address: None, ids: messages_of(&found) }).await;
    steps.sort_by(|(a_node, a), (b_node, b)| (a.unix_ms, a_node).cmp(&(b.unix_ms, b_node)));
    let steps: Vec<_> = steps.iter().map(|(node, step)| json!({"node": node, "step": named(step, &found)})).collect();
    Json(json!({"steps": steps, "silent_nodes": silent})).into_response()
}

/// A step with the address of its recipient, which the node that delivered does not know.
fn named(step: &Step, all: &[Step]) -> Step {
    let mut step = step.clone();
    if let Some(number) = step.recipient
        && let Some(taken) = all.iter().find(|of| of.id == step.id && of.from.is_some())
        && let Some(address) = taken.to.get(number as usize)
    {
        step.to = vec![address.clone()];
    }
    step
}

/// What all nodes of this region remember, and which of them did not say.
async fn ask_all(services: &Services, question: TrailQuestion) -> (Vec<(NodeId, Step)>, Vec<NodeId>) {
    let own = services.cluster.node();
    let mut steps: Vec<(NodeId, Step)> = services.trail.tell(&question).into_iter().map(|step| (own, step)).collect();
    let near = services.cluster.peers().into_iter().filter(|node| !services.cluster.is_far(*node));
    let asked: Vec<_> = near
        .map(|node| {
            let (links, question) = (Arc::clone(&services.links), question.clone());
            (
                node,
                tokio::spawn(
                    async move { tokio::time::timeout(ASK_TIMEOUT, links.ask(node, Rpc::Trail(question))).await },
                ),
            )
        })
        .collect();
    let mut silent = Vec::new();
    for (node, asked) in asked {
        let told = match asked.await {
            Ok(Ok(Ok(RpcReply::Trail(text)))) => serde_json::from_str::<Vec<Step>>(&text).ok(),
            _ => None,
        };
        match told {
            Some(told) => steps.extend(told.into_iter().map(|step| (node, step))),
            None => silent.push(node),
        }
    }
    (steps, silent)
}
