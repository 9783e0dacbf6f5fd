//! What a domain publishes in the DNS so that mail to it and from it arrives, and whether it does.
//!
//! A record that is there may say more than is asked for here, or say it otherwise: what counts is whether it does what it is for
//! to who reads it as the check of mail, the sending of mail and the sending of reports here do.

use std::collections::BTreeSet;

use mailraft_outbound::reply::harmless;
use mailraft_outbound::tls::mta_sts;
use mailraft_sender_auth::{DmarcRecord, spf_names_mx};

use crate::{dmarc, tls};

/// The longest string of a TXT record, in octets (RFC 1035, section 3.3.14).
const STRING_MAX_BYTES: usize = 255;
/// What of another record is told, in characters.
const TOLD_MAX_CHARS: usize = 300;

/// What is known of a domain and of the servers that take its mail.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The domain.
    pub domain: String,
    /// Servers that take its mail: preference and name.
    pub mail_hosts: Vec<(u16, String)>,
    /// Its keys: selector and text of the record.
    pub keys: Vec<(String, String)>,
    /// Services for mail programs that are served.
    pub services: Vec<(ClientService, u16)>,
}

/// A service for mail programs, with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientService {
    /// Submission over TLS.
    Submissions,
    /// Submission with STARTTLS.
    Submission,
    /// IMAP over TLS.
    Imaps,
    /// IMAP with STARTTLS.
    Imap,
    /// POP3 over TLS.
    Pop3s,
    /// POP3 with STLS.
    Pop3,
}

impl ClientService {
    /// Its label in the DNS, and how much it is preferred: TLS from the start comes first (RFC 8314, section 3.2).
    fn label(self) -> (&'static str, u16) {
        match self {
            ClientService::Submissions => ("_submissions", 0),
            ClientService::Submission => ("_submission", 10),
            ClientService::Imaps => ("_imaps", 0),
            ClientService::Imap => ("_imap", 10),
            ClientService::Pop3s => ("_pop3s", 20),
            ClientService::Pop3 => ("_pop3", 30),
        }
    }
}

/// A record that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRecord {
    /// Its name, without a dot at its end.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its value as a zone file has it, but for quotes around text.
    pub value: String,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Names a server that takes mail (RFC 5321, section 5.1).
    Mx,
    /// Gives such a server an address. Its value is left open.
    Address,
    /// Says who sends (RFC 7208).
    Spf,
    /// Publishes a key (RFC 6376).
    Dkim,
    /// Says what becomes of mail in the domain's name that others sent (RFC 7489).
    Dmarc,
    /// Says that there is a policy for TLS (RFC 8461).
    MtaSts,
    /// Says who is told how TLS fares (RFC 8460).
    TlsRpt,
    /// Tells mail programs where a service is (RFC 6186, 8314).
    Srv,
}

impl Purpose {
    /// The type of the record; that of an address is A or AAAA.
    pub fn kind(self) -> &'static str {
        match self {
            Purpose::Mx => "MX",
            Purpose::Address => "A",
            Purpose::Spf | Purpose::Dkim | Purpose::Dmarc | Purpose::MtaSts | Purpose::TlsRpt => "TXT",
            Purpose::Srv => "SRV",
        }
    }

    /// What it is for, in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Mx => "mail to the domain",
            Purpose::Address => "the address of a mail server",
            Purpose::Spf => "SPF: who sends for the domain",
            Purpose::Dkim => "DKIM: a key that signs",
            Purpose::Dmarc => "DMARC: what becomes of forged mail",
            Purpose::MtaSts => "MTA-STS: mail to the domain comes encrypted",
            Purpose::TlsRpt => "TLS-RPT: who hears of failures of TLS",
            Purpose::Srv => "mail programs find the server",
        }
    }
}

/// Whether a record does what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It does.
    Ok,
    /// There is none.
    Missing,
    /// There is another one, one too many, or one that does not do it.
    Differs {
        /// What is there, for a person: printable ASCII, cut off.
        there: Vec<String>,
        /// Why that does not do it, in a sentence without its end, if more is to be said.
        why: Option<String>,
    },
    /// The DNS did not answer.
    NoAnswer,
}

/// Whether what is there, the first, does what is wanted, the second; and why not, if more is to be said.
type Does = fn(&str, &str) -> Result<(), Option<String>>;

