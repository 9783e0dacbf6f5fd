//! AUTH (RFC 4954): PLAIN (RFC 4616) and LOGIN, only under TLS.

use mailraft_protocol::sasl::{self, Plain, Unusable};
use zeroize::Zeroizing;

use crate::agent::DeliveryAgent;
use crate::refusals::{During, refuse};
use crate::reply::line;
use crate::state::{Reading, Service, State};

const MALFORMED: &str = "501 5.5.2 not the base64 of what the mechanism wants";

pub async fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    if state.config.service == Service::Relay {
        return state.wrong(out, "503 5.5.1 no logins on this port; use submission, 587 or 465");
    }
    if state.tls.is_none() {
        return state.wrong(out, "538 5.7.11 say STARTTLS first");
    }
    if state.helo.is_none() || state.identity.is_some() || state.mail.is_some() {
        return state.wrong(out, "503 5.5.1 AUTH comes after EHLO, once, outside of a transaction");
    }
    let mut words = argument.split(|b| *b == b' ').filter(|w| !w.is_empty());
    let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
    // An initial response that is empty is written as `=` (section 4).
    let initial = words.next().map(|initial| if initial == b"=" { b"".as_slice() } else { initial });
    if words.next().is_some() {
        return state.wrong(out, "501 5.5.4 AUTH takes a mechanism and one initial response");
    }
    match (mechanism.as_slice(), initial) {
        (b"PLAIN", Some(initial)) => plain(state, initial, agent, out).await,
        (b"PLAIN", None) => {
            state.reading = Reading::AuthPlain;
            line(out, "334 ");
        }
        (b"LOGIN", Some(initial)) => login_user(state, initial, out),
        (b"LOGIN", None) => {
            state.reading = Reading::AuthLoginUser;
            line(out, "334 VXNlcm5hbWU6");
        }
        _ => state.wrong(out, "504 5.5.4 PLAIN and LOGIN are offered"),
    }
}

/// PLAIN's one message.
pub async fn plain<A: DeliveryAgent>(state: &mut State, text: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    let Some(message) = decoded(state, text, out) else { return };
    match sasl::plain(&message) {
        Plain::Login { user, password } => check(state, &user, password, agent, out).await,
        Plain::ForAnother => state.wrong(out, "535 5.7.8 nobody acts for another here"),
        Plain::Malformed => state.wrong(out, MALFORMED),
    }
}

/// LOGIN's user name.
pub fn login_user(state: &mut State, text: &[u8], out: &mut Vec<u8>) {
    let Some(user) = decoded(state, text, out) else { return };
    if user.is_empty() {
        return state.wrong(out, MALFORMED);
    }
    state.reading = Reading::AuthLoginPassword(user.as_str().to_owned());
    line(out, "334 UGFzc3dvcmQ6");
}

/// LOGIN's password.
pub async fn login_password<A: DeliveryAgent>(
    state: &mut State,
    user: String,
    text: &[u8],
    agent: &mut A,
    out: &mut Vec<u8>,
) {
    if let Some(password) = decoded(state, text, out) {
        check(state, &user, password, agent, out).await;
    }
}

async fn check<A: DeliveryAgent>(
    state: &mut State,
    user: &str,
    password: Zeroizing<String>,
    agent: &mut A,
    out: &mut Vec<u8>,
) {
    match agent.authenticate(user, password).await {
        Ok(identity) => {
            state.identity = Some(identity);
            line(out, "235 2.7.0 logged in");
        }
        Err(failure) => refuse(state, &failure, During::Login, out),
    }
}

/// The text of a client's message; a `*` gives up.
fn decoded(state: &mut State, text: &[u8], out: &mut Vec<u8>) -> Option<Zeroizing<String>> {
    match sasl::decode(text) {
        Ok(message) => return Some(message),
        Err(Unusable::GivenUp) => line(out, "501 5.7.0 login given up"),
        Err(Unusable::Malformed) => state.wrong(out, MALFORMED),
    }
    None
}
