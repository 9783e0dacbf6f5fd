//! A parsed search, and whether a message fits it: the keys of IMAP's SEARCH (RFC 3501, section 6.4.4) without IMAP. Keys
//! about a message itself (its dates, size, header and text) are judged here; *facts*, which its place in some protocol
//! or store decides (flags, numbers, folders), are the caller's own type.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::date::{DAY_SECONDS, parse_date};
use crate::envelope::{self, Address};
use crate::header::{fields, first};
use crate::search::{decode_header, folded, header_text};

/// Keys of one query.
pub const KEYS_MAX: usize = 1_000;
/// Those of them that look for a text: each goes through all that it looks in.
pub const TEXTS_MAX: usize = 500;

/// Between the values of fields: none of them has it.
const FIELD_END: char = '\0';

/// The keys of a search, each behind those it is made of; the last one is the whole. Whoever nests OR and NOT a
/// thousand deep nests nothing here.
#[derive(Clone, Debug, PartialEq)]
pub struct Query<F>(Vec<Key<F>>);

/// A key. Those made of others name them by their places. What is looked for in text is in lower case.
#[derive(Clone, Debug, PartialEq)]
pub enum Key<F> {
    /// All of these fit, which may be none.
    And(Vec<usize>),
    /// One of these fits.
    Or(usize, usize),
    /// This one doesn't fit.
    Not(usize),
    /// Something that the caller judges.
    Fact(F),
    /// It is of an earlier day: days are counted from 1970-01-01, times and zones don't count.
    Before(Date, i64),
    /// It is of this day.
    On(Date, i64),
    /// It is of this day or a later one.
    Since(Date, i64),
    /// It was received by this second since 1970-01-01 UTC.
    ReceivedUntil(i64),
    /// It was received at this second or later.
    ReceivedFrom(i64),
    /// Its content has this immutable id; none has, for None.
    Email(Option<[u8; 16]>),
    /// It has more bytes than these.
    Larger(u64),
    /// It has fewer bytes than these.
    Smaller(u64),
    /// A header field of this name holds this text; any field of that name does, if the text is empty.
    Header(String, String),
    /// These addresses of its ENVELOPE hold this text (RFC 3501, section 6.4.4); any of them does, if the text is empty.
    Addresses(Addresses, String),
    /// Its body holds this text.
    Body(String),
    /// Its header or its body holds this text.
    Text(String),
}

/// Which of a message's dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Date {
    /// When it was received: INTERNALDATE.
    Received,
    /// What its Date field says. A message without one fits no day.
    Sent,
}

/// Which of a message's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// From
    From,
    /// To
    To,
    /// Cc
    Cc,
    /// Bcc
    Bcc,
}

impl Addresses {
    const ALL: [Addresses; 4] = [Addresses::From, Addresses::To, Addresses::Cc, Addresses::Bcc];

    fn field(self) -> &'static str {
        match self {
            Addresses::From => "From",
            Addresses::To => "To",
            Addresses::Cc => "Cc",
            Addresses::Bcc => "Bcc",
        }
    }
}

/// How much of a message must be known besides facts, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Its size and when it was received.
    Metadata,
    /// Its header block too.
    Header,
    /// Which words its body holds, too.
    Body,
}

/// Whether a message fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Match,
    /// It does not.
    NoMatch,
    /// That depends on more of it than is known; this is the cheapest to get.
    Needs(Needs),
}

/// A query has more than [`KEYS_MAX`] keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyKeys;

/// A message's size and date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The size, in bytes.
    pub size_bytes: u64,
    /// When it was received, in seconds since 1970-01-01 UTC.
    pub received_unix_seconds: i64,
    /// The zone that it was received in, in minutes east of UTC.
    pub received_zone_minutes: i16,
    /// The immutable id of its content.
    pub email: [u8; 16],
}