/// Every record to publish for a domain, in the order in which a person goes through them.
pub fn records(facts: &Facts) -> Vec<DomainRecord> {
    let domain = &facts.domain;
    let mut all = Vec::new();
    let mut add = |name: String, purpose, value: String| all.push(DomainRecord { name, purpose, value });
    for (preference, host) in &facts.mail_hosts {
        add(domain.clone(), Purpose::Mx, format!("{preference} {host}."));
    }
    for (_, host) in &facts.mail_hosts {
        add(host.clone(), Purpose::Address, "the server's public address".to_owned());
    }
    add(domain.clone(), Purpose::Spf, "v=spf1 mx -all".to_owned());
    for (selector, record) in &facts.keys {
        add(format!("{selector}._domainkey.{domain}"), Purpose::Dkim, record.clone());
    }
    let dmarc = format!("v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}");
    add(format!("_dmarc.{domain}"), Purpose::Dmarc, dmarc);
    add(format!("_mta-sts.{domain}"), Purpose::MtaSts, format!("v=STSv1; id={}", policy_id(facts)));
    let tls_rpt = format!("v=TLSRPTv1; rua=mailto:postmaster@{domain}");
    add(format!("_smtp._tls.{domain}"), Purpose::TlsRpt, tls_rpt);
    // Those that are preferred take clients too; others stand in for them.
    let best = facts.mail_hosts.iter().map(|(preference, _)| *preference).min();
    for (service, port) in &facts.services {
        let (label, priority) = service.label();
        for (_, host) in facts.mail_hosts.iter().filter(|(preference, _)| Some(*preference) == best) {
            add(format!("{label}._tcp.{domain}"), Purpose::Srv, format!("{priority} 1 {port} {host}."));
        }
    }
    all
}

/// The policy that stands behind the MTA-STS record, at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461, section 3.2):
/// some web server serves it.
pub fn mta_sts_policy(facts: &Facts) -> String {
    let hosts: String = facts.mail_hosts.iter().map(|(_, host)| format!("mx: {host}\r\n")).collect();
    format!("version: STSv1\r\nmode: testing\r\n{hosts}max_age: 604800\r\n")
}

/// Another one for another policy.
fn policy_id(facts: &Facts) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(mta_sts_policy(facts).as_bytes());
    digest.iter().take(8).map(|octet| format!("{octet:02x}")).collect()
}

impl DomainRecord {
    /// As a line of a zone file; a comment where the value is left open.
    pub fn zone_line(&self) -> String {
        let DomainRecord { name, purpose, value } = self;
        match purpose {
            Purpose::Address => format!("; {name}. IN A or AAAA: {value}"),
            Purpose::Mx | Purpose::Srv => format!("{name}. IN {} {value}", purpose.kind()),
            Purpose::Spf | Purpose::Dkim | Purpose::Dmarc | Purpose::MtaSts | Purpose::TlsRpt => {
                format!("{name}. IN TXT {}", quoted(value))
            }
        }
    }

    /// Compares it with what the DNS says: values as they stand here, text without quotes; None if it did not answer.
    pub fn compare(&self, answers: Option<&[String]>) -> Finding {
        let Some(answers) = answers else { return Finding::NoAnswer };
        let (alike, does): (Vec<&String>, Does) = match self.purpose {
            Purpose::Address => (answers.iter().collect(), |_, _| Ok(())),
            Purpose::Mx => (answers.iter().collect(), |there, wanted| same(same_mx(there, wanted))),
            Purpose::Srv => (answers.iter().collect(), |there, wanted| same(same_srv(there, wanted))),
            Purpose::Spf => (begins(answers, "v=spf1"), does_spf),
            Purpose::Dkim => (answers.iter().collect(), |there, wanted| same(same_key(there, wanted))),
            Purpose::Dmarc => (begins(answers, "v=DMARC1"), |there, _| does_dmarc(there)),
            Purpose::MtaSts => (begins(answers, "v=STSv1"), |there, _| does_mta_sts(there)),
            Purpose::TlsRpt => (begins(answers, "v=TLSRPTv1"), |there, _| does_tls_rpt(there)),
        };
        // Of these there must be one, or all count for nothing.
        let alone = match self.purpose {
            Purpose::Spf | Purpose::Dkim | Purpose::Dmarc | Purpose::MtaSts | Purpose::TlsRpt => alike.len() == 1,
            Purpose::Mx | Purpose::Address | Purpose::Srv => true,
        };
        if alike.is_empty() {
            return Finding::Missing;
        }
        let mut why = None;
        for there in &alike {
            match does(there, &self.value) {
                Ok(()) if alone => return Finding::Ok,
                Ok(()) => {}
                Err(reason) => why = why.or(reason),
            }
        }
        if !alone {
            why = Some("where there are several none of them counts".to_owned());
        }
        Finding::Differs { there: alike.into_iter().map(|there| told(there)).collect(), why }
    }
}

