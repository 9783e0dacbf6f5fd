//! SEARCH (RFC 3501, section 6.4.4), cheapest keys first: what the view knows, then metadata, then bodies.

use mailraft_mailbox::api::{FETCH_UIDS_MAX, FetchWhat, Fetched, MessageState};
use mailraft_mailbox::{Answer, Command, UidSet};
use mailraft_message::{header, search as text};

use super::fetch::read;
use super::search_key::{Key, Needs, keys};
use super::{ok, view};
use crate::cursor::Cursor;
use crate::date;
use crate::session::{Done, Out, Outcome, Session};
use crate::store::{Mailstore, Output};
use crate::view::View;

/// What is known of a message while it is judged.
struct Known<'a> {
    state: &'a MessageState,
    recent: bool,
    numbers: &'a View,
    fetched: Option<&'a Fetched>,
    body: Option<&'a str>,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    session: &mut Session,
    c: &mut Cursor<'_>,
    by_uid: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    view(session)?;
    c.space()?;
    if c.peek_word() == "CHARSET" {
        c.word()?;
        c.space()?;
        let charset = c.text()?;
        if !["UTF-8", "US-ASCII"].iter().any(|known| charset.eq_ignore_ascii_case(known)) {
            return Err(Done::No("[BADCHARSET (UTF-8 US-ASCII)] no such charset here".into()));
        }
        c.space()?;
    }
    let wanted = Key::And(keys(c, &mut 0)?);
    c.end()?;
    // Everything acknowledged before this command is to be found.
    store.ask(Command::Sync).await?;
    session.hear(store);
    let view = view(session)?;
    let folder = view.folder;
    let needs = wanted.needs();
    let maybe: Vec<u32> = view
        .messages()
        .iter()
        .filter(|m| {
            judge(&wanted, &Known { state: m, recent: view.is_recent(m.uid), numbers: view, fetched: None, body: None })
                != Some(false)
        })
        .map(|m| m.uid)
        .collect();
    let mut found = Vec::new();
    if needs == Needs::View {
        found = maybe;
    } else {
        let what = FetchWhat { content: true, header: needs >= Needs::Header };
        for batch in maybe.chunks(FETCH_UIDS_MAX) {
            let uids: UidSet = batch.iter().copied().collect();
            let Answer::Fetched(fetched) = store.ask(Command::Fetch { folder, uids, what }).await? else {
                return Err(Done::No("the mailbox answered something else".into()));
            };
            for message in &fetched {
                let uid = message.state.uid;
                let Some(state) = view.message(uid) else { continue };
                let known =
                    Known { state, recent: view.is_recent(uid), numbers: view, fetched: Some(message), body: None };
                let verdict = match judge(&wanted, &known) {
                    Some(verdict) => verdict,
                    None => {
                        let Some(content) = &message.content else { continue };
                        let Some(whole) = read(content, 0..content.size_bytes, store).await? else { continue };
                        let body = text::body_text(&whole);
                        judge(&wanted, &Known { body: Some(&body), ..known }) == Some(true)
                    }
                };
                if verdict {
                    found.push(uid);
                }
            }
        }
    }
    let mut line = "* SEARCH".to_owned();
    for uid in found {
        let number = if by_uid { Some(uid as usize) } else { view.number(uid) };
        if let Some(number) = number {
            line.push_str(&format!(" {number}"));
        }
    }
    out.line(&line);
    ok("SEARCH")
}

/// Whether a message fits; None if more of it must be known.
fn judge(key: &Key, known: &Known<'_>) -> Option<bool> {
    match key {
        Key::All => Some(true),
        Key::And(keys) => {
            let mut all = Some(true);
            for key in keys {
                match judge(key, known) {
                    Some(false) => return Some(false),
                    Some(true) => {}
                    None => all = None,
                }
            }
            all
        }
        Key::Or(both) => match (judge(&both.0, known), judge(&both.1, known)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            (None, _) | (_, None) => None,
        },
        Key::Not(key) => judge(key, known).map(|v| !v),
        Key::Flag(flag) => Some(known.state.flags.has(*flag)),
        Key::Keyword(keyword) => Some(known.state.flags.has_keyword(keyword)),
        Key::Recent => Some(known.recent),
        Key::Numbers(set) => Some(known.numbers.by_number_lenient(set).contains(known.state.uid)),
        Key::Uids(set) => Some(known.numbers.by_uid(set).contains(known.state.uid)),
        Key::Before(day, sent) => on_day(*sent, known).map(|d| d.is_some_and(|d| d < *day)),
        Key::On(day, sent) => on_day(*sent, known).map(|d| d.is_some_and(|d| d == *day)),
        Key::Since(day, sent) => on_day(*sent, known).map(|d| d.is_some_and(|d| d >= *day)),
        Key::Larger(bytes) => size(known).map(|s| s > *bytes),
        Key::Smaller(bytes) => size(known).map(|s| s < *bytes),
        Key::Header(name, needle) => header_block(known).map(|block| has_header(block, name, needle)),
        Key::Body(needle) => known.body.map(|body| body.contains(needle.as_str())),
        Key::Text(needle) => {
            let in_header = header_block(known).map(|block| {
                header::fields(block).any(|f| {
                    let line = format!("{}: {}", String::from_utf8_lossy(f.name), text::decode_header(f.value));
                    text::contains(&line, needle)
                })
            });
            match (in_header, known.body) {
                (Some(true), _) => Some(true),
                (_, Some(body)) => Some(body.contains(needle.as_str())),
                (_, None) => None,
            }
        }
    }
}

fn size(known: &Known<'_>) -> Option<u64> {
    Some(known.fetched?.content.as_ref()?.size_bytes)
}

fn header_block<'a>(known: &Known<'a>) -> Option<&'a [u8]> {
    Some(known.fetched?.header.as_ref()?.header.as_ref())
}

fn has_header(block: &[u8], name: &str, needle: &str) -> bool {
    header::fields(block)
        .filter(|f| f.name.eq_ignore_ascii_case(name.as_bytes()))
        .any(|f| needle.is_empty() || text::contains(&text::decode_header(f.value), needle))
}

/// The day of INTERNALDATE, or of the Date field, if there is one. Times and zones don't count.
fn on_day(sent: bool, known: &Known<'_>) -> Option<Option<i64>> {
    if sent {
        let block = header_block(known)?;
        let date = header::first(block, "Date").and_then(text::parse_date);
        return Some(date.map(|(seconds, zone)| date::local_day(seconds, zone)));
    }
    let at = known.fetched?.content.as_ref()?.internal_date;
    Some(Some(date::local_day(at.unix_seconds, at.zone_minutes)))
}
