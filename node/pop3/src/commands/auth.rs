//! AUTH (RFC 5034): PLAIN (RFC 4616) and LOGIN, only under TLS.

use mailraft_protocol::sasl::{self, Plain, Unusable};
use zeroize::Zeroizing;

use super::pass::login;
use crate::maildrop::Maildrop;
use crate::reply::{err, line};
use crate::state::{Reading, State, words};

const MALFORMED: &str = "not the base64 of what the mechanism wants";

pub async fn run<M: Maildrop>(state: &mut State, argument: &[u8], maildrop: &mut M, out: &mut Vec<u8>) {
    if state.opened.is_some() {
        return state.wrong(out, "somebody is logged in already");
    }
    if !state.tls {
        return state.wrong(out, "say STLS first");
    }
    let words = words(argument);
    let mechanism = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
    // An initial response that is empty is written as `=` (section 4).
    let initial = words.get(1).map(|initial| if *initial == b"=" { b"".as_slice() } else { initial });
    match (mechanism.as_slice(), initial, words.len()) {
        (_, _, 3..) => state.wrong(out, "AUTH takes a mechanism and one initial response"),
        (b"PLAIN", Some(initial), _) => plain(state, initial, maildrop, out).await,
        (b"PLAIN", None, _) => {
            state.reading = Reading::AuthPlain;
            line(out, "+ ");
        }
        (b"LOGIN", Some(initial), _) => login_user(state, initial, out),
        (b"LOGIN", None, _) => {
            state.reading = Reading::AuthLoginUser;
            line(out, "+ VXNlcm5hbWU6");
        }
        _ => state.wrong(out, "PLAIN and LOGIN are offered"),
    }
}

/// PLAIN's one message.
pub async fn plain<M: Maildrop>(state: &mut State, text: &[u8], maildrop: &mut M, out: &mut Vec<u8>) {
    let Some(message) = decoded(state, text, out) else { return };
    match sasl::plain(&message) {
        Plain::Login { user, password } => login(state, &user, password, maildrop, out).await,
        Plain::ForAnother => state.wrong(out, "[AUTH] nobody acts for another here"),
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
    line(out, "+ UGFzc3dvcmQ6");
}

/// LOGIN's password.
pub async fn login_password<M: Maildrop>(
    state: &mut State,
    user: String,
    text: &[u8],
    maildrop: &mut M,
    out: &mut Vec<u8>,
) {
    if let Some(password) = decoded(state, text, out) {
        login(state, &user, password, maildrop, out).await;
    }
}

/// The text of a client's message; a `*` gives up.
fn decoded(state: &mut State, text: &[u8], out: &mut Vec<u8>) -> Option<Zeroizing<String>> {
    match sasl::decode(text) {
        Ok(message) => return Some(message),
        Err(Unusable::GivenUp) => err(out, "login given up"),
        Err(Unusable::Malformed) => state.wrong(out, MALFORMED),
    }
    None
}
