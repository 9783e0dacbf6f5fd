//! APPEND of several messages (RFC 3502): all or none.

use super::new_message;
use crate::api::{APPEND_MESSAGES_MAX, Answer, AppendedMessage, Refusal};
use crate::names;
use crate::work::{Work, check_flags};

pub fn append_many(work: &mut Work<'_>, folder: &str, messages: &[AppendedMessage]) -> Result<Answer, Refusal> {
    if messages.is_empty() || messages.len() > APPEND_MESSAGES_MAX {
        return Err(Refusal::Limit(format!("1 to {APPEND_MESSAGES_MAX} messages are appended at once")));
    }
    let target = work.state.named(&names::spelt(folder)).filter(|id| work.opened(*id).is_ok());
    let target = target.ok_or(Refusal::TryCreate)?;
    for message in messages {
        new_message::check(&message.new_message)?;
        check_flags(&message.flags)?;
    }
    let used = work.state.counters.usage_bytes;
    let usage = messages.iter().fold(used, |sum, message| sum.saturating_add(message.new_message.size_bytes));
    if work.cx.quota_bytes.is_some_and(|quota| usage > quota) {
        return Err(Refusal::OverQuota);
    }
    let uid_validity = work.opened(target)?.record.uid_validity;
    let mut added = Vec::with_capacity(messages.len());
    for AppendedMessage { new_message, flags, internal_date } in messages {
        let (email, info) = new_message::put_content(work, new_message, *internal_date, None)?;
        added.push((email, info, flags.clone()));
    }
    let (uids, _) = work.add_messages(target, added)?;
    Ok(Answer::Appended { uid_validity, uids })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use mailraft_storage::Table;

    use super::*;
    use crate::api::{Change, Command, NewMessage, ZonedTime};
    use crate::flags::{Flags, SystemFlag};
    use crate::harness::World;

    fn append_all(folder: &str, messages: Vec<NewMessage>) -> Command {
        let appended = |new_message| AppendedMessage {
            new_message,
            flags: Flags::none().with(SystemFlag::Seen),
            internal_date: ZonedTime::default(),
        };
        Command::AppendMany { folder: folder.into(), messages: messages.into_iter().map(appended).collect() }
    }

    fn texts(world: &mut World, texts: &[&str]) -> Vec<NewMessage> {
        texts.iter().map(|text| world.new_message(text)).collect()
    }

    #[test]
    fn several_messages_come_in_one_entry_at_one_modseq_and_in_their_order() {
        let mut world = World::new();
        world.append("INBOX", "before");
        let (entries, events) = (world.entries, world.events.len());
        let mut messages = texts(&mut world, &["1", "2"]);
        messages.insert(1, world.uploaded(3, world.env.wall));
        let sizes: Vec<u64> = messages.iter().map(|message| message.size_bytes).collect();
        let answer = world.run(append_all("inbox", messages));
        assert_eq!(answer, Ok(Answer::Appended { uid_validity: 1, uids: vec![2, 3, 4] }));
        assert_eq!(world.entries, entries + 1);
        let [event] = &world.events[events..] else { panic!("one event tells of all") };
        assert!(matches!(&event.change, Change::Added(added) if added.iter().map(|m| m.uid).eq(2..5)));
        assert_eq!(world.mailbox.engine().usage_bytes(), 6 + sizes.iter().sum::<u64>());
        assert_eq!((world.count(Table::OpenBodies), world.count(Table::Chunks)), (0, 6));
        world.reload();
        world.assert_rows_are_memory();
    }

    #[test]
    fn all_are_appended_or_none() {
        let mut world = World::new();
        world.mailbox.engine_mut().set_quota_bytes(Some(10));
        let refused = |world: &mut World, folder: &str, messages| {
            let uploaded = world.uploaded(1, world.env.wall);
            let messages = std::iter::once(uploaded).chain(messages).collect();
            let refusal = world.run(append_all(folder, messages)).unwrap_err();
            assert_eq!(world.uids("INBOX"), [0; 0]);
            let left = [Table::Contents, Table::Places, Table::Chunks, Table::OpenBodies].map(|t| world.count(t));
            assert_eq!(left, [0; 4], "{refusal:?}");
            refusal
        };
        let two = texts(&mut world, &["sixsix", "seven"]);
        assert_eq!(refused(&mut world, "INBOX", two), Refusal::OverQuota);
        world.mailbox.engine_mut().set_quota_bytes(None);
        assert_eq!(refused(&mut world, "Nowhere", Vec::new()), Refusal::TryCreate);
        let mut wrong = texts(&mut world, &["a", "b"]);
        wrong[1].chunks = 2;
        assert!(matches!(refused(&mut world, "INBOX", wrong), Refusal::Limit(_)));
        let same = world.new_message("same");
        assert!(matches!(refused(&mut world, "INBOX", vec![same.clone(), same]), Refusal::NotAllowed(_)));
        let too_many = (0..APPEND_MESSAGES_MAX).map(|n| world.new_message(&n.to_string())).collect();
        assert!(matches!(refused(&mut world, "INBOX", too_many), Refusal::Limit(_)));
        let mut large = texts(&mut world, &["a", "b", "c", "d", "e"]);
        large.iter_mut().for_each(|message| message.header = Bytes::from(vec![b'x'; 256 << 10]));
        assert!(matches!(refused(&mut world, "INBOX", large), Refusal::Limit(why) if why.contains("in parts")));
        assert!(matches!(world.run(append_all("INBOX", Vec::new())), Err(Refusal::Limit(_))));
        world.assert_rows_are_memory();
    }

    #[test]
    fn as_many_as_may_come_fit_an_entry() {
        let mut world = World::new();
        let mut messages: Vec<NewMessage> =
            (0..APPEND_MESSAGES_MAX).map(|n| world.new_message(&n.to_string())).collect();
        messages.iter_mut().for_each(|message| message.header = Bytes::from(vec![b'x'; 2 << 10]));
        let entries = world.entries;
        let answer = world.run(append_all("INBOX", messages));
        assert!(matches!(answer, Ok(Answer::Appended { uids, .. }) if uids.len() == APPEND_MESSAGES_MAX));
        assert_eq!(world.entries, entries + 1);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_body_that_was_swept_meanwhile_leaves_none_of_them() {
        let mut world = World::new();
        let mut messages = texts(&mut world, &["a"]);
        let mut gone = world.new_message("gone");
        gone.inline = None;
        messages.push(gone);
        world.submit(1, append_all("INBOX", messages));
        let proposal = world.mailbox.next_entry(&mut world.env).unwrap();
        let (index, verdict) = world.apply(proposal);
        assert_eq!(verdict, mailraft_storage::Verdict::Missing);
        let outcome = world.mailbox.applied(index, verdict);
        assert!(outcome.answers.is_empty() && outcome.events.is_empty());
        assert_eq!((world.uids("INBOX").len(), world.count(Table::Contents)), (0, 0));
        world.assert_rows_are_memory();
    }
}
