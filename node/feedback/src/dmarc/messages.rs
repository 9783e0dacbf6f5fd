//! Messages that DMARC judged, as they are counted.

use std::net::IpAddr;

use mailraft_outbound::tls::domain::host_name;
use mailraft_sender_auth::{Disposition, DkimResult, Policy, SpfResult};
use serde::{Deserialize, Serialize};

use crate::collector::Collector;
use crate::day::{Day, Event, Kind, Went};
use crate::shelf::{Limit, Weighed};
use crate::text::harmless;

/// Domains of which messages are counted in a day.
pub const DOMAINS_MAX: usize = 32_768;
/// What a day's messages take in memory, in bytes.
pub const DAY_MAX_BYTES: usize = 16 << 20;
/// Policies that a domain publishes one after the other in a day: each has a report of its own.
pub const POLICIES_MAX: usize = 4;
/// What one domain's messages take, in bytes.
pub const DOMAIN_MAX_BYTES: usize = 2 << 20;
/// Rows of a report.
pub const ROWS_MAX: usize = 2_000;
/// What these take, in bytes.
pub const POLICY_MAX_BYTES: usize = 1 << 20;
/// Signatures that a row tells of (RFC 9990, section 4.1.4 allows 100).
pub const SIGNATURES_MAX: usize = 10;
/// Reasons that a row gives for doing otherwise than a policy wants.
pub const OVERRIDES_MAX: usize = 4;
/// What a reason says in words, in bytes; the rest is cut.
pub const COMMENT_MAX_BYTES: usize = 256;
/// The longest name of a domain or of a key, in octets (RFC 1035, section 2.3.4).
pub(super) const NAME_MAX_BYTES: usize = 253;
/// The longest `fo` of a policy, in bytes.
const FAILURE_OPTIONS_MAX_BYTES: usize = 32;

/// Messages that DMARC judged are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmarc;

/// What a node counts.
pub type Messages = Collector<Dmarc>;

/// What was counted of a day.
pub type MessagesOfDay = Day<Dmarc>;

impl Kind for Dmarc {
    type Policy = Published;
    type Row = Row;
    const RECORD: &'static str = "DMARC's messages of a day";
    const DAY: Limit = Limit { entries: DOMAINS_MAX, bytes: DAY_MAX_BYTES };
    const DOMAIN: Limit = Limit { entries: POLICIES_MAX, bytes: DOMAIN_MAX_BYTES };
    const POLICY: Limit = Limit { entries: ROWS_MAX, bytes: POLICY_MAX_BYTES };
}

/// What a domain published, as far as it was gone by. Kept in records: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// `p`: for the domain itself.
    pub policy: Policy,
    /// `sp`: for domains below it; `p` where the record has none.
    pub below: Policy,
    /// `adkim`.
    pub dkim_alignment: AlignmentMode,
    /// `aspf`.
    pub spf_alignment: AlignmentMode,
    /// `pct`: of how many messages of a hundred.
    pub percent: u8,
    /// `fo`: which failures it wants to hear of; "0" where the record has none.
    pub failure_options: String,
}

/// How alike two domains have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlignmentMode {
    /// Of one organisation.
    Relaxed,
    /// One domain.
    Strict,
}

/// Whether a method showed that a message is its author's domain's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Alignment {
    /// It did.
    Pass,
    /// It did not.
    Fail,
}

/// Messages that are alike for a report. Kept in records: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The domain in From.
    pub header_from: String,
    /// The reverse-path's domain; None for the null one.
    pub envelope_from: Option<String>,
    /// The recipients' domain, if it is told.
    pub envelope_to: Option<String>,
    /// Who handed them over.
    pub source: IpAddr,
    /// What was done with them.
    pub disposition: Disposition,
    /// Whether DKIM showed that they are the domain's own.
    pub dkim_aligned: Alignment,
    /// Whether SPF did.
    pub spf_aligned: Alignment,
    /// Why something else was done than the policy wants.
    pub overrides: Vec<Override>,
    /// Signatures, those that count most first.
    pub dkim: Vec<DkimAuth>,
    /// What SPF says.
    pub spf: SpfAuth,
}

