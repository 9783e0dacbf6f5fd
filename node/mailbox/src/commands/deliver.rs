//! Delivery: into INBOX or the folder of `+detail`, once in a day while the message is there.

use mailraft_storage::{RowBatch, UnixMillis};

use super::new_message;
use crate::api::{Answer, FolderId, HIERARCHY_SEPARATOR, NewMessage, Refusal, SpecialUse, ZonedTime};
use crate::flags::Flags;
use crate::names::INBOX;
use crate::plant::{self, Fault};
use crate::quarantine::{Placement, own_detail};
use crate::records::{DeliveryRecord, KeyedHash, delivery_key};
use crate::state::{Folder, State};
use crate::work::{Context, Row, Work};

/// The most deliveries that one delivery forgets.
const FORGOTTEN_AT_ONCE: usize = 64;
/// The most deliveries that one sweeping entry forgets.
const SWEPT_AT_ONCE: usize = 1_000;

/// How a message is delivered.
pub struct Delivery<'a> {
    /// The reverse-path, empty for null.
    pub reverse_path: &'a str,
    pub detail: Option<&'a str>,
    pub deduplicate: bool,
    pub received: ZonedTime,
}

pub fn deliver(work: &mut Work<'_>, new_message: &NewMessage, how: &Delivery<'_>) -> Result<Answer, Refusal> {
    once_a_day(work, new_message, how, |work, folder| {
        new_message::put(work, folder, new_message, &Flags::none(), how.received)
    })
}

/// Puts a message into its folder, unless it repeats what was delivered within a day and is still there.
pub fn once_a_day<'w>(
    work: &mut Work<'w>,
    new_message: &NewMessage,
    how: &Delivery<'_>,
    put: impl FnOnce(&mut Work<'w>, FolderId) -> Result<Answer, Refusal>,
) -> Result<Answer, Refusal> {
    forget_old(work);
    let remembers = how.deduplicate && !plant::is(Fault::DeliveryNotRemembered);
    let (detail, placement) = own_detail(how.detail);
    let hash = remembers.then(|| hash(work, new_message, how.reverse_path, detail)).flatten();
    let early = if plant::is(Fault::DeliveryForgottenEarly) { 8 } else { 1 };
    if let Some(hash) = &hash {
        let since = work.env.wall.0.saturating_sub(work.cx.limits.delivery_kept_ms / early);
        let first = work.state.delivery(hash).filter(|r| r.at.0 >= since).copied();
        // Who expunged it and gets it again wants it again.
        if let Some(DeliveryRecord { uid_validity, uid, modseq, .. }) = first.filter(|r| is_in_mailbox(&work.state, r))
        {
            new_message::delete_upload(work, new_message);
            return Ok(Answer::Stored { uid_validity, uid, modseq });
        }
    }
    let folder = target(work, detail, placement).ok_or(Refusal::NoSuchFolder)?;
    let answer = put(work, folder)?;
    if let (Some(hash), Answer::Stored { uid_validity, uid, modseq }) = (hash, &answer) {
        let email = Some(work.cx.email_id(new_message.body));
        let record =
            DeliveryRecord { at: work.env.wall, uid_validity: *uid_validity, uid: *uid, modseq: *modseq, email };
        work.state.forget_delivery(&hash);
        work.state.remember_delivery(hash, record);
        work.rows.insert(delivery_key(work.mailbox(), &hash), Row::Plain(record.encode()));
    }
    Ok(answer)
}

/// Junk for what is quarantined; else the folder of the detail at the top or below INBOX. INBOX where that is not there.
fn target(work: &Work<'_>, detail: Option<&str>, placement: Placement) -> Option<FolderId> {
    let selectable = |name: &str| work.state.named(name).filter(|id| work.opened(*id).is_ok());
    let junk = || {
        let mut folders = work.state.folders();
        let is_junk = |folder: &Folder| folder.record.special_use == Some(SpecialUse::Junk);
        folders.find(|(id, folder)| is_junk(folder) && work.opened(*id).is_ok()).map(|(id, _)| id)
    };
    if placement == Placement::Junk {
        return junk().or_else(|| selectable(INBOX));
    }
    detail
        .and_then(|d| selectable(d).or_else(|| selectable(&format!("{INBOX}{HIERARCHY_SEPARATOR}{d}"))))
        .or_else(|| selectable(INBOX))
}

