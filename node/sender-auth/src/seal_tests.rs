//! What is sealed here holds, to us and to dkimpy, which others wrote.

use proptest::prelude::*;

use super::*;
use crate::keys::Algorithm;
use crate::limits::SAME_FIELDS_SIGNED_MAX;
use crate::signing_key::SigningKey;
use crate::zone::Zone;
use crate::{Arc, Domain, Envelope, Reader, check};

const NOW_S: u64 = 1_600_000_000;
const MESSAGE: &str = "Received: from a\r\n\tby b\r\nDKIM-Signature: v=1; a=x\r\nFrom: Jane\r\n <jane@example.org>\r\n\
                       To: bob@example.net\r\nSubject:  Lunch  \r\n\r\nHello  there \r\n\r\n.\r\n\r\n\r\n";

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn envelope() -> Envelope {
    let reverse_path = Some(("jane".to_owned(), "example.org".to_owned()));
    Envelope { address: [192, 0, 2, 1].into(), helo: "mx.test".to_owned(), reverse_path }
}

/// A message as it is kept when it came: with what was found out before it.
fn arrived(zone: &Zone, message: &str) -> (Arc, String) {
    let mut reader = Reader::default();
    reader.push(message.as_bytes());
    let verdict = futures::executor::block_on(check(zone, &envelope(), &reader.finish(), NOW_S));
    let field = verdict.field("mx.here.test", &envelope());
    (verdict.arc, format!("{field}{message}"))
}

/// A forwarder: its key, and the zone where it is published.
struct Forwarder {
    name: Domain,
    key: SigningKey,
}

impl Forwarder {
    fn new(name: &str, algorithm: Algorithm, zone: &mut Zone) -> Self {
        let key = SigningKey::parse(algorithm, &SigningKey::generate(algorithm).unwrap()).unwrap();
        zone.add(&format!("s._domainkey.{name}"), "TXT", &key.record().unwrap());
        Forwarder { name: domain(name), key }
    }

    /// What it adds to a message that came.
    fn set(&self, message: &str, piece_bytes: usize) -> Option<String> {
        let selector = domain("s");
        let signer = Signer { domain: &self.name, selector: &selector, key: &self.key };
        let mut signing = Signing::default();
        message.as_bytes().chunks(piece_bytes).for_each(|piece| signing.push(piece));
        signing.seal(&signer, &Arrived::read(message.as_bytes())?, NOW_S).unwrap()
    }

    /// A message that came, as it goes on.
    fn forwards(&self, message: &str) -> String {
        self.set(message, 7).unwrap() + message
    }
}

#[test]
fn a_chain_grows_as_it_is_forwarded_and_breaks_where_something_changes() {
    let mut zone = Zone::default();
    let one = Forwarder::new("one.test", Algorithm::RsaSha256, &mut zone);
    let two = Forwarder::new("two.test", Algorithm::Ed25519Sha256, &mut zone);
    let (none, first) = arrived(&zone, MESSAGE);
    assert_eq!(none, Arc::None);
    let first = one.forwards(&first);
    let tells = "ARC-Authentication-Results: i=1; mx.here.test;\r\n\tiprev=";
    assert!(first.contains(tells) && first.contains(" cv=none;"), "{first}");
    let (pass, second) = arrived(&zone, &first);
    assert_eq!(pass, Arc::Pass(domain("one.test")));
    let second = two.forwards(&second);
    assert!(second.contains(" cv=pass;") && second.contains("arc=pass header.d=one.test"), "{second}");
    let (pass, third) = arrived(&zone, &second);
    assert_eq!(pass, Arc::Pass(domain("two.test")));
    // A third one, of an altered message: it is told, over that set alone, and by nobody after that.
    for (from, to) in [("Hello", "Hullo"), ("Lunch", "Launch"), ("v=1; a=x", "v=1; a=y"), ("cv=none", "cv=pass")] {
        let altered = second.replacen(from, to, 1);
        assert_eq!(arrived(&zone, &altered).0, Arc::Fail, "{to}");
    }
    let (_, altered) = arrived(&zone, &second.replacen("Hello", "Hullo", 1));
    let failed = one.forwards(&altered);
    assert!(failed.starts_with("ARC-Seal: i=3; a=rsa-sha256; cv=fail; d=one.test;"), "{failed}");
    let (fail, again) = arrived(&zone, &failed);
    assert_eq!((fail, two.set(&again, 7)), (Arc::Fail, None));
    assert!(one.set(&third, 7).is_some());
}

#[test]
fn a_failed_chain_is_sealed_as_if_its_newest_set_was_the_only_one() {
    let mut zone = Zone::default();
    let one = Forwarder::new("one.test", Algorithm::Ed25519Sha256, &mut zone);
    let (_, came) = arrived(&zone, MESSAGE);
    let (_, altered) = arrived(&zone, &one.forwards(&came).replacen("Hello", "Hullo", 1));
    let set = one.set(&altered, 7).unwrap();
    // With nothing before it in the digest: what a first set has, but for its number and what it says of the chain.
    let signed = |field: &str| {
        let mut digest = Context::new(&SHA256);
        let all: Vec<Field<'_>> = fields(set.as_bytes()).collect();
        for name in ["ARC-Authentication-Results", "ARC-Message-Signature"] {
            let of = all.iter().find(|of| of.name == name.as_bytes()).unwrap();
            Canonical::Relaxed.field(&set.as_bytes()[of.range.clone()], |piece| digest.update(piece));
        }
        let seal = all.iter().find(|of| of.name == b"ARC-Seal").unwrap();
        let tags = Tags::parse(seal.value).unwrap();
        crate::signature::unsigned_field(set.as_bytes(), seal, &tags, Canonical::Relaxed, |piece| digest.update(piece));
        assert_eq!(tags.text("cv"), Some(field));
        one.key.sign(&digest.finish()).unwrap() == tags.base64("b").unwrap()
    };
    // Ed25519 signs the same in the same way.
    assert!(signed("fail"));
}

