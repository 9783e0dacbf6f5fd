//! DELE (RFC 1939, section 5): marks a message; QUIT removes it.

use crate::reply::ok;
use crate::state::{State, words};

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    let Some(opened) = state.opened(out) else { return };
    match words(argument).as_slice() {
        [number] => match opened.find(number) {
            Ok((number, message)) => {
                message.deleted = true;
                ok(out, &format!("message {number} is removed at QUIT"));
            }
            Err(why) => state.wrong(out, why),
        },
        _ => state.wrong(out, "DELE takes one message"),
    }
}
