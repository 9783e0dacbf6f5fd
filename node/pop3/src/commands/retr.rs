//! RETR (RFC 1939, section 5): a message.

use mailraft_protocol::{Out, Output};

use crate::maildrop::Maildrop;
use crate::message::send;
use crate::state::{State, words};

pub async fn run<M: Maildrop, O: Output>(state: &mut State, argument: &[u8], maildrop: &mut M, out: &mut Out<O>) {
    match words(argument).as_slice() {
        [number] => send(state, number, None, maildrop, out).await,
        _ => state.wrong(&mut out.bytes, "RETR takes one message"),
    }
}