/// Whether the message that was delivered is in some folder, wherever it was moved or copied to.
fn is_in_mailbox(state: &State, record: &DeliveryRecord) -> bool {
    match record.email {
        Some(email) => state.email(email).is_some(),
        // An earlier version kept only where it was stored.
        None => {
            let folder = state.folders().find(|(_, f)| f.record.uid_validity == record.uid_validity);
            folder.is_some_and(|(_, f)| f.get(record.uid).is_some())
        }
    }
}

/// What makes two deliveries one: sender, Message-ID, content and detail. None where a repeat can't be told from a
/// new message.
fn hash(work: &Work<'_>, new_message: &NewMessage, reverse_path: &str, detail: Option<&str>) -> Option<KeyedHash> {
    let message_id = new_message.message_id.as_ref().filter(|_| !reverse_path.is_empty())?;
    let mailbox = work.mailbox();
    let mut parts: Vec<&[u8]> =
        vec![&mailbox.0, reverse_path.as_bytes(), message_id.as_bytes(), &new_message.content_digest];
    // Without a detail as an earlier version wrote it, so that its rows are found.
    parts.extend(detail.map(str::as_bytes));
    Some(work.cx.delivery_key.keyed_hash(&parts))
}

fn forget_old(work: &mut Work<'_>) {
    let limits = work.cx.limits;
    let before = UnixMillis(work.env.wall.0.saturating_sub(limits.delivery_kept_ms));
    let mailbox = work.mailbox();
    for hash in work.state.forget_deliveries(before, limits.deliveries_max, FORGOTTEN_AT_ONCE) {
        work.delete(delivery_key(mailbox, &hash));
    }
}

