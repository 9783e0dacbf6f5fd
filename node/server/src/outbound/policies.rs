//! Policies of MTA-STS, fetched over HTTPS and kept in memory (RFC 8461, section 3.3).
//!
//! They are kept by each node for itself, and no longer than it runs: another node, or this one after a start, fetches
//! them anew before it sends the domain mail. What that leaves open is in docs/SECURITY.md.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use mailraft_outbound::route::Reach;
use mailraft_outbound::tls::hello::Hello;
use mailraft_outbound::tls::mta_sts::{
    self, Kept, POLICY_MAX_BYTES, Policy, RecordAnswer, Step, policy_host, policy_id, record_name, step,
};
use mailraft_outbound::tls::policy::{Authentication, TlsFailure, TlsWanted};
use mailraft_outbound::tls::report::FailureKind;
use mailraft_sender_auth::{Dns, Question, Record};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::https::{self, HTTPS_PORT};
use super::tls::OutboundTls;
use crate::dns::Resolver;

/// A fetch takes at most this long, from the first question to the DNS to the policy's last octet (RFC 8461, section 3.3).
pub const FETCH_MAX: Duration = Duration::from_secs(60);
/// The DNS is waited for at most this long for a domain's record.
const RECORD_MAX: Duration = Duration::from_secs(10);
/// Policies that are fetched at once; more wait, within their time.
pub const FETCHES_AT_ONCE: usize = 16;
/// What is kept, in bytes; what was used longest ago goes first.
pub const CACHE_MAX_BYTES: usize = 16 << 20;
/// What an entry takes beside its octets, in bytes.
const ENTRY_BYTES: usize = 256;

/// Policies; clones share what is kept.
#[derive(Clone)]
pub struct Policies {
    tls: OutboundTls,
    cache: Arc<Mutex<Cache>>,
    fetching: Arc<Semaphore>,
    /// Domains whose policy is being fetched: whoever wants it too waits for that.
    under_way: Arc<Mutex<HashMap<String, Weak<AsyncMutex<()>>>>>,
    port: u16,
}

/// What is known of a domain's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The policy that counts, if there is one.
    pub policy: Option<Policy>,
    /// Why there is none, or none that is new, for a report (RFC 8460, section 4.3.2.2).
    pub flaw: Option<FailureKind>,
}

/// Why no policy could be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FetchError {
    kind: FailureKind,
    text: String,
}

#[derive(Default)]
struct Cache {
    domains: HashMap<String, Entry>,
    /// By when they were used last.
    by_use: BTreeMap<u64, String>,
    uses: u64,
    bytes: usize,
}

#[derive(Clone, Default)]
struct Entry {
    kept: Option<Kept>,
    failed_at_s: Option<u64>,
    used: u64,
}

impl Policies {
    /// None is kept yet.
    pub fn new(tls: OutboundTls) -> Self {
        let fetching = Arc::new(Semaphore::new(FETCHES_AT_ONCE));
        Policies { tls, cache: Arc::default(), fetching, under_way: Arc::default(), port: HTTPS_PORT }
    }

    /// The policy of a domain, as `mailraft_outbound::tls::domain::host_name` has it, after it was fetched if need be.
    pub async fn of(&self, domain: &str, resolver: &Resolver, now_s: u64) -> Found {
        let answer = record(domain, resolver).await;
        if let Some(found) = self.without_a_fetch(domain, &answer, now_s) {
            return found;
        }
        let deadline = Instant::now() + FETCH_MAX;
        let turn = self.turn(domain);
        let only_one = timeout_at(deadline, turn.lock()).await;
        // Whoever waited has what the other one fetched, or that it failed.
        if let Some(found) = self.without_a_fetch(domain, &answer, now_s) {
            return found;
        }
        let fetched = match only_one {
            Ok(_turn) => until(deadline, self.fetch(domain, resolver, deadline)).await,
            Err(_) => Err(FetchError::fetch("another fetch of it took too long".to_owned())),
        };
        let result = if fetched.is_ok() { "fetched" } else { "failed" };
        ::metrics::counter!("mailraft_mta_sts_fetches_total", "result" => result).increment(1);
        if let Err(error) = &fetched {
            tracing::info!(domain, error = %error.text, "no MTA-STS policy could be fetched");
        }
        self.cache().came(domain, &answer, fetched, now_s)
    }

    /// What is known, unless a policy has to be fetched.
    fn without_a_fetch(&self, domain: &str, answer: &RecordAnswer, now_s: u64) -> Option<Found> {
        let entry = self.cache().get(domain);
        match step(entry.kept.as_ref(), answer, entry.failed_at_s, now_s) {
            Step::UseKept => Some(Found { policy: entry.kept.map(|kept| kept.policy), flaw: None }),
            Step::NoPolicy => Some(Found::default()),
            Step::Fetch => None,
        }
    }

