//! COPY (RFC 3501, section 6.4.7) and MOVE (RFC 6851), with UIDPLUS's COPYUID.

use mailraft_mailbox::{Answer, Command, UidSet};

use super::{ok, uids, view, writable};
use crate::cursor::Cursor;
use crate::session::{Done, Out, Outcome, Session};
use crate::store::{Mailstore, Output};

pub(crate) async fn run<S: Mailstore, O: Output>(
    session: &mut Session,
    c: &mut Cursor<'_>,
    by_uid: bool,
    moves: bool,
    store: &mut S,
    out: &mut Out<'_, O>,
) -> Outcome {
    let name = if moves { "MOVE" } else { "COPY" };
    let view = if moves { writable(session)? } else { view(session)? };
    let folder = view.folder;
    c.space()?;
    let uids = uids(view, c, by_uid)?;
    c.space()?;
    let to = c.folder()?;
    c.end()?;
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
        Answer::Copied { .. } => Err(Done::No("[EXPUNGEISSUED] these messages are no more".into())),
        _ => Err(Done::No("the mailbox answered something else".into())),
    }
}
