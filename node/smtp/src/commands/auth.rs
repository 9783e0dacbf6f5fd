//! AUTH (RFC 4954): PLAIN (RFC 4616) and LOGIN, only under TLS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::reply::line;
use crate::session::{Reading, Service, Session, Step};

const MALFORMED: &str = "501 5.5.2 not the base64 of what the mechanism wants";

pub fn run(session: &mut Session, argument: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    if session.config.service == Service::Relay {
        session.wrong(out, "503 5.5.1 no logins on this port; use submission, 587 or 465");
        return None;
    }
    if !session.tls {
        session.wrong(out, "538 5.7.11 say STARTTLS first");
        return None;
    }
    if session.helo.is_none() || session.identity.is_some() || session.mail.is_some() {
        session.wrong(out, "503 5.5.1 AUTH comes after EHLO, once, outside of a transaction");
        return None;
    }
    let mut words = argument.split(|b| *b == b' ').filter(|w| !w.is_empty());
    let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
    // An initial response that is empty is written as `=` (section 4).
    let initial = words.next().map(|initial| if initial == b"=" { b"".as_slice() } else { initial });
    if words.next().is_some() {
        session.wrong(out, "501 5.5.4 AUTH takes a mechanism and one initial response");
        return None;
    }
    match (mechanism.as_slice(), initial) {
        (b"PLAIN", Some(initial)) => plain(session, initial, out),
        (b"PLAIN", None) => {
            session.reading = Reading::AuthPlain;
            line(out, "334 ");
            None
        }
        (b"LOGIN", Some(initial)) => login_user(session, initial, out),
        (b"LOGIN", None) => {
            session.reading = Reading::AuthLoginUser;
            line(out, "334 VXNlcm5hbWU6");
            None
        }
        _ => {
            session.wrong(out, "504 5.5.4 PLAIN and LOGIN are offered");
            None
        }
    }
}

/// PLAIN's one message.
pub fn plain(session: &mut Session, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    let message = decoded(session, text, out)?;
    let mut parts = message.split('\0');
    let (authorise, user, password) = (parts.next()?, parts.next(), parts.next());
    match (user, password, parts.next()) {
        (Some(user), Some(_), None) if !user.is_empty() && !authorise.is_empty() && authorise != user => {
            session.wrong(out, "535 5.7.8 nobody acts for another here");
            None
        }
        (Some(user), Some(password), None) if !user.is_empty() => {
            Some(session.ask_login(user.to_owned(), Zeroizing::new(password.to_owned())))
        }
        _ => {
            session.wrong(out, MALFORMED);
            None
        }
    }
}

/// LOGIN's user name.
pub fn login_user(session: &mut Session, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    let user = decoded(session, text, out)?;
    if user.is_empty() {
        session.wrong(out, MALFORMED);
        return None;
    }
    session.reading = Reading::AuthLoginPassword(user.as_str().to_owned());
    line(out, "334 UGFzc3dvcmQ6");
    None
}

/// LOGIN's password.
pub fn login_password(session: &mut Session, user: String, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    let password = decoded(session, text, out)?;
    Some(session.ask_login(user, password))
}

/// The text of a client's message; a `*` gives up.
fn decoded(session: &mut Session, text: &[u8], out: &mut Vec<u8>) -> Option<Zeroizing<String>> {
    if text == b"*" {
        line(out, "501 5.7.0 login given up");
        return None;
    }
    let bytes = STANDARD.decode(text).ok().map(Zeroizing::new);
    let message = bytes.and_then(|b| std::str::from_utf8(&b).ok().map(|s| Zeroizing::new(s.to_owned())));
    if message.is_none() {
        session.wrong(out, MALFORMED);
    }
    message
}
