//! FETCH (RFC 3501, sections 6.4.5 and 7.4.2).

use std::ops::Range;

use mailraft_mailbox::api::{FETCH_UIDS_MAX, FetchWhat, Fetched, FetchedContent, FetchedHeader, StoreMode};
use mailraft_mailbox::{Answer, Command, Flags, SystemFlag, UidSet};
use mailraft_message::{Envelope, Part};
use mailraft_storage::body::{CHUNK_PLAIN_BYTES, open_chunk};
use mailraft_storage::entry::versioned_decode;
use mailraft_storage::seal::Key;

use super::{ok, uids, view};
use crate::cursor::{Cursor, Read, wrong};
use crate::date;
use crate::print;
use crate::section::{Bytes, Section, SectionText, fields};
use crate::session::{Done, Out, Outcome, Session};
use crate::store::{Mailstore, Output};

/// Items of one FETCH.
const ITEMS_MAX: usize = 200;
const PARSED_VERSION: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Flags,
    Uid,
    InternalDate,
    Size,
    Envelope,
    Structure {
        extended: bool,
    },
    /// The name it is told under, the section, and `<from.length>`.
    Section {
        name: String,
        section: Section,
        partial: Option<(u64, u64)>,
        peek: bool,
    },
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    session: &mut Session,
    c: &mut Cursor<'_>,
    by_uid: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    let opened = view(session)?;
    let (folder, read_only) = (opened.folder, opened.read_only);
    c.space()?;
    let uids = uids(opened, c, by_uid)?;
    c.space()?;
    let mut items = items(c)?;
    c.end()?;
    if by_uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    let reads = items.iter().any(|i| matches!(i, Item::Section { peek: false, .. }));
    let what = FetchWhat {
        content: items.iter().any(|i| matches!(i, Item::InternalDate | Item::Size | Item::Section { .. })),
        header: items.iter().any(|i| matches!(i, Item::Envelope | Item::Structure { .. } | Item::Section { .. })),
    };
    let all: Vec<u32> = uids.iter().collect();
    let mut missing = false;
    for batch in all.chunks(FETCH_UIDS_MAX) {
        if out.is_gone() {
            break;
        }
        if reads && !read_only {
            mark_seen(session, batch, store).await?;
        }
        let fetched = match what.content || what.header {
            true => {
                let uids: UidSet = batch.iter().copied().collect();
                match store.ask(Command::Fetch { folder, uids, what }).await? {
                    Answer::Fetched(fetched) => fetched,
                    _ => return Err(Done::No("the mailbox answered something else".into())),
                }
            }
            false => {
                let opened = view(session)?;
                let known = |uid: &u32| {
                    opened.message(*uid).cloned().map(|state| Fetched { state, content: None, header: None })
                };
                batch.iter().filter_map(known).collect()
            }
        };
        missing |= fetched.len() < batch.len();
        session.hear(store);
        for message in fetched {
            missing |= !tell(session, &message, &items, reads, store, out).await?;
            out.pass_on().await;
        }
    }
    // RFC 2180, section 4.1.2: what others have removed meanwhile can't be told.
    match missing {
        true => Err(Done::No("[EXPUNGEISSUED] some of the messages are no more".into())),
        false => ok("FETCH"),
    }
}

/// Reading a body marks it as seen.
async fn mark_seen<S: Mailstore>(session: &mut Session, batch: &[u32], store: &mut S) -> Result<(), Done> {
    let opened = view(session)?;
    let folder = opened.folder;
    let unseen = |uid: &u32| opened.message(*uid).is_some_and(|m| !m.flags.has(SystemFlag::Seen));
    let uids: UidSet = batch.iter().copied().filter(|u| unseen(u)).collect();
    if !uids.is_empty() {
        let flags = Flags::none().with(SystemFlag::Seen);
        store.ask(Command::Store { folder, uids, mode: StoreMode::Add, flags, unchanged_since: None }).await?;
        session.hear(store);
    }
    Ok(())
}

