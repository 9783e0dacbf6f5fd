//! Accounts that search for whatever costs most, all the time, and how long others wait meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Account, Cluster};
use crate::imap::Imap;
use crate::smtp::{Smtp, SmtpReply};
use crate::wire::Trust;

const SEARCHERS: usize = 10;
const MESSAGES_OF_EACH: usize = 16;
const PASSWORD: &str = "nobody guesses this one";

/// What others saw.
pub struct Seen {
    /// How long each of their commands took, sorted.
    pub took: Vec<Duration>,
    /// Changes of leaders during that time.
    pub leader_changes: u64,
    /// Searches that ended.
    pub searches: usize,
    /// Those of them that were stopped.
    pub stopped: usize,
}

impl Seen {
    /// The time within which so many of a thousand commands were answered.
    pub fn permille(&self, permille: usize) -> Duration {
        self.took[(self.took.len() * permille / 1_000).min(self.took.len() - 1)]
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{SEARCHERS} accounts ended {} searches, {} of them stopped; {} commands of others: p50 {:.1} ms, p99 {:.1} ms, \
             longest {:.1} ms; {} changes of leaders",
            self.searches,
            self.stopped,
            self.took.len(),
            self.permille(500).as_secs_f64() * 1e3,
            self.permille(990).as_secs_f64() * 1e3,
            self.permille(1_000).as_secs_f64() * 1e3,
            self.leader_changes
        )
    }
}

/// Runs it.
///
/// # Errors
/// What failed.
pub fn searchers(cluster: &mut Cluster, time: Duration) -> Result<Seen, String> {
    let said = |e: std::io::Error| e.to_string();
    let trust = Arc::new(Trust::in_file(&cluster.ca_cert()).map_err(said)?);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let domain = bob.address.split('@').next_back().unwrap_or_default().to_owned();
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).map_err(said)?;
    let (stop, ended, stopped) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = Vec::new();
    for number in 0..SEARCHERS {
        let account = Account { address: format!("searcher{number}@{domain}"), password: PASSWORD.into() };
        cluster.mailraft(&["account", "create", &account.address, "--password-stdin"], &format!("{PASSWORD}\n"));
        for message in 0..MESSAGES_OF_EACH {
            match smtp.send(&alice.address, &account.address, costly_message(message).as_bytes()).map_err(said)? {
                SmtpReply::Accepted { .. } => {}
                SmtpReply::Refused(code, text) => return Err(format!("a message was refused: {code} {text}")),
            }
        }
        for node in cluster.node_ids() {
            let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), &account).map_err(said)?;
            imap.ok("SELECT INBOX").map_err(said)?;
            let (stop, ended, stopped) = (Arc::clone(&stop), Arc::clone(&ended), Arc::clone(&stopped));
            workers.push(std::thread::spawn(move || {
                let search = costly_search();
                while !stop.load(Ordering::Relaxed) {
                    match imap.command(&search) {
                        Ok(answer) if answer.starts_with("OK") => ended.fetch_add(1, Ordering::Relaxed),
                        Ok(answer) if answer.starts_with("NO [LIMIT]") => stopped.fetch_add(1, Ordering::Relaxed),
                        Ok(answer) => panic!("a search was answered {answer}"),
                        // It is not waited for at the end.
                        Err(_) => return,
                    };
                }
            }));
        }
    }
    let before = leader_changes(cluster);
    let mut imaps = Vec::new();
    for node in cluster.node_ids() {
        let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), &bob).map_err(said)?;
        imap.ok("SELECT INBOX").map_err(said)?;
        imaps.push(imap);
    }
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let message = format!("Subject: {}\r\nMessage-ID: <{0}@test>\r\n\r\nx\r\n", took.len());
        let asked = Instant::now();
        match smtp.send(&alice.address, &bob.address, message.as_bytes()).map_err(said)? {
            SmtpReply::Accepted { .. } => took.push(asked.elapsed()),
            SmtpReply::Refused(code, text) => return Err(format!("a message was refused: {code} {text}")),
        }
        for imap in &mut imaps {
            for command in ["NOOP", "FETCH * (FLAGS ENVELOPE)", "STORE * +FLAGS (\\Seen)", "SEARCH SUBJECT 7"] {
                let asked = Instant::now();
                imap.ok(command).map_err(said)?;
                took.push(asked.elapsed());
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    took.sort_unstable();
    let leader_changes = leader_changes(cluster) - before;
    Ok(Seen { took, leader_changes, searches: ended.load(Ordering::Relaxed), stopped: stopped.load(Ordering::Relaxed) })
}

/// A long header with its date at the end, and a body of words.
fn costly_message(number: usize) -> String {
    let fields: String = (0..1_900).map(|n| format!("X-Field-{n}: {}\r\n", "some words ".repeat(9))).collect();
    let body = "words that nobody looks for, in a line of its own\r\n".repeat(8_000);
    format!("{fields}Subject: {number}\r\nDate: Fri, 2 Jan 1970 00:30:00 +0100\r\n\r\n{body}")
}

/// As many keys as one search may have.
fn costly_search() -> String {
    let dates = "SENTON 2-Jan-1970 ".repeat(100);
    let words: String = (0..440).map(|n| format!("NOT BODY absent{n} ")).collect();
    format!("SEARCH {dates}{}", words.trim_end())
}

fn leader_changes(cluster: &Cluster) -> u64 {
    let of = |node| {
        let text = cluster.get(node, "/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("mailraft_leader_changes_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    cluster.node_ids().into_iter().map(of).sum()
}
