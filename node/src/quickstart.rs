//! `mailraft quickstart`: a whole cluster on this machine, of real node processes.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mailraft_driver::pki::ClusterCa;
use mailraft_server::admin::SEALED;
use mailraft_server::bootstrap::{FirstNode, FirstState, create_first_state};
use mailraft_server::config::{Config, OnLoopback, render_on_loopback};
use mailraft_server::disk_space::DiskSpace;
use mailraft_storage::{ClusterId, NodeId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::admin_client::{AdminClient, read_cluster};
use crate::failed::Failed;
use crate::node_files::{self, PUBLIC, SECRET};
use crate::node_spec::{RegionSpec, RegionSpecs};
use crate::options::Quickstart;
use crate::output::tell;
use crate::password::random_password;
use crate::stores::OnDisk;

/// Mail partitions of a quickstart cluster.
const PARTITIONS: u32 = 16;
/// What each node listens on, as offsets from its base port; the names are those of `cluster.json`.
const SERVICES: [(&str, u16); 9] = [
    ("smtp", 25),
    ("submission", 587),
    ("submissions", 465),
    ("imap", 143),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("admin", 80),
    ("peer", 700),
];
const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const DOMAIN: &str = "example.test";

/// Makes a cluster, or starts the one that is in the directory.
pub fn run(options: &Quickstart) -> Result<(), Failed> {
    let told_to_stop = hear_signals()?;
    let dir = std::path::absolute(&options.dir)
        .map_err(|e| Failed::usage(format!("--dir {}: {e}", options.dir.display())))?;
    let mut cluster = if dir.join("cluster.json").exists() {
        tell!("Starting the cluster in {}, with the nodes and ports it was made with", dir.display());
        read_cluster(&dir)?
    } else {
        create(&dir, options)?
    };
    let before: Vec<Pid> = nodes(&cluster).filter_map(|n| n["config"].as_str()).flat_map(processes_of).collect();
    let brought_up = bring_up(&dir, &mut cluster, &told_to_stop);
    let is_taken_over = brought_up.inspect_err(|_| {
        // What was started must not run on unwatched; what ran before is not ours to end.
        let _ = end(&cluster, &before);
    })?;
    match is_taken_over {
        false => explain(&dir, &cluster, options.detach),
        true => {
            tell!(
                "\nAnother region took over: those of its nodes serve that have the root key. How it is: mailraft status --dir {}\n",
                dir.display()
            )
        }
    }
    say_if_disk_is_low(&dir, &cluster);
    if options.detach {
        return Ok(());
    }
    while !told_to_stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
    }
    tell!("Stopping");
    stop(&dir)
}

/// Whether a region was taken over.
fn bring_up(dir: &Path, cluster: &mut Value, told_to_stop: &AtomicBool) -> Result<bool, Failed> {
    start_nodes(dir, cluster)?;
    write_cluster(dir, cluster)?;
    let is_taken_over = wait_until_ready(dir, cluster, told_to_stop)?;
    if !is_taken_over {
        create_accounts(dir, cluster)?;
    }
    Ok(is_taken_over)
}

/// Stops the nodes of a cluster, also those that were started again by hand: SIGTERM, then SIGKILL for those that
/// take too long.
pub fn stop(dir: &Path) -> Result<(), Failed> {
    let stopped = end(&read_cluster(dir)?, &[])?;
    tell!("stopped {stopped} nodes");
    Ok(())
}

