//! What commands on a large folder take, and what somebody with another mailbox hears of them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{create_accounts, ms, print_disk, quantile};
use crate::cluster::{Account, Cluster};
use crate::imap::Imap;
use crate::wire::Trust;

/// Connections that fill the folder.
const FILLING: u32 = 4;
/// Messages of one APPEND.
const AT_ONCE: u32 = 128;
/// Answers to an old message's author before the next conversation begins.
const CONVERSATION: u32 = 4;
/// How long the other mailbox is measured by itself.
const ALONE: Duration = Duration::from_secs(10);
/// The other mailbox is asked so often.
const PROBE_EVERY: Duration = Duration::from_millis(5);

/// What is asked of the folder.
struct Asked {
    name: &'static str,
    /// In turns.
    commands: &'static [&'static str],
    times: u32,
}

const ASKED: [Asked; 16] = [
    Asked { name: "STATUS", commands: &["STATUS INBOX (MESSAGES UNSEEN UIDNEXT SIZE)"], times: 100 },
    Asked { name: "SELECT", commands: &["SELECT INBOX"], times: 20 },
    Asked { name: "FETCH 1:* (FLAGS)", commands: &["FETCH 1:* (FLAGS)"], times: 10 },
    Asked {
        name: "first sync",
        commands: &["UID FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE MESSAGE-ID)])"],
        times: 2,
    },
    Asked { name: "SEARCH UNSEEN", commands: &["SEARCH UNSEEN"], times: 20 },
    Asked { name: "SEARCH SUBJECT", commands: &["SEARCH SUBJECT nowhere"], times: 3 },
    Asked { name: "SEARCH BODY, the first", commands: &["SEARCH BODY nowhere"], times: 1 },
    Asked { name: "SEARCH BODY, later", commands: &["SEARCH BODY elsewhere", "SEARCH TEXT anybody"], times: 10 },
    Asked { name: "SORT (REVERSE ARRIVAL)", commands: &["SORT (REVERSE ARRIVAL) UTF-8 ALL"], times: 10 },
    Asked { name: "SORT (SUBJECT DATE)", commands: &["SORT (SUBJECT DATE) UTF-8 ALL"], times: 3 },
    Asked { name: "THREAD REFERENCES", commands: &["THREAD REFERENCES UTF-8 ALL"], times: 3 },
    Asked {
        name: "STORE 1:* FLAGS.SILENT",
        commands: &["STORE 1:* +FLAGS.SILENT (\\Flagged)", "STORE 1:* -FLAGS.SILENT (\\Flagged)"],
        times: 10,
    },
    Asked {
        name: "STORE 1:* FLAGS",
        commands: &["STORE 1:* +FLAGS (\\Flagged)", "STORE 1:* -FLAGS (\\Flagged)"],
        times: 4,
    },
    Asked { name: "COPY 1:*", commands: &["COPY 1:* Archive"], times: 1 },
    Asked { name: "STORE 1:* \\Deleted", commands: &["STORE 1:* +FLAGS.SILENT (\\Deleted)"], times: 1 },
    Asked { name: "EXPUNGE", commands: &["EXPUNGE"], times: 1 },
];

/// Prints all figures, of a folder of so many messages.
///
/// # Errors
/// If a client can't do what it should.
///
/// # Panics
/// If the cluster can't be started.
pub fn run(messages: u32) -> Result<(), String> {
    let cluster = Cluster::start_new(|c| c);
    print_disk(&cluster)?;
    let accounts = create_accounts(&cluster);
    let (large, other) = of_one_partition(&cluster, &accounts)?;
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let address = cluster.text(cluster.serving()[0], "imaps");
    let neighbour = Neighbour::begin(&trust, &address, other)?;
    std::thread::sleep(ALONE);
    println!("another mailbox of the partition, by itself: STATUS {}", told(&neighbour.take()));
    let (cpu, begun) = (cluster.cpu_seconds(), Instant::now());
    fill(&trust, &address, large, messages)?;
    let (cpu, took) = (cluster.cpu_seconds() - cpu, begun.elapsed().as_secs_f64());
    println!(
        "{messages} messages in {took:.0} s, {:.0} a second, {:.2} ms of CPU each, by APPENDs of {AT_ONCE}; the other's STATUS {}",
        f64::from(messages) / took,
        cpu * 1_000.0 / f64::from(messages),
        told(&neighbour.take())
    );
    println!("command                  times    p50 ms    p99 ms  CPU ms each   STATUS of the other mailbox meanwhile");
    let mut imap = Imap::login(&trust, &address, large).map_err(|e| e.to_string())?;
    for asked in &ASKED {
        neighbour.take();
        let (cpu, mut taken, mut refused) = (cluster.cpu_seconds(), Vec::new(), String::new());
        for command in asked.commands.iter().cycle().take(asked.times as usize) {
            let begun = Instant::now();
            let ended = imap.command(command).map_err(|error| format!("{}: {error}", asked.name))?;
            taken.push(begun.elapsed());
            if !ended.starts_with("OK") {
                refused = format!("   {ended}");
            }
        }
        let (cpu, meanwhile) = ((cluster.cpu_seconds() - cpu) * 1_000.0 / f64::from(asked.times), neighbour.take());
        let [p50, p99] = [0.5, 0.99].map(|q| ms(quantile(&taken, q)));
        let Asked { name, times, .. } = asked;
        println!("{name:<24} {times:>5} {p50:>9.1} {p99:>9.1} {cpu:>12.1}   {}{refused}", told(&meanwhile));
    }
    neighbour.end()
}

