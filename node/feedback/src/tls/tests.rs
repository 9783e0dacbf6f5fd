//! Reports of TLS: against the RFC's example, hostile values, bounds, and the mail.

use mail_parser::MimeHeaders;
use mailraft_message::Part;
use mailraft_outbound::tls::policy::Asked;
use mailraft_outbound::tls::report::{AppliedPolicy, FailureKind};

use super::*;
use crate::collector::due_unix_s;
use crate::day::DAY_SECONDS;
use crate::reporter::Reporter;

/// 2016-04-01, in seconds since 1970-01-01.
const APPENDIX_B: u64 = 16_892 * DAY_SECONDS;

fn reporter() -> Reporter {
    Reporter::new("Company-X", "mail.company-x.example", "tlsrpt@company-x.example", "sts-reporting@company-x.example")
        .unwrap()
}

fn sts() -> AppliedPolicy {
    let lines = ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"];
    AppliedPolicy::Sts {
        lines: lines.map(str::to_owned).to_vec(),
        patterns: vec!["*.mail.company-y.example".to_owned()],
    }
}

fn failure(kind: FailureKind, host: &str) -> Failure {
    Failure { kind, our_address: None, host: Some(host.to_owned()), host_address: None, reason: None }
}

fn day(sessions: &mut Sessions, now_unix_s: u64) -> SessionsOfDay {
    sessions.forget_told(now_unix_s / DAY_SECONDS).unwrap()
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out).unwrap();
    out
}

#[test]
fn a_report_is_like_that_of_rfc_8460() {
    let mut sessions = Sessions::default();
    let mut count = |times, failure: Option<&Failure>| {
        (0..times).for_each(|_| sessions.count(APPENDIX_B + 7, "Company-Y.example", &sts(), failure));
    };
    count(5_326, None);
    let expired = Failure {
        our_address: Some("2001:db8:abcd:0012::1".parse().unwrap()),
        ..failure(FailureKind::CertificateExpired, "mx1.mail.company-y.example")
    };
    count(100, Some(&expired));
    let refused = Failure {
        our_address: Some("2001:db8:abcd:0013::1".parse().unwrap()),
        host_address: Some([203, 0, 113, 56].into()),
        ..failure(FailureKind::StarttlsNotSupported, "mx2.mail.company-y.example")
    };
    count(200, Some(&refused));
    let other = Failure {
        our_address: Some([198, 51, 100, 62].into()),
        host_address: Some([203, 0, 113, 58].into()),
        reason: Some("X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED".to_owned()),
        ..failure(FailureKind::ValidationFailure, "mx-backup.mail.company-y.example")
    };
    count(3, Some(&other));
    let day = day(&mut sessions, APPENDIX_B);
    let report = day.report("company-y.example", &reporter()).unwrap();
    let mut ours = json(report.json());
    let mut theirs = json(include_bytes!("../../testdata/rfc8460-appendix-b.json"));
    assert_eq!(ours["report-id"], report.id());
    // An id is anybody's own, we have no page that tells more, and failures have no order.
    for value in [&mut ours, &mut theirs] {
        value["report-id"].take();
        let details = value["policies"][0]["failure-details"].as_array_mut().unwrap();
        details.iter_mut().for_each(|of| drop(of.as_object_mut().unwrap().remove("additional-information")));
        details.sort_by_key(|of| of["failed-session-count"].as_u64());
    }
    assert_eq!(ours, theirs);
    let id = report.id();
    let name = format!("mail.company-x.example!company-y.example!1459468800!1459555199!{id}.json.gz");
    assert_eq!(report.file_name(), name);
    assert!(day.report("other.test", &reporter()).is_none());
}

