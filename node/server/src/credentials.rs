//! Who may log in. Argon2id is slow on purpose: few run at once, by turns of the networks that ask, and what was
//! verified is remembered for a short while, so that thousands can log in again within seconds of a node's death.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use mailraft_directory::{Account, Lookup, password};
use mailraft_driver::{Cluster, Reader};
use mailraft_storage::seal::Key;
use zeroize::Zeroizing;

use crate::argon2_queue::Argon2Queue;
use crate::environment::os_env;
use crate::lookups::{Uncertain, look_up, up_to_date};
use crate::memory_limit::PASSWORD_CHECK_BYTES;
use crate::places::Network;
use crate::throttle::{GuessNews, Throttle};

/// How long a verified credential is remembered.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// The most credentials remembered.
pub const REMEMBERED_MAX: usize = 100_000;
/// What is shown of a name that nobody verified, in characters.
const SHOWN_MAX: usize = 64;

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
    argon2: Argon2Queue,
    throttle: Throttle,
    /// Whether users' names are masked in the log.
    masking: AtomicBool,
    secret: Key,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// Those that are being verified.
    verifying: Mutex<HashMap<[u8; 32], Weak<tokio::sync::Mutex<()>>>>,
}

impl Credentials {
    /// At most `parallel` Argon2 at once.
    pub fn new(cluster: Cluster, lookup: Arc<Lookup>, parallel: usize) -> Self {
        Credentials {
            cluster,
            lookup,
            argon2: Argon2Queue::new(parallel),
            throttle: Throttle::default(),
            masking: AtomicBool::new(true),
            secret: Key::generate(&mut os_env()),
            remembered: Mutex::default(),
            verifying: Mutex::default(),
        }
    }

