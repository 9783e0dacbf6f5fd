//! Whatever is done to a mailbox: its rows are its memory, and its counters only rise.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use crate::api::{Answer, Command, FolderId, Once, StoreMode};
use crate::flags::{Flags, SystemFlag};
use crate::harness::{World, append, deliver};
use crate::limits::HEARD_UNWRITTEN_MILLIS;
use crate::uids::UidSet;

#[derive(Clone, Debug)]
enum Step {
    Do(u64, Action),
    /// The same, once for all that repeat it while its answer is unheard.
    Once(u64, Action),
    /// The answers of the last so many commands were heard.
    Heard(usize),
    /// An entry is decided and never appended.
    Drop,
    /// An entry is applied.
    Entry,
    Drain,
    /// Everything is applied, and another owner takes over.
    Reload,
    Claim(usize),
}

#[derive(Clone, Debug)]
enum Action {
    Deliver(u8, Option<usize>),
    Append(usize, bool),
    Store(u32, UidSet, StoreMode, usize, Option<u64>),
    Copy(u32, UidSet, usize),
    Move(u32, UidSet, usize),
    Expunge(u32, Option<UidSet>),
    Create(usize),
    Delete(usize),
    Rename(usize, usize),
    Subscribe(usize, bool),
}

const NAMES: [&str; 9] = ["INBOX", "inbox/x", "Trash", "a", "a/b", "a/b/c", "b", "b/c", "c/"];

fn flags(n: usize) -> Flags {
    match n {
        0 => Flags::none().with(SystemFlag::Deleted),
        1 => Flags::none().with(SystemFlag::Seen).with_keyword("$Junk"),
        2 => Flags::none().with_keyword("other"),
        _ => Flags::none().with(SystemFlag::Deleted).with(SystemFlag::Seen),
    }
}

fn set() -> impl Strategy<Value = UidSet> {
    let ranges = prop::collection::vec((1u32..60, 1u32..60), 1..3).prop_map(UidSet::from_ranges);
    prop_oneof![ranges, Just(UidSet::range(1, u32::MAX))]
}

fn action() -> impl Strategy<Value = Action> {
    let (folder, name) = (1u32..20, 0..NAMES.len());
    let mode = prop_oneof![Just(StoreMode::Add), Just(StoreMode::Remove), Just(StoreMode::Replace)];
    let since = prop_oneof![Just(None), (0u64..40).prop_map(|n| Some((1 << 40) + n))];
    prop_oneof![
        5 => (0u8..6, prop::option::of(name.clone())).prop_map(|(n, d)| Action::Deliver(n, d)),
        5 => (name.clone(), any::<bool>()).prop_map(|(n, f)| Action::Append(n, f)),
        5 => (folder.clone(), set(), mode, 0usize..4, since).prop_map(|(f, s, m, n, u)| Action::Store(f, s, m, n, u)),
        4 => (folder.clone(), set(), name.clone()).prop_map(|(f, s, n)| Action::Copy(f, s, n)),
        3 => (folder.clone(), set(), name.clone()).prop_map(|(f, s, n)| Action::Move(f, s, n)),
        3 => (folder, prop::option::of(set())).prop_map(|(f, s)| Action::Expunge(f, s)),
        3 => name.clone().prop_map(Action::Create),
        2 => name.clone().prop_map(Action::Delete),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Action::Rename(a, b)),
        1 => (name, any::<bool>()).prop_map(|(n, on)| Action::Subscribe(n, on)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1u64..4, action()).prop_map(|(s, a)| Step::Do(s, a)),
        6 => (1u64..4, action()).prop_map(|(s, a)| Step::Once(s, a)),
        1 => (0usize..5).prop_map(Step::Heard),
        1 => Just(Step::Drop),
        4 => Just(Step::Entry),
        1 => Just(Step::Drain),
        1 => Just(Step::Reload),
        1 => (0..NAMES.len()).prop_map(Step::Claim),
    ]
}

