//! The home region is lost under load, and the other takes over by the real command: what was answered is there once, and how
//! long each step took. With `lie` the home lives on behind the cut, and hears of it later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::two_regions;
use crate::cluster::{Cluster, PATIENCE};
use crate::imap::Imap;
use crate::smtp::{Smtp, SmtpReply};
use crate::wan::Wan;
use crate::wire::{Trust, Wire};

/// One way over the link.
const ONE_WAY: Duration = Duration::from_millis(40);
/// Load before the loss, and after it.
const LOAD: Duration = Duration::from_secs(3);
/// Under `region`, answers run so far ahead of what the backup holds.
const RPO_MAX: Duration = Duration::from_secs(1);
/// Between the cut and the end of the home, by turns.
const LIVES_CUT_OFF_MS: [u64; 4] = [0, 200, 600, 1_200];
/// A client hears an answer so much later than it was given, on a machine that is busy.
const PATIENCE_OF_A_CLIENT: Duration = Duration::from_secs(1);
const WORKERS: usize = 6;
const PAUSE: Duration = Duration::from_millis(20);

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Promise {
    /// Nothing that was answered is lost.
    Geo,
    /// At most a second of it.
    Region,
}

/// How the home is lost.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// What was promised before.
    pub promise: Promise,
    /// It lives on behind the cut.
    pub lie: bool,
    /// Between the cut and its end.
    pub lives_cut_off: Duration,
}

/// Messages to bob, and what was answered, each with when.
struct Load {
    accepted: Arc<Mutex<BTreeMap<String, Instant>>>,
    stop: Arc<AtomicBool>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Messages whose Subject begins with a letter, by these nodes.
    fn start(cluster: &Cluster, nodes: &[u64], letter: char) -> Result<Self, String> {
        let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
        let addresses: Vec<String> = nodes.iter().map(|n| cluster.text(*n, "submissions")).collect();
        let (accepted, stop): (Arc<Mutex<BTreeMap<String, Instant>>>, Arc<AtomicBool>) = Default::default();
        let next = Arc::new(AtomicU64::new(0));
        let workers = (0..WORKERS).map(|worker| {
            let (trust, addresses, next) = (trust.clone(), addresses.clone(), Arc::clone(&next));
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            let (from, to) = (cluster.account(0), cluster.account(1).address);
            std::thread::spawn(move || {
                let (mut node, mut session) = (worker, None::<Smtp>);
                while !stop.load(Ordering::Relaxed) {
                    let Some(smtp) = session.as_mut() else {
                        node += 1;
                        session = Smtp::login(&trust, &addresses[node % addresses.len()], &from).ok();
                        if session.is_none() {
                            std::thread::sleep(PAUSE);
                        }
                        continue;
                    };
                    let subject = format!("{letter}{}", next.fetch_add(1, Ordering::Relaxed));
                    let message = format!("Subject: {subject}\r\nMessage-ID: <{subject}@chaos.test>\r\n\r\nx\r\n");
                    match smtp.send(&from.address, &to, message.as_bytes()) {
                        Ok(SmtpReply::Accepted { .. }) => {
                            accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(subject, Instant::now());
                        }
                        Ok(SmtpReply::Refused(..)) => std::thread::sleep(PAUSE),
                        Err(_) => session = None,
                    }
                }
            })
        });
        let workers = workers.collect();
        Ok(Load { accepted, stop, workers })
    }