/// Ends the nodes that run, but for some: how many.
fn end(cluster: &Value, but: &[Pid]) -> Result<usize, Failed> {
    let running: Vec<(Pid, &str)> = nodes(cluster)
        .filter_map(|n| n["config"].as_str())
        .flat_map(|config| processes_of(config).into_iter().map(move |pid| (pid, config)))
        .filter(|(pid, _)| !but.contains(pid))
        .collect();
    for (pid, _) in &running {
        let _ = kill_process(*pid, Signal::TERM);
    }
    let begun = Instant::now();
    for (pid, config) in &running {
        let mut killed = false;
        while is_node(*pid, config) {
            if begun.elapsed() > STOP_MAX && !std::mem::replace(&mut killed, true) {
                let _ = kill_process(*pid, Signal::KILL);
            }
            if begun.elapsed() > 2 * STOP_MAX {
                return Err(Failed::because(format!("process {} does not end", pid.as_raw_nonzero())));
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(running.len())
}

fn create(dir: &Path, options: &Quickstart) -> Result<Value, Failed> {
    node_files::check_new_dir(dir)?;
    let regions = options
        .regions
        .clone()
        .map_or_else(|| vec![RegionSpec { name: "home".into(), nodes: options.nodes }], |RegionSpecs(regions)| regions);
    let home = regions.first().map_or_else(String::new, |home| home.name.clone());
    let of_nodes = regions.iter().flat_map(|region| (0..region.nodes).map(|_| region.name.as_str()));
    let placed: Vec<(u64, &str)> = (1..).zip(of_nodes).collect();
    let base = |node: u64| options.base_port + 1_000 * (node as u16 - 1);
    for (node, _) in &placed {
        for (service, offset) in SERVICES {
            let port = base(*node) + offset;
            std::net::TcpListener::bind(("127.0.0.1", port)).map_err(|e| {
                Failed::because(format!(
                    "port {port} for {service} of node {node} is taken ({e}): choose other ports with --base-port"
                ))
            })?;
        }
    }
    tell!("Making a cluster of {} nodes in {}", placed.len(), dir.display());
    let cluster = ClusterId(*node_files::random::<16>()?);
    let root_key = Zeroizing::new(hex::encode(node_files::random::<32>()?.as_slice()));
    let token = Zeroizing::new(hex::encode(node_files::random::<24>()?.as_slice()));

    node_files::make_dir(dir)?;
    node_files::keep_private(dir)?;
    let ca = ClusterCa::create(cluster).map_err(|e| Failed::because(e.to_string()))?;
    node_files::write_authority(&ca, dir)?;
    let (ca_file, _) = node_files::authority(dir);
    let token_file = dir.join("admin-token");
    node_files::write(&token_file, format!("{}\n", token.as_str()).as_bytes(), SECRET)?;
    let peer = |node: u64| format!("127.0.0.1:{}", base(node) + 700);
    let (mut lines, mut first) = (Vec::new(), Vec::new());
    for &(node, region) in &placed {
        let own = dir.join(format!("node{node}"));
        node_files::make_dir(&own)?;
        let root_key_use = node_files::write_root_key(&own, &root_key, region == home)?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        node_files::issue_certificates(&ca, cluster, NodeId(node), &names, &[], &own)?;
        let others = placed.iter().filter(|(other, _)| *other != node);
        let peers: Vec<(u64, String)> = others.map(|(other, _)| (*other, peer(*other))).collect();
        let config = render_on_loopback(&OnLoopback {
            id: node,
            region,
            root_key_use,
            cluster: &cluster.to_string(),
            partitions: PARTITIONS,
            peers: &peers,
            dir: &own,
            ca_file: &ca_file,
            token_file: &token_file,
            base_port: base(node),
        });
        node_files::write(&own.join("config.toml"), config.as_bytes(), PUBLIC)?;
        first.push(FirstNode {
            id: node,
            name: format!("node{node}"),
            region: region.to_owned(),
            zone: String::new(),
            peer: peer(node),
            data_dir: own.join("data"),
        });
        let mut line = json!({
            "id": node, "pid": 0, "region": region,
            "data_dir": own.join("data"), "config": own.join("config.toml"), "log": own.join("log"),
        });
        for (service, offset) in SERVICES {
            line[service] = json!(format!("127.0.0.1:{}", base(node) + offset));
        }
        lines.push(line);
    }
    create_first_state(&FirstState { cluster, partitions: PARTITIONS, root_key_hex: root_key, nodes: first }, &OnDisk)
        .map_err(Failed::because)?;
    let mut accounts = Vec::new();
    for name in ["alice", "bob"] {
        accounts.push(json!({"address": format!("{name}@{DOMAIN}"), "password": random_password()?.as_str()}));
    }
    let cluster = json!({"nodes": lines, "ca_cert": ca_file, "admin_token_file": token_file, "accounts": accounts});
    write_cluster(dir, &cluster)?;
    Ok(cluster)
}

fn start_nodes(dir: &Path, cluster: &mut Value) -> Result<(), Failed> {
    let binary = std::env::current_exe()
        .map_err(|e| Failed::because(format!("this program's own file can't be found ({e})")))?;
    for line in cluster["nodes"].as_array_mut().into_iter().flatten() {
        let id = line["id"].as_u64().unwrap_or(0);
        if let Some(pid) = processes_of(line["config"].as_str().unwrap_or_default()).first() {
            tell!("  node {id} runs already");
            // Started by hand after a kill, it has another number than its predecessor.
            line["pid"] = json!(pid.as_raw_nonzero().get());
            continue;
        }
        let path = |key: &str| PathBuf::from(line[key].as_str().unwrap_or_default());
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path("log"))
            .map_err(|e| Failed::because(format!("{} can't be written ({e})", path("log").display())))?;
        let errors = log.try_clone().map_err(|e| Failed::because(e.to_string()))?;
        let child = Command::new(&binary)
            .args(["node", "--config"])
            .arg(path("config"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Of its own: Ctrl-C here is not for it.
            .process_group(0)
            .spawn()
            .map_err(|e| Failed::because(format!("node {id} can't be started ({e})")))?;
        tell!("  node {id} started, process {}", child.id());
        line["pid"] = json!(child.id());
    }
    Ok(())
}

/// Whether one of them was taken over: it is sealed, and never gets ready.
fn wait_until_ready(dir: &Path, cluster: &Value, told_to_stop: &AtomicBool) -> Result<bool, Failed> {
    let client = AdminClient::in_dir(dir)?;
    let mut is_taken_over = false;
    let begun = Instant::now();
    for line in nodes(cluster) {
        let (id, address) = (line["id"].as_u64().unwrap_or(0), line["admin"].as_str().unwrap_or_default());
        let sealed = loop {
            let why = match client.is_ready(address) {
                Ok(()) => break None,
                Err(why) if why.starts_with(SEALED) => break Some(why),
                Err(why) => why,
            };
            let died = processes_of(line["config"].as_str().unwrap_or_default()).is_empty();
            if died || begun.elapsed() > READY_MAX {
                let log = line["log"].as_str().unwrap_or_default();
                let text = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(Failed::because(format!(
                    "node {id} did not get ready ({why}); the end of {log}:\n{}",
                    tail.join("\n")
                )));
            }
            if told_to_stop.load(Ordering::Relaxed) {
                return Err(Failed::because("told to stop before the cluster was ready".into()));
            }
            std::thread::sleep(PAUSE);
        };
        is_taken_over |= sealed.is_some();
        match sealed {
            None => tell!("  node {id} is ready after {:.1} s", begun.elapsed().as_secs_f64()),
            Some(why) => tell!("  node {id}: {why}"),
        }
    }
    Ok(is_taken_over)
}

fn create_accounts(dir: &Path, cluster: &Value) -> Result<(), Failed> {
    let client = AdminClient::in_dir(dir)?;
    let has = |path: &str, key: &str, value: &str| -> Result<bool, Failed> {
        let list = client.read(path)?;
        Ok(list.as_array().into_iter().flatten().any(|l| l[key] == value))
    };
    if !has("/api/v1/domains", "name", DOMAIN)? {
        client.change("POST", "/api/v1/domains", Some(&json!({"name": DOMAIN})), None)?;
    }
    for account in cluster["accounts"].as_array().into_iter().flatten() {
        let address = account["address"].as_str().unwrap_or_default();
        if !has("/api/v1/accounts", "address", address)? {
            client.change("POST", "/api/v1/accounts", Some(account), None)?;
            tell!("  made {address}");
        }
    }
    Ok(())
}

fn explain(dir: &Path, cluster: &Value, detached: bool) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let first = &cluster["nodes"][0];
    let (serving, standbys): (Vec<&Value>, Vec<&Value>) =
        nodes(cluster).partition(|node| node["region"] == first["region"]);
    let last = serving.last().copied().unwrap_or(first);
    let (alice, bob) = (&cluster["accounts"][0], &cluster["accounts"][1]);
    let binary = std::env::current_exe().map_or("mailraft".into(), |p| p.display().to_string());
    match standbys.is_empty() {
        true => tell!("\nMailraft runs. Any node serves any client:\n"),
        false => tell!("\nMailraft runs. Any node of region {} serves any client:\n", text(&first["region"])),
    }
    for line in &serving {
        tell!(
            "  node {}   IMAP {} (TLS {})   POP3 {} (TLS {})   submission {} (TLS {})   SMTP {}",
            line["id"],
            text(&line["imap"]),
            text(&line["imaps"]),
            text(&line["pop3"]),
            text(&line["pop3s"]),
            text(&line["submission"]),
            text(&line["submissions"]),
            text(&line["smtp"])
        );
    }
    for line in &standbys {
        tell!("  node {}   keeps an encrypted backup in region {}", line["id"], text(&line["region"]));
    }
    tell!("\n  accounts   {}  {}", text(&alice["address"]), text(&alice["password"]));
    tell!("             {}  {}", text(&bob["address"]), text(&bob["password"]));
    tell!("  TLS is signed by {}\n", text(&cluster["ca_cert"]));
    tell!("Three things to try:\n");
    tell!("1. Deliver a message through one node:");
    tell!(
        "   printf 'Subject: hello\\r\\n\\r\\nfirst mail\\r\\n' | curl --cacert {} smtps://localhost:{} --mail-from {} --mail-rcpt {} --user '{}:{}' -T -",
        text(&cluster["ca_cert"]),
        port(&first["submissions"]),
        text(&alice["address"]),
        text(&bob["address"]),
        text(&alice["address"]),
        text(&alice["password"])
    );
    tell!("2. Read it through another (or point a mail program there):");
    tell!(
        "   curl --cacert {} 'imaps://localhost:{}/INBOX;MAILINDEX=1' --user '{}:{}'",
        text(&cluster["ca_cert"]),
        port(&last["imaps"]),
        text(&bob["address"]),
        text(&bob["password"])
    );
    tell!("3. Kill a node, see that mail goes on, start it again:");
    tell!("   kill -9 {}; {binary} status --dir {}", first["pid"], dir.display());
    tell!("   {binary} node --config {}", text(&first["config"]));
    match detached {
        true => tell!("\nStop it with: {binary} stop --dir {}", dir.display()),
        false => tell!("\nCtrl-C stops it."),
    }
}

/// Mail would be refused, and whoever tries this out should know why.
fn say_if_disk_is_low(dir: &Path, cluster: &Value) {
    let first = nodes(cluster).next().and_then(|node| node["config"].as_str());
    let Some(Ok(config)) = first.map(|path| Config::load(Path::new(path))) else { return };
    let disk = DiskSpace::of(dir, &config.limits).status();
    if disk.low {
        tell!(
            "\nNO MAIL IS TAKEN: the disk has {} MiB left, and a node takes none below {} MiB. Give it room, or lower\n\
             limits.low_water_bytes and limits.low_water_percent in each node's configuration and start again.",
            disk.free_bytes >> 20,
            disk.low_water_bytes >> 20
        );
    }
}

/// From now on Ctrl-C and SIGTERM only say so here, so that nodes are stopped too.
fn hear_signals() -> Result<Arc<AtomicBool>, Failed> {
    let told = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&told);
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => return drop(ready.send(Err(e))),
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut terminate, mut interrupt) =
                match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                    (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
                    (Err(e), _) | (_, Err(e)) => return drop(ready.send(Err(e))),
                };
            let _ = ready.send(Ok(()));
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            heard.store(true, Ordering::Relaxed);
            // A second signal changes nothing: stopping has its own bound.
            std::future::pending::<()>().await;
        });
    });
    match is_ready.recv() {
        Ok(Ok(())) => Ok(told),
        Ok(Err(e)) => Err(Failed::because(format!("signals can't be heard ({e})"))),
        Err(_) => Err(Failed::because("signals can't be heard".into())),
    }
}

