//! SEARCH (RFC 3501, section 6.4.4), cheapest keys first: what the view knows, then metadata, then bodies.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use mailraft_mailbox::api::{FetchWhat, Fetched, MessageState};
use mailraft_mailbox::{Answer, Command, SystemFlag, UidSet};
use mailraft_message::{Part, header, search as text};
use mailraft_protocol::{Out, Output, Refusal};
use mailraft_storage::entry::versioned_decode;

use crate::body::BodyReader;
use crate::cursor::Cursor;
use crate::date;
use crate::opened::{Names, view};
use crate::outcome::{Done, Outcome, ok};
use crate::search_key::{Key, Keys, Needs};
use crate::search_text;
use crate::state::State;
use crate::store::{Mailstore, PARSED_VERSION, fetch_at_once};

/// What is known of a message while it is judged.
struct Known<'a> {
    number: u32,
    state: &'a MessageState,
    recent: bool,
    fetched: Option<&'a Fetched>,
    /// All header fields, and those of some names, decoded and in lower case once somebody asks.
    header: OnceCell<String>,
    fields: RefCell<BTreeMap<String, Vec<String>>>,
    /// By key, whether the body holds what it looks for.
    found: Option<Vec<bool>>,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    view(state)?;
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
    let mut wanted = Keys::parse(c)?;
    c.end()?;
    // Everything acknowledged before this command is to be found, so the client must know its number.
    store.ask(Command::Sync).await?;
    state.hear(store);
    state.say_news(false, out).await;
    let view = view(state)?;
    let folder = view.folder;
    let needs = wanted.needs();
    wanted.resolve(view);
    let known = |uid: u32| {
        let number = view.number(uid).filter(|_| !view.is_expunged(uid))?;
        Some(Known {
            number: u32::try_from(number).ok()?,
            state: view.message(uid)?,
            recent: view.is_recent(uid),
            fetched: None,
            header: OnceCell::new(),
            fields: RefCell::default(),
            found: None,
        })
    };
    // What the client still counts but is gone fits nothing.
    let mut verdicts = vec![None; wanted.len()];
    let mut maybe = Vec::new();
    for uid in view.messages().iter().map(|m| m.uid) {
        verdicts.fill(None);
        if known(uid).is_some_and(|known| wanted.judge(&mut verdicts, |n, key| fits(n, key, &known)) != Some(false)) {
            maybe.push(uid);
        }
    }
    let mut found = Vec::new();
    if needs == Needs::View {
        found = maybe;
    } else {
        let what = FetchWhat { content: true, header: needs >= Needs::Header };
        let (places, words): (Vec<usize>, Vec<&str>) = wanted.words().into_iter().unzip();
        let mut bodies = BodyReader::default();
        for batch in maybe.chunks(fetch_at_once(what)) {
            if out.is_gone() {
                return ok("SEARCH");
            }
            let uids: UidSet = batch.iter().copied().collect();
            let Answer::Fetched(fetched) = store.ask(Command::Fetch { folder, uids, what }).await? else {
                return Err(Done::odd_answer());
            };
            for message in &fetched {
                let uid = message.state.uid;
                let Some(known) = known(uid).map(|known| Known { fetched: Some(message), ..known }) else { continue };
                verdicts.fill(None);
                let mut verdict = wanted.judge(&mut verdicts, |n, key| fits(n, key, &known));
                if verdict.is_none()
                    && let (Some(content), Some(header)) = (&message.content, &message.header)
                {
                    let root: Part = versioned_decode("structure", PARSED_VERSION, &header.structure)
                        .map_err(|_| Refusal::Corrupt)?;
                    let Some(told) = search_text::find(&words, content, &root, &mut bodies, store).await? else {
                        continue;
                    };
                    let mut by_key = vec![false; wanted.len()];
                    places.iter().zip(told).for_each(|(place, told)| by_key[*place] = told);
                    let known = Known { found: Some(by_key), ..known };
                    verdict = wanted.judge(&mut verdicts, |n, key| fits(n, key, &known));
                }
                if verdict == Some(true) {
                    found.push(uid);
                }
            }
        }
    }
    let numbers =
        found.into_iter().filter_map(|uid| if names == Names::Uids { Some(uid as usize) } else { view.number(uid) });
    let line: String = numbers.map(|number| format!(" {number}")).collect();
    out.line(&format!("* SEARCH{line}"));
    ok("SEARCH")
}

/// Whether a message fits a key that is not made of others; None if more of it must be known.
fn fits(place: usize, key: &Key, known: &Known<'_>) -> Option<bool> {
    let in_body = || known.found.as_ref().map(|found| found[place]);
    match key {
        Key::All => Some(true),
        Key::Flag(flag, set) => Some(known.state.flags.has(*flag) == *set),
        Key::Keyword(keyword, set) => Some(known.state.flags.has_keyword(keyword) == *set),
        Key::Recent(recent) => Some(known.recent == *recent),
        Key::New => Some(known.recent && !known.state.flags.has(SystemFlag::Seen)),
        Key::NumbersIn(set) => Some(set.contains(known.number)),
        Key::UidsIn(set) => Some(set.contains(known.state.uid)),
        // Made of others, or resolved before anything is judged.
        Key::And(_) | Key::Or(..) | Key::Not(_) | Key::Numbers(_) | Key::Uids(_) => None,
        Key::Before(day, sent) => on_day(*sent, known).map(|d| d.is_some_and(|d| d < *day)),
        Key::On(day, sent) => on_day(*sent, known).map(|d| d.is_some_and(|d| d == *day)),
        Key::Since(day, sent) => on_day(*sent, known).map(|d| d.is_some_and(|d| d >= *day)),
        Key::Larger(bytes) => size(known).map(|s| s > *bytes),
        Key::Smaller(bytes) => size(known).map(|s| s < *bytes),
        Key::Header(name, needle) => has_header(known, name, needle),
        Key::Body(_) => in_body(),
        Key::Text(needle) => {
            let block = header_block(known)?;
            if known.header.get_or_init(|| text::header_text(block)).contains(needle.as_str()) {
                return Some(true);
            }
            in_body()
        }
    }
}

fn size(known: &Known<'_>) -> Option<u64> {
    Some(known.fetched?.content.as_ref()?.size_bytes)
}

fn header_block<'a>(known: &Known<'a>) -> Option<&'a [u8]> {
    Some(known.fetched?.header.as_ref()?.header.as_ref())
}

/// Whether a field of that name holds a text; any field does the empty one.
fn has_header(known: &Known<'_>, name: &str, needle: &str) -> Option<bool> {
    let block = header_block(known)?;
    let mut decoded = known.fields.borrow_mut();
    let values = decoded.entry(name.to_owned()).or_insert_with(|| {
        let fields = header::fields(block).filter(|f| f.name.eq_ignore_ascii_case(name.as_bytes()));
        fields.map(|f| text::decode_header(f.value).to_lowercase()).collect()
    });
    Some(values.iter().any(|value| value.contains(needle)))
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