/// The deletion of old deliveries' answers that no later delivery forgot, and the state after it. None if there are
/// none.
pub(crate) fn sweep_deliveries(state: &State, cx: &Context, now: UnixMillis) -> Option<(RowBatch, State)> {
    let limits = cx.limits;
    let left_ms = limits.delivery_kept_ms + limits.delivery_left_ms;
    let before = UnixMillis(now.0.saturating_sub(if plant::is(Fault::SweepForgetsDeliveries) { 0 } else { left_ms }));
    if !state.has_deliveries_before(before) {
        return None;
    }
    let mut next = state.clone();
    let gone = next.forget_deliveries(before, limits.deliveries_max, SWEPT_AT_ONCE);
    let deletes = gone.iter().map(|hash| delivery_key(cx.place.mailbox, hash)).collect();
    Some((RowBatch { puts: Vec::new(), deletes }, next))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::harness::{ALL, World, create, deliver as command, stored_uid};
    use crate::limits::DELIVERY_KEPT_MILLIS;
    use crate::quarantine::quarantined;
    use mailraft_storage::Table;

    #[test]
    fn a_repeat_within_a_day_is_answered_with_the_first_one_and_leaves_no_row() {
        let mut world = World::new();
        let new_message = world.new_message("m");
        let first = world.run(command(new_message, "a@x", None));
        world.reload();
        let now = world.env.wall;
        let mut again = world.uploaded(2, now);
        again.message_id = Some("<m@x>".into());
        assert_eq!(world.run(command(again, "a@x", None)), first);
        assert_eq!((world.count(Table::Chunks), world.count(Table::OpenBodies), world.uids("INBOX").len()), (1, 0, 1));
        // Not the same: another sender, other content, the null reverse-path, no Message-ID, submission.
        for n in 0..5 {
            let mut new_message = world.new_message("m");
            new_message.content_digest = if n == 1 { [8; 32] } else { new_message.content_digest };
            new_message.message_id = new_message.message_id.filter(|_| n != 3);
            let mut command = command(new_message, ["b@x", "a@x", "", "a@x", "a@x"][n], None);
            if let Command::Deliver { deduplicate, .. } = &mut command {
                *deduplicate = n != 4;
            }
            assert_eq!(stored_uid(world.run(command)), n as u32 + 2);
        }
        // After a day it is new, and the rows of the old ones go.
        world.env.wall.0 += 2 * DELIVERY_KEPT_MILLIS;
        let new_message = world.new_message("m");
        assert_eq!(stored_uid(world.run(command(new_message, "a@x", None))), 7);
        assert_eq!(world.count(Table::Deliveries), 1);
        world.assert_rows_are_memory();
    }

    #[test]
    fn the_same_message_to_two_details_is_stored_for_each() {
        let mut world = World::new();
        for name in ["a", "b"] {
            world.run(create(name)).unwrap();
        }
        let mut deliver = |detail| {
            let new_message = world.new_message("m");
            world.run(command(new_message, "a@x", detail)).unwrap()
        };
        let first = [Some("a"), Some("b"), None].map(&mut deliver);
        let again = [Some("a"), Some("b"), Some("")].map(&mut deliver);
        assert_eq!(first, again, "each is recognised by its own detail; an empty one is none");
        assert_eq!(["a", "b", "INBOX"].map(|folder| world.uids(folder).len()), [1, 1, 1]);
    }

    #[test]
    fn a_repeat_is_dropped_only_while_what_it_repeats_is_in_the_mailbox() {
        let mut world = World::new();
        let deliver = |world: &mut World| {
            let new_message = world.new_message("m");
            stored_uid(world.run(command(new_message, "a@x", None)))
        };
        assert_eq!(deliver(&mut world), 1);
        // Moved, and copied, it is still there: whoever loads the mailbox anew knows that too.
        let inbox = world.id("INBOX");
        let to_archive = Command::Move { folder: inbox, uids: ALL(), to: "Archive".into() };
        world.run(to_archive).unwrap();
        world.reload();
        assert_eq!((deliver(&mut world), world.uids("INBOX").len()), (1, 0));
        let archive = world.id("Archive");
        world.run(Command::Copy { folder: archive, uids: ALL(), to: "Trash".into() }).unwrap();
        for folder in [archive, world.id("Trash")] {
            assert_eq!((deliver(&mut world), world.uids("INBOX").len()), (1, 0));
            let flags = Flags::none().with(crate::SystemFlag::Deleted);
            let mode = crate::api::StoreMode::Add;
            world.run(Command::Store { folder, uids: ALL(), mode, flags, unchanged_since: None }).unwrap();
            world.run(Command::Expunge { folder, uids: None }).unwrap();
        }
        // Expunged everywhere: who gets it again finds it, and a repeat of that is dropped again.
        assert_eq!((deliver(&mut world), world.uids("INBOX")), (2, vec![2]));
        assert_eq!((deliver(&mut world), world.uids("INBOX")), (2, vec![2]));
        assert_eq!(world.count(Table::Deliveries), 1);
        world.assert_rows_are_memory();
    }

    #[test]
    fn what_no_later_delivery_forgets_is_swept_and_a_day_is_kept_whole() {
        let mut world = World::new();
        for n in 0..3 {
            let mut new_message = world.new_message("m");
            new_message.message_id = Some(format!("<{n}@x>"));
            stored_uid(world.run(command(new_message, "a@x", None)));
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
    fn what_is_quarantined_goes_to_junk_and_is_the_same_message_as_before() {
        let mut world = World::new();
        world.run(create("lists")).unwrap();
        let mut deliver = |id: &str, detail: Option<String>| {
            let mut new_message = world.new_message("m");
            new_message.message_id = Some(id.to_owned());
            world.run(command(new_message, "a@x", detail.as_deref())).unwrap();
            ["INBOX", "lists", "Junk"].map(|folder| world.uids(folder).len())
        };
        assert_eq!(deliver("<1@x>", Some(quarantined(None))), [0, 0, 1]);
        assert_eq!(deliver("<2@x>", Some(quarantined(Some("lists")))), [0, 0, 2]);
        // The sender did not hear of it, sends it again, and meanwhile the DNS says something else.
        assert_eq!(deliver("<1@x>", None), [0, 0, 2]);
        assert_eq!(deliver("<2@x>", Some("lists".to_owned())), [0, 0, 2]);
        assert_eq!(deliver("<3@x>", Some("lists".to_owned())), [0, 1, 2]);
        assert_eq!(deliver("<3@x>", Some(quarantined(Some("lists")))), [0, 1, 2]);
    }

    #[test]
    fn without_a_folder_for_junk_what_is_quarantined_goes_to_inbox() {
        let mut world = World::new();
        world.run(Command::RenameFolder { from: "Junk".into(), to: "Spam".into() }).unwrap();
        let deliver = |world: &mut World, folder: &str| {
            let mut new_message = world.new_message("x");
            new_message.message_id = None;
            world.run(command(new_message, "a@x", Some(&quarantined(None)))).unwrap();
            world.uids(folder).len()
        };
        assert_eq!(deliver(&mut world, "Spam"), 1, "it is known by its use, not by its name");
        world.run(Command::DeleteFolder { name: "Spam".into() }).unwrap();
        assert_eq!(deliver(&mut world, "INBOX"), 1);
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
            let mut new_message = world.new_message("x");
            new_message.message_id = None;
            world.run(command(new_message, "a@x", detail)).unwrap();
            assert_eq!(world.uids(folder).len(), before + 1, "{detail:?}");
        }
    }
}