/// What is known of a message while it is judged, by one query. Whatever the number of keys, its header block is taken apart once, each
/// field is decoded once, and so is its date; each when somebody asks.
#[derive(Debug, Default)]
pub struct Known<'a> {
    metadata: Option<Metadata>,
    header: Option<&'a [u8]>,
    found: Option<Vec<bool>>,
    /// Which of [`Query::looked_for`] the message lacks for certain; nothing is known of those behind the end.
    lacks: &'a [bool],
    header_text: OnceCell<String>,
    /// The values of the fields that the query names, decoded and in lower case, each behind a [`FIELD_END`]; by their names
    /// in lower case.
    fields: OnceCell<BTreeMap<Vec<u8>, String>>,
    /// The addresses of each field of [`Addresses`] as `name <local@domain>`, decoded and in lower case, each behind a
    /// [`FIELD_END`].
    addresses: [OnceCell<String>; Addresses::ALL.len()],
    sent_day: OnceCell<Option<i64>>,
}

impl<F> Query<F> {
    /// A query without keys; it must get one before it is judged.
    pub fn new() -> Self {
        Query(Vec::new())
    }

    /// Appends a key behind those it is made of. Returns its place.
    ///
    /// # Errors
    /// If there are too many.
    ///
    /// # Panics
    /// If it is made of keys that are not there.
    pub fn push(&mut self, key: Key<F>) -> Result<usize, TooManyKeys> {
        if self.0.len() >= KEYS_MAX {
            return Err(TooManyKeys);
        }
        let place = self.0.len();
        let stands = match &key {
            Key::And(all) => all.iter().all(|of| *of < place),
            Key::Or(one, other) => *one < place && *other < place,
            Key::Not(of) => *of < place,
            _ => true,
        };
        assert!(stands, "a key comes behind those it is made of");
        self.0.push(key);
        Ok(place)
    }

    /// The keys, in their order.
    pub fn keys(&self) -> &[Key<F>] {
        &self.0
    }

