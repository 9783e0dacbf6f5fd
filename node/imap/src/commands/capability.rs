//! CAPABILITY (RFC 3501, section 6.1.1).

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::state::State;

pub(crate) fn run<O: Output>(state: &State, c: &Cursor<'_>, out: &mut Out<O>) -> Outcome {
    c.end()?;
    out.line(&format!("* CAPABILITY {}", state.capabilities()));
    ok("CAPABILITY")
}
