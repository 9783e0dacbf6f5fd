//! Terms that began while the home answered alone: UIDs and MODSEQs jump, and nobody says so.

use mailraft_checkers::{Op, Record};
use mailraft_mailbox::api::{FolderId, StoreMode};
use mailraft_mailbox::{Flags, SystemFlag, UidSet};

use crate::world::{World, check};

fn right(world: &World) {
    let report = check(world.records.clone());
    assert!(report.is_clean(), "{:#?}", report.violations);
}

fn deliver(world: &mut World) {
    let marker = world.new_marker();
    world.run(2, Op::Deliver { marker, deduplicate: true });
}

fn status(world: &mut World, folder: &str) {
    world.run(1, Op::Status { folder: folder.to_owned() });
}

/// Of no command that was not answered anybody knows what became of it.
fn forget_outcomes(world: &mut World) {
    world.records.retain(|record| !matches!(record, Record::Resolved { .. }));
}

#[test]
fn what_is_done_first_in_one_may_be_answered_without_a_modseq() {
    let mut world = World::new(1);
    (0..3).for_each(|_| deliver(&mut world));
    world.fail_over_alone();
    world.run(1, Op::Rename { from: "INBOX".to_owned(), to: "d".to_owned() });
    deliver(&mut world);
    world.run(3, Op::Select { folder: "d".to_owned() });
    right(&world);
}

#[test]
fn what_is_done_first_in_one_takes_a_modseq_that_no_other_is_looked_for() {
    let mut world = World::new(1);
    deliver(&mut world);
    let marker = world.new_marker();
    world.ask(2, Op::Deliver { marker, deduplicate: true });
    world.fail_over_alone();
    forget_outcomes(&mut world);
    world.run(1, Op::Create { name: "d".to_owned() });
    status(&mut world, "INBOX");
    (0..2).for_each(|_| deliver(&mut world));
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    right(&world);
}

#[test]
fn what_was_done_before_one_is_known_from_what_is_shown_in_it() {
    let mut world = World::new(1);
    let flagged = Flags::none().with(SystemFlag::Flagged);
    world.append(2, "INBOX", flagged.clone());
    world.run(1, Op::Select { folder: "INBOX".to_owned() });
    world.run(1, Op::Unselect);
    let store = |mode, flags| {
        let (folder, uids) = (FolderId(1), UidSet::range(1, 1));
        Op::Store { folder, uids, mode, flags, unchanged_since: None }
    };
    world.ask(2, store(StoreMode::Replace, Flags::none().with(SystemFlag::Seen)));
    world.step(false);
    forget_outcomes(&mut world);
    world.fail_over_alone();
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    // Another one is not flagged any more either.
    world.run(3, store(StoreMode::Remove, flagged));
    deliver(&mut world);
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    right(&world);
}

/// What is done last before such a term, of which nobody is told.
fn untold_before_one(op: Op) -> World {
    let mut world = World::new(1);
    deliver(&mut world);
    world.run(1, Op::Select { folder: "INBOX".to_owned() });
    world.run(1, Op::Unselect);
    world.ask(2, op);
    world.step(false);
    forget_outcomes(&mut world);
    world.fail_over_alone();
    world
}

/// What comes next goes by the message that is there.
fn ends_right(mut world: World) {
    deliver(&mut world);
    let folder = FolderId(1);
    world.run(1, Op::Fetch { folder, uids: UidSet::range(1, u32::MAX) });
    world.run(1, Op::Copy { folder, uids: UidSet::range(2, 2), to: "Archive".to_owned() });
    deliver(&mut world);
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    right(&world);
}

#[test]
fn what_was_done_last_before_one_is_known_from_its_repeat() {
    let delivery = Op::Deliver { marker: 99, deduplicate: true };
    let mut world = untold_before_one(delivery.clone());
    status(&mut world, "Trash");
    world.run(4, delivery);
    ends_right(world);
}

#[test]
fn what_was_done_last_before_one_is_known_from_who_sees_it() {
    let append = |date| Op::Append { folder: "INBOX".to_owned(), marker: 99, flags: Flags::none(), date };
    let mut world = untold_before_one(append(None));
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    // Not its repeat, as the date differs.
    world.run(4, append(Some(7)));
    ends_right(world);
}

/// Opening a folder tells of no message which one it is.
#[test]
fn what_was_done_last_before_one_is_known_where_nobody_reads_which_message_it_is() {
    let append = |flags| Op::Append { folder: "INBOX".to_owned(), marker: 99, flags, date: None };
    let answered = Flags::none().with(SystemFlag::Answered);
    let mut world = untold_before_one(append(answered));
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    let flags = Flags::none().with(SystemFlag::Flagged);
    let (folder, uids) = (FolderId(1), UidSet::range(2, 2));
    world.run(3, Op::Store { folder, uids, mode: StoreMode::Add, flags, unchanged_since: None });
    deliver(&mut world);
    world.run(3, Op::Select { folder: "INBOX".to_owned() });
    right(&world);
}
