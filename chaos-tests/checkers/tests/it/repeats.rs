//! What is asked again: done once while nobody has heard the first one's answer, and twice after that.

use mailraft_checkers::{Bounds, Checker, Ended, Op, Record, Reply, Report, Rule};
use mailraft_mailbox::api::{FolderId, Once, StoreMode};
use mailraft_mailbox::{Answer, Flags, SystemFlag, UidSet};

use crate::world::{STEP_MICROS, World};

const HOUR: u64 = 3_600_000_000;

fn check(world: &World) -> Report {
    let bounds = Bounds { repeat_kept: HOUR, ..Bounds::serving_within(10 * STEP_MICROS) };
    let mut checker = Checker::new(bounds);
    world.records.iter().for_each(|record| checker.record(record.clone()));
    checker.finish()
}

fn right(world: &World) {
    let report = check(world);
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert_eq!(report.skipped, 0);
}

fn wrong(world: &World) {
    let rules: Vec<Rule> = check(world).violations.iter().map(|violation| violation.rule).collect();
    assert!(!rules.is_empty() && rules.iter().all(|rule| *rule == Rule::ExactlyOnce), "{rules:?}");
}

fn append(marker: u64, date: Option<i64>) -> Op {
    Op::Append { folder: "INBOX".to_owned(), marker, flags: Flags::none(), date }
}

/// What a client asks when it knows of no answer.
fn nothing_heard() -> Once {
    Once::default()
}

/// Session 1 learns the folder's id, and does not follow it.
fn learn_inbox(world: &mut World) {
    world.run(1, Op::Select { folder: "INBOX".to_owned() });
    world.run(1, Op::Unselect);
}

/// Asked by session 2, which is not told what became of it.
fn untold(world: &mut World, op: Op) {
    world.ask_once(2, op, nothing_heard());
    world.step(false);
}

fn copy() -> Op {
    Op::Copy { folder: FolderId(1), uids: UidSet::range(1, 1), to: "Archive".to_owned() }
}

fn submission() -> Op {
    Op::Deliver { marker: 5, deduplicate: false }
}

/// Each of these was done, nobody was told, and it was asked again.
fn repeated() -> World {
    let mut world = World::new(1);
    learn_inbox(&mut world);
    for op in [append(1, None), copy(), submission()] {
        untold(&mut world, op.clone());
        world.run_once(3, op, nothing_heard());
    }
    world
}

#[test]
fn a_repeat_of_what_nobody_heard_of_is_done_once() {
    let mut world = repeated();
    world.run_once(3, append(1, Some(7)), nothing_heard());
    world.run(1, Op::Status { folder: "INBOX".to_owned() });
    right(&world);
    for again in [append(1, None), copy(), submission()] {
        let mut world = repeated();
        // By a mailbox that looks for no repeat.
        world.run(4, again);
        wrong(&world);
    }
}

#[test]
fn a_copy_that_is_asked_for_under_the_new_name_of_its_folder_is_a_repeat() {
    let mut world = World::new(1);
    learn_inbox(&mut world);
    world.run(1, append(1, None));
    let copy = |to: &str| Op::Copy { folder: FolderId(1), uids: UidSet::range(1, 9), to: to.to_owned() };
    world.run(1, Op::Create { name: "a".to_owned() });
    untold(&mut world, copy("a"));
    world.run(1, Op::Rename { from: "a".to_owned(), to: "d".to_owned() });
    world.run_once(3, copy("d"), nothing_heard());
    world.run(1, Op::Status { folder: "d".to_owned() });
    right(&world);
    // By a mailbox that looks for no repeat.
    world.run(4, copy("d"));
    wrong(&world);
}

#[test]
fn a_copy_of_all_is_no_repeat_after_another_came() {
    let mut world = World::new(1);
    learn_inbox(&mut world);
    let copy = Op::Copy { folder: FolderId(1), uids: UidSet::range(1, 9), to: "Archive".to_owned() };
    world.run(1, append(1, None));
    untold(&mut world, copy.clone());
    world.run_once(3, append(2, None), nothing_heard());
    let again = world.run_once(3, copy.clone(), nothing_heard());
    world.run(1, Op::Status { folder: "Archive".to_owned() });
    right(&world);
    // It is told what was made before the other came, and nothing is done.
    let first = world.records.iter().find_map(|record| match record {
        Record::Resolved { outcome: Some((_, answer @ Ok(Answer::Copied { .. }))), .. } => answer.clone().ok(),
        _ => None,
    });
    for record in &mut world.records {
        if let Record::Ended { id, ended, .. } = record
            && *id == again
        {
            *ended = Ended::Done(Reply::Answer(first.clone().unwrap()));
        }
    }
    world.records.retain(|record| match record {
        Record::Event { event, .. } => event.origin != again,
        Record::Ended { ended: Ended::Done(Reply::Answer(Answer::Status(_))), .. } => false,
        _ => true,
    });
    wrong(&world);
}

