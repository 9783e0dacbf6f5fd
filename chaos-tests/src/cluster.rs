//! A quickstart cluster in a directory and at ports of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::hung_disk::HungDisk;
use crate::set_clock::SetClock;

/// How long anything about a cluster is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of its log that are shown of a node that failed.
const LOG_END_LINES: usize = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// A running quickstart cluster; killed when dropped.
pub struct Cluster {
    /// Where it lives.
    pub dir: PathBuf,
    /// `cluster.json`.
    pub json: Value,
    started: Vec<std::process::Child>,
    _temporary: Option<tempfile::TempDir>,
    /// One cluster at a time in a process: what is measured here must not wait for another one's load.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

/// An account of a cluster.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its address.
    pub address: String,
    /// Its password.
    pub password: String,
}

/// Whether so little of a directory's disk is free that nodes might take no mail.
fn is_nearly_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir)
        .is_ok_and(|of| of.f_bavail < of.f_blocks / 8 || of.f_bavail.saturating_mul(of.f_frsize) < 8 << 30)
}

/// A node's configuration with as low a mark as there may be below which it takes no mail: what else fills the disk of
/// the machine that tests is none of a test's business.
#[must_use]
pub fn without_reserve(config: &str) -> String {
    let lines = config.lines().map(|line| match line.split(" = ").next() {
        Some("low_water_percent") => "low_water_percent = 0\n".to_owned(),
        Some("low_water_bytes") => format!("low_water_bytes = {}\n", 64 << 20),
        Some(_) | None => format!("{line}\n"),
    });
    lines.collect()
}

/// The built binary: `MAILRAFT`, or the release build of this checkout.
pub fn binary() -> PathBuf {
    match std::env::var_os("MAILRAFT") {
        Some(path) => path.into(),
        None => {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target"),
                PathBuf::from,
            );
            target.join("release").join("mailraft")
        }
    }
}

/// A base port that no other cluster of this process uses.
pub fn free_base_port(nodes: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 20) as u16;
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = 11_000 + offset * 5 + (n % 6) * 3_000 + (n / 6) * 100;
        let free = (0..nodes).all(|i| {
            [25, 143, 465, 587, 993, 80, 700]
                .iter()
                .all(|p| std::net::TcpListener::bind(("127.0.0.1", base + 1_000 * i + p)).is_ok())
        });
        if free {
            return base;
        }
    }
}

impl Cluster {
    /// A new cluster of three nodes in a temporary directory. `adjust` may change each node's configuration text
    /// before the nodes start.
    ///
    /// # Panics
    /// If it does not come up: a test can do nothing without it.
    pub fn start_new(adjust: impl Fn(String) -> String) -> Self {
        Self::start_of(3, &adjust)
    }

