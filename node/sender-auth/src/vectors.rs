//! The whole check: the examples of the RFCs, messages that are signed here, and what strangers write.

use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::prelude::*;

use crate::limits::{QUESTIONS_MAX, SIGNATURES_MAX};
use crate::zone::Zone;
use crate::{
    Arc, Claims, Disposition, DkimResult, DmarcResult, Domain, Enforcement, Envelope, Policy, Reader, SpfResult,
    Verdict, check,
};

const NOW_S: u64 = 1_600_000_000;

fn claims(message: &str) -> Claims {
    let mut reader = Reader::default();
    message.as_bytes().chunks(100).for_each(|piece| reader.push(piece));
    reader.finish()
}

fn envelope(from: Option<&str>) -> Envelope {
    let reverse_path = from.and_then(|from| from.split_once('@')).map(|(l, d)| (l.to_owned(), d.to_owned()));
    Envelope { address: [192, 0, 2, 1].into(), helo: "mx.sender.test".to_owned(), reverse_path }
}

fn verdict(zone: &Zone, from: Option<&str>, message: &str) -> Verdict {
    futures::executor::block_on(check(zone, &envelope(from), &claims(message), NOW_S))
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// RFC 8463, appendix A.3, with the keys of A.2.
fn rfc_8463() -> (Zone, String) {
    let zone = Zone::read(
        "brisbane._domainkey.football.example.com TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
         test._domainkey.football.example.com TXT v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
    );
    let message = crlf(
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
",
    );
    (zone, message)
}

/// RFC 6376, appendix A, with errata 3192 and 4926: one space after "game.", fields folded with six.
fn rfc_6376() -> (Zone, String) {
    let zone = Zone::read(
        "brisbane._domainkey.example.com TXT v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
    );
    let message = crlf(
        "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
",
    );
    (zone, message)
}

/// Signed by dkimpy 1.1.4, by `chaos-tests/clients/sign.py`: with RSA, with Ed25519, and by a list with ARC.
#[test]
fn what_dkimpy_signs_is_right() {
    let mut zone = Zone::read(
        "ed._domainkey.bank.test TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
         _dmarc.bank.test TXT v=DMARC1; p=reject; adkim=s",
    );
    let key = "v=DKIM1; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsluVuMZyZUEt6paDes6biSidj/68m7uPObRMX5dZDKH9wV4JQq2W5LZfVWnAKjRtvPwHVImoUvkeMJDpyLG2YOf+io1Pn8ulf2P0oOpoju99YorAHAJ08+lvDJMvC0Sj5hTgRmZX3yTO9/LkicGpMNrB/lgeAgRZwwWqbrgxScB97mmgw7ZaXWZ+qTdwSHWufRRBFGP7WVT1KVmy9VvgbGuMtdyE+EHc+22r9ZqTUjuqnG4ukTjuQeUMVlEvHaGbBfYqmtjb1Dn3xXSC4R4dA2UKn8iQzSFuL1tTohljMuzJREMyo5HT9BEuE0kPZ+BN0k/NRbn5qRMIqsst7kf8MwIDAQAB";
    zone.add("rsa._domainkey.bank.test", "TXT", key);
    zone.add("rsa._domainkey.list.test", "TXT", key);
    let message = include_str!("../testdata/dkimpy.eml");
    let is = verdict(&zone, None, message);
    assert_eq!(is.dkim.iter().map(|dkim| dkim.result).collect::<Vec<_>>(), [DkimResult::Pass; 2]);
    assert_eq!(is.arc, Arc::Pass(Domain::parse("list.test").unwrap()));
    assert_eq!(is.dmarc.result, DmarcResult::Pass);
    let altered = verdict(&zone, None, &message.replace("Hello", "Hallo"));
    assert_eq!((altered.arc, altered.dmarc.wanted), (Arc::Fail, Policy::Reject));
    let header =
        verdict(&zone, None, &message.replace("spf=pass smtp.mailfrom=u@bank.test;\r\n  dkim", "spf=fail;\r\n  dkim"));
    assert_eq!((header.arc, header.dmarc.result), (Arc::Fail, DmarcResult::Pass));
}

fn results(zone: &Zone, message: &str) -> Vec<DkimResult> {
    verdict(zone, None, message).dkim.iter().map(|dkim| dkim.result).collect()
}

#[test]
fn the_signatures_of_rfc_8463_are_right() {
    use DkimResult::{Fail, Pass, PermError, TempError};
    let (mut zone, message) = rfc_8463();
    assert_eq!(results(&zone, &message), [Pass, Pass]);
    // Fields may be refolded, and what is not signed may be added; nothing else may change.
    assert_eq!(results(&zone, &message.replace("Subject: Is", "SUBJECT:  Is\r\n\t")), [Pass, Pass]);
    assert_eq!(results(&zone, &format!("X-Seen: yes\r\n{message}\r\n\r\n")), [Pass, Pass]);
    assert_eq!(results(&zone, &message.replace("hungry", "angry")), [Fail, Fail]);
    assert_eq!(results(&zone, &message.replace("dinner", "diner")), [Fail, Fail]);
    // From and Subject are signed once more than they are there.
    assert_eq!(results(&zone, &format!("Subject: another\r\n{message}")), [Fail, Fail]);
    zone.add("brisbane._domainkey.football.example.com", "FAIL", "");
    assert_eq!(results(&zone, &message), [TempError, Pass]);
    assert_eq!(results(&Zone::default(), &message), [PermError, PermError]);
    let text = verdict(&zone, None, &message).field("mx.here.test", &envelope(None));
    assert!(
        text.contains("header.d=football.example.com header.s=test header.a=rsa-sha256 header.b=\"F45dVWDf\""),
        "{text}"
    );
}

#[test]
fn the_signature_of_rfc_6376_is_right() {
    let (zone, message) = rfc_6376();
    assert_eq!(results(&zone, &message), [DkimResult::Pass]);
    // The simple form stands no refolding.
    assert_eq!(results(&zone, &message.replace("Subject: Is", "Subject:  Is")), [DkimResult::Fail]);
    assert_eq!(results(&zone, &message.replace("game. Are", "game.  Are")), [DkimResult::Fail]);
    assert_eq!(
        results(&zone, &message.replace("i=joe@football.example.com", "i=joe@example.org")),
        [DkimResult::Neutral]
    );
}

/// Signs with one key as `s1` of a domain.
struct Signer {
    key: Ed25519KeyPair,
    domain: &'static str,
}

impl Signer {
    fn new(domain: &'static str, seed: u8) -> Self {
        Signer { key: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), domain }
    }

    fn publish(&self, zone: &mut Zone) {
        let key = BASE64_STANDARD.encode(self.key.public_key().as_ref());
        zone.add(&format!("s1._domainkey.{}", self.domain), "TXT", &format!("v=DKIM1; k=ed25519; p={key}"));
    }

    fn sign(&self, canonical: &str) -> String {
        BASE64_STANDARD.encode(self.key.sign(digest(&SHA256, canonical.as_bytes()).as_ref()).as_ref())
    }

    /// A signature field over From, with these tags too.
    fn dkim(&self, from: &str, body: &str, tags: &str, hashed: usize) -> String {
        let hash = BASE64_STANDARD.encode(digest(&SHA256, &body.as_bytes()[..hashed]).as_ref());
        let Signer { domain, .. } = self;
        let value = format!("v=1; a=ed25519-sha256; c=relaxed/relaxed; d={domain}; s=s1; h=from;{tags} bh={hash}; b=");
        let b = self.sign(&format!("from:{from}\r\ndkim-signature:{value}"));
        format!("DKIM-Signature: {value}{b}\r\n")
    }

    /// An ARC set on top of others, canonical as it is written.
    fn seal(&self, instance: usize, sets: &[String], from: &str, body: &str, cv: &str) -> String {
        let hash = BASE64_STANDARD.encode(digest(&SHA256, body.as_bytes()).as_ref());
        let Signer { domain, .. } = self;
        let results = format!("arc-authentication-results:i={instance}; {domain}; spf=pass\r\n");
        let value =
            format!("i={instance}; a=ed25519-sha256; c=relaxed/relaxed; d={domain}; s=s1; h=from; bh={hash}; b=");
        let b = self.sign(&format!("from:{from}\r\narc-message-signature:{value}"));
        let signature = format!("arc-message-signature:{value}{b}\r\n");
        let value = format!("i={instance}; a=ed25519-sha256; cv={cv}; d={domain}; s=s1; b=");
        let b = self.sign(&format!("{}{results}{signature}arc-seal:{value}", sets.concat()));
        format!("{results}{signature}arc-seal:{value}{b}\r\n")
    }
}

