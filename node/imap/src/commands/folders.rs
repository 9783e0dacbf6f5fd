//! CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 3501, sections 6.3.3 to 6.3.7).

use mailraft_mailbox::Command;

use super::ok;
use crate::cursor::Cursor;
use crate::session::Outcome;
use crate::store::Mailstore;

pub(crate) async fn create<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let name = c.folder()?;
    c.end()?;
    store.ask(Command::CreateFolder { name }).await?;
    ok("CREATE")
}

pub(crate) async fn delete<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let name = c.folder()?;
    c.end()?;
    store.ask(Command::DeleteFolder { name }).await?;
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
