//! CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 3501, sections 6.3.3 to 6.3.7).

use mailraft_mailbox::Command;
use mailraft_mailbox::api::HIERARCHY_SEPARATOR;

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn create<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let mut name = c.folder()?;
    c.end()?;
    // The separator at its end says that folders will be made below it; here every folder may have some.
    if name.ends_with(HIERARCHY_SEPARATOR) {
        name.pop();
    }
    store.ask(Command::CreateFolder { name }).await?;
    ok("CREATE")
}

pub(crate) async fn delete<S: Mailstore>(state: &mut State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let name = c.folder()?;
    c.end()?;
    store.ask(Command::DeleteFolder { name }).await?;
    state.hear(store);
    if state.is_folder_deleted() {
        // The client's own doing: no reason to hang up, as when somebody else does it. Its messages are gone.
        store.close_folder();
        if let Some(view) = state.view.as_mut() {
            view.lose();
        }
    }
    ok("DELETE")
}

pub(crate) async fn rename<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let from = c.folder()?;
    c.space()?;
    let to = c.folder()?;
    c.end()?;
    store.ask(Command::RenameFolder { from, to }).await?;
    ok("RENAME")
}

pub(crate) async fn subscribe<S: Mailstore>(c: &mut Cursor<'_>, on: bool, store: &mut S) -> Outcome {
    c.space()?;
    let name = c.folder()?;
    c.end()?;
    store.ask(Command::Subscribe { name, on }).await?;
    ok(if on { "SUBSCRIBE" } else { "UNSUBSCRIBE" })
}
