//! The engine as its owner drives it: batches, verdicts, retries, staged changes, sweeps.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use mailraft_owner::BATCH_MAX_COMMANDS;
use mailraft_owner::conformance::{Subject, check};
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::seal::Key;
use mailraft_storage::{Env, Epoch, Index, MailboxId, RowBatch, Rows, StoreError, Table, UnixMillis, Verdict};

use crate::api::{Answer, Change, Command, EmailId, FetchWhat, READ_CHUNKS_MAX, Refusal, StoreMode};
use crate::flags::{Flags, SystemFlag};
use crate::harness::{ALL, World, append, create, deliver, new_message, stored_uid};
use crate::limits::{BATCH_MAX_BYTES, OPEN_BODY_MAX_MILLIS};
use crate::reads::COUNTED_MAX;
use crate::search_index::{Filter, MATCHER, NARROWED_TEXTS_MAX, PLACES, SearchAnswer, SearchQuestion};
use crate::{Mailbox, MailboxKey, Place, Read, SessionNumber, Submitted, UidSet, chunk_key, open_body_key};

fn flag(folder: crate::api::FolderId, uids: UidSet, flag: SystemFlag) -> Command {
    let flags = Flags::none().with(flag);
    Command::Store { folder, uids, mode: StoreMode::Add, flags, unchanged_since: None }
}

/// A mailbox, as the rules of every owner are checked over it.
struct Checked {
    key: MailboxKey,
}

impl Subject for Checked {
    type Engine = Mailbox;

    fn first_rows(&mut self, _: &mut Env, _: &Place) -> RowBatch {
        RowBatch::default()
    }

    fn load(&self, rows: Arc<dyn Rows>, place: Place) -> Mailbox {
        Mailbox::load(rows, place, self.key.clone()).unwrap()
    }

    fn accepted(&self, env: &mut Env, number: usize) -> Command {
        append("INBOX", new_message(env, &number.to_string()), Flags::none())
    }

    fn refused(&self) -> Command {
        create("INBOX")
    }

    fn carried_out(&self, rows: &MemoryRows, place: &Place) -> usize {
        rows.scan(place.replica, place.mailbox, Table::Places, &[], &[], usize::MAX).unwrap().len()
    }
}

#[test]
fn a_mailbox_keeps_to_the_rules_of_every_owner() {
    let key = MailboxKey::new(Key::from_bytes([3; 32]), Epoch(1));
    check(|| Checked { key: key.clone() }, MailboxId([1; 16]));
}

#[test]
fn a_new_mailbox_makes_its_folders_before_anything_else() {
    let mut world = World::sharing(MemoryRows::new(), 1);
    assert!(matches!(world.mailbox.engine_mut().read(&world.env, &Command::List), Read::TooEarly));
    let new_message = world.new_message("first");
    let delivery = world.submit(2, deliver(new_message, "a@x", None));
    world.drain();
    let Ok(Answer::Folders(folders)) = world.run(Command::List) else { panic!("no folders") };
    let names: Vec<_> = folders.iter().map(|f| (f.name.as_str(), f.subscribed, f.special_use.is_some())).collect();
    assert_eq!(
        names,
        [
            ("Archive", true, true),
            ("Drafts", true, true),
            ("INBOX", true, false),
            ("Junk", true, true),
            ("Sent", true, true),
            ("Trash", true, true),
        ]
    );
    assert_eq!(stored_uid(world.answers[&delivery].0.clone()), 1);
    assert_eq!(world.entries, 1, "folders and delivery are one entry");
    world.assert_rows_are_memory();
    assert!(world.mailbox.is_idle());
}

#[test]
fn two_mailboxes_share_a_replica_and_not_a_row() {
    let rows = MemoryRows::new();
    let (mut a, mut b) = (World::sharing(rows.clone(), 1), World::sharing(rows, 2));
    for (world, texts) in [(&mut a, 3), (&mut b, 2)] {
        for n in 0..texts {
            world.append("INBOX", &n.to_string());
        }
    }
    assert_eq!((a.uids("INBOX").len(), b.uids("INBOX").len()), (3, 2));
    a.assert_rows_are_memory();
    b.assert_rows_are_memory();
}

