//! What `mailraft-chaos run` runs, and the tests with it: load, faults, then the check.

mod backup;
mod ordinary;
mod region_loss;
mod searchers;
mod siege;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Account, Cluster};
use crate::history::History;
use crate::imap::Imap;
use crate::smtp::{Smtp, SmtpReply};
use crate::wire::Trust;

pub use backup::{backup_region, two_regions, until_said};
pub use region_loss::{Loss, Promise, lose_home, run as region_loss};
pub use searchers::searchers;
pub use siege::{besieged, siege};

/// The names of scenarios.
pub const NAMES: [&str; 7] =
    ["backup-region", "kill-under-load", "living-connection", "region-loss", "searchers", "siege", "two-nodes-dead"];

/// How much of a scenario.
#[derive(clap::Args)]
pub struct Extent {
    /// How long load lasts, in seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// How many kills
    #[arg(long, default_value_t = 30)]
    pub kills: usize,
    /// region-loss: how often the home is lost
    #[arg(long, default_value_t = 20)]
    pub losses: usize,
    /// region-loss: what was promised
    #[arg(long, value_enum, default_value_t = Promise::Geo)]
    pub durability: Promise,
    /// region-loss: the old home lives on, cut off, and hears of it later
    #[arg(long)]
    pub lie: bool,
    /// region-loss: write report.json into this directory
    #[arg(long)]
    pub out: Option<std::path::PathBuf>,
}

/// Runs a scenario against a cluster of its own; a line for the report.
///
/// # Errors
/// What is wrong.
///
/// # Panics
/// If the cluster can't be started.
pub fn run(name: &str, extent: &Extent) -> Result<String, String> {
    let Extent { seconds, kills, losses, durability, lie, out } = extent;
    let (seconds, kills) = (*seconds, *kills);
    match name {
        "backup-region" => backup::run(),
        "kill-under-load" => kill_under_load(&mut Cluster::start_new(|c| c), Duration::from_secs(seconds)),
        "living-connection" => living_connection(&mut Cluster::start_new(|c| c), kills),
        "region-loss" => region_loss(*losses, *durability, *lie, out.as_deref()),
        "searchers" => {
            let (seen, searches) = searchers(&mut Cluster::start_new(|c| c), Duration::from_secs(seconds))?;
            Ok(format!("{searches}; {seen}"))
        }
        "siege" => {
            let seen = siege(&mut besieged(), Duration::from_secs(seconds))?;
            seen.judge()?;
            Ok(seen.to_string())
        }
        "two-nodes-dead" => two_nodes_dead(&mut Cluster::start_new(|c| c)),
        other => Err(format!("there is no scenario {other}; there are {}", NAMES.join(", "))),
    }
}

/// Deliveries through all nodes on several connections while nodes are killed and started again.
///
/// # Errors
/// What is missing, there twice, or different between nodes.
pub fn kill_under_load(cluster: &mut Cluster, time: Duration) -> Result<String, String> {
    let load = Load::start(cluster, 500)?;
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < time {
        let victim = cluster.node_ids()[kills % cluster.node_ids().len()];
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.kill(victim);
        kills += 1;
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.start(victim);
        cluster.wait("a restarted node catches up", |c| c.status(victim).is_some_and(|s| s["healthy"] == true));
    }
    let said = load.end(cluster)?;
    Ok(format!("{kills} kills in {:.0} s: {said}", begun.elapsed().as_secs_f64()))
}

