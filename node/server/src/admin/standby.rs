//! The admin server of a node that serves no mail: health, metrics, how the cluster is, and takeovers. What is about mail is
//! asked where that is served.

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mailraft_driver::Cluster;
use mailraft_storage::NodeId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::{Token, api, authorise, failover, is_ready, regions, status};
use crate::config::Config;
use crate::failover::Failover;
use crate::links::{StatusLinks, StatusSource};

/// What handlers share.
#[derive(Clone)]
pub struct StandbyAdmin {
    /// The replicated groups.
    pub cluster: Cluster,
    /// The configuration that the node began with.
    pub config: std::sync::Arc<Config>,
    /// Why no mail is served here, and where it is.
    pub why: watch::Receiver<String>,
    /// How this node is, as JSON.
    pub own: StatusSource,
    /// Connections over which other nodes are asked how they are.
    pub far: StatusLinks,
    /// The node's part in takeovers.
    pub failover: Failover,
    /// What requests to `/api` must bear.
    pub token: Token,
    /// Renders metrics.
    pub metrics: PrometheusHandle,
    /// False while the node shuts down.
    pub serving: watch::Receiver<bool>,
}

/// All routes.
pub fn router(admin: StandbyAdmin) -> Router {
    let state_hash = |State(admin): State<StandbyAdmin>, Path(partition): Path<u32>| async move {
        status::state_hash_of(&admin.cluster, partition).await
    };
    let api = Router::new()
        .route("/status", get(cluster))
        .route("/status/local", get(local))
        .route("/partitions/{partition}/state-hash", get(state_hash))
        .route(
            "/flush",
            post(|State(admin): State<StandbyAdmin>| async move { status::flush_of(&admin.cluster).await }),
        )
        .route("/regions", get(regions_here).fallback(elsewhere))
        .merge(failover::routes(admin.failover.clone()))
        .fallback(elsewhere)
        .layer(axum::middleware::from_fn_with_state(admin.token.clone(), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(|State(admin): State<StandbyAdmin>| async move {
                let serving = *admin.serving.borrow();
                is_ready(&admin.cluster, serving).await
            }),
        )
        .route("/metrics", get(|State(admin): State<StandbyAdmin>| async move { admin.metrics.render() }))
        .nest("/api/v1", api)
        .layer(axum::extract::DefaultBodyLimit::max(super::BODY_MAX_BYTES))
        .with_state(admin)
}

async fn local(State(admin): State<StandbyAdmin>) -> Response {
    match serde_json::from_str::<serde_json::Value>(&(admin.own)().await) {
        Ok(own) => Json(own).into_response(),
        Err(error) => api::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn cluster(State(admin): State<StandbyAdmin>) -> Response {
    let own = match serde_json::from_str(&(admin.own)().await) {
        Ok(own) => own,
        Err(error) => return api::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let near = |node: NodeId| {
        let far = admin.far.clone();
        async move { far.ask(node).await.ok() }
    };
    status::of_all(&admin.cluster, &admin.config, &admin.far, near, async { own }).await
}

async fn regions_here(State(admin): State<StandbyAdmin>) -> Response {
    regions::known_in(admin.cluster.clone(), &admin.config.node.region).await
}

async fn elsewhere(State(admin): State<StandbyAdmin>) -> Response {
    let sentence = admin.why.borrow().clone();
    api::coded(StatusCode::SERVICE_UNAVAILABLE, "standby", &sentence)
}
