//! SEARCH (RFC 3501, section 6.4.4) with what it may return and save (RFC 4731, 5182, 9394), cheapest keys first: what the view knows, then metadata, then bodies.

use mailraft_mailbox::api::{FetchWhat, Fetched, FetchedContent, FetchedHeader, MessageState};
use mailraft_mailbox::{Answer, Command, SystemFlag, UidSet};
use mailraft_message::body_search::PIECE_MAX_BYTES;
use mailraft_message::query::{Known, Metadata, Needs, TEXTS_MAX, Verdict};
use mailraft_message::{BodySearch, Part};
use mailraft_protocol::{BodyReader, Out, Output, Refusal};
use mailraft_storage::entry::versioned_decode;

use crate::cursor::{Cursor, PartialRange, Read, wrong};
use crate::opened::{Names, view};
use crate::outcome::{Done, Outcome, ok};
use crate::search_key::{self, Fact};
use crate::state::{Enabled, State};
use crate::store::{Mailstore, PARSED_VERSION, fetch_at_once};

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let saved = state.saved.clone();
    let outcome = search(state, c, names, store, out).await;
    if matches!(outcome, Err(Done::Bad(_))) {
        // It was no search: what was saved stays (RFC 5182, section 2.1).
        state.saved = saved;
    }
    outcome
}

async fn search<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    view(state)?;
    c.space()?;
    let returns = returns(c)?;
    let saved = state.saved.clone();
    if returns.as_ref().is_some_and(|returns| returns.save) {
        // Whatever goes wrong from here on, nothing is saved (RFC 5182, section 2.1).
        state.saved = UidSet::new();
    }
    if c.peek_word() == "CHARSET" {
        c.word()?;
        c.space()?;
        let charset = c.text()?;
        if !["UTF-8", "US-ASCII"].iter().any(|known| charset.eq_ignore_ascii_case(known)) {
            return Err(Done::No("[BADCHARSET (UTF-8 US-ASCII)] no such charset here".into()));
        }
        c.space()?;
    }
    let mut query = search_key::parse(c, store.now_unix_seconds())?;
    c.end()?;
    if query.texts() > TEXTS_MAX {
        return Err(Done::No(format!("[LIMIT] at most {TEXTS_MAX} texts can be looked for at once")));
    }
    let tells_modseq = query.facts_mut().any(|fact| matches!(fact, Fact::ModseqFrom(_)));
    if tells_modseq {
        state.enable(Enabled::CondStore);
    }
    // Everything acknowledged before this command is to be found, so the client must know its number.
    store.ask(Command::Sync).await?;
    state.hear(store);
    state.say_news(false, out).await;
    let tag = state.tag.clone();
    let view = view(state)?;
    let folder = view.folder;
    search_key::resolve(&mut query, view, &saved);
    // What the client still counts but is gone fits nothing.
    let seen = |uid: u32| {
        let number = view.number(uid).filter(|_| !view.is_expunged(uid))?;
        Some(Seen { number: u32::try_from(number).ok()?, state: view.message(uid)?, recent: view.is_recent(uid) })
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
    let what = FetchWhat { content: true, header: query.needs() >= Some(Needs::Header) };
    let words = query.words();
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
            store.breathe().await?;
            let uid = message.state.uid;
            let Some(seen) = seen(uid) else { continue };
            let long_header = match (&message.content, &message.header) {
                (Some(content), Some(header)) if header.header.is_empty() => {
                    // It is too long to be kept beside the message.
                    let range = structure(header)?.header;
                    let Some(block) = bodies.all(content, range, store).await? else { continue };
                    Some(block)
                }
                _ => None,
            };
            let mut known = known(message, long_header.as_deref());
            let mut verdict = query.judge(&known, |fact| seen.has(fact));
            if verdict == Verdict::Needs(Needs::Body)
                && let (Some(content), Some(header)) = (&message.content, &message.header)
            {
                let root = structure(header)?;
                let Some(held) = search_body(&words, content, &root, &mut bodies, store).await? else { continue };
                known.searched(held);
                verdict = query.judge(&known, |fact| seen.has(fact));
            }
            if verdict == Verdict::Match {
                found.push(uid);
            }
        }
    }
    found.sort_unstable();
    let named = |uid: u32| match names {
        Names::Uids => Some(uid),
        Names::Numbers => view.number(uid).and_then(|number| u32::try_from(number).ok()),
    };
    let numbers: Vec<u32> = found.iter().copied().filter_map(named).collect();
    let modseq = |uids: &UidSet| view.messages().iter().filter(|m| uids.contains(m.uid)).map(|m| m.modseq).max();
    match &returns {
        None => {
            let line: String = numbers.iter().map(|number| format!(" {number}")).collect();
            let modseq = modseq(&set(&found)).filter(|_| tells_modseq);
            out.line(&format!("* SEARCH{line}{}", modseq.map(|m| format!(" (MODSEQ {m})")).unwrap_or_default()));
        }
        // Of what is only saved nothing is told.
        Some(returns) if returns.tells() => {
            let uid = if names == Names::Uids { " UID" } else { "" };
            let modseq = modseq(&returns.saved(&found)).filter(|_| tells_modseq);
            let modseq = modseq.map(|m| format!(" MODSEQ {m}")).unwrap_or_default();
            let told = returns.print(&numbers);
            out.line(&format!("* ESEARCH (TAG \"{tag}\"){uid}{told}{modseq}"));
        }
        Some(_) => {}
    }
    if let Some(returns) = returns.filter(|returns| returns.save) {
        state.saved = returns.saved(&found);
    }
    ok("SEARCH")
}

