//! SELECT, EXAMINE and the end of both (RFC 3501, sections 6.3.1, 6.3.2).

use mailraft_mailbox::{Answer, Command, SystemFlag};

use crate::cursor::Cursor;
use crate::out::Out;
use crate::outcome::{Done, Outcome};
use crate::state::State;
use crate::store::{Mailstore, Output};
use crate::view::View;

pub(crate) async fn select<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    read_only: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    c.space()?;
    let folder = c.folder()?;
    c.end()?;
    // Whatever comes of it, the folder that was open is closed.
    if state.view.is_some() {
        close(state, store).await?;
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
    state.view = Some(view);
    Ok(Done::Ok(match read_only {
        true => "[READ-ONLY] EXAMINE done".into(),
        false => "[READ-WRITE] SELECT done".into(),
    }))
}

/// Closes the open folder.
pub(crate) async fn close<S: Mailstore>(state: &mut State, store: &mut S) -> Result<(), Done> {
    state.view = None;
    store.close_folder();
    store.ask(Command::Unselect).await?;
    store.take_events();
    Ok(())
}
