//! LOGIN (RFC 3501, section 6.2.3), only under TLS.

use zeroize::Zeroizing;

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::state::State;
use crate::store::{LoginFailure, Mailstore};

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
        // NO would say "wrong password" to a mail program, and it would ask its user.
        Err(LoginFailure::Unavailable) => {
            Err(Done::Bye("[UNAVAILABLE] no majority of the servers can be reached; try again".into()))
        }
        // A client that hears of a wrong password asks its user, which slows it down as it should.
        Err(LoginFailure::Throttled) => {
            Err(Done::No("[AUTHENTICATIONFAILED] too many wrong logins; try again in a minute".into()))
        }
        Err(LoginFailure::Wrong) => {
            let text = "[AUTHENTICATIONFAILED] wrong user name or password".to_owned();
            Err(if state.wrong_login() { Done::LastNo(text) } else { Done::No(text) })
        }
    }
}
