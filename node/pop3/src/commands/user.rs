//! USER (RFC 1939, section 7), only under TLS.

use crate::reply::ok;
use crate::state::State;

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    let name = std::str::from_utf8(argument.trim_ascii()).unwrap_or_default();
    if state.opened.is_some() {
        state.wrong(out, "somebody is logged in already");
    } else if !state.tls {
        state.wrong(out, "say STLS first");
    } else if name.is_empty() {
        state.wrong(out, "USER takes a name");
    } else {
        state.user = Some(name.to_owned());
        ok(out, "now the password");
    }
}
