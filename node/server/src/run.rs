//! A node from its configuration to its end.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use mailraft_directory::Lookup;
use mailraft_directory::keys::RootKey;
use mailraft_storage::summed::Missing;
use mailraft_storage::{DAMAGED_NODE_ADVICE, PartitionId, ReplicaId, Rows, StoreError, SummedRows};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use crate::actors::{self, ActorThreads, CLIENTS_NICE, Registry, nicer_by};
use crate::admin::{self, Admin};
use crate::begun::Begun;
use crate::config::{self, Config, RootKeyUse};
use crate::counted::{Counted, CountsFile};
use crate::credentials::Credentials;
use crate::descriptors::{Descriptors, REFUSING};
use crate::failover::Serving;
use crate::freed_memory;
use crate::guesses;
use crate::links::{LinkKey, Links, OwnAnswers, run_errands, serve_streams};
use crate::logged_in::LoggedIn;
use crate::memory_limit::{self, Division, NodeMemory};
use crate::outbound::Outbound;
use crate::outbound::allowed::Allowed;
use crate::outbound::tls::OutboundTls;
use crate::permits::Permits;
use crate::places::Places;
use crate::queues::QueueWatch;
use crate::region::{self, Part};
use crate::reports::Reports;
use crate::sender_auth::SenderAuth;
use crate::services::Services;
use crate::sessions::tls::MailTls;
use crate::sessions::{Service, SessionContext, listen};
use crate::spool::Budget;
use crate::trail::Trail;
use crate::turns::Turns;
use crate::{OpenStores, RowsBounds, Stores, confirmation, reload, sealed, standby};
use mailraft_mailbox::queue::outward::PREDECESSOR_GRACE;

/// Leaders are handed over within this at shutdown; the rest elects anew.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);
/// Sessions may finish what they are doing within this at shutdown.
const SESSIONS_END_MAX: Duration = Duration::from_secs(2);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl From<String> for RunError {
    fn from(sentence: String) -> Self {
        RunError(sentence)
    }
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// One sentence that says what keeps it from starting and what to do.
pub fn run(config: Config, config_path: &Path, open: &dyn OpenStores) -> Result<(), RunError> {
    crate::environment::started();
    keep_memory_private();
    let cluster_id = config.cluster.id;
    let descriptors = Descriptors::claim(config.cluster.peers.len(), config.limits.sessions)?;
    // Where it is always read, nothing is opened without it.
    let early = match config.keys.used {
        RootKeyUse::Always => Some(region::root_key(&config, &Part::Home)?),
        RootKeyUse::AtHome => None,
    };
    let limit = memory_limit::limit_bytes(&config.limits)
        .ok_or_else(|| RunError("how much memory there is can't be told: write limits.memory_bytes".into()))?;
    let division = Division::of(limit, &config.limits);
    tracing::info!(%division, "memory is divided");
    if limit < Division::least(&config.limits) {
        tracing::warn!(
            "{} MiB of memory are too little: give this node {} MiB",
            limit >> 20,
            Division::least(&config.limits) >> 20
        );
    }
    let memory_bytes = usize::try_from(division.rows).unwrap_or(usize::MAX);
    let bounds_of_rows = RowsBounds { files: descriptors.rows, memory_bytes };
    let stores = open.open(&config.data_dir, cluster_id, bounds_of_rows)?;
    let empty = stores.rows.replicas().map_err(|e| format!("{}: {e}", config.data_dir.display()))?.is_empty();
    if empty {
        return Err(RunError(format!(
            "{} is empty: a node only starts with what mailraft quickstart or mailraft cluster create wrote for it",
            config.data_dir.display()
        )));
    }
    let part =
        Part::of(stores.rows.as_ref(), config.node.id).map_err(|e| format!("{}: {e}", config.data_dir.display()))?;
    let root = match early {
        Some(root) => root,
        None => {
            region::root_key(&config, &part).or_else(|why| region::waits_for_key(&config).then_some(None).ok_or(why))?
        }
    };
    let word_key = LinkKey::new(region::word_key(&config, root.as_ref())?);
    let stores = with_sums(stores, &config, root.as_ref(), open)?;
    // What nodes say to each other, timers and the admin server do not wait behind clients' commands.
    let (node, clients) = (threads("node", 0)?, threads("sessions", CLIENTS_NICE)?);
    let actors = ActorThreads::start()?;
    let of_clients = clients.handle().clone();
    let result = node.block_on(live(
        config,
        config_path,
        (part, root, word_key),
        stores,
        &actors,
        (descriptors, division),
        of_clients,
    ));
    clients.shutdown_timeout(Duration::from_secs(1));
    node.shutdown_timeout(Duration::from_secs(1));
    actors.stop();
    result
}

/// As many threads as there are processors, with what tokio needs, nicer by so much than the others of this process.
fn threads(name: &str, nice: i32) -> Result<Runtime, RunError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.enable_all().thread_name(name).on_thread_start(move || nicer_by(nice)).build();
    built.map_err(|e| RunError(format!("threads can't be started: {e}")))
}