    /// The facts, to be put into the form that they are judged in.
    pub fn facts_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.0.iter_mut().filter_map(|key| if let Key::Fact(fact) = key { Some(fact) } else { None })
    }

    /// What suffices to judge any message; None if facts do.
    pub fn needs(&self) -> Option<Needs> {
        self.0.iter().filter_map(Key::needs).max()
    }

    /// Keys that look for a text.
    pub fn texts(&self) -> usize {
        let looks = |key: &&Key<F>| match key {
            Key::Header(_, text) | Key::Addresses(_, text) | Key::Body(text) | Key::Text(text) => !text.is_empty(),
            Key::And(_) | Key::Or(..) | Key::Not(_) | Key::Fact(_) => false,
            Key::Before(..) | Key::On(..) | Key::Since(..) | Key::Larger(_) | Key::Smaller(_) => false,
            Key::ReceivedUntil(_) | Key::ReceivedFrom(_) | Key::Email(_) => false,
        };
        self.0.iter().filter(looks).count()
    }

    /// The words that are looked for in bodies, in the order in which [`Known::searched`] is told of them.
    pub fn words(&self) -> Vec<&str> {
        let word = |key| if let &Key::Body(ref word) | &Key::Text(ref word) = key { Some(word.as_str()) } else { None };
        self.0.iter().filter_map(word).collect()
    }

    /// The texts of which a message must hold each somewhere, in its header or its body as they are searched, to fit the key
    /// that looks for it; in the order in which [`Known::lacking`] is told of them.
    pub fn looked_for(&self) -> Vec<&str> {
        self.0.iter().filter_map(Key::looked_for).collect()
    }

    /// The names of header fields that are looked into, in lower case, and no values.
    fn names(&self) -> BTreeMap<Vec<u8>, String> {
        let name = |key: &Key<F>| if let Key::Header(name, _) = key { Some(name.to_ascii_lowercase()) } else { None };
        self.0.iter().filter_map(name).map(|name| (name.into_bytes(), String::new())).collect()
    }

    /// Judges a message. The whole is known even where some keys are not, if it does not depend on them.
    ///
    /// # Panics
    /// If there are no keys.
    pub fn judge(&self, known: &Known<'_>, fact: impl Fn(&F) -> bool) -> Verdict {
        let mut verdicts: Vec<Option<bool>> = Vec::with_capacity(self.0.len());
        let (mut words, mut looked_for) = (0, 0);
        for key in &self.0 {
            let is_lacking = key.looked_for().is_some() && known.lacks.get(looked_for) == Some(&true);
            let verdict = match key {
                _ if is_lacking => Some(false),
                Key::And(all) if all.iter().any(|of| verdicts[*of] == Some(false)) => Some(false),
                Key::And(all) => all.iter().all(|of| verdicts[*of] == Some(true)).then_some(true),
                Key::Or(one, other) => match (verdicts[*one], verdicts[*other]) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    (None, _) | (_, None) => None,
                },
                Key::Not(of) => verdicts[*of].map(|verdict| !verdict),
                Key::Fact(of) => Some(fact(of)),
                Key::Before(date, day) => known.day(*date).map(|of| of.is_some_and(|of| of < *day)),
                Key::On(date, day) => known.day(*date).map(|of| of.is_some_and(|of| of == *day)),
                Key::Since(date, day) => known.day(*date).map(|of| of.is_some_and(|of| of >= *day)),
                Key::ReceivedUntil(at) => known.metadata.map(|of| of.received_unix_seconds <= *at),
                Key::ReceivedFrom(at) => known.metadata.map(|of| of.received_unix_seconds >= *at),
                Key::Email(id) => known.metadata.map(|of| Some(of.email) == *id),
                Key::Larger(bytes) => known.metadata.map(|of| of.size_bytes > *bytes),
                Key::Smaller(bytes) => known.metadata.map(|of| of.size_bytes < *bytes),
                Key::Header(name, text) => known.has_field(name, text, || self.names()),
                Key::Addresses(of, text) => known.has_address(*of, text),
                Key::Body(_) => known.has_word(words),
                Key::Text(text) => match known.has_in_header(text) {
                    Some(false) => known.has_word(words),
                    decided => decided,
                },
            };
            words += usize::from(matches!(key, Key::Body(_) | Key::Text(_)));
            looked_for += usize::from(key.looked_for().is_some());
            verdicts.push(verdict);
        }
        match verdicts.last().copied().expect("a query has keys") {
            Some(true) => Verdict::Match,
            Some(false) => Verdict::NoMatch,
            None => {
                let open = self.0.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_none());
                let cheapest = open.filter_map(|(key, _)| known.lacks(key.needs()?)).min();
                Verdict::Needs(cheapest.expect("what is not decided lacks something"))
            }
        }
    }
}

impl<F> Default for Query<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Key<F> {
    /// See [`Query::looked_for`]. Addresses are put together anew, so what is found in them may stand nowhere.
    fn looked_for(&self) -> Option<&str> {
        match self {
            Key::Header(_, text) | Key::Body(text) | Key::Text(text) => Some(text),
            _ => None,
        }
    }

    fn needs(&self) -> Option<Needs> {
        match self {
            Key::And(_) | Key::Or(..) | Key::Not(_) | Key::Fact(_) => None,
            Key::Before(Date::Received, _)
            | Key::On(Date::Received, _)
            | Key::Since(Date::Received, _)
            | Key::ReceivedUntil(_)
            | Key::ReceivedFrom(_)
            | Key::Email(_)
            | Key::Larger(_)
            | Key::Smaller(_) => Some(Needs::Metadata),
            Key::Before(Date::Sent, _)
            | Key::On(Date::Sent, _)
            | Key::Since(Date::Sent, _)
            | Key::Header(..)
            | Key::Addresses(..) => Some(Needs::Header),
            Key::Body(_) | Key::Text(_) => Some(Needs::Body),
        }
    }
}

