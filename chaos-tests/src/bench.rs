//! Figures, beside this disk's own: deliveries a second, their latency and CPU time, and the time from a kill to
//! the first acknowledged write.

pub mod folder;
pub mod idle;
pub mod regions;
pub mod sending;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cluster::{Account, Cluster};
use crate::smtp::{Smtp, SmtpReply};
use crate::wire::Trust;

/// A message of 4 KiB.
const MESSAGE_BYTES: usize = 4_096;
/// Accounts that are delivered to.
const MAILBOXES: usize = 64;
const FDATASYNC_ROUNDS: usize = 500;

/// Prints all figures.
///
/// # Errors
/// If a client can't do what it should.
///
/// # Panics
/// If the cluster can't be started.
pub fn run(seconds: u64, kills: usize) -> Result<(), String> {
    let mut cluster = Cluster::start_new(|c| c);
    print_disk(&cluster)?;
    let accounts = create_accounts(&cluster);
    println!("connections  messages/s   p50 ms   p99 ms   CPU ms/message");
    for connections in [1, 16, 64] {
        let measured = deliveries(&cluster, &accounts, connections, Duration::from_secs(seconds))?;
        println!(
            "{connections:>11}  {:>10.0}  {:>7.1}  {:>7.1}  {:>15.2}",
            measured.per_second,
            ms(measured.p50),
            ms(measured.p99),
            measured.cpu_ms
        );
    }
    let times = failovers(&mut cluster, &accounts, kills, &leads_again)?;
    print_failovers(&times);
    Ok(())
}

fn print_failovers(times: &[Duration]) {
    println!(
        "SIGKILL to the first acknowledged write in the slowest partition the victim led, {} kills: p50 {:.0} ms, max {:.0} ms",
        times.len(),
        ms(quantile(times, 0.5)),
        ms(quantile(times, 1.0))
    );
}

struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Of the nodes that serve, for each message.
    cpu_ms: f64,
    accepted_bytes: f64,
}

fn print_disk(cluster: &Cluster) -> Result<(), String> {
    let disk = mailraft_disk::probe::fdatasync_latency(&cluster.dir, FDATASYNC_ROUNDS).map_err(|e| e.to_string())?;
    let (p50, p99) = (ms(quantile(&disk, 0.5)), ms(quantile(&disk, 0.99)));
    println!("fdatasync of 4 KiB here: p50 {p50:.2} ms, p99 {p99:.2} ms");
    Ok(())
}

fn create_accounts(cluster: &Cluster) -> Vec<Account> {
    let create = |number| {
        let account = Account { address: format!("bench{number}@example.test"), password: "a bench's password".into() };
        cluster.mailraft(&["account", "create", &account.address, "--password-stdin"], &account.password);
        account
    };
    (0..MAILBOXES).map(create).collect()
}

fn deliveries(cluster: &Cluster, accounts: &[Account], connections: usize, time: Duration) -> Result<Measured, String> {
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let nodes = cluster.serving();
    let mut sessions = Vec::new();
    for n in 0..connections {
        let address = cluster.text(nodes[n % nodes.len()], "submissions");
        let from = &accounts[n % accounts.len()];
        sessions.push(Smtp::login(&trust, &address, from).map_err(|e| e.to_string())?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let taken: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let failed: Arc<Mutex<Option<String>>> = Arc::default();
    let cpu = cluster.cpu_seconds();
    let begun = Instant::now();
    let mut workers = Vec::new();
    for (n, mut smtp) in sessions.into_iter().enumerate() {
        let from = accounts[n % accounts.len()].address.clone();
        let to: Vec<String> = accounts.iter().map(|a| a.address.clone()).collect();
        let (stop, taken, failed) = (Arc::clone(&stop), Arc::clone(&taken), Arc::clone(&failed));
        workers.push(std::thread::spawn(move || {
            let mut own = Vec::new();
            let mut count = n;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let message = message(&from, n, count);
                let begun = Instant::now();
                match smtp.send(&from, &to[count % to.len()], &message) {
                    Ok(SmtpReply::Accepted { .. }) => own.push(begun.elapsed()),
                    other => {
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(format!("{other:?}"));
                        break;
                    }
                }
            }
            taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(own);
        }));
    }
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().map_err(|_| "a client panicked".to_owned())?;
    }
    let elapsed = begun.elapsed();
    let cpu = cluster.cpu_seconds() - cpu;
    if let Some(failure) = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        return Err(format!("a delivery failed: {failure}"));
    }
    let taken = taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Measured {
        per_second: taken.len() as f64 / elapsed.as_secs_f64(),
        p50: quantile(&taken, 0.5),
        p99: quantile(&taken, 0.99),
        cpu_ms: cpu * 1_000.0 / taken.len().max(1) as f64,
        accepted_bytes: (taken.len() * MESSAGE_BYTES) as f64,
    })
}

