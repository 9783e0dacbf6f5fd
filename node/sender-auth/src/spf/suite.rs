//! The openspf.org test suite for RFC 7208: `testdata/rfc7208-tests.txt`.

use std::net::IpAddr;

use super::{Sender, SpfResult, check};
use crate::dns::{Asker, Dns, NoAnswer, Question, Record};

/// The records of a scenario: name in lower case, type, value.
#[derive(Default)]
struct Scenario(Vec<(String, String, Vec<u8>)>);

/// Undoes `\xNN`.
fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut parts = text.split("\\x");
    out.extend_from_slice(parts.next().unwrap().as_bytes());
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).unwrap());
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    out
}

fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

impl Scenario {
    fn find(&self, name: &str, kind: &str, links: usize) -> Result<Vec<Record>, NoAnswer> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let of = |wanted: &str| {
            let is_it = move |record: &&(String, String, Vec<u8>)| record.0 == name && record.1 == wanted;
            self.0.iter().filter(is_it.clone()).map(|record| record.2.clone()).collect::<Vec<_>>()
        };
        let (found, links_to) = (of.clone()(kind), of.clone()("CNAME"));
        if found.is_empty() && !links_to.is_empty() && links < 4 {
            return self.find(&String::from_utf8_lossy(&links_to[0]), kind, links + 1);
        }
        if found.iter().any(|value| value == b"TIMEOUT") || (found.is_empty() && !of("TIMEOUT").is_empty()) {
            return Err(NoAnswer);
        }
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let record = |value: Vec<u8>| match kind {
            "TXT" => Record::Txt(value),
            "A" => Record::A(text(&value).parse().unwrap()),
            "AAAA" => Record::Aaaa(text(&value).parse().unwrap()),
            "PTR" => Record::Ptr(text(&value)),
            _ => {
                let value = text(&value);
                let (preference, exchange) = value.split_once(' ').unwrap();
                Record::Mx { preference: preference.parse().unwrap(), exchange: exchange.to_owned() }
            }
        };
        Ok(found.into_iter().map(record).collect())
    }
}

impl Dns for Scenario {
    async fn ask(&self, question: &Question) -> Result<Vec<Record>, NoAnswer> {
        match question {
            Question::Txt(name) => self.find(name, "TXT", 0),
            Question::Mx(name) => self.find(name, "MX", 0),
            Question::A(name) => self.find(name, "A", 0),
            Question::Aaaa(name) => self.find(name, "AAAA", 0),
            Question::Ptr(address) => self.find(&reversed(*address), "PTR", 0),
        }
    }
}

fn result(scenario: &Scenario, helo: &str, host: &str, from: &str) -> &'static str {
    let (local, domain) = from.rsplit_once('@').unwrap_or(("", if from.is_empty() { helo } else { from }));
    let local = if local.is_empty() { "postmaster" } else { local };
    let sender = Sender { address: host.parse::<IpAddr>().unwrap().to_canonical(), helo, local, domain };
    match futures::executor::block_on(check(&Asker::new(scenario), &sender)) {
        SpfResult::None => "none",
        SpfResult::Neutral => "neutral",
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
    }
}

#[test]
fn every_case_of_the_openspf_suite_comes_out_as_it_says() {
    let suite = include_str!("../../testdata/rfc7208-tests.txt");
    let (mut scenario, mut tests, mut run, mut wrong) = (Scenario::default(), Vec::new(), 0, Vec::new());
    for line in suite.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["record", name, kind, value] => {
                let name = String::from_utf8_lossy(&octets(name)).to_ascii_lowercase();
                scenario.0.push((name, kind.to_owned(), octets(value)));
            }
            ["test", name, helo, host, from, expected] => tests.push((name, helo, host, from, expected)),
            _ => {
                for (name, helo, host, from, expected) in tests.drain(..) {
                    let text = |column| String::from_utf8_lossy(&octets(column)).into_owned();
                    let found = result(&scenario, &text(helo), host, &text(from));
                    run += 1;
                    if !expected.split('|').any(|one| one == found) {
                        wrong.push(format!("{name}: {found}, not {expected}"));
                    }
                }
                scenario = Scenario::default();
            }
        }
    }
    assert!(run > 180, "{run} cases");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