/// What RETURN asks for.
#[derive(Debug, Default)]
struct Returns {
    min: bool,
    max: bool,
    all: bool,
    count: bool,
    save: bool,
    partial: Option<PartialRange>,
}

impl Returns {
    fn tells(&self) -> bool {
        self.min || self.max || self.all || self.count || self.partial.is_some()
    }

    /// What was found, which rises.
    fn print(&self, found: &[u32]) -> String {
        let mut out = String::new();
        let ends = found.first().zip(found.last());
        if let Some((min, _)) = ends.filter(|_| self.min) {
            out += &format!(" MIN {min}");
        }
        if let Some((_, max)) = ends.filter(|_| self.max) {
            out += &format!(" MAX {max}");
        }
        if self.count {
            out += &format!(" COUNT {}", found.len());
        }
        if self.all && !found.is_empty() {
            out += &format!(" ALL {}", set(found));
        }
        if let Some(range) = &self.partial {
            let part = range.of(found);
            let part = if part.is_empty() { "NIL".to_owned() } else { set(part).to_string() };
            out += &format!(" PARTIAL ({} {part})", range.print());
        }
        out
    }

    /// What of all that was found is saved: what is returned, or all if it is counted or nothing is asked for (RFC 5182,
    /// section 2.4; RFC 9394, section 3.2).
    fn saved(&self, found: &[u32]) -> UidSet {
        if self.all || self.count || !self.tells() {
            return set(found);
        }
        let ends = [found.first().filter(|_| self.min), found.last().filter(|_| self.max)];
        let part = self.partial.map(|range| range.of(found)).unwrap_or_default();
        ends.into_iter().flatten().chain(part).copied().collect()
    }
}

fn set(numbers: &[u32]) -> UidSet {
    numbers.iter().copied().collect()
}

/// `RETURN (...)`, if it is there.
fn returns(c: &mut Cursor<'_>) -> Read<Option<Returns>> {
    if c.peek_word() != "RETURN" {
        return Ok(None);
    }
    c.word()?;
    c.space()?;
    c.open()?;
    let mut returns = Returns::default();
    while !c.close() {
        match c.word()?.as_str() {
            "MIN" => returns.min = true,
            "MAX" => returns.max = true,
            "ALL" => returns.all = true,
            "COUNT" => returns.count = true,
            "SAVE" => returns.save = true,
            "PARTIAL" => {
                c.space()?;
                returns.partial = Some(c.partial_range()?);
            }
            other => return wrong(format!("SEARCH does not return {other}")),
        }
        c.eat(b' ');
    }
    c.space()?;
    if returns.all && returns.partial.is_some() {
        return wrong("either ALL or PARTIAL");
    }
    returns.all |= !returns.tells() && !returns.save;
    Ok(Some(returns))
}

/// A message as the session's view has it.
struct Seen<'a> {
    number: u32,
    state: &'a MessageState,
    recent: bool,
}

impl Seen<'_> {
    fn has(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Flag(flag, set) => self.state.flags.has(*flag) == *set,
            Fact::Keyword(keyword, set) => self.state.flags.has_keyword(keyword) == *set,
            Fact::Recent(recent) => self.recent == *recent,
            Fact::New => self.recent && !self.state.flags.has(SystemFlag::Seen),
            Fact::ModseqFrom(modseq) => self.state.modseq >= *modseq,
            Fact::NumbersIn(set) => set.contains(self.number),
            Fact::UidsIn(set) => set.contains(self.state.uid),
            Fact::Numbers(_) | Fact::Uids(_) => unreachable!("sets are resolved before anything is judged"),
        }
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

/// Which of the words a message's body holds. None if the message is no more.
async fn search_body<S: Mailstore>(
    words: &[&str],
    content: &FetchedContent,
    root: &Part,
    bodies: &mut BodyReader,
    store: &mut S,
) -> Result<Option<Vec<bool>>, Done> {
    let mut search = BodySearch::new(words, root);
    while let Some(wanted) = search.wants() {
        let Some(piece) = bodies.piece(content, wanted, store).await? else { return Ok(None) };
        search.take(&piece[..piece.len().min(PIECE_MAX_BYTES)]);
        store.breathe().await?;
    }
    Ok(Some(search.into_found()))
}