impl<'a> Known<'a> {
    /// Adds the size and the date.
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        Known { metadata: Some(metadata), ..self }
    }

    /// Adds the header block.
    pub fn with_header(self, block: &'a [u8]) -> Self {
        Known { header: Some(block), ..self }
    }

    /// Which of [`Query::looked_for`] the message is known to lack, whatever else is known of it.
    pub fn lacking(self, lacks: &'a [bool]) -> Self {
        Known { lacks, ..self }
    }

    /// Its header fields, decoded and in lower case, as they are searched; nothing of a message without a header block.
    pub fn header_text(&self) -> &str {
        self.header.map_or("", |block| self.header_text.get_or_init(|| header_text(block)))
    }

    /// The body was searched: which of [`Query::words`] it holds.
    pub fn searched(&mut self, found: Vec<bool>) {
        self.found = Some(found);
    }

    /// What is to be got next for a key that needs this. The header comes before the body: it may decide.
    fn lacks(&self, needs: Needs) -> Option<Needs> {
        match needs {
            Needs::Metadata => self.metadata.is_none().then_some(Needs::Metadata),
            Needs::Header => self.header.is_none().then_some(Needs::Header),
            Needs::Body if self.header.is_none() => Some(Needs::Header),
            Needs::Body => self.found.is_none().then_some(Needs::Body),
        }
    }

    fn has_word(&self, word: usize) -> Option<bool> {
        self.found.as_ref().map(|found| found[word])
    }

    fn has_in_header(&self, text: &str) -> Option<bool> {
        self.header?;
        Some(holds(self.header_text(), text))
    }

    /// `named` are all names that this is asked of.
    fn has_field(&self, name: &str, text: &str, named: impl FnOnce() -> BTreeMap<Vec<u8>, String>) -> Option<bool> {
        let block = self.header?;
        let of = self.fields.get_or_init(|| {
            let (mut of, mut lower) = (named(), Vec::new());
            for field in fields(block) {
                lower.clear();
                lower.extend(field.name.iter().map(u8::to_ascii_lowercase));
                if let Some(values) = of.get_mut(&lower) {
                    values.push(FIELD_END);
                    values.push_str(&folded(&decode_header(field.value)));
                }
            }
            of
        });
        let values = of.get(&name.to_ascii_lowercase().into_bytes()).filter(|values| !values.is_empty());
        Some(values.is_some_and(|values| !text.contains(FIELD_END) && holds(values, text)))
    }

    fn has_address(&self, of: Addresses, text: &str) -> Option<bool> {
        let block = self.header?;
        let all = self.addresses[of as usize].get_or_init(|| {
            let mut all = String::new();
            envelope::each_address_of(block, of.field(), |address| {
                all.push(FIELD_END);
                push_address(&address, &mut all);
                ControlFlow::Continue(())
            });
            folded(&all)
        });
        Some(!all.is_empty() && !text.contains(FIELD_END) && holds(all, text))
    }

    /// The local day of a date, if there is one.
    fn day(&self, date: Date) -> Option<Option<i64>> {
        let local = |unix_seconds: i64, zone_minutes: i16| {
            unix_seconds.saturating_add(i64::from(zone_minutes) * 60).div_euclid(DAY_SECONDS)
        };
        match date {
            Date::Received => {
                let metadata = self.metadata?;
                Some(Some(local(metadata.received_unix_seconds, metadata.received_zone_minutes)))
            }
            Date::Sent => {
                let header = self.header?;
                Some(*self.sent_day.get_or_init(|| {
                    first(header, "Date").and_then(parse_date).map(|(seconds, zone)| local(seconds, zone))
                }))
            }
        }
    }
}

/// As people write it; a group's beginning is its name, and its end is nothing.
fn push_address(address: &Address, out: &mut String) {
    let text = |part: &Option<Vec<u8>>| decode_header(part.as_deref().unwrap_or_default());
    match (&address.name, &address.host) {
        (Some(_), _) => {
            out.push_str(&format!("{} <{}@{}>", text(&address.name), text(&address.mailbox), text(&address.host)))
        }
        (None, Some(_)) => out.push_str(&format!("{}@{}", text(&address.mailbox), text(&address.host))),
        (None, None) => out.push_str(&text(&address.mailbox)),
    }
}

