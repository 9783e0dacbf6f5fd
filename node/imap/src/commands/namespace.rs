//! NAMESPACE (RFC 2342): one's own folders, and no others.

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};

pub(crate) fn run<O: Output>(c: &Cursor<'_>, out: &mut Out<O>) -> Outcome {
    c.end()?;
    out.line("* NAMESPACE ((\"\" \"/\")) NIL NIL");
    ok("NAMESPACE")
}
