//! NOOP and CHECK (RFC 3501, sections 6.1.2 and 6.4.1): both ask for news.

use mailraft_mailbox::Command;

use crate::cursor::Cursor;
use crate::opened::view;
use crate::outcome::{Outcome, ok};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn noop<S: Mailstore>(state: &mut State, c: &Cursor<'_>, store: &mut S) -> Outcome {
    c.end()?;
    state.polls = true;
    if state.user.is_some() {
        store.ask(Command::Sync).await?;
    }
    ok("NOOP")
}

pub(crate) async fn check<S: Mailstore>(state: &mut State, c: &Cursor<'_>, store: &mut S) -> Outcome {
    c.end()?;
    view(state)?;
    state.polls = true;
    store.ask(Command::Sync).await?;
    ok("CHECK")
}
