//! A region takes over, over HTTP: what an operator is told before, the word, and how far it is.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::api;
use crate::failover::{Failover, Order, Refused, Rehearsal};

#[derive(Deserialize)]
struct To {
    to: String,
}

/// Its routes, the same in every part that a node has.
pub fn routes<S: Clone + Send + Sync + 'static>(failover: Failover) -> Router<S> {
    Router::new()
        .route("/failover", get(plan).post(begin))
        .route("/failover/progress", get(progress))
        .route("/failover/rehearsal", post(rehearse))
        .with_state(failover)
}

async fn plan(State(failover): State<Failover>, Query(To { to }): Query<To>) -> Response {
    match failover.plan(&to).await {
        Ok(plan) => Json(plan).into_response(),
        Err(refused) => said(&refused),
    }
}

async fn rehearse(State(failover): State<Failover>, Json(rehearsal): Json<Rehearsal>) -> Response {
    match failover.rehearse(rehearsal).await {
        Ok(()) => Json(serde_json::json!({})).into_response(),
        Err(refused) => said(&refused),
    }
}

async fn begin(State(failover): State<Failover>, Json(order): Json<Order>) -> Response {
    match failover.begin(order).await {
        Ok(()) => progress(State(failover)).await,
        Err(refused) => said(&refused),
    }
}

async fn progress(State(failover): State<Failover>) -> Response {
    match failover.progress() {
        Some(progress) => Json(progress).into_response(),
        None => api::coded(StatusCode::NOT_FOUND, "none", "no takeover was ordered of this node since it started"),
    }
}

fn said(refused: &Refused) -> Response {
    api::coded(StatusCode::CONFLICT, refused.code, &refused.sentence)
}
