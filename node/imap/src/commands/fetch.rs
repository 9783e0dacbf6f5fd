//! FETCH (RFC 3501, sections 6.4.5 and 7.4.2).

use std::collections::BTreeMap;

use mailraft_mailbox::api::{FetchWhat, Fetched, FetchedContent, FetchedHeader, StoreMode, ZonedTime};
use mailraft_mailbox::{Command, Flags, SystemFlag, UidSet};
use mailraft_message::header::HEADER_MAX_BYTES;
use mailraft_message::preview::{self, PREVIEW_READ_MAX_BYTES};
use mailraft_message::{Envelope, Part, transfer};
use mailraft_protocol::{BodyReader, Failure, Out, Output, Refusal};
use mailraft_storage::entry::versioned_decode;

use crate::binary;
use crate::cursor::{Cursor, MessageSet, PartialRange, Read, wrong};
use crate::date;
use crate::items::{Item, items};
use crate::objectid;
use crate::opened::{Names, fetched, missed_since, save_dates, uids, view};
use crate::outcome::{Done, Outcome, ok, ok_but_for_some};
use crate::print;
use crate::section::{Bytes, Section, fields, of_message};
use crate::state::{Enabled, State};
use crate::store::{Mailstore, PARSED_VERSION, fetch_at_once};

/// What comes of reading a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is marked as seen, where its body is read.
    MarksSeen,
    /// Nothing.
    ChangesNothing,
}

/// What was written of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Whole,
    /// Nothing: it is no more.
    Gone,
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
    let set = c.message_set()?;
    c.space()?;
    let mut items = items(c)?;
    let modifiers = modifiers(c, names)?;
    c.end()?;
    if modifiers.vanished && (modifiers.changed_since.is_none() || state.enabled < Enabled::QResync) {
        return Err(Done::Bad("VANISHED goes with CHANGEDSINCE, where QRESYNC is enabled".into()));
    }
    if modifiers.changed_since.is_some() && !items.contains(&Item::Modseq) {
        items.push(Item::Modseq);
    }
    if items.contains(&Item::Modseq) {
        state.enable(Enabled::CondStore);
    }
    if names == Names::Uids && !state.uid_only && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    let mut named = uids(state, &set, names, store, out).await?;
    if let Some(modseq) = modifiers.changed_since {
        let known = match &set {
            MessageSet::Written(set) if modifiers.vanished => Some(set.upto(u32::MAX)),
            MessageSet::Written(_) | MessageSet::Saved => None,
        };
        let missed = missed_since(state, modseq, known, store).await?;
        named = named.iter().filter(|uid| missed.changed.contains(*uid)).collect();
        if !missed.vanished.is_empty() {
            out.line(&format!("* VANISHED (EARLIER) {}", missed.vanished));
        }
    }
    let mut all: Vec<u32> = named.iter().collect();
    if let Some(range) = modifiers.partial {
        all = range.of(&all).to_vec();
    }
    let written = tell_messages(state, &all, &items, Reading::MarksSeen, store, out).await?;
    // RFC 2180, section 4.1.2: what others have removed meanwhile can't be told. A UID that is no more is no error.
    let gone = written == Written::Gone;
    if gone && names == Names::Numbers { ok_but_for_some("FETCH") } else { ok("FETCH") }
}