/// One FETCH response; false if the message's body is no more.
async fn tell<S: Mailstore, O: Output>(
    session: &mut Session,
    message: &Fetched,
    items: &[Item],
    reads: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Result<bool, Done> {
    let uid = message.state.uid;
    let opened = view(session)?;
    let Some(number) = opened.number(uid) else { return Ok(true) };
    let flags = opened.message(uid).map_or_else(Flags::none, |m| m.flags.clone());
    let flags_told = items.contains(&Item::Flags) || reads;
    if flags_told {
        opened.note_keywords(&flags, &mut out.bytes);
        opened.told(uid);
    }
    let recent = opened.is_recent(uid);
    let content = message.content.as_ref();
    let damaged = |_| Done::No("[CONTACTADMIN] part of this mailbox is damaged and being repaired".into());
    let structure: Option<Part> = match &message.header {
        Some(header) => Some(versioned_decode("structure", PARSED_VERSION, &header.structure).map_err(damaged)?),
        None => None,
    };
    let begun = out.bytes.len();
    out.bytes.extend_from_slice(format!("* {number} FETCH (").as_bytes());
    let mut first = true;
    for item in items {
        if !std::mem::take(&mut first) {
            out.bytes.push(b' ');
        }
        match (item, content, &message.header, &structure) {
            (Item::Flags, ..) => {
                out.bytes.extend_from_slice(format!("FLAGS {}", print::flags(&flags, recent)).as_bytes())
            }
            (Item::Uid, ..) => out.bytes.extend_from_slice(format!("UID {uid}").as_bytes()),
            (Item::InternalDate, Some(content), ..) => {
                out.bytes
                    .extend_from_slice(format!("INTERNALDATE \"{}\"", date::print(content.internal_date)).as_bytes());
            }
            (Item::Size, Some(content), ..) => {
                out.bytes.extend_from_slice(format!("RFC822.SIZE {}", content.size_bytes).as_bytes());
            }
            (Item::Envelope, _, Some(header), _) => {
                let envelope: Envelope =
                    versioned_decode("envelope", PARSED_VERSION, &header.envelope).map_err(damaged)?;
                out.bytes.extend_from_slice(b"ENVELOPE ");
                print::envelope(&mut out.bytes, &envelope);
            }
            (Item::Structure { extended }, _, _, Some(part)) => {
                out.bytes.extend_from_slice(if *extended { b"BODYSTRUCTURE " } else { b"BODY " });
                print::structure(&mut out.bytes, part, *extended);
            }
            (Item::Section { name, section, partial, .. }, Some(content), Some(header), Some(part)) => {
                out.bytes.extend_from_slice(name.as_bytes());
                if let Some((from, _)) = partial {
                    out.bytes.extend_from_slice(format!("<{from}>").as_bytes());
                }
                out.bytes.push(b' ');
                let told = tell_section(section, *partial, content, header, part, store, out).await?;
                if !told {
                    // The response was begun and can't be ended: nothing of it may go out.
                    return if begun <= out.bytes.len() && !out.is_gone() {
                        out.bytes.truncate(begun);
                        Ok(false)
                    } else {
                        Err(Done::Bye("[UNAVAILABLE] a message ended in its middle".into()))
                    };
                }
            }
            (Item::InternalDate | Item::Size | Item::Envelope | Item::Structure { .. } | Item::Section { .. }, ..) => {
                out.bytes.truncate(begun);
                return Ok(false);
            }
        }
    }
    if reads && !items.contains(&Item::Flags) {
        out.bytes.extend_from_slice(format!(" FLAGS {}", print::flags(&flags, recent)).as_bytes());
    }
    out.bytes.extend_from_slice(b")\r\n");
    Ok(true)
}

/// One section as a literal. False if the body is no more and nothing was written of it.
async fn tell_section<S: Mailstore, O: Output>(
    section: &Section,
    partial: Option<(u64, u64)>,
    content: &FetchedContent,
    header: &FetchedHeader,
    part: &Part,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Result<bool, Done> {
    match section.bytes(part) {
        Bytes::None => out.bytes.extend_from_slice(b"NIL"),
        Bytes::Fields(range, names, not) => {
            let block = match section.is_of_top_header() {
                true => header.header.to_vec(),
                false => match read(content, range, store).await? {
                    Some(block) => block,
                    None => return Ok(false),
                },
            };
            let text = fields(&block, &names, not);
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
            if section.is_of_top_header() {
                let block = header.header.get(range.start as usize..range.end as usize).unwrap_or_default();
                print::literal(&mut out.bytes, block);
                return Ok(true);
            }
            // The first chunk before the literal's length is said: a body that is gone is noticed in time.
            let mut at = range.start;
            let mut said = false;
            loop {
                let chunk_end = (at / CHUNK_PLAIN_BYTES as u64 + 1) * CHUNK_PLAIN_BYTES as u64;
                let end = chunk_end.min(range.end);
                let bytes = if at < end { read(content, at..end, store).await? } else { Some(Vec::new()) };
                match bytes {
                    Some(bytes) => {
                        if !std::mem::replace(&mut said, true) {
                            out.bytes.extend_from_slice(format!("{{{}}}\r\n", range.end - range.start).as_bytes());
                        }
                        out.bytes.extend_from_slice(&bytes);
                    }
                    None if !said => return Ok(false),
                    None => return Err(Done::Bye("[UNAVAILABLE] a message was removed while it was read".into())),
                }
                at = end;
                if at >= range.end {
                    break;
                }
                out.pass_on().await;
            }
        }
    }
    Ok(true)
}

fn cut(text: &[u8], partial: Option<(u64, u64)>) -> &[u8] {
    let Some((from, length)) = partial else { return text };
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
    let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(text.len());
    &text[start..end]
}

/// Bytes of a message, from those chunks alone that hold them. None if it is no more.
pub(super) async fn read<S: Mailstore>(
    content: &FetchedContent,
    range: Range<u64>,
    store: &mut S,
) -> Result<Option<Vec<u8>>, Done> {
    let damaged = || Done::No("[CONTACTADMIN] part of this mailbox is damaged and being repaired".into());
    let key: [u8; 32] = content.body_key.as_slice().try_into().map_err(|_| damaged())?;
    let key = Key::from_bytes(key);
    let mut out = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let number = u32::try_from(at / CHUNK_PLAIN_BYTES as u64).map_err(|_| damaged())?;
        let ask = Command::ReadChunk { email: content.email, body: content.body, number };
        let sealed = match store.ask(ask).await? {
            Answer::Chunk(Some(sealed)) => sealed,
            Answer::Chunk(None) => return Ok(None),
            _ => return Err(damaged()),
        };
        let plain =
            open_chunk(content.body, &key, number, number + 1 == content.chunks, &sealed).map_err(|_| damaged())?;
        let base = u64::from(number) * CHUNK_PLAIN_BYTES as u64;
        let end = range.end.min(base + plain.len() as u64);
        if end <= at {
            return Err(damaged());
        }
        out.extend_from_slice(&plain[(at - base) as usize..(end - base) as usize]);
        at = end;
    }
    Ok(Some(out))
}

fn items(c: &mut Cursor<'_>) -> Read<Vec<Item>> {
    if c.peek() != Some(b'(') {
        let macros = match c.peek_word().as_str() {
            "ALL" => Some(vec![Item::Flags, Item::InternalDate, Item::Size, Item::Envelope]),
            "FAST" => Some(vec![Item::Flags, Item::InternalDate, Item::Size]),
            "FULL" => Some(vec![
                Item::Flags,
                Item::InternalDate,
                Item::Size,
                Item::Envelope,
                Item::Structure { extended: false },
            ]),
            _ => None,
        };
        if let Some(items) = macros {
            c.word()?;
            return Ok(items);
        }
        return Ok(vec![item(c)?]);
    }
    c.open()?;
    let mut items = Vec::new();
    while !c.close() {
        items.push(item(c)?);
        if items.len() > ITEMS_MAX {
            return wrong("too many items");
        }
        c.eat(b' ');
    }
    if items.is_empty() { wrong("FETCH wants an item") } else { Ok(items) }
}

fn item(c: &mut Cursor<'_>) -> Read<Item> {
    let word = c.word()?;
    let old = |name: &str, text: SectionText, peek: bool| Item::Section {
        name: name.to_owned(),
        section: Section { path: Vec::new(), text },
        partial: None,
        peek,
    };
    Ok(match word.as_str() {
        "FLAGS" => Item::Flags,
        "UID" => Item::Uid,
        "INTERNALDATE" => Item::InternalDate,
        "RFC822.SIZE" => Item::Size,
        "ENVELOPE" => Item::Envelope,
        "BODYSTRUCTURE" => Item::Structure { extended: true },
        "RFC822" => old("RFC822", SectionText::All, false),
        "RFC822.HEADER" => old("RFC822.HEADER", SectionText::Header, true),
        "RFC822.TEXT" => old("RFC822.TEXT", SectionText::Text, false),
        "BODY" if c.peek() != Some(b'[') => Item::Structure { extended: false },
        "BODY" | "BODY.PEEK" => {
            let section = Section::parse(c)?;
            let mut partial = None;
            if c.eat(b'<') {
                let from = c.number()?;
                c.expect(b'.')?;
                let length = c.number()?;
                c.expect(b'>')?;
                if length == 0 {
                    return wrong("a part of no bytes");
                }
                partial = Some((from, length));
            }
            Item::Section { name: format!("BODY[{}]", section.print()), section, partial, peek: word == "BODY.PEEK" }
        }
        other => return wrong(format!("FETCH does not know {other}")),
    })
}
