//! Reports to other domains, once a day: of TLS (RFC 8460) and of DMARC (RFC 7489, section 7.2). Whoever leads the control group
//! sends them for all nodes: it asks each what it counted, makes one day of that, and hands one mail for each place that wants it
//! to the queue.
//!
//! Nobody gets one twice. A mail is put into the queue under a command id that follows from its report and its recipient, whose
//! result the queue's partition keeps for longer than a day: a leader that begins again, after another or after a restart, hears
//! that it was done. What is posted to a URL may come twice, as nobody keeps that, but under one id, by which its receiver knows it.

mod day;
mod sending;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_feedback::{COLLECTING_S, DAY_SECONDS, Reporter};
use mailraft_storage::PartitionId;
use serde::Serialize;
use tokio::sync::Mutex as AsyncMutex;

use crate::config::Config;
use crate::counted::Counted;
use crate::dns::Resolver;
use crate::links::Reach;
use crate::lookups::look_up;
use crate::outbound::tls::OutboundTls;
use crate::spool::Budget;
use day::Reported;

/// How often it is looked whether a report is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Sends reports; clones are one.
#[derive(Clone)]
pub struct Reports {
    reach: Reach,
    counted: Counted,
    resolver: Option<Resolver>,
    tls: OutboundTls,
    budget: Budget,
    config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
    /// What an operator asked for, one at a time.
    asked_for: Arc<AsyncMutex<()>>,
    /// The day whose reports this node sent last.
    told: Arc<Mutex<Option<u64>>>,
}

/// What is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The first second of the day, since 1970-01-01 UTC.
    pub day_unix_s: u64,
    /// Domains that may be told how TLS went.
    pub tls_domains: usize,
    /// Domains that may be told of mail in their name.
    pub dmarc_domains: usize,
    /// Nodes that did not say what they counted.
    pub silent_nodes: usize,
}

/// Why no reports are sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// They are switched off.
    #[error("this cluster reports nothing: set reports.tls or reports.dmarc, and outbound.enabled, on every node")]
    Off,
    /// An operator asked for them already.
    #[error("yesterday's reports are being sent from here: the log says when that is done")]
    UnderWay,
    /// Nodes do not agree yet that the day is over.
    #[error("by some node's clock that day goes on: try again in a minute, and see mailraft status")]
    GoesOn,
    /// Nobody knows whom they come from.
    #[error("{0}")]
    Reporter(String),
    /// The DNS can't be asked.
    #[error("this node has no resolver: name one in sender_auth.resolvers or /etc/resolv.conf")]
    NoResolver,
}

impl Reports {
    /// Of a node that serves mail.
    pub fn new(
        reach: Reach,
        (counted, resolver, tls): (Counted, Option<Resolver>, OutboundTls),
        budget: Budget,
        config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
    ) -> Self {
        let (asked_for, told) = (Arc::default(), Arc::default());
        Reports { reach, counted, resolver, tls, budget, config, asked_for, told }
    }

    /// Sends each day's reports when they are due, for as long as the node runs.
    pub async fn run(self) {
        let mut pause = tokio::time::interval(LOOK_EVERY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            let now_s = self.counted.now_unix_s();
            // Only yesterday's: of an earlier one nobody knows any more whether it was sent.
            let Some(day) = (now_s / DAY_SECONDS).checked_sub(1) else { continue };
            let is_over = now_s >= (day + 1) * DAY_SECONDS + COLLECTING_S;
            if !is_over || !self.leads() || self.told() == Some(day) {
                continue;
            }
            match self.ready().await {
                Ok((reporter, resolver)) => {
                    let (reported, without) = Reported::gather(&self, day).await;
                    // Nodes that agree on the time do so within seconds.
                    if without.behind > 0 {
                        tracing::info!(
                            nodes = without.behind,
                            "reports wait for nodes by whose clocks the day goes on"
                        );
                        continue;
                    }
                    if sending::all_as_due(&self, &reporter, &resolver, reported).await {
                        self.is_told(day).await;
                    }
                }
                Err(NotSent::Off | NotSent::UnderWay | NotSent::GoesOn) => {}
                Err(why @ (NotSent::Reporter(_) | NotSent::NoResolver)) => {
                    tracing::warn!(%why, "no reports are sent today");
                    *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(day);
                }
            }
        }
    }

