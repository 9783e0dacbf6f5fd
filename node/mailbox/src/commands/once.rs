//! Repeats by a client that heard no answer: the first one's answer, and nothing is done again.
//!
//! What is remembered is replicated like all rows, in the entry that does the first, so that whoever owns the mailbox next
//! knows it too. It is forgotten when the client is known to have heard the answer: whoever then asks for the same wants
//! it twice. Else after an hour.

use std::time::Duration;

use mailraft_storage::{CommandId, RowBatch, UnixMillis};

use super::accept::accepted_as;
use super::{decide, upload_rows};
use crate::api::{Answer, Command, Once, Refusal};
use crate::limits::{HEARD_MAX, REPEAT_MAX_BYTES};
use crate::names;
use crate::plant::{self, Fault};
use crate::quarantine::own_detail;
use crate::records::{KeyedHash, PackedUids, RepeatRecord, Repeated, encode, repeat_key};
use crate::state::State;
use crate::uids::UidSet;
use crate::work::{Context, Work};

/// Does a command, unless the same was done within the hour, nobody is known to have heard its answer, and what it made is
/// still there.
pub fn once(work: &mut Work<'_>, once: &Once, command: &Command) -> Result<Answer, Refusal> {
    heard(work, &once.heard)?;
    let Some(hash) = hash(work, once, command) else { return decide(work, command) };
    let since = since(work.env.wall, kept_ms(work.cx));
    let is_repeat = |first: &&RepeatRecord| {
        let own = once.own.contains(&first.command);
        let heard = own || work.cx.heard.is_heard(&hash, first.command);
        first.at >= since && !heard
    };
    let first = work.state.repeat(&hash).filter(is_repeat).cloned();
    if let Some((first, answer)) =
        first.and_then(|first| answer_of(&work.state, command, &first).map(|answer| (first, answer)))
    {
        for row in upload_rows(work.cx, command) {
            work.delete(row);
        }
        // The repeat's answer is the one that will be heard, or not.
        remember(work, hash, RepeatRecord { command: work.command, ..first });
        return Ok(answer);
    }
    let answer = decide(work, command)?;
    let Some(made) = made(work, command, &answer) else { return Ok(answer) };
    let record = RepeatRecord { at: work.env.wall, command: work.command, made };
    if encode(&record).len() <= REPEAT_MAX_BYTES {
        forget_old(work);
        remember(work, hash, record);
    }
    Ok(answer)
}

fn remember(work: &mut Work<'_>, hash: KeyedHash, record: RepeatRecord) {
    if !plant::is(Fault::RepeatNotRemembered) {
        work.put(repeat_key(work.mailbox(), &hash), &record);
    }
    work.state.remember_repeat(hash, record);
}

/// The client of these commands has heard their answers: from now on who asks for the same wants it once more.
fn heard(work: &mut Work<'_>, commands: &[CommandId]) -> Result<(), Refusal> {
    if commands.len() > HEARD_MAX {
        return Err(Refusal::Limit(format!("at most {HEARD_MAX} answers are heard at once")));
    }
    let mailbox = work.mailbox();
    if plant::is(Fault::HeardIgnored) {
        return Ok(());
    }
    let gone = match plant::is(Fault::HeardOfOthers) && !commands.is_empty() {
        true => work.state.forget_repeats(UnixMillis(u64::MAX), 0),
        false => work.state.forget_repeats_of(commands),
    };
    for hash in gone {
        work.delete(repeat_key(mailbox, &hash));
    }
    Ok(())
}

