//! The 7-bit form of a message of a queue, for a server without 8BITMIME (RFC 6152, section 3): found out when such a server is met,
//! by two readings of its rows, and signed as it is sent.

use mailraft_directory::Lookup;
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_message::Part;
use mailraft_outbound::seven_bit::{Plan, Survey};
use mailraft_storage::entry::versioned_decode;
use mailraft_storage::{Rows, UnixMillis};

use super::message::{MeasureError, Measured, measure_as, read, return_path_bytes};
use crate::spool::PARSED_VERSION;

/// The 7-bit form of a message.
pub struct SevenBit {
    /// What becomes of it.
    pub plan: Plan,
    /// What was found out of it.
    pub measured: Measured,
}

/// Finds out its 7-bit form, or why it has none. Blocking: for a worker thread.
///
/// # Errors
/// In words, if it can't be read now.
pub fn seven_bit(
    message: &OutgoingMessage,
    rows: &dyn Rows,
    lookup: &Lookup,
    now: UnixMillis,
) -> Result<Result<SevenBit, String>, String> {
    let structure: Part = versioned_decode("structure", PARSED_VERSION, message.structure())
        .map_err(|error| format!("what is known of the message's parts can't be read here: {error}"))?;
    let mut survey = Survey::of(&structure, return_path_bytes(message, rows)?);
    drop(structure);
    for number in 0..message.chunks() {
        survey.piece(&read(message, rows, number)?);
    }
    let plan = match survey.finish() {
        Ok(plan) => plan,
        Err(why) => return Ok(Err(why.to_string())),
    };
    match measure_as(message, rows, lookup, now, Some(&plan)) {
        Ok(measured) => Ok(Ok(SevenBit { plan, measured })),
        Err(MeasureError::Gone(why)) => Err(why),
        Err(error @ (MeasureError::Unsendable(_) | MeasureError::NotRewritten(_))) => Ok(Err(error.to_string())),
    }
}
