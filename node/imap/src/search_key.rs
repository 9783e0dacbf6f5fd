//! Search keys (RFC 3501, section 6.4.4).

use mailraft_mailbox::{Flags, SystemFlag, UidSet};

use crate::cursor::{Cursor, Read, SequenceSet, Wrong, wrong};
use crate::date;
use crate::view::View;

/// Keys of one SEARCH.
pub const KEYS_MAX: usize = 1_000;

/// The keys of a SEARCH, each behind those it is made of; the last one is the whole. Whoever nests OR and NOT a
/// thousand deep nests nothing here.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys(Vec<Key>);

/// A key. Those made of others name them by their places.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    All,
    And(Vec<usize>),
    Or(usize, usize),
    Not(usize),
    /// A flag that is set, or (false) is not.
    Flag(SystemFlag, bool),
    Keyword(String, bool),
    Recent(bool),
    /// Recent and not seen.
    New,
    /// Sequence numbers and UIDs; `*` is resolved by [`Keys::resolve`].
    Numbers(SequenceSet),
    Uids(SequenceSet),
    NumbersIn(UidSet),
    UidsIn(UidSet),
    /// Days since 1970-01-01: before, on, since; of INTERNALDATE or (true) of the Date field.
    Before(i64, bool),
    On(i64, bool),
    Since(i64, bool),
    Larger(u64),
    Smaller(u64),
    Header(String, String),
    Body(String),
    Text(String),
}

/// How much of a message a key needs, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    View,
    Content,
    Header,
    Body,
}

impl Keys {
    /// Reads the keys of a SEARCH: all of them must fit.
    pub fn parse(c: &mut Cursor<'_>) -> Read<Keys> {
        let mut keys = Keys(Vec::new());
        // What was begun and waits for keys. Parentheses nest only so far, and the rest costs a few bytes.
        let mut open = vec![Open::List { keys: Vec::new(), closes: false }];
        loop {
            let mut whole = match begin(c)? {
                Begun::Open(begun) if open.len() + keys.0.len() < KEYS_MAX => {
                    open.push(begun);
                    continue;
                }
                Begun::Open(_) => return wrong("too many search keys"),
                Begun::Key(key) => keys.push(key)?,
            };
            // A key that is whole may complete those around it.
            loop {
                match open.pop() {
                    Some(Open::Not) => whole = keys.push(Key::Not(whole))?,
                    Some(Open::Or(Some(first))) => whole = keys.push(Key::Or(first, whole))?,
                    Some(Open::Or(None)) => {
                        c.space()?;
                        open.push(Open::Or(Some(whole)));
                        break;
                    }
                    Some(Open::List { keys: mut all, closes }) => {
                        all.push(whole);
                        if c.eat(b' ') {
                            open.push(Open::List { keys: all, closes });
                            break;
                        }
                        if closes && !c.close() {
                            return wrong("a parenthesis is missing");
                        }
                        whole = keys.push(Key::And(all))?;
                    }
                    None => return Ok(keys),
                }
            }
        }
    }

    pub fn needs(&self) -> Needs {
        self.0.iter().map(Key::needs).max().unwrap_or(Needs::View)
    }