#[test]
fn what_was_not_checked_or_has_fifty_sets_is_not_sealed() {
    let mut zone = Zone::default();
    let one = Forwarder::new("one.test", Algorithm::Ed25519Sha256, &mut zone);
    for header in [
        MESSAGE,
        "Received: x\r\nAuthentication-Results: mx.here.test; spf=pass\r\nFrom: a@b\r\n\r\n",
        "no field\r\nAuthentication-Results: mx.here.test; spf=pass\r\nFrom: a@b\r\n\r\n",
        "Authentication-Results: mx.here.test;\r\n\tspf=pass;\r\n\tarc=temperror\r\nFrom: a@b\r\n\r\n",
    ] {
        assert_eq!(Arrived::read(header.as_bytes()), None, "{header}");
    }
    // It was another one that was checked.
    let results = "Authentication-Results: mx.here.test;\r\n\tspf=pass";
    for (chain, more) in [("", "ARC-Seal: i=1\r\n"), (";\r\n\tarc=pass header.d=x.test", "")] {
        assert_eq!(one.set(&format!("{results}{chain}\r\n{more}{MESSAGE}"), 7), None, "{chain}");
    }
    let (mut message, mut sets) = (MESSAGE.to_owned(), 0);
    while let Some(set) = one.set(&arrived(&zone, &message).1, 1_000) {
        message = set + &message;
        sets += 1;
        assert!(sets <= ARC_SETS_MAX, "{sets} sets");
    }
    assert_eq!((sets, arrived(&zone, &message).0), (ARC_SETS_MAX, Arc::Pass(domain("one.test"))));
}

#[test]
fn a_message_without_an_author_is_not_sealed() {
    let zone = Zone::default();
    for message in ["Subject: x\r\n\r\n".to_owned(), "From: a@b\r\n".repeat(SAME_FIELDS_SIGNED_MAX + 1)] {
        let (_, came) = arrived(&zone, &message);
        let (key, name) = (SigningKey::of_seed(&[7; 32]), domain("one.test"));
        let mut signing = Signing::default();
        signing.push(came.as_bytes());
        let signer = Signer { domain: &name, selector: &name, key: &key };
        let sealed = signing.seal(&signer, &Arrived::read(came.as_bytes()).unwrap(), NOW_S);
        assert_eq!(sealed, Err(SignRefusal::NoAuthor), "{message}");
    }
}

const DKIMPY: &str = r#"
import sys, dkim
records = dict(line.split(" ", 1) for line in open(sys.argv[1]).read().splitlines())
def txt(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return records[name.rstrip(".")].encode()
cv, results, reason = dkim.arc_verify(sys.stdin.buffer.read(), dnsfunc=txt)
print((cv or b"terminated").decode(), len(results), reason)
"#;

#[test]
fn what_is_sealed_holds_to_dkimpy() {
    let mut zone = Zone::default();
    let forwarders = ["one.test", "two.test"].map(|name| Forwarder::new(name, Algorithm::RsaSha256, &mut zone));
    let mut message = MESSAGE.to_owned();
    for number in 0..4 {
        message = forwarders[number % 2].forwards(&arrived(&zone, &message).1);
    }
    let path = std::env::temp_dir().join(format!("mailraft-dkimpy-arc-{}", std::process::id()));
    let records = forwarders.iter().map(|of| format!("s._domainkey.{} {}\n", of.name, of.key.record().unwrap()));
    std::fs::write(&path, records.collect::<String>()).unwrap();
    let says = |message: &str| {
        let mut python = std::process::Command::new("/usr/bin/python3")
            .args(["-c", DKIMPY])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut python.stdin.take().unwrap(), message.as_bytes()).unwrap();
        String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap()
    };
    assert!(says(&message).starts_with("pass 4 "), "{}", says(&message));
    assert!(says(&message.replacen("Hello", "Hullo", 1)).starts_with("fail "));
    // What failed is told to everybody after.
    let failed = forwarders[0].forwards(&arrived(&zone, &message.replacen("Hello", "Hullo", 1)).1);
    assert!(says(&failed).starts_with("terminated 5 "), "{}", says(&failed));
    std::fs::remove_file(&path).unwrap();
}

proptest! {
    #[test]
    fn whatever_is_sealed_holds(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "A: b\r\n", "To: x\r\n", "to : y\r\n z\r\n", "no field\r\n", "\r\n", " ", "\t", "\u{e9}", "DKIM-Signature: v=1\r\n",
                ":", "Subject:\r\n", "x",
            ]),
            0..30,
        ),
        piece_bytes in 1usize..40,
    ) {
        let mut zone = Zone::default();
        let key = SigningKey::of_seed(&[7; 32]);
        zone.add("s._domainkey.one.test", "TXT", &key.record().unwrap());
        let one = Forwarder { name: domain("one.test"), key };
        let (_, came) = arrived(&zone, &format!("From: a@example.org\r\n{}", parts.concat()));
        let set = one.set(&came, piece_bytes).unwrap();
        prop_assert_eq!(one.set(&came, came.len()), Some(set.clone()));
        for line in set.split("\r\n") {
            prop_assert!(line.len() <= 998, "{line}");
        }
        prop_assert_eq!(arrived(&zone, &(set + &came)).0, Arc::Pass(domain("one.test")));
    }
}