/// FETCH responses of messages of the open folder, in the order of these UIDs; says [`Written::Gone`] if some are no more.
///
/// # Errors
/// If one can't be told; those before it are.
pub(super) async fn tell_messages<S: Mailstore, O: Output>(
    state: &mut State,
    uids: &[u32],
    items: &[Item],
    reading: Reading,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<Written, Done> {
    let what = FetchWhat {
        content: items.iter().any(|item| item.needs().content),
        header: items.iter().any(|item| item.needs().header),
    };
    let opened = view(state)?;
    let (folder, read_only) = (opened.folder, opened.read_only);
    let marks_seen = reading == Reading::MarksSeen && !read_only && items.iter().any(Item::reads);
    let mut bodies = BodyReader::default();
    let mut all = Written::Whole;
    for batch in uids.chunks(fetch_at_once(what)) {
        if marks_seen {
            mark_seen(state, batch, store).await?;
        }
        let fetched = match what.content || what.header {
            true => fetched(folder, batch, what, store).await?,
            false => {
                let opened = view(state)?;
                let known = |uid: &u32| {
                    opened.message(*uid).cloned().map(|state| Fetched { state, content: None, header: None })
                };
                batch.iter().filter_map(known).collect()
            }
        };
        if fetched.len() < batch.len() {
            all = Written::Gone;
        }
        let saved = match items.contains(&Item::SaveDate) {
            true => save_dates(folder, batch, store).await?,
            false => BTreeMap::new(),
        };
        state.hear(store);
        for message in fetched {
            if out.is_gone() {
                return Ok(Written::Whole);
            }
            note_keywords(state, message.state.uid, items, out);
            let mark = out.mark();
            let saved = saved.get(&message.state.uid).copied();
            let written = tell(state, (&message, saved), items, &mut bodies, store, out).await;
            // A response that was begun and can't be ended must not go out; if some of it did, whatever follows
            // would count as part of it.
            if !matches!(written, Ok(Written::Whole)) && !out.roll_back(mark) {
                return Err(Done::HangUp);
            }
            if written? == Written::Gone {
                all = Written::Gone;
            }
            out.pass_on().await;
        }
    }
    Ok(all)
}

/// Reading a body marks it as seen. Where another region does not confirm, nothing changes and reading goes on, as in a
/// folder that is open read-only.
async fn mark_seen<S: Mailstore>(state: &mut State, batch: &[u32], store: &mut S) -> Result<(), Done> {
    let opened = view(state)?;
    let folder = opened.folder;
    let unseen = |uid: &u32| opened.message(*uid).is_some_and(|m| !m.flags.has(SystemFlag::Seen));
    let uids: UidSet = batch.iter().copied().filter(|u| unseen(u)).collect();
    if !uids.is_empty() {
        state.does_itself(&uids);
        let flags = Flags::none().with(SystemFlag::Seen);
        state.does_itself(&uids);
        match store.ask(Command::Store { folder, uids, mode: StoreMode::Add, flags, unchanged_since: None }).await {
            Ok(_) => state.hear(store),
            Err(Failure::NotDone(Refusal::NotConfirmed)) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(())
}

/// Keywords that come in the next response are named before it: they count even if it is rolled back.
fn note_keywords<O: Output>(state: &mut State, uid: u32, items: &[Item], out: &mut Out<O>) {
    let tells = state.tells_flags_of(uid);
    let Some(view) = state.view.as_mut() else { return };
    let Some(flags) = view.message(uid).map(|m| m.flags.clone()) else { return };
    if tells && view.is_changed(uid) || items.contains(&Item::Flags) {
        view.note_keywords(&flags, &mut out.bytes);
    }
}

/// One FETCH response. What it wrote must be rolled back unless it says [`Written::Whole`].
async fn tell<S: Mailstore, O: Output>(
    state: &mut State,
    (message, saved): (&Fetched, Option<i64>),
    items: &[Item],
    bodies: &mut BodyReader,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<Written, Done> {
    let uid = message.state.uid;
    let opened = view(state)?;
    let Some((number, flags)) = opened.number(uid).zip(opened.message(uid).map(|m| m.flags.clone())) else {
        return Ok(Written::Whole);
    };
    // Flags are told unasked where they changed, as by reading.
    let changed = opened.is_changed(uid) && state.tells_flags_of(uid);
    let opened = view(state)?;
    let modseq = opened.message(uid).map_or(0, |m| m.modseq);
    let telling = state.telling();
    let opened = view(state)?;
    let flags = print::flags(&flags, telling.recent && opened.is_recent(uid));
    let structure: Option<Part> = match &message.header {
        Some(header) => {
            Some(versioned_decode("structure", PARSED_VERSION, &header.structure).map_err(|_| Refusal::Corrupt)?)
        }
        None => None,
    };
    out.text(&telling.begin(number, uid));
    for (n, item) in items.iter().enumerate() {
        store.breathe().await?;
        if n > 0 {
            out.text(" ");
        }
        match (item, &message.content, &message.header, &structure) {
            (Item::Flags, ..) => out.text(&format!("FLAGS {flags}")),
            (Item::Modseq, ..) => out.text(print::modseq(modseq).trim_start()),
            (Item::Uid, ..) => out.text(&format!("UID {uid}")),
            (Item::InternalDate, Some(content), ..) => {
                out.text(&format!("INTERNALDATE \"{}\"", date::print(content.internal_date)));
            }
            (Item::SaveDate, ..) => match saved {
                Some(unix_seconds) => {
                    let saved = ZonedTime { unix_seconds, zone_minutes: 0 };
                    out.text(&format!("SAVEDATE \"{}\"", date::print(saved)));
                }
                None => return Ok(Written::Gone),
            },
            (Item::EmailId, Some(content), ..) => {
                out.text(&format!("EMAILID ({})", objectid::print_email(content.email)));
            }
            // No message is in a thread (RFC 8474, section 5.2).
            (Item::ThreadId, ..) => out.text("THREADID NIL"),
            (Item::Size, Some(content), ..) => out.text(&format!("RFC822.SIZE {}", content.size_bytes)),
            (Item::Envelope, _, Some(header), _) => {
                let envelope: Envelope =
                    versioned_decode("envelope", PARSED_VERSION, &header.envelope).map_err(|_| Refusal::Corrupt)?;
                out.text("ENVELOPE ");
                print::envelope(&mut out.bytes, &envelope);
            }
            (Item::Structure { extended }, _, _, Some(part)) => {
                out.text(if *extended { "BODYSTRUCTURE " } else { "BODY " });
                print::structure(&mut out.bytes, part, *extended);
            }
            (Item::Section { name, section, partial, .. }, Some(content), Some(header), Some(part)) => {
                out.text(name);
                if let Some((from, _)) = partial {
                    out.text(&format!("<{from}>"));
                }
                out.text(" ");
                let source = Source { content, header, part };
                if tell_section(section, *partial, source, bodies, store, out).await? == Written::Gone {
                    return Ok(Written::Gone);
                }
            }
            (Item::Binary { name, path, partial, .. }, Some(content), _, Some(part)) => {
                out.text(name);
                if let Some((from, _)) = partial {
                    out.text(&format!("<{from}>"));
                }
                out.text(" ");
                let told = binary::tell_part(path, *partial, (content, part), bodies, store, out).await?;
                if told == binary::Told::Gone {
                    return Ok(Written::Gone);
                }
            }
            (Item::BinarySize { name, path }, Some(content), _, Some(part)) => {
                match binary::size(path, (content, part), bodies, store).await? {
                    Some(size) => out.text(&format!("{name} {size}")),
                    None => return Ok(Written::Gone),
                }
            }
            (Item::Preview, Some(content), _, Some(part)) => {
                out.text("PREVIEW ");
                if tell_preview(content, part, bodies, store, out).await? == Written::Gone {
                    return Ok(Written::Gone);
                }
            }
            (Item::InternalDate | Item::Size | Item::EmailId, ..)
            | (Item::Preview | Item::Binary { .. } | Item::BinarySize { .. }, ..)
            | (Item::Envelope | Item::Structure { .. } | Item::Section { .. }, ..) => return Ok(Written::Gone),
        }
    }
    if changed && !items.contains(&Item::Flags) {
        out.text(&format!(" FLAGS {flags}"));
    }
    if changed && telling.modseq && !items.contains(&Item::Modseq) {
        out.text(&print::modseq(modseq));
    }
    out.text(")\r\n");
    if changed || items.contains(&Item::Flags) {
        view(state)?.told(uid);
    }
    Ok(Written::Whole)
}

/// Where the bytes of sections come from.
#[derive(Clone, Copy)]
struct Source<'a> {
    content: &'a FetchedContent,
    header: &'a FetchedHeader,
    part: &'a Part,
}

impl<'a> Source<'a> {
    /// The message's header block, if a section is about it and it is kept beside the message.
    fn kept_header(&self, section: &Section) -> Option<&'a [u8]> {
        let is_kept = self.header.header.len() as u64 == self.part.header.end;
        (is_kept && section.is_of_top_header()).then_some(&self.header.header)
    }
}

/// One section as a literal, a chunk at a time.
async fn tell_section<S: Mailstore, O: Output>(
    section: &Section,
    partial: Option<(u64, u64)>,
    source: Source<'_>,
    bodies: &mut BodyReader,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<Written, Done> {
    match section.bytes(source.part) {
        Bytes::None => out.text("NIL"),
        // It is short: see ENCODED_MESSAGES_MAX_BYTES.
        Bytes::Encoded { range, encoding, root, section } => {
            let Some(encoded) = bodies.all(source.content, range, store).await? else { return Ok(Written::Gone) };
            store.breathe().await?;
            match of_message(&section, root, &transfer::decode(encoding, &encoded)) {
                Some(bytes) => print::literal(&mut out.bytes, cut(&bytes, partial)),
                None => out.text("NIL"),
            }
        }
        Bytes::Fields(range, names, not) => {
            let text = match source.kept_header(section) {
                Some(block) => fields(block, &names, not),
                None => {
                    let range = range.start..range.end.min(range.start.saturating_add(HEADER_MAX_BYTES as u64));
                    match bodies.all(source.content, range, store).await? {
                        Some(block) => fields(&block, &names, not),
                        None => return Ok(Written::Gone),
                    }
                }
            };
            print::literal(&mut out.bytes, cut(&text, partial));
        }
        Bytes::Range(range) => {
            let range = match partial {
                Some((from, length)) => {
                    let start = range.start.saturating_add(from).min(range.end);
                    start..start.saturating_add(length).min(range.end)
                }
                None => range,
            };
            if let Some(block) = source.kept_header(section) {
                let block = block.get(range.start as usize..range.end as usize).ok_or(Refusal::Corrupt)?;
                print::literal(&mut out.bytes, block);
                return Ok(Written::Whole);
            }
            out.text(&format!("{{{}}}\r\n", range.end.saturating_sub(range.start)));
            let mut at = range.start;
            while at < range.end && !out.is_gone() {
                let Some(piece) = bodies.piece(source.content, at..range.end, store).await? else {
                    return Ok(Written::Gone);
                };
                out.bytes.extend_from_slice(piece);
                at += piece.len() as u64;
                out.pass_on().await;
            }
        }
    }
    Ok(Written::Whole)
}

/// What a message begins with (RFC 8970); nothing, where it has no text.
async fn tell_preview<S: Mailstore, O: Output>(
    content: &FetchedContent,
    root: &Part,
    bodies: &mut BodyReader,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<Written, Done> {
    let Some(part) = preview::part(root) else {
        out.text("\"\"");
        return Ok(Written::Whole);
    };
    let range = part.body.start..part.body.end.min(part.body.start.saturating_add(PREVIEW_READ_MAX_BYTES));
    let Some(body) = bodies.all(content, range, store).await? else { return Ok(Written::Gone) };
    print::string(&mut out.bytes, preview::text(part, &body).as_bytes());
    Ok(Written::Whole)
}

/// What follows the items (RFC 4466, section 2.4).
#[derive(Debug, Default)]
struct Modifiers {
    /// Only those of the messages that are named which have changed since (RFC 7162),
    changed_since: Option<u64>,
    /// and which of them are no more.
    vanished: bool,
    /// Only these of them (RFC 9394).
    partial: Option<PartialRange>,
}

fn modifiers(c: &mut Cursor<'_>, names: Names) -> Read<Modifiers> {
    let mut modifiers = Modifiers::default();
    if !c.eat(b' ') {
        return Ok(modifiers);
    }
    c.open()?;
    while !c.close() {
        match c.word()?.as_str() {
            "CHANGEDSINCE" => {
                c.space()?;
                modifiers.changed_since = Some(c.modseq()?);
            }
            "VANISHED" if names == Names::Uids => modifiers.vanished = true,
            "PARTIAL" if names == Names::Uids => {
                c.space()?;
                modifiers.partial = Some(c.partial_range()?);
            }
            other => return wrong(format!("FETCH does not know {other}")),
        }
        c.eat(b' ');
    }
    Ok(modifiers)
}

fn cut(text: &[u8], partial: Option<(u64, u64)>) -> &[u8] {
    let Some((from, length)) = partial else { return text };
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
    let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(text.len());
    &text[start..end]
}