#[test]
fn what_was_heard_may_be_asked_for_twice() {
    let mut world = World::new(1);
    let first = world.run_once(2, append(1, None), nothing_heard());
    let hears = |commands| Once { heard: commands, ..Once::default() };
    let second = world.run_once(2, append(1, None), hears(vec![first]));
    right(&world);
    let own = Once { own: vec![first, second], ..Once::default() };
    world.run_once(2, append(1, None), own);
    right(&world);
    // One by whom nothing was told to be heard, of a session that has the answer.
    world.run_once(2, append(1, None), nothing_heard());
    wrong(&world);
}

#[test]
fn who_hears_and_is_told_an_answer_as_if_nothing_was_heard_is_told_wrong() {
    let mut world = World::new(1);
    let first = world.run_once(2, append(1, None), nothing_heard());
    world.run_once(3, append(1, None), nothing_heard());
    right(&world);
    let joined = world.last();
    world
        .records
        .retain(|record| !matches!(record, Record::Asked { id, .. } | Record::Ended { id, .. } if *id == joined));
    // Told along with a command that was done before.
    let told = world.run_once(2, append(2, None), nothing_heard());
    world.records.push(Record::Hears { at: world.now, id: told, commands: vec![joined, first] });
    right(&world);
    world.run_once(3, append(1, None), nothing_heard());
    wrong(&world);
}

#[test]
fn what_was_removed_is_done_again() {
    let mut world = World::new(1);
    learn_inbox(&mut world);
    untold(&mut world, append(1, None));
    let flags = Flags::none().with(SystemFlag::Deleted);
    let (folder, uids) = (FolderId(1), UidSet::range(1, 1));
    world.run(1, Op::Store { folder, uids, mode: StoreMode::Add, flags, unchanged_since: None });
    world.run(1, Op::Expunge { folder: FolderId(1), uids: None });
    let again = world.run_once(3, append(1, None), nothing_heard());
    right(&world);
    // It is told that the first was not removed.
    let first = world.records.iter().find_map(|record| match record {
        Record::Resolved { outcome: Some((_, answer)), .. } => answer.clone().ok(),
        _ => None,
    });
    for record in &mut world.records {
        if let Record::Ended { id, ended, .. } = record
            && *id == again
        {
            *ended = Ended::Done(Reply::Answer(first.clone().unwrap()));
        }
    }
    world.records.retain(|record| !matches!(record, Record::Event { event, .. } if event.origin == again));
    wrong(&world);
}

#[test]
fn what_is_done_again_and_joined_in_one_entry_is_there() {
    let mut world = World::new(1);
    learn_inbox(&mut world);
    let first = world.run_once(2, append(1, None), nothing_heard());
    let flags = Flags::none().with(SystemFlag::Deleted);
    let (folder, uids) = (FolderId(1), UidSet::range(1, 1));
    world.run(1, Op::Store { folder, uids, mode: StoreMode::Add, flags, unchanged_since: None });
    world.run(1, Op::Expunge { folder: FolderId(1), uids: None });
    world.ask_once(2, append(1, None), Once { heard: vec![first], ..Once::default() });
    world.run_once(3, append(1, None), nothing_heard());
    right(&world);
}

#[test]
fn what_was_taken_to_be_done_is_joined_by_its_repeat() {
    let mut world = World::new(1);
    learn_inbox(&mut world);
    untold(&mut world, append(1, None));
    // Nor does the table tell; the next one's UID and MODSEQ say that something was done before it.
    world.records.retain(|record| !matches!(record, Record::Resolved { .. }));
    world.run_once(4, append(2, None), nothing_heard());
    let again = world.run_once(3, append(1, None), nothing_heard());
    world.run(1, Op::Status { folder: "INBOX".to_owned() });
    let report = check(&world);
    assert!(report.is_clean(), "{:#?}", report.violations);
    // It is told another one's.
    for record in &mut world.records {
        if let Record::Ended { id, ended: Ended::Done(Reply::Answer(Answer::Stored { uid, .. })), .. } = record
            && *id == again
        {
            *uid = 2;
        }
    }
    assert!(!check(&world).is_clean());
}
