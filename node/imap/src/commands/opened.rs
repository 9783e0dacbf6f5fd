//! The open folder, as commands want it.

use mailraft_mailbox::{Command, UidSet};

use crate::cursor::SequenceSet;
use crate::out::Out;
use crate::outcome::Done;
use crate::state::State;
use crate::store::{Mailstore, Output};
use crate::view::View;

pub(super) fn view(state: &mut State) -> Result<&mut View, Done> {
    state.view.as_mut().ok_or_else(|| Done::Bad("SELECT a folder first".into()))
}

/// A view that may be changed.
pub(super) fn writable(state: &mut State) -> Result<&mut View, Done> {
    let view = view(state)?;
    if view.read_only { Err(Done::No("[READ-ONLY] the folder was opened by EXAMINE".into())) } else { Ok(view) }
}

/// The UIDs of a set. One that reaches beyond what the session knows asks for news first, so that `UID FETCH n:*`
/// finds whatever was acknowledged before it.
pub(super) async fn uids<S: Mailstore, O: Output>(
    state: &mut State,
    set: &SequenceSet,
    by_uid: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Result<UidSet, Done> {
    if !by_uid {
        return view(state)?.by_number(set).ok_or_else(|| Done::Bad("there is no message of that number".into()));
    }
    if view(state)?.reaches_beyond(set) {
        store.ask(Command::Sync).await?;
        state.hear(store);
        state.say_news(false, out).await;
    }
    Ok(view(state)?.by_uid(set))
}
