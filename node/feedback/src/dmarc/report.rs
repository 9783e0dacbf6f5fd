//! The report of a day to a domain, and the mail that brings it (RFC 9990, section 4.5).

use mailraft_message::date::civil_from_days;
use mailraft_outbound::tls::policy::Asked;

use super::messages::{MessagesOfDay, Published};
use super::xml::{self, About, Schema};
use crate::day::Lost;
use crate::mail::{Mail, Written, gzip, mail};
use crate::reporter::Reporter;

/// A report to one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    domain: String,
    id: String,
    file_name: String,
    xml: Vec<u8>,
    words: Vec<String>,
}

impl MessagesOfDay {
    /// The reports to a domain, in the name of a reporter: one for each policy that it published that day, as a report has room for
    /// one. None if there is nothing to tell.
    pub fn reports(&self, domain: &str, reporter: &Reporter, schema: Schema) -> Vec<Report> {
        let Some(of) = self.domain(domain) else { return Vec::new() };
        let told = of.policies.iter().filter(|(_, policy)| policy.rows.len() > 0);
        let report = |(published, policy): (&Published, _)| {
            let id = reporter.report_id(self.day(), domain, &part(published));
            let about = About { domain, range_unix_s: self.range_unix_s(), report_id: &id, lost: of.lost() };
            Report {
                file_name: reporter.file_name(domain, self.range_unix_s(), &id, "xml.gz"),
                xml: xml::compose(schema, reporter, &about, published, policy),
                words: words(domain, reporter.domain(), self.day(), (policy.well, policy.badly), of.lost()),
                domain: domain.to_owned(),
                id,
            }
        };
        told.map(report).collect()
    }
}

impl Report {
    /// Its id, which no other report has, however often this one is made.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The report.
    pub fn xml(&self) -> &[u8] {
        &self.xml
    }

    /// The name of its file.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The mail that brings it to an address, at a time in seconds since 1970-01-01 UTC.
    pub fn mail(&self, reporter: &Reporter, to: &str, now_unix_s: u64) -> Mail {
        let written = Written {
            domain: &self.domain,
            id: &self.id,
            kind: "multipart/mixed",
            fields: &[],
            words: &self.words,
            file_name: &self.file_name,
            file_kind: "application/gzip",
            file: &gzip(&self.xml),
            asked: Asked::Nothing,
        };
        mail(reporter, to, &written, now_unix_s)
    }
}

/// What tells reports of one domain and day apart.
fn part(published: &Published) -> Vec<u8> {
    let Published { policy, below, dkim_alignment, spf_alignment, percent, failure_options } = published;
    let mut part = vec![*policy as u8, *below as u8, *dkim_alignment as u8, *spf_alignment as u8, *percent];
    part.extend_from_slice(failure_options.as_bytes());
    part
}

fn words(domain: &str, submitter: &str, day: u64, (well, badly): (u64, u64), lost: Lost) -> Vec<String> {
    let (year, month, day) = civil_from_days(i64::try_from(day).unwrap_or(0));
    let mut words = vec![
        "This is an aggregate report of DMARC for the domain".to_owned(),
        format!("  {domain}"),
        "from".to_owned(),
        format!("  {submitter}"),
        format!("of {year:04}-{month:02}-{day:02} (UTC): {well} messages passed, {badly} failed."),
    ];
    words.extend(xml::left_out(lost).map(|sentence| format!("{sentence}.")));
    words
}