#[test]
fn what_waits_is_decided_together_64_at_a_time_and_sessions_take_turns() {
    let mut world = World::new();
    let before = world.entries;
    let greedy: Vec<_> = (0..100).map(|n| world.submit(1, create(&format!("a{n}")))).collect();
    let other = world.submit(2, create("b"));
    assert!(world.step());
    assert!(world.answers.contains_key(&other));
    assert_eq!(world.answers.len(), BATCH_MAX_COMMANDS);
    world.drain();
    assert_eq!(world.entries - before, 2);
    let positions: Vec<Index> = greedy.iter().map(|id| world.answers[id].1).collect();
    assert!(positions.is_sorted());
    world.assert_rows_are_memory();
}

#[test]
fn an_entry_stays_within_a_mebibyte_of_bodies() {
    let mut world = World::new();
    let big = "x".repeat(200_000);
    for _ in 0..10 {
        let mut new_message = world.new_message(&big);
        new_message.message_id = None;
        world.submit(1, append("INBOX", new_message, Flags::none()));
    }
    world.drain();
    assert_eq!(world.uids("INBOX").len(), 10);
    assert!(world.entries >= 3);
}

#[test]
fn dropped_and_missing_change_nothing_and_are_decided_again_in_order() {
    let mut world = World::new();
    let ids: Vec<_> = ["one", "two", "three"]
        .map(|text| {
            let new_message = world.new_message(text);
            world.submit(1, append("INBOX", new_message, Flags::none()))
        })
        .to_vec();
    let _ = world.mailbox.next_entry(&mut world.env).unwrap();
    assert!(world.mailbox.next_entry(&mut world.env).is_none(), "one is in flight");
    assert!(world.uids("INBOX").is_empty());
    world.mailbox.dropped();
    let _ = world.mailbox.next_entry(&mut world.env).unwrap();
    let outcome = world.mailbox.applied(Index(99), Verdict::Missing);
    assert!(outcome.answers.is_empty() && outcome.lost.is_empty());
    world.drain();
    let uids: Vec<u32> = ids.iter().map(|id| stored_uid(world.answers[id].0.clone())).collect();
    assert_eq!(uids, [1, 2, 3]);
    world.assert_rows_are_memory();
}

#[test]
fn a_large_body_goes_live_with_its_rows_and_a_lost_one_is_asked_for_again() {
    let mut world = World::new();
    let now = world.env.wall;
    let new_message = world.uploaded(3, now);
    let uid = stored_uid(world.run(append("INBOX", new_message.clone(), Flags::none())));
    assert_eq!((uid, world.count(Table::OpenBodies), world.count(Table::Chunks)), (1, 0, 3));
    let gone = world.uploaded(2, now);
    let mut batch = RowBatch::default();
    batch.delete(open_body_key(world.place.mailbox, gone.body));
    batch.delete(chunk_key(world.place.mailbox, gone.body, 0));
    world.write(world.next_index(), batch);
    let lost = world.submit(1, append("INBOX", gone, Flags::none()));
    let other = world.submit(1, create("a"));
    let proposal = world.mailbox.next_entry(&mut world.env).unwrap();
    let (index, verdict) = world.apply(proposal);
    assert_eq!(verdict, Verdict::Missing);
    let outcome = world.mailbox.applied(index, verdict);
    assert_eq!(outcome.lost, [lost]);
    world.drain();
    assert_eq!(world.answers[&other].0, Ok(Answer::Done));
    // A refused one leaves nothing behind.
    let refused = world.uploaded(2, now);
    assert_eq!(world.run(append("nowhere", refused, Flags::none())), Err(Refusal::TryCreate));
    assert_eq!((world.count(Table::OpenBodies), world.count(Table::Chunks)), (0, 4), "3 live, 1 of the lost upload");
    world.assert_rows_are_memory();
}

