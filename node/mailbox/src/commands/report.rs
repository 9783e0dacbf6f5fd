//! A report to the sender of something in a queue is taken into it, by the commit that says that he is told.

use super::accept::accept;
use super::change_queue::tell;
use crate::accepted::{AcceptedEnvelope, Told};
use crate::api::{Answer, NewMessage, Refusal, ZonedTime};
use crate::work::Work;

pub fn report(
    work: &mut Work<'_>,
    told: &Told,
    new_message: &NewMessage,
    accepted: &AcceptedEnvelope,
    received: ZonedTime,
) -> Result<Answer, Refusal> {
    // Nobody is told of a report (RFC 5321, section 6.1): of what has the null reverse-path none comes.
    if !accepted.reverse_path.is_empty() {
        return Err(Refusal::NotAllowed("a report has the null reverse-path".to_owned()));
    }
    // First, as what was told already makes no second report.
    tell(work, told)?;
    accept(work, new_message, accepted, received)
}
