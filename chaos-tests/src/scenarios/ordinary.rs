//! Clients that do what people do, one command after another, and how long each took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::{Account, Cluster};
use crate::history::History;
use crate::imap::Imap;
use crate::smtp::{Smtp, SmtpReply};
use crate::wire::Trust;

/// A search looks at so many of the newest messages.
const SEARCHED_MESSAGES: usize = 100;

/// How long commands took, by kind.
pub type Took = BTreeMap<&'static str, Vec<Duration>>;

/// Alice's program, which sends to bob, and bob's on every node.
pub struct Ordinary {
    alice: Account,
    bob: Account,
    smtp: Smtp,
    imaps: Vec<Imap>,
    /// What was answered.
    pub history: History,
    /// How long each command took, by kind.
    pub took: Took,
    /// Changes of leaders before.
    changes_before: u64,
    cpu_before: f64,
}

/// What they saw.
pub struct Seen {
    /// How long each command took, sorted.
    took: Vec<Duration>,
    /// In which time 99 of 100 of each kind were answered.
    kinds: Vec<(&'static str, Duration)>,
    /// Changes of leaders meanwhile.
    pub leader_changes: u64,
    /// User and system time of all nodes meanwhile, in seconds.
    pub cpu_seconds: f64,
}

impl Seen {
    /// The time within which so many of a thousand commands were answered.
    pub fn permille(&self, permille: usize) -> Duration {
        within(&self.took, permille)
    }
}

fn within(sorted: &[Duration], permille: usize) -> Duration {
    let at = (sorted.len() * permille / 1_000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, p99)| format!("{kind} {:.1}", p99.as_secs_f64() * 1e3)).collect();
        write!(
            f,
            "{} commands of others: p50 {:.1} ms, p99 {:.1} ms ({}), longest {:.1} ms; {} changes of leaders",
            self.took.len(),
            self.permille(500).as_secs_f64() * 1e3,
            self.permille(990).as_secs_f64() * 1e3,
            kinds.join(", "),
            self.permille(1_000).as_secs_f64() * 1e3,
            self.leader_changes
        )
    }
}

impl Ordinary {
    /// Logs in.
    ///
    /// # Errors
    /// What failed.
    pub fn begin(cluster: &Cluster) -> Result<Self, String> {
        let said = |e: std::io::Error| e.to_string();
        let trust = Trust::in_file(&cluster.ca_cert()).map_err(said)?;
        let (alice, bob) = (cluster.account(0), cluster.account(1));
        let smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).map_err(said)?;
        let mut imaps = Vec::new();
        for node in cluster.node_ids() {
            let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), &bob).map_err(said)?;
            imap.ok("SELECT INBOX").map_err(said)?;
            imaps.push(imap);
        }
        let (changes_before, cpu_before) = (leader_changes(cluster), cluster.cpu_seconds());
        let (history, took) = (History::default(), Took::new());
        Ok(Ordinary { alice, bob, smtp, imaps, history, took, changes_before, cpu_before })
    }

    /// One message, and what bob does with it on each node.
    ///
    /// # Errors
    /// What failed: nothing of it may.
    pub fn round(&mut self) -> Result<(), String> {
        let number = self.history.counts().0 + 1;
        let subject = format!("ordinary-{number}");
        let message = format!("Subject: {subject}\r\nMessage-ID: <{subject}@test>\r\n\r\nx\r\n");
        let asked = Instant::now();
        match self.smtp.send(&self.alice.address, &self.bob.address, message.as_bytes()).map_err(|e| e.to_string())? {
            SmtpReply::Accepted { id, at } => {
                self.took.entry("deliver").or_default().push(asked.elapsed());
                self.history.accepted(subject, id, at);
            }
            SmtpReply::Refused(code, text) => return Err(format!("a message was refused: {code} {text}")),
        }
        let newest = format!("SEARCH {}:* SUBJECT 7", number.saturating_sub(SEARCHED_MESSAGES).max(1));
        for imap in &mut self.imaps {
            let commands = [
                ("NOOP", "NOOP"),
                ("FETCH", "FETCH * (FLAGS ENVELOPE)"),
                ("STORE", "STORE * +FLAGS (\\Seen)"),
                ("SEARCH", newest.as_str()),
            ];
            for (kind, command) in commands {
                let asked = Instant::now();
                imap.ok(command).map_err(|e| e.to_string())?;
                self.took.entry(kind).or_default().push(asked.elapsed());
            }
        }
        Ok(())
    }

    /// What they saw.
    pub fn seen(&self, cluster: &Cluster) -> Seen {
        let mut took: Vec<Duration> = self.took.values().flatten().copied().collect();
        took.sort_unstable();
        let kinds = self.took.iter().map(|(kind, took)| {
            let mut took = took.clone();
            took.sort_unstable();
            (*kind, within(&took, 990))
        });
        Seen {
            took,
            kinds: kinds.collect(),
            leader_changes: leader_changes(cluster).saturating_sub(self.changes_before),
            cpu_seconds: cluster.cpu_seconds() - self.cpu_before,
        }
    }
}

fn leader_changes(cluster: &Cluster) -> u64 {
    cluster.node_ids().into_iter().map(|node| cluster.metric(node, "mailraft_leader_changes_total") as u64).sum()
}