#[test]
fn what_needs_a_damaged_row_is_refused_and_the_rest_is_done() {
    let mut world = World::new();
    world.append("INBOX", "x");
    let opened = world.select("INBOX");
    let email = world.mailbox.engine().state().folder(opened.folder).unwrap().get(1).unwrap().email;
    let mut batch = RowBatch::default();
    batch.delete(crate::records::content_key(world.place.mailbox, email));
    world.write(world.next_index(), batch);
    let copy = world.submit(1, Command::Copy { folder: opened.folder, uids: ALL(), to: "Trash".into() });
    let other = world.submit(1, create("a"));
    world.drain();
    assert_eq!(world.answers[&copy].0, Err(Refusal::Corrupt));
    assert_eq!(world.answers[&other].0, Ok(Answer::Done));
    world.assert_rows_are_memory();
}

#[test]
fn a_message_about_as_large_as_an_entry_is_stored_or_refused_for_its_size() {
    let mut world = World::new();
    let (mut stored, mut refused) = (0, 0);
    // What its place takes decides in some of these.
    for left_bytes in (0..4_000).step_by(40) {
        let mut new_message = world.new_message("x");
        new_message.header = vec![b'h'; BATCH_MAX_BYTES - left_bytes].into();
        match world.run(append("INBOX", new_message, Flags::none())) {
            Ok(Answer::Stored { .. }) => stored += 1,
            Err(Refusal::Limit(_)) => refused += 1,
            other => panic!("{left_bytes} bytes are left beside its header: {other:?}"),
        }
    }
    assert!(stored > 10 && refused > 10, "{stored} fit, {refused} do not");
    world.assert_rows_are_memory();
    assert_eq!(world.count(Table::Places), stored);
}

#[test]
fn an_abandoned_upload_is_swept_after_an_hour_unless_it_went_live() {
    let mut world = World::new();
    let now = world.env.wall;
    let (old, young) = (UnixMillis(now.0 - OPEN_BODY_MAX_MILLIS - 1), UnixMillis(now.0 - OPEN_BODY_MAX_MILLIS));
    let live = world.uploaded(2, old);
    world.uploaded(3, old);
    world.uploaded(4, young);
    world.reload();
    world.submit(1, append("INBOX", live, Flags::none()));
    world.drain();
    assert_eq!((world.count(Table::OpenBodies), world.count(Table::Chunks)), (1, 2 + 4));
    assert_eq!(world.uids("INBOX"), [1]);
}

#[test]
fn a_copy_larger_than_an_entry_is_all_or_nothing_whoever_owns_the_mailbox() {
    let mut world = World::new();
    world.run(create("a")).unwrap();
    world.fill("INBOX", 6_000);
    let inbox = world.id("INBOX");
    let copy = Command::Copy { folder: inbox, uids: ALL(), to: "a".into() };
    let id = world.submit(1, copy.clone());
    let later = world.submit(1, create("b"));
    world.events.clear();
    let before = world.entries;
    assert!(world.step());
    assert!(!world.answers.contains_key(&id) && world.uids("a").is_empty());
    // The owner dies in the middle; the next one finds no trace, and sweeps.
    let parts = world.count(Table::Places);
    assert!(parts > 6_000, "a part is written");
    world.reload();
    assert!(world.uids("a").is_empty());
    world.assert_rows_are_memory();
    world.append("a", "reuses a number of the dead stage");
    world.drain();
    assert_eq!(world.uids("a"), [1]);
    let messages = world.uids("INBOX").len();
    assert_eq!(world.count(Table::Places), messages + 1, "the dead stage is swept");
    assert!(!world.answers.contains_key(&later));
    // Again, with a dropped and a repeated part.
    // Others that are served first don't keep it from an entry of its own.
    world.submit(2, create("c"));
    let id = world.submit(1, copy);
    let later = world.submit(2, create("b"));
    let _ = world.mailbox.next_entry(&mut world.env).unwrap();
    world.mailbox.dropped();
    world.drain();
    let Ok(Answer::Copied { from, to, .. }) = world.answers[&id].0.clone() else { panic!("not copied") };
    assert_eq!((from.len(), to.len(), to[0]), (messages, messages, 2));
    assert_eq!(world.answers[&later].0, Ok(Answer::Done));
    assert!(world.entries - before > 3);
    let added = world.events.iter().filter_map(|e| match &e.change {
        Change::Added(m) => Some(m.len()),
        _ => None,
    });
    assert_eq!(added.collect::<Vec<_>>(), [1, messages]);
    world.assert_rows_are_memory();
    let answer = world.answers[&id].0.clone();
    let Submitted::Answered(kept, _) = world.mailbox.submit(SessionNumber(1), id, 1, create("x")) else { panic!() };
    assert_eq!(kept, answer);
}

