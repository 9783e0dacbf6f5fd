//! LOGIN and AUTHENTICATE PLAIN (RFC 3501, sections 6.2.2 and 6.2.3; RFC 4616, 4959), only under TLS.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::cursor::Cursor;
use crate::session::{Done, Outcome, Session};
use crate::store::{LoginFailure, Mailstore};

pub(crate) async fn login<S: Mailstore>(session: &mut Session, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    allowed(session)?;
    c.space()?;
    let user = c.text()?;
    c.space()?;
    let password = Zeroizing::new(c.text()?);
    c.end()?;
    check(session, user, password, store).await
}

pub(crate) async fn authenticate<S: Mailstore>(session: &mut Session, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    allowed(session)?;
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
    plain(session, &initial, store).await
}

/// PLAIN's one message.
pub(crate) async fn plain<S: Mailstore>(session: &mut Session, text: &[u8], store: &mut S) -> Outcome {
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
            check(session, user.to_owned(), Zeroizing::new(password.to_owned()), store).await
        }
        _ => Err(malformed()),
    }
}

fn allowed(session: &Session) -> Result<(), Done> {
    if session.user.is_some() {
        return Err(Done::Bad("logged in already".into()));
    }
    if !session.tls {
        return Err(Done::No("[PRIVACYREQUIRED] say STARTTLS first".into()));
    }
    Ok(())
}

async fn check<S: Mailstore>(
    session: &mut Session,
    user: String,
    password: Zeroizing<String>,
    store: &mut S,
) -> Outcome {
    match store.login(&user, password).await {
        Ok(()) => {
            session.logged_in(user);
            Ok(Done::Ok(format!("[CAPABILITY {}] logged in", session.capabilities())))
        }
        // NO would say "wrong password" to a mail program, and it would ask its user.
        Err(LoginFailure::Unavailable) => {
            Err(Done::Bye("[UNAVAILABLE] no majority of the servers can be reached; try again".into()))
        }
        Err(LoginFailure::Throttled) => Err(Done::No("[LIMIT] too many wrong logins; try again in a minute".into())),
        Err(LoginFailure::Wrong) if session.wrong_login() => Err(Done::Bye("too many wrong logins".into())),
        Err(LoginFailure::Wrong) => Err(Done::No("[AUTHENTICATIONFAILED] wrong user name or password".into())),
    }
}
