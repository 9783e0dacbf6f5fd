//! A report in XML (RFC 7489, appendix C; RFC 9990, appendix A).

use mailraft_sender_auth::{Disposition, DkimResult, Policy as Wanted, SpfResult};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::messages::{Alignment, AlignmentMode, Dmarc, OverrideKind, Published, Row, SpfScope};
use crate::day::{Lost, Policy};
use crate::reporter::Reporter;
use crate::text::harmless;

/// The namespace of RFC 9990.
pub(super) const NAMESPACE: &str = "urn:ietf:params:xml:ns:dmarc-2.0";
/// The longest text of an element, in bytes.
const TEXT_MAX_BYTES: usize = 512;
/// Who wrote the report, so that its readers know where its faults are to be told.
const GENERATOR: &str = concat!("Mailraft ", env!("CARGO_PKG_VERSION"));

/// How a report is written. Most is alike: the order of elements and their values are as both want them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// As every reader knows it: no namespace, as nobody ever wrote that, and `pct`.
    Rfc7489,
    /// With its namespace, how the policy was found, the disposition *pass*, and who wrote it.
    Rfc9990,
}

/// What stands above the records.
pub(super) struct About<'a> {
    pub(super) domain: &'a str,
    pub(super) range_unix_s: (u64, u64),
    pub(super) report_id: &'a str,
    /// What of the domain is lost.
    pub(super) lost: Lost,
}

/// Writes a report.
pub(super) fn compose(
    schema: Schema,
    reporter: &Reporter,
    about: &About<'_>,
    published: &Published,
    of: &Policy<Dmarc>,
) -> Vec<u8> {
    let mut xml = Xml::new();
    match schema {
        Schema::Rfc7489 => xml.put(Event::Start(BytesStart::new("feedback"))),
        Schema::Rfc9990 => {
            xml.put(Event::Start(BytesStart::new("feedback").with_attributes([("xmlns", NAMESPACE)])));
        }
    }
    xml.leaf("version", "1.0");
    xml.within("report_metadata", |xml| {
        xml.leaf("org_name", reporter.organization());
        xml.leaf("email", reporter.contact());
        xml.leaf("report_id", about.report_id);
        xml.within("date_range", |xml| {
            xml.leaf("begin", &about.range_unix_s.0.to_string());
            xml.leaf("end", &about.range_unix_s.1.to_string());
        });
        if let Some(error) = left_out(about.lost) {
            xml.leaf("error", &error);
        }
        match schema {
            Schema::Rfc7489 => {}
            Schema::Rfc9990 => xml.leaf("generator", GENERATOR),
        }
    });
    xml.within("policy_published", |xml| policy_published(xml, schema, about.domain, published));
    for (row, count) in of.rows.iter() {
        xml.within("record", |xml| record(xml, schema, about.domain, published, row, *count));
    }
    xml.put(Event::End(BytesEnd::new("feedback")));
    xml.end()
}

/// A sentence about what a report leaves out.
pub(super) fn left_out(lost: Lost) -> Option<String> {
    let messages = lost.untold.saturating_add(lost.unlisted);
    (messages > 0).then(|| format!("{messages} messages of this domain are in no record: there was no room for more"))
}

fn policy_published(xml: &mut Xml, schema: Schema, domain: &str, published: &Published) {
    let mode = |mode| match mode {
        AlignmentMode::Relaxed => "r",
        AlignmentMode::Strict => "s",
    };
    xml.leaf("domain", domain);
    match schema {
        Schema::Rfc7489 => {}
        // By public suffixes.
        Schema::Rfc9990 => xml.leaf("discovery_method", "psl"),
    }
    xml.leaf("adkim", mode(published.dkim_alignment));
    xml.leaf("aspf", mode(published.spf_alignment));
    xml.leaf("p", wanted(published.policy));
    xml.leaf("sp", wanted(published.below));
    match schema {
        Schema::Rfc7489 => xml.leaf("pct", &published.percent.to_string()),
        Schema::Rfc9990 => {}
    }
    xml.leaf("fo", &published.failure_options);
}

