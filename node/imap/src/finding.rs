//! The messages of the open folder that fit a search, cheapest keys first: what the view knows, then metadata, then
//! bodies.

use std::collections::BTreeMap;

use mailraft_mailbox::api::{FetchWhat, Fetched, FetchedContent, FetchedHeader, MessageState};
use mailraft_mailbox::{Command, SystemFlag, UidSet};
use mailraft_message::body_search::PIECE_MAX_BYTES;
use mailraft_message::date::DAY_SECONDS;
use mailraft_message::grams::Grams;
use mailraft_message::query::{Known, Metadata, Needs, TEXTS_MAX, Verdict};
use mailraft_message::search::Charset;
use mailraft_message::{BodySearch, Part, Query};
use mailraft_protocol::{BodyReader, Out, Output, Refusal};
use mailraft_storage::entry::versioned_decode;

use crate::cursor::{Cursor, MessageSet};
use crate::narrowing::Narrowing;
use crate::opened::{fetched, missed_since, save_dates, tell_progress, view};
use crate::outcome::{Done, uid_required};
use crate::search_key::{self, Fact};
use crate::state::{Enabled, State};
use crate::store::{Mailstore, PARSED_VERSION, fetch_at_once};

/// Of so many MODSEQs in one command it is asked whether they are of what was lost; further ones of an earlier incarnation count so.
const MODSEQS_ASKED_MAX: usize = 4;

/// What is looked for.
pub(crate) struct Looking {
    query: Query<Fact>,
    about_modseq: bool,
}

impl Looking {
    /// Reads `CHARSET name`, if it is there, and the keys up to the end of the command.
    pub(crate) fn parse<S: Mailstore>(c: &mut Cursor<'_>, state: &State, store: &S) -> Result<Self, Done> {
        let mut charset = Charset::Utf8;
        if c.peek_word() == "CHARSET" {
            if state.utf8_accept {
                // RFC 6855, section 3
                return Err(Done::Bad("where UTF8=ACCEPT is enabled, SEARCH names no charset".into()));
            }
            c.word()?;
            c.space()?;
            charset = known_charset(c)?;
        }
        Looking::keys(c, charset, state, store)
    }

    /// Reads a charset's name, and the keys up to the end of the command.
    pub(crate) fn parse_in_charset<S: Mailstore>(c: &mut Cursor<'_>, state: &State, store: &S) -> Result<Self, Done> {
        let charset = known_charset(c)?;
        Looking::keys(c, charset, state, store)
    }

    /// Whether it looks for MODSEQs.
    pub(crate) fn is_about_modseq(&self) -> bool {
        self.about_modseq
    }

    fn keys<S: Mailstore>(c: &mut Cursor<'_>, charset: Charset, state: &State, store: &S) -> Result<Self, Done> {
        let mut query = search_key::parse(c, charset, store.now_unix_seconds())?;
        c.end()?;
        if query.texts() > TEXTS_MAX {
            return Err(Done::No(format!("[LIMIT] at most {TEXTS_MAX} texts can be looked for at once")));
        }
        if state.uid_only && query.facts_mut().any(|fact| matches!(fact, Fact::Numbers(MessageSet::Written(_)))) {
            return Err(uid_required());
        }
        let about_modseq = query.facts_mut().any(|fact| matches!(fact, Fact::ModseqFrom(_)));
        Ok(Looking { query, about_modseq })
    }
}

fn known_charset(c: &mut Cursor<'_>) -> Result<Charset, Done> {
    let name = c.astring()?;
    let charset = Charset::named(&name)
        .ok_or_else(|| Done::No(format!("[BADCHARSET ({})] no such charset here", Charset::NAMES)))?;
    c.space()?;
    Ok(charset)
}

/// A MODSEQ of a home that was lost, past what is left of it, does not tell what changed since: everything counts as changed.
async fn forget_lost<S: Mailstore>(state: &mut State, query: &mut Query<Fact>, store: &mut S) -> Result<(), Done> {
    let mut asked = 0;
    for fact in query.facts_mut() {
        let Fact::ModseqFrom(modseq) = fact else { continue };
        if !view(state)?.may_be_lost(*modseq) {
            continue;
        }
        asked += 1;
        let is_lost = asked > MODSEQS_ASKED_MAX || {
            let changed = missed_since(state, *modseq, None, store).await?.changed;
            view(state)?.messages().iter().any(|m| m.modseq <= *modseq && changed.contains(m.uid))
        };
        if is_lost {
            *modseq = 0;
        }
    }
    Ok(())
}

