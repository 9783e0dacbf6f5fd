//! Reports as they go out, and what strangers write into them.

use mailraft_message::budget::PARTS_MAX;
use mailraft_message::header::fields;
use mailraft_message::{Body, Part};
use proptest::prelude::*;

use super::*;
use crate::seven_bit::has_seven_bit_form;

const REPORTER: Reporter<'static> = Reporter { host: "mx1.example.org", from: "MAILER-DAEMON@example.org" };
/// Thu, 14 Aug 2025 14:15 UTC
const ARRIVED_UNIX_S: i64 = 1_755_180_900;
const NOW_UNIX_S: i64 = ARRIVED_UNIX_S + 3_600;
const UNIQUE: [u8; 16] = [7; 16];
const HEADER: &[u8] = b"From: Jane <jane@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch\r\n\
                        Message-ID: <lunch@example.org>\r\n\r\n";

fn original() -> Original<'static> {
    Original {
        reverse_path: Some("jane@example.org"),
        envelope_id: None,
        arrived_unix_s: ARRIVED_UNIX_S,
        smtputf8: false,
        header: HEADER,
        whole: None,
    }
}

fn recipient(address: &'static str, action: Action, status: &str) -> Recipient<'static> {
    Recipient {
        address,
        original: None,
        notify: None,
        action,
        status: Status::parse(status).unwrap(),
        diagnostic: Diagnostic::None,
        last_attempt_unix_s: Some(NOW_UNIX_S),
    }
}

fn written(original: &Original<'_>, recipients: &[Recipient<'_>]) -> Vec<u8> {
    report(REPORTER, original, recipients, NOW_UNIX_S, UNIQUE).unwrap().message
}

/// The kinds of a report's parts, and their bodies; it is one of three parts, by two readers.
fn parts(message: &[u8]) -> Vec<(String, String)> {
    let whole = Part::parse(message).unwrap();
    let of = |part: &Part| {
        format!("{}/{}", String::from_utf8_lossy(&part.media_type), String::from_utf8_lossy(&part.subtype))
    };
    assert_eq!(of(&whole), "multipart/report");
    let Body::Multipart(parts) = &whole.kind else { panic!("no multipart") };
    let other = mail_parser::MessageParser::default().parse(message).unwrap();
    let mail_parser::PartType::Multipart(ids) = &other.parts[0].body else { panic!("no multipart") };
    assert_eq!((parts.len(), ids.len()), (3, 3));
    let body =
        |part: &Part| String::from_utf8_lossy(&message[part.body.start as usize..part.body.end as usize]).into_owned();
    parts.iter().map(|part| (of(part), body(part))).collect()
}

fn check(golden: &str, message: &[u8]) {
    parts(message);
    assert_eq!(String::from_utf8_lossy(message), golden.replace('\n', "\r\n"));
}

#[test]
fn what_failed_is_told_with_what_the_other_server_said() {
    let original = Original { envelope_id: Some("QQ+2B314159"), ..original() };
    let failed = Recipient {
        original: Some("rfc822;Bob@example.net"),
        notify: Some("FAILURE"),
        diagnostic: Diagnostic::Reply {
            host: "mx.example.net",
            reply: "550-5.1.1 The email account that you tried to reach does not exist.\r\n550 5.1.1 Please try double-checking",
        },
        ..recipient("bob@example.net", Action::Failed, "5.1.1")
    };
    check(include_str!("golden/failed.txt"), &written(&original, &[failed]));
}

#[test]
fn what_is_delayed_is_told_with_how_long_it_is_tried() {
    let delayed = Recipient {
        diagnostic: Diagnostic::Own("The host mx.example.net does not answer at port 25."),
        ..recipient("bob@example.net", Action::Delayed { retry_until_unix_s: ARRIVED_UNIX_S + 432_000 }, "4.4.1")
    };
    check(include_str!("golden/delayed.txt"), &written(&original(), &[delayed]));
}

#[test]
fn what_went_on_and_what_arrived_is_told_to_who_asked() {
    let of = |address, action| Recipient { notify: Some("SUCCESS"), ..recipient(address, action, "2.0.0") };
    let relayed = Recipient {
        diagnostic: Diagnostic::Reply { host: "mx.example.net", reply: "250 2.0.0 queued" },
        ..of("bob@example.net", Action::Relayed)
    };
    check(include_str!("golden/relayed.txt"), &written(&original(), &[relayed]));
    check(include_str!("golden/delivered.txt"), &written(&original(), &[of("eve@example.org", Action::Delivered)]));
}