fn begins<'a>(answers: &'a [String], with: &str) -> Vec<&'a String> {
    let is_alike = |answer: &&String| {
        let rest = answer.trim().strip_prefix(with);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ';', '\t']))
    };
    answers.iter().filter(is_alike).collect()
}

/// Whether it names the same host, with whatever preference.
fn same_mx(there: &str, wanted: &str) -> bool {
    let host = |value: &str| value.split_whitespace().nth(1).map(|host| host.trim_end_matches('.').to_lowercase());
    host(there) == host(wanted)
}

/// Whether it names the same host and port.
fn same_srv(there: &str, wanted: &str) -> bool {
    let place = |value: &str| {
        let mut words = value.split_whitespace().skip(2).map(|word| word.trim_end_matches('.').to_lowercase());
        (words.next(), words.next())
    };
    place(there) == place(wanted)
}

fn same(is_same: bool) -> Result<(), Option<String>> {
    if is_same { Ok(()) } else { Err(None) }
}

/// Whether the servers that take mail may send it: by `mx`, or in whatever other way if it is just as it is here.
fn does_spf(there: &str, wanted: &str) -> Result<(), Option<String>> {
    let terms = |value: &str| value.split_whitespace().map(str::to_lowercase).collect::<BTreeSet<String>>();
    match spf_names_mx(there.trim().as_bytes()) {
        Ok(names_mx) => same(names_mx || terms(there) == terms(wanted)),
        Err(flaw) => Err(Some(flaw.to_string())),
    }
}

/// Whether it says what is to be done, without what others would ignore or guess, and names somebody who can be told if it names any.
fn does_dmarc(there: &str) -> Result<(), Option<String>> {
    let record = DmarcRecord::published(there.trim().as_bytes()).map_err(|flaw| Some(flaw.to_string()))?;
    let mut addresses = record.aggregate_reports_to.iter().flat_map(|rua| rua.split(','));
    match addresses.all(|uri| !dmarc::destinations(uri).is_empty()) {
        true => Ok(()),
        false => Err(Some("rua is made of addresses such as mailto:a@b.example with commas between them".to_owned())),
    }
}

fn does_mta_sts(there: &str) -> Result<(), Option<String>> {
    match mta_sts::policy_id([there.trim().as_bytes()]) {
        Some(_) => Ok(()),
        None => Err(Some("it has no id of 1 to 32 letters and digits".to_owned())),
    }
}

fn does_tls_rpt(there: &str) -> Result<(), Option<String>> {
    match tls::places([there.trim().as_bytes()]).is_empty() {
        false => Ok(()),
        true => Err(Some("rua names neither mailto:a@b.example nor https://b.example/".to_owned())),
    }
}

/// Whether it publishes the same key.
fn same_key(there: &str, wanted: &str) -> bool {
    let key = |value: &str| tag(value, "p").map(|p| p.split_whitespace().collect::<String>());
    let kind = |value: &str| tag(value, "k").unwrap_or_else(|| "rsa".to_owned());
    key(there).is_some_and(|p| !p.is_empty()) && key(there) == key(wanted) && kind(there) == kind(wanted)
}

