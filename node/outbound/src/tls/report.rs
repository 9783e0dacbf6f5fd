//! TLS-RPT: how connections to a domain's servers went, told to the domain once a day (RFC 8460).

use std::collections::BTreeMap;
use std::net::IpAddr;

use mailraft_message::date::civil_from_days;
use serde::Serialize;

/// What a day's counters may take in memory, in bytes; what does not fit is counted only as left out.
pub const COUNTERS_MAX_BYTES: usize = 8 << 20;
/// Policies of one domain that are told apart in a day; each server with DANE has its own.
pub const POLICIES_MAX: usize = 16;
/// Kinds of failures of one policy that are told apart in a day.
pub const FAILURES_MAX: usize = 64;
/// Lines of a policy, or records, that a report repeats.
pub const POLICY_LINES_MAX: usize = 64;
/// Places where a domain wants reports.
pub const PLACES_MAX: usize = 4;
/// What an entry takes beside its octets, in bytes.
const ENTRY_BYTES: usize = 256;
/// The longest address or URL of a place, in octets.
const PLACE_MAX_BYTES: usize = 1_024;

/// What a connection was to be like (RFC 8460, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AppliedPolicy {
    /// DANE, with the host below whose name the records stand, and the records.
    Tlsa {
        /// The host.
        base: String,
        /// Records as they stand in a zone.
        records: Vec<String>,
    },
    /// MTA-STS.
    Sts {
        /// The policy's lines.
        lines: Vec<String>,
        /// Its patterns of hosts.
        patterns: Vec<String>,
    },
    /// Neither.
    NoPolicy,
}

/// Why a connection was not as it was to be (RFC 8460, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The server offers no STARTTLS.
    StarttlsNotSupported,
    /// The certificate is not for this host.
    CertificateHostMismatch,
    /// The certificate is over, or not yet valid.
    CertificateExpired,
    /// Nobody who is trusted signed the certificate.
    CertificateNotTrusted,
    /// Anything else.
    ValidationFailure,
    /// None of the TLSA records can be used.
    TlsaInvalid,
    /// The DNS gave no answer with signatures that are right.
    DnssecInvalid,
    /// No policy could be fetched.
    StsPolicyFetchError,
    /// What was fetched is no policy.
    StsPolicyInvalid,
    /// The certificate of the policy's host is not right.
    StsWebpkiInvalid,
}

impl FailureKind {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::StarttlsNotSupported => "starttls-not-supported",
            FailureKind::CertificateHostMismatch => "certificate-host-mismatch",
            FailureKind::CertificateExpired => "certificate-expired",
            FailureKind::CertificateNotTrusted => "certificate-not-trusted",
            FailureKind::ValidationFailure => "validation-failure",
            FailureKind::TlsaInvalid => "tlsa-invalid",
            FailureKind::DnssecInvalid => "dnssec-invalid",
            FailureKind::StsPolicyFetchError => "sts-policy-fetch-error",
            FailureKind::StsPolicyInvalid => "sts-policy-invalid",
            FailureKind::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// What it was.
    pub kind: FailureKind,
    /// Our address, if there was a connection.
    pub our_address: Option<IpAddr>,
    /// The server, if it was about one.
    pub host: Option<String>,
    /// Its address, if there was a connection.
    pub host_address: Option<IpAddr>,
    /// More about it, in a word or two of our own.
    pub reason: Option<&'static str>,
}

/// The counters of a day.
#[derive(Debug)]
pub struct Counters {
    day: u64,
    domains: BTreeMap<String, BTreeMap<AppliedPolicy, Sessions>>,
    bytes: usize,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Sessions {
    successful: u64,
    failed: u64,
    failures: BTreeMap<Failure, u64>,
}

/// Who reports.
#[derive(Clone, Debug)]
pub struct Reporter<'a> {
    /// The name of the organisation.
    pub organization: &'a str,
    /// An address for questions.
    pub contact: &'a str,
    /// What no other report of ours has for an id.
    pub report_id: &'a str,
}

/// Where a domain wants its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By mail to this address.
    Mail(String),
    /// By POST to this URL.
    Https(String),
}

