//! Commands, one in each file.

pub mod auth;
mod data;
mod ehlo;
mod expn;
mod help;
mod mail;
mod noop;
mod quit;
pub mod rcpt;
mod rset;
mod starttls;
mod vrfy;

use crate::session::{Session, Step};

/// Carries out a command line.
pub fn command(session: &mut Session, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        session.wrong(out, "500 5.5.2 a command has no bare CR, LF or NUL");
        return None;
    }
    let space = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (verb, argument) = text.split_at(space);
    let argument = argument.trim_ascii();
    match verb.to_ascii_uppercase().as_slice() {
        b"EHLO" => ehlo::run(session, argument, true, out),
        b"HELO" => ehlo::run(session, argument, false, out),
        b"STARTTLS" => return starttls::run(session, argument, out),
        b"AUTH" => return auth::run(session, argument, out),
        b"MAIL" => mail::run(session, argument, out),
        b"RCPT" => return rcpt::run(session, argument, out),
        b"DATA" => data::run(session, argument, out),
        b"RSET" => rset::run(session, argument, out),
        b"NOOP" => noop::run(out),
        b"QUIT" => quit::run(session, argument, out),
        b"VRFY" => vrfy::run(session, argument, out),
        b"EXPN" => expn::run(session, out),
        b"HELP" => help::run(out),
        _ => session.wrong(out, "500 5.5.2 unknown command"),
    }
    None
}

#[cfg(test)]
mod dialogue;
#[cfg(test)]
mod properties;