fn command(world: &mut World, action: Action) -> Command {
    let name = |n: usize| NAMES[n].to_owned();
    match action {
        Action::Deliver(n, detail) => {
            let new_message = world.new_message(&n.to_string());
            deliver(new_message, "sender@x", detail.map(|d| NAMES[d]))
        }
        Action::Append(n, deleted) => {
            let new_message = world.new_message("appended");
            append(NAMES[n], new_message, if deleted { flags(0) } else { Flags::none() })
        }
        Action::Store(f, uids, mode, n, unchanged_since) => {
            Command::Store { folder: FolderId(f), uids, mode, flags: flags(n), unchanged_since }
        }
        Action::Copy(f, uids, to) => Command::Copy { folder: FolderId(f), uids, to: name(to) },
        Action::Move(f, uids, to) => Command::Move { folder: FolderId(f), uids, to: name(to) },
        Action::Expunge(f, uids) => Command::Expunge { folder: FolderId(f), uids },
        Action::Create(n) => Command::CreateFolder { name: name(n) },
        Action::Delete(n) => Command::DeleteFolder { name: name(n) },
        Action::Rename(a, b) => Command::RenameFolder { from: name(a), to: name(b) },
        Action::Subscribe(n, on) => Command::Subscribe { name: name(n), on },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_memory_and_events_rise(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        let mut submitted = Vec::new();
        for step in steps {
            match step {
                Step::Do(session, action) => {
                    let command = command(&mut world, action);
                    submitted.push(world.submit(session, command));
                }
                Step::Once(session, action) => {
                    let heard = submitted.iter().rev().skip(2).take(1).copied().collect();
                    let (once, command) = (Once { heard, ..Once::default() }, Box::new(command(&mut world, action)));
                    submitted.push(world.submit(session, Command::Once { once, command }));
                }
                Step::Heard(count) => {
                    let commands = submitted.iter().rev().take(count).copied().collect();
                    world.run(Command::Heard { commands }).unwrap();
                }
                Step::Drop => {
                    if world.mailbox.next_entry(&mut world.env).is_some() {
                        world.mailbox.dropped();
                    }
                }
                Step::Entry => {
                    world.step();
                    world.assert_rows_are_memory();
                }
                Step::Drain => world.drain(),
                Step::Reload => {
                    world.drain();
                    world.reload();
                }
                Step::Claim(n) => {
                    let _ = world.run(Command::Select { folder: NAMES[n].into(), claim_recent: true });
                }
            }
        }
        world.drain();
        world.assert_rows_are_memory();
        world.env.now += std::time::Duration::from_millis(HEARD_UNWRITTEN_MILLIS);
        world.drain();
        world.assert_rows_are_memory();
        prop_assert!(world.mailbox.is_idle());
        for id in &submitted {
            prop_assert!(world.answers.contains_key(id), "a command is not answered");
        }
        let modseqs: Vec<u64> = world.events.iter().map(|e| e.modseq).collect();
        prop_assert!(modseqs.windows(2).all(|w| w[0] < w[1]), "MODSEQ of events rises: {modseqs:?}");
        // Contents, index and chunks are there for what has a place, and for nothing else.
        use mailraft_storage::Table;
        let contents = world.count(Table::Contents);
        prop_assert_eq!(contents as u64, world.mailbox.engine().state().counters.messages);
        prop_assert_eq!(world.count(Table::Chunks), contents);
        prop_assert_eq!(world.count(Table::MessageIds), contents);
    }

    #[test]
    fn a_session_that_follows_events_knows_what_a_select_would_tell(actions in prop::collection::vec(action(), 1..40)) {
        use crate::api::Change;
        let mut world = World::new();
        let opened = world.select("INBOX");
        let mut view: std::collections::BTreeMap<u32, _> = Default::default();
        for action in actions {
            let command = command(&mut world, action);
            world.submit(1, command);
            world.drain();
        }
        for event in world.events.clone().into_iter().filter(|e| e.folder == opened.folder) {
            match event.change {
                Change::Added(messages) => view.extend(messages.into_iter().map(|m| (m.uid, m))),
                Change::Flagged(messages) => {
                    for message in messages {
                        prop_assert!(view.insert(message.uid, message).is_some());
                    }
                }
                Change::Expunged(uids) => {
                    for uid in uids.iter() {
                        prop_assert!(view.remove(&uid).is_some());
                    }
                }
                Change::FolderDeleted => prop_assert!(false, "INBOX stays"),
            }
        }
        let now = world.select("INBOX");
        prop_assert_eq!(view.into_values().collect::<Vec<_>>(), now.messages.clone());
        let resume = Command::Resume {
            folder: opened.folder, uid_validity: opened.uid_validity, since: opened.highest_modseq, known: UidSet::new(),
        };
        let Ok(Answer::Resumed(resumed)) = world.run(resume) else { panic!("INBOX stays") };
        prop_assert_eq!(resumed.changed, now.messages);
    }
}
