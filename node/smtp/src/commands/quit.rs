//! QUIT (RFC 5321, section 4.1.1.10).

use crate::agent::DeliveryAgent;
use crate::reply::line;
use crate::state::State;

pub async fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    if !argument.is_empty() {
        return state.wrong(out, "501 5.5.4 QUIT takes no argument");
    }
    agent.client_leaves().await;
    line(out, "221 2.0.0 bye");
    state.closing = true;
}