#[test]
fn one_report_tells_of_several_recipients_with_the_whole_message() {
    let message = [HEADER, b"Are you there?\r\n"].concat();
    let original = Original { whole: Some(&message), ..original() };
    let all = [
        recipient("bob@example.net", Action::Delayed { retry_until_unix_s: ARRIVED_UNIX_S + 432_000 }, "4.2.2"),
        recipient("eve@example.com", Action::Failed, "5.7.1"),
        Recipient { notify: Some("NEVER"), ..recipient("hidden@example.com", Action::Failed, "5.1.1") },
        Recipient { notify: Some("SUCCESS"), ..recipient("al@example.com", Action::Delivered, "2.0.0") },
        recipient("unasked@example.com", Action::Delivered, "2.0.0"),
    ];
    let told = written(&original, &all);
    check(include_str!("golden/several.txt"), &told);
    let attached = parts(&told).remove(2);
    assert_eq!(attached, ("message/rfc822".to_owned(), String::from_utf8(message).unwrap()));
}

#[test]
fn an_original_that_some_server_can_not_take_comes_back_as_its_header() {
    let failed = recipient("bob@example.net", Action::Failed, "5.1.1");
    let third = |smtputf8, whole: &[u8]| {
        let original = Original { smtputf8, header: whole, whole: Some(whole), ..original() };
        let told = written(&original, &[failed]);
        let kind = parts(&told).remove(2).0;
        // It goes wherever mail goes.
        assert!(smtputf8 || has_seven_bit_form(&Part::parse(&told).unwrap(), &told));
        kind
    };
    let body = "Subject: a\r\n\r\nGr\u{fc}\u{df}e\r\n";
    let field = "Subject: Gr\u{fc}\u{df}e\r\n\r\na\r\n";
    let of_part = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; name=\u{fc}\r\n\r\na\r\n--b--\r\n";
    let signed =
        "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nGr\u{fc}\u{df}e\r\n--b\r\n\r\nx\r\n--b--\r\n";
    assert_eq!(third(false, body.as_bytes()), "message/rfc822");
    for original in [field, of_part, signed] {
        assert_eq!(third(false, original.as_bytes()), "text/rfc822-headers", "{original}");
        assert_eq!(third(true, original.as_bytes()), "message/global", "{original}");
    }
    // As many parts as a message may have are too many in another one, unless nobody looks into it.
    let many = "--b\r\n\r\na\r\n".repeat(PARTS_MAX - 1);
    let many = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{many}--b--\r\n");
    Part::parse(many.as_bytes()).unwrap();
    assert_eq!(third(false, many.as_bytes()), "text/rfc822-headers");
    assert_eq!(third(true, many.as_bytes()), "message/global");
}

#[test]
fn what_was_sent_with_smtputf8_is_told_in_utf8() {
    let header = "From: J\u{f6}rg <j\u{f6}rg@b\u{fc}cher.example>\r\nSubject: Gr\u{fc}\u{df}e\r\n\r\n";
    let original = Original {
        reverse_path: Some("j\u{f6}rg@b\u{fc}cher.example"),
        smtputf8: true,
        header: header.as_bytes(),
        ..original()
    };
    let failed = recipient("\u{7528}\u{6237}@\u{4f8b}\u{5b50}.example", Action::Failed, "5.6.7");
    check(include_str!("golden/utf8.txt"), &written(&original, &[failed]));
    let refused = report(REPORTER, &Original { smtputf8: false, ..original }, &[failed], 0, UNIQUE);
    assert_eq!(refused, Err(ReportRefusal::NoAddress));
}

#[test]
fn nobody_is_told_who_is_not_there_or_did_not_ask() {
    let failed = recipient("bob@example.net", Action::Failed, "5.1.1");
    let refused = |path, recipients: &[Recipient<'_>]| {
        report(REPORTER, &Original { reverse_path: path, ..original() }, recipients, 0, UNIQUE).err()
    };
    assert_eq!(refused(None, &[failed]), Some(ReportRefusal::NullReversePath));
    assert_eq!(refused(Some(""), &[failed]), Some(ReportRefusal::NullReversePath));
    assert_eq!(refused(Some("nobody"), &[failed]), Some(ReportRefusal::NoAddress));
    let jane = Some("jane@example.org");
    assert_eq!(refused(jane, &[]), Some(ReportRefusal::NobodyAsked));
    assert_eq!(refused(jane, &[Recipient { notify: Some("NEVER"), ..failed }]), Some(ReportRefusal::NobodyAsked));
    assert_eq!(refused(jane, &[Recipient { notify: Some("DELAY"), ..failed }]), Some(ReportRefusal::NobodyAsked));
    assert_eq!(refused(jane, &[failed]), None);
}

#[test]
fn of_many_recipients_the_first_are_listed_and_the_others_counted() {
    let failed = recipient("bob@example.net", Action::Failed, "5.1.1");
    let of = |number: usize| parts(&written(&original(), &vec![failed; number]));
    let listed = |parts: &[(String, String)]| parts[1].1.matches("\r\nFinal-Recipient: ").count();
    let all = of(RECIPIENTS_MAX);
    assert_eq!(listed(&all), RECIPIENTS_MAX);
    assert!(!all[0].1.contains("not listed") && !all[1].1.contains("Not-Listed"));
    let more = of(RECIPIENTS_MAX + 23);
    assert_eq!(listed(&more), RECIPIENTS_MAX);
    assert!(more[0].1.contains("There are 23 more recipients"), "{}", more[0].1);
    assert!(more[1].1.contains("\r\nX-Mailraft-Recipients-Not-Listed: 23\r\n"));
}

