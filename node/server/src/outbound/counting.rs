//! A session with another server, as it is counted for a report about TLS (RFC 8460).

use std::net::IpAddr;

use mailraft_feedback::tls::Failure;
use mailraft_outbound::tls::mta_sts::Policy;
use mailraft_outbound::tls::policy::{CertificateFault, Decision, HostRefusal, TlsFailure};
use mailraft_outbound::tls::report::{AppliedPolicy, FailureKind};

use crate::counted::Counted;

/// Under what sessions with one server of a domain are counted.
#[derive(Clone, Copy)]
pub struct Counting<'a> {
    /// Where.
    pub counted: &'a Counted,
    /// The domain.
    pub domain: &'a str,
    /// The server.
    pub host: &'a str,
    /// What was decided for it.
    pub decision: &'a Decision,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Our address.
    pub ours: Option<IpAddr>,
    /// The server's.
    pub theirs: IpAddr,
}

impl Counting<'_> {
    /// A session has TLS, as it was wanted; of what was only watched this came.
    pub fn secured(&self, ends: Ends, watched: Option<&Result<(), CertificateFault>>) {
        let fault = watched.and_then(|watched| watched.as_ref().err());
        let kind = fault.map(|fault| TlsFailure::Certificate(*fault).kind()).or(self.decision.flaw);
        self.count(ends, kind.map(|kind| (kind, None)));
    }

    /// A session had no TLS that counts.
    pub fn failed(&self, ends: Ends, failure: TlsFailure) {
        self.count(ends, Some((failure.kind(), failure.reason())));
    }

    fn count(&self, Ends { ours, theirs }: Ends, failure: Option<(FailureKind, Option<&str>)>) {
        let failure = failure.map(|(kind, reason)| Failure {
            kind,
            our_address: ours,
            host: Some(self.host.to_owned()),
            host_address: Some(theirs),
            reason: reason.map(str::to_owned),
        });
        self.counted.session(self.domain, &self.decision.counted_as, failure.as_ref());
    }
}

/// A server of a domain gets no connection, as this was decided.
pub fn refused(counted: &Counted, domain: &str, refusal: &HostRefusal, policy: Option<&Policy>) {
    let Some(kind) = refusal.failure_kind() else { return };
    let (applied, host) = match refusal {
        HostRefusal::DaneUnknown { host } => {
            (AppliedPolicy::Tlsa { base: host.clone(), records: Vec::new() }, host.clone())
        }
        HostRefusal::NotInPolicy { host, .. } | HostRefusal::Unproved { host, .. } => (of_policy(policy), host.clone()),
    };
    let failure = Failure { kind, our_address: None, host: Some(host), host_address: None, reason: None };
    counted.session(domain, &applied, Some(&failure));
}

/// A domain's policy of MTA-STS could not be had, or not anew.
pub fn not_fetched(counted: &Counted, domain: &str, kind: FailureKind, kept: Option<&Policy>) {
    let failure = Failure { kind, our_address: None, host: None, host_address: None, reason: None };
    counted.session(domain, &of_policy(kept), Some(&failure));
}

fn of_policy(policy: Option<&Policy>) -> AppliedPolicy {
    match policy {
        Some(policy) => AppliedPolicy::Sts { lines: policy.lines(), patterns: policy.patterns.clone() },
        None => AppliedPolicy::Sts { lines: Vec::new(), patterns: Vec::new() },
    }
}
