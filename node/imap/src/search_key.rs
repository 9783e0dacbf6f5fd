//! Search keys as IMAP writes them (RFC 3501, section 6.4.4).

use mailraft_mailbox::{Flags, SystemFlag, UidSet};
use mailraft_message::Query;
use mailraft_message::query::{Addresses, Date, KEYS_MAX, Key, TooManyKeys};
use mailraft_message::search::{Charset, folded};

use crate::cursor::{Cursor, MessageSet, Read, Wrong, wrong};
use crate::date;
use crate::objectid;
use crate::view::View;

/// What a session's view of its folder says of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A flag that is set, or (false) is not.
    Flag(SystemFlag, bool),
    /// A keyword that is set, or (false) is not.
    Keyword(String, bool),
    /// Whether it is recent.
    Recent(bool),
    /// It is recent and not seen.
    New,
    /// Its MODSEQ is this one or a higher one.
    ModseqFrom(u64),
    /// The day that it came to its folder is an earlier one, this one, or this or a later one (RFC 8514).
    SavedBefore(i64),
    SavedOn(i64),
    SavedSince(i64),
    /// Sequence numbers and UIDs; `*` and `$` are resolved by [`resolve`].
    Numbers(MessageSet),
    Uids(MessageSet),
    NumbersIn(UidSet),
    UidsIn(UidSet),
}

/// Reads the keys of a SEARCH, whose texts are of this charset: all of them must fit.
pub fn parse(c: &mut Cursor<'_>, charset: Charset, now_unix_seconds: i64) -> Read<Query<Fact>> {
    let mut query = Query::new();
    // What was begun and waits for keys. Parentheses nest only so far, and the rest costs a few bytes.
    let mut open = vec![Open::List { keys: Vec::new(), closes: false }];
    loop {
        let mut whole = match begin(c, charset, now_unix_seconds)? {
            Begun::Open(begun) if open.len() + query.keys().len() < KEYS_MAX => {
                open.push(begun);
                continue;
            }
            Begun::Open(_) => return Err(TooManyKeys.into()),
            Begun::Key(key) => query.push(key)?,
        };
        // A key that is whole may complete those around it.
        loop {
            match open.pop() {
                Some(Open::Not) => whole = query.push(Key::Not(whole))?,
                Some(Open::Or(Some(first))) => whole = query.push(Key::Or(first, whole))?,
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
                    whole = query.push(Key::And(all))?;
                }
                None => return Ok(query),
            }
        }
    }
}

/// Puts sets as the view has them now, so that each message is judged without looking at all others.
pub fn resolve(query: &mut Query<Fact>, view: &View, saved: &UidSet) {
    for fact in query.facts_mut() {
        match fact {
            Fact::Numbers(MessageSet::Written(set)) => *fact = Fact::NumbersIn(view.numbers(set)),
            Fact::Uids(MessageSet::Written(set)) => *fact = Fact::UidsIn(view.uids(set)),
            Fact::Numbers(MessageSet::Saved) | Fact::Uids(MessageSet::Saved) => *fact = Fact::UidsIn(saved.clone()),
            Fact::Flag(..)
            | Fact::Keyword(..)
            | Fact::Recent(_)
            | Fact::New
            | Fact::ModseqFrom(_)
            | Fact::SavedBefore(_)
            | Fact::SavedOn(_)
            | Fact::SavedSince(_)
            | Fact::NumbersIn(_)
            | Fact::UidsIn(_) => {}
        }
    }
}