#[test]
fn what_a_signature_leaves_open_is_not_passed_for_the_rest() {
    use DkimResult::{Fail, Neutral, Pass, PermError, Policy};
    let (signer, body) = (Signer::new("a.test", 1), "first line\r\nsecond\r\n");
    let mut zone = Zone::default();
    signer.publish(&mut zone);
    let from = "u@a.test";
    let of = |field: String, body: &str| results(&zone, &format!("{field}From: {from}\r\n\r\n{body}"));
    let whole = body.len();
    assert_eq!(of(signer.dkim(from, body, "", whole), body), [Pass]);
    assert_eq!(of(signer.dkim(from, body, &format!(" l={whole};"), whole), body), [Pass]);
    // What follows may be anyone's.
    assert_eq!(of(signer.dkim(from, body, " l=12;", 12), body), [Policy]);
    assert_eq!(of(signer.dkim(from, body, " l=12;", 12), "first line\r\nbuy this\r\n"), [Policy]);
    assert_eq!(of(signer.dkim(from, body, " l=0;", 0), body), [Policy]);
    assert_eq!(of(signer.dkim(from, body, " l=999;", whole), body), [Fail]);
    assert_eq!(of(signer.dkim(from, body, &format!(" t=1; x={};", NOW_S - 1), whole), body), [Fail]);
    assert_eq!(of(signer.dkim(from, body, &format!(" t=1; x={NOW_S};"), whole), body), [Pass]);
    assert_eq!(of(signer.dkim(from, body, " t=2; x=1;", whole), body), [Neutral]);
    assert_eq!(of(signer.dkim(from, body, " i=u@b.a.test;", whole), body), [Pass]);
    assert_eq!(of(signer.dkim(from, body, " i=u@test;", whole), body), [Neutral]);
    let field = signer.dkim(from, body, "", whole);
    assert_eq!(of(field.replace("h=from", "h=to"), body), [PermError]);
    assert_eq!(of(field.replace("ed25519-sha256", "rsa-sha1"), body), [Policy]);
    assert_eq!(of(field.replace("ed25519-sha256", "rsa-sha256"), body), [PermError]);
    assert_eq!(of(field.replace("v=1;", ""), body), [Neutral]);
    assert_eq!(of(field.replace("h=from", &format!("h=from{}", ":x".repeat(600))), body), [Policy]);
    assert_eq!(of(format!("DKIM-Signature: {}\r\n", "x".repeat(20_000)), body), [Policy]);
}