#[test]
fn no_change_of_many_messages_has_an_entry_of_many_rows() {
    const ROWS_MAX: usize = 1_100;
    let mut world = World::new();
    world.fill("INBOX", 3_000);
    let inbox = world.id("INBOX");
    world.run(create("a")).unwrap();
    world.run(Command::Copy { folder: inbox, uids: ALL(), to: "a".into() }).unwrap();
    world.run(flag(inbox, ALL(), SystemFlag::Deleted)).unwrap();
    world.run(Command::Expunge { folder: inbox, uids: Some(UidSet::range(1, 900)) }).unwrap();
    world.run(Command::Expunge { folder: inbox, uids: None }).unwrap();
    let a = world.id("a");
    world.run(Command::Move { folder: a, uids: ALL(), to: "INBOX".into() }).unwrap();
    world.run(Command::RenameFolder { from: "INBOX".into(), to: "b".into() }).unwrap();
    world.run(Command::DeleteFolder { name: "b".into() }).unwrap();
    assert!(world.most_rows <= ROWS_MAX, "{} rows in one entry", world.most_rows);
    assert_eq!((world.count(Table::Places), world.count(Table::Contents)), (0, 0));
    world.assert_rows_are_memory();
}

#[test]
fn a_large_move_and_the_renaming_of_a_large_inbox_are_one_change() {
    let mut world = World::new();
    world.fill("INBOX", 5_000);
    let inbox = world.id("INBOX");
    let Ok(Answer::Copied { from, .. }) = world.run(Command::Move { folder: inbox, uids: ALL(), to: "Archive".into() })
    else {
        panic!()
    };
    assert_eq!(from.len(), 5_000);
    assert!(world.uids("INBOX").is_empty());
    world.assert_rows_are_memory();
    let archive = world.id("Archive");
    world.run(Command::Move { folder: archive, uids: ALL(), to: "INBOX".into() }).unwrap();
    world.run(Command::RenameFolder { from: "inbox".into(), to: "old/2023".into() }).unwrap();
    assert_eq!((world.uids("INBOX").len(), world.uids("old/2023").len()), (0, 5_000));
    assert_eq!(world.count(Table::Places), 5_000);
    assert_eq!(world.count(Table::Contents), 1);
    world.assert_rows_are_memory();
}

#[test]
fn flags_of_a_hundred_thousand_messages_are_few_rows() {
    let mut world = World::new();
    world.fill("INBOX", 100_000);
    let inbox = world.id("INBOX");
    // Every third is seen already: their MODSEQ stays.
    let third: UidSet = (1..=33_000).map(|n| n * 3).collect();
    world.run(flag(inbox, third, SystemFlag::Seen)).unwrap();
    let entries = world.entries;
    world.run(flag(inbox, ALL(), SystemFlag::Seen)).unwrap();
    assert_eq!(world.entries, entries + 1);
    assert!(world.last.0 <= 103, "{} rows", world.last.0);
    // (That pages and places agree after a load is checked on smaller folders.)
    // A few single ones after that: the place's row counts, and once more the page's.
    world
        .run(Command::Store {
            folder: inbox,
            uids: UidSet::range(5, 7),
            mode: StoreMode::Replace,
            flags: Flags::none(),
            unchanged_since: None,
        })
        .unwrap();
    assert_eq!(world.last.0, 3 + 2);
}

