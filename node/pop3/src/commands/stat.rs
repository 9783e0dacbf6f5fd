//! STAT (RFC 1939, section 5): how many messages, and their octets.

use crate::reply::ok;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    let Some(opened) = state.opened(out) else { return };
    let (count, bytes) = opened.count();
    if argument.trim_ascii().is_empty() {
        ok(out, &format!("{count} {bytes}"));
    } else {
        state.wrong(out, "STAT takes no argument");
    }
}