#[test]
fn many_signatures_cost_no_more_than_some() {
    let (signer, body) = (Signer::new("a.test", 1), "x\r\n");
    let mut zone = Zone::default();
    signer.publish(&mut zone);
    let fields = signer.dkim("u@a.test", body, "", body.len()).repeat(1_000);
    assert_eq!(results(&zone, &format!("{fields}From: u@a.test\r\n\r\n{body}")), [DkimResult::Pass; SIGNATURES_MAX]);
    assert!(zone.asked.lock().unwrap().len() <= QUESTIONS_MAX);
}

#[test]
fn a_chain_holds_while_each_link_does() {
    let (one, two, body, from) = (Signer::new("one.test", 1), Signer::new("two.test", 2), "x\r\n", "u@a.test");
    let mut zone = Zone::default();
    one.publish(&mut zone);
    two.publish(&mut zone);
    let arc =
        |sets: &[String], body: &str| verdict(&zone, None, &format!("{}From: {from}\r\n\r\n{body}", sets.concat())).arc;
    let first = one.seal(1, &[], from, body, "none");
    let second = two.seal(2, std::slice::from_ref(&first), from, body, "pass");
    let domain = |text| Domain::parse(text).unwrap();
    assert_eq!(arc(&[], body), Arc::None);
    assert_eq!(arc(std::slice::from_ref(&first), body), Arc::Pass(domain("one.test")));
    assert_eq!(arc(&[first.clone(), second.clone()], body), Arc::Pass(domain("two.test")));
    assert_eq!(arc(&[second.clone(), first.clone()], body), Arc::Pass(domain("two.test")));
    assert_eq!(arc(&[first.clone(), second.clone()], "y\r\n"), Arc::Fail);
    // A set that is missing, double, out of order, or altered, and one that says that the chain was broken.
    assert_eq!(arc(std::slice::from_ref(&second), body), Arc::Fail);
    assert_eq!(arc(&[first.clone(), first.clone()], body), Arc::Fail);
    assert_eq!(arc(&[first.replace("spf=pass", "spf=fail"), second.clone()], body), Arc::Fail);
    assert_eq!(arc(&[one.seal(1, &[], from, body, "pass")], body), Arc::Fail);
    assert_eq!(arc(&[first.clone(), two.seal(2, std::slice::from_ref(&first), from, body, "fail")], body), Arc::Fail);
    assert_eq!(arc(&[first.replace("i=1", "i=51")], body), Arc::Fail);
    assert_eq!(arc(&["ARC-Seal: x\r\n".repeat(1_000)], body), Arc::Fail);
    zone.add("s1._domainkey.one.test", "FAIL", "");
    assert_eq!(verdict(&zone, None, &format!("{first}From: {from}\r\n\r\n{body}")).arc, Arc::TempError);
}