    /// What whoever fetches the policy of a domain holds.
    fn turn(&self, domain: &str) -> Arc<AsyncMutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = under_way.get(domain).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(AsyncMutex::new(()));
        under_way.insert(domain.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Memory that policies take, in bytes, at most [`CACHE_MAX_BYTES`].
    pub fn bytes(&self) -> usize {
        self.cache().bytes
    }

    async fn fetch(&self, domain: &str, resolver: &Resolver, deadline: Instant) -> Result<Policy, FetchError> {
        let _turn =
            self.fetching.acquire().await.map_err(|_| FetchError::fetch("the node is going down".to_owned()))?;
        let host = policy_host(domain);
        // Whoever answers there shows a certificate before he hears anything.
        let connected = https::connect(&host, self.port, Reach::Private, resolver, deadline).await;
        let io = connected.map_err(FetchError::fetch)?;
        fetch_over(&self.tls, io, &host).await
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchError {
    fn fetch(text: String) -> Self {
        FetchError { kind: FailureKind::StsPolicyFetchError, text }
    }
}

async fn until(
    deadline: Instant,
    fetch: impl Future<Output = Result<Policy, FetchError>>,
) -> Result<Policy, FetchError> {
    let late = |_| Err(FetchError::fetch(format!("it took longer than {} s", FETCH_MAX.as_secs())));
    timeout_at(deadline, fetch).await.unwrap_or_else(late)
}

/// What the DNS says about a domain's policy.
async fn record(domain: &str, resolver: &Resolver) -> RecordAnswer {
    let dns = resolver.until(Instant::now() + RECORD_MAX);
    match dns.ask(&Question::Txt(record_name(domain))).await {
        Ok(records) => {
            let texts = records.iter().filter_map(|r| if let Record::Txt(text) = r { Some(&text[..]) } else { None });
            policy_id(texts).map_or(RecordAnswer::None, RecordAnswer::Id)
        }
        Err(_) => RecordAnswer::Unknown,
    }
}

/// Fetches the policy from its host: 200 and nothing else, as a redirect would be somebody else's word (RFC 8461, section 3.3).
async fn fetch_over<S>(tls: &OutboundTls, io: S, host: &str) -> Result<Policy, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wanted = TlsWanted::Authenticated { how: Authentication::WebPki { host: host.to_owned() } };
    let secured = tls.handshake(io, host, &wanted, None, Hello::WithMlKem).await.map_err(|error| FetchError {
        kind: match error.failure {
            TlsFailure::Certificate(_) => FailureKind::StsWebpkiInvalid,
            TlsFailure::NotOffered | TlsFailure::Handshake(_) => FailureKind::StsPolicyFetchError,
        },
        text: error.text,
    })?;
    let request = Request::get("/.well-known/mta-sts.txt").header(HOST, host).header(USER_AGENT, "Mailraft");
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| FetchError::fetch(format!("no request: {e}")))?;
    https::ask(secured.stream, request, |response: Response<Incoming>| async move {
        if response.status() != StatusCode::OK {
            return Err(FetchError::fetch(format!("{host} answers {}", response.status().as_u16())));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !is_plain_text(kind) {
            return Err(FetchError::fetch(format!("{host} gives {kind:?} and not text/plain")));
        }
        let body = Limited::new(response.into_body(), POLICY_MAX_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => FetchError::invalid(host, &mta_sts::PolicyError::TooLong),
            None => FetchError::fetch(format!("{host} does not end its answer: {error}")),
        })?;
        Policy::parse(&body.to_bytes()).map_err(|error| FetchError::invalid(host, &error))
    })
    .await
}

impl From<hyper::Error> for FetchError {
    fn from(error: hyper::Error) -> Self {
        FetchError::fetch(format!("it does not speak HTTP as it should: {error}"))
    }
}

impl FetchError {
    fn invalid(host: &str, error: &mta_sts::PolicyError) -> Self {
        FetchError { kind: FailureKind::StsPolicyInvalid, text: format!("what {host} gives is no policy: {error}") }
    }
}

/// Whether it is text/plain, with whatever parameters.
fn is_plain_text(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain"))
}

impl Cache {
    /// What is kept of a domain, which was used now.
    fn get(&mut self, domain: &str) -> Entry {
        let Some(entry) = self.domains.get_mut(domain) else { return Entry::default() };
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(entry.used, domain.to_owned());
        entry.clone()
    }

    /// What counts after a fetch: the new policy, or else the kept one while it is valid.
    fn came(&mut self, domain: &str, answer: &RecordAnswer, fetched: Result<Policy, FetchError>, now_s: u64) -> Found {
        let before = self.get(domain);
        let (entry, flaw) = match (fetched, answer) {
            (Ok(policy), RecordAnswer::Id(id)) => {
                let kept = Kept { id: id.clone(), policy, fetched_at_s: now_s };
                (Entry { kept: Some(kept), failed_at_s: None, used: before.used }, None)
            }
            // Nothing is fetched without an id.
            (Ok(_), RecordAnswer::None | RecordAnswer::Unknown) => (before, None),
            (Err(error), _) => {
                let kept = before.kept.filter(|kept| kept.is_valid(now_s));
                (Entry { kept, failed_at_s: Some(now_s), used: before.used }, Some(error.kind))
            }
        };
        let policy = entry.kept.as_ref().map(|kept| kept.policy.clone());
        self.put(domain, entry);
        Found { policy, flaw }
    }

    fn put(&mut self, domain: &str, mut entry: Entry) {
        self.forget(domain);
        self.uses += 1;
        entry.used = self.uses;
        self.bytes += entry.size_bytes(domain);
        self.by_use.insert(entry.used, domain.to_owned());
        self.domains.insert(domain.to_owned(), entry);
        while self.bytes > CACHE_MAX_BYTES {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.forget(&oldest);
        }
        ::metrics::gauge!("mailraft_mta_sts_kept_bytes").set(self.bytes as f64);
    }

    fn forget(&mut self, domain: &str) {
        if let Some(entry) = self.domains.remove(domain) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.size_bytes(domain);
        }
    }
}

impl Entry {
    fn size_bytes(&self, domain: &str) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.id.len() + kept.policy.size_bytes());
        ENTRY_BYTES + 2 * domain.len() + kept
    }
}

#[cfg(test)]
mod tests;