/// The value of a tag.
fn tag(list: &str, name: &str) -> Option<String> {
    let mut tags = list.split(';').filter_map(|part| part.split_once('='));
    tags.find(|(tag, _)| tag.trim() == name).map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// What strangers publish, for a person.
fn told(there: &str) -> String {
    let beginning: String = there.chars().take(TOLD_MAX_CHARS).collect();
    let rest = if beginning.len() < there.len() { "..." } else { "" };
    format!("{}{rest}", harmless(&beginning))
}

/// Text as a zone file has it (RFC 1035, section 5.1).
fn quoted(text: &str) -> String {
    let mut strings = Vec::new();
    let mut rest = text;
    loop {
        let (string, behind) = rest.split_at(rest.floor_char_boundary(STRING_MAX_BYTES));
        strings.push(format!("\"{}\"", string.replace('\\', "\\\\").replace('"', "\\\"")));
        rest = behind;
        if rest.is_empty() {
            return strings.join(" ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            domain: "example.org".to_owned(),
            mail_hosts: vec![(10, "mx1.example.org".to_owned()), (20, "mx2.example.net".to_owned())],
            keys: vec![
                ("r1".to_owned(), format!("v=DKIM1; k=rsa; p={}", "A".repeat(392))),
                ("e1".to_owned(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".to_owned()),
            ],
            services: vec![(ClientService::Submissions, 465), (ClientService::Imaps, 993)],
        }
    }

    #[test]
    fn every_record_of_a_domain_is_a_line_of_its_zone() {
        let lines: Vec<String> = records(&facts()).iter().map(DomainRecord::zone_line).collect();
        let id = policy_id(&facts());
        let rsa = format!("v=DKIM1; k=rsa; p={}", "A".repeat(392));
        assert_eq!(
            lines,
            [
                "example.org. IN MX 10 mx1.example.org.",
                "example.org. IN MX 20 mx2.example.net.",
                "; mx1.example.org. IN A or AAAA: the server's public address",
                "; mx2.example.net. IN A or AAAA: the server's public address",
                "example.org. IN TXT \"v=spf1 mx -all\"",
                &format!("r1._domainkey.example.org. IN TXT \"{}\" \"{}\"", &rsa[..255], &rsa[255..]),
                "e1._domainkey.example.org. IN TXT \"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"",
                "_dmarc.example.org. IN TXT \"v=DMARC1; p=quarantine; rua=mailto:postmaster@example.org\"",
                &format!("_mta-sts.example.org. IN TXT \"v=STSv1; id={id}\""),
                "_smtp._tls.example.org. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@example.org\"",
                "_submissions._tcp.example.org. IN SRV 0 1 465 mx1.example.org.",
                "_imaps._tcp.example.org. IN SRV 0 1 993 mx1.example.org.",
            ]
        );
    }

    #[test]
    fn a_policy_has_an_id_of_its_own() {
        let one = facts();
        assert_eq!(
            mta_sts_policy(&one),
            "version: STSv1\r\nmode: testing\r\nmx: mx1.example.org\r\nmx: mx2.example.net\r\nmax_age: 604800\r\n"
        );
        let mut other = facts();
        other.mail_hosts.pop();
        assert_ne!(policy_id(&one), policy_id(&other));
        assert!((1..=32).contains(&policy_id(&one).len()), "RFC 8461, section 3.1");
    }

    #[test]
    fn what_is_there_does_what_it_is_for_or_is_told() {
        use Finding::{Missing, NoAnswer, Ok};
        let all = records(&facts());
        let of = |purpose| all.iter().find(|record| record.purpose == purpose).unwrap();
        let told = |there: &[&str]| there.iter().map(|t| (*t).to_owned()).collect();
        let differs = |there: &[&str]| Finding::Differs { there: told(there), why: None };
        let several = |there: &[&str]| {
            let why = Some("where there are several none of them counts".to_owned());
            Finding::Differs { there: told(there), why }
        };
        let rsa = format!("v=DKIM1; k=rsa; p={}", "A".repeat(392));
        let folded = format!("p={} {}", "A".repeat(200), "A".repeat(192));
        for (purpose, answers, finding) in [
            (Purpose::Mx, &["10 mx1.example.org"][..], Ok),
            (Purpose::Mx, &["5 other.example", "50 MX1.example.org."], Ok),
            (Purpose::Mx, &["5 other.example"], differs(&["5 other.example"])),
            (Purpose::Mx, &[], Missing),
            (Purpose::Address, &["192.0.2.1"], Ok),
            (Purpose::Address, &[], Missing),
            (Purpose::Spf, &["google-site=x", "v=spf1 mx -all"], Ok),
            (Purpose::Spf, &["v=spf1 include:a.test MX ~all"], Ok),
            (Purpose::Spf, &["v=spf1 ip4:192.0.2.1 -all"], differs(&["v=spf1 ip4:192.0.2.1 -all"])),
            (Purpose::Spf, &["v=spf1 mx -all", "v=spf1 a"], several(&["v=spf1 mx -all", "v=spf1 a"])),
            (Purpose::Spf, &["v=spf10 mx"], Missing),
            (Purpose::Dkim, &[&rsa], Ok),
            (Purpose::Dkim, &[&folded], Ok),
            (Purpose::Dkim, &["v=DKIM1; p="], differs(&["v=DKIM1; p="])),
            (Purpose::Dkim, &["v=DKIM1; k=rsa; p=BBBB"], differs(&["v=DKIM1; k=rsa; p=BBBB"])),
            (Purpose::Dkim, &[], Missing),
            (Purpose::Dmarc, &["v=DMARC1; p=none"], Ok),
            (
                Purpose::Dmarc,
                &["v=DMARC1; p=none", "v=DMARC1; p=reject"],
                several(&["v=DMARC1; p=none", "v=DMARC1; p=reject"]),
            ),
            (Purpose::Dmarc, &["v=DMARC1; p=none; rua=mailto:a@b.test!10m,mailto:c@d.test; ri=86400"], Ok),
            (Purpose::Dmarc, &["hello\n"], Missing),
            (Purpose::MtaSts, &["v=STSv1; id=1"], Ok),
            (Purpose::MtaSts, &["v=STSv1; id=20160831085700Z;"], Ok),
            (Purpose::TlsRpt, &["v=TLSRPTv1;rua=mailto:a@b.test"], Ok),
            (Purpose::Srv, &["0 5 465 mx1.example.org"], Ok),
            (Purpose::Srv, &["0 1 587 mx1.example.org"], differs(&["0 1 587 mx1.example.org"])),
            (Purpose::Srv, &["0 0 0 ."], differs(&["0 0 0 ."])),
            (Purpose::Srv, &[], Missing),
        ] {
            let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
            assert_eq!(of(purpose).compare(Some(&answers)), finding, "{purpose:?} {answers:?}");
            assert_eq!(of(purpose).compare(None), NoAnswer);
        }
    }

    #[test]
    fn what_is_there_and_does_nothing_is_not_called_right() {
        let all = records(&facts());
        for (purpose, there, because) in [
            (Purpose::Dmarc, "v=DMARC1", "p is"),
            (Purpose::Dmarc, "v=DMARC1; p=foo", "p is"),
            (Purpose::Dmarc, "v=DMARC1; p=reject; sp=foo", "sp and np"),
            (Purpose::Dmarc, "v=DMARC1; p=reject; adkim=x", "adkim and aspf"),
            (Purpose::Dmarc, "v=DMARC1; p=reject; pct=1000", "pct is"),
            (Purpose::Dmarc, "v=DMARC1; p=reject; rua=nonsense", "rua is"),
            (Purpose::Dmarc, "v=DMARC1; p=reject; rua=mailto:a@b.test,c@d.test", "rua is"),
            (Purpose::Dmarc, "v=DMARC1; p=reject; rua=", "rua is"),
            (Purpose::Spf, "v=spf1 -all mx", "nothing behind all"),
            (Purpose::Spf, "v=spf1 mx -all foo:bar", "not of SPF's grammar"),
            (Purpose::Spf, "v=spf1 mx +all", "+all lets everybody"),
            (Purpose::MtaSts, "v=STSv1", "no id"),
            (Purpose::MtaSts, "v=STSv1; id=abc-def", "no id"),
            (Purpose::MtaSts, "v=STSv1; id=\u{1b}", "no id"),
            (Purpose::TlsRpt, "v=TLSRPTv1", "rua names"),
            (Purpose::TlsRpt, "v=TLSRPTv1; rua=foo", "rua names"),
            (Purpose::TlsRpt, "v=TLSRPTv1; rua=http://a.test/", "rua names"),
        ] {
            let record = all.iter().find(|record| record.purpose == purpose).unwrap();
            match record.compare(Some(&[there.to_owned()])) {
                Finding::Differs { why: Some(why), .. } => assert!(why.contains(because), "{there}: {why}"),
                other => panic!("{there}: {other:?}"),
            }
        }
        // What is to be published is right by the same measure.
        for record in all.iter().filter(|record| record.purpose != Purpose::Address) {
            assert_eq!(record.compare(Some(std::slice::from_ref(&record.value))), Finding::Ok, "{record:?}");
        }
    }

    #[test]
    fn what_strangers_publish_is_told_in_short_and_without_what_moves_a_terminal() {
        let mx = &records(&facts())[0];
        let long = format!("5 \u{1b}[2J{}", "x".repeat(10_000));
        let Finding::Differs { there, .. } = mx.compare(Some(&[long])) else { panic!("it is another one") };
        assert!(there[0].starts_with("5 ?[2J") && there[0].chars().count() == TOLD_MAX_CHARS + 3);
        let turned = "5 \u{202e}gro.elpmaxe\u{2066}\u{200f}\u{feff}\u{9b}".to_owned();
        let Finding::Differs { there, .. } = mx.compare(Some(&[turned])) else { panic!("it is another one") };
        assert_eq!(there, ["5 ?gro.elpmaxe????"]);
        let text = DomainRecord { name: "a.test".into(), purpose: Purpose::Dmarc, value: "a\"b\\".into() };
        assert_eq!(text.zone_line(), "a.test. IN TXT \"a\\\"b\\\\\"");
    }
}
