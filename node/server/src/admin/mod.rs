//! The admin server: health, metrics, and the API that the command line uses.

mod api;
mod commands;
mod domains;
mod failover;
mod listener;
mod queue;
mod regions;
mod reports;
mod standby;
mod status;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_driver::Cluster;
use mailraft_storage::PartitionId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::reports::Reports;
use crate::services::Services;

pub use listener::Listener;
pub use standby::{StandbyAdmin, router as standby_router};
pub use status::own_status;

/// The largest body of a request, in bytes.
const BODY_MAX_BYTES: usize = 64 << 10;

/// What handlers share.
#[derive(Clone)]
pub struct Admin {
    /// The node.
    pub services: Services,
    /// Reports to other domains.
    pub reports: Reports,
    /// What requests to `/api` must bear.
    pub token: Token,
    /// Renders metrics.
    pub metrics: PrometheusHandle,
    /// False while the node shuts down.
    pub serving: watch::Receiver<bool>,
}

/// What requests to `/api` must bear.
pub type Token = Arc<Zeroizing<String>>;

/// The token that a configuration names.
///
/// # Errors
/// One sentence that says what to do.
pub fn read_token(config: &Config) -> Result<Token, String> {
    let path = &config.admin.token_file;
    let text = std::fs::read_to_string(path).map_err(|e| {
        format!("admin.token_file {} can't be read ({e}): write a long random word into it", path.display())
    })?;
    let token = Zeroizing::new(text.trim().to_owned());
    if token.len() < 16 {
        return Err(format!("admin.token_file {} holds fewer than 16 characters: write a longer word", path.display()));
    }
    // No request could bear it.
    if token.chars().any(char::is_control) {
        return Err(format!("admin.token_file {} holds several lines: write one long random word", path.display()));
    }
    Ok(Arc::new(token))
}

/// All routes.
pub fn router(admin: Admin) -> Router {
    let api = Router::new()
        .route("/status", get(status::cluster))
        .route("/status/local", get(status::local))
        .route("/domains", post(domains::create).get(api::list_domains))
        .route("/domains/{name}/keys", post(domains::add_keys).get(domains::list_keys))
        .route("/domains/{name}/keys/{selector}", delete(domains::remove_key))
        .route("/domains/{name}/keys/{selector}/state", put(domains::set_state))
        .route("/domains/{name}/dns", get(domains::dns))
        .route("/domains/{name}/dns/check", get(domains::check_dns))
        .route("/accounts", post(api::create_account).get(api::list_accounts))
        .route("/accounts/{address}", delete(api::delete_account))
        .route("/accounts/{address}/password", put(api::set_password))
        .route("/accounts/{address}/disabled", put(api::set_disabled))
        .route("/addresses", post(api::add_address).get(api::list_addresses))
        .route("/addresses/{address}", delete(api::remove_address))
        .route("/forwarding-key", post(api::renew_forwarding_key))
        .route("/commands/{id}", get(commands::command))
        .route("/trace/{what}", get(trace::trace))
        .route("/queue", get(queue::list))
        .route("/queue/{id}", get(queue::show).post(queue::decide))
        .route("/reports", post(reports::send))
        .route("/partitions/{partition}/state-hash", get(status::state_hash))
        .route("/regions", get(regions::show).put(regions::set))
        .route("/flush", post(status::flush))
        .merge(failover::routes(admin.services.failover.clone()))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&admin.token), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(admin): State<Admin>| async move { admin.metrics.render() }))
        .nest("/api/v1", api)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(admin)
}

/// What the answer of a node begins with that is not ready as another region took over.
pub const SEALED: &str = "SEALED";

async fn ready(State(admin): State<Admin>) -> Response {
    let serving = *admin.serving.borrow();
    is_ready(&admin.services.cluster, serving).await
}

/// Ready: the control group answers, and every partition has a leader as far as this node knows.
async fn is_ready(cluster: &Cluster, serving: bool) -> Response {
    let no = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response();
    if !serving {
        return no("shutting down".into());
    }
    let control = |of: &mailraft_cluster::ReplicaStatus| of.partition == PartitionId::CONTROL && of.sealed_by.is_some();
    if cluster.status().await.partitions.iter().any(control) {
        return no(format!("{SEALED}: another region took over; this node serves nothing and keeps its data"));
    }
    let without: Vec<String> = {
        let leaders = cluster.leaders();
        let leaders = leaders.borrow();
        (0..=cluster.partitions())
            .filter(|p| leaders.get(*p as usize).copied().flatten().is_none())
            .map(|p| p.to_string())
            .collect()
    };
    if !without.is_empty() {
        return no(format!("no leader known for partitions {}", without.join(", ")));
    }
    match cluster.read_barrier(PartitionId::CONTROL, Reader::Applied).await {
        Ok(BarrierOutcome::Passed { .. }) => "ready\n".into_response(),
        _ => no("the control group does not answer".into()),
    }
}

async fn authorise(
    State(token): State<Token>,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let given =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let right = given.is_some_and(|given| same(given.as_bytes(), token.as_bytes()));
    if right {
        next.run(request).await
    } else {
        api::error(
            StatusCode::UNAUTHORIZED,
            "send the admin token: Authorization: Bearer <what admin_token_file holds>",
        )
    }
}

/// Compares in a time that tells nothing of where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y)) == 0
}
