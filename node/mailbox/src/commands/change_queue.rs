//! How far the delivery to a recipient is, as a queue mailbox's own owner says. The last recipient takes the item along, and
//! with it its key.

use crate::accepted::{DeliveryStage, QueueChange};
use crate::api::{Answer, Refusal};
use crate::queue::items::RecipientId;
use crate::queue::rows::{item_key, key_key, recipient_key, stage_key};
use crate::records::chunk_key;
use crate::work::Work;

pub fn change_queue(work: &mut Work<'_>, change: &QueueChange) -> Result<Answer, Refusal> {
    match *change {
        QueueChange::Delivered { item, recipient } => set_stage(work, (item, recipient), DeliveryStage::Delivered),
        QueueChange::Held { item, recipient, because } => {
            set_stage(work, (item, recipient), DeliveryStage::Held(because))
        }
        QueueChange::Released { item, recipient } => release(work, (item, recipient)),
    }
}

fn set_stage(work: &mut Work<'_>, id: RecipientId, stage: DeliveryStage) -> Result<Answer, Refusal> {
    if !work.state.queue.set_stage(id, stage) {
        return Err(no_such_recipient());
    }
    work.put(stage_key(work.mailbox(), id), &stage);
    Ok(Answer::Done)
}

fn release(work: &mut Work<'_>, id: RecipientId) -> Result<Answer, Refusal> {
    let mailbox = work.mailbox();
    if work.state.queue.recipient(id).is_none() {
        return Err(no_such_recipient());
    }
    work.delete(recipient_key(mailbox, id));
    work.delete(stage_key(mailbox, id));
    if let Some(item) = work.state.queue.remove(id) {
        work.delete(item_key(mailbox, id.0));
        work.delete(key_key(mailbox, id.0));
        for number in 0..item.chunks {
            work.delete(chunk_key(mailbox, item.body, number));
        }
    }
    Ok(Answer::Done)
}

fn no_such_recipient() -> Refusal {
    Refusal::NotAllowed("the queue has no such recipient".to_owned())
}
