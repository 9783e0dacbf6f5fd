//! What is signed here is right, to us and to dkimpy, which others wrote.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use mailraft_message::header::HEADER_MAX_BYTES;
use proptest::prelude::*;

use super::*;
use crate::keys::Algorithm;
use crate::zone::Zone;
use crate::{DkimResult, Envelope, Reader, check};

const NOW_S: u64 = 1_600_000_000;
const MESSAGE: &str = "Received: from a\r\n\tby b\r\nFrom: Jane\r\n <jane@example.org>\r\nTo: bob@example.net\r\n\
                       Subject:  Lunch  \r\nDate: Thu, 14 Aug 2025 14:15:00 +0000\r\nMessage-ID: <1@example.org>\r\n\
                       List-Id: <l.example.org>\r\nX-Other: x\r\n\r\nHello  there \r\n\r\n.\r\n\r\n\r\n";

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn keys() -> Vec<SigningKey> {
    Algorithm::ALL
        .iter()
        .map(|algorithm| SigningKey::parse(*algorithm, &SigningKey::generate(*algorithm).unwrap()).unwrap())
        .collect()
}

/// Signs with each key, under selectors `k0`, `k1`; and what is published for that.
fn signed(keys: &[SigningKey], of: &str, message: &[u8], piece_bytes: usize, times: Times) -> (Vec<String>, Zone) {
    let (of, mut zone) = (domain(of), Zone::default());
    let selectors: Vec<Domain> = (0..keys.len()).map(|at| domain(&format!("k{at}"))).collect();
    for (selector, key) in selectors.iter().zip(keys) {
        zone.add(&format!("{selector}._domainkey.{of}"), "TXT", &key.record().unwrap());
    }
    let signers: Vec<Signer<'_>> =
        selectors.iter().zip(keys).map(|(selector, key)| Signer { domain: &of, selector, key }).collect();
    let mut signing = Signing::default();
    message.chunks(piece_bytes).for_each(|piece| signing.push(piece));
    (signing.finish(&signers, times).unwrap(), zone)
}

fn results(zone: &Zone, message: &[u8]) -> Vec<DkimResult> {
    let mut reader = Reader::default();
    reader.push(message);
    let envelope = Envelope { address: [192, 0, 2, 1].into(), helo: "mx.test".to_owned(), reverse_path: None };
    let verdict = futures::executor::block_on(check(zone, &envelope, &reader.finish(), NOW_S));
    verdict.dkim.iter().map(|dkim| dkim.result).collect()
}

fn with(fields: &[String], message: &str) -> Vec<u8> {
    format!("{}{message}", fields.concat()).into_bytes()
}

#[test]
fn what_is_signed_is_right_to_our_own_verifier_and_what_is_changed_is_not() {
    let keys = keys();
    let (fields, zone) = signed(&keys, "example.org", MESSAGE.as_bytes(), 7, Times::default());
    assert_eq!(results(&zone, &with(&fields, MESSAGE)), [DkimResult::Pass; 2]);
    for (from, to) in [
        ("Hello", "Hullo"),
        ("Lunch", "Launch"),
        ("jane@", "jean@"),
        ("<l.example.org>", "<m.example.org>"),
        ("Subject:", "Subject: other\r\nSubject:"),
        ("To:", "Cc: eve@example.com\r\nTo:"),
        ("X-Other", "Reply-To: eve@example.com\r\nX-Other"),
        ("X-Other", "Content-Type: text/html\r\nX-Other"),
    ] {
        assert_eq!(results(&zone, &with(&fields, &MESSAGE.replacen(from, to, 1))), [DkimResult::Fail; 2], "{to}");
    }
    for (from, to) in [
        ("Received:", "Received: from c\r\nReceived:"),
        ("X-Other: x", "X-Other: y"),
        ("X-Other", "List-Post: <mailto:l@example.org>\r\nX-Other"),
        ("Subject:  Lunch  ", "subject: Lunch"),
        ("there \r\n", "there\t\r\n"),
    ] {
        assert_eq!(results(&zone, &with(&fields, &MESSAGE.replacen(from, to, 1))), [DkimResult::Pass; 2], "{to}");
    }
}

