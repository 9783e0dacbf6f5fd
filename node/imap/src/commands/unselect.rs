//! UNSELECT (RFC 3691).

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::opened::{close, view};
use crate::outcome::{Outcome, ok};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    c.end()?;
    view(state)?;
    close(state, store, out).await;
    ok("UNSELECT")
}
