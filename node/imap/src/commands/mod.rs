//! Commands, one in each file.

pub mod append;
mod copy;
mod expunge;
mod fetch;
mod folders;
mod list;
pub mod login;
mod opened;
mod search;
mod search_key;
mod search_text;
mod select;
mod status;
mod store;

#[cfg(test)]
mod dialogues;
#[cfg(test)]
mod mishaps;
#[cfg(test)]
mod model;

use mailraft_mailbox::Command;

use crate::commands::opened::view;
use crate::cursor::Cursor;
use crate::out::Out;
use crate::outcome::{Done, Outcome, ok};
use crate::state::State;
use crate::store::{Mailstore, Output};

/// Runs a command. Also says whether expunges may be told at its end.
pub(crate) async fn command<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> (bool, Outcome) {
    let name = match c.word() {
        Ok(name) => name,
        Err(wrong) => return (false, Err(wrong.into())),
    };
    // Sequence numbers in these would change under the client's hands (RFC 3501, section 7.4.1).
    let expunges = !matches!(name.as_str(), "FETCH" | "STORE" | "SEARCH");
    (expunges, run(state, &name, c, store, out).await)
}

async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    name: &str,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    match name {
        "CAPABILITY" => {
            c.end()?;
            out.line(&format!("* CAPABILITY {}", state.capabilities()));
            return ok("CAPABILITY");
        }
        "LOGOUT" => {
            c.end()?;
            return Ok(Done::Logout);
        }
        "ID" => {
            id_parameters(c)?;
            out.line("* ID (\"name\" \"Mailraft\")");
            return ok("ID");
        }
        "NOOP" if state.user.is_none() => {
            c.end()?;
            return ok("NOOP");
        }
        "STARTTLS" => {
            c.end()?;
            if state.tls || !state.config.tls_available || state.user.is_some() {
                return Err(Done::Bad("STARTTLS is not offered now".into()));
            }
            return Ok(Done::StartTls);
        }
        "LOGIN" => return login::login(state, c, store).await,
        "AUTHENTICATE" => return login::authenticate(state, c, store).await,
        _ => {}
    }
    if state.user.is_none() {
        return Err(Done::Bad("log in first, or there is no such command".into()));
    }
    match name {
        "NOOP" | "CHECK" => {
            c.end()?;
            if name == "CHECK" {
                view(state)?;
            }
            store.ask(Command::Sync).await?;
            ok(name)
        }
        "ENABLE" => {
            while c.peek() == Some(b' ') {
                c.space()?;
                c.atom()?;
            }
            c.end()?;
            out.line("* ENABLED");
            ok("ENABLE")
        }
        "NAMESPACE" => {
            c.end()?;
            out.line("* NAMESPACE ((\"\" \"/\")) NIL NIL");
            ok("NAMESPACE")
        }
        "IDLE" => {
            c.end()?;
            store.ask(Command::Sync).await?;
            Ok(Done::Idle)
        }
        "SELECT" => select::select(state, c, false, store, out).await,
        "EXAMINE" => select::select(state, c, true, store, out).await,
        "UNSELECT" => {
            c.end()?;
            view(state)?;
            select::close(state, store).await?;
            ok("UNSELECT")
        }
        "CLOSE" => {
            c.end()?;
            let view = view(state)?;
            if !view.read_only && !view.gone {
                let folder = view.folder;
                store.ask(Command::Expunge { folder, uids: None }).await?;
            }
            select::close(state, store).await?;
            ok("CLOSE")
        }
        "LIST" => list::list(c, store, out).await,
        "LSUB" => list::lsub(c, store, out).await,
        "STATUS" => status::run(c, store, out).await,
        "CREATE" => folders::create(c, store).await,
        "DELETE" => folders::delete(state, c, store).await,
        "RENAME" => folders::rename(c, store).await,
        "SUBSCRIBE" => folders::subscribe(c, true, store).await,
        "UNSUBSCRIBE" => folders::subscribe(c, false, store).await,
        "APPEND" => Err(Done::Bad("APPEND wants a folder and a message as a literal".into())),
        "EXPUNGE" => expunge::run(state, c, false, store, out).await,
        "FETCH" => fetch::run(state, c, false, store, out).await,
        "STORE" => store::run(state, c, false, store, out).await,
        "COPY" => copy::run(state, c, false, false, store, out).await,
        "MOVE" => copy::run(state, c, false, true, store, out).await,
        "SEARCH" => search::run(state, c, false, store, out).await,
        "UID" => {
            c.space()?;
            match c.word()?.as_str() {
                "FETCH" => fetch::run(state, c, true, store, out).await,
                "STORE" => store::run(state, c, true, store, out).await,
                "COPY" => copy::run(state, c, true, false, store, out).await,
                "MOVE" => copy::run(state, c, true, true, store, out).await,
                "SEARCH" => search::run(state, c, true, store, out).await,
                "EXPUNGE" => expunge::run(state, c, true, store, out).await,
                other => Err(Done::Bad(format!("there is no UID {other}"))),
            }
        }
        other => Err(Done::Bad(format!("there is no command {other}"))),
    }
}

/// RFC 2971: read, and not kept.
fn id_parameters(c: &mut Cursor<'_>) -> Result<(), Done> {
    c.space()?;
    if c.peek() != Some(b'(') {
        c.nstring()?;
        return Ok(c.end()?);
    }
    c.open()?;
    while !c.close() {
        c.nstring()?;
        c.eat(b' ');
    }
    Ok(c.end()?)
}
