//! PASS (RFC 1939, section 7): the login, and the maildrop is opened.

use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::Refusal;
use zeroize::Zeroizing;

use crate::maildrop::Maildrop;
use crate::refusals::{During, refuse};
use crate::reply::ok;
use crate::state::{Opened, State};

/// The argument is the password with all its spaces.
pub async fn run<M: Maildrop>(
    state: &mut State,
    user: Option<String>,
    argument: &[u8],
    maildrop: &mut M,
    out: &mut Vec<u8>,
) {
    let Some(user) = user else { return state.wrong(out, "PASS comes right after USER") };
    match std::str::from_utf8(argument) {
        Ok(password) => login(state, &user, Zeroizing::new(password.to_owned()), maildrop, out).await,
        Err(_) => state.wrong(out, "a password is UTF-8"),
    }
}

/// Checks credentials, and opens the maildrop of whose they are.
pub async fn login<M: Maildrop>(
    state: &mut State,
    user: &str,
    password: Zeroizing<String>,
    maildrop: &mut M,
    out: &mut Vec<u8>,
) {
    let opened = match maildrop.login(user, password).await {
        Ok(()) => maildrop.ask(Command::Maildrop).await,
        Err(failure) => Err(failure),
    };
    match opened {
        Ok(Answer::Maildrop(maildrop)) => {
            let opened = Opened::new(maildrop);
            let (count, bytes) = opened.count();
            ok(out, &format!("{count} messages ({bytes} octets)"));
            state.opened = Some(opened);
        }
        Ok(_) => refuse(state, &Refusal::Corrupt.into(), During::Login, out),
        Err(failure) => refuse(state, &failure, During::Login, out),
    }
}
