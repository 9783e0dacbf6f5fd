//! AUTHENTICATE PLAIN (RFC 3501, section 6.2.2; RFC 4616, 4959), only under TLS.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::commands::login::{allowed, check};
use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(state: &mut State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
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
    // The decoder takes several texts behind each other, each with its padding, for one.
    if Zeroizing::new(BASE64.encode(&decoded)).as_bytes() != text {
        return Err(malformed());
    }
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
