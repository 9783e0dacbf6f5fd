//! IDLE (RFC 2177).

use mailraft_mailbox::Command;

use crate::cursor::Cursor;
use crate::decoder::Piece;
use crate::outcome::{Done, Outcome};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(c: &Cursor<'_>, store: &mut S) -> Outcome {
    c.end()?;
    store.ask(Command::Sync).await?;
    Ok(Done::Idle)
}

/// The line that ends it.
pub(crate) fn end(pieces: &[Piece]) -> Outcome {
    match pieces {
        [Piece::Text(text)] if text.trim_ascii_end().eq_ignore_ascii_case(b"DONE") => Ok(Done::Ok("IDLE done".into())),
        _ => Err(Done::Bad("IDLE ends with DONE".into())),
    }
}
