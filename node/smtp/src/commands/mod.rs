//! Commands, one in each file.

pub mod auth;
mod bdat;
mod data;
mod ehlo;
mod expn;
mod help;
pub mod mail;
mod noop;
mod quit;
pub mod rcpt;
mod rset;
mod starttls;
mod vrfy;

use mailraft_protocol::Turn;

use crate::agent::DeliveryAgent;
use crate::state::State;

/// Carries out a command line.
pub async fn command<A: DeliveryAgent>(state: &mut State, text: &[u8], agent: &mut A, out: &mut Vec<u8>) -> Turn {
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        state.wrong(out, "500 5.5.2 a command has no bare CR, LF or NUL");
        // The octets that a BDAT tells of are no commands.
        state.closing |= text.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"));
        return Turn::Again;
    }
    let space = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (verb, argument) = text.split_at(space);
    let argument = argument.trim_ascii();
    match verb.to_ascii_uppercase().as_slice() {
        b"EHLO" => ehlo::run(state, argument, true, agent, out),
        b"HELO" => ehlo::run(state, argument, false, agent, out),
        b"STARTTLS" => return starttls::run(state, argument, out),
        b"AUTH" => auth::run(state, argument, agent, out).await,
        b"MAIL" => mail::run(state, argument, agent, out).await,
        b"RCPT" => rcpt::run(state, argument, agent, out).await,
        b"DATA" => data::run(state, argument, agent, out),
        b"BDAT" => bdat::run(state, argument, agent, out),
        b"RSET" => rset::run(state, argument, agent, out),
        b"NOOP" => noop::run(out),
        b"QUIT" => quit::run(state, argument, agent, out).await,
        b"VRFY" => vrfy::run(state, argument, out),
        b"EXPN" => expn::run(state, out),
        b"HELP" => help::run(out),
        _ => state.wrong(out, "500 5.5.2 unknown command"),
    }
    Turn::Again
}

#[cfg(test)]
mod dialogue;
#[cfg(test)]
mod properties;
