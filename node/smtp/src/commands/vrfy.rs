//! VRFY (RFC 5321, section 4.1.1.6): who exists is told to those who send mail, at RCPT, and to nobody else
//! (section 7.3).

use crate::reply::line;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    if argument.is_empty() {
        return state.wrong(out, "501 5.5.4 say VRFY and whom");
    }
    line(out, "252 2.0.0 send some mail, I'll try my best");
}
