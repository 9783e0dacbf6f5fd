//! STORE (RFC 3501, section 6.4.6).

use mailraft_mailbox::api::StoreMode;
use mailraft_mailbox::{Command, Flags};

use super::{ok, uids, writable};
use crate::cursor::Cursor;
use crate::print;
use crate::session::{Done, Out, Outcome, Session};
use crate::store::{Mailstore, Output};

pub(crate) async fn run<S: Mailstore, O: Output>(
    session: &mut Session,
    c: &mut Cursor<'_>,
    by_uid: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    let view = writable(session)?;
    let folder = view.folder;
    c.space()?;
    let uids = uids(view, c, by_uid)?;
    c.space()?;
    let item = c.word()?;
    let (mode, rest) = match item.as_bytes().first() {
        Some(b'+') => (StoreMode::Add, &item[1..]),
        Some(b'-') => (StoreMode::Remove, &item[1..]),
        _ => (StoreMode::Replace, item.as_str()),
    };
    let silent = match rest {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(Done::Bad(format!("STORE does not know {item}"))),
    };
    c.space()?;
    let flags = flags(c)?;
    c.end()?;
    if uids.is_empty() {
        return ok("STORE");
    }
    let before: Vec<(u32, Flags)> = uids.iter().filter_map(|u| view.message(u).map(|m| (u, m.flags.clone()))).collect();
    let command = Command::Store { folder, uids: uids.clone(), mode, flags: flags.clone(), unchanged_since: None };
    store.ask(command).await?;
    session.hear(store);
    let view = writable(session)?;
    for (uid, before) in before {
        let expected = match mode {
            StoreMode::Replace => flags.clone(),
            StoreMode::Add => before.union(&flags),
            StoreMode::Remove => before.minus(&flags),
        };
        let Some((number, now)) = view.number(uid).zip(view.message(uid).map(|m| m.flags.clone())) else { continue };
        view.note_keywords(&now, &mut out.bytes);
        // With .SILENT the client is told only what it can't know: that someone else changed them too.
        if !silent || now != expected {
            let list = print::flags(&now, view.is_recent(uid));
            let told = if by_uid { format!("UID {uid} FLAGS {list}") } else { format!("FLAGS {list}") };
            out.line(&format!("* {number} FETCH ({told})"));
        }
        view.told(uid);
        out.pass_on().await;
    }
    ok("STORE")
}

/// Flags with or without parentheses.
fn flags(c: &mut Cursor<'_>) -> Result<Flags, Done> {
    if c.peek() == Some(b'(') {
        return Ok(c.flag_list()?);
    }
    let mut flags = c.flag(Flags::none())?;
    while c.eat(b' ') {
        flags = c.flag(flags)?;
    }
    Ok(flags)
}
