//! Mail to other servers: the sockets and TLS around `mailraft_outbound`, and what a queue's owner has sent and told.

pub mod addresses;
pub mod allowed;
mod connection;
mod counting;
mod hosts;
pub mod https;
mod kept;
mod line;
mod message;
mod on_its_way;
pub mod policies;
mod send;
mod seven_bit;
mod tell;
pub mod tls;
mod until_recorded;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_mailbox::queue::outward::{Outward, OutwardKind, OutwardOutcome};
use mailraft_mailbox::queue::places::{Pace, Places, Sender};
use mailraft_mailbox::{MailboxKey, Place};
use mailraft_outbound::destinations::{Admission, DESTINATIONS_MAX, Destinations, Ended};
use mailraft_storage::CommandId;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::actors::OutwardJob;
use crate::config::{self, Config};
use crate::counted::Counted;
use crate::dns::Resolver;
use crate::environment::wall;
use crate::links::Reach;
use crate::lookups::look_up;
use crate::proved_dns::ProvedDns;
use crate::spool::Budget;
use kept::{KEPT_MAX_CONNECTIONS, KeptConnections};
use line::Line;
use policies::Policies;
use send::Sending;
use tls::OutboundTls;
use until_recorded::until_recorded;

/// Messages that a node sends at once, where descriptors allow it. Each has a chunk in memory.
pub const SENDINGS_AT_ONCE: usize = 64;
/// Of these, one in so many is kept for domains whose servers were quick lately.
pub const SENDINGS_KEPT_FOR_QUICK_ONE_IN: usize = 4;
/// Senders that a node tells something at once.
pub const REPORTS_AT_ONCE: usize = 8;
/// What finds a domain's places taken comes again after this.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// What waits while nothing is to be sent looks again after this.
const DISABLED_PAUSE: Duration = Duration::from_secs(30);

/// What sending needs; clones share it.
#[derive(Clone)]
pub struct Outbound {
    /// Mailboxes and the directory.
    pub reach: Reach,
    /// The DNS with what DNSSEC proves, if it can be asked.
    pub dns: Option<ProvedDns>,
    /// The DNS for policies.
    pub resolver: Option<Resolver>,
    /// TLS with other servers.
    pub tls: OutboundTls,
    /// MTA-STS policies.
    pub policies: Policies,
    /// Where sessions are counted for reports.
    pub counted: Counted,
    /// Memory for reports on their way into a queue.
    pub budget: Budget,
    /// The configuration now.
    pub config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
    destinations: Arc<Mutex<Remembered>>,
    /// Connections of earlier messages.
    kept: KeptConnections,
    letting_go: LettingGo,
    /// Messages that are sent at once.
    sendings_at_once: usize,
    /// What a domain is left alone for does not go by a clock that is set.
    begun: Instant,
}

impl Outbound {
    /// For a node that serves mail, with so many descriptors: half of them for what is sent, a quarter for connections that are
    /// kept, the rest for the DNS and for policies.
    ///
    /// # Errors
    /// One sentence if the DNS can't be asked.
    pub fn new(
        reach: Reach,
        budget: Budget,
        config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
        (tls, counted): (OutboundTls, Counted),
        descriptors: usize,
    ) -> Result<Self, String> {
        let resolvers = config().sender_auth.resolvers.clone();
        Ok(Outbound {
            reach,
            dns: ProvedDns::new(&resolvers)?,
            resolver: Resolver::new(&resolvers)?,
            policies: Policies::new(tls.clone()),
            tls,
            counted,
            budget,
            config,
            kept: KeptConnections::new((descriptors / 4).clamp(1, KEPT_MAX_CONNECTIONS)),
            letting_go: LettingGo::default(),
            sendings_at_once: (descriptors / 2).clamp(1, SENDINGS_AT_ONCE),
            destinations: Arc::default(),
            begun: Instant::now(),
        })
    }

