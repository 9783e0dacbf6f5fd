//! A node of a home that another region took over: it has heard of that, leads nothing any more, and keeps what it has. Clients
//! hear where mail is served.

use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::regions::RegionName;
use mailraft_driver::Cluster;
use mailraft_storage::PartitionId;
use tokio::sync::watch;

use crate::admin::{self, StandbyAdmin};
use crate::begun::Routes;
use crate::region;
use crate::services::Services;
use crate::sessions::tls::MailTls;
use crate::turn_away::{Ports, TurnAway};

/// Whether it was taken over is looked at so often, and when its leads change.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sessions are waited for so long to leave their ports.
const PORTS_MAX: Duration = Duration::from_secs(10);

/// Waits until this node's replica of the control group has heard that another region took over; that region, if its name is
/// known here.
pub async fn until_sealed(cluster: &Cluster) -> Option<RegionName> {
    let mut leading = cluster.leading();
    loop {
        let status = cluster.status().await;
        let control = status.partitions.iter().find(|replica| replica.partition == PartitionId::CONTROL);
        if let Some(control) = control.filter(|control| control.sealed_by.is_some()) {
            let regions = region::regions(cluster);
            return regions.and_then(|regions| region::of_control(&regions, &control.sealed_voters));
        }
        // What leads no more may be sealed.
        let _ = tokio::time::timeout(LOOK_EVERY, leading.changed()).await;
    }
}

/// Serves mail no more: says where it is served, on the ports of mail and on the admin server.
///
/// # Errors
/// One sentence if a port can't be had.
pub async fn turns_away(
    services: &Services,
    tls: &MailTls,
    routes: &Routes,
    (token, metrics): (admin::Token, metrics_exporter_prometheus::PrometheusHandle),
    to: Option<&RegionName>,
) -> Result<Ports, String> {
    let config = services.config();
    let own = &config.node.region;
    let why = match to {
        Some(to) => {
            format!("region {} took over, and {own} is no part of that: mail is served in region {}", to.0, to.0)
        }
        None => format!("another region took over, and {own} is no part of that: mail is served there"),
    };
    tracing::error!("{why}; this node keeps its data and serves nothing of it");
    // It stays as it is from now on.
    let (_, why) = watch::channel(why);
    let (_, serving) = watch::channel(true);
    let status = services.clone();
    let own: crate::links::StatusSource = Arc::new(move || {
        let services = status.clone();
        Box::pin(async move { serde_json::to_string(&admin::own_status(&services).await).unwrap_or_default() })
    });
    routes.set(admin::standby_router(StandbyAdmin {
        cluster: services.cluster.clone(),
        config: Arc::clone(&config),
        why: why.clone(),
        own,
        far: services.far.clone(),
        failover: services.failover.clone(),
        token,
        metrics,
        serving,
    }));
    TurnAway::new(&config, tls, why).listen(&config, PORTS_MAX).await
}
