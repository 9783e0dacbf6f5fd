//! COPY (RFC 3501, section 6.4.7) and MOVE (RFC 6851), with UIDPLUS's COPYUID.

use mailraft_mailbox::{Answer, Command, UidSet};

use crate::commands::opened::{uids, view, writable};
use crate::cursor::Cursor;
use crate::out::Out;
use crate::outcome::{Done, Outcome, ok};
use crate::state::State;
use crate::store::{Mailstore, Output};

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    by_uid: bool,
    moves: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    let name = if moves { "MOVE" } else { "COPY" };
    let folder = if moves { writable(state)? } else { view(state)? }.folder;
    c.space()?;
    let set = c.sequence_set()?;
    c.space()?;
    let to = c.folder()?;
    c.end()?;
    let uids = uids(state, &set, by_uid, store, out).await?;
    if uids.is_empty() {
        return ok(name);
    }
    let command = match moves {
        true => Command::Move { folder, uids, to },
        false => Command::Copy { folder, uids, to },
    };
    match store.ask(command).await? {
        Answer::Copied { uid_validity, from, to } if !from.is_empty() => {
            let (from, to): (UidSet, UidSet) = (from.into_iter().collect(), to.into_iter().collect());
            let code = format!("[COPYUID {uid_validity} {from} {to}]");
            if moves {
                // Before the expunges (RFC 6851, section 4.3).
                out.line(&format!("* OK {code} moved"));
                return ok(name);
            }
            Ok(Done::Ok(format!("{code} {name} done")))
        }
        // A UID that is no more is no error (RFC 3501, section 6.4.8).
        Answer::Copied { .. } if by_uid => ok(name),
        Answer::Copied { .. } => Err(Done::missing()),
        _ => Err(Done::odd_answer()),
    }
}