    /// A new cluster of so many nodes in a temporary directory.
    ///
    /// # Panics
    /// As [`Cluster::start_new`].
    pub fn start_of(nodes: u64, adjust: &dyn Fn(String) -> String) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self::start_in(temporary.path().join("cluster"), nodes, adjust);
        cluster._temporary = Some(temporary);
        cluster
    }

    /// A new cluster in this directory.
    ///
    /// # Panics
    /// As [`Cluster::start_new`].
    pub fn start_in(dir: PathBuf, nodes: u64, adjust: &dyn Fn(String) -> String) -> Self {
        Self::start_with(dir, ["--nodes", &nodes.to_string()], nodes, adjust)
    }

    /// A new cluster of several regions, such as `home=3,south=3`, with so many nodes in all, in a temporary directory.
    ///
    /// # Panics
    /// As [`Cluster::start_new`].
    pub fn start_regions(regions: &str, nodes: u64, adjust: &dyn Fn(String) -> String) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self::start_with(temporary.path().join("cluster"), ["--regions", regions], nodes, adjust);
        cluster._temporary = Some(temporary);
        cluster
    }

    fn start_with(dir: PathBuf, which: [&str; 2], nodes: u64, adjust: &dyn Fn(String) -> String) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let base = free_base_port(nodes as u16);
        let run = Command::new(binary())
            .args(["quickstart", "--detach", "--base-port", &base.to_string()])
            .args(which)
            .arg("--dir")
            .arg(&dir)
            .output()
            .unwrap_or_else(|e| {
                panic!("{} can't be run ({e}): build it with cargo build --release", binary().display())
            });
        assert!(
            run.status.success(),
            "quickstart failed:\n{}\n{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
        let text = std::fs::read_to_string(dir.join("cluster.json")).expect("quickstart wrote cluster.json");
        let json: Value = serde_json::from_str(&text).expect("cluster.json is JSON");
        let mut cluster = Cluster { dir, json, started: Vec::new(), _temporary: None, _turn: turn };
        let mut changed = false;
        for node in cluster.node_ids() {
            let path = cluster.text(node, "config");
            let before = std::fs::read_to_string(&path).expect("the node's configuration");
            let after = adjust(if is_nearly_full(&cluster.dir) { without_reserve(&before) } else { before.clone() });
            if after != before {
                std::fs::write(&path, after).expect("the node's configuration is written");
                changed = true;
            }
        }
        if changed {
            for node in cluster.node_ids() {
                cluster.stop(node);
                cluster.start(node);
            }
        }
        cluster.wait_until_caught_up();
        cluster
    }

    /// The nodes' numbers.
    pub fn node_ids(&self) -> Vec<u64> {
        self.nodes().iter().filter_map(|n| n["id"].as_u64()).collect()
    }

    /// The nodes of a region, as `cluster.json` says.
    pub fn nodes_in(&self, region: &str) -> Vec<u64> {
        self.nodes().iter().filter(|n| n["region"] == region).filter_map(|n| n["id"].as_u64()).collect()
    }

    /// The nodes that serve clients: those of the first node's region.
    pub fn serving(&self) -> Vec<u64> {
        let home = self.nodes().first().and_then(|n| n["region"].as_str()).unwrap_or_default();
        self.nodes_in(home)
    }

    /// A field of a node in `cluster.json`.
    ///
    /// # Panics
    /// If there is no such node or field.
    pub fn text(&self, node: u64, field: &str) -> String {
        let line = self.nodes().iter().find(|n| n["id"] == node).unwrap_or_else(|| panic!("no node {node}"));
        line[field].as_str().unwrap_or_else(|| panic!("cluster.json has no {field} for node {node}")).to_owned()
    }

    /// The first account is alice's, the second bob's.
    ///
    /// # Panics
    /// If there is none.
    pub fn account(&self, number: usize) -> Account {
        let account = &self.json["accounts"][number];
        Account {
            address: account["address"].as_str().expect("an account").to_owned(),
            password: account["password"].as_str().expect("a password").to_owned(),
        }
    }

    /// The certificate authority's certificate.
    ///
    /// # Panics
    /// If `cluster.json` has none.
    pub fn ca_cert(&self) -> PathBuf {
        self.json["ca_cert"].as_str().expect("ca_cert in cluster.json").into()
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: u64) {
        self.signal(node, rustix::process::Signal::KILL);
        self.reap(node);
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, node: u64) {
        self.signal(node, rustix::process::Signal::TERM);
        self.reap(node);
    }

    /// Sends a signal.
    pub fn signal(&self, node: u64, signal: rustix::process::Signal) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid(node)) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// The node's process id.
    pub fn pid(&self, node: u64) -> i32 {
        self.nodes().iter().find(|n| n["id"] == node).and_then(|n| n["pid"].as_i64()).unwrap_or(0) as i32
    }

    /// Starts a node again as DESIGN says: `mailraft node --config`.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn start(&mut self, node: u64) {
        let program = binary();
        self.start_by(node, Command::new(program));
    }

    /// Starts a node again with so many descriptors at most (`ulimit -n`), which it can't raise.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn start_with_descriptors(&mut self, node: u64, descriptors: u64) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &descriptors.to_string()]).arg(binary());
        self.start_by(node, shell);
    }

    /// Starts a node again that trusts these authorities of other servers, and not the machine's.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn start_trusting(&mut self, node: u64, authorities: &Path) {
        let mut program = Command::new(binary());
        program.env("SSL_CERT_FILE", authorities);
        self.start_by(node, program);
    }

    /// Starts a node again by a clock that is set.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn start_by_clock(&mut self, node: u64, clock: &SetClock) {
        let mut program = Command::new(binary());
        clock.goes_for(&mut program);
        self.start_by(node, program);
    }

    /// Starts a node again on a disk that can hang.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn start_on(&mut self, node: u64, disk: &HungDisk) {
        let mut program = Command::new(binary());
        disk.is_under(&mut program);
        self.start_by(node, program);
    }

    fn start_by(&mut self, node: u64, mut program: Command) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.text(node, "log")).expect("the log");
        let errors = log.try_clone().expect("the log");
        let child = program
            .args(["node", "--config", &self.text(node, "config")])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("mailraft node starts");
        let pid = child.id();
        self.started.push(child);
        if let Some(nodes) = self.json["nodes"].as_array_mut() {
            for line in nodes.iter_mut().filter(|n| n["id"] == node) {
                line["pid"] = pid.into();
            }
        }
    }

    /// `mailraft status`, asked of a node; None if it does not answer.
    pub fn status(&self, node: u64) -> Option<Value> {
        let text = self.get(node, "/api/v1/status").ok()?;
        serde_json::from_str(&text).ok()
    }

    /// GET from a node's admin server.
    ///
    /// # Errors
    /// If it does not answer or answers with another code than 200.
    pub fn get(&self, node: u64, path: &str) -> std::io::Result<String> {
        self.request(node, "GET", path)
    }

    /// A request without a body to a node's admin server.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub fn request(&self, node: u64, method: &str, path: &str) -> std::io::Result<String> {
        let address = self.text(node, "admin");
        let token_file = self.json["admin_token_file"].as_str().unwrap_or_default();
        let token = std::fs::read_to_string(token_file)?;
        let parsed = address.parse().map_err(std::io::Error::other)?;
        let mut socket = TcpStream::connect_timeout(&parsed, Duration::from_secs(2))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            token.trim()
        )?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
        if !head.starts_with("HTTP/1.1 200") {
            return Err(std::io::Error::other(format!("{path}: {} {body}", head.lines().next().unwrap_or_default())));
        }
        Ok(body.to_owned())
    }

    /// Runs `mailraft` with these arguments and `--dir`.
    ///
    /// # Panics
    /// If it fails.
    pub fn mailraft(&self, args: &[&str], input: &str) -> String {
        let run = self.runs(args, input);
        assert!(run.status.success(), "mailraft {args:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// What `mailraft` with these arguments and `--dir` prints, whatever comes of it.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn mailraft_says(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&self.runs(args, "").stdout).into_owned()
    }

    /// Runs `mailraft` with these arguments and `--dir`, whatever comes of it.
    ///
    /// # Panics
    /// If the process can't be made.
    pub fn runs(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(binary())
            .args(args)
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mailraft runs");
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().expect("mailraft ends")
    }

    /// Waits until every node is up, every partition has a leader and no replica lags.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub fn wait_until_caught_up(&self) {
        self.wait("every node caught up", |cluster| {
            let Some(status) = cluster.node_ids().into_iter().find_map(|n| cluster.status(n)) else { return false };
            status["healthy"] == true
                && status["nodes"].as_array().is_some_and(|n| n.iter().all(|n| n["up"] == true))
                && status["partitions"].as_array().is_some_and(|partitions| {
                    partitions.iter().all(|p| {
                        // Every node has a replica of the control group, and three have one of each other partition.
                        let replicas = cluster.replicas_of(p["partition"] == 0);
                        p["replicas"].as_array().is_some_and(|r| r.len() == replicas && r.iter().all(|r| r["lag"] == 0))
                    })
                })
        });
    }

    /// How many replicas the control group has, or another partition: three in a region, or one in a backup of two nodes.
    fn replicas_of(&self, control: bool) -> usize {
        if control {
            return self.nodes().len();
        }
        let regions: std::collections::BTreeSet<&str> =
            self.nodes().iter().filter_map(|n| n["region"].as_str()).collect();
        let in_region = |region: &str| match self.nodes_in(region) {
            nodes if nodes == self.serving() => nodes.len().min(3),
            nodes if nodes.len() < 3 => 1,
            _ => 3,
        };
        regions.into_iter().map(in_region).sum()
    }

    /// Waits until each node of three leads about as much as the others.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub fn wait_until_leads_are_spread(&self) {
        self.wait("leads are spread", |cluster| {
            let status = cluster.status(1).unwrap_or_default();
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            nodes.len() == 3 && nodes.iter().all(|node| node["leads"].as_u64() >= Some(5))
        });
    }

    /// Waits for something, asking every 20 ms.
    ///
    /// # Panics
    /// If it takes longer than [`PATIENCE`].
    pub fn wait(&self, what: &str, mut ready: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !ready(self) {
            assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
            std::thread::sleep(PAUSE);
        }
    }

    /// The sum of a node's metrics of this name, whatever their labels; 0 if it does not answer.
    pub fn metric(&self, node: u64, name: &str) -> f64 {
        let text = self.get(node, "/metrics").unwrap_or_default();
        let value = |line: &str| {
            let labels_or_value = line.strip_prefix(name)?;
            labels_or_value.starts_with(['{', ' ']).then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(value).sum()
    }

    /// What a node's process has in memory now, in bytes (`VmRSS`).
    ///
    /// # Errors
    /// If it can't be told: there is no such process, say.
    pub fn resident_bytes(&self, node: u64) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.pid(node));
        let status = std::fs::read_to_string(&path).map_err(|e| format!("node {node}: {path}: {e}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes << 10)
            .ok_or_else(|| format!("node {node} has ended: {path} names no memory"))
    }

    /// The last lines of a node's log, under a heading. A process that was killed says nothing there of its end.
    pub fn log_end(&self, node: u64) -> String {
        let path = self.text(node, "log");
        let log = std::fs::read_to_string(&path).unwrap_or_else(|e| format!("{path}: {e}"));
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_END_LINES)..];
        format!("--- the end of node {node}'s log\n{}", last.join("\n"))
    }

    /// User and system time that the nodes which serve have used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        self.serving()
            .into_iter()
            .filter_map(|node| {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid(node))).ok()?;
                // After the name in parentheses: state is field 3, utime 14, stime 15.
                let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
                Some((rest.get(11)?.parse::<f64>().ok()? + rest.get(12)?.parse::<f64>().ok()?) / ticks)
            })
            .sum()
    }

    fn nodes(&self) -> &[Value] {
        self.json["nodes"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Waits for the end of a node that was told to end.
    pub fn reap(&mut self, node: u64) {
        let pid = self.pid(node);
        for child in &mut self.started {
            if child.id() as i32 == pid {
                let _ = child.wait();
            }
        }
        // Quickstart's own children are not ours: wait until the process is gone.
        let started = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() && !is_zombie(pid) && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with('Z')))
        .unwrap_or(true)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("MAILRAFT_KEEP").is_some() {
            eprintln!("left running in {}", self.dir.display());
            if let Some(temporary) = self._temporary.take() {
                let _ = temporary.keep();
            }
            return;
        }
        if std::thread::panicking() {
            for node in self.node_ids() {
                eprintln!("{}", self.log_end(node));
            }
        }
        for node in self.node_ids() {
            self.kill(node);
        }
    }
}
