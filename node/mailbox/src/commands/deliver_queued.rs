//! A delivery from a queue: exactly once for each item and recipient, whether or not there is room.

use mailraft_storage::body::BodyId;

use super::deliver::{Delivery, once_a_day};
use super::new_message;
use crate::accepted::QueueOrigin;
use crate::api::{Answer, NewMessage, Refusal};
use crate::flags::Flags;
use crate::plant::{self, Fault};
use crate::queue::received::QueuedDelivery;
use crate::queue::rows::delivered_key;
use crate::work::Work;

pub fn deliver_queued(
    work: &mut Work<'_>,
    origin: &QueueOrigin,
    new_message: &NewMessage,
    sealed_as: BodyId,
    how: &Delivery<'_>,
) -> Result<Answer, Refusal> {
    if work.mailbox().is_queue() {
        return Err(Refusal::NotAllowed("a queue mailbox has no folders".to_owned()));
    }
    if let Some(kept) = work.state.received.delivered(origin).copied() {
        new_message::delete_upload(work, new_message);
        let QueuedDelivery { uid_validity, uid, modseq, .. } = kept;
        return Ok(Answer::Stored { uid_validity, uid, modseq });
    }
    if work.state.received.is_stale(origin) && !plant::is(Fault::StaleDeliveryStored) {
        return Err(Refusal::Stale);
    }
    let answer = once_a_day(work, new_message, how, |work, folder| {
        new_message::put_as(work, folder, new_message, &Flags::none(), how.received, Some(sealed_as))
    })?;
    if let Answer::Stored { uid_validity, uid, modseq } = answer
        && !plant::is(Fault::QueuedDeliveryNotRemembered)
    {
        let delivery = QueuedDelivery { queue: origin.queue, uid_validity, uid, modseq };
        let id = (origin.item, origin.recipient);
        work.state.received.remember(id, delivery);
        work.put(delivered_key(work.mailbox(), id), &delivery);
    }
    Ok(answer)
}