/// The UIDs of the messages that fit, rising; None if the client is gone. `$` is what was saved.
pub(crate) async fn find<S: Mailstore, O: Output>(
    state: &mut State,
    looking: Looking,
    saved: &UidSet,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<Option<Vec<u32>>, Done> {
    let Looking { mut query, about_modseq } = looking;
    if about_modseq {
        state.enable(Enabled::CondStore);
    }
    // Everything acknowledged before this command is to be found, so the client must know its number.
    store.ask(Command::Sync).await?;
    state.hear(store);
    state.say_news(false, out).await;
    forget_lost(state, &mut query, store).await?;
    let tag = state.tag.clone();
    let view = view(state)?;
    let folder = view.folder;
    search_key::resolve(&mut query, view, saved);
    let is_about_saving =
        |fact: &mut Fact| matches!(fact, Fact::SavedBefore(_) | Fact::SavedOn(_) | Fact::SavedSince(_));
    let save_dates = match query.facts_mut().any(is_about_saving) {
        true => {
            let uids: Vec<u32> = view.messages().iter().map(|m| m.uid).collect();
            save_dates(folder, &uids, store).await?
        }
        false => BTreeMap::new(),
    };
    // What the client still counts but is gone fits nothing.
    let seen = |uid: u32| {
        let number = view.number(uid).filter(|_| !view.is_expunged(uid))?;
        Some(Seen {
            number: u32::try_from(number).ok()?,
            state: view.message(uid)?,
            recent: view.is_recent(uid),
            saved_day: save_dates.get(&uid).map(|saved| saved.div_euclid(DAY_SECONDS)),
        })
    };
    let (mut found, mut maybe) = (Vec::new(), Vec::new());
    for uid in view.messages().iter().map(|m| m.uid) {
        store.breathe().await?;
        let Some(seen) = seen(uid) else { continue };
        match query.judge(&Known::default(), |fact| seen.has(fact)) {
            Verdict::Match => found.push(uid),
            Verdict::NoMatch => {}
            Verdict::Needs(_) => maybe.push(uid),
        }
    }
    let mut narrowing = Narrowing::default();
    let mut lacks = Vec::new();
    if !query.looked_for().is_empty() && !maybe.is_empty() {
        narrowing = Narrowing::ask((folder, &maybe), &query.looked_for(), store).await;
        for uid in std::mem::take(&mut maybe) {
            store.breathe().await?;
            let Some(seen) = seen(uid) else { continue };
            narrowing.lacks(uid, &mut lacks);
            match query.judge(&Known::default().lacking(&lacks), |fact| seen.has(fact)) {
                Verdict::Match => found.push(uid),
                Verdict::NoMatch => {}
                Verdict::Needs(_) => maybe.push(uid),
            }
        }
    }
    let what = FetchWhat { content: true, header: query.needs() >= Some(Needs::Header) };
    let words = query.words();
    let mut bodies = BodyReader::default();
    for (n, batch) in maybe.chunks(fetch_at_once(what)).enumerate() {
        tell_progress(&tag, n * fetch_at_once(what), maybe.len(), store, out).await;
        if out.is_gone() {
            return Ok(None);
        }
        let fetched = fetched(folder, batch, what, store).await?;
        // Those of which the header does not say whether they fit.
        let mut unread = Vec::new();
        for message in &fetched {
            store.breathe().await?;
            let uid = message.state.uid;
            let Some(seen) = seen(uid) else { continue };
            let Ok(long_header) = long_header(message, &mut bodies, store).await? else { continue };
            narrowing.lacks(uid, &mut lacks);
            match query.judge(&known(message, long_header.as_deref()).lacking(&lacks), |fact| seen.has(fact)) {
                Verdict::Match => found.push(uid),
                Verdict::NoMatch => {}
                Verdict::Needs(_) => unread.extend(message.content.as_ref().map(|content| (message, content))),
            }
        }
        let contents: Vec<&FetchedContent> = unread.iter().map(|(_, content)| *content).collect();
        let mut at = 0;
        while at < unread.len() {
            let upto = at + bodies.read_ahead(&contents[at..], store).await?;
            for (message, content) in &unread[at..upto] {
                store.breathe().await?;
                let uid = message.state.uid;
                let (Some(seen), Some(header)) = (seen(uid), &message.header) else { continue };
                let root = structure(header)?;
                let noted = narrowing.grams_of(uid);
                let Some(searched) = search_body(&words, content, &root, noted, &mut bodies, store).await? else {
                    continue;
                };
                let Ok(long_header) = long_header(message, &mut bodies, store).await? else { continue };
                let mut known = known(message, long_header.as_deref());
                known.searched(searched.held);
                if query.judge(&known, |fact| seen.has(fact)) == Verdict::Match {
                    found.push(uid);
                }
                if searched.is_noted {
                    narrowing.read(content.email, known.header_text(), store).await;
                }
            }
            at = upto;
        }
    }
    narrowing.bring(store).await;
    found.sort_unstable();
    Ok(Some(found))
}

/// A message as the session's view has it.
struct Seen<'a> {
    number: u32,
    state: &'a MessageState,
    recent: bool,
    /// The day that it came to the folder, if anybody asks.
    saved_day: Option<i64>,
}