/// Whether a text holds a word. Many words are looked for in one text: this goes through it at the speed of memory.
pub(crate) fn holds(text: &str, word: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), word.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] =
        b"From: =?utf-8?q?J=C3=B6rg?= <a@b.test>\r\nDate: Fri, 2 Jan 1970 00:30:00 +0100\r\nSubject: Two WORDS\r\n\r\n";

    /// A query of these keys, whose facts are true or false by themselves.
    fn query(keys: Vec<Key<bool>>) -> Query<bool> {
        let mut query = Query::new();
        for key in keys {
            query.push(key).unwrap_or_else(|_| panic!("there are not so many"));
        }
        query
    }

    fn metadata() -> Metadata {
        Metadata { size_bytes: 100, received_unix_seconds: -1, received_zone_minutes: 60, email: [7; 16] }
    }

    fn judged(query: &Query<bool>, known: &Known<'_>) -> Verdict {
        query.judge(known, |fact| *fact)
    }

    #[test]
    fn each_key_by_itself_with_everything_known() {
        let text = |text: &str| text.to_owned();
        for (key, fits) in [
            (Key::And(vec![]), true),
            (Key::Fact(true), true),
            (Key::Fact(false), false),
            // One second before 1970 in a zone where it is 1970 already.
            (Key::Before(Date::Received, 0), false),
            (Key::Before(Date::Received, 1), true),
            (Key::On(Date::Received, 0), true),
            (Key::On(Date::Received, 1), false),
            (Key::Since(Date::Received, 0), true),
            (Key::Since(Date::Received, 1), false),
            // The day that the sender wrote, though it was the day before in UTC.
            (Key::Before(Date::Sent, 1), false),
            (Key::On(Date::Sent, 1), true),
            (Key::Since(Date::Sent, 2), false),
            (Key::ReceivedUntil(-1), true),
            (Key::ReceivedUntil(-2), false),
            (Key::ReceivedFrom(-1), true),
            (Key::ReceivedFrom(0), false),
            (Key::Email(Some([7; 16])), true),
            (Key::Email(Some([8; 16])), false),
            (Key::Email(None), false),
            (Key::Larger(99), true),
            (Key::Larger(100), false),
            (Key::Smaller(100), false),
            (Key::Smaller(101), true),
            (Key::Header(text("subject"), text("two words")), true),
            (Key::Header(text("FROM"), text("j\u{f6}rg")), true),
            (Key::Header(text("From"), text("words")), false),
            (Key::Header(text("Subject"), text("")), true),
            (Key::Header(text("Cc"), text("")), false),
            (Key::Body(text("there")), true),
            (Key::Text(text("there")), true),
            (Key::Text(text("two words")), true),
        ] {
            let query = query(vec![key]);
            let mut known = Known::default().with_metadata(metadata()).with_header(HEADER);
            known.searched(query.words().iter().map(|word| *word == "there").collect());
            let verdict = if fits { Verdict::Match } else { Verdict::NoMatch };
            assert_eq!(judged(&query, &known), verdict, "{:?}", query.keys());
        }
    }

    #[test]
    fn addresses_are_found_by_what_they_are_and_not_by_how_they_are_written() {
        for value in [
            "<user (comment)@ (comment) domain.org>",
            "user @ domain.org",
            "\"user\"@domain.org",
            "a@b,\r\n user@(x)domain.org",
        ] {
            for (field, of) in ["From", "To", "Cc", "Bcc"].into_iter().zip(Addresses::ALL) {
                let block = format!("X: y\r\n{field}: z@y\r\n{field}: {value}\r\n\r\n");
                let found = |text: &str| {
                    let query = query(vec![Key::Addresses(of, text.to_owned())]);
                    judged(&query, &Known::default().with_header(block.as_bytes())) == Verdict::Match
                };
                assert!(found("user@domain.org") && found("z@y") && found(""), "{block}");
                assert!(!found("comment") && !found("other@domain.org") && !found("\0"), "{block}");
            }
        }
        let named = query(vec![Key::Addresses(Addresses::From, "j\u{f6}rg <a@b.test>".to_owned())]);
        assert_eq!(judged(&named, &Known::default().with_header(HEADER)), Verdict::Match);
        let nobody = query(vec![Key::Addresses(Addresses::Cc, String::new())]);
        assert_eq!(judged(&nobody, &Known::default().with_header(HEADER)), Verdict::NoMatch);
    }

    #[test]
    fn a_message_without_a_date_was_sent_on_no_day() {
        for key in [Key::Before(Date::Sent, i64::MAX), Key::On(Date::Sent, 0), Key::Since(Date::Sent, i64::MIN)] {
            let known = Known::default().with_header(b"Subject: x\r\n\r\n");
            assert_eq!(judged(&query(vec![key]), &known), Verdict::NoMatch);
        }
    }

    #[test]
    fn no_more_is_needed_than_the_verdict_depends_on() {
        let body = || Key::Body("there".to_owned());
        let subject = || Key::Header("Subject".to_owned(), "two".to_owned());
        let (matches, no) = (Verdict::Match, Verdict::NoMatch);
        let needs = Verdict::Needs;
        // Verdicts with facts alone, with metadata, with the header, with the body (which holds the word).
        for (keys, with) in [
            (vec![Key::Fact(true), body(), Key::Or(0, 1)], [matches; 4]),
            (vec![Key::Fact(false), body(), Key::And(vec![0, 1])], [no; 4]),
            (
                vec![Key::Fact(false), body(), Key::Or(0, 1)],
                [needs(Needs::Header), needs(Needs::Header), needs(Needs::Body), matches],
            ),
            (vec![Key::Larger(100), body(), Key::And(vec![0, 1])], [needs(Needs::Metadata), no, no, no]),
            (vec![subject(), Key::Not(0)], [needs(Needs::Header), needs(Needs::Header), no, no]),
            (vec![body(), Key::Not(0)], [needs(Needs::Header), needs(Needs::Header), needs(Needs::Body), no]),
            (vec![Key::Text("two".to_owned())], [needs(Needs::Header), needs(Needs::Header), matches, matches]),
            (vec![Key::On(Date::Sent, 1)], [needs(Needs::Header), needs(Needs::Header), matches, matches]),
        ] {
            let query = query(keys);
            let mut known = Known::default();
            assert_eq!(judged(&query, &known), with[0], "{:?}", query.keys());
            known = known.with_metadata(metadata());
            assert_eq!(judged(&query, &known), with[1], "{:?}", query.keys());
            known = known.with_header(HEADER);
            assert_eq!(judged(&query, &known), with[2], "{:?}", query.keys());
            known.searched(vec![true; query.words().len()]);
            assert_eq!(judged(&query, &known), with[3], "{:?}", query.keys());
        }
    }

    #[test]
    fn what_a_query_needs_at_most() {
        let body = || Key::Body(String::new());
        for (keys, needs) in [
            (vec![Key::Fact(true)], None),
            (vec![Key::Fact(true), Key::Larger(1)], Some(Needs::Metadata)),
            (vec![Key::On(Date::Received, 1), Key::On(Date::Sent, 1)], Some(Needs::Header)),
            (vec![body(), Key::Not(0)], Some(Needs::Body)),
        ] {
            assert_eq!(query(keys).needs(), needs);
        }
    }

    #[test]
    fn a_query_has_only_so_many_keys() {
        let mut query = Query::new();
        for _ in 0..KEYS_MAX {
            assert!(query.push(Key::Fact(true)).is_ok());
        }
        assert_eq!(query.push(Key::Fact(true)), Err(TooManyKeys));
    }

    #[test]
    fn each_word_is_found_by_its_own_key() {
        let words = [Key::Body("a".to_owned()), Key::Fact(false), Key::Text("b".to_owned()), Key::Not(0)];
        let query = query([words.to_vec(), vec![Key::And(vec![2, 3])]].concat());
        assert_eq!(query.words(), ["a", "b"]);
        for (found, verdict) in
            [([false, true], Verdict::Match), ([true, true], Verdict::NoMatch), ([false; 2], Verdict::NoMatch)]
        {
            let mut known = Known::default().with_header(b"X: y\r\n\r\n");
            known.searched(found.to_vec());
            assert_eq!(judged(&query, &known), verdict);
        }
    }
}
