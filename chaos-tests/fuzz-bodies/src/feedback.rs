//! Where other domains want reports, and what was counted of a day as another node or an earlier start wrote it down.

use mailraft_feedback::dmarc::{
    Asking, Consent, DESTINATIONS_MAX, Destination, MessagesOfDay, Schema, ask, consent, destinations,
};
use mailraft_feedback::tls::{PLACES_MAX, Place, SessionsOfDay, places};
use mailraft_feedback::{Day, Kind, PART_MAX_BYTES, Reporter};

/// A record of TLS-RPT, a list of places for DMARC, an answer of one of these, and a part of a day.
pub fn feedback(input: &[u8]) {
    let found = places([input]);
    assert!(found.len() <= PLACES_MAX);
    for place in found {
        match place {
            Place::Mail(address) => assert_address(&address),
            Place::Https(url) => assert!(url.starts_with("https://") && url.bytes().all(|b| b.is_ascii_graphic())),
        }
    }
    let asked = Destination { address: "a@b.test".to_owned(), host: "b.test".to_owned(), max_bytes: None };
    match consent(&asked, [input]) {
        Consent::Given(others) => assert!(others.iter().all(|other| other.host == "b.test")),
        Consent::Refused => {}
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let found = destinations(text);
        assert!(found.len() <= DESTINATIONS_MAX);
        for destination in found {
            assert_address(&destination.address);
            assert!(destination.address.ends_with(&format!("@{}", destination.host)));
            match ask("c.test", &destination) {
                Asking::Txt(name) => assert!(name.len() <= 253 && name.starts_with("c.test._report._dmarc.")),
                Asking::Nothing => assert!(destination.host.ends_with("c.test")),
                Asking::Never => {}
            }
        }
    }
    let reporter = Reporter::new("A", "a.test", "a@a.test", "a@a.test").expect("these are addresses");
    if let Ok(day) = SessionsOfDay::decode(input) {
        comes_back(&day);
        for domain in day.domains() {
            day.report(domain, &reporter);
        }
    }
    if let Ok(day) = MessagesOfDay::decode(input) {
        comes_back(&day);
        for domain in day.domains() {
            day.reports(domain, &reporter, Schema::Rfc7489);
        }
    }
}

fn assert_address(address: &str) {
    assert!(address.bytes().all(|b| b.is_ascii_graphic() && !b"<>,\"".contains(&b)), "{address:?}");
    assert_eq!(address.matches('@').count(), 1, "{address:?}");
}

fn comes_back<K: Kind>(day: &Day<K>) {
    let mut again = Day::new(day.day());
    for part in day.encode() {
        assert!(part.len() <= PART_MAX_BYTES);
        let part = Day::decode(&part).expect("it was just written");
        again.merge(part).expect("it is of the same day");
    }
    assert_eq!(&again, day);
}
