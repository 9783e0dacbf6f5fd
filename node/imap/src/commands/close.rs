//! CLOSE (RFC 3501, section 6.4.2), with HIGHESTMODSEQ (RFC 7162, section 3.2.8).

use mailraft_mailbox::{Answer, Command};

use crate::cursor::Cursor;
use crate::opened::{close, view};
use crate::outcome::{Done, Outcome};
use crate::state::{Enabled, State};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(state: &mut State, c: &Cursor<'_>, store: &mut S) -> Outcome {
    c.end()?;
    let mut highest_modseq = String::new();
    let opened = view(state)?;
    if !opened.read_only && !opened.gone {
        let folder = opened.folder;
        let answer = store.ask(Command::Expunge { folder, uids: None }).await?;
        if let Answer::Expunged { uids, modseq: Some(modseq) } = answer
            && state.enabled >= Enabled::CondStore
        {
            state.hear(store);
            // Where others have changed something that is told no more, the client asks for what it missed since before.
            if view(state)?.waits_only_for(&uids) {
                highest_modseq = format!("[HIGHESTMODSEQ {modseq}] ");
            }
        }
    }
    close(state, store).await;
    Ok(Done::Ok(format!("{highest_modseq}CLOSE done")))
}