impl From<TooManyKeys> for Wrong {
    fn from(_: TooManyKeys) -> Self {
        Wrong("too many search keys".into())
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
    Key(Key<Fact>),
}

fn begin(c: &mut Cursor<'_>, charset: Charset, now_unix_seconds: i64) -> Read<Begun> {
    if c.peek() == Some(b'(') {
        c.open()?;
        return Ok(Begun::Open(Open::List { keys: Vec::new(), closes: true }));
    }
    if c.at_sequence_set() {
        return Ok(Begun::Key(Key::Fact(Fact::Numbers(c.message_set()?))));
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
        "ALL" => Key::And(Vec::new()),
        "ANSWERED" => Key::Fact(Fact::Flag(SystemFlag::Answered, true)),
        "UNANSWERED" => Key::Fact(Fact::Flag(SystemFlag::Answered, false)),
        "DELETED" => Key::Fact(Fact::Flag(SystemFlag::Deleted, true)),
        "UNDELETED" => Key::Fact(Fact::Flag(SystemFlag::Deleted, false)),
        "DRAFT" => Key::Fact(Fact::Flag(SystemFlag::Draft, true)),
        "UNDRAFT" => Key::Fact(Fact::Flag(SystemFlag::Draft, false)),
        "FLAGGED" => Key::Fact(Fact::Flag(SystemFlag::Flagged, true)),
        "UNFLAGGED" => Key::Fact(Fact::Flag(SystemFlag::Flagged, false)),
        "SEEN" => Key::Fact(Fact::Flag(SystemFlag::Seen, true)),
        "UNSEEN" => Key::Fact(Fact::Flag(SystemFlag::Seen, false)),
        "RECENT" => Key::Fact(Fact::Recent(true)),
        "OLD" => Key::Fact(Fact::Recent(false)),
        "NEW" => Key::Fact(Fact::New),
        "KEYWORD" => Key::Fact(Fact::Keyword(keyword(c)?, true)),
        "UNKEYWORD" => Key::Fact(Fact::Keyword(keyword(c)?, false)),
        "UID" => {
            c.space()?;
            Key::Fact(Fact::Uids(c.message_set()?))
        }
        "BEFORE" => Key::Before(Date::Received, day(c)?),
        "ON" => Key::On(Date::Received, day(c)?),
        "SINCE" => Key::Since(Date::Received, day(c)?),
        "SAVEDBEFORE" => Key::Fact(Fact::SavedBefore(day(c)?)),
        "SAVEDON" => Key::Fact(Fact::SavedOn(day(c)?)),
        "SAVEDSINCE" => Key::Fact(Fact::SavedSince(day(c)?)),
        // In every folder it is.
        "SAVEDATESUPPORTED" => Key::And(Vec::new()),
        "SENTBEFORE" => Key::Before(Date::Sent, day(c)?),
        "SENTON" => Key::On(Date::Sent, day(c)?),
        "SENTSINCE" => Key::Since(Date::Sent, day(c)?),
        "MODSEQ" => {
            c.space()?;
            if c.peek() == Some(b'"') {
                // The flag that it is about, and whose: one MODSEQ is for all of them (RFC 7162, section 3.1.5).
                c.string()?;
                c.space()?;
                c.word()?;
                c.space()?;
            }
            Key::Fact(Fact::ModseqFrom(c.modseq()?))
        }
        // RFC 5032
        "OLDER" => Key::ReceivedUntil(now_unix_seconds - interval(c)?),
        "YOUNGER" => Key::ReceivedFrom(now_unix_seconds - interval(c)?),
        // RFC 8474; no message is in a thread.
        "EMAILID" => {
            c.space()?;
            Key::Email(objectid::email(&c.astring()?))
        }
        "THREADID" => {
            c.space()?;
            c.astring()?;
            Key::Email(None)
        }
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
            Key::Header(name, text(c, charset)?)
        }
        "SUBJECT" => Key::Header("SUBJECT".to_owned(), text(c, charset)?),
        "BCC" => Key::Addresses(Addresses::Bcc, text(c, charset)?),
        "CC" => Key::Addresses(Addresses::Cc, text(c, charset)?),
        "FROM" => Key::Addresses(Addresses::From, text(c, charset)?),
        "TO" => Key::Addresses(Addresses::To, text(c, charset)?),
        "BODY" => Key::Body(text(c, charset)?),
        "TEXT" => Key::Text(text(c, charset)?),
        other => return wrong(format!("SEARCH does not know {other}")),
    }))
}

/// Seconds.
fn interval(c: &mut Cursor<'_>) -> Read<i64> {
    c.space()?;
    match c.number32()? {
        0 => wrong("0 is no interval"),
        seconds => Ok(i64::from(seconds)),
    }
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
fn text(c: &mut Cursor<'_>, charset: Charset) -> Read<String> {
    c.space()?;
    let text = charset.decode(c.astring()?).ok_or_else(|| Wrong("an argument is not UTF-8".into()))?;
    Ok(folded(&text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decoder::Piece;

    fn parsed(text: &str) -> Read<Vec<Key<Fact>>> {
        let pieces = [Piece::Text(text.as_bytes().to_vec())];
        let mut c = Cursor::new(&pieces);
        let query = parse(&mut c, Charset::Utf8, 1_000)?;
        c.end()?;
        Ok(query.keys().to_vec())
    }

    #[test]
    fn keys_are_read_by_kind() {
        let flag = |flag, set| Key::Fact(Fact::Flag(flag, set));
        let (seen, flagged) = (flag(SystemFlag::Seen, true), flag(SystemFlag::Flagged, true));
        let one = |key| vec![key, Key::And(vec![0])];
        for (text, keys) in [
            ("UNSEEN flagged", vec![flag(SystemFlag::Seen, false), flagged.clone(), Key::And(vec![0, 1])]),
            ("NEW", one(Key::Fact(Fact::New))),
            ("OLDER 10 YOUNGER 999", vec![Key::ReceivedUntil(990), Key::ReceivedFrom(1), Key::And(vec![0, 1])]),
            ("THREADID x", one(Key::Email(None))),
            ("$", one(Key::Fact(Fact::Numbers(MessageSet::Saved)))),
            (
                "NOT (SEEN OLD)",
                vec![
                    seen.clone(),
                    Key::Fact(Fact::Recent(false)),
                    Key::And(vec![0, 1]),
                    Key::Not(2),
                    Key::And(vec![3]),
                ],
            ),
            ("OR SEEN NOT FLAGGED", vec![seen, flagged, Key::Not(1), Key::Or(0, 2), Key::And(vec![3])]),
            ("SUBJECT \"Two WORDS\"", one(Key::Header("SUBJECT".into(), "two words".into()))),
            ("HEADER x-a \"\"", one(Key::Header("x-a".into(), String::new()))),
            (
                "SINCE 2-Jan-1970 SENTON \"1-Jan-1970\"",
                vec![Key::Since(Date::Received, 1), Key::On(Date::Sent, 0), Key::And(vec![0, 1])],
            ),
            (
                "KEYWORD $Work SMALLER 7",
                vec![Key::Fact(Fact::Keyword("$Work".into(), true)), Key::Smaller(7), Key::And(vec![0, 1])],
            ),
        ] {
            assert_eq!(parsed(text), Ok(keys), "{text}");
        }
        for text in [
            "",
            "SEEN ",
            "(SEEN",
            "SEEN)",
            "FROM",
            "NOT",
            "OR SEEN",
            "BEFORE yesterday",
            "UID",
            "LARGER x",
            "NONSENSE",
            "OLDER 0",
            "YOUNGER",
        ] {
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
}
