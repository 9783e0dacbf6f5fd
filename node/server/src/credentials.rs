//! Who may log in. Argon2id is slow on purpose: few run at once in a fair queue, and what was verified is
//! remembered for a short while, so that thousands can log in again within seconds of a node's death.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailraft_directory::{Account, Lookup, password};
use mailraft_driver::Cluster;
use mailraft_storage::seal::Key;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::environment::os_env;
use crate::lookups::{Uncertain, look_twice_before_no, look_up};
use crate::permits::Permits;

/// How long a verified credential is remembered.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// The most credentials remembered.
pub const REMEMBERED_MAX: usize = 100_000;
/// Logins that may wait for Argon2.
const WAITING_MAX: usize = 10_000;
/// Wrong passwords for one account within [`WRONG_WINDOW`], after which it is throttled.
const WRONG_MAX: u32 = 10;
const WRONG_WINDOW: Duration = Duration::from_secs(60);
/// Accounts whose wrong passwords are counted.
const WRONG_ACCOUNTS_MAX: usize = 10_000;

/// Why someone may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefused {
    /// No such account, or not its password: a read barrier of the control group says so.
    Wrong,
    /// Too many wrong passwords, or too many logins waiting.
    Throttled,
    /// Whether the password is right can't be said now.
    Unavailable,
}

impl From<Uncertain> for LoginRefused {
    fn from(why: Uncertain) -> Self {
        match why {
            Uncertain::Damaged | Uncertain::Unavailable => LoginRefused::Unavailable,
        }
    }
}

/// Verifies logins.
pub struct Credentials {
    cluster: Cluster,
    lookup: Arc<Lookup>,
    argon2: Permits,
    waiting: Arc<Semaphore>,
    secret: Key,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    wrong: Mutex<HashMap<String, (u32, Instant)>>,
}

impl Credentials {
    /// At most `parallel` Argon2 at once.
    pub fn new(cluster: Cluster, lookup: Arc<Lookup>, parallel: usize) -> Self {
        Credentials {
            cluster,
            lookup,
            argon2: Permits::new(parallel),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            secret: Key::generate(&mut os_env()),
            remembered: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// At most so many Argon2 at once from now on.
    pub fn set_parallel(&self, parallel: usize) {
        self.argon2.resize(parallel);
    }

    /// The account of these credentials.
    ///
    /// # Errors
    /// Why it may not log in.
    pub async fn verify(&self, user: &str, password: Zeroizing<String>) -> Result<Account, LoginRefused> {
        let name = user.trim().to_ascii_lowercase();
        if self.throttled(&name) {
            ::metrics::counter!("mailraft_logins_total", "result" => "throttled").increment(1);
            return Err(LoginRefused::Throttled);
        }
        let look = || self.check(&name, &password);
        let verified = look_twice_before_no(&self.cluster, |account| account.is_none(), look).await?;
        match verified {
            Some(account) => {
                ::metrics::counter!("mailraft_logins_total", "result" => "ok").increment(1);
                Ok(account)
            }
            None => {
                ::metrics::counter!("mailraft_logins_total", "result" => "wrong").increment(1);
                self.count_wrong(name);
                Err(LoginRefused::Wrong)
            }
        }
    }

    async fn check(&self, name: &str, password: &Zeroizing<String>) -> Result<Option<Account>, LoginRefused> {
        let of = name.to_owned();
        let account = look_up(&self.cluster, &self.lookup, move |lookup| lookup.account(&of))
            .await?
            .filter(|account| !account.disabled);
        // Without an account the same time is spent, so that the answer's time tells nothing.
        let verifier = match &account {
            Some(account) => account.verifier.clone(),
            None => password::DUMMY_VERIFIER.to_owned(),
        };
        let mark = self.secret.keyed_hash(&[name.as_bytes(), verifier.as_bytes(), password.as_bytes()]);
        if self.is_remembered(&mark) {
            return Ok(account);
        }
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| LoginRefused::Throttled)?;
        let place = self.argon2.take(1).await.ok_or(LoginRefused::Unavailable)?;
        let given = password.clone();
        let right = tokio::task::spawn_blocking(move || {
            let _place = place;
            password::verify(&given, &verifier)
        })
        .await
        .map_err(|_| LoginRefused::Unavailable)?;
        match account {
            Some(account) if right => {
                self.remember(mark);
                Ok(Some(account))
            }
            _ => Ok(None),
        }
    }

    fn is_remembered(&self, mark: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(mark).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, since| since.elapsed() < REMEMBERED);
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
        }
        remembered.insert(mark, Instant::now());
    }

    fn throttled(&self, name: &str) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get(name).is_some_and(|(count, since)| *count >= WRONG_MAX && since.elapsed() < WRONG_WINDOW)
    }

    fn count_wrong(&self, name: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= WRONG_ACCOUNTS_MAX {
            wrong.retain(|_, (_, since)| since.elapsed() < WRONG_WINDOW);
            if wrong.len() >= WRONG_ACCOUNTS_MAX {
                wrong.clear();
            }
        }
        let entry = wrong.entry(name).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= WRONG_WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}
