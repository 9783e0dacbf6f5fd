//! LOGIN and AUTHENTICATE PLAIN (RFC 3501, sections 6.2.2 and 6.2.3; RFC 4616, 4959), only under TLS.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::state::State;
use crate::store::{LoginFailure, Mailstore};

pub(crate) async fn login<S: Mailstore>(state: &mut State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    allowed(state)?;
    c.space()?;
    let user = c.text()?;
    c.space()?;
    let password = Zeroizing::new(c.text()?);
    c.end()?;
    check(state, user, password, store).await
}

pub(crate) async fn authenticate<S: Mailstore>(state: &mut State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    allowed(state)?;
    c.space()?;
    if c.word()? != "PLAIN" {
        return Err(Done::No("PLAIN is offered".into()));
    }
    if c.at_end() {
        return Ok(Done::Challenge);
    }
    c.space()?;
    let initial = Zeroizing::new(c.astring()?);
    c.end()?;
    plain(state, &initial, store).await
}

/// PLAIN's one message.
pub(crate) async fn plain<S: Mailstore>(state: &mut State, text: &[u8], store: &mut S) -> Outcome {
    if text == b"*" {
        return Err(Done::Bad("login given up".into()));
    }
    let malformed = || Done::Bad("not a message of PLAIN".into());
    let decoded = Zeroizing::new(BASE64.decode(text).map_err(|_| malformed())?);
    let message = std::str::from_utf8(&decoded).map_err(|_| malformed())?;
    let mut parts = message.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(authorise), Some(user), Some(password), None)
            if !user.is_empty() && (authorise.is_empty() || authorise == user) =>
        {
            check(state, user.to_owned(), Zeroizing::new(password.to_owned()), store).await
        }
        _ => Err(malformed()),
    }
}

fn allowed(state: &State) -> Result<(), Done> {
    if state.user.is_some() {
        return Err(Done::Bad("logged in already".into()));
    }
    if !state.tls {
        return Err(Done::No("[PRIVACYREQUIRED] say STARTTLS first".into()));
    }
    Ok(())
}

async fn check<S: Mailstore>(state: &mut State, user: String, password: Zeroizing<String>, store: &mut S) -> Outcome {
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
