//! What a node has whatever its region is: its part in the cluster, its admin server, what answers other nodes about a
//! takeover, and signals. So its part can change while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::Request;
use mailraft_directory::keys::RootKey;
use mailraft_driver::{Cluster, PeerStream, StreamKind};
use mailraft_storage::{NodeId, Rows};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower_service::Service;

use crate::Stores;
use crate::admin::{self, Token};
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::disk_space::DiskSpace;
use crate::failover::{Failover, Unsealing};
use crate::links::{FailoverLinks, LinkKey, StatusLinks};
use crate::memory_limit::Division;
use crate::reload::Signals;
use crate::service_manager::ServiceManager;
use crate::sessions::tls::{CertificateFiles, MailTls};

/// Connections of other nodes that may wait to be served.
const STREAMS_MAX: usize = 256;

/// A stream that another node opened.
pub type Stream = (NodeId, StreamKind, PeerStream);

/// A node that has begun.
pub struct Begun {
    /// The configuration that it began with.
    pub config: Arc<Config>,
    /// Where that is.
    pub config_path: PathBuf,
    /// The replicated groups.
    pub cluster: Cluster,
    /// Applied state.
    pub rows: Arc<dyn Rows>,
    /// Memory that the rows take now, in bytes.
    pub rows_memory: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Gives the machine back what was freed.
    pub give_back_freed: fn() -> bool,
    /// Towards clients.
    pub tls: MailTls,
    /// What requests to the admin server must bear.
    pub token: Token,
    /// Renders metrics.
    pub rendering: PrometheusHandle,
    /// How many files and connections there may be, and for whom.
    pub descriptors: Descriptors,
    /// Shares of memory.
    pub division: Division,
    /// How much room the disk has.
    pub disk: DiskSpace,
    /// Connections over which nodes are asked how they are.
    pub far: StatusLinks,
    /// Its part in takeovers.
    pub failover: Failover,
    /// Whom the admin server's requests go to.
    pub routes: Routes,
    /// Streams that other nodes open.
    pub streams: mpsc::Receiver<Stream>,
    /// The service manager.
    pub manager: Arc<ServiceManager>,
    /// Signals.
    pub signals: Signals,
}

/// Whom the admin server's requests go to: that changes with the node's part, while the server goes on.
#[derive(Clone, Default)]
pub struct Routes(Arc<RwLock<Router>>);

impl Routes {
    /// Requests from now on go there.
    pub fn set(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// The routes of now, for ever.
    fn router(&self) -> Router {
        let routes = self.clone();
        Router::new().fallback(move |request: Request| {
            let mut now = routes.0.read().unwrap_or_else(PoisonError::into_inner).clone();
            // It is always ready, and never fails.
            async move { now.call(request).await }
        })
    }
}

impl Begun {
    /// Starts what a node has in any part. The admin server listens once its part has set routes and asks for it.
    ///
    /// # Errors
    /// One sentence that says what keeps it from starting and what to do.
    pub async fn begin(
        config: Config,
        config_path: &Path,
        (root, word_key): (Option<RootKey>, LinkKey),
        stores: Stores,
        (descriptors, division): (Descriptors, Division),
    ) -> Result<Self, String> {
        let rendering = crate::metrics::record();
        descriptors.announce(config.limits.sessions);
        let signals = Signals::hear()?;
        let tls = MailTls::load(&CertificateFiles::of(&config))?;
        let token = admin::read_token(&config)?;
        let driver = config.driver(descriptors.peers)?;
        let (streams_in, streams) = mpsc::channel(STREAMS_MAX);
        let (rows, rows_memory) = (Arc::clone(&stores.rows), Arc::clone(&stores.rows_memory));
        let give_back_freed = stores.give_back_freed;
        let cluster = Cluster::start(driver, stores.log, stores.rows, streams_in).await.map_err(|e| e.to_string())?;
        let config = Arc::new(config);
        let far = StatusLinks::new(cluster.clone());
        tokio::spawn(far.clone().keep_warm());
        let unsealing = Unsealing::new(cluster.clone(), Arc::clone(&config), root);
        let links = FailoverLinks::new(cluster.clone(), word_key);
        let failover = Failover::new(cluster.clone(), Arc::clone(&config), links, unsealing);
        tokio::spawn(failover.clone().watch());
        let manager = Arc::new(ServiceManager::of_environment());
        let (watching, watched) = (Arc::clone(&manager), cluster.clone());
        tokio::spawn(async move { watching.watch(&watched).await });
        let disk = DiskSpace::of(&config.data_dir, &config.limits);
        let (routes, config_path) = (Routes::default(), config_path.to_owned());
        Ok(Begun {
            config,
            config_path,
            cluster,
            rows,
            rows_memory,
            give_back_freed,
            tls,
            token,
            rendering,
            descriptors,
            division,
            disk,
            far,
            failover,
            routes,
            streams,
            manager,
            signals,
        })
    }

    /// Serves the admin server's requests from now on.
    ///
    /// # Errors
    /// One sentence if its port can't be had.
    pub async fn listen_for_admin(&self) -> Result<(), String> {
        let address = self.config.admin.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| format!("can't listen on {address} ({e}): free the port or change admin.listen"))?;
        let router = self.routes.router();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(admin::Listener::new(listener), router).await {
                tracing::error!(%error, "the admin server ended");
            }
        });
        Ok(())
    }
}