/// What makes two commands one, beside the mailbox. None for those that may be repeated as they are: they come to nothing
/// the second time, or are refused.
fn hash(work: &Work<'_>, once: &Once, command: &Command) -> Option<KeyedHash> {
    let mailbox = work.mailbox();
    let target = |name: &str| work.state.named(&names::spelt(name)).map(|id| id.0.to_be_bytes());
    let hash = |kind: &str, parts: &[&[u8]]| {
        let request = if plant::is(Fault::RepeatOfAnyDate) { &[0; 32] } else { &once.request };
        let mut all: Vec<&[u8]> = vec![&mailbox.0, kind.as_bytes(), request];
        all.extend(parts);
        work.cx.repeat_key.keyed_hash(&all)
    };
    Some(match command {
        Command::Append { folder, new_message, flags, internal_date: _ } => {
            let folder = if plant::is(Fault::RepeatInAnyFolder) { Default::default() } else { target(folder)? };
            hash("append", &[&folder, &encode(flags), &new_message.digest])
        }
        Command::AppendMany { folder, messages } => {
            let each = messages.iter().flat_map(|m| [encode(&m.flags), m.new_message.digest.to_vec()]);
            let parts: Vec<Vec<u8>> = std::iter::once(target(folder)?.to_vec()).chain(each).collect();
            hash("append many", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
        }
        Command::Deliver { new_message, reverse_path, detail, .. } => {
            let detail = own_detail(detail.as_deref()).0.unwrap_or_default();
            hash("deliver", &[reverse_path.as_bytes(), detail.as_bytes(), &new_message.content_digest])
        }
        Command::Accept { new_message, accepted, .. } => {
            hash("accept", &[accepted.reverse_path.as_bytes(), &new_message.content_digest])
        }
        Command::Copy { folder, uids, to } => {
            hash("copy", &[&folder.0.to_be_bytes(), &target(to)?, &encode(&PackedUids::pack(uids))])
        }
        Command::Move { .. }
        | Command::Store { .. }
        | Command::Expunge { .. }
        | Command::CreateFolder { .. }
        | Command::CreateFolderFor { .. }
        | Command::Quota
        | Command::Replace { .. }
        | Command::CountDeleted { .. }
        | Command::Watch { .. }
        | Command::Statuses { .. }
        | Command::DeleteFolder { .. }
        | Command::RenameFolder { .. }
        | Command::Subscribe { .. }
        | Command::Once { .. }
        | Command::Heard { .. }
        | Command::Sync
        | Command::List
        | Command::Status { .. }
        | Command::Select { .. }
        | Command::Resume { .. }
        | Command::Unselect
        | Command::Fetch { .. }
        | Command::Maildrop
        | Command::UniqueIds { .. }
        | Command::SaveDates { .. }
        | Command::Remove { .. }
        | Command::DeliverQueued { .. }
        | Command::ReleaseQueued { .. }
        | Command::ChangeQueue { .. }
        | Command::Report { .. }
        | Command::DecideQueued { .. }
        | Command::QueueAsked { .. }
        | Command::QueueAttempts { .. }
        | Command::QueueItems { .. }
        | Command::QueueItem { .. }
        | Command::InMaildrop { .. }
        | Command::Search(_)
        | Command::ReadChunks { .. }
        | Command::ReadChunk { .. } => return None,
    })
}

/// What a command made. None if that is nothing that a repeat would make twice.
fn made(work: &Work<'_>, command: &Command, answer: &Answer) -> Option<Repeated> {
    match (command, answer) {
        (
            Command::Append { new_message, .. } | Command::Deliver { new_message, .. },
            Answer::Stored { uid_validity, uid, modseq },
        ) => {
            let email = work.cx.email_id(new_message.body);
            // A delivery that an earlier one's answer was told to has made nothing.
            work.state.email(email)?;
            Some(Repeated::Stored { email, uid_validity: *uid_validity, uid: *uid, modseq: *modseq })
        }
        (Command::Accept { .. }, Answer::Accepted { item, .. }) => Some(Repeated::Accepted { item: *item }),
        // As copies of as many: a node of an earlier version can read that.
        (Command::AppendMany { folder, .. }, Answer::Appended { uid_validity, uids }) => {
            let (folder, first) = (work.state.named(&names::spelt(folder))?, *uids.first()?);
            let (count, uid_validity) = (u32::try_from(uids.len()).ok()?, *uid_validity);
            let from = PackedUids::pack(&UidSet::range(1, count));
            Some(Repeated::Copied { folder, uid_validity, from, first, count })
        }
        (Command::Copy { to: target, .. }, Answer::Copied { uid_validity, from, to }) => {
            let folder = work.state.named(&names::spelt(target))?;
            let (from, first) = (from.iter().copied().collect(), *to.first()?);
            let rising = to.iter().zip(first..).all(|(uid, expected)| *uid == expected);
            assert!(rising, "copies get UIDs without a gap");
            let from = PackedUids::pack(&from);
            Some(Repeated::Copied { folder, uid_validity: *uid_validity, from, first, count: to.len() as u32 })
        }
        _ => None,
    }
}

/// The answer to the first, if all that it made is still there. Who removed some of it and asks again wants it again.
/// What was appended must be in the folder under its UID; what was delivered may have been filed elsewhere.
fn answer_of(state: &State, command: &Command, first: &RepeatRecord) -> Option<Answer> {
    let gone_too = plant::is(Fault::RepeatOfWhatIsGone);
    match &first.made {
        Repeated::Stored { email, uid_validity, uid, modseq } => {
            if !gone_too {
                state.email(*email)?;
            }
            if let Command::Append { folder, .. } = command
                && !gone_too
            {
                let folder = state.named(&names::spelt(folder))?;
                state.folder(folder)?.get(*uid)?;
            }
            Some(Answer::Stored { uid_validity: *uid_validity, uid: *uid, modseq: *modseq })
        }
        // It is delivered, whatever the recipients did with it since.
        Repeated::Accepted { item } => match command {
            Command::Accept { accepted, .. } => Some(accepted_as(*item, accepted)),
            _ => None,
        },
        Repeated::Copied { folder, uid_validity, from, first, count } => {
            let there = state.folder(*folder)?;
            let to: Vec<u32> = (*first..first.checked_add(*count)?).collect();
            if !gone_too && !to.iter().all(|uid| there.get(*uid).is_some()) {
                return None;
            }
            if let Command::AppendMany { .. } = command {
                return Some(Answer::Appended { uid_validity: *uid_validity, uids: to });
            }
            // Every row was checked when it was loaded.
            let copied = from.unpack().ok()?;
            if let Command::Copy { folder: source, uids, .. } = command {
                // What came since would be in no copy, and whoever asked may remove what he copied.
                let is_copy = |uid: u32| source == folder && to.contains(&uid);
                let came = |uid: u32| !copied.contains(uid) && !is_copy(uid);
                if !gone_too && state.folder(*source)?.within(uids).any(|(uid, _)| came(uid)) {
                    return None;
                }
            }
            let from: Vec<u32> = copied.iter().collect();
            Some(Answer::Copied { uid_validity: *uid_validity, from, to })
        }
    }
}

fn since(now: UnixMillis, kept_ms: u64) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(kept_ms))
}