impl Seen<'_> {
    fn has(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Flag(flag, set) => self.state.flags.has(*flag) == *set,
            Fact::Keyword(keyword, set) => self.state.flags.has_keyword(keyword) == *set,
            Fact::Recent(recent) => self.recent == *recent,
            Fact::New => self.recent && !self.state.flags.has(SystemFlag::Seen),
            Fact::ModseqFrom(modseq) => self.state.modseq >= *modseq,
            Fact::SavedBefore(day) => self.saved_day.is_some_and(|saved| saved < *day),
            Fact::SavedOn(day) => self.saved_day == Some(*day),
            Fact::SavedSince(day) => self.saved_day.is_some_and(|saved| saved >= *day),
            Fact::NumbersIn(set) => set.contains(self.number),
            Fact::UidsIn(set) => set.contains(self.state.uid),
            Fact::Numbers(_) | Fact::Uids(_) => unreachable!("sets are resolved before anything is judged"),
        }
    }
}

/// A message is no more.
#[derive(Debug)]
pub(crate) struct IsNoMore;

/// The header block of a message, where it is too long to be kept beside it.
pub(crate) async fn long_header<S: Mailstore>(
    message: &Fetched,
    bodies: &mut BodyReader,
    store: &mut S,
) -> Result<Result<Option<Vec<u8>>, IsNoMore>, Done> {
    match (&message.content, &message.header) {
        (Some(content), Some(header)) if header.header.is_empty() => {
            let range = structure(header)?.header;
            Ok(bodies.all(content, range, store).await?.map(Some).ok_or(IsNoMore))
        }
        _ => Ok(Ok(None)),
    }
}

fn structure(header: &FetchedHeader) -> Result<Part, Refusal> {
    versioned_decode("structure", PARSED_VERSION, &header.structure).map_err(|_| Refusal::Corrupt)
}

/// What was fetched of a message, and its header block if that is not beside it.
fn known<'a>(fetched: &'a Fetched, long_header: Option<&'a [u8]>) -> Known<'a> {
    let mut known = Known::default();
    if let Some(content) = &fetched.content {
        known = known.with_metadata(Metadata {
            size_bytes: content.size_bytes,
            received_unix_seconds: content.internal_date.unix_seconds,
            received_zone_minutes: content.internal_date.zone_minutes,
            email: content.email.0,
        });
    }
    match long_header.or(fetched.header.as_ref().map(|header| header.header.as_ref())) {
        Some(block) => known.with_header(block),
        None => known,
    }
}

/// What a search of a body came to.
struct Searched {
    /// Which of the words it holds.
    held: Vec<bool>,
    /// All its grams were noted.
    is_noted: bool,
}

/// Looks for words in a message's body, and notes its grams where that is wanted. None if the message is no more.
async fn search_body<S: Mailstore>(
    words: &[&str],
    content: &FetchedContent,
    root: &Part,
    noted: Option<&mut Grams>,
    bodies: &mut BodyReader,
    store: &mut S,
) -> Result<Option<Searched>, Done> {
    let is_noting = noted.is_some();
    let mut search = BodySearch::new(words, root);
    if let Some(grams) = noted {
        // Of one chunk the rest is there already. More is not read for the index alone.
        search = search.noting(grams, content.chunks == 1);
    }
    while let Some(wanted) = search.wants() {
        let Some(piece) = bodies.piece(content, wanted, store).await? else { return Ok(None) };
        search.take(&piece[..piece.len().min(PIECE_MAX_BYTES)]);
        store.breathe().await?;
    }
    let is_noted = is_noting && search.is_whole();
    Ok(Some(Searched { held: search.into_found(), is_noted }))
}
