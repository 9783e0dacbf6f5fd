//! EXPUNGE (RFC 3501, section 6.4.3) and UID EXPUNGE (RFC 4315).

use mailraft_mailbox::Command;

use super::{ok, uids, writable};
use crate::cursor::Cursor;
use crate::session::{Outcome, Session};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(
    session: &mut Session,
    c: &mut Cursor<'_>,
    by_uid: bool,
    store: &mut S,
) -> Outcome {
    let view = writable(session)?;
    let folder = view.folder;
    let only = match by_uid {
        true => {
            c.space()?;
            Some(uids(view, c, true)?)
        }
        false => None,
    };
    c.end()?;
    store.ask(Command::Expunge { folder, uids: only }).await?;
    ok("EXPUNGE")
}
