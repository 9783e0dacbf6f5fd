//! COMPRESS (RFC 4978).

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) fn run<S: Mailstore>(state: &State, c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let algorithm = c.word()?;
    c.end()?;
    if algorithm != "DEFLATE" {
        return Err(Done::Bad(format!("COMPRESS does not know {algorithm}")));
    }
    if state.compressed {
        return Err(Done::No("[COMPRESSIONACTIVE] DEFLATE is active".into()));
    }
    store.compress()?;
    Ok(Done::Compress)
}
