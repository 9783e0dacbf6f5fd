//! STARTTLS (RFC 3207).

use mailraft_protocol::Turn;

use crate::reply::line;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) -> Turn {
    if state.tls.is_some() {
        state.wrong(out, "503 5.5.1 TLS is up already");
        return Turn::Again;
    }
    if !state.config.tls_available {
        state.wrong(out, "502 5.5.1 STARTTLS is not offered");
        return Turn::Again;
    }
    if !argument.is_empty() {
        state.wrong(out, "501 5.5.4 STARTTLS takes no argument");
        return Turn::Again;
    }
    line(out, "220 2.0.0 ready for TLS");
    Turn::StartTls
}
