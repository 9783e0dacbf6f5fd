//! COPY (RFC 3501, section 6.4.7) and MOVE (RFC 6851), with UIDPLUS's COPYUID.

use mailraft_mailbox::{Answer, Command, UidSet};
use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::opened::{Names, uids, view, writable};
use crate::outcome::{Done, Outcome, ok};
use crate::state::{Enabled, State};
use crate::store::Mailstore;

/// What becomes of the messages where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// They stay.
    Copy,
    /// They go.
    Move,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    kind: Copying,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let (name, folder) = match kind {
        Copying::Copy => ("COPY", view(state)?.folder),
        Copying::Move => ("MOVE", writable(state)?.folder),
    };
    c.space()?;
    let set = c.message_set()?;
    c.space()?;
    let to = c.folder()?;
    c.end()?;
    let uids = uids(state, &set, names, store, out).await?;
    if uids.is_empty() {
        return ok(name);
    }
    let command = match kind {
        Copying::Copy => Command::Copy { folder, uids, to },
        Copying::Move => Command::Move { folder, uids, to },
    };
    match store.ask(command).await? {
        Answer::Copied { uid_validity, from, to } if !from.is_empty() => {
            let (from, to): (UidSet, UidSet) = (from.into_iter().collect(), to.into_iter().collect());
            state.does_itself_in(uid_validity, &to);
            if kind == Copying::Move {
                state.does_itself(&from);
            }
            let code = format!("[COPYUID {uid_validity} {from} {to}]");
            if kind == Copying::Move {
                // Before the expunges (RFC 6851, section 4.3).
                out.line(&format!("* OK {code} moved"));
                if state.enabled >= Enabled::CondStore {
                    state.hear(store);
                    return Ok(Done::Ok(format!("[HIGHESTMODSEQ {}] {name} done", state.told_modseq())));
                }
                return ok(name);
            }
            Ok(Done::Ok(format!("{code} {name} done")))
        }
        // A UID that is no more is no error (RFC 3501, section 6.4.8).
        Answer::Copied { .. } if names == Names::Uids => ok(name),
        Answer::Copied { .. } => Err(Done::missing()),
        _ => Err(Done::odd_answer()),
    }
}