#[test]
fn twenty_thousand_messages_are_expunged_by_one_entry_and_swept_after_it() {
    let mut world = World::new();
    world.fill("INBOX", 20_000);
    let inbox = world.id("INBOX");
    world.run(flag(inbox, ALL(), SystemFlag::Deleted)).unwrap();
    let expunge = world.submit(1, Command::Expunge { folder: inbox, uids: None });
    assert!(world.step());
    let Ok(Answer::Expunged { uids, .. }) = world.answers[&expunge].0.clone() else { panic!() };
    assert_eq!(uids.len(), 20_000);
    assert_eq!(world.count(Table::Places), 20_000, "still there");
    assert!(!world.mailbox.is_idle());
    assert!(world.step());
    // The next owner goes on.
    world.reload();
    assert!(world.uids("INBOX").is_empty());
    world.assert_rows_are_memory();
    world.drain();
    for table in [Table::Places, Table::Contents, Table::MessageIds, Table::Chunks, Table::FlagPages] {
        let kept = usize::from(table == Table::FlagPages);
        assert!(world.count(table) <= kept, "{table:?}: {}", world.count(table));
    }
    assert!(world.mailbox.is_idle());
}

#[test]
fn a_removed_folder_takes_its_rows_with_it() {
    for count in [50, 3_000] {
        let mut world = World::new();
        world.run(create("a/b")).unwrap();
        world.fill("a", count);
        let folder = world.id("a");
        world.run(flag(folder, ALL(), SystemFlag::Seen)).unwrap();
        world.run(Command::DeleteFolder { name: "a".into() }).unwrap();
        assert_eq!(
            world.run(Command::Status { folder: "a".into() }).unwrap_err(),
            Refusal::NotAllowed("this level was deleted and only has folders below it".into())
        );
        assert_eq!(world.run(create("a")), Ok(Answer::Done));
        assert!(world.append("a", "new") > count);
        world.assert_rows_are_memory();
        world.run(Command::DeleteFolder { name: "a/b".into() }).unwrap();
        world.run(Command::DeleteFolder { name: "a".into() }).unwrap();
        world.assert_rows_are_memory();
        for table in
            [Table::Places, Table::Contents, Table::MessageIds, Table::Chunks, Table::FlagPages, Table::Expunged]
        {
            assert_eq!(world.count(table), 0, "{table:?} of {count}");
        }
    }
}

#[test]
fn a_select_claims_recent_messages_and_the_next_entry_saves_it() {
    let mut world = World::new();
    world.append("INBOX", "1");
    world.append("INBOX", "2");
    let recent = |world: &mut World, claim_recent| {
        let Ok(Answer::Selected(s)) = world.run(Command::Select { folder: "INBOX".into(), claim_recent }) else {
            panic!()
        };
        s.first_recent_uid
    };
    assert_eq!(recent(&mut world, false), 1);
    assert_eq!(recent(&mut world, true), 1);
    assert_eq!(recent(&mut world, true), 3);
    world.append("INBOX", "3");
    world.reload();
    assert_eq!(recent(&mut world, true), 3);
    let Ok(Answer::Status(status)) = world.run(Command::Status { folder: "inbox".into() }) else { panic!() };
    assert_eq!((status.messages, status.recent, status.unseen, status.size_bytes), (3, 0, 3, 3));
}

#[test]
fn fetches_read_rows_and_say_when_one_is_damaged() {
    let mut world = World::new();
    world.append("INBOX", "text");
    let inbox = world.id("INBOX");
    let what = FetchWhat { content: true, header: true };
    let fetch = Command::Fetch { folder: inbox, uids: ALL(), what };
    let Ok(Answer::Fetched(fetched)) = world.run(fetch.clone()) else { panic!() };
    let (content, header) = (fetched[0].content.clone().unwrap(), fetched[0].header.clone().unwrap());
    assert_eq!((content.size_bytes, content.chunks, header.header.as_ref()), (4, 1, b"Subject: x\r\n\r\n".as_slice()));
    let chunk = Command::ReadChunk { email: content.email, body: content.body, number: 0 };
    assert_eq!(world.run(chunk), Ok(Answer::Chunk(Some("text".into()))));
    let chunks =
        vec![(content.email, content.body, 0), (content.email, content.body, 1), (content.email, content.body, 0)];
    let several = world.run(Command::ReadChunks { chunks });
    assert!(
        matches!(several, Ok(Answer::Chunks(chunks)) if chunks.iter().map(Option::is_some).eq([true, false, true]))
    );
    let too_many = vec![(content.email, content.body, 0); READ_CHUNKS_MAX + 1];
    assert!(matches!(world.run(Command::ReadChunks { chunks: too_many }), Err(Refusal::Limit(_))));
    let other = Command::ReadChunk { email: content.email, body: content.body, number: 1 };
    assert_eq!(world.run(other), Ok(Answer::Chunk(None)));
    let key = crate::records::content_key(world.place.mailbox, content.email);
    world.rows.corrupt(crate::harness::REPLICA, &key, vec![1; 80].into());
    let read = world.mailbox.engine_mut().read(&world.env, &fetch);
    let Read::Stored(read) = read else { panic!("{read:?}") };
    assert!(matches!(read.run(&world.rows), Err(StoreError::Damaged { .. })), "a replica's damage is no refusal");
}

