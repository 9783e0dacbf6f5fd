//! Search keys (RFC 3501, section 6.4.4).

use mailraft_mailbox::{Flags, SystemFlag};

use crate::cursor::{Cursor, Read, SequenceSet, Wrong, wrong};
use crate::date;

/// Keys of one SEARCH.
pub const KEYS_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    All,
    And(Vec<Key>),
    Or(Box<(Key, Key)>),
    Not(Box<Key>),
    Flag(SystemFlag),
    Keyword(String),
    Recent,
    Numbers(SequenceSet),
    Uids(SequenceSet),
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

impl Key {
    pub fn needs(&self) -> Needs {
        match self {
            Key::All | Key::Flag(_) | Key::Keyword(_) | Key::Recent | Key::Numbers(_) | Key::Uids(_) => Needs::View,
            Key::Before(_, false) | Key::On(_, false) | Key::Since(_, false) | Key::Larger(_) | Key::Smaller(_) => {
                Needs::Content
            }
            Key::Before(_, true) | Key::On(_, true) | Key::Since(_, true) | Key::Header(..) => Needs::Header,
            Key::Body(_) | Key::Text(_) => Needs::Body,
            Key::And(keys) => keys.iter().map(Key::needs).max().unwrap_or(Needs::View),
            Key::Or(both) => both.0.needs().max(both.1.needs()),
            Key::Not(key) => key.needs(),
        }
    }
}

/// Reads keys up to the end or a closing parenthesis.
pub fn keys(c: &mut Cursor<'_>, count: &mut usize) -> Read<Vec<Key>> {
    let mut out = vec![key(c, count)?];
    while c.eat(b' ') {
        out.push(key(c, count)?);
    }
    Ok(out)
}

fn key(c: &mut Cursor<'_>, count: &mut usize) -> Read<Key> {
    *count += 1;
    if *count > KEYS_MAX {
        return wrong("too many search keys");
    }
    if c.peek() == Some(b'(') {
        c.open()?;
        let inner = keys(c, count)?;
        return if c.close() { Ok(Key::And(inner)) } else { wrong("a parenthesis is missing") };
    }
    if c.at_sequence_set() {
        return Ok(Key::Numbers(c.sequence_set()?));
    }
    let not = |key: Key| Key::Not(Box::new(key));
    let flag = Key::Flag;
    Ok(match c.word()?.as_str() {
        "ALL" => Key::All,
        "ANSWERED" => flag(SystemFlag::Answered),
        "UNANSWERED" => not(flag(SystemFlag::Answered)),
        "DELETED" => flag(SystemFlag::Deleted),
        "UNDELETED" => not(flag(SystemFlag::Deleted)),
        "DRAFT" => flag(SystemFlag::Draft),
        "UNDRAFT" => not(flag(SystemFlag::Draft)),
        "FLAGGED" => flag(SystemFlag::Flagged),
        "UNFLAGGED" => not(flag(SystemFlag::Flagged)),
        "SEEN" => flag(SystemFlag::Seen),
        "UNSEEN" => not(flag(SystemFlag::Seen)),
        "RECENT" => Key::Recent,
        "OLD" => not(Key::Recent),
        "NEW" => Key::And(vec![Key::Recent, not(flag(SystemFlag::Seen))]),
        "KEYWORD" => Key::Keyword(keyword(c)?),
        "UNKEYWORD" => not(Key::Keyword(keyword(c)?)),
        "NOT" => {
            c.space()?;
            not(deeper(c, count)?)
        }
        "OR" => {
            c.space()?;
            let first = deeper(c, count)?;
            c.space()?;
            Key::Or(Box::new((first, deeper(c, count)?)))
        }
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
    })
}

/// NOT and OR nest without parentheses: they count as those do.
fn deeper(c: &mut Cursor<'_>, count: &mut usize) -> Read<Key> {
    if *count > 100 { wrong("nested too deep") } else { key(c, count) }
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