    fn accepted(&self) -> BTreeMap<String, Instant> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the first message was accepted after this moment.
    fn first_after(&self, moment: Instant) -> Result<Instant, String> {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.accepted().into_values().filter(|at| *at > moment).min() {
                return Ok(at);
            }
            if begun.elapsed() > PATIENCE {
                return Err("no message is accepted after the takeover".into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn end(self) -> BTreeMap<String, Instant> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            // One that panicked has said so.
            let _ = worker.join();
        }
        std::mem::take(&mut *self.accepted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The home of a cluster of its own is lost, and the south takes over: what came of it, for the report.
///
/// # Errors
/// What was lost beyond the promise, is there twice, or did not work.
///
/// # Panics
/// If the cluster can't be started.
pub fn lose_home(loss: &Loss) -> Result<Value, String> {
    let (mut cluster, wan) = two_regions(ONE_WAY);
    take_over(&mut cluster, &wan, loss)
}

fn take_over(cluster: &mut Cluster, wan: &Wan, loss: &Loss) -> Result<Value, String> {
    let (home, south) = (cluster.nodes_in("home"), cluster.nodes_in("south"));
    if loss.promise == Promise::Region {
        cluster.mailraft(&["region", "set", "--durability", "region", "--rpo-max", "1s"], "");
    }
    let load = Load::start(cluster, &cluster.node_ids(), 'm')?;
    std::thread::sleep(LOAD);
    let known = uids(cluster, home[0])?;
    wan.cut(true);
    let cut = Instant::now();
    std::thread::sleep(loss.lives_cut_off);
    if !loss.lie {
        home.iter().for_each(|node| cluster.kill(*node));
    }
    let died = Instant::now();
    let key = std::fs::read_to_string(cluster.dir.join("node1/root.key")).map_err(|e| e.to_string())?;
    // Clients of a home that lives wait there for up to a minute, and others come to where mail is served soon.
    let later = if loss.lie { Some(Load::start(cluster, &south, 'n')?) } else { None };
    let said = Instant::now();
    let args = ["region", "failover", "--to", "south", "--old-region-is-off", "--yes", "--root-key-stdin", "--json"];
    let run = cluster.runs(&args, &key);
    let (out, err) =
        (String::from_utf8_lossy(&run.stdout).into_owned(), String::from_utf8_lossy(&run.stderr).into_owned());
    if !run.status.success() {
        return Err(format!("mailraft region failover failed: {err}{out}"));
    }
    let answer: Value = serde_json::from_str(&out).map_err(|e| format!("{e}: {out}"))?;
    let first = later.as_ref().unwrap_or(&load).first_after(died.max(said))?;
    std::thread::sleep(LOAD);
    let sealed = if loss.lie { Some(hears_of_it(cluster, wan, &home)?) } else { None };
    let mut accepted = load.end();
    accepted.extend(later.map(Load::end).unwrap_or_default());
    let there = present(cluster, south[0])?;
    let missing: Vec<(&String, &Instant)> =
        accepted.iter().filter(|(subject, _)| !there.contains_key(*subject)).collect();
    let lost_ms = missing.iter().map(|(_, at)| died.saturating_duration_since(**at).as_millis() as u64).max();
    match loss.promise {
        Promise::Geo if !missing.is_empty() => {
            let since = |at: Option<&Instant>| at.map(|at| at.saturating_duration_since(cut));
            let (oldest, newest) = (missing.iter().map(|(_, at)| *at).min(), missing.iter().map(|(_, at)| *at).max());
            return Err(format!(
                "under geo {} of {} accepted messages are not there, the first accepted {:?} after the cut, the last {:?}; \
                 the south took the first {:?} after it, and {} are there",
                missing.len(),
                accepted.len(),
                since(oldest),
                since(newest),
                since(Some(&first)),
                there.len()
            ));
        }
        Promise::Geo => {}
        Promise::Region => {
            // What was not held at the cut, and what was answered since, as far as the bound lets it.
            let oldest = missing.iter().map(|(_, at)| **at).min();
            let newest = missing.iter().map(|(_, at)| **at).max();
            let span = oldest.zip(newest).map(|(oldest, newest)| newest - oldest).unwrap_or_default();
            if span > RPO_MAX || newest.is_some_and(|newest| newest > cut + RPO_MAX + PATIENCE_OF_A_CLIENT) {
                return Err(format!("under region messages of {span:?} are not there, and the bound is {RPO_MAX:?}"));
            }
        }
    }
    for (subject, uid) in &known {
        if there.get(subject).is_some_and(|now| now != uid) {
            return Err(format!("{subject} had UID {uid}, and has {:?} now", there.get(subject)));
        }
    }
    let after = accepted.values().filter(|at| **at > first).count();
    Ok(json!({
        "accepted": accepted.len(), "accepted_after": after, "lost": missing.len(), "lost_ms": lost_ms, "doubled": 0,
        "lives_cut_off_ms": loss.lives_cut_off.as_millis() as u64,
        "first_answer_ms": first.saturating_duration_since(said).as_millis() as u64,
        "sealed_after_ms": sealed.map(|time| time.as_millis() as u64),
        "steps": answer["progress"]["steps"], "said": answer["progress"]["lost"],
    }))
}

/// What bob has, by Subject, as a node at home says.
fn uids(cluster: &Cluster, node: u64) -> Result<BTreeMap<String, u32>, String> {
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), &cluster.account(1)).map_err(|e| e.to_string())?;
    imap.by_subject("INBOX").map_err(|e| e.to_string())
}

/// The same of a node that has just begun to serve: asked until it answers. What is there twice is an error.
fn present(cluster: &Cluster, node: u64) -> Result<BTreeMap<String, u32>, String> {
    let begun = Instant::now();
    loop {
        match uids(cluster, node) {
            Ok(there) => return Ok(there),
            Err(error) if error.contains("twice") || begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The link is there again: how long it takes until every node of the old home is sealed, and says so to clients.
fn hears_of_it(cluster: &Cluster, wan: &Wan, home: &[u64]) -> Result<Duration, String> {
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    wan.cut(false);
    let begun = Instant::now();
    for node in home {
        let mut last = String::new();
        loop {
            let line = Wire::connect(&trust, &cluster.text(*node, "imaps")).and_then(|mut wire| wire.line());
            let says = cluster.status(*node).map_or(Value::Null, |status| status["survives"].clone());
            if let Ok(line) = &line
                && line.starts_with("* BYE [UNAVAILABLE] region south took over")
                && says.as_str().is_some_and(|says| says.starts_with("SEALED: region south took over"))
            {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!(
                    "node {node} of the old home is not sealed: it says {last:?}, and its status {says}"
                ));
            }
            last = line.unwrap_or_else(|e| e.to_string());
            std::thread::sleep(PAUSE);
        }
    }
    Ok(begun.elapsed())
}

/// So many losses, each of a cluster of its own. Writes `report.json` into a directory, if one is named.
///
/// # Errors
/// That of the first loss that kept no promise.
///
/// # Panics
/// As [`lose_home`].
pub fn run(losses: usize, promise: Promise, lie: bool, out: Option<&Path>) -> Result<String, String> {
    let mut lines = Vec::new();
    for number in 0..losses {
        let lives_cut_off = Duration::from_millis(LIVES_CUT_OFF_MS[number % LIVES_CUT_OFF_MS.len()]);
        let line = lose_home(&Loss { promise, lie, lives_cut_off }).map_err(|e| format!("loss {}: {e}", number + 1))?;
        println!("loss {}: {line}", number + 1);
        lines.push(line);
    }
    let mut phases: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in &lines {
        for step in line["steps"].as_array().into_iter().flatten() {
            if let (Some(name), Some(ms)) = (step["step"].as_str(), step["after_ms"].as_u64()) {
                phases.entry(name.to_owned()).or_default().push(ms);
            }
        }
        phases.entry("first_answer".into()).or_default().extend(line["first_answer_ms"].as_u64());
    }
    let phases: BTreeMap<String, Value> = phases
        .into_iter()
        .map(|(name, mut times)| {
            times.sort_unstable();
            (name, json!({"p50_ms": times[times.len() / 2], "max_ms": times.last(), "seen": times.len()}))
        })
        .collect();
    let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
    let report = json!({
        "losses": losses, "durability": format!("{promise:?}").to_lowercase(), "lie": lie, "accepted": sum("accepted"),
        "lost": sum("lost"), "lost_ms_max": lines.iter().filter_map(|line| line["lost_ms"].as_u64()).max(), "doubled": 0,
        "after_the_word": phases, "each": lines,
    });
    if let Some(dir) = out {
        std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        std::fs::write(dir.join("report.json"), format!("{report:#}\n")).map_err(|e| e.to_string())?;
    }
    Ok(format!(
        "{losses} losses of the home: {} accepted, {} lost, 0 there twice; after the word: {}",
        report["accepted"], report["lost"], report["after_the_word"]
    ))
}
