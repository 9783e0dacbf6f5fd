//! CLOSE (RFC 3501, section 6.4.2).

use mailraft_mailbox::Command;

use crate::cursor::Cursor;
use crate::opened::{close, view};
use crate::outcome::{Outcome, ok};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(state: &mut State, c: &Cursor<'_>, store: &mut S) -> Outcome {
    c.end()?;
    let view = view(state)?;
    if !view.read_only && !view.gone {
        let folder = view.folder;
        store.ask(Command::Expunge { folder, uids: None }).await?;
    }
    close(state, store).await;
    ok("CLOSE")
}