/// Two accounts whose mailboxes are in one partition: whoever keeps its owners waiting keeps both waiting.
fn of_one_partition<'a>(cluster: &Cluster, accounts: &'a [Account]) -> Result<(&'a Account, &'a Account), String> {
    let listing: serde_json::Value =
        serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).map_err(|e| e.to_string())?;
    let partition_of =
        |account: &Account| listing.as_array()?.iter().find(|a| a["address"] == account.address)?["partition"].as_u64();
    let large = accounts.first().ok_or("there is no account")?;
    let of_it = partition_of(large).ok_or("the first account has no partition")?;
    let other = accounts[1..].iter().find(|account| partition_of(account) == Some(of_it));
    Ok((large, other.ok_or("no other account is in the partition of the first")?))
}

fn fill(trust: &Trust, address: &str, account: &Account, messages: u32) -> Result<(), String> {
    let each = messages.div_ceil(FILLING);
    let fillers: Vec<_> = (0..FILLING)
        .map(|n| {
            let (trust, address, account) = (trust.clone(), address.to_owned(), account.clone());
            let (from, to) = (n * each, messages.min((n + 1) * each));
            std::thread::spawn(move || -> io::Result<()> {
                let mut imap = Imap::login(&trust, &address, &account)?;
                for first in (from..to).step_by(AT_ONCE as usize) {
                    let literal = |number| {
                        let message = message(number);
                        format!(" {{{}+}}\r\n{message}", message.len())
                    };
                    let all: String = (first..to.min(first + AT_ONCE)).map(literal).collect();
                    imap.ok(&format!("APPEND INBOX{all}"))?;
                }
                Ok(())
            })
        })
        .collect();
    for filler in fillers {
        filler.join().map_err(|_| "a client panicked".to_owned())?.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A message of 1 to 2 KiB, in conversations.
fn message(number: u32) -> String {
    let (first, place) = (number - number % CONVERSATION, number % CONVERSATION);
    let references = match place {
        0 => String::new(),
        _ => format!("References: <{first}@bench.test>\r\nIn-Reply-To: <{}@bench.test>\r\n", number - 1),
    };
    let (re, day) = (if place == 0 { "" } else { "Re: " }, 1 + number % 28);
    let body = "some words that nobody looks for, in a line like others\r\n".repeat(12 + number as usize % 16);
    format!(
        "From: Somebody {0} <from{0}@example.org>\r\nTo: <to@example.test>\r\nSubject: {re}conversation {first}\r\nDate: {day} Jan 2026 12:00:00 +0000\r\nMessage-ID: <{number}@bench.test>\r\n{references}\r\n{body}",
        number % 500
    )
}

/// A session of another mailbox that asks all the time.
struct Neighbour {
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Duration>>>,
    asking: std::thread::JoinHandle<io::Result<()>>,
}

impl Neighbour {
    fn begin(trust: &Trust, address: &str, account: &Account) -> Result<Self, String> {
        let mut imap = Imap::login(trust, address, account).map_err(|e| e.to_string())?;
        let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Duration>>>::default());
        let (stops, takes) = (Arc::clone(&stop), Arc::clone(&taken));
        let asking = std::thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                let begun = Instant::now();
                imap.ok("STATUS INBOX (MESSAGES)")?;
                takes.lock().unwrap_or_else(PoisonError::into_inner).push(begun.elapsed());
                std::thread::sleep(PROBE_EVERY);
            }
            Ok(())
        });
        Ok(Neighbour { stop, taken, asking })
    }

    /// What its commands took since the last call.
    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| "a client panicked".to_owned())?.map_err(|e| e.to_string())
    }
}

fn told(taken: &[Duration]) -> String {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|q| ms(quantile(taken, q)));
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {most:.1} ms of {}", taken.len())
}