/// Fifty sets of a chain that holds.
fn longest_chain(signer: &Signer, from: &str, body: &str) -> String {
    let mut sets: Vec<String> = Vec::new();
    for instance in 1..=50 {
        let cv = if instance == 1 { "none" } else { "pass" };
        sets.push(signer.seal(instance, &sets, from, body, cv));
    }
    sets.concat()
}

#[test]
fn the_longest_chain_is_checked_within_the_questions_of_a_message() {
    let (signer, body, from) = (Signer::new("one.test", 1), "x\r\n", "u@a.test");
    let mut zone = Zone::default();
    signer.publish(&mut zone);
    let chain = longest_chain(&signer, from, body);
    let message = format!("{chain}From: {from}\r\n\r\n{body}");
    assert_eq!(verdict(&zone, None, &message).arc, Arc::Pass(Domain::parse("one.test").unwrap()));
    assert!(zone.asked.lock().unwrap().len() <= QUESTIONS_MAX);
}

#[test]
fn what_costs_many_questions_takes_none_from_the_authors_policy() {
    let (signer, body, from) = (Signer::new("evil.test", 1), "x\r\n", "ceo@bank.test");
    let mut records = vec!["_dmarc.bank.test TXT v=DMARC1; p=reject".to_owned()];
    let mx: Vec<String> = (0..10).map(|n| format!("mx:m{n}.evil.test")).collect();
    records.push(format!("evil.test TXT v=spf1 {} -all", mx.join(" ")));
    for (domain, host) in (0..10).flat_map(|domain| (0..10).map(move |host| (domain, host))) {
        records.push(format!("m{domain}.evil.test MX 1 h{domain}-{host}.evil.test"));
        records.push(format!("h{domain}-{host}.evil.test A 192.0.2.77"));
    }
    let mut zone = Zone::read(&records.join("\n"));
    signer.publish(&mut zone);
    let chain = longest_chain(&signer, from, body);
    let signatures = signer.dkim(from, body, "", body.len()).repeat(SIGNATURES_MAX);
    let message = format!("{chain}{signatures}From: {from}\r\n\r\n{body}");
    let verdict = verdict(&zone, Some("u@evil.test"), &message);
    assert!(zone.asked.lock().unwrap().len() > QUESTIONS_MAX, "one budget for all is used up");
    assert_eq!(verdict.dmarc.result, DmarcResult::Fail);
    assert_eq!(verdict.disposition(Enforcement::Reject), Disposition::Reject);
}

