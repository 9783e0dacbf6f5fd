//! ENABLE (RFC 5161): nothing that could be enabled is here yet.

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};

pub(crate) fn run<O: Output>(c: &mut Cursor<'_>, out: &mut Out<O>) -> Outcome {
    while c.peek() == Some(b' ') {
        c.space()?;
        c.atom()?;
    }
    c.end()?;
    out.line("* ENABLED");
    ok("ENABLE")
}
