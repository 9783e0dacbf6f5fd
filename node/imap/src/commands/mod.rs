//! Commands, one in each file.

pub mod append;
pub mod authenticate;
mod capability;
mod close;
mod compress;
mod copy;
mod create;
mod delete;
mod enable;
mod expunge;
mod fetch;
mod id;
pub mod idle;
mod list;
mod login;
mod logout;
mod lsub;
mod namespace;
mod noop;
pub mod notify;
mod quota;
mod rename;
mod search;
mod select;
mod sort;
mod starttls;
mod status;
mod store;
mod subscribe;
mod thread;
mod unselect;

#[cfg(test)]
mod dialogue;
#[cfg(test)]
mod mishaps;
#[cfg(test)]
mod model;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod properties;

use mailraft_protocol::{Out, Output};

use crate::commands::copy::Copying;
use crate::commands::select::Access;
use crate::commands::subscribe::Subscription;
use crate::cursor::Cursor;
use crate::opened::Names;
use crate::outcome::{Done, Outcome, uid_required};
use crate::state::State;
use crate::store::Mailstore;

/// Runs a command. Also says whether expunges may be told at its end.
pub(crate) async fn command<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> (bool, Outcome) {
    store.begin_command();
    let name = match c.word() {
        Ok(name) => name,
        Err(wrong) => return (false, Err(wrong.into())),
    };
    // Sequence numbers in these would change under the client's hands (RFC 3501, section 7.4.1).
    let expunges = !matches!(name.as_str(), "FETCH" | "STORE" | "SEARCH" | "SORT" | "THREAD");
    (expunges, run(state, &name, c, store, out).await)
}

async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    name: &str,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    match name {
        "CAPABILITY" => return capability::run(state, c, out),
        "LOGOUT" => return logout::run(state, c, out).await,
        "ID" => return id::run(c, out),
        "NOOP" => return noop::noop(state, c, store).await,
        "STARTTLS" => return starttls::run(state, c),
        "LOGIN" => return login::run(state, c, store).await,
        "AUTHENTICATE" => return authenticate::run(state, c, store).await,
        _ => {}
    }
    if state.user.is_none() {
        return Err(Done::Bad("log in first, or there is no such command".into()));
    }
    match name {
        "CHECK" => noop::check(state, c, store).await,
        "ENABLE" => enable::run(state, c, out),
        "NAMESPACE" => namespace::run(c, out),
        "NOTIFY" => notify::run(state, c, store, out).await,
        "IDLE" => idle::run(c, store).await,
        "SELECT" => select::run(state, c, Access::ReadWrite, store, out).await,
        "EXAMINE" => select::run(state, c, Access::ReadOnly, store, out).await,
        "UNSELECT" => unselect::run(state, c, store, out).await,
        "CLOSE" => close::run(state, c, store, out).await,
        "COMPRESS" => compress::run(state, c, store),
        "LIST" => list::run(state, c, store, out).await,
        "LSUB" => lsub::run(c, store, out).await,
        "STATUS" => status::run(state, c, store, out).await,
        "GETQUOTA" => quota::get(c, store, out).await,
        "GETQUOTAROOT" => quota::get_root(c, store, out).await,
        "CREATE" => create::run(c, store).await,
        "DELETE" => delete::run(state, c, store).await,
        "RENAME" => rename::run(c, store).await,
        "SUBSCRIBE" => subscribe::run(c, Subscription::Begins, store).await,
        "UNSUBSCRIBE" => subscribe::run(c, Subscription::Ends, store).await,
        "APPEND" => Err(Done::Bad("APPEND wants a folder and a message as a literal".into())),
        "REPLACE" => Err(Done::Bad("REPLACE wants a message, a folder and a message as a literal".into())),
        "UID" => {
            c.space()?;
            let name = c.word()?;
            messages(state, &name, c, Names::Uids, store, out)
                .await
                .unwrap_or_else(|| Err(Done::Bad(format!("there is no UID {name}"))))
        }
        name => messages(state, name, c, Names::Numbers, store, out)
            .await
            .unwrap_or_else(|| Err(Done::Bad(format!("there is no command {name}")))),
    }
}

/// Runs a command about messages of the open folder, if it is one.
async fn messages<S: Mailstore, O: Output>(
    state: &mut State,
    name: &str,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Option<Outcome> {
    let named = ["FETCH", "STORE", "SEARCH", "SORT", "THREAD", "COPY", "MOVE"].contains(&name);
    if named && state.uid_only && names == Names::Numbers {
        return Some(Err(uid_required()));
    }
    Some(match name {
        "EXPUNGE" => expunge::run(state, c, names, store, out).await,
        "FETCH" => fetch::run(state, c, names, store, out).await,
        "STORE" => store::run(state, c, names, store, out).await,
        "COPY" => copy::run(state, c, names, Copying::Copy, store, out).await,
        "MOVE" => copy::run(state, c, names, Copying::Move, store, out).await,
        "SEARCH" => search::run(state, c, names, store, out).await,
        "SORT" => sort::run(state, c, names, store, out).await,
        "THREAD" => thread::run(state, c, names, store, out).await,
        _ => return None,
    })
}