impl Counters {
    /// Those of a day, in days since 1970.
    pub fn new(day: u64) -> Self {
        Counters { day, domains: BTreeMap::new(), bytes: 0, left_out: 0 }
    }

    /// The day that they are for, in days since 1970.
    pub fn day(&self) -> u64 {
        self.day
    }

    /// What they take, in bytes, at most [`COUNTERS_MAX_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sessions that no report tells of, as there was no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The domains to which a report goes, if they want one.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// Counts a session, or an attempt at one, with a server of a domain.
    pub fn count(&mut self, domain: &str, policy: &AppliedPolicy, failure: Option<&Failure>) {
        let policy = &policy.shortened();
        let known = self.domains.get(domain);
        let size = match known.map(|policies| (policies.len(), policies.contains_key(policy))) {
            Some((_, true)) => 0,
            Some((POLICIES_MAX.., false)) => return self.left_out += 1,
            Some((_, false)) => policy.size_bytes(),
            None => policy.size_bytes() + ENTRY_BYTES + domain.len(),
        };
        if self.bytes + size > COUNTERS_MAX_BYTES {
            return self.left_out += 1;
        }
        self.bytes += size;
        let sessions = self.domains.entry(domain.to_owned()).or_default().entry(policy.clone()).or_default();
        let Some(failure) = failure else { return sessions.successful += 1 };
        // The sum counts all, also those whose details have no room.
        sessions.failed += 1;
        let size = ENTRY_BYTES + failure.host.as_ref().map_or(0, String::len);
        let has_room = sessions.failures.len() < FAILURES_MAX && self.bytes + size <= COUNTERS_MAX_BYTES;
        match sessions.failures.get_mut(failure) {
            Some(count) => *count += 1,
            None if has_room => {
                sessions.failures.insert(failure.clone(), 1);
                self.bytes += size;
            }
            None => {}
        }
    }

    /// The report to a domain, in JSON (RFC 8460, section 4.4). None if nothing was counted.
    ///
    /// # Errors
    /// Never, as far as is known: if JSON can't be made of it.
    pub fn report(&self, domain: &str, reporter: &Reporter<'_>) -> Option<Result<Vec<u8>, serde_json::Error>> {
        let policies = self.domains.get(domain)?;
        let date = date(self.day);
        let report = Report {
            organization_name: reporter.organization,
            date_range: DateRange {
                start_datetime: format!("{date}T00:00:00Z"),
                end_datetime: format!("{date}T23:59:59Z"),
            },
            contact_info: reporter.contact,
            report_id: reporter.report_id,
            policies: policies.iter().map(|(policy, sessions)| PolicyReport::of(domain, policy, sessions)).collect(),
        };
        Some(serde_json::to_vec(&report))
    }

    /// The name of a report's file, compressed with gzip (RFC 8460, section 5.1).
    pub fn file_name(&self, domain: &str, our_domain: &str, report_id: &str) -> String {
        let (begin, end) = (self.day * 86_400, self.day * 86_400 + 86_399);
        format!("{our_domain}!{domain}!{begin}!{end}!{report_id}.json.gz")
    }
}

impl AppliedPolicy {
    fn shortened(&self) -> Self {
        let first = |lines: &[String]| lines.iter().take(POLICY_LINES_MAX).cloned().collect();
        match self {
            AppliedPolicy::Tlsa { base, records } => {
                AppliedPolicy::Tlsa { base: base.clone(), records: first(records) }
            }
            AppliedPolicy::Sts { lines, patterns } => {
                AppliedPolicy::Sts { lines: first(lines), patterns: first(patterns) }
            }
            AppliedPolicy::NoPolicy => AppliedPolicy::NoPolicy,
        }
    }

    fn size_bytes(&self) -> usize {
        let lines = |lines: &[String]| lines.iter().map(|line| line.len() + size_of::<String>()).sum::<usize>();
        ENTRY_BYTES
            + match self {
                AppliedPolicy::Tlsa { base, records } => base.len() + lines(records),
                AppliedPolicy::Sts { lines: text, patterns } => lines(text) + lines(patterns),
                AppliedPolicy::NoPolicy => 0,
            }
    }
}

