//! STORE.

use std::collections::BTreeMap;

use crate::api::{Answer, Change, FolderId, Refusal, StoreMode};
use crate::flags::Flags;
use crate::plant::{self, Fault};
use crate::records::page_of;
use crate::uids::UidSet;
use crate::work::{Work, check_flags, states};

pub fn store(
    work: &mut Work<'_>,
    id: FolderId,
    uids: &UidSet,
    mode: StoreMode,
    flags: &Flags,
    unchanged_since: Option<u64>,
) -> Result<Answer, Refusal> {
    check_flags(flags)?;
    let mut modified = UidSet::new();
    let mut changed: BTreeMap<u32, Vec<(u32, Flags)>> = BTreeMap::new();
    // What the last message's flags were and became: those of the next one are often the same, and then they are shared.
    let mut last: Option<(Flags, Flags)> = None;
    // Whoever saw what is not part of the mailbox does not know what any message was changed from.
    let unchanged_since = unchanged_since.map(|limit| if work.state.is_past_fork(limit) { 0 } else { limit });
    for (uid, message) in work.opened(id)?.within(uids) {
        let strict = u64::from(plant::is(Fault::UnchangedSinceStrict));
        let lax = u64::from(plant::is(Fault::UnchangedSinceLax));
        if unchanged_since.is_some_and(|limit| message.modseq + strict > limit + lax) {
            modified.insert(uid);
            continue;
        }
        let now = match (mode, &last) {
            (StoreMode::Replace, _) => flags.clone(),
            (StoreMode::Add | StoreMode::Remove, Some((before, now))) if *before == message.flags => now.clone(),
            (StoreMode::Add, _) => message.flags.clone().union(flags),
            (StoreMode::Remove, _) => message.flags.clone().minus(flags),
        };
        last = Some((message.flags.clone(), now.clone()));
        if now != message.flags {
            check_flags(&now)?;
            changed.entry(page_of(uid)).or_default().push((uid, now));
        }
    }
    if changed.is_empty() {
        return Ok(Answer::Flagged { modified, modseq: None });
    }
    let modseq = work.next_modseq();
    let limits = work.cx.limits;
    let folder = work.touch(id, modseq)?;
    let total: usize = changed.values().map(Vec::len).sum();
    let as_page =
        |count: usize| count > limits.page_above_messages || (total > limits.pages_above_messages && count > 1);
    let mut all = UidSet::new();
    for messages in changed.values_mut() {
        let paged = as_page(messages.len());
        for (uid, now) in messages {
            all.insert(*uid);
            if let Some(message) = folder.get_mut(*uid) {
                message.flags = std::mem::take(now);
                message.modseq = modseq;
                message.paged = paged;
            }
        }
    }
    let flagged = states(folder.within(&all));
    let first = changed.keys().next().copied();
    for (page, messages) in changed {
        if as_page(messages.len()) {
            if plant::is(Fault::OnlyFirstPage) && Some(page) != first {
                continue;
            }
            work.write_page(id, page);
        } else {
            for (uid, _) in messages {
                work.write_place(id, uid);
            }
        }
    }
    work.tell(id, modseq, Change::Flagged(flagged));
    Ok(Answer::Flagged { modified, modseq: Some(modseq) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::flags::SystemFlag;
    use crate::harness::{ALL, World};

    #[test]
    fn keywords_of_many_messages_are_in_memory_once_and_a_load_finds_them_so() {
        let mut world = World::new();
        world.fill("INBOX", 200);
        let opened = world.select("INBOX");
        let some = |flags: Flags, n| flags.with_keyword(&format!("{n:03}{}", "x".repeat(117)));
        let flags = (0..64).fold(Flags::none(), some);
        let before = world.mailbox.engine().memory_bytes();
        let store = |uids, mode, flags: &Flags| Command::Store {
            folder: opened.folder,
            uids,
            mode,
            flags: flags.clone(),
            unchanged_since: None,
        };
        world.run(store(UidSet::range(3, 3), StoreMode::Add, &flags)).unwrap();
        world.run(store(ALL(), StoreMode::Add, &flags)).unwrap();
        let event_bytes = crate::sizes::event_bytes(world.events.last().unwrap());
        assert!(event_bytes < 32 << 10, "{event_bytes} bytes of an event");
        let took = world.mailbox.engine().memory_bytes() - before;
        assert!((1..48 << 10).contains(&took), "{took} bytes in memory");
        world.reload();
        let messages = world.select("INBOX").messages;
        assert!(messages.len() == 200 && messages.iter().all(|m| m.flags == flags));
        assert!(messages.iter().all(|m| m.flags.shares_with(&messages[2].flags)));
    }

    #[test]
    fn only_what_changes_gets_a_new_modseq_and_unchanged_since_holds_others_back() {
        let mut world = World::new();
        for text in ["1", "2", "3"] {
            world.append("INBOX", text);
        }
        let opened = world.select("INBOX");
        let folder = opened.folder;
        let store = |uids, mode, flags, unchanged_since| Command::Store { folder, uids, mode, flags, unchanged_since };
        let seen = Flags::none().with(SystemFlag::Seen);
        let answer = world.run(store(UidSet::range(2, 2), StoreMode::Add, seen.clone(), None)).unwrap();
        let Answer::Flagged { modseq: Some(first), .. } = answer else { panic!("{answer:?}") };
        assert!(first > opened.highest_modseq);
        let same = world.run(store(UidSet::range(2, 2), StoreMode::Add, seen.clone(), None));
        assert_eq!(same, Ok(Answer::Flagged { modified: UidSet::new(), modseq: None }));
        let keyword = seen.clone().with_keyword("x");
        let some = world.run(store(ALL(), StoreMode::Replace, keyword.clone(), Some(opened.highest_modseq))).unwrap();
        let Answer::Flagged { modified, modseq: Some(second) } = some else { panic!("{some:?}") };
        assert_eq!((modified, second > first), (UidSet::range(2, 2), true));
        world.run(store(ALL(), StoreMode::Remove, seen.clone().with_keyword("X"), None)).unwrap();
        assert!(world.select("INBOX").messages.iter().all(|m| m.flags.is_empty()));
        let gone = Command::Store {
            folder: FolderId(99),
            uids: ALL(),
            mode: StoreMode::Add,
            flags: seen,
            unchanged_since: None,
        };
        assert_eq!(world.run(gone), Err(Refusal::FolderGone));
    }
}
