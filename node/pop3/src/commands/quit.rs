//! QUIT (RFC 1939, sections 4 and 6): what is marked is removed, in one change. The session ends whatever becomes of it.

use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::Failure;

use crate::maildrop::Maildrop;
use crate::refusals::{During, refuse};
use crate::reply::ok;
use crate::state::State;

pub async fn run<M: Maildrop>(state: &mut State, argument: &[u8], maildrop: &mut M, out: &mut Vec<u8>) {
    if !argument.trim_ascii().is_empty() {
        return state.wrong(out, "QUIT takes no argument");
    }
    state.closing = true;
    let Some(opened) = state.opened.take() else { return ok(out, "goodbye") };
    let uids = opened.deleted();
    if uids.is_empty() {
        maildrop.leave().await;
        return ok(out, "goodbye");
    }
    let removed = maildrop.ask(Command::Remove { folder: opened.folder, uids }).await;
    maildrop.leave().await;
    match removed {
        // What somebody else has removed before is as gone as what was removed now.
        Ok(Answer::Expunged { .. }) => ok(out, "goodbye; what was marked is removed"),
        Ok(_) => refuse(state, &Failure::Unknown, During::Update, out),
        Err(failure) => refuse(state, &failure, During::Update, out),
    }
}
