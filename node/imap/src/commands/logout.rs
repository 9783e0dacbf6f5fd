//! LOGOUT (RFC 3501, section 6.1.3).

use crate::cursor::Cursor;
use crate::outcome::{Done, Outcome};

pub(crate) fn run(c: &Cursor<'_>) -> Outcome {
    c.end()?;
    Ok(Done::Logout)
}