/// The name of a domain's record of TLS-RPT (RFC 8460, section 3).
pub fn record_name(domain: &str) -> String {
    format!("_smtp._tls.{domain}")
}

/// Where a domain wants reports, out of the TXT records of its name: the first [`PLACES_MAX`] that can be. None of them if
/// there is not exactly one record of TLS-RPT (RFC 8460, section 3).
pub fn places<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Vec<Place> {
    let is_ours = |record: &&[u8]| {
        record.strip_prefix(b"v=TLSRPTv1").is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b';'))
    };
    let mut records = records.into_iter().filter(is_ours);
    let (Some(record), None) = (records.next(), records.next()) else { return Vec::new() };
    let Ok(record) = std::str::from_utf8(record) else { return Vec::new() };
    let mut ruas = record.split(';').skip(1).filter_map(|field| field.trim().strip_prefix("rua="));
    ruas.next().unwrap_or_default().split(',').filter_map(|uri| place(uri.trim())).take(PLACES_MAX).collect()
}

fn place(uri: &str) -> Option<Place> {
    let is_sound = uri.len() <= PLACE_MAX_BYTES && uri.bytes().all(|b| b.is_ascii_graphic());
    let (scheme, rest) = uri.split_once(':').filter(|_| is_sound)?;
    if scheme.eq_ignore_ascii_case("mailto") {
        let address = unescaped(rest.split('?').next()?)?;
        let (local, domain) = address.rsplit_once('@')?;
        let is_address = !local.is_empty() && super::domain::host_name(domain).is_some();
        let has_odd =
            address.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ',' | '"'));
        return (is_address && !has_odd).then_some(Place::Mail(address));
    }
    let is_url = scheme.eq_ignore_ascii_case("https") && rest.starts_with("//") && rest.len() > 2;
    is_url.then(|| Place::Https(format!("https:{rest}")))
}

/// Without percent-encoding (RFC 3986, section 2.1).
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut out = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(out).ok()
}

fn date(day: u64) -> String {
    let (year, month, day) = civil_from_days(i64::try_from(day).unwrap_or(0));
    format!("{year:04}-{month:02}-{day:02}")
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    organization_name: &'a str,
    date_range: DateRange,
    contact_info: &'a str,
    report_id: &'a str,
    policies: Vec<PolicyReport<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

/// All lists are there even if they are empty, and so is the domain: readers of reports stumble where they are not.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyReport<'a> {
    policy: PolicyText<'a>,
    summary: Summary,
    failure_details: Vec<FailureDetails<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyText<'a> {
    policy_type: &'static str,
    policy_string: &'a [String],
    policy_domain: &'a str,
    mx_host: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct FailureDetails<'a> {
    result_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_mta_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ip: Option<IpAddr>,
    failed_session_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason_code: Option<&'static str>,
}

