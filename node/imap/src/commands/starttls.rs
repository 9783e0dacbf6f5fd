//! STARTTLS (RFC 3501, section 6.2.1).

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};
use crate::state::State;

pub(crate) fn run(state: &State, c: &Cursor<'_>) -> Outcome {
    c.end()?;
    if state.tls || !state.config.tls_available || state.user.is_some() {
        return Err(Done::Bad("STARTTLS is not offered now".into()));
    }
    Ok(Done::StartTls)
}
