//! EXPUNGE (RFC 3501, section 6.4.3) and UID EXPUNGE (RFC 4315).

use mailraft_mailbox::{Command, UidSet};
use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::opened::{Names, uids, writable};
use crate::outcome::{Outcome, ok};
use crate::state::State;
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
    store.ask(Command::Expunge { folder, uids: only }).await?;
    ok("EXPUNGE")
}
