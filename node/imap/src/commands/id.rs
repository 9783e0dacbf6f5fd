//! ID (RFC 2971): what the client says of itself is read, and not kept. It may say so before a login.

use mailraft_protocol::{Out, Output};

use crate::cursor::{Cursor, Read, wrong};
use crate::outcome::{Outcome, ok};

/// Fields of one ID (RFC 2971, section 3.3).
pub(crate) const PAIRS_MAX: usize = 30;
/// A field's name, in bytes.
pub(crate) const NAME_MAX_BYTES: usize = 30;
/// A field's value, in bytes.
pub(crate) const VALUE_MAX_BYTES: usize = 1_024;

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
    let mut pairs = 0;
    while !c.close() {
        if pairs == PAIRS_MAX {
            return wrong(format!("ID takes {PAIRS_MAX} fields"));
        }
        let name = c.string()?;
        c.space()?;
        let value = c.nstring()?;
        if name.len() > NAME_MAX_BYTES || value.is_some_and(|value| value.len() > VALUE_MAX_BYTES) {
            return wrong(format!("a field of ID has {NAME_MAX_BYTES} octets, and its value {VALUE_MAX_BYTES}"));
        }
        pairs += 1;
        c.eat(b' ');
    }
    c.end()
}
