//! RSET (RFC 5321, section 4.1.1.5).

use crate::agent::DeliveryAgent;
use crate::reply::line;
use crate::state::State;

pub fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    if !argument.is_empty() {
        return state.wrong(out, "501 5.5.4 RSET takes no argument");
    }
    state.drop_mail(agent);
    line(out, "250 2.0.0 Ok");
}