fn port(address: &Value) -> &str {
    address.as_str().and_then(|a| a.rsplit_once(':')).map_or("", |(_, port)| port)
}

fn nodes(cluster: &Value) -> impl Iterator<Item = &Value> {
    cluster["nodes"].as_array().into_iter().flatten()
}

/// Whether a process is (still) `mailraft node --config` of this file, and not something else with a number used
/// again.
fn is_node(pid: Pid, config: &str) -> bool {
    let dir = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let zombie = fs::read_to_string(dir.join("stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')));
    let ours = fs::read(dir.join("cmdline")).is_ok_and(|line| {
        let mut words = line.split(|b| *b == 0).skip(1);
        words.next() == Some(b"node".as_slice()) && words.any(|w| w == config.as_bytes())
    });
    ours && !zombie
}

/// All processes that run the node of this configuration.
fn processes_of(config: &str) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|e| Pid::from_raw(e.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|pid| is_node(*pid, config))
        .collect()
}

/// Holds passwords: for its owner alone. Replaced whole, so that whoever reads it meanwhile reads a whole one.
fn write_cluster(dir: &Path, cluster: &Value) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(cluster).map_err(|e| Failed::because(e.to_string()))?;
    node_files::write(&dir.join("cluster.json"), format!("{text}\n").as_bytes(), SECRET)
}
