//! DMARC's reports: against the RFCs, hostile values, bounds, and the mail.

use mail_parser::MimeHeaders;
use mailraft_message::Part;
use mailraft_outbound::tls::policy::Asked;
use mailraft_sender_auth::{Disposition, DkimResult, Policy, SpfResult};

use super::messages::NAME_MAX_BYTES;
use super::schema::{Element, flaw};
use super::*;
use crate::day::{DAY_SECONDS, Lost, PART_MAX_BYTES};
use crate::reporter::Reporter;

const SCHEMAS: [Schema; 2] = [Schema::Rfc7489, Schema::Rfc9990];

fn reporter() -> Reporter {
    let address = "report_sender@example-reporter.com";
    Reporter::new("Sample Reporter", "mail.receiver.example", address, address).unwrap()
}

fn published() -> Published {
    Published {
        policy: Policy::Quarantine,
        below: Policy::None,
        dkim_alignment: AlignmentMode::Relaxed,
        spf_alignment: AlignmentMode::Strict,
        percent: 100,
        failure_options: "0".to_owned(),
    }
}

fn row() -> Row {
    Row {
        header_from: "example.com".to_owned(),
        envelope_from: Some("example.com".to_owned()),
        envelope_to: None,
        source: [192, 0, 2, 123].into(),
        disposition: Disposition::Deliver,
        dkim_aligned: Alignment::Pass,
        spf_aligned: Alignment::Fail,
        overrides: Vec::new(),
        dkim: vec![DkimAuth {
            domain: "example.com".to_owned(),
            selector: "abc123".to_owned(),
            result: DkimResult::Pass,
        }],
        spf: SpfAuth { domain: "example.com".to_owned(), scope: SpfScope::MailFrom, result: SpfResult::Fail },
    }
}

fn day(messages: &mut Messages, now_unix_s: u64) -> MessagesOfDay {
    messages.forget_told(now_unix_s / DAY_SECONDS).unwrap()
}

fn only(day: &MessagesOfDay, domain: &str, schema: Schema) -> Report {
    let mut reports = day.reports(domain, &reporter(), schema);
    assert_eq!(reports.len(), 1);
    let report = reports.remove(0);
    assert_eq!(flaw(schema, report.xml()), None, "{}", String::from_utf8_lossy(report.xml()));
    report
}

#[test]
fn a_report_says_what_the_sample_of_rfc_9990_says() {
    let mut messages = Messages::default();
    // 1979-08-07.
    let now = 302_832_000 + 99;
    (0..123).for_each(|_| messages.count(now, "EXAMPLE.com", &published(), &row()));
    let day = day(&mut messages, now);
    assert_eq!(day.range_unix_s(), (302_832_000, 302_918_399));
    let sample = Element::read(include_bytes!("../../testdata/rfc9990-sample.xml"));
    let report = only(&day, "example.com", Schema::Rfc9990);
    let ours = Element::read(report.xml());
    for path in [
        "version",
        "report_metadata/org_name",
        "report_metadata/email",
        "report_metadata/date_range/begin",
        "report_metadata/date_range/end",
        "policy_published/domain",
        "policy_published/p",
        "policy_published/sp",
        "record/row/source_ip",
        "record/row/count",
        "record/row/policy_evaluated/disposition",
        "record/row/policy_evaluated/dkim",
        "record/row/policy_evaluated/spf",
        "record/identifiers/envelope_from",
        "record/identifiers/header_from",
        "record/auth_results/dkim/domain",
        "record/auth_results/dkim/selector",
        "record/auth_results/dkim/result",
        "record/auth_results/spf/domain",
        "record/auth_results/spf/result",
    ] {
        assert!(sample.at(path).is_some_and(|text| !text.is_empty()), "{path}");
        assert_eq!(ours.at(path), sample.at(path), "{path}");
    }
    assert_eq!(ours.at("policy_published/discovery_method"), Some("psl"));
    assert_eq!(ours.at("report_metadata/report_id"), Some(report.id()));
    let name = format!("mail.receiver.example!example.com!302832000!302918399!{}.xml.gz", report.id());
    assert_eq!(report.file_name(), name);
}

