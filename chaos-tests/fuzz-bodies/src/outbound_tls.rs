//! What other domains publish about the TLS of their mail servers.

use mailraft_outbound::tls::dane::{
    Anchor, Dane, RECORDS_MAX, Record, Security, TlsaAnswer, anchors, fits_end_entity, of_answer,
};
use mailraft_outbound::tls::domain::host_name;
use mailraft_outbound::tls::mta_sts::{MAX_AGE_MAX_S, PATTERNS_MAX, Policy, policy_id};

/// A policy or a record in text, as a whole; and TLSA records before a certificate, the number of records first, then each as its
/// three numbers, the length of its data, and its data.
pub fn outbound_tls(input: &[u8]) {
    text(input);
    records(input);
}

fn text(input: &[u8]) {
    if let Ok(policy) = Policy::parse(input) {
        assert!(policy.max_age_s <= MAX_AGE_MAX_S && policy.patterns.len() <= PATTERNS_MAX);
        assert_eq!(Policy::parse(policy.lines().join("\n").as_bytes()).as_ref(), Ok(&policy), "a report repeats it");
        for pattern in &policy.patterns {
            let host = pattern.strip_prefix("*.").map_or(pattern.clone(), |suffix| format!("x.{suffix}"));
            assert!(host_name(&host).is_none_or(|host| policy.names(&host)), "{pattern}");
            assert!(policy.patterns.len() > 1 || !policy.names(&format!("x.y.{pattern}")), "{pattern}");
        }
    }
    if let Some(id) = policy_id([input]) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    }
    if let Some(name) = std::str::from_utf8(input).ok().and_then(host_name) {
        assert_eq!(host_name(&name).as_ref(), Some(&name), "a name has one form");
    }
}

fn records(input: &[u8]) {
    let Some((count, mut rest)) = input.split_first() else { return };
    let mut records = Vec::new();
    for _ in 0..*count {
        let [usage, selector, matching, length, after @ ..] = rest else { break };
        let (data, after) = after.split_at(after.len().min(usize::from(*length)));
        records.push(Record { usage: *usage, selector: *selector, matching: *matching, data: data.to_vec() });
        rest = after;
    }
    let of = |security| of_answer("mx.test", TlsaAnswer::Records(security, records.clone()));
    assert_eq!(of(Security::Insecure), None);
    match of(Security::Secure) {
        None => assert!(records.is_empty()),
        Some(Dane::Records { records, base }) => {
            assert!(!records.is_empty() && records.len() <= RECORDS_MAX && base == "mx.test");
            let by_any = records.iter().any(|record| record.fits(rest));
            assert!(by_any || !fits_end_entity(&records, rest));
            for anchor in anchors(&records, &[rest]) {
                match anchor {
                    // Of a record, as the server's own certificate is none.
                    Anchor::Certificate(der) => assert_eq!(der.first(), Some(&0x30)),
                    Anchor::PublicKey { key, .. } => assert!(key.len() < input.len()),
                }
            }
        }
        Some(Dane::Unusable) => assert!(!records.is_empty()),
        Some(Dane::Absent | Dane::Failed) => panic!("an answer that came is neither"),
    }
}
