//! CAPA (RFC 2449): what is offered now.

use crate::reply::{line, ok};
use crate::state::State;

pub fn run(state: &State, out: &mut Vec<u8>) {
    ok(out, "capabilities follow");
    // EXPIRE NEVER: messages stay until somebody removes them.
    for capability in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"] {
        line(out, capability);
    }
    if state.tls {
        line(out, "USER");
        line(out, "SASL PLAIN LOGIN");
    } else if state.config.tls_available {
        line(out, "STLS");
    }
    line(out, "IMPLEMENTATION Mailraft");
    line(out, ".");
}
