//! STARTTLS (RFC 3207).

use crate::reply::line;
use crate::state::State;
use crate::step::Step;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    if state.tls {
        state.wrong(out, "503 5.5.1 TLS is up already");
        return None;
    }
    if !state.config.tls_available {
        state.wrong(out, "502 5.5.1 STARTTLS is not offered");
        return None;
    }
    if !argument.is_empty() {
        state.wrong(out, "501 5.5.4 STARTTLS takes no argument");
        return None;
    }
    line(out, "220 2.0.0 ready for TLS");
    Some(state.ask_tls())
}
