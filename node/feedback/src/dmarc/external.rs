//! Whether a place outside a domain's organisation wants its reports (RFC 7489, section 7.1; RFC 9990, section 5).
//!
//! Without that anybody could have everybody's reports sent to somebody who has nothing to do with them.

use mailraft_sender_auth::Domain;

use super::rua::{Destination, destinations};

/// The longest record that is read, in bytes.
const RECORD_MAX_BYTES: usize = 8 << 10;
/// Records that are looked at.
const RECORDS_MAX: usize = 16;

/// What has to be asked before a report goes somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Nothing: it is the organisation's own.
    Nothing,
    /// The TXT records of this name, whose answer [`consent`] reads.
    Txt(String),
    /// The name would be too long, so nobody can consent: nothing is sent there.
    Never,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Reports are wanted at these places: the one that was asked about, or others of the same host in its stead.
    Given(Vec<Destination>),
    /// Nothing is sent there.
    Refused,
}

/// What has to be asked before reports about a domain, at which a policy was found, go somewhere.
pub fn ask(domain: &str, destination: &Destination) -> Asking {
    let (Some(domain), Some(host)) = (Domain::parse(domain), Domain::parse(&destination.host)) else {
        return Asking::Never;
    };
    if domain.organizational() == host.organizational() {
        return Asking::Nothing;
    }
    let name = host.below("_report._dmarc").and_then(|name| name.below(domain.as_str()));
    name.map_or(Asking::Never, |name| Asking::Txt(name.to_string()))
}

/// Reads the answer to [`Asking::Txt`]: no records if there are none. Where the DNS did not answer, it is asked again later.
pub fn consent<'a>(destination: &Destination, records: impl IntoIterator<Item = &'a [u8]>) -> Consent {
    let mut is_confirmed = false;
    let mut instead = None;
    for record in records.into_iter().take(RECORDS_MAX) {
        let Some(tags) = std::str::from_utf8(record).ok().filter(|r| r.len() <= RECORD_MAX_BYTES).and_then(tags) else {
            continue;
        };
        is_confirmed = true;
        let rua = tags.iter().find(|(name, _)| *name == "rua").map(|(_, value)| *value);
        instead = instead.or(rua);
    }
    match (is_confirmed, instead.map(destinations)) {
        (false, _) => Consent::Refused,
        (true, None) => Consent::Given(vec![destination.clone()]),
        // Who speaks for its host speaks for no other one.
        (true, Some(others)) if others.iter().any(|other| other.host != destination.host) => Consent::Refused,
        (true, Some(others)) if others.is_empty() => Consent::Refused,
        (true, Some(others)) => Consent::Given(others),
    }
}

/// The tags of a record, of which the first is `v=DMARC1`.
fn tags(record: &str) -> Option<Vec<(&str, &str)>> {
    let parts = record.split(';').map(str::trim);
    let tags: Vec<(&str, &str)> = parts
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').map(|(name, value)| (name.trim(), value.trim())))
        .collect::<Option<_>>()?;
    (tags.first() == Some(&("v", "DMARC1"))).then_some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(address: &str) -> Destination {
        destinations(&format!("mailto:{address}")).remove(0)
    }

    #[test]
    fn who_is_outside_an_organisation_is_asked_by_name() {
        let ask = |domain: &str, address: &str| ask(domain, &destination(address));
        // RFC 7489, section 7.1.
        let name = "blue.example.com._report._dmarc.red.example.net";
        assert_eq!(ask("blue.example.com", "reports@red.example.net"), Asking::Txt(name.to_owned()));
        assert_eq!(ask("blue.example.com", "reports@red.example.com"), Asking::Nothing);
        assert_eq!(ask("example.com", "reports@example.com"), Asking::Nothing);
        assert_eq!(ask("a.co.uk", "reports@b.co.uk"), Asking::Txt("a.co.uk._report._dmarc.b.co.uk".to_owned()));
        let long = ["x".repeat(60).as_str(); 3].join(".");
        assert_eq!(ask(&format!("{long}.test"), &format!("a@{long}.example")), Asking::Never);
        assert_eq!(ask("a\r\nb", "a@b.test"), Asking::Never);
    }

    #[test]
    fn who_consents_may_name_another_address_of_its_own_host() {
        let asked = destination("reports@red.example.net!10m");
        let answer = |records: &[&str]| consent(&asked, records.iter().map(|record| record.as_bytes()));
        let given = |address: &str| Consent::Given(vec![destination(address)]);
        assert_eq!(answer(&["v=DMARC1"]), Consent::Given(vec![asked.clone()]));
        assert_eq!(answer(&["v=spf1 -all", " v = DMARC1 ;"]), Consent::Given(vec![asked.clone()]));
        assert_eq!(answer(&["v=DMARC1; rua=mailto:other@red.example.net"]), given("other@red.example.net"));
        for refused in [
            &[][..],
            &["v=spf1 -all"],
            &["v=DMARC2"],
            &["rua=mailto:a@red.example.net; v=DMARC1"],
            &["v=DMARC1; rubbish"],
            // Neither the one nor the other gets anything.
            &["v=DMARC1; rua=mailto:victim@example.org"],
            &["v=DMARC1; rua=mailto:a@red.example.net,mailto:victim@example.org"],
            &["v=DMARC1; rua=nobody"],
        ] {
            assert_eq!(answer(refused), Consent::Refused, "{refused:?}");
        }
        assert_eq!(consent(&asked, [&b"v=DMARC1; \xff=1"[..]]), Consent::Refused);
        let long = format!("v=DMARC1; x={}", "x".repeat(RECORD_MAX_BYTES));
        assert_eq!(answer(&[&long]), Consent::Refused);
    }
}
