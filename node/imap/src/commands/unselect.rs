//! UNSELECT (RFC 3691).

use crate::cursor::Cursor;
use crate::opened::{close, view};
use crate::outcome::{Outcome, ok};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore>(state: &mut State, c: &Cursor<'_>, store: &mut S) -> Outcome {
    c.end()?;
    view(state)?;
    close(state, store).await;
    ok("UNSELECT")
}