#[test]
fn a_session_that_comes_back_learns_what_changed() {
    let mut world = World::new();
    for n in 0..6 {
        world.append("INBOX", &n.to_string());
    }
    let opened = world.select("INBOX");
    world.run(flag(opened.folder, UidSet::range(2, 3), SystemFlag::Deleted)).unwrap();
    world.run(Command::Expunge { folder: opened.folder, uids: Some(UidSet::range(3, 3)) }).unwrap();
    world.append("INBOX", "new");
    let resume =
        |since, known| Command::Resume { folder: opened.folder, uid_validity: opened.uid_validity, since, known };
    let Ok(Answer::Resumed(resumed)) = world.run(resume(opened.highest_modseq, ALL())) else { panic!() };
    assert_eq!(resumed.vanished, UidSet::range(3, 3));
    let changed: Vec<u32> = resumed.changed.iter().map(|m| m.uid).collect();
    assert_eq!((changed, resumed.uid_next), (vec![2, 7], 8));
    let Ok(Answer::Resumed(resumed)) = world.run(resume(opened.highest_modseq, UidSet::range(4, 9))) else { panic!() };
    assert!(resumed.vanished.is_empty());
    let gone = Command::Resume { folder: opened.folder, uid_validity: 999, since: 0, known: ALL() };
    assert_eq!(world.run(gone), Err(Refusal::FolderGone));
}

#[test]
fn past_the_expunge_history_all_that_does_not_exist_has_vanished() {
    let mut world = World::new();
    world.fill("INBOX", crate::EXPUNGED_ROWS_MAX as u32 + 20);
    let opened = world.select("INBOX");
    world.run(flag(opened.folder, ALL(), SystemFlag::Deleted)).unwrap();
    let gone: BTreeSet<u32> = (0..crate::EXPUNGED_ROWS_MAX as u32 + 5).map(|n| n + 3).collect();
    for uid in &gone {
        world.submit(1, Command::Expunge { folder: opened.folder, uids: Some(UidSet::range(*uid, *uid)) });
        if uid % 500 == 0 {
            world.drain();
        }
    }
    world.drain();
    assert_eq!(world.count(Table::Expunged), crate::EXPUNGED_ROWS_MAX);
    let resume = Command::Resume {
        folder: opened.folder,
        uid_validity: opened.uid_validity,
        since: opened.highest_modseq,
        known: ALL(),
    };
    let Ok(Answer::Resumed(resumed)) = world.run(resume) else { panic!() };
    assert_eq!(resumed.vanished, gone.into_iter().collect());
    world.assert_rows_are_memory();
}

#[test]
fn pages_of_flags_and_single_places_overrule_each_other_by_modseq() {
    let mut world = World::new();
    world.fill("INBOX", 1_500);
    let inbox = world.id("INBOX");
    for (uids, what, paged) in [
        (UidSet::range(1, 1_500), SystemFlag::Seen, true),
        (UidSet::range(1_020, 1_028), SystemFlag::Flagged, false),
        (UidSet::range(1_000, 1_100), SystemFlag::Answered, true),
        (UidSet::range(3, 3), SystemFlag::Draft, false),
        (UidSet::range(1, 1_500), SystemFlag::Deleted, true),
    ] {
        let count = uids.len() as usize;
        world.run(flag(inbox, uids, what)).unwrap();
        assert_eq!(world.last.0, if paged { 2 } else { count } + 2, "{what:?}");
        world.assert_rows_are_memory();
    }
    world.run(Command::Expunge { folder: inbox, uids: Some(UidSet::range(1, 1_023)) }).unwrap();
    assert_eq!(world.count(Table::FlagPages), 1, "an empty page goes");
    world.assert_rows_are_memory();
}

