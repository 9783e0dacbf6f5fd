//! ENABLE (RFC 5161) of CONDSTORE and QRESYNC (RFC 7162).

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::state::{Enabled, State};

pub(crate) fn run<O: Output>(state: &mut State, c: &mut Cursor<'_>, out: &mut Out<O>) -> Outcome {
    let mut asked = Vec::new();
    while c.peek() == Some(b' ') {
        c.space()?;
        match c.atom()?.to_ascii_uppercase().as_str() {
            "CONDSTORE" => asked.push(("CONDSTORE", Enabled::CondStore)),
            "QRESYNC" => asked.push(("QRESYNC", Enabled::QResync)),
            _ => {}
        }
    }
    c.end()?;
    let mut line = "* ENABLED".to_owned();
    // Those that were not enabled before.
    let before = state.enabled;
    asked.sort_by_key(|(_, what)| *what);
    asked.dedup();
    for (name, what) in asked {
        if what > before {
            line += &format!(" {name}");
        }
        state.enable(what);
    }
    out.line(&line);
    ok("ENABLE")
}
