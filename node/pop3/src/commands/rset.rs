//! RSET (RFC 1939, section 5): no message is marked any more.

use crate::reply::ok;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    let Some(opened) = state.opened(out) else { return };
    if argument.trim_ascii().is_empty() {
        opened.reset();
        let (count, bytes) = opened.count();
        ok(out, &format!("{count} messages ({bytes} octets)"));
    } else {
        state.wrong(out, "RSET takes no argument");
    }
}
