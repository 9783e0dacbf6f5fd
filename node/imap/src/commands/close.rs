//! CLOSE (RFC 3501, section 6.4.2), with HIGHESTMODSEQ (RFC 7162, section 3.2.8).

use mailraft_mailbox::{Answer, Command};

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::opened::{close, view};
use crate::outcome::{Done, Outcome};
use crate::state::{Enabled, State};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
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
            // What this command removes is not told one by one; what others have changed up to then is.
            view(state)?.forget(&uids);
            state.say_news(true, out).await;
            highest_modseq = format!("[HIGHESTMODSEQ {}] ", modseq.min(state.told_modseq()));
        }
    }
    close(state, store, out).await;
    Ok(Done::Ok(format!("{highest_modseq}CLOSE done")))
}
