//! DELETE (RFC 3501, section 6.3.4).

use mailraft_mailbox::{Command, UidSet};

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(state: &mut State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
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
        state.does_itself(&UidSet::range(1, u32::MAX));
    }
    ok("DELETE")
}
