//! Accounts that search for whatever costs most, all the time, and how long others wait meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::ordinary::{Ordinary, Seen};
use crate::cluster::{Account, Cluster};
use crate::imap::Imap;
use crate::smtp::{Smtp, SmtpReply};
use crate::wire::Trust;

const SEARCHERS: usize = 10;
const MESSAGES_OF_EACH: usize = 16;
const PASSWORD: &str = "nobody guesses this one";

/// Searches under way.
pub struct Searching {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

impl Searching {
    /// Ten accounts begin to search, each on every node.
    ///
    /// # Errors
    /// What failed.
    pub fn begin(cluster: &Cluster) -> Result<Self, String> {
        let said = |e: std::io::Error| e.to_string();
        let trust = Arc::new(Trust::in_file(&cluster.ca_cert()).map_err(said)?);
        let (alice, bob) = (cluster.account(0), cluster.account(1));
        let domain = bob.address.split('@').next_back().unwrap_or_default().to_owned();
        let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).map_err(said)?;
        let searching = Searching { stop: Arc::default(), ended: Arc::default(), stopped: Arc::default() };
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
                let Searching { stop, ended, stopped } = &searching;
                let (stop, ended, stopped) = (Arc::clone(stop), Arc::clone(ended), Arc::clone(stopped));
                std::thread::spawn(move || {
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
                });
            }
        }
        Ok(searching)
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Searching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ended, stopped) = (self.ended.load(Ordering::Relaxed), self.stopped.load(Ordering::Relaxed));
        write!(f, "{SEARCHERS} accounts ended {ended} searches, and {stopped} were stopped")
    }
}

/// Runs it; what others saw, and the searches.
///
/// # Errors
/// What failed.
pub fn searchers(cluster: &mut Cluster, time: Duration) -> Result<(Seen, String), String> {
    let searching = Searching::begin(cluster)?;
    let mut others = Ordinary::begin(cluster)?;
    let begun = Instant::now();
    while begun.elapsed() < time {
        others.round()?;
    }
    Ok((others.seen(cluster), searching.to_string()))
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
