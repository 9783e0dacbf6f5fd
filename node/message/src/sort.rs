//! The order in which messages are told (RFC 5256, section 3; RFC 5957): of each message a key is made of its ENVELOPE, and
//! keys are compared octet by octet.

use crate::date::parse_date;
use crate::envelope::{Address, Envelope};
use crate::search::decode_header;
use crate::subject::{BaseSubject, compared};

/// Criteria of one sort.
pub const CRITERIA_MAX: usize = 32;

/// What messages are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// When it was received: INTERNALDATE.
    Arrival,
    /// The local part of the first address of Cc.
    Cc,
    /// When it was sent: the Date field, or INTERNALDATE where there is none that can be read.
    Date,
    /// The local part of the first address of From.
    From,
    /// Its size.
    Size,
    /// What its subject is about.
    Subject,
    /// The local part of the first address of To.
    To,
    /// The name of the first address of From, or the address where it has none.
    DisplayFrom,
    /// The same of To.
    DisplayTo,
}

/// Which of two messages comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The smaller one.
    Rising,
    /// The greater one.
    Falling,
}

/// What of a message is compared. Without its ENVELOPE only when it was received and its size can be.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// Its ENVELOPE.
    pub envelope: Option<&'a Envelope>,
    /// When it was received, in seconds since 1970-01-01 UTC.
    pub received_unix_seconds: i64,
    /// Its size.
    pub size_bytes: u64,
}

impl Criterion {
    /// Whether it is in the ENVELOPE.
    pub fn needs_envelope(self) -> bool {
        !matches!(self, Criterion::Arrival | Criterion::Size)
    }
}

impl Compared<'_> {
    /// The key of a message: that of the one that comes first is the smaller one.
    pub fn key(&self, criteria: &[(Criterion, Direction)]) -> Box<[u8]> {
        let mut key = Vec::new();
        for (criterion, direction) in criteria {
            let start = key.len();
            self.push_key(*criterion, &mut key);
            if *direction == Direction::Falling {
                key[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        key.into()
    }

    /// When it was sent, in seconds since 1970-01-01 UTC.
    pub fn sent_unix_seconds(&self) -> i64 {
        let date = self.envelope.and_then(|envelope| envelope.date.as_deref());
        date.and_then(parse_date).map_or(self.received_unix_seconds, |(seconds, _)| seconds)
    }

    fn push_key(&self, criterion: Criterion, key: &mut Vec<u8>) {
        let first = |list: fn(&Envelope) -> &Vec<Address>| self.envelope.and_then(|envelope| list(envelope).first());
        match criterion {
            Criterion::Arrival => push_number(self.received_unix_seconds, key),
            Criterion::Date => push_number(self.sent_unix_seconds(), key),
            Criterion::Size => key.extend(self.size_bytes.to_be_bytes()),
            Criterion::Subject => {
                let subject = self.envelope.and_then(|envelope| envelope.subject.as_deref()).unwrap_or_default();
                push_text(&BaseSubject::of(subject).text, key);
            }
            Criterion::Cc => push_text(&mailbox(first(|e| &e.cc)), key),
            Criterion::From => push_text(&mailbox(first(|e| &e.from)), key),
            Criterion::To => push_text(&mailbox(first(|e| &e.to)), key),
            Criterion::DisplayFrom => push_text(&displayed(first(|e| &e.from)), key),
            Criterion::DisplayTo => push_text(&displayed(first(|e| &e.to)), key),
        }
    }
}

/// Big-endian, negative numbers first.
fn push_number(number: i64, key: &mut Vec<u8>) {
    key.extend((number.cast_unsigned() ^ 1 << 63).to_be_bytes());
}

/// A text that is another's beginning comes before it: it ends with a zero, and a zero within is no end.
fn push_text(text: &str, key: &mut Vec<u8>) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(1);
        }
    }
    key.extend([0, 0]);
}

fn mailbox(address: Option<&Address>) -> String {
    let mailbox = address.and_then(|address| address.mailbox.as_deref()).unwrap_or_default();
    compared(&String::from_utf8_lossy(mailbox))
}

fn displayed(address: Option<&Address>) -> String {
    let Some(address) = address else { return String::new() };
    if let Some(name) = address.name.as_deref().filter(|name| !name.is_empty()) {
        return compared(&decode_header(name));
    }
    let mailbox = String::from_utf8_lossy(address.mailbox.as_deref().unwrap_or_default());
    match &address.host {
        Some(host) => compared(&format!("{mailbox}@{}", String::from_utf8_lossy(host))),
        // A group's name.
        None => compared(&mailbox),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn envelope(header: &str) -> Envelope {
        Envelope::parse(format!("{header}\r\n\r\n").as_bytes()).unwrap()
    }

    fn sorted(headers: &[&str], criteria: &[(Criterion, Direction)]) -> Vec<usize> {
        let key = |n: &usize| {
            let envelope = envelope(headers[*n]);
            let (received_unix_seconds, size_bytes) = (100 - *n as i64, *n as u64 % 2);
            Compared { envelope: Some(&envelope), received_unix_seconds, size_bytes }.key(criteria)
        };
        let mut all: Vec<usize> = (0..headers.len()).collect();
        all.sort_by_key(|n| (key(n), *n));
        all
    }

    #[test]
    fn messages_come_in_the_order_of_what_they_are_sorted_by() {
        use Criterion::*;
        use Direction::*;
        let by = |criterion| [(criterion, Rising)];
        assert_eq!(sorted(&["", "", ""], &by(Arrival)), [2, 1, 0]);
        assert_eq!(sorted(&["", "", ""], &by(Size)), [0, 2, 1]);
        assert_eq!(sorted(&["", "", ""], &[(Size, Falling), (Arrival, Rising)]), [1, 2, 0]);
        let dates = [
            "Date: 1 Jan 2000 01:00:00 +0200",
            "Date: nonsense",
            "Date: 1 Jan 2000 00:00:00 +0000",
            "Date: 1 Jan 1960 00:00:00 GMT",
        ];
        assert_eq!(sorted(&dates, &by(Date)), [3, 1, 0, 2], "1 has the date that it came");
        let subjects = ["Subject: b", "Subject: Re: A", "Subject: [l] ab", "X: y", "Subject: =?utf-8?q?=C3=84?="];
        assert_eq!(sorted(&subjects, &by(Subject)), [3, 1, 2, 4, 0]);
        assert_eq!(sorted(&subjects, &[(Subject, Falling)]), [0, 4, 2, 1, 3]);
        let from = ["From: Zed <a@z>", "From: b@a", "From: \"=?utf-8?q?=C3=84nne?=\" <c@x>", "From: team: ;", "X: y"];
        assert_eq!(sorted(&from, &by(From)), [4, 0, 1, 2, 3]);
        assert_eq!(sorted(&from, &by(DisplayFrom)), [4, 2, 1, 3, 0]);
    }

    #[test]
    fn a_text_ends_before_whatever_follows_it() {
        let key = |text: &str| {
            let mut key = Vec::new();
            push_text(text, &mut key);
            push_number(-1, &mut key);
            key
        };
        let texts = ["", "\0", "\0\0", "a", "a\0", "a\0b", "ab", "b"];
        assert!(texts.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    }
}