#[test]
fn the_policy_of_the_author_is_done_as_far_as_it_is_to_be() {
    let (signer, body) = (Signer::new("bank.test", 1), "x\r\n");
    let mut zone =
        Zone::read("_dmarc.bank.test TXT v=DMARC1; p=reject\nspam.test TXT v=spf1 +all\nbank.test TXT v=spf1 -all");
    signer.publish(&mut zone);
    let all = [Enforcement::Mark, Enforcement::Quarantine, Enforcement::Reject];
    let of = |zone: &Zone, from: &str, header: &str| {
        let verdict = verdict(zone, Some(from), &format!("{header}\r\n{body}"));
        (verdict.dmarc.result, all.map(|enforcement| verdict.disposition(enforcement)))
    };
    use Disposition::{Deliver, Quarantine, Reject};
    let forged = (DmarcResult::Fail, [Deliver, Quarantine, Reject]);
    assert_eq!(of(&zone, "u@spam.test", "From: u@bank.test\r\n"), forged);
    assert_eq!(of(&zone, "u@bank.test", "From: u@bank.test\r\n"), forged);
    // Another author beside it, or before it, changes nothing.
    assert_eq!(of(&zone, "u@spam.test", "From: u@spam.test, u@bank.test\r\n"), forged);
    assert_eq!(of(&zone, "u@spam.test", "From: u@spam.test\r\nFrom: u@bank.test\r\n"), forged);
    let signed = format!("{}From: u@bank.test\r\n", signer.dkim("u@bank.test", body, "", body.len()));
    assert_eq!(of(&zone, "u@spam.test", &signed), (DmarcResult::Pass, [Deliver; 3]));
    // Who has no policy, or no answer, is refused nothing.
    assert_eq!(of(&zone, "u@spam.test", "From: u@other.test\r\n"), (DmarcResult::None, [Deliver; 3]));
    zone.add("s1._domainkey.bank.test", "FAIL", "");
    assert_eq!(of(&zone, "u@spam.test", &signed), (DmarcResult::TempError, [Deliver; 3]));
    zone.add("_dmarc.bank.test", "FAIL", "");
    assert_eq!(of(&zone, "u@spam.test", "From: u@bank.test\r\n"), (DmarcResult::TempError, [Deliver; 3]));
    // Who hides who writes is not refused, and not trusted.
    let unclear = (DmarcResult::PermError, [Deliver, Quarantine, Quarantine]);
    assert_eq!(of(&zone, "u@spam.test", "Subject: x\r\n"), unclear);
}

