//! CREATE (RFC 3501, section 6.3.3).

use mailraft_mailbox::Command;
use mailraft_mailbox::api::HIERARCHY_SEPARATOR;

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
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
