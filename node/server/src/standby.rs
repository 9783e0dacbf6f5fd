//! A node of a backup region, from its configuration to its end. It keeps encrypted standbys of every partition and takes
//! part in nothing else: it has no mailbox's key, no session and no actor. Clients hear where mail is served.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::regions::RegionName;
use mailraft_driver::{Cluster, PeerStream, StreamKind};
use mailraft_storage::NodeId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::admin::{self, StandbyAdmin};
use crate::config::Config;
use crate::descriptors::{Descriptors, REFUSING};
use crate::disk_space::DiskSpace;
use crate::links::{StatusLinks, StatusSource, answer_status};
use crate::memory_limit::{Division, NodeMemory};
use crate::permits::Permits;
use crate::service_manager::ServiceManager;
use crate::sessions::Service;
use crate::sessions::tls::{CertificateFiles, MailTls};
use crate::status::OwnStatus;
use crate::{Stores, reload};

/// Connections of other nodes that may wait to be served.
const STREAMS_MAX: usize = 64;
/// A client has so long to take up TLS and to hear where mail is served.
const TURN_AWAY_MAX: Duration = Duration::from_secs(10);
/// After accepting failed (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Metrics that are only measured now and then are measured so often.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Runs a node that keeps a backup of `home` until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// One sentence that says what keeps it from starting and what to do.
pub async fn serve(
    config: Config,
    config_path: &Path,
    home: RegionName,
    stores: Stores,
    (descriptors, division): (Descriptors, Division),
) -> Result<(), String> {
    let rendering = crate::metrics::record();
    descriptors.announce(config.limits.sessions);
    let tls = MailTls::load(&CertificateFiles::of(&config))?;
    let token = admin::read_token(&config)?;
    let (streams_in, streams) = mpsc::channel(STREAMS_MAX);
    let rows_memory = Arc::clone(&stores.rows_memory);
    let driver = config.driver(descriptors.peers)?;
    let cluster = Cluster::start(driver, stores.log, stores.rows, streams_in).await.map_err(|e| e.to_string())?;
    let disk = DiskSpace::of(&config.data_dir, &config.limits);
    let config = Arc::new(config);
    let limits = Arc::clone(&config);
    tokio::spawn(disk.clone().watch(cluster.clone(), move || limits.limits.clone()));
    let own = own_status(cluster.clone(), NodeMemory::new(division), rows_memory, disk, descriptors);
    tokio::spawn(serve_streams(Arc::clone(&own), streams));

    let turn_away = TurnAway {
        refusing: Permits::new(REFUSING),
        acceptor: tls.acceptor().clone(),
        hostname: config.tls.hostname.clone(),
        why: format!(
            "this server keeps a backup in region {}: mail is served in region {}",
            config.node.region, home.0
        ),
    };
    let (stop, serving) = watch::channel(true);
    for (service, address) in Service::each(&config.listen) {
        if let Some(address) = address {
            let listener = listen(service, address).await?;
            tokio::spawn(turn_away.clone().accept(service, listener, serving.clone()));
        }
    }
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .map_err(|e| format!("can't listen on {} ({e}): free the port or change admin.listen", config.admin.listen))?;
    let far = StatusLinks::new(cluster.clone());
    tokio::spawn(far.clone().keep_warm());
    let router = admin::standby_router(StandbyAdmin {
        cluster: cluster.clone(),
        config: Arc::clone(&config),
        home: home.clone(),
        own: Arc::clone(&own),
        far,
        token,
        metrics: rendering.clone(),
        serving: serving.clone(),
    });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(admin::Listener::new(listener), router).await {
            tracing::error!(%error, "the admin server ended");
        }
    });
    tokio::spawn(async move {
        let mut pause = tokio::time::interval(MEASURE_EVERY);
        loop {
            pause.tick().await;
            own().await;
            rendering.run_upkeep();
        }
    });
    let manager = Arc::new(ServiceManager::of_environment());
    let (watching, watched) = (Arc::clone(&manager), cluster.clone());
    tokio::spawn(async move { watching.watch(&watched).await });
    tracing::info!(node = cluster.node().0, cluster = %cluster.cluster_id(), home = %home.0, "standby started");
    manager.ready();

    let of_now = || drop(reload::certificates(&config, config_path, &cluster, &tls));
    reload::until_told_to_stop(of_now).await.map_err(|e| format!("signals can't be heard: {e}"))?;
    tracing::info!("shutting down");
    manager.stopping();
    stop.send_replace(false);
    cluster.shutdown().await;
    tracing::info!("node stopped");
    Ok(())
}

