//! TOP (RFC 1939, section 7): a message's header, and so many lines of its body.

use mailraft_protocol::{Out, Output};

use crate::maildrop::Maildrop;
use crate::message::send;
use crate::state::{State, parse_number, words};

pub async fn run<M: Maildrop, O: Output>(state: &mut State, argument: &[u8], maildrop: &mut M, out: &mut Out<O>) {
    match words(argument).as_slice() {
        [number, lines] if parse_number(lines).is_some() => {
            send(state, number, parse_number(lines), maildrop, out).await;
        }
        _ => state.wrong(&mut out.bytes, "TOP takes one message and a number of lines"),
    }
}