#[test]
fn a_report_has_its_domain_and_its_lists_whatever_the_policy() {
    let mut sessions = Sessions::default();
    let tlsa = AppliedPolicy::Tlsa { base: "mx.b.test".into(), records: vec!["3 1 1 00".into()] };
    sessions.count(0, "b.test", &tlsa, None);
    sessions.count(0, "b.test", &AppliedPolicy::NoPolicy, None);
    let report = json(day(&mut sessions, 0).report("b.test", &reporter()).unwrap().json());
    let policies = report["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 2);
    assert_eq!(policies[0]["policy"]["policy-type"], "tlsa");
    assert_eq!(policies[0]["policy"]["policy-domain"], "mx.b.test");
    assert_eq!(policies[0]["policy"]["policy-string"][0], "3 1 1 00");
    assert_eq!(policies[1]["policy"]["policy-type"], "no-policy-found");
    assert_eq!(policies[1]["policy"]["policy-domain"], "b.test");
    for policy in policies {
        assert!(policy["failure-details"].is_array() && policy["policy"]["mx-host"].is_array());
    }
    assert_eq!(report["date-range"]["start-datetime"], "1970-01-01T00:00:00Z");
}

#[test]
fn every_failure_has_the_name_that_rfc_8460_gives_it() {
    use FailureKind as K;
    let kinds = [
        (K::StarttlsNotSupported, "starttls-not-supported"),
        (K::CertificateHostMismatch, "certificate-host-mismatch"),
        (K::CertificateExpired, "certificate-expired"),
        (K::CertificateNotTrusted, "certificate-not-trusted"),
        (K::ValidationFailure, "validation-failure"),
        (K::TlsaInvalid, "tlsa-invalid"),
        (K::DnssecInvalid, "dnssec-invalid"),
        (K::DaneRequired, "dane-required"),
        (K::StsPolicyFetchError, "sts-policy-fetch-error"),
        (K::StsPolicyInvalid, "sts-policy-invalid"),
        (K::StsWebpkiInvalid, "sts-webpki-invalid"),
    ];
    let mut sessions = Sessions::default();
    kinds.iter().for_each(|(kind, _)| sessions.count(0, "b.test", &sts(), Some(&failure(*kind, "mx.b.test"))));
    let report = json(day(&mut sessions, 0).report("b.test", &reporter()).unwrap().json());
    let details = report["policies"][0]["failure-details"].as_array().unwrap();
    let mut told: Vec<&str> = details.iter().map(|of| of["result-type"].as_str().unwrap()).collect();
    let mut names = kinds.map(|(_, name)| name);
    told.sort_unstable();
    names.sort_unstable();
    assert_eq!(told, names);
}

#[test]
fn counters_are_bounded_and_what_has_no_room_is_told() {
    let mut sessions = Sessions::default();
    let domain = |n: usize| format!("{}.{}.{n}.test", "x".repeat(60), "y".repeat(60));
    let mut n = 0;
    // Looking for what is lost takes longer than counting.
    while n % 256 != 0 || sessions.lost().untold == 0 {
        sessions.count(0, &domain(n), &sts(), Some(&failure(FailureKind::CertificateExpired, &domain(n))));
        n += 1;
        assert!(sessions.bytes() <= DAY_MAX_BYTES);
    }
    assert!(n > DAY_MAX_BYTES / 4_096 && n <= DOMAINS_MAX, "{n}");
    // What is there is counted on.
    let lost = sessions.lost();
    sessions.count(0, &domain(0), &sts(), None);
    assert_eq!(sessions.lost(), lost);
    let day = day(&mut sessions, 0);
    assert_eq!(day.total(), n as u64 + 1);
}

#[test]
fn so_many_domains_are_counted_in_a_day() {
    let mut sessions = Sessions::default();
    (0..DOMAINS_MAX + 5).for_each(|n| sessions.count(0, &format!("{n}.test"), &AppliedPolicy::NoPolicy, None));
    assert_eq!(sessions.lost().untold, 5);
    assert_eq!(day(&mut sessions, 0).domains().count(), DOMAINS_MAX);
}

#[test]
fn no_domain_takes_the_room_of_all() {
    let mut sessions = Sessions::default();
    for n in 0..1_000 {
        let policy = AppliedPolicy::Tlsa { base: format!("mx{n}.b.test"), records: vec!["3 1 1 00".into(); 1_000] };
        sessions.count(0, "b.test", &policy, None);
    }
    assert_eq!(sessions.lost(), crate::day::Lost { untold: 1_000 - POLICIES_MAX as u64, unlisted: 0 });
    for n in 0..1_000 {
        sessions.count(0, "c.test", &sts(), Some(&failure(FailureKind::ValidationFailure, &format!("mx{n}.c.test"))));
    }
    assert!(sessions.bytes() < 256 << 10, "{}", sessions.bytes());
    let mut wide = Sessions::default();
    for n in 0..100 {
        let records = vec!["x".repeat(10_000); 1_000];
        let policy = AppliedPolicy::Tlsa { base: format!("mx{n}.b.test"), records };
        wide.count(0, "b.test", &policy, None);
    }
    assert!(wide.bytes() <= DOMAIN_MAX_BYTES + 1_024 && wide.lost().untold > 84, "{}", wide.bytes());
    let day = day(&mut sessions, 0);
    let report = day.report("c.test", &reporter()).unwrap();
    let told = json(report.json());
    assert_eq!(told["policies"][0]["failure-details"].as_array().unwrap().len(), FAILURES_MAX);
    assert_eq!(told["policies"][0]["summary"]["total-failure-session-count"], 1_000, "the sum has all");
    let mail = report.mail(&reporter(), "a@c.test", 0);
    let text = String::from_utf8(mail.bytes).unwrap();
    assert!(text.contains(&format!("Of {} failed sessions the report has the sum", 1_000 - FAILURES_MAX)), "{text}");
    let mail = day.report("b.test", &reporter()).unwrap().mail(&reporter(), "a@b.test", 0);
    assert!(String::from_utf8(mail.bytes).unwrap().contains("984 more sessions are not in the report"));
}

#[test]
fn what_strangers_say_is_cut_between_characters_and_ends_nothing() {
    let mut sessions = Sessions::default();
    let hostile = Failure {
        reason: Some(format!("{}\r\nBcc: \0\u{202e}", "ä".repeat(10_000))),
        host: Some("mx\r\n.b.test\"}".to_owned()),
        ..failure(FailureKind::ValidationFailure, "")
    };
    let short = Failure { reason: Some("a\r\nb\u{7}".to_owned()), ..hostile.clone() };
    sessions.count(0, "b.test", &AppliedPolicy::NoPolicy, Some(&hostile));
    sessions.count(0, "b.test", &AppliedPolicy::NoPolicy, Some(&short));
    for none in ["b\r\n.test", "b\0.test", "", "192.0.2.1", "a b", &"x".repeat(300)] {
        sessions.count(0, none, &AppliedPolicy::NoPolicy, None);
    }
    assert_eq!(sessions.lost().untold, 6);
    let report = json(day(&mut sessions, 0).report("b.test", &reporter()).unwrap().json());
    let details = report["policies"][0]["failure-details"].as_array().unwrap();
    let mut reasons: Vec<&str> = details.iter().map(|of| of["failure-reason-code"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["a??b?", "ä".repeat(REASON_MAX_BYTES / 2).as_str()]);
    assert_eq!(details[0]["receiving-mx-hostname"], "mx??.b.test\"}");
}

#[test]
fn the_longest_policies_and_failures_fit_the_parts_of_a_day() {
    let mut sessions = Sessions::default();
    for n in 0..POLICIES_MAX {
        let long = vec![format!("{n}{}", "x".repeat(1_000)); 1_000];
        let policy = AppliedPolicy::Sts { lines: long.clone(), patterns: long };
        let failure =
            Failure { reason: Some("x".repeat(1_000)), ..failure(FailureKind::ValidationFailure, "mx.b.test") };
        sessions.count(0, "b.test", &policy, Some(&failure));
    }
    let parts = sessions.encode();
    assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= crate::PART_MAX_BYTES));
    assert_eq!(Sessions::decode(parts.iter().map(Vec::as_slice), 0).unwrap(), sessions);
}