/// How long an answer is kept, in milliseconds.
fn kept_ms(cx: &Context) -> u64 {
    match cx.limits.repeat_kept_ms {
        _ if plant::is(Fault::RepeatKeptForever) => u64::MAX,
        kept if plant::is(Fault::RepeatForgottenEarly) => kept / 8,
        kept => kept,
    }
}

fn forget_old(work: &mut Work<'_>) {
    let (before, mailbox) = (since(work.env.wall, kept_ms(work.cx)), work.mailbox());
    for hash in work.state.forget_repeats(before, work.cx.limits.repeats_max - 1) {
        work.delete(repeat_key(mailbox, &hash));
    }
}

/// The deletion of what no entry took along for a while, and the state after it. None if there is nothing.
pub(crate) fn sweep_heard(state: &State, cx: &Context, now: Duration) -> Option<(RowBatch, State)> {
    if !cx.heard.is_overdue(now) {
        return None;
    }
    let mut next = state.clone();
    let mut gone = cx.heard.in_state(state);
    gone.truncate(cx.limits.sweep_max_rows);
    let deletes = gone.iter().map(|hash| repeat_key(cx.place.mailbox, hash)).collect();
    next.remove_repeats(gone);
    Some((RowBatch { puts: Vec::new(), deletes }, next))
}