/// Alice's messages to bob through all nodes on several connections, and what was answered.
pub struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    rests: Arc<AtomicBool>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Begins to deliver messages of so many bytes.
    ///
    /// # Errors
    /// If the cluster's certificate can't be read.
    pub fn start(cluster: &Cluster, message_bytes: usize) -> Result<Self, String> {
        let mut load =
            Load { history: Arc::default(), stop: Arc::default(), rests: Arc::default(), workers: Vec::new() };
        let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
        let addresses: Vec<String> = cluster.serving().iter().map(|n| cluster.text(*n, "submissions")).collect();
        for worker in 0..6usize {
            let (history, trust) = (Arc::clone(&load.history), trust.clone());
            let (stop, rests) = (Arc::clone(&load.stop), Arc::clone(&load.rests));
            let (addresses, from, to) = (addresses.clone(), cluster.account(0), cluster.account(1));
            load.workers.push(std::thread::spawn(move || {
                deliver_until((&stop, &rests), (worker, message_bytes), &addresses, &trust, &from, &to, &history);
            }));
        }
        Ok(load)
    }

    /// Begins no further message, or goes on.
    pub fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// Messages refused for the moment so far.
    pub fn refused(&self) -> usize {
        self.history.counts().2
    }

    /// Messages accepted so far.
    pub fn accepted(&self) -> usize {
        self.history.counts().0
    }

    /// Stops, and compares what bob has with what was answered.
    ///
    /// # Errors
    /// What is missing, there twice, or different between nodes; or that next to nothing was accepted.
    pub fn end(self, cluster: &Cluster) -> Result<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().map_err(|_| "a client panicked".to_owned())?;
        }
        cluster.wait_until_caught_up();
        let said = self.history.check(cluster, &cluster.account(1))?;
        let (accepted, _, refused) = self.history.counts();
        if accepted < 50 {
            return Err(format!("only {accepted} messages were accepted: this was no load"));
        }
        Ok(format!("{said}; {refused} refused for the moment"))
    }
}

/// One client: message after message, on another node whenever the connection breaks.
fn deliver_until(
    (stop, rests): (&AtomicBool, &AtomicBool),
    (worker, message_bytes): (usize, usize),
    addresses: &[String],
    trust: &Trust,
    from: &Account,
    to: &Account,
    history: &History,
) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut node = worker;
    let mut session: Option<Smtp> = None;
    while !stop.load(Ordering::Relaxed) {
        if rests.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let Some(smtp) = session.as_mut() else {
            node += 1;
            session = Smtp::login(trust, &addresses[node % addresses.len()], from).ok();
            if session.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            continue;
        };
        let subject = format!("m{}-{worker}", NEXT.fetch_add(1, Ordering::Relaxed));
        let message = format!(
            "Subject: {subject}\r\nMessage-ID: <{subject}@chaos.test>\r\n\r\n{}\r\n",
            "x".repeat(message_bytes)
        );
        match smtp.send(&from.address, &to.address, message.as_bytes()) {
            Ok(SmtpReply::Accepted { id, at }) => history.accepted(subject, id, at),
            Ok(SmtpReply::Refused(..)) => history.refused(subject),
            Err(_) => {
                history.open(subject);
                session = None;
            }
        }
    }
}

/// A connection to one node through kills of the others: it never breaks, and no command takes over a second.
///
/// # Errors
/// What broke, or how long a command took.
pub fn living_connection(cluster: &mut Cluster, kills: usize) -> Result<String, String> {
    let bob = cluster.account(1);
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let mut imap = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).map_err(|e| e.to_string())?;
    imap.ok("SELECT INBOX").map_err(|e| e.to_string())?;
    let mut slowest = Duration::ZERO;
    let (mut commands, mut appended) = (0u64, 0usize);
    for round in 0..kills {
        let victim = 2 + (round as u64 % 2);
        cluster.kill(victim);
        let killed = Instant::now();
        while killed.elapsed() < Duration::from_millis(1_500) {
            for command in ["NOOP", "FETCH 1:* (FLAGS)", "APPEND"] {
                let begun = Instant::now();
                let outcome = match command {
                    "APPEND" => {
                        let text = format!("Subject: living-{round}-{commands}\r\n\r\nx\r\n");
                        appended += 1;
                        imap.ok(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len()))
                    }
                    // An empty folder has no message 1.
                    "FETCH 1:* (FLAGS)" if appended == 0 => Ok(String::new()),
                    other => imap.ok(other),
                };
                let took = begun.elapsed();
                commands += 1;
                if let Err(error) = outcome {
                    return Err(format!(
                        "kill {} of node {victim}: {command} failed after {took:?}: {error}",
                        round + 1
                    ));
                }
                if took > Duration::from_secs(1) {
                    return Err(format!("kill {} of node {victim}: {command} took {took:?}", round + 1));
                }
                slowest = slowest.max(took);
            }
        }
        cluster.start(victim);
        cluster.wait_until_caught_up();
    }
    let seen = imap.by_subject("INBOX").map_err(|e| e.to_string())?;
    let there = seen.keys().filter(|s| s.starts_with("living-")).count();
    if there != appended {
        return Err(format!("{appended} messages were appended and {there} are there"));
    }
    Ok(format!(
        "{kills} kills: {commands} commands, none lost, the slowest {} ms, {appended} messages appended and there",
        slowest.as_millis()
    ))
}

