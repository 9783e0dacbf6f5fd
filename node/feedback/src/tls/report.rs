//! The report of a day to a domain: JSON (RFC 8460, section 4.4), and what brings it (section 5).

use std::net::IpAddr;

use mailraft_message::date::civil_from_days;
use mailraft_outbound::tls::policy::Asked;
use mailraft_outbound::tls::report::AppliedPolicy;
use serde::Serialize;

use super::sessions::{Failure, SessionsOfDay, Tls};
use crate::day::{Domain, Lost, Policy};
use crate::mail::{Mail, Written, gzip, mail};
use crate::reporter::Reporter;

/// A report to one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    domain: String,
    submitter: String,
    id: String,
    file_name: String,
    json: Vec<u8>,
    words: Vec<String>,
}

/// What is sent to a URL by POST (RFC 8460, section 5.4). Whether the certificate there is right does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl SessionsOfDay {
    /// The report to a domain, in the name of a reporter. None if there is nothing to tell.
    ///
    /// # Panics
    /// Never: JSON of text and numbers can always be written.
    pub fn report(&self, domain: &str, reporter: &Reporter) -> Option<Report> {
        let of = self.domain(domain).filter(|of| of.policies.len() > 0)?;
        let id = reporter.report_id(self.day(), domain, b"tls");
        let date = date(self.day());
        let report = ReportText {
            organization_name: reporter.organization(),
            date_range: DateRange {
                start_datetime: format!("{date}T00:00:00Z"),
                end_datetime: format!("{date}T23:59:59Z"),
            },
            contact_info: reporter.contact(),
            report_id: &id,
            policies: of.policies.iter().map(|(policy, of)| PolicyReport::of(domain, policy, of)).collect(),
        };
        let json = serde_json::to_vec(&report).expect("text and numbers can be written as JSON");
        Some(Report {
            file_name: reporter.file_name(domain, self.range_unix_s(), &id, "json.gz"),
            words: words(domain, reporter.domain(), &date, of),
            domain: domain.to_owned(),
            submitter: reporter.domain().to_owned(),
            id,
            json,
        })
    }
}

impl Report {
    /// Its id, which no other report has, however often this one is made.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The report.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The name of its file (RFC 8460, section 5.1).
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The mail that brings it to an address (RFC 8460, section 5.3), at a time in seconds since 1970-01-01 UTC. No failure of TLS
    /// may stop it (section 3), as it may be the one that it tells of.
    pub fn mail(&self, reporter: &Reporter, to: &str, now_unix_s: u64) -> Mail {
        let written = Written {
            domain: &self.domain,
            id: &self.id,
            kind: "multipart/report; report-type=\"tlsrpt\"",
            fields: &[
                ("TLS-Report-Domain", &self.domain),
                ("TLS-Report-Submitter", &self.submitter),
                // RFC 8689, section 3: nor on its further way.
                ("TLS-Required", "No"),
            ],
            words: &self.words,
            file_name: &self.file_name,
            file_kind: "application/tlsrpt+gzip",
            file: &gzip(&self.json),
            asked: Asked::TlsNotRequired,
        };
        mail(reporter, to, &written, now_unix_s)
    }

    /// What is sent to a URL.
    pub fn post(&self) -> Post {
        Post { content_type: "application/tlsrpt+gzip", body: gzip(&self.json) }
    }
}

fn words(domain: &str, submitter: &str, date: &str, of: &Domain<Tls>) -> Vec<String> {
    let sum =
        |count: fn(&Policy<Tls>) -> u64| of.policies.iter().fold(0u64, |sum, (_, of)| sum.saturating_add(count(of)));
    let (well, badly) = (sum(|of| of.well), sum(|of| of.badly));
    let mut words = vec![
        "This is a report about TLS (RFC 8460) for the domain".to_owned(),
        format!("  {domain}"),
        "from".to_owned(),
        format!("  {submitter}"),
        format!("of {date} (UTC): {well} sessions were as they are to be, {badly} failed."),
    ];
    let Lost { untold, unlisted } = of.lost();
    if unlisted > 0 {
        words.push(format!("Of {unlisted} failed sessions the report has the sum and no details: there was no room."));
    }
    if untold > 0 {
        words.push(format!("{untold} more sessions are not in the report: there was no room."));
    }
    words
}

fn date(day: u64) -> String {
    let (year, month, day) = civil_from_days(i64::try_from(day).unwrap_or(0));
    format!("{year:04}-{month:02}-{day:02}")
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ReportText<'a> {
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
    failure_reason_code: Option<&'a str>,
}

impl<'a> PolicyReport<'a> {
    fn of(domain: &'a str, policy: &'a AppliedPolicy, of: &'a Policy<Tls>) -> Self {
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
        let summary = Summary { total_successful_session_count: of.well, total_failure_session_count: of.badly };
        let details = |(failure, count): (&'a Failure, &u64)| FailureDetails {
            result_type: failure.kind.name(),
            sending_mta_ip: failure.our_address,
            receiving_mx_hostname: failure.host.as_deref(),
            receiving_ip: failure.host_address,
            failed_session_count: *count,
            failure_reason_code: failure.reason.as_deref(),
        };
        PolicyReport { policy, summary, failure_details: of.rows.iter().map(details).collect() }
    }
}