#[test]
fn a_from_that_no_signature_covers_is_shown_by_none() {
    use DkimResult::{Fail as DkimFail, Pass as DkimPass, Policy as DkimPolicy};
    let (signer, body, from) = (Signer::new("bank.test", 1), "x\r\n", "News <news@bank.test>");
    let mut zone = Zone::read("_dmarc.bank.test TXT v=DMARC1; p=reject\nspam.test TXT v=spf1 +all");
    zone.add("_dmarc.weak.test", "TXT", "v=DMARC1; p=none");
    signer.publish(&mut zone);
    let signed = format!("{}From: {from}\r\n", signer.dkim(from, body, "", body.len()));
    let of = |header: &str| verdict(&zone, Some("u@spam.test"), &format!("{header}\r\n{body}"));
    let is = |header: &str, dkim: DkimResult, result: DmarcResult, told: &str| {
        let verdict = of(header);
        assert_eq!((verdict.dkim[0].result, verdict.dmarc.result), (dkim, result), "{header}");
        let field = verdict.field("mx.here.test", &envelope(Some("u@spam.test")));
        assert!(field.ends_with(&format!("\r\n\tdmarc={told}\r\n")), "{header}: {field}");
        let refused = verdict.disposition(Enforcement::Reject) == Disposition::Reject;
        assert_eq!(refused, result == DmarcResult::Fail, "{header}");
    };
    is(&signed, DkimPass, DmarcResult::Pass, "pass (p=reject) header.from=bank.test");
    // Above, below, in whatever case, fold or obsolete form, of the same domain or another one, behind a thousand others.
    let many = "X: y\r\n".repeat(1_000);
    for other in
        ["From: <ceo@bank.test>", "FROM: ceo@bank.test", "From : <ceo@bank.test>", "fRom\t:\r\n\t<ceo@bank.test>"]
    {
        let fail = "fail (p=reject) header.from=bank.test";
        is(&format!("{other}\r\n{signed}"), DkimPolicy, DmarcResult::Fail, fail);
        is(&format!("{other}\r\n{many}{signed}"), DkimPolicy, DmarcResult::Fail, fail);
        is(&format!("{signed}{many}{other}\r\n"), DkimFail, DmarcResult::Fail, fail);
    }
    for other in ["a@nopolicy.test", "u@spam.test", "a@nopolicy.test, b@bank.test"] {
        let fail = "fail (p=reject) header.from=bank.test";
        is(&format!("From: {other}\r\n{signed}"), DkimPolicy, DmarcResult::Fail, fail);
    }
    assert!(
        of(&format!("From: a@b.test\r\n{signed}"))
            .field("mx.here.test", &envelope(None))
            .contains("dkim=policy reason=\"another From is not signed\" header.d=bank.test")
    );
    // Who signs all of them is believed for his own.
    let twice = |above: &str| {
        let hash = BASE64_STANDARD.encode(digest(&SHA256, body.as_bytes()).as_ref());
        let value = format!("v=1; a=ed25519-sha256; c=relaxed/relaxed; d=bank.test; s=s1; h=from:from; bh={hash}; b=");
        let b = signer.sign(&format!("from:{from}\r\nfrom:{above}\r\ndkim-signature:{value}"));
        format!("DKIM-Signature: {value}{b}\r\nFrom: {above}\r\nFrom: {from}\r\n")
    };
    is(&twice("ceo@bank.test"), DkimPass, DmarcResult::Pass, "pass (p=reject) header.from=bank.test");
    is(&twice("a@nopolicy.test"), DkimPass, DmarcResult::None, "none header.from=nopolicy.test");
    // One From of several authors, all of whose domains have to be shown.
    for (from, told) in [
        ("a@bank.test, b@bank.test", "pass (p=reject) header.from=bank.test"),
        ("a@bank.test, b@nopolicy.test", "none header.from=nopolicy.test"),
        ("b@nopolicy.test, a@bank.test", "none header.from=nopolicy.test"),
        ("a@bank.test, b@weak.test", "fail (p=none) header.from=weak.test"),
        ("a@nopolicy.test, b@weak.test, c@bank.test", "fail (p=none) header.from=weak.test"),
    ] {
        let header = format!("{}From: {from}\r\n", signer.dkim(from, body, "", body.len()));
        let verdict = verdict(&zone, Some("u@spam.test"), &format!("{header}\r\n{body}"));
        let field = verdict.field("mx.here.test", &envelope(None));
        assert!(field.ends_with(&format!("\r\n\tdmarc={told}\r\n")), "{from}: {field}");
    }
    // A chain that leaves one of them open does not hold either.
    let seal = signer.seal(1, &[], from, body, "none");
    let arc = |above: &str| of(&format!("{seal}{above}From: {from}\r\n")).arc;
    assert_eq!((arc(""), arc("From: a@b.test\r\n")), (Arc::Pass(Domain::parse("bank.test").unwrap()), Arc::Fail));
}