/// For each kill of a node that serves: until a write was acknowledged in every partition that the victim led, measured in
/// mailboxes that are there. Before the next kill, `settled` waits for what it takes, with the victim and another node.
fn failovers(
    cluster: &mut Cluster,
    accounts: &[Account],
    kills: usize,
    settled: &dyn Fn(&Cluster, u64, u64),
) -> Result<Vec<Duration>, String> {
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let listing: serde_json::Value =
        serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).map_err(|e| e.to_string())?;
    let partition_of =
        |address: &str| listing.as_array()?.iter().find(|a| a["address"] == address)?["partition"].as_u64();
    let mut times = Vec::new();
    for round in 0..kills {
        let nodes = cluster.serving();
        let status = cluster.status(nodes[round % nodes.len()]).ok_or("no status")?;
        // One mailbox for each of its partitions.
        let targets_of = |victim: u64| -> Vec<&Account> {
            let partitions = status["partitions"].as_array().into_iter().flatten();
            let led = partitions.filter(|p| p["leader"].as_u64() == Some(victim) && p["partition"] != 0);
            let led = led.filter_map(|p| p["partition"].as_u64());
            led.filter_map(|led| accounts.iter().find(|a| partition_of(&a.address) == Some(led))).collect()
        };
        // The next one in turn that leads something.
        let in_turn = (0..nodes.len()).map(|n| (round + n) % nodes.len());
        let mut targets = in_turn.map(|at| (at, targets_of(nodes[at]))).filter(|(_, targets)| !targets.is_empty());
        let (at, targets) = targets.next().ok_or("no node leads a partition with a mailbox")?;
        let (victim, via) = (nodes[at], nodes[(at + 1) % nodes.len()]);
        let address = cluster.text(via, "submissions");
        let mut sessions = Vec::new();
        for target in &targets {
            let smtp = Smtp::login(&trust, &address, target).map_err(|e| e.to_string())?;
            sessions.push((smtp, target.address.clone()));
        }
        cluster.kill(victim);
        let begun = Instant::now();
        let workers: Vec<_> = sessions
            .into_iter()
            .enumerate()
            .map(|(n, (mut smtp, to))| {
                std::thread::spawn(move || {
                    for attempt in 0..200 {
                        match smtp.send(&to, &to, &message(&to, n, attempt)) {
                            Ok(SmtpReply::Accepted { .. }) => return Some(begun.elapsed()),
                            Ok(SmtpReply::Refused(..)) => {}
                            Err(_) => return None,
                        }
                    }
                    None
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        for worker in workers {
            let took = worker.join().map_err(|_| "a client panicked".to_owned())?;
            slowest = slowest.max(took.ok_or("a partition did not come back")?);
        }
        times.push(slowest);
        cluster.start(victim);
        settled(cluster, victim, via);
    }
    Ok(times)
}

/// A victim is there again, has what it missed, and leads again.
fn leads_again(cluster: &Cluster, victim: u64, via: u64) {
    cluster.wait_until_caught_up();
    cluster.wait("the victim leads again", |c| {
        c.status(via).is_some_and(|status| {
            let nodes = status["nodes"].as_array();
            nodes.is_some_and(|n| n.iter().any(|n| n["id"] == victim && n["leads"].as_u64() > Some(2)))
        })
    });
}

fn message(from: &str, worker: usize, count: usize) -> Vec<u8> {
    let mut message = format!("Subject: bench {worker} {count}\r\nFrom: <{from}>\r\n\r\n").into_bytes();
    // Bytes that don't compress: mail is mostly attachments.
    let mut state = (worker as u64) << 32 | count as u64 | 1;
    while message.len() < MESSAGE_BYTES {
        for _ in 0..72 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            message.push(b'!' + ((state >> 33) % 90) as u8);
        }
        message.extend_from_slice(b"\r\n");
    }
    message
}

fn quantile(taken: &[Duration], q: f64) -> Duration {
    let mut sorted = taken.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1_000.0
}