    /// Sends yesterday's reports from here now, whoever leads; the rest of it goes on by itself.
    ///
    /// # Errors
    /// Why they are not sent.
    pub async fn send_now(&self) -> Result<Begun, NotSent> {
        let turn = Arc::clone(&self.asked_for).try_lock_owned().map_err(|_| NotSent::UnderWay)?;
        let (reporter, resolver) = self.ready().await?;
        let day = (self.counted.now_unix_s() / DAY_SECONDS).saturating_sub(1);
        let (reported, without) = Reported::gather(self, day).await;
        if without.behind > 0 {
            return Err(NotSent::GoesOn);
        }
        let begun = Begun {
            day_unix_s: day * DAY_SECONDS,
            tls_domains: reported.sessions.domains().count(),
            dmarc_domains: reported.messages.domains().count(),
            silent_nodes: without.silent,
        };
        let reports = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            if sending::all_now(&reports, &reporter, &resolver, reported).await {
                reports.is_told(day).await;
            }
        });
        Ok(begun)
    }

    /// Who reports, and who is asked where to.
    async fn ready(&self) -> Result<(Reporter, Resolver), NotSent> {
        let config = (self.config)();
        if !config.outbound.enabled || !(config.reports.tls || config.reports.dmarc) {
            return Err(NotSent::Off);
        }
        let reporter = self.reporter(&config).await.map_err(NotSent::Reporter)?;
        Ok((reporter, self.resolver.clone().ok_or(NotSent::NoResolver)?))
    }

    /// Who reports: the same for all nodes, as a report's id follows from it.
    async fn reporter(&self, config: &Config) -> Result<Reporter, String> {
        let reports = &config.reports;
        let from = match &reports.from {
            Some(from) => from.clone(),
            None => {
                let hostname = config.tls.hostname.to_ascii_lowercase();
                let find = {
                    let hostname = hostname.clone();
                    look_up(&self.reach.cluster, &self.reach.lookup, move |lookup| {
                        let mut rest = hostname.as_str();
                        loop {
                            if let Some(domain) = lookup.domain(rest)? {
                                return Ok(Some(domain.name));
                            }
                            match rest.split_once('.') {
                                Some((_, above)) => rest = above,
                                None => return Ok(None),
                            }
                        }
                    })
                };
                match find.await {
                    Ok(Some(domain)) => format!("postmaster@{domain}"),
                    Ok(None) => {
                        return Err(format!(
                            "{hostname} is in no domain of this cluster, so reports have nobody to come from: name an \
                             address in reports.from"
                        ));
                    }
                    Err(_) => return Err("the directory can't be read".to_owned()),
                }
            }
        };
        let domain = from.rsplit_once('@').map_or("", |(_, domain)| domain).to_owned();
        let organization = reports.organization.as_deref().unwrap_or(&domain);
        let contact = reports.contact.as_deref().unwrap_or(&from);
        Reporter::new(organization, &domain, &from, contact).map_err(|error| error.to_string())
    }

    /// Whether this node leads the control group.
    fn leads(&self) -> bool {
        let leaders = self.reach.cluster.leaders();
        let leader = leaders.borrow().get(PartitionId::CONTROL.0 as usize).copied().flatten();
        leader == Some(self.reach.cluster.node())
    }

    fn told(&self) -> Option<u64> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A day's reports are sent: all nodes forget what they counted.
    async fn is_told(&self, day: u64) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(day);
        Reported::forget(self, day).await;
    }
}
