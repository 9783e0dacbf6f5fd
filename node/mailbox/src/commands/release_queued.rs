//! A queue knows for good that something was delivered: the mailbox forgets where it has it from, and takes nothing more
//! that the queue decided before.

use crate::accepted::QueueOrigin;
use crate::api::{Answer, Refusal};
use crate::plant::{self, Fault};
use crate::queue::rows::{delivered_key, floor_key};
use crate::work::Work;

pub fn release_queued(work: &mut Work<'_>, origin: &QueueOrigin) -> Result<Answer, Refusal> {
    let (mailbox, id) = (work.mailbox(), (origin.item, origin.recipient));
    if work.state.received.delivered(origin).is_some() {
        work.state.received.forget(id);
        work.delete(delivered_key(mailbox, id));
    }
    // In the batch that forgets the delivery: a late copy of it is known by one or the other.
    if work.state.received.floor(origin.queue) < origin.at && !plant::is(Fault::ReleaseRaisesNoFloor) {
        work.state.received.raise(origin.queue, origin.at);
        work.put(floor_key(mailbox, origin.queue), &origin.at);
    }
    Ok(Answer::Done)
}