/// With two nodes dead: an answer within two seconds that says so, and nothing lost once they are back.
///
/// # Errors
/// What answered otherwise.
pub fn two_nodes_dead(cluster: &mut Cluster) -> Result<String, String> {
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).map_err(|e| e.to_string())?;
    let mut imap = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).map_err(|e| e.to_string())?;
    imap.ok("SELECT INBOX").map_err(|e| e.to_string())?;
    let history = History::default();
    let send = |smtp: &mut Smtp, subject: &str| {
        let message = format!("Subject: {subject}\r\n\r\nx\r\n");
        smtp.send(&alice.address, &bob.address, message.as_bytes()).map_err(|e| e.to_string())
    };
    match send(&mut smtp, "before")? {
        SmtpReply::Accepted { id, at } => history.accepted("before".into(), id, at),
        SmtpReply::Refused(code, text) => return Err(format!("a healthy cluster refused: {code} {text}")),
    }
    cluster.kill(2);
    cluster.kill(3);
    // Until the leaders notice they take changes, whose outcome then is in doubt for half a minute.
    cluster.wait("node 1 knows that nobody leads", |cluster| {
        let status = cluster.status(1);
        let lines = status.as_ref().and_then(|status| status["partitions"].as_array());
        lines.is_some_and(|lines| lines.iter().all(|line| line["leader"].is_null()))
    });
    let begun = Instant::now();
    let said = send(&mut smtp, "without")?;
    let smtp_took = begun.elapsed();
    match said {
        SmtpReply::Refused(451, _) => history.refused("without".into()),
        other => return Err(format!("without a majority SMTP said {other:?}")),
    }
    let begun = Instant::now();
    let answer = imap.command("NOOP").map_err(|e| e.to_string())?;
    let imap_took = begun.elapsed();
    if !answer.starts_with("NO [UNAVAILABLE]") {
        return Err(format!("without a majority NOOP was answered {answer}"));
    }
    let begun = Instant::now();
    let wrong = Account { address: bob.address.clone(), password: "wrong password".into() };
    let refused = Imap::login(&trust, &cluster.text(1, "imaps"), &wrong);
    let login_took = begun.elapsed();
    if let Err(error) = &refused
        && error.to_string().contains("AUTHENTICATIONFAILED")
    {
        return Err("without a majority a login was told that its password is wrong".into());
    }
    for (what, took) in [("SMTP", smtp_took), ("NOOP", imap_took), ("a login", login_took)] {
        if took > Duration::from_secs(2) {
            return Err(format!("without a majority {what} took {took:?}"));
        }
    }
    cluster.start(2);
    cluster.start(3);
    cluster.wait_until_caught_up();
    match send(&mut smtp, "after")? {
        SmtpReply::Accepted { id, at } => history.accepted("after".into(), id, at),
        SmtpReply::Refused(code, text) => return Err(format!("a healed cluster refused: {code} {text}")),
    }
    let checked = history.check(cluster, &bob)?;
    Ok(format!(
        "two of three nodes dead: SMTP said 451 after {} ms, IMAP NO after {} ms; back again: {checked}",
        smtp_took.as_millis(),
        imap_took.as_millis()
    ))
}
