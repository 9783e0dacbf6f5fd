//! A node of a backup region. It keeps encrypted standbys of every partition and takes part in nothing else: it has no
//! mailbox's key, no session and no actor. Clients hear where mail is served. When its region becomes home and it has the root
//! key, it goes on as a node that serves mail, in the same process.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailraft_cluster::regions::RegionName;
use mailraft_directory::keys::RootKey;
use mailraft_driver::{Cluster, StreamKind};
use mailraft_storage::{Index, PartitionId};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, StandbyAdmin};
use crate::begun::{Begun, Stream};
use crate::disk_space::DiskSpace;
use crate::failover::Failover;
use crate::links::{FailoverAnswers, StatusSource, answer_status};
use crate::memory_limit::NodeMemory;
use crate::status::OwnStatus;
use crate::turn_away::TurnAway;
use crate::{region, reload};

/// Metrics that are only measured now and then are measured so often.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// Whether its region is home by now is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A key that is wanted is looked for so often.
const KEY_EVERY: Duration = Duration::from_secs(1);

/// How a standby ends.
pub enum After {
    /// It was told to stop, and has.
    Stopped,
    /// Its region is home, and it has the root key.
    Home(Box<Begun>, RootKey),
}

/// Runs a node that serves no mail until it is told to stop (SIGTERM, SIGINT), or its region is home and it has the root
/// key.
///
/// # Errors
/// One sentence that says what keeps it from starting and what to do.
pub async fn keep(mut begun: Begun) -> Result<After, String> {
    let config = Arc::clone(&begun.config);
    let cluster = begun.cluster.clone();
    let (why, said) = watch::channel(why(&begun.failover, &config.node.region));
    let limits = Arc::clone(&config);
    let low_on_disk = tokio::spawn(begun.disk.clone().watch(cluster.clone(), move || limits.limits.clone()));
    let own = own_status(&begun);
    let ports = TurnAway::new(&config, &begun.tls, said.clone()).listen(&config, Duration::ZERO).await?;
    let (stop, serving) = watch::channel(true);
    begun.routes.set(admin::standby_router(StandbyAdmin {
        cluster: cluster.clone(),
        config: Arc::clone(&config),
        why: said,
        own: Arc::clone(&own),
        far: begun.far.clone(),
        failover: begun.failover.clone(),
        token: begun.token.clone(),
        metrics: begun.rendering.clone(),
        serving,
    }));
    begun.listen_for_admin().await?;
    let (measured, rendering) = (Arc::clone(&own), begun.rendering.clone());
    let measuring = tokio::spawn(async move {
        let mut pause = tokio::time::interval(MEASURE_EVERY);
        loop {
            pause.tick().await;
            measured().await;
            rendering.run_upkeep();
        }
    });
    tracing::info!(node = cluster.node().0, cluster = %cluster.cluster_id(), "standby started");
    begun.manager.ready();

    let Begun { config: _, config_path, tls, streams, signals, failover, disk, .. } = &mut begun;
    let of_now = || drop(reload::certificates(&config, config_path, &cluster, tls));
    let root = tokio::select! {
        () = signals.until_told_to_stop(of_now) => None,
        root = becomes_home(failover, disk, &config.node.region, &why) => Some(root),
        () = serve_streams(&own, failover.answers(), streams) => None,
    };
    low_on_disk.abort();
    measuring.abort();
    if let Some(root) = root {
        tracing::warn!(region = %config.node.region, "this region is home: mail is served here from now on");
        ports.close().await;
        return Ok(After::Home(Box::new(begun), root));
    }
    tracing::info!("shutting down");
    begun.manager.stopping();
    stop.send_replace(false);
    ports.close().await;
    cluster.shutdown().await;
    tracing::info!("node stopped");
    Ok(After::Stopped)
}

