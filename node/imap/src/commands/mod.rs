//! Commands, one in each file.

pub mod append;
mod copy;
mod expunge;
mod fetch;
mod folders;
mod list;
pub mod login;
mod search;
mod search_key;
mod select;
mod status;
mod store;

#[cfg(test)]
mod dialogues;

use mailraft_mailbox::Command;

use crate::cursor::Cursor;
use crate::session::{Done, Out, Outcome, Session};
use crate::store::{Mailstore, Output};
use crate::view::View;

/// Runs a command. Also says whether expunges may be told at its end.
pub(crate) async fn command<S: Mailstore, O: Output>(
    session: &mut Session,
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
    (expunges, run(session, &name, c, store, out).await)
}

async fn run<S: Mailstore, O: Output>(
    session: &mut Session,
    name: &str,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    match name {
        "CAPABILITY" => {
            c.end()?;
            out.line(&format!("* CAPABILITY {}", session.capabilities()));
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
        "NOOP" if session.user.is_none() => {
            c.end()?;
            return ok("NOOP");
        }
        "STARTTLS" => {
            c.end()?;
            if session.tls || !session.config.tls_available || session.user.is_some() {
                return Err(Done::Bad("STARTTLS is not offered now".into()));
            }
            return Ok(Done::StartTls);
        }
        "LOGIN" => return login::login(session, c, store).await,
        "AUTHENTICATE" => return login::authenticate(session, c, store).await,
        _ => {}
    }
    if session.user.is_none() {
        return Err(Done::Bad("log in first, or there is no such command".into()));
    }
    match name {
        "NOOP" | "CHECK" => {
            c.end()?;
            if name == "CHECK" {
                view(session)?;
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
        "SELECT" => select::select(session, c, false, store, out).await,
        "EXAMINE" => select::select(session, c, true, store, out).await,
        "UNSELECT" => {
            c.end()?;
            view(session)?;
            select::close(session, store).await?;
            ok("UNSELECT")
        }
        "CLOSE" => {
            c.end()?;
            let view = view(session)?;
            if !view.read_only {
                let folder = view.folder;
                store.ask(Command::Expunge { folder, uids: None }).await?;
            }
            select::close(session, store).await?;
            ok("CLOSE")
        }
        "LIST" => list::list(c, store, out).await,
        "LSUB" => list::lsub(c, store, out).await,
        "STATUS" => status::run(c, store, out).await,
        "CREATE" => folders::create(c, store).await,
        "DELETE" => folders::delete(c, store).await,
        "RENAME" => folders::rename(c, store).await,
        "SUBSCRIBE" => folders::subscribe(c, true, store).await,
        "UNSUBSCRIBE" => folders::subscribe(c, false, store).await,
        "APPEND" => Err(Done::Bad("APPEND wants a folder and a message as a literal".into())),
        "EXPUNGE" => expunge::run(session, c, false, store).await,
        "FETCH" => fetch::run(session, c, false, store, out).await,
        "STORE" => store::run(session, c, false, store, out).await,
        "COPY" => copy::run(session, c, false, false, store, out).await,
        "MOVE" => copy::run(session, c, false, true, store, out).await,
        "SEARCH" => search::run(session, c, false, store, out).await,
        "UID" => {
            c.space()?;
            match c.word()?.as_str() {
                "FETCH" => fetch::run(session, c, true, store, out).await,
                "STORE" => store::run(session, c, true, store, out).await,
                "COPY" => copy::run(session, c, true, false, store, out).await,
                "MOVE" => copy::run(session, c, true, true, store, out).await,
                "SEARCH" => search::run(session, c, true, store, out).await,
                "EXPUNGE" => expunge::run(session, c, true, store).await,
                other => Err(Done::Bad(format!("there is no UID {other}"))),
            }
        }
        other => Err(Done::Bad(format!("there is no command {other}"))),
    }
}

fn ok(name: &str) -> Outcome {
    Ok(Done::Ok(format!("{name} done")))
}

fn view(session: &mut Session) -> Result<&mut View, Done> {
    session.view.as_mut().ok_or_else(|| Done::Bad("SELECT a folder first".into()))
}

/// A view that may be changed.
fn writable(session: &mut Session) -> Result<&mut View, Done> {
    let view = view(session)?;
    if view.read_only { Err(Done::No("[READ-ONLY] the folder was opened by EXAMINE".into())) } else { Ok(view) }
}

/// The UIDs of the set that follows.
fn uids(view: &View, c: &mut Cursor<'_>, by_uid: bool) -> Result<mailraft_mailbox::UidSet, Done> {
    let set = c.sequence_set()?;
    if by_uid {
        return Ok(view.by_uid(&set));
    }
    view.by_number(&set).ok_or_else(|| Done::Bad("there is no message of that number".into()))
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