fn record(xml: &mut Xml, schema: Schema, domain: &str, published: &Published, row: &Row, count: u64) {
    xml.within("row", |xml| {
        xml.leaf("source_ip", &row.source.to_string());
        xml.leaf("count", &count.to_string());
        xml.within("policy_evaluated", |xml| {
            xml.leaf("disposition", disposition(schema, domain, published, row));
            xml.leaf("dkim", alignment(row.dkim_aligned));
            xml.leaf("spf", alignment(row.spf_aligned));
            for reason in &row.overrides {
                let (kind, other_name) = override_kind(schema, reason.kind);
                xml.within("reason", |xml| {
                    xml.leaf("type", kind);
                    match (&reason.comment, other_name) {
                        (Some(comment), Some(name)) => xml.leaf("comment", &format!("{name}: {comment}")),
                        (Some(comment), None) => xml.leaf("comment", comment),
                        (None, Some(name)) => xml.leaf("comment", name),
                        (None, None) => {}
                    }
                });
            }
        });
    });
    xml.within("identifiers", |xml| {
        if let Some(to) = &row.envelope_to {
            xml.leaf("envelope_to", to);
        }
        // Empty for the null reverse-path.
        xml.leaf("envelope_from", row.envelope_from.as_deref().unwrap_or_default());
        xml.leaf("header_from", &row.header_from);
    });
    xml.within("auth_results", |xml| {
        for of in &row.dkim {
            xml.within("dkim", |xml| {
                xml.leaf("domain", &of.domain);
                xml.leaf("selector", &of.selector);
                xml.leaf("result", dkim_result(of.result));
            });
        }
        xml.within("spf", |xml| {
            xml.leaf("domain", &row.spf.domain);
            match (row.spf.scope, schema) {
                (SpfScope::MailFrom, _) => xml.leaf("scope", "mfrom"),
                (SpfScope::Helo, Schema::Rfc7489) => xml.leaf("scope", "helo"),
                // It knows no other one, and needs none.
                (SpfScope::Helo, Schema::Rfc9990) => {}
            }
            xml.leaf("result", spf_result(row.spf.result));
        });
    });
}

fn disposition(schema: Schema, domain: &str, published: &Published, row: &Row) -> &'static str {
    let policy = if row.header_from == domain { published.policy } else { published.below };
    let is_enforced = match policy {
        Wanted::None => false,
        Wanted::Quarantine | Wanted::Reject => true,
    };
    match (row.disposition, schema) {
        (Disposition::Deliver, Schema::Rfc9990) if row.passes() && is_enforced => "pass",
        (Disposition::Deliver, Schema::Rfc7489 | Schema::Rfc9990) => "none",
        (Disposition::Quarantine, _) => "quarantine",
        (Disposition::Reject, _) => "reject",
    }
}

/// The name of a kind of reasons, and, where the schema has none for it, the other one's.
fn override_kind(schema: Schema, kind: OverrideKind) -> (&'static str, Option<&'static str>) {
    match (kind, schema) {
        (OverrideKind::Forwarded, Schema::Rfc7489) => ("forwarded", None),
        (OverrideKind::Forwarded, Schema::Rfc9990) => ("other", Some("forwarded")),
        (OverrideKind::SampledOut, Schema::Rfc7489) => ("sampled_out", None),
        (OverrideKind::SampledOut, Schema::Rfc9990) => ("other", Some("sampled_out")),
        (OverrideKind::TestMode, Schema::Rfc7489) => ("other", Some("policy_test_mode")),
        (OverrideKind::TestMode, Schema::Rfc9990) => ("policy_test_mode", None),
        (OverrideKind::TrustedForwarder, _) => ("trusted_forwarder", None),
        (OverrideKind::MailingList, _) => ("mailing_list", None),
        (OverrideKind::LocalPolicy, _) => ("local_policy", None),
        (OverrideKind::Other, _) => ("other", None),
    }
}

fn wanted(policy: Wanted) -> &'static str {
    match policy {
        Wanted::None => "none",
        Wanted::Quarantine => "quarantine",
        Wanted::Reject => "reject",
    }
}

fn alignment(alignment: Alignment) -> &'static str {
    match alignment {
        Alignment::Pass => "pass",
        Alignment::Fail => "fail",
    }
}

fn dkim_result(result: DkimResult) -> &'static str {
    match result {
        DkimResult::Pass => "pass",
        DkimResult::Fail => "fail",
        DkimResult::Policy => "policy",
        DkimResult::Neutral => "neutral",
        DkimResult::TempError => "temperror",
        DkimResult::PermError => "permerror",
    }
}

fn spf_result(result: SpfResult) -> &'static str {
    match result {
        SpfResult::None => "none",
        SpfResult::Neutral => "neutral",
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
    }
}

/// XML as it is written, into memory, where that does not fail.
struct Xml(Writer<Vec<u8>>);

impl Xml {
    fn new() -> Self {
        let mut xml = Xml(Writer::new_with_indent(Vec::new(), b' ', 2));
        xml.put(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml
    }

    fn put(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("writing to memory does not fail");
    }

    /// An element with text alone.
    fn leaf(&mut self, name: &str, text: &str) {
        self.put(Event::Start(BytesStart::new(name)));
        self.put(Event::Text(BytesText::new(&harmless(text, TEXT_MAX_BYTES))));
        self.put(Event::End(BytesEnd::new(name)));
    }

    fn within(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.put(Event::Start(BytesStart::new(name)));
        write(self);
        self.put(Event::End(BytesEnd::new(name)));
    }

    fn end(self) -> Vec<u8> {
        let mut bytes = self.0.into_inner();
        bytes.push(b'\n');
        bytes
    }
}
