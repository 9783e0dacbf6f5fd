//! Delivery: into INBOX or the folder of `+detail`, once in a day.

use mailraft_storage::plant::{self, Fault};
use mailraft_storage::{RowBatch, UnixMillis};

use super::draft;
use crate::api::{Answer, Draft, FolderId, HIERARCHY_SEPARATOR, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::names::INBOX;
use crate::records::{DeliveryRecord, KeyedHash, delivery_key};
use crate::state::State;
use crate::work::{Context, Work};

/// How long a delivery's answer is kept for a sender that repeats it, in milliseconds.
pub const DELIVERY_KEPT_MILLIS: u64 = 24 * 3_600_000;
/// The most deliveries remembered; past them the oldest are forgotten.
pub const DELIVERIES_MAX: usize = 50_000;
/// The most deliveries that one delivery forgets.
const FORGOTTEN_AT_ONCE: usize = 64;
/// What lies about this much longer, in milliseconds, because no delivery came to forget it, is left to a sweep.
const LEFT_MILLIS: u64 = 6 * 3_600_000;
/// The most deliveries that one sweeping entry forgets.
const SWEPT_AT_ONCE: usize = 4_000;

pub fn deliver(
    work: &mut Work<'_>,
    draft: &Draft,
    reverse_path: &str,
    detail: Option<&str>,
    deduplicate: bool,
    received: ZonedTime,
) -> Result<Answer, Refusal> {
    forget_old(work);
    let remembers = deduplicate && !plant::is(Fault::DeliveryNotRemembered);
    let hash = remembers.then(|| hash(work, draft, reverse_path)).flatten();
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

/// The deletion of old deliveries' answers that no later delivery forgot, and the state after it. None if there are
/// none.
pub(crate) fn sweep_deliveries(state: &State, cx: &Context, now: UnixMillis) -> Option<(RowBatch, State)> {
    let before = UnixMillis(now.0.saturating_sub(DELIVERY_KEPT_MILLIS + LEFT_MILLIS));
    if !state.has_deliveries_before(before) {
        return None;
    }
    let mut next = state.clone();
    let gone = next.forget_deliveries(before, DELIVERIES_MAX, SWEPT_AT_ONCE);
    let deletes = gone.iter().map(|hash| delivery_key(cx.place.mailbox, hash)).collect();
    Some((RowBatch { puts: Vec::new(), deletes }, next))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::harness::{World, create, deliver as command, stored_uid};
    use mailraft_storage::Table;

    #[test]
    fn a_repeat_within_a_day_is_answered_with_the_first_one_and_leaves_no_row() {
        let mut world = World::new();
        let draft = world.draft("m");
        let first = world.run(command(draft, "a@x", None));
        world.reload();
        let now = world.env.wall;
        let mut again = world.uploaded(2, now);
        again.message_id = Some("<m@x>".into());
        assert_eq!(world.run(command(again, "a@x", None)), first);
        assert_eq!((world.count(Table::Chunks), world.count(Table::OpenBodies), world.uids("INBOX").len()), (1, 0, 1));
        // Not the same: another sender, other content, the null reverse-path, no Message-ID, submission.
        for n in 0..5 {
            let mut draft = world.draft("m");
            draft.content_digest = if n == 1 { [8; 32] } else { draft.content_digest };
            draft.message_id = draft.message_id.filter(|_| n != 3);
            let mut command = command(draft, ["b@x", "a@x", "", "a@x", "a@x"][n], None);
            if let Command::Deliver { deduplicate, .. } = &mut command {
                *deduplicate = n != 4;
            }
            assert_eq!(stored_uid(world.run(command)), n as u32 + 2);
        }
        // After a day it is new, and the rows of the old ones go.
        world.env.wall.0 += 2 * DELIVERY_KEPT_MILLIS;
        let draft = world.draft("m");
        assert_eq!(stored_uid(world.run(command(draft, "a@x", None))), 7);
        assert_eq!(world.count(Table::Deliveries), 1);
        world.assert_rows_are_memory();
    }

    #[test]
    fn what_no_later_delivery_forgets_is_swept_and_a_day_is_kept_whole() {
        let mut world = World::new();
        for n in 0..3 {
            let mut draft = world.draft("m");
            draft.message_id = Some(format!("<{n}@x>"));
            stored_uid(world.run(command(draft, "a@x", None)));
        }
        for (hours, left) in [(24, 3), (8, 0)] {
            world.env.wall.0 += hours * 3_600_000;
            world.drain();
            assert_eq!(world.count(Table::Deliveries), left, "after {hours} hours more");
        }
        assert!(!world.step(), "nothing is left to do");
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_detail_names_a_folder_if_there_is_one() {
        let mut world = World::new();
        for name in ["lists", "INBOX/bills", "a/b"] {
            world.run(create(name)).unwrap();
        }
        for (detail, folder) in [
            (Some("lists"), "lists"),
            (Some("bills"), "INBOX/bills"),
            (Some("LISTS"), "INBOX"),
            (Some("none"), "INBOX"),
            (Some("a/b"), "a/b"),
            (Some(""), "INBOX"),
            (None, "INBOX"),
        ] {
            let before = world.uids(folder).len();
            let mut draft = world.draft("x");
            draft.message_id = None;
            world.run(command(draft, "a@x", detail)).unwrap();
            assert_eq!(world.uids(folder).len(), before + 1, "{detail:?}");
        }
    }
}
