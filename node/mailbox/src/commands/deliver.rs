//! Delivery: into INBOX or the folder of `+detail`, once in a day.

use mailraft_storage::UnixMillis;

use super::draft;
use crate::api::{Answer, Draft, FolderId, Refusal, ZonedTime, HIERARCHY_SEPARATOR};
use crate::flags::Flags;
use crate::names::INBOX;
use crate::records::{delivery_key, DeliveryRecord, KeyedHash};
use crate::work::Work;

/// How long a delivery's answer is kept for a sender that repeats it, in milliseconds.
pub const DELIVERY_KEPT_MILLIS: u64 = 24 * 3_600_000;
/// The most deliveries remembered; past them the oldest are forgotten.
pub const DELIVERIES_MAX: usize = 50_000;
/// The most deliveries that one delivery forgets.
const FORGOTTEN_AT_ONCE: usize = 64;

pub fn deliver(
    work: &mut Work<'_>, draft: &Draft, reverse_path: &str, detail: Option<&str>, deduplicate: bool, received: ZonedTime,
) -> Result<Answer, Refusal> {
    forget_old(work);
    let hash = deduplicate.then(|| hash(work, draft, reverse_path)).flatten();
    if let Some(hash) = &hash {
        let first = work.state.delivery(hash).filter(|r| r.at.0 + DELIVERY_KEPT_MILLIS >= work.env.wall.0).copied();
        if let Some(DeliveryRecord { uid_validity, uid, modseq, .. }) = first {
            for row in draft::upload_rows(work.cx, draft) {
                work.delete(row);
            }
            return Ok(Answer::Stored { uid_validity, uid, modseq });
        }
    }
    let folder = target(work, detail).ok_or(Refusal::NoSuchFolder)?;
    let answer = draft::put(work, folder, draft, &Flags::none(), received)?;
    if let (Some(hash), Answer::Stored { uid_validity, uid, modseq }) = (hash, &answer) {
        let record = DeliveryRecord { at: work.env.wall, uid_validity: *uid_validity, uid: *uid, modseq: *modseq };
        work.state.forget_delivery(&hash);
        work.state.remember_delivery(hash, record);
        work.put(delivery_key(work.mailbox(), &hash), &record);
    }
    Ok(answer)
}

/// The folder of the detail at the top or below INBOX, else INBOX.
fn target(work: &Work<'_>, detail: Option<&str>) -> Option<FolderId> {
    let selectable = |name: &str| work.state.named(name).filter(|id| work.opened(*id).is_ok());
    detail
        .filter(|d| !d.is_empty())
        .and_then(|d| selectable(d).or_else(|| selectable(&format!("{INBOX}{HIERARCHY_SEPARATOR}{d}"))))
        .or_else(|| selectable(INBOX))
}

/// What makes two deliveries one. None where a repeat can't be told from a new message.
fn hash(work: &Work<'_>, draft: &Draft, reverse_path: &str) -> Option<KeyedHash> {
    let message_id = draft.message_id.as_ref().filter(|_| !reverse_path.is_empty())?;
    let mailbox = work.mailbox();
    let parts: [&[u8]; 4] = [&mailbox.0, reverse_path.as_bytes(), message_id.as_bytes(), &draft.content_digest];
    Some(work.cx.delivery_key.keyed_hash(&parts))
}

fn forget_old(work: &mut Work<'_>) {
    let before = UnixMillis(work.env.wall.0.saturating_sub(DELIVERY_KEPT_MILLIS));
    let mailbox = work.mailbox();
    for hash in work.state.forget_deliveries(before, DELIVERIES_MAX, FORGOTTEN_AT_ONCE) {
        work.delete(delivery_key(mailbox, &hash));
    }
}
