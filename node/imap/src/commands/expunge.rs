//! EXPUNGE (RFC 3501, section 6.4.3) and UID EXPUNGE (RFC 4315), with HIGHESTMODSEQ (RFC 7162, section 3.2.7).

use mailraft_mailbox::{Answer, Command, UidSet};
use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::opened::{Names, uids, writable};
use crate::outcome::{Done, Outcome, ok};
use crate::state::{Enabled, State};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let folder = writable(state)?.folder;
    let mut only = None;
    if names == Names::Uids {
        c.space()?;
        only = Some(c.message_set()?);
    }
    c.end()?;
    let only = match only {
        Some(set) => Some(uids(state, &set, names, store, out).await?),
        None => None,
    };
    if only.as_ref().is_some_and(UidSet::is_empty) {
        return ok("EXPUNGE");
    }
    let answer = store.ask(Command::Expunge { folder, uids: only }).await?;
    if let Answer::Expunged { uids, .. } = &answer {
        state.does_itself(uids);
    }
    match answer {
        Answer::Expunged { modseq: Some(_), .. } if state.enabled >= Enabled::CondStore => {
            // Of all that is told at the end of this command, or was before.
            state.hear(store);
            Ok(Done::Ok(format!("[HIGHESTMODSEQ {}] EXPUNGE done", state.told_modseq())))
        }
        _ => ok("EXPUNGE"),
    }
}