#[test]
fn a_report_is_no_longer_than_its_bounds() {
    let (long, header) = ("x".repeat(1 << 20), b"X: y\r\n".repeat(1 << 20));
    let original = Original { envelope_id: Some(&long), header: &header, ..original() };
    let failed = Recipient {
        address: &long,
        original: Some(&long),
        diagnostic: Diagnostic::Reply { host: &long, reply: &long },
        ..recipient("", Action::Failed, "5.1.1")
    };
    let told = written(&original, &vec![failed; 1_000]);
    assert!(told.len() < ORIGINAL_HEADER_MAX_BYTES + RECIPIENTS_MAX * 8_000, "{}", told.len());
}

/// What a stranger would write to make another report of it.
fn hostile() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "\r\n",
            "\n",
            "\r",
            "\0",
            ":",
            ";",
            " ",
            "\t",
            "--",
            "--=_",
            "\r\n\r\n",
            "Bcc: x@y.test",
            "Action: delivered",
            "Content-Type: text/html",
            "<",
            ">",
            "@",
            "\"",
            "\\",
            "(",
            "+0D+0A",
            "\u{2028}",
            "\u{85}",
            "\u{202e}",
            "550 ",
            "rfc822;",
            "a.test",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
        "x{0,1200}",
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_strangers_write_a_report_is_three_parts_and_its_fields_are_ours(
        reverse_path in prop_oneof![hostile(), hostile().prop_map(|local| format!("{local}@a.test"))],
        texts in prop::collection::vec(prop::option::of(hostile()), 8),
        header in prop_oneof![hostile().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..400)],
        attach_all in any::<bool>(),
        own in any::<bool>(),
        smtputf8 in any::<bool>(),
        times in any::<[i64; 3]>(),
        kind in 0usize..4,
        (class, subject, detail) in (0usize..3, any::<u16>(), any::<u16>()),
        number in 1usize..4,
    ) {
        let text = |at: usize| texts[at].as_deref();
        let original = Original {
            reverse_path: Some(&reverse_path),
            envelope_id: text(0),
            arrived_unix_s: times[0],
            smtputf8,
            header: &header,
            whole: attach_all.then_some(b"A: b\r\n\r\nbody"),
        };
        let action = [
            Action::Failed, Action::Delayed { retry_until_unix_s: times[1] }, Action::Relayed, Action::Delivered,
        ][kind];
        let (host, reply) = (text(1).unwrap_or_default(), text(2).unwrap_or_default());
        let recipient = Recipient {
            address: text(3).unwrap_or_default(),
            original: text(4),
            notify: Some("SUCCESS,FAILURE,DELAY"),
            action,
            status: Status::new([Class::Success, Class::Transient, Class::Permanent][class], subject, detail),
            diagnostic: if own { Diagnostic::Own(reply) } else { Diagnostic::Reply { host, reply } },
            last_attempt_unix_s: Some(times[2]),
        };
        match report(REPORTER, &original, &vec![recipient; number], times[0], UNIQUE) {
            Ok(report) => {
                let message = report.message;
                let parts = parts(&message);
                let kinds: Vec<&str> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
                prop_assert_eq!(kinds, match (smtputf8, attach_all) {
                    (false, false) => ["text/plain", "message/delivery-status", "text/rfc822-headers"],
                    (false, true) => ["text/plain", "message/delivery-status", "message/rfc822"],
                    (true, false) => ["text/plain", "message/global-delivery-status", "message/global-headers"],
                    (true, true) => ["text/plain", "message/global-delivery-status", "message/global"],
                });
                prop_assert!(smtputf8 || message.is_ascii());
                let text = String::from_utf8(message).unwrap();
                prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0'])));
                // The header has the fields that we wrote, each once.
                let names: Vec<String> =
                    fields(text.as_bytes()).map(|f| String::from_utf8_lossy(f.name).into_owned()).collect();
                let ours: Vec<&str> = names.iter().map(String::as_str).filter(|n| !["In-Reply-To", "References"].contains(n)).collect();
                prop_assert_eq!(ours, [
                    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
                    "Content-Transfer-Encoding",
                ]);
                // There is a group for the message and one for each recipient, with the fields that we wrote.
                let groups: Vec<&str> = parts[1].1.split("\r\n\r\n").collect();
                prop_assert_eq!(groups.len(), 1 + number);
                for group in &groups[1..] {
                    for name in ["Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date"] {
                        let found = fields(group.as_bytes()).filter(|f| f.name == name.as_bytes()).count();
                        prop_assert_eq!(found, 1, "{}", group);
                    }
                    prop_assert!(fields(group.as_bytes()).count() <= 8, "{}", group);
                }
            }
            Err(refusal) => {
                let expected = if reverse_path.is_empty() { ReportRefusal::NullReversePath } else { ReportRefusal::NoAddress };
                prop_assert_eq!(refusal, expected);
            }
        }
    }
}
