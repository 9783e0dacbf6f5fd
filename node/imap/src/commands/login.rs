//! LOGIN (RFC 3501, section 6.2.3), only under TLS.

use mailraft_protocol::{Failure, Refusal};
use zeroize::Zeroizing;

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::refusals;
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(state: &mut State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    allowed(state)?;
    c.space()?;
    let user = c.text()?;
    c.space()?;
    let password = Zeroizing::new(c.text()?);
    c.end()?;
    check(state, user, password, store).await
}

/// Whether the client may log in now.
pub(super) fn allowed(state: &State) -> Result<(), Done> {
    if state.user.is_some() {
        return Err(Done::Bad("logged in already".into()));
    }
    if !state.tls {
        return Err(Done::No("[PRIVACYREQUIRED] say STARTTLS first".into()));
    }
    Ok(())
}

/// Logs in, if the store takes these credentials.
pub(super) async fn check<S: Mailstore>(
    state: &mut State,
    user: String,
    password: Zeroizing<String>,
    store: &mut S,
) -> Outcome {
    match store.login(&user, password).await {
        Ok(()) => {
            state.user = Some(user);
            Ok(Done::Ok(format!("[CAPABILITY {}] logged in", state.capabilities())))
        }
        Err(failure) => {
            let wrong = failure == Failure::NotDone(Refusal::WrongCredentials);
            Err(match refusals::login(&failure) {
                Done::No(text) if wrong && state.wrong_login() => Done::LastNo(text),
                done => done,
            })
        }
    }
}