#[test]
fn a_report_is_of_the_schema_of_rfc_7489_appendix_c() {
    let mut messages = Messages::default();
    messages.count(0, "example.com", &published(), &row());
    let ours = only(&day(&mut messages, 0), "example.com", Schema::Rfc7489);
    let ours = Element::read(ours.xml());
    for (path, says) in [
        ("policy_published/adkim", "r"),
        ("policy_published/aspf", "s"),
        ("policy_published/pct", "100"),
        ("policy_published/fo", "0"),
        ("record/row/policy_evaluated/disposition", "none"),
        ("record/auth_results/spf/scope", "mfrom"),
    ] {
        assert_eq!(ours.at(path), Some(says), "{path}");
    }
}

#[test]
fn whatever_comes_of_a_message_has_its_word_in_both_schemas() {
    let dkim_results = [
        DkimResult::Pass,
        DkimResult::Fail,
        DkimResult::Policy,
        DkimResult::Neutral,
        DkimResult::TempError,
        DkimResult::PermError,
    ];
    let spf_results = [
        SpfResult::None,
        SpfResult::Neutral,
        SpfResult::Pass,
        SpfResult::Fail,
        SpfResult::SoftFail,
        SpfResult::TempError,
        SpfResult::PermError,
    ];
    let kinds = [
        OverrideKind::Forwarded,
        OverrideKind::SampledOut,
        OverrideKind::TrustedForwarder,
        OverrideKind::MailingList,
        OverrideKind::LocalPolicy,
        OverrideKind::TestMode,
        OverrideKind::Other,
    ];
    let mut messages = Messages::default();
    for n in 0..7 {
        let mut row = row();
        row.disposition = [Disposition::Deliver, Disposition::Quarantine, Disposition::Reject][n % 3];
        row.dkim_aligned = Alignment::Fail;
        row.dkim[0].result = dkim_results[n % 6];
        row.spf = SpfAuth { domain: String::new(), scope: SpfScope::Helo, result: spf_results[n] };
        row.envelope_from = None;
        row.envelope_to = Some("receiver.example".to_owned());
        row.overrides = vec![Override { kind: kinds[n], comment: Some("x".to_owned()) }];
        messages.count(0, "example.com", &published(), &row);
    }
    let day = day(&mut messages, 0);
    for (schema, others) in [(Schema::Rfc7489, 2), (Schema::Rfc9990, 3)] {
        let report = Element::read(only(&day, "example.com", schema).xml());
        assert_eq!(report.all("record").count(), 7);
        let reasons = report.all("record").map(|record| record.at("row/policy_evaluated/reason/type").unwrap());
        assert_eq!(reasons.filter(|reason| *reason == "other").count(), others);
        assert!(report.all("record").all(|record| record.at("identifiers/envelope_from") == Some("")));
        let of_kind = |name: &str| {
            let comments = report.all("record").filter_map(|record| record.at("row/policy_evaluated/reason/comment"));
            comments.filter(|comment| comment.starts_with(name)).count()
        };
        // What one schema has no name for keeps the other one's.
        let kept = match schema {
            Schema::Rfc7489 => ["policy_test_mode: x"].as_slice(),
            Schema::Rfc9990 => &["sampled_out: x", "forwarded: x"],
        };
        assert!(kept.iter().all(|name| of_kind(name) == 1), "{report:?}");
        let scopes = report.all("record").map(|record| record.at("auth_results/spf/scope"));
        let scope = (schema == Schema::Rfc7489).then_some("helo");
        assert!(scopes.into_iter().all(|of| of == scope));
    }
    // Passed is what a policy would have stopped otherwise.
    for (header_from, aligned, disposition) in [
        ("example.com", Alignment::Pass, "pass"),
        ("example.com", Alignment::Fail, "none"),
        ("a.example.com", Alignment::Pass, "none"),
    ] {
        let mut messages = Messages::default();
        let row = Row { header_from: header_from.to_owned(), dkim_aligned: aligned, ..row() };
        messages.count(0, "example.com", &published(), &row);
        let report = Element::read(only(&super::tests::day(&mut messages, 0), "example.com", Schema::Rfc9990).xml());
        assert_eq!(report.at("record/row/policy_evaluated/disposition"), Some(disposition), "{header_from}");
    }
}

