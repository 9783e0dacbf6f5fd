//! ID (RFC 2971): what the client says of itself is read, and not kept.

use mailraft_protocol::{Out, Output};

use crate::cursor::{Cursor, Read};
use crate::outcome::{Outcome, ok};

pub(crate) fn run<O: Output>(c: &mut Cursor<'_>, out: &mut Out<O>) -> Outcome {
    parameters(c)?;
    out.line("* ID (\"name\" \"Mailraft\")");
    ok("ID")
}

fn parameters(c: &mut Cursor<'_>) -> Read<()> {
    c.space()?;
    if c.peek() != Some(b'(') {
        c.nstring()?;
        return c.end();
    }
    c.open()?;
    while !c.close() {
        c.nstring()?;
        c.eat(b' ');
    }
    c.end()
}