/// Puts sums over the rows, by which those that were put back or deleted on the disk are found.
fn with_sums(
    stores: Stores,
    config: &Config,
    root: Option<&RootKey>,
    open: &dyn OpenStores,
) -> Result<Stores, RunError> {
    let said = |e: StoreError| RunError(format!("{}: {e}", config.data_dir.display()));
    if let Some(root) = root {
        // Sums under another cluster's key would count as damage for ever.
        mailraft_directory::keys::check_root(stores.rows.as_ref(), config.cluster.id, root)
            .map_err(|e| RunError(e.to_string()))?;
    }
    let key = region::sums_key(config, root)?;
    let begun = Instant::now();
    let made = |replica: ReplicaId, rows| {
        tracing::info!(%replica, rows, "made sums of rows as they are: no version that keeps them was here before");
    };
    let rows = SummedRows::open(stores.rows, key, stores.missing, made).map_err(said)?;
    if stores.missing == Missing::Make {
        rows.flush().map_err(said)?;
        open.sums_are_made(&config.data_dir, config.cluster.id)?;
    }
    tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "compared rows with their sums");
    Ok(Stores { rows: Arc::new(rows), ..stores })
}

/// Keeps standbys or serves mail, by what the node's rows say, and goes over from one to the other.
async fn live(
    config: Config,
    config_path: &Path,
    (part, root, word_key): (Part, Option<RootKey>, LinkKey),
    stores: Stores,
    actors: &ActorThreads,
    bounds: (Descriptors, Division),
    clients: Handle,
) -> Result<(), RunError> {
    let begun = Begun::begin(config, config_path, (root.clone(), word_key), stores, bounds).await?;
    match (part, root) {
        (Part::Home, Some(root)) => {
            let (begun, listens) = (Box::new(begun), AdminListens::NotYet);
            serve(*begun, root, actors, clients, listens).await
        }
        (Part::Home, None) | (Part::Standby { .. }, _) => match standby::keep(begun).await? {
            standby::After::Stopped => Ok(()),
            standby::After::Home(begun, root) => serve(*begun, root, actors, clients, AdminListens::Already).await,
        },
    }
}

/// Whether the admin server listens before mail is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AdminListens {
    NotYet,
    Already,
}