#[test]
fn a_message_is_saved_anew_by_each_copy_and_keeps_its_date_through_all_else() {
    let mut world = World::new();
    let dates = |world: &mut World, name: &str| {
        let folder = world.id(name);
        match world.run(Command::SaveDates { folder, uids: ALL() }) {
            Ok(Answer::SaveDates(dates)) => dates,
            other => panic!("{other:?}"),
        }
    };
    let first = world.env.wall;
    world.append("INBOX", "text");
    world.env.wall = UnixMillis(first.0 + 5_000);
    let inbox = world.id("INBOX");
    world.run(Command::Copy { folder: inbox, uids: ALL(), to: "Sent".into() }).unwrap();
    let flags = Flags::none().with(SystemFlag::Seen);
    world
        .run(Command::Store { folder: inbox, uids: ALL(), mode: StoreMode::Add, flags, unchanged_since: None })
        .unwrap();
    for _ in 0..2 {
        assert_eq!(dates(&mut world, "INBOX"), [(1, first)]);
        assert_eq!(dates(&mut world, "Sent"), [(1, UnixMillis(first.0 + 5_000))]);
        world.reload();
    }
    world.assert_rows_are_memory();
}

#[test]
fn what_many_ask_after_one_change_is_counted_once() {
    let mut world = World::new();
    let inbox = world.id("INBOX");
    let counts = |world: &mut World| match world.run(Command::Statuses { known: vec![(inbox, 0)] }) {
        Ok(Answer::Statuses(counts)) => (counts[0].1.messages, counts[0].1.unseen, counts[0].1.recent),
        other => panic!("{other:?}"),
    };
    world.append("INBOX", "one");
    assert_eq!(counts(&mut world), (1, 1, 1));
    // Whoever counts again sees that this is not so.
    let kept = |world: &mut World| {
        if let Some((_, counts)) = world.mailbox.engine_mut().counted().get_mut(&inbox) {
            counts.unseen = 77;
        }
    };
    kept(&mut world);
    assert_eq!(counts(&mut world), (1, 77, 1));
    assert!(matches!(world.run(Command::Status { folder: "INBOX".into() }), Ok(Answer::Status(s)) if s.unseen == 77));
    world.append("INBOX", "two");
    assert_eq!(counts(&mut world), (2, 2, 2), "a change is counted");
    kept(&mut world);
    world.run(Command::Select { folder: "INBOX".into(), claim_recent: true }).unwrap();
    assert_eq!(counts(&mut world), (2, 2, 0), "and so is what is \\Recent no more");
    kept(&mut world);
    world.run(flag(inbox, ALL(), SystemFlag::Seen)).unwrap();
    assert_eq!(counts(&mut world), (2, 0, 0));
    for n in 0..COUNTED_MAX {
        world.run(create(&n.to_string())).unwrap();
        let id = world.id(&n.to_string());
        world.run(Command::Statuses { known: vec![(id, 0)] }).unwrap();
    }
    assert!(world.mailbox.engine_mut().counted().len() <= COUNTED_MAX, "what is kept is bounded");
}

