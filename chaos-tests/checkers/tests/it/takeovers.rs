//! What is left of a history when another region takes over.

use mailraft_checkers::{Ended, Op, Record, Reply, Rule};
use mailraft_mailbox::{Answer, UidSet};

use crate::world::{World, broken, check};

/// Session 1 has INBOX open, with two messages.
fn two() -> World {
    let mut world = World::new(1);
    world.run(1, Op::Select { folder: "INBOX".to_owned() });
    (0..2).for_each(|_| deliver(&mut world));
    world
}

fn deliver(world: &mut World) {
    let marker = world.new_marker();
    world.run(2, Op::Deliver { marker, deduplicate: true });
}

/// Two more messages are delivered, session 1 hears of them, and both are lost. Another one comes in the new home.
fn taken_over() -> World {
    let (mut lost, mut left) = (two(), two());
    let since = lost.now + 1;
    (0..2).for_each(|_| deliver(&mut lost));
    left.takes_over_from(lost, since);
    deliver(&mut left);
    let folder = left.open[&1].folder;
    left.run(1, Op::Fetch { folder, uids: UidSet::range(1, u32::MAX) });
    left
}

#[test]
fn what_is_lost_breaks_no_rule_once_it_is_known_to_be_lost() {
    let world = taken_over();
    let report = check(world.records.clone());
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert!(report.checks[&Rule::Forks] > 0, "who resumed was compared");
    let mut untold = world.records.clone();
    untold.retain(|record| !matches!(record, Record::TakenOver { .. }));
    assert!(!broken(untold).is_empty(), "without that it is");
}

#[test]
fn who_saw_what_is_lost_must_hear_that_it_is_gone() {
    let mut records = taken_over().records;
    for record in &mut records {
        if let Record::Resumed { resumed, .. } = record {
            assert!(resumed.vanished.contains(3) && resumed.vanished.contains(4));
            resumed.vanished = UidSet::new();
        }
    }
    assert!(broken(records).contains_key(&Rule::Forks));
}

#[test]
fn a_uid_that_is_lost_is_not_given_out_again() {
    let mut records = taken_over().records;
    let last = records.iter_mut().rev().find_map(|record| match record {
        Record::Ended { ended: Ended::Done(Reply::Answer(Answer::Stored { uid, .. })), .. } => Some(uid),
        _ => None,
    });
    *last.expect("a message was delivered") = 4;
    assert!(broken(records).contains_key(&Rule::Forks));
}

#[test]
fn of_an_incarnation_nobody_may_be_told_but_who_resumes_a_folder_in_it() {
    let mut world = two();
    (0..2).for_each(|_| world.takes_over(None));
    deliver(&mut world);
    let report = check(world.records.clone());
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert_eq!(report.skipped, 0);
    let mut records = world.records;
    let first = records.iter_mut().find_map(|record| match record {
        Record::Resumed { resumed, .. } => Some(resumed),
        _ => None,
    });
    first.expect("session 1 resumed").highest_modseq += 1;
    assert!(!broken(records).is_empty(), "what it was told is compared");
}