async fn serve(
    begun: Begun,
    root: RootKey,
    actors: &ActorThreads,
    clients: Handle,
    admin_listens: AdminListens,
) -> Result<(), RunError> {
    let Begun { cluster, tls, rows, rows_memory, descriptors, division, disk, far, failover, rendering, .. } = &begun;
    let (config, cluster, rendering) = (Config::clone(&begun.config), cluster.clone(), rendering.clone());
    let (tls, rows, descriptors, division) = (tls.clone(), Arc::clone(rows), *descriptors, *division);
    let control = cluster.replica(PartitionId::CONTROL).ok_or_else(|| {
        RunError(format!(
            "the data directory has no replica of the control group: it is damaged; {DAMAGED_NODE_ADVICE}"
        ))
    })?;
    let link_key = LinkKey::new(root.link_key());
    let counts = CountsFile::new(&config.data_dir, cluster.cluster_id(), root.counts_key());
    let clock = cluster.clone();
    let counted = Counted::new(&config.reports, counts, move || clock.wall().0 / 1_000);
    let lookup = Arc::new(Lookup::new(rows, control, cluster.cluster_id(), root).map_err(|e| RunError(e.to_string()))?);
    let memory = NodeMemory::new(division);
    let accepted = Arc::default();
    let budget =
        Budget::new(memory.body_memory_bytes(&config.limits), descriptors.large_messages, config.limits.spool_bytes);
    let turns = Turns::of_this_machine();
    let (registry, jobs) = Registry::new(
        cluster.clone(),
        Arc::clone(&lookup),
        actors,
        bounds(&config),
        Arc::clone(&memory.actors),
        turns.clone(),
    );
    let services = Services {
        registry,
        links: Arc::new(Links::new(cluster.clone(), link_key)),
        far: far.clone(),
        failover: failover.clone(),
        accepted: Arc::clone(&accepted),
        memory,
        rows_memory: Arc::clone(rows_memory),
        bodies: budget.clone(),
        credentials: Arc::new(Credentials::new(cluster.clone(), Arc::clone(&lookup), config.limits.auth_parallel)),
        config: Arc::new(RwLock::new(Arc::new(config.clone()))),
        cluster: cluster.clone(),
        lookup,
        descriptors,
        disk: disk.clone(),
        sender_auth: SenderAuth::new(&config.sender_auth, counted.clone())?,
        counted: counted.clone(),
        logged_in: LoggedIn::default(),
        places: Places::default(),
        allowed: Allowed::default(),
        queues: QueueWatch::default(),
        trail: Trail::default(),
        turns,
    };
    services.credentials.set_masking(config.log.mask_addresses);
    tokio::spawn(guesses::tell_other_nodes(services.clone()));
    tokio::spawn(confirmation::watch(services.clone()));
    tokio::spawn(services.turns.clone().watch());
    tokio::spawn(services.registry.clone().end_actors_with_their_terms());
    tokio::spawn(services.registry.clone().end_actors_of_deleted());
    tokio::spawn(services.registry.clone().keep_queues_awake());
    tokio::spawn(services.queues.clone().watch(services.reach(), services.registry.clone()));
    tokio::spawn(run_errands(services.reach(), jobs.errands));
    let of_now = services.clone();
    let config_now: Arc<dyn Fn() -> Arc<Config> + Send + Sync> = Arc::new(move || of_now.config());
    let outbound_tls = OutboundTls::of_this_machine();
    let shared = (outbound_tls.clone(), counted.clone());
    let outbound =
        Outbound::new(services.reach(), budget.clone(), Arc::clone(&config_now), shared, descriptors.sending)?;
    let (resolver, letting_go) = (outbound.resolver.clone(), outbound.letting_go());
    tokio::spawn(outbound.run(jobs.outwards));
    let reports = Reports::new(services.reach(), (counted.clone(), resolver, outbound_tls), budget.clone(), config_now);
    tokio::spawn(reports.clone().run());
    tokio::spawn(counted.clone().keep_written());
    tokio::spawn(services.logged_in.clone().watch(cluster.clone(), Arc::clone(&services.lookup)));
    let of_now = services.clone();
    tokio::spawn(freed_memory::keep_giving_back(services.clone(), begun.give_back_freed));
    tokio::spawn(services.disk.clone().watch(cluster.clone(), move || of_now.config().limits.clone()));

    let (stop, serving) = watch::channel(true);
    let context = SessionContext {
        services: services.clone(),
        tls: tls.clone(),
        budget: budget.clone(),
        refusing: Permits::new(REFUSING),
        turn: services.turns.session(),
        serving,
    };
    for (service, address) in Service::each(&config.listen) {
        if let Some(address) = address {
            let listening = clients.spawn(listen(context.clone(), service, address));
            listening.await.map_err(|e| RunError(format!("can't listen on {address}: {e}")))??;
        }
    }
    // From now on only sessions and their listeners hold an end of it.
    drop(context);
    let registry = services.registry.clone();
    failover.serves(Serving { mailboxes: Box::new(move || registry.len()), accepted });
    let (unready, ready) = watch::channel(true);
    let of_admin = (Arc::clone(&begun.token), rendering.clone());
    let (token, metrics) = of_admin.clone();
    begun.routes.set(admin::router(Admin { services: services.clone(), reports, token, metrics, serving: ready }));
    if admin_listens == AdminListens::NotYet {
        begun.listen_for_admin().await?;
    }
    let Begun { config_path, streams, manager, mut signals, routes, .. } = begun;
    tokio::spawn(serve_streams(services.reach(), own_answers(services.clone()), streams));
    let measured = services.clone();
    tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_secs(5));
        loop {
            pause.tick().await;
            measured.memory_status();
            rendering.run_upkeep();
        }
    });
    tracing::info!(node = cluster.node().0, cluster = %cluster.cluster_id(), "node started");
    manager.ready();

    let sealed = tokio::select! {
        () = signals.until_told_to_stop(|| reload(&services, &tls, &budget, &config_path)) => None,
        to = sealed::until_sealed(&cluster) => Some(to),
    };
    if let Some(to) = sealed {
        // Nobody here leads anything any more: sessions end, and who comes hears where mail is served.
        stop.send_replace(false);
        let ports = sealed::turns_away(&services, &tls, &routes, of_admin, to.as_ref()).await?;
        signals
            .until_told_to_stop(|| drop(reload::certificates(&services.config(), &config_path, &cluster, &tls)))
            .await;
        manager.stopping();
        ports.close().await;
        cluster.shutdown().await;
        tracing::info!("node stopped");
        return Ok(());
    }
    tracing::info!("shutting down: leaders are handed over, sessions end");
    manager.stopping();
    unready.send_replace(false);
    stop.send_replace(false);
    let written = services.counted.clone();
    let writing = tokio::task::spawn_blocking(move || written.write());
    let sessions = tokio::time::timeout(SESSIONS_END_MAX, stop.closed());
    let ((), ended) = tokio::join!(cluster.hand_over(HAND_OVER_MAX), sessions);
    if ended.is_err() {
        tracing::info!("some sessions are cut off in the middle of a command");
    }
    // What another server has is told to whoever leads the queue now.
    if tokio::time::timeout(PREDECESSOR_GRACE, letting_go.none()).await.is_err() {
        tracing::info!("a server has not said whether it took a message: it is sent once more");
    }
    if let Err(error) = writing.await {
        tracing::error!(%error, "writing down what was counted for reports panicked");
    }
    cluster.shutdown().await;
    tracing::info!("node stopped");
    Ok(())
}