impl<'a> PolicyReport<'a> {
    fn of(domain: &'a str, policy: &'a AppliedPolicy, sessions: &'a Sessions) -> Self {
        let policy = match policy {
            AppliedPolicy::Tlsa { base, records } => {
                PolicyText { policy_type: "tlsa", policy_string: records, policy_domain: base, mx_host: &[] }
            }
            AppliedPolicy::Sts { lines, patterns } => {
                PolicyText { policy_type: "sts", policy_string: lines, policy_domain: domain, mx_host: patterns }
            }
            AppliedPolicy::NoPolicy => {
                PolicyText { policy_type: "no-policy-found", policy_string: &[], policy_domain: domain, mx_host: &[] }
            }
        };
        let summary = Summary {
            total_successful_session_count: sessions.successful,
            total_failure_session_count: sessions.failed,
        };
        let details = |(failure, count): (&'a Failure, &u64)| FailureDetails {
            result_type: failure.kind.name(),
            sending_mta_ip: failure.our_address,
            receiving_mx_hostname: failure.host.as_deref(),
            receiving_ip: failure.host_address,
            failed_session_count: *count,
            failure_reason_code: failure.reason,
        };
        PolicyReport { policy, summary, failure_details: sessions.failures.iter().map(details).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORTER: Reporter<'_> =
        Reporter { organization: "Company-X", contact: "sts-reporting@company-x.example", report_id: "5065427c" };

    fn sts() -> AppliedPolicy {
        let lines = ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"];
        AppliedPolicy::Sts {
            lines: lines.map(str::to_owned).to_vec(),
            patterns: vec!["*.mail.company-y.example".to_owned()],
        }
    }

    fn failure(kind: FailureKind, host: &str) -> Failure {
        Failure {
            kind,
            our_address: Some([0x2001, 0xdb8, 0xabcd, 0x12, 0, 0, 0, 1].into()),
            host: Some(host.to_owned()),
            host_address: None,
            reason: None,
        }
    }

    #[test]
    fn a_report_is_like_that_of_rfc_8460() {
        // The day of RFC 8460, appendix B.
        let mut counters = Counters::new(16_892);
        (0..5_326).for_each(|_| counters.count("company-y.example", &sts(), None));
        let expired = failure(FailureKind::CertificateExpired, "mx1.mail.company-y.example");
        (0..100).for_each(|_| counters.count("company-y.example", &sts(), Some(&expired)));
        let refused = Failure {
            host_address: Some([203, 0, 113, 56].into()),
            reason: Some("handshake-failed"),
            ..failure(FailureKind::StarttlsNotSupported, "mx2.mail.company-y.example")
        };
        (0..203).for_each(|_| counters.count("company-y.example", &sts(), Some(&refused)));
        let json = counters.report("company-y.example", &REPORTER).unwrap().unwrap();
        let expected = serde_json::json!({
            "organization-name": "Company-X",
            "date-range": { "start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z" },
            "contact-info": "sts-reporting@company-x.example",
            "report-id": "5065427c",
            "policies": [{
                "policy": {
                    "policy-type": "sts",
                    "policy-string":
                        ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
                    "policy-domain": "company-y.example",
                    "mx-host": ["*.mail.company-y.example"]
                },
                "summary": { "total-successful-session-count": 5326, "total-failure-session-count": 303 },
                "failure-details": [{
                    "result-type": "starttls-not-supported",
                    "sending-mta-ip": "2001:db8:abcd:12::1",
                    "receiving-mx-hostname": "mx2.mail.company-y.example",
                    "receiving-ip": "203.0.113.56",
                    "failed-session-count": 203,
                    "failure-reason-code": "handshake-failed"
                }, {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "2001:db8:abcd:12::1",
                    "receiving-mx-hostname": "mx1.mail.company-y.example",
                    "failed-session-count": 100
                }]
            }]
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), expected);
        let name = counters.file_name("company-y.example", "mail.sndr.example.com", "5065427c");
        assert_eq!(name, "mail.sndr.example.com!company-y.example!1459468800!1459555199!5065427c.json.gz");
        assert!(counters.report("other.test", &REPORTER).is_none());
    }

    #[test]
    fn a_report_has_its_domain_and_its_lists_whatever_the_policy() {
        let mut counters = Counters::new(0);
        let tlsa = AppliedPolicy::Tlsa { base: "mx.b.test".into(), records: vec!["3 1 1 00".into()] };
        counters.count("b.test", &tlsa, None);
        counters.count("b.test", &AppliedPolicy::NoPolicy, None);
        let json = counters.report("b.test", &REPORTER).unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let policies = json["policies"].as_array().unwrap();
        assert_eq!(policies.len(), 2);
        assert_eq!(
            (&policies[0]["policy"]["policy-type"], &policies[0]["policy"]["policy-domain"]),
            (&"tlsa".into(), &"mx.b.test".into())
        );
        assert_eq!(policies[1]["policy"]["policy-type"], "no-policy-found");
        assert_eq!(policies[1]["policy"]["policy-domain"], "b.test");
        for policy in policies {
            assert!(policy["failure-details"].is_array() && policy["policy"]["mx-host"].is_array());
        }
        assert_eq!(json["date-range"]["start-datetime"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn counters_are_bounded_and_what_has_no_room_is_told() {
        let mut counters = Counters::new(0);
        let domain = |n: usize| format!("{}{n}.test", "x".repeat(200));
        let mut n = 0;
        while counters.left_out() == 0 {
            counters.count(&domain(n), &sts(), Some(&failure(FailureKind::CertificateExpired, &domain(n))));
            n += 1;
            assert!(counters.bytes() <= COUNTERS_MAX_BYTES);
        }
        assert!(n > COUNTERS_MAX_BYTES / 4_096, "{n}");
        assert_eq!(counters.domains().count(), n - 1);
        // What is there is counted on.
        counters.count(&domain(0), &sts(), None);
        assert_eq!(counters.left_out(), 1);
    }

    #[test]
    fn no_domain_takes_the_room_of_all() {
        let mut counters = Counters::new(0);
        for n in 0..1_000 {
            let policy = AppliedPolicy::Tlsa { base: format!("mx{n}.b.test"), records: vec!["3 1 1 00".into(); 1_000] };
            counters.count("b.test", &policy, None);
        }
        assert_eq!(counters.left_out(), 1_000 - POLICIES_MAX as u64);
        for n in 0..1_000 {
            counters.count("c.test", &sts(), Some(&failure(FailureKind::ValidationFailure, &format!("mx{n}.c.test"))));
        }
        assert!(counters.bytes() < 256 << 10, "{}", counters.bytes());
        let json = counters.report("c.test", &REPORTER).unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["policies"][0]["failure-details"].as_array().unwrap().len(), FAILURES_MAX);
        assert_eq!(json["policies"][0]["summary"]["total-failure-session-count"], 1_000, "the sum has all");
    }

    #[test]
    fn one_record_says_where_reports_go() {
        let of = |records: &[&str]| places(records.iter().map(|r| r.as_bytes()));
        let mail = |address: &str| Place::Mail(address.to_owned());
        // RFC 8460, section 3.1.
        assert_eq!(of(&["v=TLSRPTv1;rua=mailto:reports@example.com"]), [mail("reports@example.com")]);
        let url = "https://reporting.example.com/v1/tlsrpt";
        assert_eq!(of(&[&format!("v=TLSRPTv1; rua={url}")]), [Place::Https(url.to_owned())]);
        let both = format!("v=TLSRPTv1; rua=MAILTO:a%2Cb@example.com , {url}; ext=1;");
        assert_eq!(of(&[&both]), [Place::Https(url.to_owned())], "an address with a comma is none");
        assert_eq!(of(&["v=TLSRPTv1; rua=mailto:a%21b@example.com?subject=x"]), [mail("a!b@example.com")]);
        let many = ["mailto:a@example.com"; PLACES_MAX + 2].join(",");
        assert_eq!(of(&[&format!("v=TLSRPTv1;rua={many}")]).len(), PLACES_MAX);
        for none in [
            "v=TLSRPTv1",
            "v=TLSRPTv1; rua=",
            "v=TLSRPTv10; rua=mailto:a@example.com",
            "rua=mailto:a@example.com; v=TLSRPTv1",
            "v=TLSRPTv1; rua=mailto:a",
            "v=TLSRPTv1; rua=mailto:@example.com",
            "v=TLSRPTv1; rua=mailto:a@",
            "v=TLSRPTv1; rua=mailto:a%0D%0Ab@example.com",
            "v=TLSRPTv1; rua=mailto:a%20b@example.com",
            "v=TLSRPTv1; rua=mailto:a%3@example.com",
            "v=TLSRPTv1; rua=mailto:a%ff@example.com",
            "v=TLSRPTv1; rua=mailto:a%+1@example.com",
            "v=TLSRPTv1; rua=http://example.com/",
            "v=TLSRPTv1; rua=https:",
            "v=TLSRPTv1; rua=https://",
        ] {
            assert!(of(&[none]).is_empty(), "{none}");
        }
        assert!(of(&["v=TLSRPTv1; rua=mailto:a@example.com"; 2]).is_empty());
        assert!(places([&b"v=TLSRPTv1; rua=mailto:\xff@example.com"[..]]).is_empty());
        let long = format!("v=TLSRPTv1; rua=https://example.com/{}", "x".repeat(PLACE_MAX_BYTES));
        assert!(of(&[&long]).is_empty());
    }
}
