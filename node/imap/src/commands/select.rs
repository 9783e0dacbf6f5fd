//! SELECT and EXAMINE (RFC 3501, sections 6.3.1, 6.3.2), with CONDSTORE and QRESYNC (RFC 7162).

use mailraft_mailbox::{Answer, Command, SystemFlag, UidSet};
use mailraft_protocol::{Out, Output};

use crate::cursor::{Bound, Cursor, Read, SequenceSet, wrong};
use crate::objectid;
use crate::opened::{close, missed_since};
use crate::outcome::{Done, Outcome};
use crate::print;
use crate::state::{Enabled, State};
use crate::store::Mailstore;
use crate::view::View;

/// What may be done with the folder that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// SELECT
    ReadWrite,
    /// EXAMINE
    ReadOnly,
}

/// What a client knows of the folder from before.
#[derive(Debug)]
struct Resync {
    uid_validity: u32,
    modseq: u64,
    known: UidSet,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    access: Access,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let read_only = access == Access::ReadOnly;
    c.space()?;
    let folder = c.folder()?;
    let resync = parameters(state, c)?;
    c.end()?;
    // Whatever comes of it, the folder that was open is closed.
    if state.view.is_some() {
        close(state, store, out).await;
        out.line("* OK [CLOSED] the folder that was open is closed");
    }
    let name = print::folder(&folder, state.spelling());
    let answer = store.ask(Command::Select { folder, claim_recent: !read_only }).await?;
    let Answer::Selected(selected) = answer else { return Err(Done::odd_answer()) };
    let view = View::new(selected, read_only);
    let unseen = view.messages().iter().position(|m| !m.flags.has(SystemFlag::Seen));
    out.text(&view.flags_lines());
    out.line(&format!("* {} EXISTS", view.messages().len()));
    if state.rev2 {
        out.line(&format!("* LIST () \"/\" {name}"));
    } else {
        out.line(&format!("* {} RECENT", view.recent()));
    }
    // It is a number, which IMAP4rev2 has not and UIDONLY forbids.
    if let Some(at) = unseen.filter(|_| !state.rev2 && !state.uid_only) {
        out.line(&format!("* OK [UNSEEN {}] first unseen", at + 1));
    }
    out.line(&format!("* OK [UIDVALIDITY {}] UIDs valid", view.uid_validity));
    out.line(&format!("* OK [UIDNEXT {}] next UID", view.uid_next));
    out.line(&format!("* OK [HIGHESTMODSEQ {}] of all changes", view.highest_modseq));
    let mailbox_id = objectid::print_folder(view.folder, view.uid_validity);
    out.line(&format!("* OK [MAILBOXID ({mailbox_id})] the folder's own"));
    let resync = resync.filter(|resync| resync.uid_validity == view.uid_validity);
    state.view = Some(view);
    if let Some(resync) = resync {
        tell_missed(state, &resync, store, out).await?;
    }
    Ok(Done::Ok(match access {
        Access::ReadOnly => "[READ-ONLY] EXAMINE done".into(),
        Access::ReadWrite => "[READ-WRITE] SELECT done".into(),
    }))
}

/// Tells what a client missed while it was away (RFC 7162, section 3.2.5.1).
async fn tell_missed<S: Mailstore, O: Output>(
    state: &mut State,
    resync: &Resync,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Done> {
    let missed = missed_since(state, resync.modseq, Some(resync.known.clone()), store).await?;
    if !missed.vanished.is_empty() {
        out.line(&format!("* VANISHED (EARLIER) {}", missed.vanished));
    }
    let telling = state.telling();
    let Some(view) = state.view.as_ref() else { return Ok(()) };
    for (number, message) in (1..).zip(view.messages()) {
        store.breathe().await?;
        if !missed.changed.contains(message.uid) || !resync.known.contains(message.uid) {
            continue;
        }
        let flags = print::flags(&message.flags, telling.recent && view.is_recent(message.uid));
        let uid = if telling.uid_only { String::new() } else { format!("UID {} ", message.uid) };
        let begin = telling.begin(number, message.uid);
        out.line(&format!("{begin}{uid}FLAGS {flags}{})", print::modseq(message.modseq)));
        out.pass_on().await;
    }
    Ok(())
}

/// `(CONDSTORE)` or `(QRESYNC (uidvalidity modseq known-uids (numbers uids)))`
fn parameters(state: &mut State, c: &mut Cursor<'_>) -> Read<Option<Resync>> {
    let mut resync = None;
    if !c.eat(b' ') {
        return Ok(resync);
    }
    c.open()?;
    while !c.close() {
        match c.word()?.as_str() {
            "CONDSTORE" => state.enable(Enabled::CondStore),
            "QRESYNC" if state.enabled < Enabled::QResync => return wrong("ENABLE QRESYNC first"),
            "QRESYNC" => {
                c.space()?;
                resync = Some(known(c, state.uid_only)?);
            }
            other => return wrong(format!("SELECT does not know {other}")),
        }
        c.eat(b' ');
    }
    Ok(resync)
}

fn known(c: &mut Cursor<'_>, uid_only: bool) -> Read<Resync> {
    c.open()?;
    let uid_validity = c.number32()?;
    c.space()?;
    let modseq = c.modseq()?;
    let mut known = UidSet::range(1, u32::MAX);
    if c.eat(b' ') && c.at_sequence_set() {
        known = uids(c)?;
        c.eat(b' ');
    }
    if uid_only && c.peek() == Some(b'(') {
        return wrong("[UIDREQUIRED] messages are named by UIDs alone");
    }
    if c.peek() == Some(b'(') {
        // Which number was which UID: that would shorten the answer only where the history of expunges is forgotten.
        c.open()?;
        c.sequence_set()?;
        c.space()?;
        c.sequence_set()?;
        if !c.close() {
            return wrong("a parenthesis is missing");
        }
    }
    if c.close() { Ok(Resync { uid_validity, modseq, known }) } else { wrong("a parenthesis is missing") }
}

/// UIDs that are known: `*` is none.
fn uids(c: &mut Cursor<'_>) -> Read<UidSet> {
    let SequenceSet(ranges) = c.sequence_set()?;
    let mut known = Vec::new();
    for range in ranges {
        let (Bound::Number(from), Bound::Number(to)) = range else { return wrong("UIDs that are known have numbers") };
        known.push((from.min(to), from.max(to)));
    }
    Ok(UidSet::from_ranges(known))
}