/// Waits until this node's region is home by its rows and it has the root key; says meanwhile why no mail is served here. At
/// home without the key it leads only what no other node can.
async fn becomes_home(failover: &Failover, disk: &DiskSpace, own: &str, told: &watch::Sender<String>) -> RootKey {
    let cluster = failover.cluster();
    let mut pause = tokio::time::interval(LOOK_EVERY);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut key = failover.unsealing().changes();
    let (mut seen, mut is_home, mut tried): (_, _, Option<Instant>) = (None, false, None);
    loop {
        tokio::select! {
            _ = pause.tick() => {}
            // Somebody gave it one.
            Ok(()) = key.changed() => tried = None,
        }
        let applied = applied_of_control(cluster);
        if seen != Some(applied) {
            seen = Some(applied);
            is_home = region::regions(cluster).is_some_and(|regions| regions.home().0 == own);
            let now = why(failover, own);
            told.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
        }
        if is_home && tried.is_none_or(|at| at.elapsed() >= KEY_EVERY) {
            match failover.unsealing().key().await {
                Ok(root) => {
                    cluster.set_reluctant(disk.is_low());
                    return root;
                }
                Err(why) => {
                    // Again and again: room on the disk may end it.
                    cluster.set_reluctant(true);
                    if tried.is_none() {
                        tracing::error!("this region is home, and no mailbox can be opened here: {why}");
                    }
                    key.mark_unchanged();
                    tried = Some(Instant::now());
                }
            }
        }
    }
}

fn applied_of_control(cluster: &Cluster) -> Index {
    let control = cluster.replica(PartitionId::CONTROL);
    let applied = control.and_then(|control| cluster.rows().applied(control).ok().flatten());
    applied.map_or(Index(0), |applied| applied.index)
}

/// Why no mail is served here.
fn why(failover: &Failover, own: &str) -> String {
    match region::regions(failover.cluster()).map(|regions| regions.home().clone()) {
        Some(RegionName(home)) if home != own => {
            format!("this server keeps a backup in region {own}: mail is served in region {home}")
        }
        Some(_) | None => format!("region {own} took over, and this server waits for its key: try again soon"),
    }
}

/// How this node is, as JSON.
fn own_status(begun: &Begun) -> StatusSource {
    let memory = Arc::new(NodeMemory::new(begun.division));
    let (cluster, disk, failover) = (begun.cluster.clone(), begun.disk.clone(), begun.failover.clone());
    let (rows_memory, descriptors) = (Arc::clone(&begun.rows_memory), begun.descriptors);
    let (name, hostname) = (begun.config.node.name.clone(), begun.config.tls.hostname.clone());
    Arc::new(move || -> Pin<Box<dyn Future<Output = String> + Send>> {
        let (cluster, memory, disk, failover) = (cluster.clone(), Arc::clone(&memory), disk.clone(), failover.clone());
        let (rows_bytes, name, hostname) = (rows_memory(), name.clone(), hostname.clone());
        Box::pin(async move {
            let own = OwnStatus {
                node: cluster.status().await,
                name: Some(name),
                hostname: Some(hostname),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                actors: 0,
                uptime_s: crate::environment::uptime().as_secs(),
                sessions: None,
                descriptors: Some(descriptors),
                disk: Some(disk.status()),
                memory: Some(memory.status(rows_bytes, 0, 0, 0)),
                clock_unix_ms: Some(crate::environment::wall().0),
                takeover: failover.status(),
                queued: None,
            };
            serde_json::to_string(&own).unwrap_or_default()
        })
    })
}

/// Answers nodes that ask how this one is, or say something about a takeover. Connections for mail are not taken.
async fn serve_streams(own: &StatusSource, failover: FailoverAnswers, streams: &mut mpsc::Receiver<Stream>) {
    while let Some((node, kind, stream)) = streams.recv().await {
        match kind {
            StreamKind::Status => {
                let (own, failover) = (Arc::clone(own), failover.clone());
                tokio::spawn(async move {
                    if let Err(error) = answer_status(node, &own, &failover, stream).await {
                        tracing::debug!(node = node.0, %error, "a connection for questions ended");
                    }
                });
            }
            StreamKind::Sessions | StreamKind::Bodies => {
                tracing::debug!(node = node.0, ?kind, "a connection for mail is not taken in a backup region");
            }
        }
    }
    // The driver has ended, and with it the process soon.
    std::future::pending::<()>().await;
}