#[test]
fn a_policy_that_changes_in_a_day_has_a_report_of_its_own() {
    let mut messages = Messages::default();
    for percent in 0..10 {
        messages.count(0, "example.com", &Published { percent, ..published() }, &row());
    }
    let day = day(&mut messages, 0);
    let reports = day.reports("example.com", &reporter(), Schema::Rfc7489);
    assert_eq!(reports.len(), POLICIES_MAX);
    let mut ids: Vec<&str> = reports.iter().map(Report::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), POLICIES_MAX);
    for report in &reports {
        let read = Element::read(report.xml());
        let error = read.at("report_metadata/error").unwrap();
        assert!(error.starts_with("6 messages of this domain are in no record"), "{error}");
    }
    assert_eq!(day.lost(), Lost { untold: 6, unlisted: 0 });
}

#[test]
fn ten_thousand_rows_are_bounded_and_the_report_says_what_it_leaves_out() {
    let mut messages = Messages::default();
    for n in 0..10_000u32 {
        let row = Row { source: n.to_be_bytes().into(), ..row() };
        messages.count(0, "example.com", &published(), &row);
        messages.count(0, "example.com", &published(), &row);
    }
    // Messages of others have room, and what is there is counted on.
    messages.count(0, "example.org", &published(), &row());
    assert!(messages.bytes() <= POLICY_MAX_BYTES + (16 << 10), "{}", messages.bytes());
    let day = day(&mut messages, 0);
    let lost = 2 * (10_000 - ROWS_MAX as u64);
    assert_eq!(day.lost(), Lost { untold: 0, unlisted: lost });
    assert_eq!(day.total(), 20_001);
    for schema in SCHEMAS {
        let report = only(&day, "example.com", schema);
        let read = Element::read(report.xml());
        assert_eq!(read.all("record").count(), ROWS_MAX);
        assert!(read.all("record").all(|record| record.at("row/count") == Some("2")));
        assert!(read.at("report_metadata/error").unwrap().starts_with(&format!("{lost} messages")));
        let mail = report.mail(&reporter(), "a@example.com", 0);
        assert!(String::from_utf8(mail.bytes).unwrap().contains(&format!("{lost} messages of this domain")));
        assert_eq!(read_error(&day, "example.org", schema), None);
    }
    // It takes several records to write it down, and they come back in any order.
    let mut parts = day.encode();
    assert!(parts.len() > 2 && parts.iter().all(|part| part.len() <= PART_MAX_BYTES), "{}", parts.len());
    for _ in 0..2 {
        parts.reverse();
        let mut read = MessagesOfDay::new(day.day());
        parts.iter().for_each(|part| read.merge(MessagesOfDay::decode(part).unwrap()).unwrap());
        assert_eq!(read, day);
    }
}

fn read_error(day: &MessagesOfDay, domain: &str, schema: Schema) -> Option<String> {
    Element::read(only(day, domain, schema).xml()).at("report_metadata/error").map(str::to_owned)
}

#[test]
fn a_day_has_room_for_so_much_and_no_more() {
    let mut messages = Messages::default();
    let name = |n: usize| format!("{}.{n}.test", ["x".repeat(60).as_str(); 3].join("."));
    let long = |n: usize| Row {
        header_from: name(n),
        dkim: vec![DkimAuth { domain: name(n), selector: name(n), result: DkimResult::Fail }; SIGNATURES_MAX],
        ..row()
    };
    let mut n = 0;
    // Looking for what is lost takes longer than counting.
    while n % 256 != 0 || messages.lost() == Lost::default() {
        messages.count(0, &name(n), &published(), &long(n));
        n += 1;
    }
    assert!(messages.bytes() <= DAY_MAX_BYTES && messages.bytes() > DAY_MAX_BYTES - (16 << 10));
    assert!(n < DOMAINS_MAX && n > 1_000, "{n}");
    let mut messages = Messages::default();
    let mut n = 0;
    while messages.lost() == Lost::default() {
        let of = Row { source: [10, 0, (n / 256) as u8, (n % 256) as u8].into(), ..long(0) };
        messages.count(0, "example.com", &published(), &of);
        n += 1;
    }
    assert!(n < ROWS_MAX && messages.bytes() <= POLICY_MAX_BYTES + 4_096, "{n}");
    let mut messages = Messages::default();
    (0..DOMAINS_MAX + 3).for_each(|n| messages.count(0, &format!("{n}.test"), &published(), &row()));
    assert!(messages.lost().untold >= 3 && messages.bytes() <= DAY_MAX_BYTES);
    assert!(day(&mut messages, 0).domains().count() > DOMAINS_MAX / 2);
}