/// Why something else was done than a policy wants. Kept in records: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Override {
    /// Of what kind it is.
    pub kind: OverrideKind,
    /// More of it, in a few words, of which [`COMMENT_MAX_BYTES`] are told.
    pub comment: Option<String>,
}

/// Kinds of reasons (RFC 7489, section 7.2 and appendix C; RFC 9990, section 4.1.7). Kept in records: variants are only ever added at
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OverrideKind {
    /// It was forwarded, as is known here.
    Forwarded,
    /// It is of the part of all messages that the policy is not for (`pct`).
    SampledOut,
    /// Who forwards is trusted.
    TrustedForwarder,
    /// It came by a mailing list.
    MailingList,
    /// The operator's own rules.
    LocalPolicy,
    /// The policy is being tested.
    TestMode,
    /// Anything else.
    Other,
}

/// A signature. Kept in records: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DkimAuth {
    /// Who signed.
    pub domain: String,
    /// The key's name.
    pub selector: String,
    /// What came of it.
    pub result: DkimResult,
}

/// What SPF says. Kept in records: fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpfAuth {
    /// The domain that was asked about; empty if there was none.
    pub domain: String,
    /// Where that stood.
    pub scope: SpfScope,
    /// What came of it.
    pub result: SpfResult,
}

/// Where a domain stood that SPF was asked about. Kept in records: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpfScope {
    /// In HELO, as the reverse-path is null.
    Helo,
    /// In MAIL FROM.
    MailFrom,
}

impl Messages {
    /// Counts a message under the policy that was found at `domain`: the author's, or its organisation's. Who publishes no policy,
    /// or wants no reports, is not counted: that is the caller's. A domain that is no name is told nothing.
    pub fn count(&mut self, now_unix_s: u64, domain: &str, published: &Published, row: &Row) {
        let Some(domain) = host_name(domain) else { return self.count_nameless() };
        let went = if row.passes() { Went::Well } else { Went::Badly };
        self.count_event(now_unix_s, domain, Event { policy: published.bounded(), went, row: Some(row.bounded()) });
    }
}

impl Published {
    fn bounded(&self) -> Self {
        let failure_options = harmless(&self.failure_options, FAILURE_OPTIONS_MAX_BYTES);
        Published { percent: self.percent.min(100), failure_options, ..self.clone() }
    }
}

impl Row {
    /// Whether the messages are shown to be the domain's own.
    pub(crate) fn passes(&self) -> bool {
        self.dkim_aligned == Alignment::Pass || self.spf_aligned == Alignment::Pass
    }

    fn bounded(&self) -> Self {
        let name = |text: &String| harmless(text, NAME_MAX_BYTES);
        let mut overrides: Vec<Override> = self.overrides.iter().take(OVERRIDES_MAX).cloned().collect();
        for reason in &mut overrides {
            reason.comment = reason.comment.as_ref().map(|comment| harmless(comment, COMMENT_MAX_BYTES));
        }
        let dkim = self.dkim.iter().take(SIGNATURES_MAX).map(|of| DkimAuth {
            domain: name(&of.domain),
            selector: name(&of.selector),
            result: of.result,
        });
        Row {
            header_from: name(&self.header_from),
            envelope_from: self.envelope_from.as_ref().map(name),
            envelope_to: self.envelope_to.as_ref().map(name),
            source: self.source.to_canonical(),
            overrides,
            dkim: dkim.collect(),
            spf: SpfAuth { domain: name(&self.spf.domain), ..self.spf.clone() },
            ..self.clone()
        }
    }
}

impl Weighed for Published {
    fn heap_bytes(&self) -> usize {
        self.failure_options.len()
    }
}

impl Weighed for Row {
    fn heap_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let signature = |of: &DkimAuth| size_of::<DkimAuth>() + of.domain.len() + of.selector.len();
        self.header_from.len()
            + text(&self.envelope_from)
            + text(&self.envelope_to)
            + self.overrides.iter().map(|of| size_of::<Override>() + text(&of.comment)).sum::<usize>()
            + self.dkim.iter().map(signature).sum::<usize>()
            + self.spf.domain.len()
    }
}
