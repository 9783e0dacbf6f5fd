//! Who is logged in here. When an account is disabled or gone, or its password is another one, its sessions end: each node
//! looks again whenever its replica of the control group has gone on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_directory::{Account, Lookup};
use mailraft_driver::Cluster;
use mailraft_storage::{Index, PartitionId};
use sha2::{Digest, Sha256};

use crate::lookups::look_up;
use crate::places::Place;

/// The control group's position is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The sessions that somebody has logged in to; clones share them.
#[derive(Clone, Default)]
pub struct LoggedIn {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    accounts: HashMap<String, BTreeMap<u64, Session>>,
    /// Some began since the accounts were last looked at: theirs may have changed in between.
    some_are_new: bool,
}

struct Session {
    /// The verifier by which the password was found to be right.
    verifier: [u8; 32],
    place: Place,
}

/// A session that somebody is logged in to, until it is dropped.
pub struct Login {
    logged_in: LoggedIn,
    account: String,
    number: u64,
}

impl LoggedIn {
    /// A session of this account.
    pub fn enter(&self, account: &Account, place: &Place) -> Login {
        let mut table = self.table();
        table.next += 1;
        table.some_are_new = true;
        let number = table.next;
        let session = Session { verifier: digest(&account.verifier), place: place.clone() };
        table.accounts.entry(account.address.clone()).or_default().insert(number, session);
        Login { logged_in: self.clone(), account: account.address.clone(), number }
    }

    /// Ends sessions as their accounts change, for ever.
    pub async fn watch(self, cluster: Cluster, lookup: Arc<Lookup>) {
        let mut seen: Option<Index> = None;
        let mut pause = tokio::time::interval(LOOK_EVERY);
        loop {
            pause.tick().await;
            let Some(control) = cluster.replica(PartitionId::CONTROL) else { continue };
            let Ok(Some(applied)) = cluster.rows().applied(control) else { continue };
            let new = std::mem::take(&mut self.table().some_are_new);
            if seen == Some(applied.index) && !new {
                continue;
            }
            seen = Some(applied.index);
            let accounts: Vec<String> = self.table().accounts.keys().cloned().collect();
            for name in accounts {
                let of = name.clone();
                // What can't be read now says nothing about anybody.
                if let Ok(account) = look_up(&cluster, &lookup, move |lookup| lookup.account(&of)).await {
                    self.end_others(&name, account.filter(|account| !account.disabled).as_ref());
                }
            }
        }
    }

    /// Ends the sessions of a name that are not by this account's present password.
    fn end_others(&self, name: &str, account: Option<&Account>) {
        let right = account.map(|account| digest(&account.verifier));
        let table = self.table();
        for session in table.accounts.get(name).into_iter().flat_map(BTreeMap::values) {
            if Some(session.verifier) != right {
                session.place.revoke();
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let mut table = self.logged_in.table();
        if let Some(sessions) = table.accounts.get_mut(&self.account) {
            sessions.remove(&self.number);
            if sessions.is_empty() {
                table.accounts.remove(&self.account);
            }
        }
    }
}

fn digest(verifier: &str) -> [u8; 32] {
    Sha256::digest(verifier.as_bytes()).into()
}
