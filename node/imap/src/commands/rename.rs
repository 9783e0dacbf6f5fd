//! RENAME (RFC 3501, section 6.3.5).

use mailraft_mailbox::Command;

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let from = c.folder()?;
    c.space()?;
    let to = c.folder()?;
    c.end()?;
    store.ask(Command::RenameFolder { from, to }).await?;
    ok("RENAME")
}
