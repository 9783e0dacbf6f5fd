//! STORE (RFC 3501, section 6.4.6), conditional too (RFC 7162, section 3.1.3).

use mailraft_mailbox::api::StoreMode;
use mailraft_mailbox::{Answer, Command, Flags};
use mailraft_protocol::{Out, Output};

use crate::cursor::{Cursor, Recent};
use crate::opened::{Names, uids, writable};
use crate::outcome::{Done, Outcome, ok, ok_but_for_some};
use crate::print;
use crate::state::{Enabled, State};
use crate::store::Mailstore;

/// Which flags are told after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    All,
    /// With .SILENT: those that the client can't know.
    Unexpected,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let folder = writable(state)?.folder;
    c.space()?;
    let set = c.message_set()?;
    c.space()?;
    let unchanged_since = modifier(c)?;
    if unchanged_since.is_some() {
        state.enable(Enabled::CondStore);
    }
    let item = c.word()?;
    let (mode, echo) = match item.as_str() {
        "FLAGS" => (StoreMode::Replace, Echo::All),
        "FLAGS.SILENT" => (StoreMode::Replace, Echo::Unexpected),
        "+FLAGS" => (StoreMode::Add, Echo::All),
        "+FLAGS.SILENT" => (StoreMode::Add, Echo::Unexpected),
        "-FLAGS" => (StoreMode::Remove, Echo::All),
        "-FLAGS.SILENT" => (StoreMode::Remove, Echo::Unexpected),
        _ => return Err(Done::Bad(format!("STORE does not know {item}"))),
    };
    c.space()?;
    let flags = flags(c)?;
    c.end()?;
    let uids = uids(state, &set, names, store, out).await?;
    if uids.is_empty() {
        return ok("STORE");
    }
    let view = writable(state)?;
    let before: Vec<(u32, Flags)> = uids.iter().filter_map(|u| view.message(u).map(|m| (u, m.flags.clone()))).collect();
    state.does_itself(&uids);
    let command = Command::Store { folder, uids, mode, flags: flags.clone(), unchanged_since };
    let Answer::Flagged { modified, .. } = store.ask(command).await? else { return Err(Done::odd_answer()) };
    state.hear(store);
    let (enabled, telling) = (state.enabled, state.telling());
    let view = writable(state)?;
    let mut gone = false;
    for (uid, before) in before {
        // It is done: whatever that takes, the client hears of it.
        let _ = store.breathe().await;
        if view.is_expunged(uid) {
            gone = true;
            continue;
        }
        // Its flags are not changed; what they are is told as news.
        if modified.contains(uid) {
            continue;
        }
        let expected = match mode {
            StoreMode::Replace => flags.clone(),
            StoreMode::Add => before.union(&flags),
            StoreMode::Remove => before.minus(&flags),
        };
        let message = view.message(uid).map(|m| (m.flags.clone(), m.modseq));
        let Some((number, (now, modseq))) = view.number(uid).zip(message) else { continue };
        view.note_keywords(&now, &mut out.bytes);
        // What it can't know is that someone else changed them too.
        let mut told = Vec::new();
        if !telling.uid_only && (names == Names::Uids || enabled >= Enabled::QResync) {
            told.push(format!("UID {uid}"));
        }
        let tells_flags = echo == Echo::All || now != expected;
        if tells_flags {
            told.push(format!("FLAGS {}", print::flags(&now, telling.recent && view.is_recent(uid))));
        }
        if telling.modseq {
            told.push(print::modseq(modseq).trim_start().to_owned());
        }
        if tells_flags || telling.modseq {
            out.line(&format!("{}{})", telling.begin(number, uid), told.join(" ")));
        }
        view.told(uid);
        out.pass_on().await;
    }
    if !modified.is_empty() {
        let named = match names {
            Names::Uids => modified,
            Names::Numbers => modified.iter().filter_map(|uid| u32::try_from(view.number(uid)?).ok()).collect(),
        };
        return Ok(Done::Ok(format!("[MODIFIED {named}] STORE done but for some that have changed")));
    }
    // RFC 2180, section 4.2: the others' flags are set all the same. A UID that is no more is no error.
    if gone && names == Names::Numbers { ok_but_for_some("STORE") } else { ok("STORE") }
}

/// `(UNCHANGEDSINCE 12)`
fn modifier(c: &mut Cursor<'_>) -> Result<Option<u64>, Done> {
    if c.peek() != Some(b'(') {
        return Ok(None);
    }
    c.open()?;
    let word = c.word()?;
    if word != "UNCHANGEDSINCE" {
        return Err(Done::Bad(format!("STORE does not know {word}")));
    }
    c.space()?;
    let modseq = c.modseq()?;
    c.expect(b')')?;
    c.space()?;
    Ok(Some(modseq))
}

/// Flags with or without parentheses.
fn flags(c: &mut Cursor<'_>) -> Result<Flags, Done> {
    if c.peek() == Some(b'(') {
        return Ok(c.flag_list(Recent::Wrong)?);
    }
    let mut flags = c.flag(Flags::none(), Recent::Wrong)?;
    while c.eat(b' ') {
        flags = c.flag(flags, Recent::Wrong)?;
    }
    Ok(flags)
}