/// How this node is, as JSON.
fn own_status(
    cluster: Cluster,
    memory: NodeMemory,
    rows_memory: Arc<dyn Fn() -> u64 + Send + Sync>,
    disk: DiskSpace,
    descriptors: Descriptors,
) -> StatusSource {
    let memory = Arc::new(memory);
    Arc::new(move || -> Pin<Box<dyn Future<Output = String> + Send>> {
        let (cluster, memory, disk) = (cluster.clone(), Arc::clone(&memory), disk.clone());
        let rows_bytes = rows_memory();
        Box::pin(async move {
            let own = OwnStatus {
                node: cluster.status().await,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                actors: 0,
                uptime_s: crate::environment::uptime().as_secs(),
                sessions: None,
                descriptors: Some(descriptors),
                disk: Some(disk.status()),
                memory: Some(memory.status(rows_bytes, 0, 0, 0)),
                clock_unix_ms: Some(crate::environment::wall().0),
            };
            serde_json::to_string(&own).unwrap_or_default()
        })
    })
}

/// Answers nodes that ask how this one is. Connections for mail are not taken.
async fn serve_streams(own: StatusSource, mut streams: mpsc::Receiver<(NodeId, StreamKind, PeerStream)>) {
    while let Some((node, kind, stream)) = streams.recv().await {
        match kind {
            StreamKind::Status => {
                let own = Arc::clone(&own);
                tokio::spawn(async move {
                    if let Err(error) = answer_status(&own, stream).await {
                        tracing::debug!(node = node.0, %error, "a connection for questions ended");
                    }
                });
            }
            StreamKind::Sessions | StreamKind::Bodies => {
                tracing::debug!(node = node.0, ?kind, "a connection for mail is not taken in a backup region");
            }
        }
    }
}

async fn listen(service: Service, address: SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        format!("can't listen on {address} for {service:?} ({e}): free the port or change it in [listen]")
    })?;
    tracing::info!(%address, ?service, "listening, to say where mail is served");
    Ok(listener)
}

/// Tells clients where mail is served.
#[derive(Clone)]
struct TurnAway {
    refusing: Permits,
    acceptor: TlsAcceptor,
    hostname: String,
    why: String,
}

impl TurnAway {
    async fn accept(self, service: Service, listener: TcpListener, mut serving: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = serving.wait_for(|serving| !serving) => return,
            };
            match accepted {
                Ok((socket, _)) => {
                    // Past these nobody is told why: a flood must not take the descriptors that are set aside.
                    let Some(place) = self.refusing.try_take(1) else { continue };
                    let turn_away = self.clone();
                    tokio::spawn(async move {
                        let told = timeout(TURN_AWAY_MAX, turn_away.tell(service, socket)).await;
                        drop(place);
                        if let Ok(Err(error)) = told {
                            tracing::debug!(?service, %error, "a client was not told where mail is served");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, ?service, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn tell(self, service: Service, socket: TcpStream) -> io::Result<()> {
        let line = self.line(service);
        match service {
            Service::Submissions | Service::Imaps | Service::Pop3s => {
                say(&mut self.acceptor.accept(socket).await?, &line).await
            }
            Service::Smtp | Service::Submission | Service::Imap | Service::Pop3 => {
                let mut socket = socket;
                say(&mut socket, &line).await
            }
        }
    }

    /// The greeting that ends a connection (RFC 5321, section 3.1; RFC 3501, section 7.1.5; RFC 3206).
    fn line(&self, service: Service) -> String {
        let TurnAway { hostname, why, .. } = self;
        match service {
            Service::Smtp | Service::Submission | Service::Submissions => format!("421 4.3.2 {hostname} {why}\r\n"),
            Service::Imap | Service::Imaps => format!("* BYE [UNAVAILABLE] {why}\r\n"),
            Service::Pop3 | Service::Pop3s => format!("-ERR [SYS/TEMP] {why}\r\n"),
        }
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    to.write_all(line.as_bytes()).await?;
    to.flush().await?;
    to.shutdown().await
}