#[test]
fn spf_is_about_the_reverse_path_or_else_helo() {
    let zone = Zone::read("a.test TXT v=spf1 ip4:192.0.2.1 -all\nmx.sender.test TXT v=spf1 -all");
    let message = "From: u@a.test\r\n\r\n";
    let of = |from| verdict(&zone, from, message);
    assert_eq!(of(Some("u@a.test")).spf, SpfResult::Pass);
    assert_eq!(of(None).spf, SpfResult::Fail);
    assert_eq!(of(Some("u@nowhere")).spf, SpfResult::None);
    let text = of(None).field("mx.here.test", &envelope(None));
    assert_eq!(
        text,
        "Authentication-Results: mx.here.test;\r\n\tiprev=permerror policy.iprev=192.0.2.1;\r\n\t\
         spf=fail smtp.helo=mx.sender.test;\r\n\tdkim=none;\r\n\tdmarc=none header.from=a.test\r\n"
    );
    // A client over IPv6 with an IPv4 address in it is that one.
    let mapped = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into();
    let envelope = Envelope { address: mapped, ..envelope(Some("u@a.test")) };
    let verdict = futures::executor::block_on(check(&zone, &envelope, &claims(message), NOW_S));
    assert_eq!(verdict.spf, SpfResult::Pass);
}

proptest! {
    #[test]
    fn whatever_a_stranger_writes_the_field_is_one(
        helo in ".{0,40}",
        local in "(.|\r\n|\\(|\"|;){0,40}",
        domain in "[a-z.;\r\n \"()_-]{0,20}",
        author in "[a-z@<>.,;:\r\n \"()_-]{0,40}",
        tag in "[a-z=;+/ \"\\\\]{0,30}",
        address in any::<[u8; 16]>(),
    ) {
        let header = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=a.test; s={tag}; h=from; bh=YQ==; b={tag}\r\nFrom: {author}\r\n"
        );
        let envelope = Envelope { address: address.into(), helo, reverse_path: Some((local, domain)) };
        let claims = claims(&format!("{header}\r\nx\r\n"));
        let verdict = futures::executor::block_on(check(&Zone::default(), &envelope, &claims, NOW_S));
        let field = verdict.field("mx.here.test", &envelope);
        prop_assert!(field.is_ascii() && field.starts_with("Authentication-Results: mx.here.test;\r\n\t"), "{field}");
        let lines: Vec<&str> = field.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        for line in &lines {
            prop_assert!(!line.contains(['\r', '\n', '\0']) && line.len() <= 998, "{field:?}");
        }
        prop_assert!(lines[1..].iter().all(|line| line.starts_with('\t') && line.len() > 1), "{field:?}");
        for method in ["iprev=", "spf=", "dmarc="] {
            prop_assert_eq!(field.matches(&format!("\t{method}")).count(), 1, "{}", field);
        }
        // Parentheses and quotes come in pairs.
        prop_assert_eq!(field.matches('(').count(), field.matches(')').count());
        prop_assert_eq!(field.matches('"').count() % 2, 0);
        prop_assert!(verdict.dmarc.wanted == Policy::None);
    }
}

#[test]
fn a_long_local_part_is_left_out_and_the_domain_told() {
    let long = format!("{}@a.test", "x".repeat(500));
    let zone = Zone::default();
    let text = verdict(&zone, Some(&long), "From: u@a.test\r\n\r\n").field("mx.here.test", &envelope(Some(&long)));
    assert!(text.contains("smtp.mailfrom=a.test;"), "{text}");
    let quoted = "a b\"c@a.test";
    let text = verdict(&zone, Some(quoted), "From: u@a.test\r\n\r\n").field("mx.here.test", &envelope(Some(quoted)));
    assert!(text.contains("smtp.mailfrom=a.test;"), "{text}");
}

#[test]
fn digests_of_a_field_are_those_of_its_canonical_form() {
    let mut context = Context::new(&SHA256);
    crate::canonical::Canonical::Relaxed.field(b"A :  b\r\n\tc \r\n", |piece| context.update(piece));
    assert_eq!(context.finish().as_ref(), digest(&SHA256, b"a:b c\r\n").as_ref());
}
