//! What was acknowledged, and the check that it is all there: exactly once, on every node, with the same
//! UID; and what got no answer, at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::cluster::{Account, Cluster};
use crate::imap::Imap;
use crate::wire::Trust;

/// What clients were told.
#[derive(Default)]
pub struct History {
    inner: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Subject → (command id, position).
    accepted: BTreeMap<String, (String, String)>,
    /// Subjects of attempts without an answer, or with a temporary refusal.
    open: BTreeSet<String>,
    refused: usize,
}

impl History {
    /// A message got its 250.
    pub fn accepted(&self, subject: String, id: String, at: String) {
        self.told().accepted.insert(subject, (id, at));
    }

    /// Nobody knows what became of a message.
    pub fn open(&self, subject: String) {
        self.told().open.insert(subject);
    }

    /// A message was refused for now.
    pub fn refused(&self, subject: String) {
        let mut told = self.told();
        told.refused += 1;
        told.open.insert(subject);
    }

    /// How many were accepted, are open, and were refused.
    pub fn counts(&self) -> (usize, usize, usize) {
        let told = self.told();
        (told.accepted.len(), told.open.len(), told.refused)
    }

    /// Looks from each node into the account's INBOX.
    ///
    /// # Errors
    /// One line for each thing that is wrong.
    pub fn check(&self, cluster: &Cluster, account: &Account) -> Result<String, String> {
        let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
        let told = self.told();
        let mut wrong = Vec::new();
        let mut first: Option<BTreeMap<String, u32>> = None;
        for node in cluster.serving() {
            let seen = Imap::login(&trust, &cluster.text(node, "imaps"), account)
                .and_then(|mut imap| imap.by_subject("INBOX"));
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    wrong.push(format!("node {node}: {error}"));
                    continue;
                }
            };
            for (subject, (id, at)) in &told.accepted {
                if !seen.contains_key(subject) {
                    wrong.push(format!("node {node}: {subject} was acknowledged (id={id} at={at}) and is missing"));
                }
            }
            for subject in seen.keys() {
                if !told.accepted.contains_key(subject) && !told.open.contains(subject) {
                    wrong.push(format!("node {node}: {subject} was never sent"));
                }
            }
            match &first {
                None => first = Some(seen),
                Some(first) if *first == seen => {}
                Some(_) => wrong.push(format!("node {node} shows other messages or UIDs than the first")),
            }
        }
        let mut positions = BTreeSet::new();
        for (id, at) in told.accepted.values() {
            if !positions.insert(id) {
                wrong.push(format!("command {id} acknowledged two messages (at={at})"));
            }
        }
        if wrong.is_empty() {
            Ok(format!(
                "{} acknowledged, each there once with one UID on {} nodes; {} without an answer, each at most once",
                told.accepted.len(),
                cluster.serving().len(),
                told.open.len()
            ))
        } else {
            wrong.truncate(20);
            Err(wrong.join("\n"))
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
