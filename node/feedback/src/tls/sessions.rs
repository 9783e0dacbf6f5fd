//! Sessions with other domains' servers, as they are counted.

use std::net::IpAddr;

use mailraft_outbound::tls::domain::host_name;
use mailraft_outbound::tls::report::{AppliedPolicy, FailureKind};
use serde::{Deserialize, Serialize};

use crate::collector::Collector;
use crate::day::{Day, Event, Kind, Went};
use crate::shelf::{Limit, Weighed};
use crate::text::harmless;

/// Domains of which sessions are counted in a day.
pub const DOMAINS_MAX: usize = 16_384;
/// What a day's sessions take in memory, in bytes.
pub const DAY_MAX_BYTES: usize = 8 << 20;
/// Policies of one domain that are told apart in a day; each server with DANE has its own.
pub const POLICIES_MAX: usize = 16;
/// What one domain's take, in bytes.
pub const DOMAIN_MAX_BYTES: usize = 512 << 10;
/// Kinds of failures under one policy that are told apart in a day; sums have all.
pub const FAILURES_MAX: usize = 64;
/// What these take, in bytes.
pub const POLICY_MAX_BYTES: usize = 96 << 10;
/// Lines of a policy, or records, or patterns of hosts, that a report repeats.
pub const POLICY_LINES_MAX: usize = 64;
/// The longest of them, in bytes; the rest is cut.
pub const POLICY_LINE_MAX_BYTES: usize = 512;
/// What is told about a failure in words, in bytes; the rest is cut.
pub const REASON_MAX_BYTES: usize = 256;
/// The longest name of a host, in octets (RFC 1035, section 2.3.4).
const HOST_MAX_BYTES: usize = 253;

/// Sessions of TLS are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls;

/// What a node counts.
pub type Sessions = Collector<Tls>;

/// What was counted of a day.
pub type SessionsOfDay = Day<Tls>;

impl Kind for Tls {
    type Policy = AppliedPolicy;
    type Row = Failure;
    const RECORD: &'static str = "TLS sessions of a day";
    const DAY: Limit = Limit { entries: DOMAINS_MAX, bytes: DAY_MAX_BYTES };
    const DOMAIN: Limit = Limit { entries: POLICIES_MAX, bytes: DOMAIN_MAX_BYTES };
    const POLICY: Limit = Limit { entries: FAILURES_MAX, bytes: POLICY_MAX_BYTES };
}

/// Why a session was not as it was to be (RFC 8460, section 4.4). Kept in records: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// What it was.
    pub kind: FailureKind,
    /// Our address, if there was a connection.
    pub our_address: Option<IpAddr>,
    /// The server, if it was about one.
    pub host: Option<String>,
    /// Its address, if there was a connection.
    pub host_address: Option<IpAddr>,
    /// More about it, in a few words, of which [`REASON_MAX_BYTES`] are told.
    pub reason: Option<String>,
}

impl Sessions {
    /// Counts a session with a server of a domain, or an attempt at one, under the policy that was applied: one that was as that
    /// wants it, or one that failed. A domain that is no name is told nothing.
    pub fn count(&mut self, now_unix_s: u64, domain: &str, policy: &AppliedPolicy, failure: Option<&Failure>) {
        let Some(domain) = host_name(domain) else { return self.count_nameless() };
        let went = if failure.is_some() { Went::Badly } else { Went::Well };
        let event = Event { policy: bounded_policy(policy), went, row: failure.map(Failure::bounded) };
        self.count_event(now_unix_s, domain, event);
    }
}

impl Failure {
    fn bounded(&self) -> Self {
        Failure {
            host: self.host.as_ref().map(|host| harmless(host, HOST_MAX_BYTES)),
            reason: self.reason.as_ref().map(|reason| harmless(reason, REASON_MAX_BYTES)),
            ..self.clone()
        }
    }
}

fn bounded_policy(policy: &AppliedPolicy) -> AppliedPolicy {
    let bounded = |lines: &[String]| {
        lines.iter().take(POLICY_LINES_MAX).map(|line| harmless(line, POLICY_LINE_MAX_BYTES)).collect()
    };
    match policy {
        AppliedPolicy::Tlsa { base, records } => {
            AppliedPolicy::Tlsa { base: harmless(base, HOST_MAX_BYTES), records: bounded(records) }
        }
        AppliedPolicy::Sts { lines, patterns } => {
            AppliedPolicy::Sts { lines: bounded(lines), patterns: bounded(patterns) }
        }
        AppliedPolicy::NoPolicy => AppliedPolicy::NoPolicy,
    }
}

impl Weighed for AppliedPolicy {
    fn heap_bytes(&self) -> usize {
        let of = |lines: &[String]| lines.iter().map(|line| size_of::<String>() + line.len()).sum::<usize>();
        match self {
            AppliedPolicy::Tlsa { base, records } => base.len() + of(records),
            AppliedPolicy::Sts { lines, patterns } => of(lines) + of(patterns),
            AppliedPolicy::NoPolicy => 0,
        }
    }
}

impl Weighed for Failure {
    fn heap_bytes(&self) -> usize {
        self.host.as_ref().map_or(0, String::len) + self.reason.as_ref().map_or(0, String::len)
    }
}