#[test]
fn the_mail_is_as_rfc_8460_wants_it_and_its_parts_are_read_by_others() {
    let mut sessions = Sessions::default();
    for n in 0..50 {
        sessions.count(0, "b.test", &sts(), Some(&failure(FailureKind::ValidationFailure, &format!("mx{n}.b.test"))));
    }
    let report = day(&mut sessions, 0).report("b.test", &reporter()).unwrap();
    let mail = report.mail(&reporter(), "reports@b.test", 1_459_555_200);
    assert_eq!((mail.to.as_str(), mail.asked), ("reports@b.test", Asked::TlsNotRequired));
    let lines = mail.bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    assert!(lines.clone().all(|line| line.ends_with(b"\r") && line.len() < 998 && line.is_ascii()));
    assert!(lines.count() > 20);

    let read = mail_parser::MessageParser::default().parse(&mail.bytes).unwrap();
    let id = report.id();
    let subject =
        format!("Report Domain: b.test Submitter: mail.company-x.example Report-ID: <{id}@mail.company-x.example>");
    assert_eq!(read.subject(), Some(subject.as_str()));
    assert_eq!(read.message_id(), Some(format!("{id}@mail.company-x.example").as_str()));
    assert_eq!(read.header_raw("TLS-Report-Domain").map(str::trim), Some("b.test"));
    assert_eq!(read.header_raw("TLS-Report-Submitter").map(str::trim), Some("mail.company-x.example"));
    assert_eq!(read.header_raw("TLS-Required").map(str::trim), Some("No"));
    assert_eq!(read.header_raw("Date").map(str::trim), Some("Sat, 2 Apr 2016 00:00:00 +0000"));
    let kind = read.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("tlsrpt"));
    let file = read.attachment(0).unwrap();
    assert_eq!(file.attachment_name(), Some(report.file_name()));
    assert_eq!(gunzip(file.contents()), report.json());
    assert!(read.body_text(0).unwrap().contains("0 sessions were as they are to be, 50 failed."));

    // And by the house's own.
    let whole = Part::parse(&mail.bytes).unwrap();
    let file = whole.find(&[2]).unwrap();
    let of = |of: &Part| (of.media_type.clone(), of.subtype.clone());
    assert_eq!(of(&whole), (b"multipart".to_vec(), b"report".to_vec()));
    assert_eq!(of(file), (b"application".to_vec(), b"tlsrpt+gzip".to_vec()));
    let post = report.post();
    assert_eq!((post.content_type, gunzip(&post.body)), ("application/tlsrpt+gzip", report.json().to_vec()));
    assert_eq!(report.mail(&reporter(), "reports@b.test", 1_459_555_200), mail, "the same whenever it is made");
}

#[test]
fn reports_are_due_when_all_nodes_had_time_and_not_all_at_once() {
    assert_eq!(due_unix_s(0, 0), DAY_SECONDS + crate::COLLECTING_S);
    let last = due_unix_s(0, u16::MAX);
    let end = DAY_SECONDS + crate::COLLECTING_S + crate::SPREAD_S;
    assert!(last < end && last > end - 2, "{last}");
    assert_eq!(due_unix_s(u64::MAX, u16::MAX), u64::MAX);
}
