//! Commands, one in each file.

pub mod auth;
mod capa;
mod dele;
mod list;
mod noop;
mod pass;
mod quit;
mod retr;
mod rset;
mod stat;
mod stls;
mod top;
mod uidl;
mod user;

use mailraft_protocol::{Out, Output, Turn};

use crate::maildrop::Maildrop;
use crate::state::State;

/// Carries out a command line.
pub async fn command<M: Maildrop, O: Output>(
    state: &mut State,
    text: &[u8],
    maildrop: &mut M,
    out: &mut Out<O>,
) -> Turn {
    let user = state.user.take();
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        state.wrong(&mut out.bytes, "a command has no bare CR, LF or NUL");
        return Turn::Again;
    }
    let space = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    let (verb, argument) = text.split_at(space);
    let argument = argument.get(1..).unwrap_or_default();
    match verb.to_ascii_uppercase().as_slice() {
        b"CAPA" => capa::run(state, &mut out.bytes),
        b"STLS" => return stls::run(state, argument, &mut out.bytes),
        b"USER" => user::run(state, argument, &mut out.bytes),
        b"PASS" => pass::run(state, user, argument, maildrop, &mut out.bytes).await,
        b"AUTH" => auth::run(state, argument, maildrop, &mut out.bytes).await,
        b"STAT" => stat::run(state, argument, &mut out.bytes),
        b"LIST" => list::run(state, argument, out).await,
        b"UIDL" => uidl::run(state, argument, maildrop, out).await,
        b"RETR" => retr::run(state, argument, maildrop, out).await,
        b"TOP" => top::run(state, argument, maildrop, out).await,
        b"DELE" => dele::run(state, argument, &mut out.bytes),
        b"RSET" => rset::run(state, argument, &mut out.bytes),
        b"NOOP" => noop::run(state, argument, &mut out.bytes),
        b"QUIT" => quit::run(state, argument, maildrop, &mut out.bytes).await,
        _ => state.wrong(&mut out.bytes, "unknown command"),
    }
    Turn::Again
}

#[cfg(test)]
mod dialogue;
#[cfg(test)]
mod mishaps;
#[cfg(test)]
mod properties;