#[test]
fn the_key_of_rfc_8463_signs_what_its_published_key_verifies() {
    let seed = BASE64_STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
    let message = "From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n\
                   Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
                   Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n\
                   Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
    let times = Times { made_unix_s: Some(1_528_637_909), expires_unix_s: None };
    let (fields, _) = signed(&[SigningKey::of_seed(&seed)], "football.example.com", message.as_bytes(), 100, times);
    // The body is that of RFC 8463, appendix A.3, and so is its digest.
    assert!(fields[0].contains("bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;"), "{}", fields[0]);
    let zone = Zone::read(
        "k0._domainkey.football.example.com TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    );
    assert_eq!(results(&zone, &with(&fields, message)), [DkimResult::Pass]);
}

#[test]
fn a_signature_has_the_times_that_it_is_given_and_no_others() {
    let keys = keys();
    let of = |times| signed(&keys[1..], "example.org", MESSAGE.as_bytes(), 100, times);
    let has = |field: &str, tag: &str| field.replace("\r\n\t", " ").contains(&format!(" {tag}="));
    let (fields, _) = of(Times::default());
    assert!(!has(&fields[0], "t") && !has(&fields[0], "x"));
    let (fields, zone) = of(Times { made_unix_s: Some(NOW_S - 9), expires_unix_s: Some(NOW_S - 1) });
    assert!(has(&fields[0], "t") && has(&fields[0], "x"), "{}", fields[0]);
    assert_eq!(results(&zone, &with(&fields, MESSAGE)), [DkimResult::Fail]);
    let (fields, zone) = of(Times { made_unix_s: Some(NOW_S - 9), expires_unix_s: Some(NOW_S + 1) });
    assert_eq!(results(&zone, &with(&fields, MESSAGE)), [DkimResult::Pass]);
}

#[test]
fn what_has_no_author_or_an_endless_header_is_not_signed() {
    let refusal = |message: &[u8]| {
        let mut signing = Signing::default();
        signing.push(message);
        signing.finish(&[], Times::default()).err()
    };
    assert_eq!(refusal(b""), Some(SignRefusal::NoAuthor));
    assert_eq!(refusal(b"Subject: x\r\n\r\nFrom: a@b\r\n"), Some(SignRefusal::NoAuthor));
    assert_eq!(refusal(&b"From: a@b\r\n".repeat(SAME_FIELDS_SIGNED_MAX + 1)), Some(SignRefusal::NoAuthor));
    assert_eq!(refusal(&b"From: a@b\r\n".repeat(SAME_FIELDS_SIGNED_MAX)), None);
    assert_eq!(refusal(&b"X: y\r\n".repeat(HEADER_MAX_BYTES)), Some(SignRefusal::HeaderTooLong));
}

#[test]
fn many_fields_of_a_name_are_signed_up_to_a_bound() {
    let keys = keys();
    for number in [0, 1, SAME_FIELDS_SIGNED_MAX, SAME_FIELDS_SIGNED_MAX + 1, 10_000] {
        let message = format!("From: a@example.org\r\n{}\r\nx\r\n", "To: b@example.net\r\n".repeat(number));
        let (fields, zone) = signed(&keys[1..], "example.org", message.as_bytes(), 100, Times::default());
        assert_eq!(results(&zone, &with(&fields, &message)), [DkimResult::Pass], "{number}");
        assert!(fields[0].len() < 1_500, "{number}: {}", fields[0].len());
    }
}

#[test]
fn lines_are_short_and_stand_in_a_field() {
    let keys = keys();
    let label = "x".repeat(60);
    for name in ["example.org", &format!("{label}.{label}.{label}.example.org")] {
        let times = Times { made_unix_s: Some(NOW_S), expires_unix_s: Some(NOW_S + 1) };
        let (fields, zone) = signed(&keys, name, MESSAGE.as_bytes(), 100, times);
        for field in &fields {
            let lines: Vec<&str> = field.strip_suffix("\r\n").unwrap().split("\r\n").collect();
            for (at, line) in lines.iter().enumerate() {
                assert!(line.len() < LINE_OCTETS || line.contains("d=x"), "{field}");
                assert_eq!(at > 0, line.starts_with('\t'), "{field}");
            }
        }
        assert_eq!(results(&zone, &with(&fields, MESSAGE)), [DkimResult::Pass; 2]);
    }
}

/// Asks dkimpy about each signature of messages that stand behind one another, each with its length before it.
const DKIMPY: &str = r#"
import sys, dkim
records = dict(line.split(" ", 1) for line in open(sys.argv[1]).read().splitlines())
def txt(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return records[name.rstrip(".")].encode()
text = sys.stdin.buffer.read()
while text:
    size, text = text.split(b"\n", 1)
    message, text = text[:int(size)], text[int(size):]
    for at in range(2):
        print(dkim.DKIM(message).verify(idx=at, dnsfunc=txt))
"#;

#[test]
fn what_is_signed_is_right_to_dkimpy() {
    let keys = keys();
    let long =
        format!("From: a@example.org\r\nSubject: x\r\n\tfolded\r\n\r\n{}", "0123456789 \t abcdef \r\n".repeat(20_000));
    let messages = [MESSAGE, "From: a@example.org\r\n\r\n", "From: a@example.org\r\n\r\n\r\n \t\r\n\r\n", &long];
    let (mut input, mut records) = (Vec::new(), BTreeMap::new());
    for message in messages {
        let (fields, _) = signed(
            &keys,
            "example.org",
            message.as_bytes(),
            1_000,
            Times { made_unix_s: Some(NOW_S), expires_unix_s: None },
        );
        for (at, key) in keys.iter().enumerate() {
            records.insert(format!("k{at}._domainkey.example.org"), key.record().unwrap());
        }
        let whole = with(&fields, message);
        input.extend_from_slice(format!("{}\n", whole.len()).as_bytes());
        input.extend_from_slice(&whole);
    }
    let path = std::env::temp_dir().join(format!("mailraft-dkimpy-{}", std::process::id()));
    let lines: Vec<String> = records.iter().map(|(name, record)| format!("{name} {record}\n")).collect();
    std::fs::write(&path, lines.concat()).unwrap();
    let mut python = std::process::Command::new("/usr/bin/python3")
        .args(["-c", DKIMPY])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), &input).unwrap();
    let said = python.wait_with_output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(said.status.success());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "True\n".repeat(2 * messages.len()));
}

proptest! {
    #[test]
    fn whatever_a_message_is_its_signature_is_right_and_pieces_make_no_difference(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "A: b\r\n", "To: x\r\n", "to : y\r\n z\r\n", "no field\r\n", "\r\n", " ", "\t", "é", "\n", "\r", "DKIM-Signature: v=1\r\n",
                "From: c@d\r\n", ":", "Subject:\r\n", "x",
            ]),
            0..30,
        ),
        piece_bytes in 1usize..40,
    ) {
        let message = format!("From: a@example.org\r\n{}", parts.concat());
        let keys = [SigningKey::of_seed(&[7; 32])];
        if message.matches("From:").count() <= SAME_FIELDS_SIGNED_MAX {
            let (fields, zone) = signed(&keys, "example.org", message.as_bytes(), piece_bytes, Times::default());
            let (whole, _) = signed(&keys, "example.org", message.as_bytes(), message.len(), Times::default());
            prop_assert_eq!(&fields, &whole);
            prop_assert_eq!(results(&zone, &with(&fields, &message))[0], DkimResult::Pass, "{:?}", message);
        }
    }
}