    /// Memory that password checks take now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.argon2.memories() as u64 * PASSWORD_CHECK_BYTES
    }

    /// At most so many Argon2 at once from now on.
    pub fn set_parallel(&self, parallel: usize) {
        self.argon2.resize(parallel);
    }

    /// Whether of users' names only the first letter and the domain stand in the log from now on.
    pub fn set_masking(&self, masking: bool) {
        self.masking.store(masking, Ordering::Relaxed);
    }

    /// A user's name as it stands in the log.
    pub fn in_log(&self, name: &str) -> String {
        if self.masking.load(Ordering::Relaxed) { masked(name) } else { shown(name) }
    }

    /// What was guessed here since the last call, for the other nodes; None if nothing was.
    pub fn guess_news(&self) -> Option<GuessNews> {
        self.throttle.news()
    }

    /// Another node tells what was guessed there.
    pub fn hears_guesses(&self, news: GuessNews) {
        self.throttle.hears(news);
    }

    /// How long the answer waits that a recipient is nobody here.
    pub fn unknown_recipient(&self, from: IpAddr) -> Duration {
        self.throttle.unknown_recipient(Network::of(from))
    }

    /// The account of these credentials, which came over `service` from this address.
    ///
    /// # Errors
    /// Why it may not log in.
    pub async fn verify(
        &self,
        user: &str,
        password: Zeroizing<String>,
        service: &'static str,
        from: IpAddr,
    ) -> Result<Account, LoginRefused> {
        let name = user.trim().to_ascii_lowercase();
        let network = Network::of(from);
        // Of both a yes and a no: who was shut out by an answered change is so at every node.
        up_to_date(&self.cluster, Reader::Applied).await?;
        // Whoever was verified a moment ago makes no guess.
        let (account, mark) = self.marked(&name, &password).await?;
        if let Some(account) = &account
            && self.is_remembered(&mark)
        {
            ::metrics::counter!("mailraft_logins_total", "result" => "ok").increment(1);
            return Ok(account.clone());
        }
        // The same password at once is one guess: a mail program opens many connections. The others learn what became of
        // the first.
        let alone = self.alone(mark);
        let _turn = alone.lock().await;
        if self.is_remembered(&mark) {
            ::metrics::counter!("mailraft_logins_total", "result" => "ok").increment(1);
            return account.ok_or(LoginRefused::Wrong);
        }
        let Some(guess) = self.throttle.reserve(&name, network) else {
            self.refused("throttled", service, &name, from);
            return Err(LoginRefused::Throttled);
        };
        match self.check(&name, &password, network).await? {
            Some(account) => {
                guess.right();
                ::metrics::counter!("mailraft_logins_total", "result" => "ok").increment(1);
                Ok(account)
            }
            None => {
                guess.wrong();
                // What it rests on could be undone.
                up_to_date(&self.cluster, Reader::Visible).await?;
                self.refused("wrong", service, &name, from);
                Err(LoginRefused::Wrong)
            }
        }
    }

    /// The account of a name, if it may log in, and what its credentials are remembered by.
    async fn marked(
        &self,
        name: &str,
        password: &Zeroizing<String>,
    ) -> Result<(Option<Account>, [u8; 32]), LoginRefused> {
        let of = name.to_owned();
        let account = look_up(&self.cluster, &self.lookup, move |lookup| lookup.account(&of))
            .await?
            .filter(|account| !account.disabled);
        let mark = self.secret.keyed_hash(&[name.as_bytes(), verifier(&account).as_bytes(), password.as_bytes()]);
        Ok((account, mark))
    }

    async fn check(
        &self,
        name: &str,
        password: &Zeroizing<String>,
        network: Network,
    ) -> Result<Option<Account>, LoginRefused> {
        let (account, mark) = self.marked(name, password).await?;
        let mut turn = self.argon2.take(network).await.ok_or(LoginRefused::Throttled)?;
        let (given, verifier) = (password.clone(), verifier(&account).to_owned());
        let right = tokio::task::spawn_blocking(move || password::verify_in(turn.memory(), &given, &verifier))
            .await
            .map_err(|_| LoginRefused::Unavailable)?;
        match account {
            Some(account) if right => {
                self.remember(mark);
                Ok(Some(account))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// What whoever verifies these credentials holds meanwhile.
    fn alone(&self, mark: [u8; 32]) -> Arc<tokio::sync::Mutex<()>> {
        let mut verifying = self.verifying.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alone) = verifying.get(&mark).and_then(Weak::upgrade) {
            return alone;
        }
        verifying.retain(|_, alone| alone.strong_count() > 0);
        let alone = Arc::default();
        verifying.insert(mark, Arc::downgrade(&alone));
        alone
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

    /// The one line by which a login that was refused is found in the log (`fail2ban` does). It must stay as it is.
    fn refused(&self, result: &'static str, service: &'static str, name: &str, from: IpAddr) {
        ::metrics::counter!("mailraft_logins_total", "result" => result).increment(1);
        let user = self.in_log(name);
        tracing::warn!("login refused: service={service} result={result} user={user} address={}", from.to_canonical());
    }
}

/// Without an account the same time is spent, so that the answer's time tells nothing.
fn verifier(account: &Option<Account>) -> &str {
    account.as_ref().map_or(password::DUMMY_VERIFIER, |account| &account.verifier)
}

/// A name as it may stand in a log: whoever made it up could write anything into it, a password too.
fn masked(name: &str) -> String {
    let Some((local, domain)) = name.rsplit_once('@') else { return "***".to_owned() };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let first: String = local.chars().take(1).filter(|c| is_plain(*c)).collect();
    let domain: String = domain.chars().filter(|c| is_plain(*c)).take(SHOWN_MAX).collect();
    format!("{first}***@{domain}")
}

/// A name as it was given, but for what could end the line or stand for another field of it.
fn shown(name: &str) -> String {
    let plain = |c: &char| c.is_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | '+');
    name.chars().filter(plain).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_shown_writes_no_line_and_no_field_of_its_own() {
        assert_eq!(shown("alice+x@example.org"), "alice+x@example.org");
        assert_eq!(shown("\n@x address=192.0.2.9\n"), "@xaddress192.0.2.9");
        assert_eq!(shown(&"x".repeat(1_000)).len(), SHOWN_MAX);
    }

    #[test]
    fn a_name_in_a_log_is_masked_and_writes_no_line_of_its_own() {
        assert_eq!(masked("alice@example.org"), "a***@example.org");
        assert_eq!(masked("my secret password"), "***");
        assert_eq!(masked("\n@x address=192.0.2.9\n"), "***@xaddress192.0.2.9");
    }
}
