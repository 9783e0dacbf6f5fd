//! EXPN (RFC 5321, section 4.1.1.7): there are no lists to tell the members of.

use crate::state::State;

pub fn run(state: &mut State, out: &mut Vec<u8>) {
    state.wrong(out, "502 5.5.1 EXPN is not offered");
}
