//! SELECT and EXAMINE (RFC 3501, sections 6.3.1, 6.3.2).

use mailraft_mailbox::{Answer, Command, SystemFlag};
use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::objectid;
use crate::opened::close;
use crate::outcome::{Done, Outcome};
use crate::state::State;
use crate::store::Mailstore;
use crate::view::View;

/// What may be done with the folder that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// SELECT
    ReadWrite,
    /// EXAMINE
    ReadOnly,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    access: Access,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let read_only = access == Access::ReadOnly;
    c.space()?;
    let folder = c.folder()?;
    c.end()?;
    // Whatever comes of it, the folder that was open is closed.
    if state.view.is_some() {
        close(state, store).await;
    }
    let answer = store.ask(Command::Select { folder, claim_recent: !read_only }).await?;
    let Answer::Selected(selected) = answer else { return Err(Done::odd_answer()) };
    let view = View::new(selected, read_only);
    let unseen = view.messages().iter().position(|m| !m.flags.has(SystemFlag::Seen));
    out.text(&view.flags_lines());
    out.line(&format!("* {} EXISTS", view.messages().len()));
    out.line(&format!("* {} RECENT", view.recent()));
    if let Some(at) = unseen {
        out.line(&format!("* OK [UNSEEN {}] first unseen", at + 1));
    }
    out.line(&format!("* OK [UIDVALIDITY {}] UIDs valid", view.uid_validity));
    out.line(&format!("* OK [UIDNEXT {}] next UID", view.uid_next));
    let mailbox_id = objectid::print_folder(view.folder, view.uid_validity);
    out.line(&format!("* OK [MAILBOXID ({mailbox_id})] the folder's own"));
    state.view = Some(view);
    Ok(Done::Ok(match access {
        Access::ReadOnly => "[READ-ONLY] EXAMINE done".into(),
        Access::ReadWrite => "[READ-WRITE] SELECT done".into(),
    }))
}
