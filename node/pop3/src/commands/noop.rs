//! NOOP (RFC 1939, section 5).

use crate::reply::ok;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    if state.opened(out).is_none() {
        return;
    }
    if argument.trim_ascii().is_empty() {
        ok(out, "nothing done");
    } else {
        state.wrong(out, "NOOP takes no argument");
    }
}