#[test]
fn a_filter_is_the_messages_own_and_goes_with_its_last_place() {
    let mut world = World::new();
    for n in 0..3 {
        world.append("INBOX", &n.to_string());
    }
    let (inbox, archive) = (world.id("INBOX"), world.id("Archive"));
    let what = FetchWhat { content: true, header: false };
    let fetch = Command::Fetch { folder: inbox, uids: ALL(), what };
    let Ok(Answer::Fetched(fetched)) = world.run(fetch) else { panic!() };
    let emails: Vec<EmailId> = fetched.iter().filter_map(|message| Some(message.content.as_ref()?.email)).collect();
    let filter = |place: usize| {
        let mut marks = vec![0; PLACES / 64];
        marks[place / 64] |= 1 << (place % 64);
        Filter::of(&marks)
    };
    let add = |filters: Vec<(EmailId, Filter)>| Command::Search(SearchQuestion::Add { filters });
    let narrow = |world: &mut World, folder| {
        // What nobody has, what all have, and a text too short to tell.
        let texts = vec![vec![200_000], vec![100], vec![]];
        match world.run(Command::Search(SearchQuestion::Narrow { folder, uids: UidSet::range(1, 100), texts })) {
            Ok(Answer::Search(SearchAnswer::Narrowed { indexed, lacking })) => {
                assert_eq!(lacking, [indexed.clone(), UidSet::new(), UidSet::new()]);
                indexed.iter().collect::<Vec<u32>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(narrow(&mut world, inbox).is_empty());
    let unknown = EmailId([9; 16]);
    let filters = vec![(emails[0], filter(100)), (emails[2], filter(100)), (unknown, filter(100))];
    assert_eq!(world.run(add(filters)), Ok(Answer::Done));
    assert_eq!(narrow(&mut world, inbox), [1, 3]);
    let bytes = world.mailbox.engine_mut().search_index_bytes();
    assert_eq!(bytes, 2 * filter(100).memory_bytes(), "of a message that is not there nothing is kept");
    // A copy is the same message, and so is one that was moved.
    world.run(Command::Copy { folder: inbox, uids: UidSet::range(1, 1), to: "Archive".into() }).unwrap();
    world.run(Command::Move { folder: inbox, uids: UidSet::range(3, 3), to: "Archive".into() }).unwrap();
    assert_eq!((narrow(&mut world, inbox), narrow(&mut world, archive)), (vec![1], vec![1, 2]));
    let remove = |folder, uid| Command::Remove { folder, uids: UidSet::range(uid, uid) };
    world.run(remove(inbox, 1)).unwrap();
    assert_eq!((narrow(&mut world, archive), world.mailbox.engine_mut().search_index_bytes()), (vec![1, 2], bytes));
    world.run(remove(archive, 2)).unwrap();
    assert_eq!((narrow(&mut world, archive), world.mailbox.engine_mut().search_index_bytes()), (vec![1], bytes / 2));
    world.run(Command::DeleteFolder { name: "Archive".into() }).unwrap();
    assert_eq!(world.mailbox.engine_mut().search_index_bytes(), 0);
    assert_eq!(world.run(add(vec![(emails[0], filter(100))])), Ok(Answer::Done));
    assert_eq!(world.mailbox.engine_mut().search_index_bytes(), 0, "what comes too late leaves nothing behind");
    world.assert_rows_are_memory();
}

#[test]
fn what_is_asked_of_the_index_is_bounded_and_the_key_of_grams_is_the_mailboxs() {
    let mut world = World::new();
    let inbox = world.id("INBOX");
    let ask = |world: &mut World, question| world.run(Command::Search(question));
    let key = SearchQuestion::Key { matcher: MATCHER };
    let Ok(Answer::Search(SearchAnswer::Key(seed))) = ask(&mut world, key.clone()) else { panic!() };
    world.reload();
    assert_eq!(ask(&mut world, key), Ok(Answer::Search(SearchAnswer::Key(seed))));
    let of_another_version = SearchQuestion::Key { matcher: MATCHER + 1 };
    assert!(matches!(ask(&mut world, of_another_version), Err(Refusal::Limit(_))));
    let texts = vec![Vec::new(); NARROWED_TEXTS_MAX + 1];
    let too_many = ask(&mut world, SearchQuestion::Narrow { folder: inbox, uids: UidSet::new(), texts });
    assert!(matches!(too_many, Err(Refusal::Limit(_))));
    let (folder, uids) = (crate::api::FolderId(999), UidSet::range(1, 1));
    let nowhere = SearchQuestion::Narrow { folder, uids, texts: Vec::new() };
    assert_eq!(ask(&mut world, nowhere), Err(Refusal::FolderGone));
}
