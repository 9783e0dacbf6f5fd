//! What an operator wants done with recipients of an item.

use mailraft_storage::CommandId;

use super::change_queue::{forget, set_stage};
use crate::accepted::{ASKED_FOR, DeliveryStage, Diagnosis, HeldBecause, QueueDecision, ReportKind};
use crate::api::{Answer, Refusal};
use crate::queue::items::RecipientId;
use crate::queue::rows::attempt_key;
use crate::work::Work;

/// Decides about these recipients, or all if none are named. Answers for how many it was.
pub fn decide_queued(
    work: &mut Work<'_>,
    item: CommandId,
    recipients: &[u32],
    decision: QueueDecision,
) -> Result<Answer, Refusal> {
    let Some(found) = work.state.queue.get(item) else {
        return Err(Refusal::NotAllowed("nothing of this id waits".to_owned()));
    };
    let chosen: Vec<(RecipientId, DeliveryStage)> = found
        .recipients
        .iter()
        .filter(|(number, _)| recipients.is_empty() || recipients.contains(number))
        .map(|(number, recipient)| ((item, *number), recipient.stage))
        .collect();
    let mut decided = 0;
    for (id, stage) in chosen {
        decided += u32::from(decide_one(work, id, stage, decision)?);
    }
    Ok(Answer::Counted(decided))
}

/// Whether it is anything that this recipient can be decided about.
fn decide_one(
    work: &mut Work<'_>,
    id: RecipientId,
    stage: DeliveryStage,
    decision: QueueDecision,
) -> Result<bool, Refusal> {
    match stage {
        // It is done but for words between servers, or for the sender's.
        DeliveryStage::Delivered | DeliveryStage::Reporting(_) => return Ok(false),
        DeliveryStage::Waiting | DeliveryStage::Deferred { .. } | DeliveryStage::Held(_) => {}
    }
    match (decision, stage) {
        (QueueDecision::Hold, DeliveryStage::Held(_)) => return Ok(false),
        (QueueDecision::Hold, _) => set_stage(work, id, DeliveryStage::Held(HeldBecause::Operator))?,
        (QueueDecision::Release, DeliveryStage::Held(_)) => set_stage(work, id, DeliveryStage::Waiting)?,
        (QueueDecision::Release, _) => return Ok(false),
        (QueueDecision::Retry, DeliveryStage::Deferred { failed, warned, .. }) => {
            set_stage(work, id, DeliveryStage::Deferred { failed, next: ASKED_FOR, warned })?
        }
        (QueueDecision::Retry, _) if is_outside(work, id) => {
            set_stage(work, id, DeliveryStage::Deferred { failed: 0, next: ASKED_FOR, warned: false })?
        }
        (QueueDecision::Retry, _) => set_stage(work, id, DeliveryStage::Waiting)?,
        (QueueDecision::Return, _) => {
            let text = "an operator returned the message".to_owned();
            let (at, status) = (work.env.wall, "5.7.1".to_owned());
            let diagnosis = Diagnosis { at, host: None, status, text, is_reply: false };
            work.put(attempt_key(work.mailbox(), id), &diagnosis);
            set_stage(work, id, DeliveryStage::Reporting(ReportKind::Failed))?
        }
        (QueueDecision::Drop, _) => forget(work, id)?,
    };
    Ok(true)
}

fn is_outside(work: &Work<'_>, id: RecipientId) -> bool {
    work.state.queue.recipient(id).is_some_and(|recipient| recipient.domain.is_some())
}