    /// What is let go, for whoever waits until there is nothing of it.
    pub fn letting_go(&self) -> LettingGo {
        self.letting_go.clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what owners of queues want sent and told, for as long as the node runs.
    pub async fn run(self, mut jobs: mpsc::UnboundedReceiver<OutwardJob>) {
        let reports = Arc::new(Semaphore::new(REPORTS_AT_ONCE));
        let mut line = Line::new(places(self.sendings_at_once));
        let (leaves, mut left) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => match &job.task.what {
                        OutwardKind::Send { sender, .. } => line.push(*sender, job),
                        OutwardKind::Report { .. } => self.clone().report(job, Arc::clone(&reports)),
                    },
                    None => return,
                },
                Some((sender, pace)) = left.recv() => line.left(sender, pace),
            }
            for (sender, pace, job) in line.begin(|job| self.pace(job)) {
                let place = TakenPlace { sender, pace, leaves: leaves.clone() };
                let outbound = self.clone();
                tokio::spawn(async move {
                    let _place = place;
                    outbound.end(job).await;
                });
            }
        }
    }

    fn report(self, job: OutwardJob, places: Arc<Semaphore>) {
        tokio::spawn(async move {
            let Ok(_turn) = places.acquire_owned().await else { return };
            self.end(job).await;
        });
    }

    /// Carries a job out, and says how it ended.
    async fn end(&self, job: OutwardJob) {
        if job.is_wanted() {
            let outcome = self.carry_out(job.place, &job.task).await;
            job.ended(outcome);
        }
    }

    fn pace(&self, job: &OutwardJob) -> Pace {
        match &job.task.what {
            OutwardKind::Send { domain, .. } if self.is_quick(domain) => Pace::Quick,
            OutwardKind::Send { .. } | OutwardKind::Report { .. } => Pace::Unproved,
        }
    }

    async fn carry_out(&self, place: Place, outward: &Outward) -> OutwardOutcome {
        let item = outward.item;
        match &outward.what {
            OutwardKind::Send { domain, recipients, is_asked_for, .. } => {
                let (now_ms, config) = (self.now_ms(), (self.config)());
                let destination = destination(domain, &config.outbound);
                let (pause, why) = match config.outbound.enabled {
                    false => (DISABLED_PAUSE, "nothing was sent to other domains from here".to_owned()),
                    true => match self.admit(&config.outbound, &destination, now_ms, *is_asked_for) {
                        Admission::Open => {
                            let mut turn = Turn {
                                outbound: self,
                                config: Arc::clone(&config),
                                destination,
                                how: Ended::Neither,
                                begun_ms: now_ms,
                            };
                            return self.send(place, item, (domain, recipients), &mut turn).await;
                        }
                        Admission::Full => return OutwardOutcome::NotNow(FULL_PAUSE),
                        Admission::DownUntil(at) => {
                            let pause = Duration::from_millis(at.saturating_sub(now_ms));
                            (pause, format!("{destination} could not be reached"))
                        }
                    },
                };
                // Whoever sent it waits for no attempt that can't be made.
                let numbers: Vec<u32> = recipients.iter().map(|(number, _)| *number).collect();
                match read_item(self, place, item, &numbers).await {
                    Some(message) if wall() >= message.accepted_and_expires().1 => send::expired(&message, &why),
                    Some(_) | None => OutwardOutcome::NotNow(pause),
                }
            }
            OutwardKind::Report { kind, recipients } => tell::tell(self, place, item, *kind, recipients).await,
        }
    }

    fn admit(&self, by: &config::Outbound, destination: &str, now_ms: u64, is_asked_for: bool) -> Admission {
        self.remembered().by(by).admit(destination, now_ms, is_asked_for)
    }

    fn is_quick(&self, domain: &str) -> bool {
        let config = (self.config)();
        self.remembered().by(&config.outbound).is_quick(&destination(domain, &config.outbound))
    }

    /// Sends it over a connection that was admitted.
    async fn send(
        &self,
        place: Place,
        item: CommandId,
        (domain, recipients): (&str, &[(u32, u32)]),
        turn: &mut Turn<'_>,
    ) -> OutwardOutcome {
        let Sending { outcome, how, arrived } = send::send(self, place, item, domain, recipients).await;
        turn.how = how;
        if let Some((arrived, let_go)) = arrived {
            tokio::spawn(until_recorded(self.reach.clone(), arrived, let_go));
        }
        outcome
    }
}

/// Messages whose last octet was let go, until it is recorded what came of that; clones share it.
#[derive(Clone)]
pub struct LettingGo(Arc<watch::Sender<()>>);

/// One of them, until it is dropped.
pub struct LetGo(#[expect(dead_code, reason = "that it is held counts")] watch::Receiver<()>);

impl Default for LettingGo {
    fn default() -> Self {
        LettingGo(Arc::new(watch::Sender::new(())))
    }
}

impl LettingGo {
    fn one(&self) -> LetGo {
        LetGo(self.0.subscribe())
    }

    /// Returns when there are none.
    pub async fn none(&self) {
        self.0.closed().await;
    }
}

/// Places for so many at once.
fn places(at_once: usize) -> Places {
    Places::new(at_once, at_once / SENDINGS_KEPT_FOR_QUICK_ONE_IN)
}

/// A place among the messages that are sent at once, until it is dropped.
struct TakenPlace {
    sender: Sender,
    pace: Pace,
    leaves: mpsc::UnboundedSender<(Sender, Pace)>,
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        // Who gave it out may be gone, as at the end of the node.
        let _ = self.leaves.send((self.sender, self.pace));
    }
}

