//! Commands, one in each file.

pub mod auth;
mod data;
mod ehlo;
mod mail;
pub mod rcpt;
mod starttls;

use crate::reply::line;
use crate::session::{Session, Step};

/// Carries out a command line.
pub fn command(session: &mut Session, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        session.wrong(out, "500 5.5.2 a command has no bare CR, LF or NUL");
        return None;
    }
    let space = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (verb, argument) = text.split_at(space);
    let argument = argument.strip_prefix(b" ").unwrap_or_default();
    match verb.to_ascii_uppercase().as_slice() {
        b"EHLO" => ehlo::run(session, argument, true, out),
        b"HELO" => ehlo::run(session, argument, false, out),
        b"STARTTLS" => return starttls::run(session, argument, out),
        b"AUTH" => return auth::run(session, argument, out),
        b"MAIL" => mail::run(session, argument, out),
        b"RCPT" => return rcpt::run(session, argument, out),
        b"DATA" => data::run(session, argument, out),
        b"RSET" => {
            session.mail = None;
            line(out, "250 2.0.0 Ok");
        }
        b"NOOP" => line(out, "250 2.0.0 Ok"),
        b"QUIT" => {
            line(out, "221 2.0.0 bye");
            session.close();
        }
        b"VRFY" => line(out, "252 2.5.2 send some mail, I'll try my best"),
        b"EXPN" => session.wrong(out, "502 5.5.1 EXPN is not offered"),
        b"HELP" => line(out, "214 2.0.0 see RFC 5321"),
        _ => session.wrong(out, "500 5.5.2 unknown command"),
    }
    None
}

#[cfg(test)]
mod dialogue;
