//! STLS (RFC 2595, section 4).

use mailraft_protocol::Turn;

use crate::reply::ok;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) -> Turn {
    let why = if !argument.trim_ascii().is_empty() {
        "STLS takes no argument"
    } else if state.tls {
        "TLS is up already"
    } else if state.config.tls_available {
        ok(out, "begin TLS");
        return Turn::StartTls;
    } else {
        "there is no TLS here"
    };
    state.wrong(out, why);
    Turn::Again
}