    /// Sets as the view has them now, so that each message is judged without looking at all others.
    pub fn resolve(&mut self, view: &View) {
        for key in &mut self.0 {
            match key {
                Key::Numbers(set) => *key = Key::NumbersIn(view.numbers(set)),
                Key::Uids(set) => *key = Key::UidsIn(view.uids(set)),
                _ => {}
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What BODY and TEXT look for, with the places of the keys.
    pub fn words(&self) -> Vec<(usize, &str)> {
        let mut words = Vec::new();
        for (n, key) in self.0.iter().enumerate() {
            if let Key::Body(word) | Key::Text(word) = key {
                words.push((n, word.as_str()));
            }
        }
        words
    }

    /// Judges keys that are not judged yet, by `leaf` those that are not made of others. The whole is known even
    /// where some keys are not, if it does not depend on them.
    pub fn judge(&self, verdicts: &mut [Option<bool>], leaf: impl Fn(usize, &Key) -> Option<bool>) -> Option<bool> {
        for (n, key) in self.0.iter().enumerate() {
            if verdicts[n].is_some() {
                continue;
            }
            verdicts[n] = match key {
                Key::And(all) if all.iter().any(|n| verdicts[*n] == Some(false)) => Some(false),
                Key::And(all) if all.iter().all(|n| verdicts[*n] == Some(true)) => Some(true),
                Key::And(_) => None,
                Key::Or(first, second) => match (verdicts[*first], verdicts[*second]) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    (None, _) | (_, None) => None,
                },
                Key::Not(key) => verdicts[*key].map(|verdict| !verdict),
                key => leaf(n, key),
            };
        }
        verdicts.last().copied().flatten()
    }

    fn push(&mut self, key: Key) -> Read<usize> {
        if self.0.len() >= KEYS_MAX {
            return wrong("too many search keys");
        }
        self.0.push(key);
        Ok(self.0.len() - 1)
    }
}

impl Key {
    fn needs(&self) -> Needs {
        match self {
            Key::All
            | Key::And(_)
            | Key::Or(..)
            | Key::Not(_)
            | Key::Flag(..)
            | Key::Keyword(..)
            | Key::Recent(_)
            | Key::New
            | Key::Numbers(_)
            | Key::Uids(_)
            | Key::NumbersIn(_)
            | Key::UidsIn(_) => Needs::View,
            Key::Before(_, false) | Key::On(_, false) | Key::Since(_, false) | Key::Larger(_) | Key::Smaller(_) => {
                Needs::Content
            }
            Key::Before(_, true) | Key::On(_, true) | Key::Since(_, true) | Key::Header(..) => Needs::Header,
            Key::Body(_) | Key::Text(_) => Needs::Body,
        }
    }
}

/// A key that waits for those it is made of.
enum Open {
    Not,
    Or(Option<usize>),
    List { keys: Vec<usize>, closes: bool },
}

enum Begun {
    Open(Open),
    Key(Key),
}

fn begin(c: &mut Cursor<'_>) -> Read<Begun> {
    if c.peek() == Some(b'(') {
        c.open()?;
        return Ok(Begun::Open(Open::List { keys: Vec::new(), closes: true }));
    }
    if c.at_sequence_set() {
        return Ok(Begun::Key(Key::Numbers(c.sequence_set()?)));
    }
    Ok(Begun::Key(match c.word()?.as_str() {
        "NOT" => {
            c.space()?;
            return Ok(Begun::Open(Open::Not));
        }
        "OR" => {
            c.space()?;
            return Ok(Begun::Open(Open::Or(None)));
        }
        "ALL" => Key::All,
        "ANSWERED" => Key::Flag(SystemFlag::Answered, true),
        "UNANSWERED" => Key::Flag(SystemFlag::Answered, false),
        "DELETED" => Key::Flag(SystemFlag::Deleted, true),
        "UNDELETED" => Key::Flag(SystemFlag::Deleted, false),
        "DRAFT" => Key::Flag(SystemFlag::Draft, true),
        "UNDRAFT" => Key::Flag(SystemFlag::Draft, false),
        "FLAGGED" => Key::Flag(SystemFlag::Flagged, true),
        "UNFLAGGED" => Key::Flag(SystemFlag::Flagged, false),
        "SEEN" => Key::Flag(SystemFlag::Seen, true),
        "UNSEEN" => Key::Flag(SystemFlag::Seen, false),
        "RECENT" => Key::Recent(true),
        "OLD" => Key::Recent(false),
        "NEW" => Key::New,
        "KEYWORD" => Key::Keyword(keyword(c)?, true),
        "UNKEYWORD" => Key::Keyword(keyword(c)?, false),
        "UID" => {
            c.space()?;
            Key::Uids(c.sequence_set()?)
        }
        "BEFORE" => Key::Before(day(c)?, false),
        "ON" => Key::On(day(c)?, false),
        "SINCE" => Key::Since(day(c)?, false),
        "SENTBEFORE" => Key::Before(day(c)?, true),
        "SENTON" => Key::On(day(c)?, true),
        "SENTSINCE" => Key::Since(day(c)?, true),
        "LARGER" => {
            c.space()?;
            Key::Larger(c.number()?)
        }
        "SMALLER" => {
            c.space()?;
            Key::Smaller(c.number()?)
        }
        "HEADER" => {
            c.space()?;
            let name = c.text()?;
            Key::Header(name, text(c)?)
        }
        name @ ("BCC" | "CC" | "FROM" | "SUBJECT" | "TO") => Key::Header(name.to_owned(), text(c)?),
        "BODY" => Key::Body(text(c)?),
        "TEXT" => Key::Text(text(c)?),
        other => return wrong(format!("SEARCH does not know {other}")),
    }))
}

fn keyword(c: &mut Cursor<'_>) -> Read<String> {
    c.space()?;
    let word = c.atom()?;
    // The form that a flag has: nothing else can be set.
    Ok(Flags::none().with_keyword(&word).keywords().next().unwrap_or_default().to_owned())
}

fn day(c: &mut Cursor<'_>) -> Read<i64> {
    c.space()?;
    date::parse_day(&c.text()?).ok_or_else(|| Wrong("a date reads 1-Feb-1994".into()))
}

/// What is looked for, in lower case.
fn text(c: &mut Cursor<'_>) -> Read<String> {
    c.space()?;
    Ok(c.text()?.to_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decoder::Piece;

    fn parsed(text: &str) -> Read<Vec<Key>> {
        let pieces = [Piece::Text(text.as_bytes().to_vec())];
        let mut c = Cursor::new(&pieces);
        let keys = Keys::parse(&mut c)?;
        c.end()?;
        Ok(keys.0)
    }

    #[test]
    fn keys_are_read_by_kind() {
        let (seen, flagged) = (Key::Flag(SystemFlag::Seen, true), Key::Flag(SystemFlag::Flagged, true));
        let one = |key| vec![key, Key::And(vec![0])];
        for (text, keys) in [
            ("UNSEEN flagged", vec![Key::Flag(SystemFlag::Seen, false), flagged.clone(), Key::And(vec![0, 1])]),
            ("NEW", one(Key::New)),
            (
                "NOT (SEEN OLD)",
                vec![seen.clone(), Key::Recent(false), Key::And(vec![0, 1]), Key::Not(2), Key::And(vec![3])],
            ),
            ("OR SEEN NOT FLAGGED", vec![seen, flagged, Key::Not(1), Key::Or(0, 2), Key::And(vec![3])]),
            ("SUBJECT \"Two WORDS\"", one(Key::Header("SUBJECT".into(), "two words".into()))),
            ("HEADER x-a \"\"", one(Key::Header("x-a".into(), String::new()))),
            (
                "SINCE 2-Jan-1970 SENTON \"1-Jan-1970\"",
                vec![Key::Since(1, false), Key::On(0, true), Key::And(vec![0, 1])],
            ),
            (
                "KEYWORD $Work SMALLER 7",
                vec![Key::Keyword("$Work".into(), true), Key::Smaller(7), Key::And(vec![0, 1])],
            ),
        ] {
            assert_eq!(parsed(text), Ok(keys), "{text}");
        }
        for text in
            ["", "SEEN ", "(SEEN", "SEEN)", "FROM", "NOT", "OR SEEN", "BEFORE yesterday", "UID", "LARGER x", "NONSENSE"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn many_keys_are_fine_however_deep_and_too_many_are_not() {
        let alternatives = |n: usize| "OR SEEN ".repeat(n) + "SEEN";
        assert!(parsed(&alternatives(400)).is_ok());
        assert!(parsed(&("OR ".repeat(400) + "SEEN" + &" SEEN".repeat(400))).is_ok());
        assert!(parsed(&("NOT ".repeat(900) + "SEEN")).is_ok());
        assert!(parsed(&vec!["NOT SEEN"; 400].join(" ")).is_ok());
        for too_much in [
            alternatives(KEYS_MAX),
            "OR ".repeat(16_000),
            "NOT ".repeat(16_000),
            "NOT (".repeat(10_000),
            "(".repeat(500),
        ] {
            assert!(parsed(&too_much).is_err());
        }
    }

    #[test]
    fn verdicts_need_no_more_than_they_depend_on() {
        let pieces = [Piece::Text(b"OR SEEN NOT (BODY x NEW)".to_vec())];
        let keys = Keys::parse(&mut Cursor::new(&pieces)).unwrap();
        let judge = |seen: Option<bool>, body: Option<bool>, new: Option<bool>| {
            keys.judge(&mut vec![None; keys.len()], |_, key| match key {
                Key::Flag(..) => seen,
                Key::Body(_) => body,
                _ => new,
            })
        };
        let (yes, no) = (Some(true), Some(false));
        for (seen, body, new, whole) in [
            (yes, None, None, yes),
            (no, None, no, yes),
            (no, None, yes, None),
            (no, yes, yes, no),
            (None, yes, yes, None),
            (None, no, None, yes),
        ] {
            assert_eq!(judge(seen, body, new), whole);
        }
    }
}
