//! How far the delivery to recipients is, as a queue mailbox's own owner says. The last recipient takes the item along, and
//! with it its key.

use crate::accepted::{AT_ONCE, Attempt, AttemptEnd, DeliveryStage, QueueChange, ReportKind, Told};
use crate::api::{Answer, Refusal};
use crate::plant::{self, Fault};
use crate::queue::items::RecipientId;
use crate::queue::rows::{attempt_key, item_key, key_key, recipient_key, stage_key};
use crate::records::chunk_key;
use crate::work::Work;

pub fn change_queue(work: &mut Work<'_>, change: &QueueChange) -> Result<Answer, Refusal> {
    match change {
        QueueChange::Delivered { item, recipient } => set_stage(work, (*item, *recipient), DeliveryStage::Delivered),
        QueueChange::Held { item, recipient, because } => {
            set_stage(work, (*item, *recipient), DeliveryStage::Held(*because))
        }
        QueueChange::Released { item, recipient } => released(work, (*item, *recipient)),
        QueueChange::Attempted { item, attempts } => {
            // One that is gone, or was decided about meanwhile, keeps nothing of the others from being known.
            for attempt in attempts {
                attempted(work, (*item, attempt.recipient), attempt)?;
            }
            Ok(Answer::Done)
        }
        QueueChange::NotTold(told) => tell(work, told),
    }
}

/// What the sender was to be told of these recipients is told, or need not be: those of whom it was the last thing to be done are
/// forgotten.
pub fn tell(work: &mut Work<'_>, Told { item, kind, recipients }: &Told) -> Result<Answer, Refusal> {
    for recipient in recipients {
        let id = (*item, *recipient);
        let found = work.state.queue.recipient(id);
        let is_outside = found.is_some_and(|recipient| recipient.domain.is_some());
        match (kind, found.map(|recipient| recipient.stage)) {
            (ReportKind::Delayed, Some(DeliveryStage::Deferred { failed, next, warned: false })) => {
                set_stage(work, id, DeliveryStage::Deferred { failed, next, warned: true })?;
            }
            (ReportKind::Delayed, Some(DeliveryStage::Waiting)) if is_outside => {
                set_stage(work, id, DeliveryStage::Deferred { failed: 0, next: AT_ONCE, warned: true })?;
            }
            (_, Some(DeliveryStage::Reporting(due))) if due == *kind => {
                forget(work, id)?;
            }
            // An operator decided otherwise meanwhile, or it was told already.
            _ => return Err(Refusal::Stale),
        }
    }
    Ok(Answer::Done)
}

pub fn set_stage(work: &mut Work<'_>, id: RecipientId, stage: DeliveryStage) -> Result<Answer, Refusal> {
    if !work.state.queue.set_stage(id, stage) {
        return Err(no_such_recipient());
    }
    work.put(stage_key(work.mailbox(), id), &stage);
    Ok(Answer::Done)
}

/// Nothing more is to be done for a recipient.
pub fn forget(work: &mut Work<'_>, id: RecipientId) -> Result<Answer, Refusal> {
    let mailbox = work.mailbox();
    if work.state.queue.recipient(id).is_none() {
        return Err(no_such_recipient());
    }
    work.delete(recipient_key(mailbox, id));
    work.delete(stage_key(mailbox, id));
    work.delete(attempt_key(mailbox, id));
    if let Some(item) = work.state.queue.remove(id) {
        work.delete(item_key(mailbox, id.0));
        work.delete(key_key(mailbox, id.0));
        for number in 0..item.chunks {
            work.delete(chunk_key(mailbox, item.body, number));
        }
    }
    Ok(Answer::Done)
}

/// Its mailbox has it, and the queue may forget it, once its sender was told so where he wants that.
fn released(work: &mut Work<'_>, id: RecipientId) -> Result<Answer, Refusal> {
    let Some(found) = work.state.queue.recipient(id) else { return Err(no_such_recipient()) };
    match found.stage {
        DeliveryStage::Delivered if found.wants_success => {
            set_stage(work, id, DeliveryStage::Reporting(ReportKind::Delivered))
        }
        DeliveryStage::Reporting(_) => Ok(Answer::Done),
        DeliveryStage::Delivered | DeliveryStage::Waiting | DeliveryStage::Deferred { .. } | DeliveryStage::Held(_) => {
            forget(work, id)
        }
    }
}

fn attempted(work: &mut Work<'_>, id: RecipientId, attempt: &Attempt) -> Result<Answer, Refusal> {
    let Some(stage) = work.state.queue.recipient(id).map(|recipient| recipient.stage) else {
        return Ok(Answer::Done);
    };
    let (failed, warned) = match (stage, attempt.end) {
        (DeliveryStage::Deferred { failed, warned, .. }, _) => (failed.saturating_add(1), warned),
        (DeliveryStage::Waiting | DeliveryStage::Held(_), _) => (1, false),
        // Returned by an operator while it was sent, and the sender is not told yet: it is there.
        (DeliveryStage::Reporting(ReportKind::Failed), AttemptEnd::Sent { .. }) if !plant::is(Fault::SentIsBounced) => {
            (0, false)
        }
        (DeliveryStage::Delivered | DeliveryStage::Reporting(_), _) => return Ok(Answer::Done),
    };
    work.put(attempt_key(work.mailbox(), id), &attempt.diagnosis.clone().bounded());
    match (attempt.end, stage) {
        (AttemptEnd::Sent { report: None }, _) => forget(work, id),
        (AttemptEnd::Sent { report: Some(kind) }, _) => set_stage(work, id, DeliveryStage::Reporting(kind)),
        (AttemptEnd::Failed, _) => set_stage(work, id, DeliveryStage::Reporting(ReportKind::Failed)),
        // An operator holds it since the attempt began.
        (AttemptEnd::Deferred { .. }, DeliveryStage::Held(_)) => Ok(Answer::Done),
        (AttemptEnd::Deferred { next }, _) => set_stage(work, id, DeliveryStage::Deferred { failed, next, warned }),
    }
}

fn no_such_recipient() -> Refusal {
    Refusal::NotAllowed("the queue has no such recipient".to_owned())
}
