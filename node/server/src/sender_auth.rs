//! Checks who sent what other servers bring (`mailraft_sender_auth`), with the DNS, within a deadline.

use std::time::{Duration, Instant};

use mailraft_sender_auth::{Disposition, DmarcResult, Enforcement, Envelope, Verdict, check};

use crate::config;
use crate::counted::Counted;
use crate::dns::Resolver;
use crate::environment::wall;
use crate::spool::{Spool, SpoolRefused};

/// The DNS is asked about a message for at most this long: what it has not said by then it does not say.
pub const CHECK_MAX: Duration = Duration::from_secs(10);

/// Checks senders; clones share what the DNS said. The default one checks nothing.
#[derive(Clone, Default)]
pub struct SenderAuth {
    resolver: Option<Resolver>,
    /// What is told to authors' domains is counted there.
    counted: Option<Counted>,
}

/// What came of a message's check.
pub struct Checked {
    /// The Authentication-Results field, with its line end.
    pub field: String,
    /// What is done with the message.
    pub disposition: Disposition,
    /// The author's domain, if one was asked about.
    pub author: Option<String>,
    /// Whether the message is shown to be that domain's own.
    pub dmarc: DmarcResult,
}

impl SenderAuth {
    /// As configured. Without resolvers nothing is checked, and the log says so.
    ///
    /// # Errors
    /// One sentence if the DNS can't be asked.
    pub fn new(config: &config::SenderAuth, counted: Counted) -> Result<Self, String> {
        let resolver = Resolver::new(&config.resolvers)?;
        if resolver.is_none() && config.enforcement.is_some() {
            tracing::warn!(
                "no resolver: mail from other servers is not checked; name one in sender_auth.resolvers or /etc/resolv.conf"
            );
        }
        Ok(SenderAuth { resolver, counted: Some(counted) })
    }

    /// Who asks the DNS, if anybody can.
    pub fn resolver(&self) -> Option<&Resolver> {
        self.resolver.as_ref()
    }

    /// Checks a message in the name of `authserv_id`, if messages are to be checked and the DNS can be asked.
    ///
    /// # Errors
    /// If the message can't be read back.
    pub async fn check(
        &self,
        enforcement: Option<Enforcement>,
        authserv_id: &str,
        spool: Spool,
        envelope: &Envelope,
    ) -> Result<(Spool, Option<Checked>), SpoolRefused> {
        let (Some(resolver), Some(enforcement)) = (&self.resolver, enforcement) else { return Ok((spool, None)) };
        let begun = Instant::now();
        let (spool, claims) = spool.claims().await?;
        let dns = resolver.until_of(tokio::time::Instant::now() + CHECK_MAX, envelope.address);
        let verdict = check(&dns, envelope, &claims, wall().0 / 1_000).await;
        let disposition = verdict.disposition(enforcement);
        if let Some(counted) = &self.counted {
            counted.message(&verdict, envelope, disposition);
        }
        ::metrics::histogram!("mailraft_sender_check_seconds").record(begun.elapsed().as_secs_f64());
        ::metrics::counter!("mailraft_dmarc_total", "result" => name(&verdict)).increment(1);
        let field = verdict.field(authserv_id, envelope);
        let dmarc = verdict.dmarc.result;
        let author = verdict.dmarc.domain.map(|domain| domain.to_string());
        Ok((spool, Some(Checked { field, disposition, author, dmarc })))
    }
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict.dmarc.result {
        DmarcResult::None => "none",
        DmarcResult::Pass => "pass",
        DmarcResult::TempError => "temperror",
        DmarcResult::PermError => "permerror",
        DmarcResult::Fail => "fail",
    }
}
