//! ENABLE (RFC 5161) of CONDSTORE and QRESYNC (RFC 7162), UTF8=ACCEPT (RFC 6855), IMAP4rev2 (RFC 9051) and UIDONLY (RFC
//! 9586).

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::state::{Enabled, State};

/// What can be enabled, in the order in which it is told.
const NAMES: [&str; 5] = ["CONDSTORE", "QRESYNC", "UTF8=ACCEPT", "IMAP4rev2", "UIDONLY"];

pub(crate) fn run<O: Output>(state: &mut State, c: &mut Cursor<'_>, out: &mut Out<O>) -> Outcome {
    let mut asked = Vec::new();
    let mut is_first = true;
    while std::mem::take(&mut is_first) || c.peek() == Some(b' ') {
        c.space()?;
        let name = c.atom()?;
        asked.extend(NAMES.into_iter().filter(|known| known.eq_ignore_ascii_case(&name)));
    }
    c.end()?;
    let mut line = "* ENABLED".to_owned();
    // Those that were not enabled before.
    let before = state.enabled;
    for name in NAMES.into_iter().filter(|name| asked.contains(name)) {
        let is_new = match name {
            "CONDSTORE" => before < Enabled::CondStore,
            "QRESYNC" => before < Enabled::QResync,
            "UTF8=ACCEPT" => !std::mem::replace(&mut state.utf8_accept, true),
            "IMAP4rev2" => !std::mem::replace(&mut state.rev2, true),
            _ => !std::mem::replace(&mut state.uid_only, true),
        };
        match name {
            "CONDSTORE" => state.enable(Enabled::CondStore),
            "QRESYNC" => state.enable(Enabled::QResync),
            _ => {}
        }
        if is_new {
            line += &format!(" {name}");
        }
    }
    out.line(&line);
    ok("ENABLE")
}