/// Certificates and limits take effect at once; everything that can't is named.
fn reload(services: &Services, tls: &MailTls, budget: &Budget, path: &Path) {
    let Some(new) = reload::certificates(&services.config(), path, &services.cluster, tls) else { return };
    let mut now = (*services.config()).clone();
    services.registry.set_limits(bounds(&new));
    budget.resize(services.memory.body_memory_bytes(&new.limits), new.limits.spool_bytes);
    services.credentials.set_parallel(new.limits.auth_parallel);
    services.credentials.set_masking(new.log.mask_addresses);
    now.limits = new.limits;
    now.tls = new.tls;
    now.sender_auth = config::SenderAuth { resolvers: now.sender_auth.resolvers, ..new.sender_auth };
    now.outbound = new.outbound;
    services.counted.set(&new.reports);
    now.reports = new.reports;
    now.mta_sts = new.mta_sts;
    now.peer = config::Peer { listen: now.peer.listen, ..new.peer };
    now.log.mask_addresses = new.log.mask_addresses;
    *services.config.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(now);
    tracing::info!("reloaded: certificates and limits");
}

/// What other nodes hear when they ask something of this one.
fn own_answers(services: Services) -> OwnAnswers {
    let (credentials, failover) = (Arc::clone(&services.credentials), services.failover.answers());
    let counted = services.counted.clone();
    let status = move || -> Pin<Box<dyn Future<Output = String> + Send>> {
        let services = services.clone();
        Box::pin(async move { serde_json::to_string(&admin::own_status(&services).await).unwrap_or_default() })
    };
    OwnAnswers {
        status: Arc::new(status),
        failover,
        guesses: Arc::new(move |news| credentials.hears_guesses(news)),
        counted,
    }
}

fn bounds(config: &Config) -> actors::Limits {
    let config::Limits { actors, quota_bytes, .. } = config.limits;
    actors::Limits { actors, quota_bytes, idle: actors::Idle::default() }
}

/// No core dumps, and no other process of this user reads our memory.
pub fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes may read this one's memory");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps can't be switched off");
    }
}