/// What is remembered of destinations, as long as mail goes by this configuration: what was mended in it is tried at once.
struct Remembered {
    config: Option<config::Outbound>,
    of: Destinations,
}

impl Default for Remembered {
    fn default() -> Self {
        Remembered { config: None, of: Destinations::new(DESTINATIONS_MAX) }
    }
}

impl Remembered {
    fn by(&mut self, config: &config::Outbound) -> &mut Destinations {
        if self.config.as_ref() != Some(config) {
            *self = Remembered { config: Some(config.clone()), ..Remembered::default() };
        }
        &mut self.of
    }

    /// A connection ended that was admitted by this configuration. By another one it was never counted.
    fn ended(&mut self, config: &config::Outbound, (destination, how): (&str, Ended), took_ms: u64, now_ms: u64) {
        if self.config.as_ref() == Some(config) {
            self.of.ended(destination, how, took_ms, now_ms);
        }
    }
}

/// What takes a domain's mail, as people call it: its servers, or the smart host that all mail goes to.
fn destination(domain: &str, config: &config::Outbound) -> String {
    match &config.smart_host {
        Some(of) => format!("the smart host {}, port {}", of.host, of.port),
        None => domain.to_owned(),
    }
}

/// A place among the connections to a destination, until it is dropped.
struct Turn<'a> {
    outbound: &'a Outbound,
    config: Arc<Config>,
    destination: String,
    how: Ended,
    begun_ms: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now_ms = self.outbound.now_ms();
        let took_ms = now_ms.saturating_sub(self.begun_ms);
        self.outbound.remembered().ended(&self.config.outbound, (&self.destination, self.how), took_ms, now_ms);
    }
}

/// An item of a queue here with these of its recipients. None if it is there no more, or can't be read.
async fn read_item(outbound: &Outbound, place: Place, item: CommandId, numbers: &[u32]) -> Option<OutgoingMessage> {
    let (reach, mailbox) = (&outbound.reach, place.mailbox);
    let (key, epoch) =
        look_up(&reach.cluster, &reach.lookup, move |lookup| lookup.mailbox_key(mailbox)).await.ok()??;
    let (rows, numbers) = (Arc::clone(reach.cluster.rows()), numbers.to_vec());
    let read = move || OutgoingMessage::read(rows.as_ref(), place, &MailboxKey::new(key, epoch), item, &numbers);
    match tokio::task::spawn_blocking(read).await.ok()? {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(mailbox = %mailbox, %error, "what waits in a queue can't be read");
            reach.cluster.found_damaged(place.replica, &error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use mailraft_outbound::destinations::CONNECTIONS_FIRST;

    use super::*;
    use crate::config::{SmartHost, SmartHostTls};

    fn by(password: Option<&str>) -> config::Outbound {
        let smart_host = password.map(|password| SmartHost {
            host: "smart.test".to_owned(),
            port: 465,
            tls: SmartHostTls::Implicit,
            credentials: Some(("us".to_owned(), password.to_owned().into())),
        });
        config::Outbound {
            enabled: true,
            account_recipients_per_hour: 0,
            port: 25,
            private_addresses: false,
            smart_host,
        }
    }

    #[test]
    fn a_smart_host_is_one_place_for_all_domains_until_its_configuration_changes() {
        let mut remembered = Remembered::default();
        let (wrong, mended, direct) = (by(Some("wrong")), by(Some("right")), by(None));
        let mut admit = |config: &config::Outbound, domain: &str| {
            remembered.by(config).admit(&destination(domain, config), 0, false)
        };
        for number in 0..CONNECTIONS_FIRST {
            assert_eq!(admit(&wrong, &format!("d{number}.test")), Admission::Open);
        }
        assert_eq!(admit(&wrong, "other.test"), Admission::Full, "whatever the domain");
        assert_eq!(admit(&mended, "other.test"), Admission::Open);
        // What was begun before says nothing of what counts now.
        let name = destination("other.test", &mended);
        remembered.ended(&wrong, (&name, Ended::Down), 0, 0);
        assert_eq!(remembered.by(&mended).admit(&name, 0, false), Admission::Open);
        assert_eq!(remembered.by(&mended).admit(&name, 0, false), Admission::Full);
        remembered.ended(&mended, (&name, Ended::Down), 0, 0);
        assert!(matches!(remembered.by(&mended).admit(&name, 0, false), Admission::DownUntil(_)));
        assert_ne!(destination("a.test", &direct), destination("b.test", &direct));
    }
}
