//! LOGOUT (RFC 3501, section 6.1.3).

use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::state::State;

pub(crate) async fn run<O: Output>(state: &mut State, c: &Cursor<'_>, out: &mut Out<O>) -> Outcome {
    c.end()?;
    state.say_gone_before_leaving(out).await;
    Ok(Done::Logout)
}