#[test]
fn what_strangers_write_stays_text_in_xml_and_is_cut_between_characters() {
    let hostile = "</domain><a>&amp;\r\n\0\u{1}\u{fffe}\u{202e}]]>\"'";
    let mut messages = Messages::default();
    let of = Row {
        header_from: format!("{hostile}{}", "ä".repeat(10_000)),
        envelope_from: Some(hostile.to_owned()),
        envelope_to: Some(hostile.to_owned()),
        overrides: vec![
            Override { kind: OverrideKind::Other, comment: Some(format!("x{}", "ä".repeat(10_000))) };
            OVERRIDES_MAX + 2
        ],
        dkim: vec![
            DkimAuth { domain: hostile.to_owned(), selector: hostile.to_owned(), result: DkimResult::Fail };
            SIGNATURES_MAX + 2
        ],
        spf: SpfAuth { domain: hostile.to_owned(), ..row().spf },
        source: "::ffff:192.0.2.1".parse().unwrap(),
        ..row()
    };
    let published = Published { percent: 255, failure_options: format!("1:{hostile}"), ..published() };
    messages.count(0, "example.com", &published, &of);
    for none in ["example\r\n.com", "a\0.test", "", "[192.0.2.1]"] {
        messages.count(0, none, &published, &of);
    }
    assert_eq!(messages.lost().untold, 4);
    let day = day(&mut messages, 0);
    for schema in SCHEMAS {
        let report = only(&day, "example.com", schema);
        let read = Element::read(report.xml());
        let said = "</domain><a>&amp;??????]]>\"'";
        assert_eq!(read.at("record/identifiers/envelope_from"), Some(said));
        assert_eq!(read.at("record/auth_results/dkim/selector"), Some(said));
        let from = read.at("record/identifiers/header_from").unwrap();
        assert!(from.starts_with(said) && from.ends_with('ä') && from.len() <= NAME_MAX_BYTES, "{from}");
        assert_eq!(read.at("record/row/source_ip"), Some("192.0.2.1"));
        let results = read.all("record").next().unwrap().all("auth_results").next().unwrap();
        assert_eq!(results.all("dkim").count(), SIGNATURES_MAX);
        let evaluated = read.all("record").next().unwrap().all("row").next().unwrap().all("policy_evaluated").next();
        let reasons: Vec<&Element> = evaluated.unwrap().all("reason").collect();
        assert_eq!(reasons.len(), OVERRIDES_MAX);
        let comment = reasons[0].at("comment").unwrap();
        assert_eq!(comment, format!("x{}", "ä".repeat((COMMENT_MAX_BYTES - 1) / 2)));
    }
    assert_eq!(Element::read(only(&day, "example.com", Schema::Rfc7489).xml()).at("policy_published/pct"), Some("100"));
}

#[test]
fn the_mail_is_as_rfc_7489_wants_it_and_its_parts_are_read_by_others() {
    let mut messages = Messages::default();
    messages.count(0, "example.com", &published(), &row());
    let report = only(&day(&mut messages, 0), "example.com", Schema::Rfc7489);
    let mail = report.mail(&reporter(), "reports@example.com", 86_400);
    assert_eq!((mail.to.as_str(), mail.asked), ("reports@example.com", Asked::Nothing));
    let mut lines = mail.bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    assert!(lines.all(|line| line.ends_with(b"\r") && line.len() < 998 && line.is_ascii()));
    let read = mail_parser::MessageParser::default().parse(&mail.bytes).unwrap();
    let (id, domain) = (report.id(), "mail.receiver.example");
    let subject = format!("Report Domain: example.com Submitter: {domain} Report-ID: <{id}@{domain}>");
    assert_eq!(read.subject(), Some(subject.as_str()));
    assert_eq!(read.from().unwrap().first().unwrap().address(), Some("report_sender@example-reporter.com"));
    assert_eq!(read.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
    assert!(read.header_raw("TLS-Required").is_none());
    let file = read.attachment(0).unwrap();
    assert_eq!(file.attachment_name(), Some(report.file_name()));
    let mut xml = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file.contents()), &mut xml).unwrap();
    assert_eq!(xml, report.xml());
    assert!(read.body_text(0).unwrap().contains("of 1970-01-01 (UTC): 1 messages passed, 0 failed."));
    let whole = Part::parse(&mail.bytes).unwrap();
    let part = whole.find(&[2]).unwrap();
    assert_eq!((part.media_type.as_slice(), part.subtype.as_slice()), (&b"application"[..], &b"gzip"[..]));
    assert!(whole.find(&[3]).is_none());
}