/// The deletion of what no later command forgot, and the state after it. None if there is nothing.
pub(crate) fn sweep_repeats(state: &State, cx: &Context, now: UnixMillis) -> Option<(RowBatch, State)> {
    let before = match plant::is(Fault::SweepForgetsRepeats) {
        true => UnixMillis(u64::MAX),
        false => since(now, kept_ms(cx).saturating_add(cx.limits.repeat_left_ms)),
    };
    if !state.has_repeats_before(before) {
        return None;
    }
    let mut next = state.clone();
    let gone = next.forget_repeats(before, cx.limits.repeats_max);
    let deletes = gone.iter().map(|hash| repeat_key(cx.place.mailbox, hash)).collect();
    Some((RowBatch { puts: Vec::new(), deletes }, next))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::{AppendedMessage, NewMessage, StoreMode};
    use crate::engine::Mailbox;
    use crate::flags::{Flags, SystemFlag};
    use crate::harness::{ALL, World, append, create, deliver, stored_uid};
    use crate::limits::{
        HEARD_MEMORY_MAX_BYTES, HEARD_UNWRITTEN_MILLIS, REPEAT_KEPT_MILLIS, REPEAT_LEFT_MILLIS, REPEATS_MAX,
    };
    use mailraft_storage::Table;
    use std::time::Duration;

    fn again(request: u8, command: Command) -> Command {
        let once = Once { request: [request; 32], ..Once::default() };
        Command::Once { once, command: Box::new(command) }
    }

    fn append_again(world: &mut World, folder: &str, text: &str) -> u32 {
        let new_message = message(world, text);
        stored_uid(world.run(again(0, append(folder, new_message, Flags::none()))))
    }

    #[test]
    fn a_message_for_several_that_is_submitted_again_is_accepted_once() {
        let mut world = World::queue();
        let accept = |world: &mut World, request| {
            let mailbox = |n| mailraft_storage::MailboxId([n; 16]);
            let recipient = |n| crate::accepted::AcceptedRecipient {
                address: format!("{n}@x"),
                mailbox: mailbox(n),
                detail: None,
                notify: None,
                orcpt: None,
            };
            let accepted = crate::accepted::AcceptedEnvelope {
                recipients: vec![recipient(1), recipient(2)],
                ..Default::default()
            };
            let new_message = world.new_message("m");
            let command = again(request, Command::Accept { new_message, accepted, received: Default::default() });
            match world.run(command) {
                Ok(Answer::Accepted { item, recipients }) if recipients == ["1@x", "2@x"] => item,
                other => panic!("{other:?}"),
            }
        };
        let first = accept(&mut world, 1);
        world.reload();
        assert_eq!(accept(&mut world, 1), first);
        assert!(accept(&mut world, 2) != first, "to others");
        assert_eq!(world.count(Table::QueueKeys), 2);
        world.env.wall.0 += REPEAT_KEPT_MILLIS + 1;
        assert!(accept(&mut world, 1) != first);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_session_that_has_the_answer_does_not_repeat_what_was_answered() {
        let mut world = World::new();
        assert_eq!(append_again(&mut world, "INBOX", "m"), 1);
        let own = vec![last_command(&world)];
        let new_message = message(&mut world, "m");
        let once = Once { own, ..Once::default() };
        let command = Box::new(append("INBOX", new_message, Flags::none()));
        assert_eq!(stored_uid(world.run(Command::Once { once, command })), 2);
        // Another session's is a repeat still, of the latest.
        assert_eq!(append_again(&mut world, "INBOX", "m"), 2);
        world.assert_rows_are_memory();
    }

    /// A message whose digests are its text's.
    fn message(world: &mut World, text: &str) -> NewMessage {
        let mut new_message = world.new_message(text);
        let digest = crate::harness::digest(text);
        (new_message.digest, new_message.content_digest) = (digest, digest);
        new_message
    }

    /// The id under which the last command was done.
    fn last_command(world: &World) -> CommandId {
        *world.answers.iter().max_by_key(|(_, (_, index))| *index).unwrap().0
    }

    fn expunge(world: &mut World, folder: &str) {
        let folder = world.id(folder);
        let flags = Flags::none().with(SystemFlag::Deleted);
        world.run(Command::Store { folder, uids: ALL(), mode: StoreMode::Add, flags, unchanged_since: None }).unwrap();
        world.run(Command::Expunge { folder, uids: None }).unwrap();
    }

    #[test]
    fn a_repeated_append_gets_the_uid_of_the_first_whoever_owns_the_mailbox_then() {
        let mut world = World::new();
        assert_eq!(append_again(&mut world, "INBOX", "m"), 1);
        world.reload();
        assert_eq!(append_again(&mut world, "inbox", "m"), 1);
        // Uploaded in vain, it leaves no row.
        let now = world.env.wall;
        let mut large = world.uploaded(2, now);
        large.digest = crate::harness::digest("m");
        assert_eq!(stored_uid(world.run(again(0, append("INBOX", large, Flags::none())))), 1);
        assert_eq!((world.uids("INBOX"), world.count(Table::Chunks), world.count(Table::OpenBodies)), (vec![1], 1, 0));
        assert_eq!(world.count(Table::Repeats), 1);
        world.assert_rows_are_memory();
    }

    #[test]
    fn what_differs_is_no_repeat() {
        let mut world = World::new();
        world.run(create("a")).unwrap();
        let seen = Flags::none().with(SystemFlag::Seen);
        for (request, folder, text, flags, uid) in [
            (0, "INBOX", "m", Flags::none(), 1),
            (0, "INBOX", "n", Flags::none(), 2),
            (1, "INBOX", "m", Flags::none(), 3),
            (0, "INBOX", "m", seen, 4),
            (0, "a", "m", Flags::none(), 1),
        ] {
            let new_message = message(&mut world, text);
            assert_eq!(stored_uid(world.run(again(request, append(folder, new_message, flags)))), uid);
        }
        // Made anew, the folder is another.
        world.run(Command::DeleteFolder { name: "a".into() }).unwrap();
        world.run(create("a")).unwrap();
        assert_eq!((append_again(&mut world, "a", "m"), world.uids("a").len()), (1, 1));
        world.assert_rows_are_memory();
    }

    /// The client has heard the last answer.
    fn hear_last(world: &mut World) {
        let commands = vec![last_command(world)];
        world.run(Command::Heard { commands }).unwrap();
    }

    #[test]
    fn who_has_heard_the_answer_may_have_the_same_twice() {
        let mut world = World::new();
        for uid in 1..4 {
            assert_eq!(append_again(&mut world, "INBOX", "m"), uid);
            hear_last(&mut world);
        }
        // Of several attempts the last one's answer is heard.
        assert_eq!(append_again(&mut world, "INBOX", "m"), 4);
        let entries = world.entries;
        hear_last(&mut world);
        assert_eq!((append_again(&mut world, "INBOX", "m"), world.entries), (5, entries + 1), "it costs no entry");
        assert_eq!(append_again(&mut world, "INBOX", "m"), 5);
        world.reload();
        hear_last(&mut world);
        assert_eq!(append_again(&mut world, "INBOX", "m"), 6);
        hear_last(&mut world);
        // Said along with the next one.
        assert_eq!(append_again(&mut world, "INBOX", "m"), 7);
        let once = Once { heard: vec![last_command(&world)], ..Once::default() };
        let new_message = message(&mut world, "m");
        let command = Box::new(append("INBOX", new_message, Flags::none()));
        let too_much = Once { heard: vec![CommandId([7; 16]); HEARD_MAX + 1], ..Once::default() };
        assert!(matches!(
            world.run(Command::Once { once: too_much, command: command.clone() }),
            Err(Refusal::Limit(_))
        ));
        assert_eq!(stored_uid(world.run(Command::Once { once, command })), 8);
        assert_eq!(world.count(Table::Repeats), 1);
        // Of what nobody knows nothing is kept.
        world.run(Command::Heard { commands: vec![CommandId([7; 16])] }).unwrap();
        assert!(world.mailbox.is_idle());
        world.assert_rows_are_memory();
    }

    #[test]
    fn what_was_heard_goes_with_the_next_entry_or_with_one_of_its_own_after_a_while() {
        let mut world = World::new();
        append_again(&mut world, "INBOX", "m");
        append_again(&mut world, "INBOX", "n");
        hear_last(&mut world);
        assert!(!world.mailbox.is_idle() && !world.step(), "there is time");
        // A successor does not know what was only in memory.
        world.reload();
        assert_eq!(append_again(&mut world, "INBOX", "n"), 2);
        hear_last(&mut world);
        world.append("INBOX", "another");
        assert_eq!(world.count(Table::Repeats), 1);
        assert!(world.mailbox.is_idle());
        world.reload();
        assert_eq!(append_again(&mut world, "INBOX", "n"), 4);
        hear_last(&mut world);
        world.env.now += Duration::from_millis(HEARD_UNWRITTEN_MILLIS) - Duration::from_millis(1);
        assert!(!world.step());
        world.env.now += Duration::from_millis(1);
        assert!(world.step() && world.mailbox.is_idle());
        assert_eq!((world.last, world.count(Table::Repeats)), ((0, 1), 1));
        // An entry that is never appended takes nothing along.
        hear_last(&mut world);
        append_again(&mut world, "INBOX", "k");
        hear_last(&mut world);
        let command = append("INBOX", message(&mut world, "l"), Flags::none());
        world.submit(1, command);
        world.mailbox.next_entry(&mut world.env).unwrap();
        world.mailbox.dropped();
        assert_eq!(append_again(&mut world, "INBOX", "k"), 7);
        assert_eq!(world.count(Table::Repeats), 2);
        world.assert_rows_are_memory();
    }

    #[test]
    fn as_many_are_heard_in_memory_as_are_repeats() {
        let mut world = World::new();
        let ids = |world: &World| world.answers.keys().copied().collect::<Vec<_>>();
        for n in 0..REPEATS_MAX {
            append_again(&mut world, "INBOX", &n.to_string());
        }
        let before = world.mailbox.engine().memory_bytes();
        for _ in 0..2 {
            for commands in ids(&world).chunks(HEARD_MAX) {
                world.run(Command::Heard { commands: commands.to_vec() }).unwrap();
            }
        }
        let took = world.mailbox.engine().memory_bytes() - before;
        assert!((1..=HEARD_MEMORY_MAX_BYTES).contains(&took), "{took} bytes");
        world.append("INBOX", "one entry has room for all");
        assert_eq!((world.last.1, world.count(Table::Repeats)), (REPEATS_MAX, 0));
        assert_eq!(world.mailbox.engine().memory_bytes(), Mailbox::memory_bytes(&world.load()));
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_repeated_append_is_joined_only_while_the_first_is_in_the_folder() {
        let mut world = World::new();
        assert_eq!(append_again(&mut world, "INBOX", "m"), 1);
        let inbox = world.id("INBOX");
        world.run(Command::Move { folder: inbox, uids: ALL(), to: "Trash".into() }).unwrap();
        assert_eq!((append_again(&mut world, "INBOX", "m"), world.uids("INBOX")), (2, vec![2]));
        assert_eq!((append_again(&mut world, "INBOX", "m"), world.uids("INBOX")), (2, vec![2]));
        expunge(&mut world, "INBOX");
        assert_eq!((append_again(&mut world, "INBOX", "m"), world.uids("INBOX")), (3, vec![3]));
        assert_eq!((world.uids("Trash"), world.count(Table::Repeats)), (vec![1], 1));
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_repeated_delivery_is_joined_only_while_the_first_is_in_the_mailbox() {
        let mut world = World::new();
        let deliver_again = |world: &mut World| {
            let new_message = message(world, "m");
            stored_uid(world.run(again(0, deliver(new_message, "", None))))
        };
        assert_eq!(deliver_again(&mut world), 1);
        let inbox = world.id("INBOX");
        world.run(Command::Move { folder: inbox, uids: ALL(), to: "Archive".into() }).unwrap();
        assert_eq!((deliver_again(&mut world), world.uids("INBOX").len()), (1, 0));
        expunge(&mut world, "Archive");
        assert_eq!((deliver_again(&mut world), world.uids("INBOX")), (2, vec![2]));
        world.assert_rows_are_memory();
    }

    #[test]
    fn an_hour_is_kept_whole_and_what_is_left_is_swept() {
        let mut world = World::new();
        assert_eq!(append_again(&mut world, "INBOX", "m"), 1);
        world.env.wall.0 += REPEAT_KEPT_MILLIS;
        assert_eq!(append_again(&mut world, "INBOX", "m"), 1);
        world.env.wall.0 += 1;
        assert_eq!(append_again(&mut world, "INBOX", "m"), 2);
        assert_eq!(append_again(&mut world, "INBOX", "n"), 3);
        world.env.wall.0 += REPEAT_KEPT_MILLIS + REPEAT_LEFT_MILLIS;
        world.drain();
        assert_eq!(world.count(Table::Repeats), 2);
        world.env.wall.0 += 1;
        world.drain();
        assert_eq!(world.count(Table::Repeats), 0);
        assert!(!world.step(), "nothing is left to do");
        world.assert_rows_are_memory();
    }

    #[test]
    fn the_oldest_are_forgotten_past_the_bound() {
        let mut world = World::new();
        for n in 0..=REPEATS_MAX {
            world.env.wall.0 += 1;
            append_again(&mut world, "INBOX", &n.to_string());
        }
        assert_eq!(world.count(Table::Repeats), REPEATS_MAX);
        assert_eq!(append_again(&mut world, "INBOX", "1"), 2, "the second is remembered");
        let again = REPEATS_MAX as u32 + 2;
        assert_eq!(append_again(&mut world, "INBOX", "0"), again, "the first is not");
        world.assert_rows_are_memory();
    }

    #[test]
    fn several_messages_that_are_appended_again_are_found_while_all_are_there() {
        let mut world = World::new();
        let again_all = |world: &mut World, texts: &[&str]| {
            let appended =
                |new_message| AppendedMessage { new_message, flags: Flags::none(), internal_date: Default::default() };
            let messages = texts.iter().map(|text| appended(message(world, text))).collect();
            match world.run(again(0, Command::AppendMany { folder: "Archive".into(), messages })) {
                Ok(Answer::Appended { uid_validity: 6, uids }) => uids,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(again_all(&mut world, &["a", "b"]), [1, 2]);
        world.reload();
        assert_eq!(again_all(&mut world, &["a", "b"]), [1, 2]);
        assert_eq!(again_all(&mut world, &["b", "a"]), [3, 4], "in another order they are others");
        let folder = world.id("Archive");
        world.run(Command::Move { folder, uids: UidSet::range(2, 2), to: "Trash".into() }).unwrap();
        assert_eq!(again_all(&mut world, &["a", "b"]), [5, 6], "all of them");
        hear_last(&mut world);
        assert_eq!(again_all(&mut world, &["a", "b"]), [7, 8]);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_repeated_copy_finds_its_copies_and_a_partly_removed_one_is_made_anew() {
        let mut world = World::new();
        for text in ["1", "2", "3"] {
            world.append("INBOX", text);
        }
        let inbox = world.id("INBOX");
        let copy = |uids| again(0, Command::Copy { folder: inbox, uids, to: "Archive".into() });
        let some = || UidSet::from_ranges(vec![(1, 1), (3, 3)]);
        let first = world.run(copy(some()));
        assert_eq!(first, Ok(Answer::Copied { uid_validity: 6, from: vec![1, 3], to: vec![1, 2] }));
        world.reload();
        assert_eq!(world.run(copy(some())), first);
        assert_eq!(world.uids("Archive"), [1, 2]);
        // Another set is another command.
        assert!(matches!(world.run(copy(ALL())), Ok(Answer::Copied { to, .. }) if to == [3, 4, 5]));
        // One copy is gone: who asks again wants all of them.
        let archive = world.id("Archive");
        world.run(Command::Move { folder: archive, uids: UidSet::range(2, 2), to: "Trash".into() }).unwrap();
        assert!(matches!(world.run(copy(some())), Ok(Answer::Copied { to, .. }) if to == [6, 7]));
        // Nothing was there: nothing is remembered.
        let before = world.count(Table::Repeats);
        assert!(matches!(world.run(copy(UidSet::range(9, 9))), Ok(Answer::Copied { to, .. }) if to.is_empty()));
        assert_eq!(world.count(Table::Repeats), before);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_repeated_copy_of_all_takes_what_came_since() {
        let mut world = World::new();
        let inbox = world.id("INBOX");
        let copy = || again(0, Command::Copy { folder: inbox, uids: ALL(), to: "Archive".into() });
        world.append("INBOX", "1");
        world.append("INBOX", "2");
        let first = world.run(copy());
        assert!(matches!(&first, Ok(Answer::Copied { to, .. }) if *to == [1, 2]));
        // What is no more needs no copy.
        world.run(Command::Move { folder: inbox, uids: UidSet::range(1, 1), to: "Trash".into() }).unwrap();
        assert_eq!(world.run(copy()), first);
        world.append("INBOX", "3");
        let second = world.run(copy());
        assert!(
            matches!(&second, Ok(Answer::Copied { from, to, .. }) if *from == [2, 3] && *to == [3, 4]),
            "{second:?}"
        );
        assert_eq!(world.run(copy()), second);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_copy_with_too_many_gaps_is_done_and_not_remembered() {
        let mut world = World::new();
        world.fill("INBOX", 3 * REPEAT_MAX_BYTES as u32);
        let folder = world.id("INBOX");
        let uids: UidSet = (1..=REPEAT_MAX_BYTES as u32).map(|n| 2 * n).collect();
        let copy = again(0, Command::Copy { folder, uids, to: "Archive".into() });
        for times in 1..3 {
            world.run(copy.clone()).unwrap();
            assert_eq!(world.uids("Archive").len(), times * REPEAT_MAX_BYTES);
        }
        assert_eq!(world.count(Table::Repeats), 0);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_repeated_submission_is_stored_once() {
        let mut world = World::new();
        let mut submit = |request, text: &str, from: &str| {
            let mut new_message = message(&mut world, text);
            new_message.digest = world.env.bytes::<32>();
            let mut command = deliver(new_message, from, None);
            if let Command::Deliver { deduplicate, .. } = &mut command {
                *deduplicate = false;
            }
            stored_uid(world.run(again(request, command)))
        };
        assert_eq!((submit(1, "m", "a@x"), submit(1, "m", "a@x")), (1, 1), "Received: differs each time");
        assert_eq!((submit(2, "m", "a@x"), submit(1, "n", "a@x"), submit(1, "m", "b@x")), (2, 3, 4));
        world.assert_rows_are_memory();
    }

    #[test]
    fn move_store_and_the_others_come_to_the_same_when_they_are_repeated() {
        let mut world = World::new();
        world.append("INBOX", "1");
        let folder = world.id("INBOX");
        let (uids, seen) = (ALL, Flags::none().with(SystemFlag::Seen));
        let store = Command::Store { folder, uids: uids(), mode: StoreMode::Add, flags: seen, unchanged_since: None };
        assert!(matches!(world.run(store.clone()), Ok(Answer::Flagged { modseq: Some(_), .. })));
        assert!(matches!(world.run(store), Ok(Answer::Flagged { modseq: None, .. })));
        let to_archive = Command::Move { folder, uids: uids(), to: "Archive".into() };
        assert!(matches!(world.run(to_archive.clone()), Ok(Answer::Copied { from, .. }) if from == [1]));
        assert!(matches!(world.run(to_archive), Ok(Answer::Copied { from, .. }) if from.is_empty()));
        let expunge = Command::Expunge { folder, uids: None };
        assert_eq!(world.run(expunge.clone()), world.run(expunge));
        let subscribe = Command::Subscribe { name: "x".into(), on: true };
        assert_eq!(world.run(subscribe.clone()), world.run(subscribe));
        // A refusal says that the first was done.
        let rename = Command::RenameFolder { from: "x".into(), to: "y".into() };
        world.run(create("x")).unwrap();
        assert_eq!(world.run(create("x")), Err(Refusal::FolderExists));
        world.run(rename.clone()).unwrap();
        assert_eq!(world.run(rename), Err(Refusal::NoSuchFolder));
        world.run(Command::DeleteFolder { name: "y".into() }).unwrap();
        assert_eq!(world.run(Command::DeleteFolder { name: "y".into() }), Err(Refusal::NoSuchFolder));
        world.assert_rows_are_memory();
    }
}
