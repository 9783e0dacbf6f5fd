//! For each rule a history that is right, and what breaks just that rule.

use mailraft_checkers::{At, Ended, Op, Record, Reply, Rule};
use mailraft_mailbox::api::{Change, FolderId, MaildropMessage, MessageState, StoreMode};
use mailraft_mailbox::{Answer, Event, Flags, Refusal, SystemFlag, UidSet};
use mailraft_storage::CommandId;

use crate::world::{MAILBOX, PARTITION, STEP_MICROS, World, broken, check};

const INBOX: FolderId = FolderId(1);

fn seen() -> Flags {
    Flags::none().with(SystemFlag::Seen)
}

fn deleted() -> Flags {
    Flags::none().with(SystemFlag::Deleted)
}

fn all() -> UidSet {
    UidSet::range(1, u32::MAX)
}

fn select(folder: &str) -> Op {
    Op::Select { folder: folder.to_owned() }
}

fn status(folder: &str) -> Op {
    Op::Status { folder: folder.to_owned() }
}

fn store(uids: UidSet, mode: StoreMode, flags: Flags) -> Op {
    Op::Store { folder: INBOX, uids, mode, flags, unchanged_since: None }
}

fn fetch() -> Op {
    Op::Fetch { folder: INBOX, uids: all() }
}

/// Three messages in INBOX, which session 1 has open.
fn three(world: &mut World) {
    world.run(1, select("INBOX"));
    for _ in 0..3 {
        let marker = world.new_marker();
        world.run(2, Op::Deliver { marker, deduplicate: true });
    }
}

fn right(world: &World) {
    let report = check(world.records.clone());
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert_eq!(report.skipped, 0);
}

/// The history with each line changed; dropped where the closure says false.
fn but(world: &World, mut edit: impl FnMut(&mut Record) -> bool) -> Vec<Record> {
    let mut records = world.records.clone();
    records.retain_mut(|record| edit(record));
    records
}

/// The history with one command ended otherwise.
fn ending(world: &World, of: CommandId, edit: impl Fn(&mut Ended, &mut Option<At>)) -> Vec<Record> {
    let mut edited = 0;
    let records = but(world, |record| {
        if let Record::Ended { id, ended, position, .. } = record
            && *id == of
        {
            edit(ended, position);
            edited += 1;
        }
        true
    });
    assert_eq!(edited, 1);
    records
}

/// The history with one command answered otherwise.
fn answering(world: &World, of: CommandId, edit: impl Fn(&mut Reply)) -> Vec<Record> {
    ending(world, of, |ended, _| {
        let Ended::Done(reply) = ended else { panic!("{ended:?}") };
        edit(reply);
    })
}

/// The history with what the first session was told edited.
fn telling(world: &World, edit: impl Fn(&mut Event) -> bool) -> Vec<Record> {
    but(world, |record| match record {
        Record::Event { session: 1, event, .. } => edit(event),
        _ => true,
    })
}

fn breaks(rule: Rule, records: Vec<Record>) {
    let broken = broken(records);
    assert_eq!(broken.keys().copied().collect::<Vec<_>>(), [rule], "{broken:#?}");
}

fn lines(reply: &mut Reply) -> &mut Vec<(u32, u64, Flags, u64)> {
    let Reply::Fetched(lines) = reply else { panic!("{reply:?}") };
    lines
}

#[test]
fn rule_1_each_message_is_stored_exactly_once() {
    let mut world = World::new(1);
    three(&mut world);
    let repeat = world.run(2, Op::Deliver { marker: 1, deduplicate: true });
    let last = world.last();
    let read = world.run(3, fetch());
    let body = world.run(3, Op::ReadBody { folder: INBOX, uid: 2 });
    right(&world);
    breaks(Rule::ExactlyOnce, answering(&world, read, |reply| drop(lines(reply).remove(1))));
    let twice = |reply: &mut Reply| {
        let (_, marker, flags, modseq) = lines(reply)[0].clone();
        lines(reply).push((4, marker, flags, modseq));
    };
    breaks(Rule::ExactlyOnce, answering(&world, read, twice));
    breaks(Rule::ExactlyOnce, answering(&world, body, |reply| *reply = Reply::BodyDamaged));
    breaks(Rule::ExactlyOnce, answering(&world, body, |reply| *reply = Reply::Body(None)));
    for outcome in [None, Some((At { partition: PARTITION, incarnation: 1, index: 2 }, Err(Refusal::OverQuota)))] {
        let mut records = world.records.clone();
        records.push(Record::Resolved { id: last, outcome });
        breaks(Rule::ExactlyOnce, records);
    }
    let other = |reply: &mut Reply| {
        let Reply::Answer(Answer::Stored { uid, .. }) = reply else { panic!("{reply:?}") };
        *uid = 2;
    };
    breaks(Rule::ExactlyOnce, answering(&world, repeat, other));
}

#[test]
fn rule_1_a_repeat_is_stored_once_a_day() {
    let mut world = World::new(1);
    three(&mut world);
    let again = world.run(2, Op::Deliver { marker: 1, deduplicate: false });
    right(&world);
    let once = but(&world, |record| {
        if let Record::Asked { id, op: Op::Deliver { deduplicate, .. }, .. } = record {
            *deduplicate |= *id == again;
        }
        true
    });
    breaks(Rule::ExactlyOnce, once);
    let mut late = World::new(1);
    three(&mut late);
    late.now += 25 * 3_600_000_000;
    late.env.wall.0 += 25 * 3_600_000;
    late.run(2, Op::Deliver { marker: 1, deduplicate: true });
    late.run(2, status("INBOX"));
    right(&late);
}

#[test]
fn rule_1_a_repeat_may_be_told_the_answer_that_nobody_heard() {
    let mut world = World::new(1);
    three(&mut world);
    let marker = world.new_marker();
    let unheard = world.ask(2, Op::Deliver { marker, deduplicate: true });
    world.step(false);
    world.fail_over();
    world.append(1, "INBOX", seen());
    let repeat = world.run(2, Op::Deliver { marker, deduplicate: true });
    world.run(3, fetch());
    right(&world);
    // Nor did the table tell.
    let untold = |record: &mut Record| !matches!(record, Record::Resolved { id, .. } if *id == unheard);
    assert_eq!(broken(but(&world, untold)), [].into());
    // Where it is known to have done nothing the answer is nobody's.
    let not_done = but(&world, |record| {
        if let Record::Resolved { id, outcome } = record
            && *id == unheard
        {
            *outcome = None;
        }
        true
    });
    assert!(broken(not_done).contains_key(&Rule::ExactlyOnce));
    let other = |reply: &mut Reply| {
        let Reply::Answer(Answer::Stored { uid, .. }) = reply else { panic!("{reply:?}") };
        *uid = 1;
    };
    let mut records = answering(&world, repeat, other);
    records.retain_mut(untold);
    assert!(broken(records).contains_key(&Rule::ExactlyOnce));
}

#[test]
fn rule_1_what_was_removed_and_comes_again_is_stored_again() {
    let mut world = World::new(1);
    three(&mut world);
    let first = world.last();
    world.run(1, store(UidSet::range(3, 3), StoreMode::Add, deleted()));
    world.run(1, Op::Expunge { folder: INBOX, uids: None });
    let again = world.run(2, Op::Deliver { marker: 3, deduplicate: true });
    right(&world);
    // Answered as if it were there: nothing was stored.
    let answer = |of: CommandId| {
        let ended = |r: &Record| match r {
            Record::Ended { id, ended: Ended::Done(Reply::Answer(answer)), .. } if *id == of => Some(answer.clone()),
            _ => None,
        };
        world.records.iter().find_map(ended).unwrap()
    };
    let first = answer(first);
    let mut swallowed = answering(&world, again, |reply| *reply = Reply::Answer(first.clone()));
    swallowed.retain(|record| !matches!(record, Record::Event { event, .. } if event.origin == again));
    breaks(Rule::ExactlyOnce, swallowed);
}

#[test]
fn rule_1_what_got_no_answer_happened_at_most_once() {
    for carried_out in [true, false] {
        let mut world = World::new(1);
        three(&mut world);
        let marker = world.new_marker();
        world.ask(2, Op::Append { folder: "INBOX".to_owned(), marker, flags: seen(), date: None });
        if carried_out {
            world.step(false);
        }
        world.fail_over();
        world.run(3, fetch());
        let read = world.run(3, status("INBOX"));
        right(&world);
        // Without a word of the table both are possible.
        let untold = but(&world, |record| !matches!(record, Record::Resolved { .. }));
        assert!(broken(untold).is_empty());
        let promised = but(&world, |record| {
            if let Record::Ended { ended, .. } = record
                && *ended == Ended::Unknown
            {
                *ended = Ended::NotDone;
            }
            true
        });
        assert_eq!(broken(promised).len(), usize::from(carried_out));
        let many = |reply: &mut Reply| {
            let Reply::Answer(Answer::Status(status)) = reply else { panic!("{reply:?}") };
            status.messages += 1;
            status.unseen += 1;
        };
        breaks(Rule::Uncommitted, answering(&world, read, many));
    }
}

#[test]
fn rule_2_uids_rise_and_uid_validity_stays() {
    let mut world = World::new(1);
    world.run(3, select("INBOX"));
    world.run(3, Op::Unselect);
    let first = world.append(2, "INBOX", seen());
    let second = world.append(2, "INBOX", seen());
    world.run(1, Op::Create { name: "a".to_owned() });
    world.run(1, select("a"));
    world.run(1, Op::Delete { name: "a".to_owned() });
    world.run(1, Op::Create { name: "a".to_owned() });
    let again = world.run(1, status("a"));
    let inbox = world.run(1, status("INBOX"));
    let read = world.run(1, fetch());
    right(&world);
    let stored = |uid_now: u32, validity: u32| {
        move |reply: &mut Reply| {
            let Reply::Answer(Answer::Stored { uid, uid_validity, .. }) = reply else { panic!("{reply:?}") };
            (*uid, *uid_validity) = (uid_now, validity);
        }
    };
    breaks(Rule::Uids, answering(&world, second, stored(2, 9)));
    let without_reads = |records: Vec<Record>| -> Vec<Record> {
        let reads = [again, inbox, read];
        records.into_iter().filter(|r| !matches!(r, Record::Ended { id, .. } if reads.contains(id))).collect()
    };
    breaks(Rule::Uids, without_reads(answering(&world, second, stored(1, 1))));
    breaks(Rule::Uids, without_reads(answering(&world, first, stored(7, 1))));
    let validity = |now: u32| {
        move |reply: &mut Reply| {
            let Reply::Answer(Answer::Status(status)) = reply else { panic!("{reply:?}") };
            status.uid_validity = now;
        }
    };
    breaks(Rule::Uids, answering(&world, again, validity(7)));
    breaks(Rule::Uids, answering(&world, inbox, validity(20)));
    breaks(Rule::Uids, answering(&world, read, |reply| lines(reply)[1].1 = 1));
    let next = |reply: &mut Reply| {
        let Reply::Answer(Answer::Status(status)) = reply else { panic!("{reply:?}") };
        status.uid_next = 2;
    };
    breaks(Rule::Uids, answering(&world, inbox, next));
}

#[test]
fn rule_3_highest_modseq_rises_and_who_resumes_misses_nothing() {
    let mut world = World::new(1);
    three(&mut world);
    let read = world.run(2, status("INBOX"));
    // Session 1 is not told of these.
    for op in [
        store(UidSet::range(1, 2), StoreMode::Add, deleted()),
        Op::Expunge { folder: INBOX, uids: Some(UidSet::range(1, 1)) },
    ] {
        world.ask(2, op);
        world.step(false);
    }
    world.fail_over();
    let last = world.append(2, "INBOX", seen());
    right(&world);
    let low = |reply: &mut Reply| {
        let Reply::Answer(Answer::Status(status)) = reply else { panic!("{reply:?}") };
        status.highest_modseq -= 1;
    };
    breaks(Rule::Modseq, answering(&world, read, low));
    for part in 0..3 {
        let missed = but(&world, |record| {
            if let Record::Resumed { resumed, .. } = record {
                match part {
                    0 => resumed.changed.clear(),
                    1 => resumed.vanished = UidSet::new(),
                    _ => resumed.highest_modseq = 1 << 40,
                }
            }
            true
        });
        breaks(Rule::Modseq, missed);
    }
    let fell = |reply: &mut Reply| {
        let Reply::Answer(Answer::Stored { modseq, .. }) = reply else { panic!("{reply:?}") };
        *modseq -= 3;
    };
    let untold: Vec<Record> = answering(&world, last, fell);
    let untold = untold.into_iter().filter(|r| !matches!(r, Record::Event { .. } | Record::Resumed { .. })).collect();
    let broken = broken(untold);
    assert!(broken.contains_key(&Rule::Modseq), "{broken:#?}");
}

#[test]
fn rule_4_flags_are_as_they_were_set() {
    let mut world = World::new(1);
    three(&mut world);
    let before = world.run(1, fetch());
    let stored = world.run(1, store(UidSet::range(2, 2), StoreMode::Add, seen()));
    let after = world.run(1, fetch());
    let count = world.run(1, status("INBOX"));
    right(&world);
    let old = |reply: &mut Reply| (lines(reply)[1].2, lines(reply)[1].3) = (Flags::none(), 1);
    breaks(Rule::Flags, answering(&world, after, old));
    breaks(Rule::Flags, answering(&world, after, |reply| lines(reply)[0].2 = deleted()));
    breaks(Rule::Flags, answering(&world, before, |reply| lines(reply)[2].2 = seen()));
    let unseen = |reply: &mut Reply| {
        let Reply::Answer(Answer::Status(status)) = reply else { panic!("{reply:?}") };
        status.unseen += 1;
    };
    breaks(Rule::Flags, answering(&world, count, unseen));
    let held_back = |reply: &mut Reply| {
        let Reply::Answer(Answer::Flagged { modified, .. }) = reply else { panic!("{reply:?}") };
        modified.insert(2);
    };
    breaks(Rule::Flags, answering(&world, stored, held_back));
    let told = |event: &mut Event| {
        if let Change::Flagged(messages) = &mut event.change {
            messages[0].flags = deleted();
        }
        true
    };
    breaks(Rule::Flags, telling(&world, told));
}

#[test]
fn rule_5_nothing_is_seen_that_is_not_in_the_log() {
    let mut world = World::new(1);
    three(&mut world);
    let read = world.run(2, fetch());
    let opened = world.run(2, select("INBOX"));
    right(&world);
    breaks(Rule::Uncommitted, answering(&world, read, |reply| lines(reply).push((4, 77, seen(), 1))));
    breaks(Rule::Uncommitted, answering(&world, read, |reply| lines(reply)[0].1 = 77));
    let state = MessageState { uid: 9, flags: seen(), modseq: 5 };
    let more = |reply: &mut Reply| {
        let Reply::Answer(Answer::Selected(selected)) = reply else { panic!("{reply:?}") };
        selected.messages.push(state.clone());
    };
    breaks(Rule::Uncommitted, answering(&world, opened, more));
    let view = but(&world, |record| {
        if let Record::Opened { session: 2, selected, .. } = record {
            selected.messages.push(state.clone());
        }
        true
    });
    breaks(Rule::Uncommitted, view);
    let alien = telling(&world, |event| {
        event.origin = CommandId([9; 16]);
        true
    });
    breaks(Rule::Uncommitted, alien);
    let more = telling(&world, |event| {
        if let Change::Added(messages) = &mut event.change {
            messages.push(state.clone());
        }
        true
    });
    breaks(Rule::Uncommitted, more);
}

#[test]
fn rule_6_events_give_the_servers_state() {
    let mut world = World::new(1);
    three(&mut world);
    world.run(1, store(UidSet::range(1, 1), StoreMode::Add, deleted()));
    world.run(1, Op::Expunge { folder: INBOX, uids: None });
    world.append(1, "INBOX", seen());
    world.run(1, Op::Sync);
    right(&world);
    let drops: [fn(&Event) -> bool; 3] = [
        |event| matches!(event.change, Change::Added(_)),
        |event| matches!(event.change, Change::Flagged(_)),
        |event| matches!(event.change, Change::Expunged(_)),
    ];
    for drop in drops {
        breaks(Rule::View, telling(&world, |event| !drop(event)));
    }
    // Told twice; told after the answer.
    let events: Vec<usize> =
        (0..world.records.len()).filter(|n| matches!(world.records[*n], Record::Event { .. })).collect();
    let mut twice = world.records.clone();
    twice.insert(events[4], world.records[events[4]].clone());
    breaks(Rule::View, twice);
    let mut late = world.records.clone();
    late.swap(events[4], events[4] + 1);
    assert!(matches!(late[events[4]], Record::Ended { .. }));
    breaks(Rule::View, late);
}

#[test]
fn rule_7_a_change_of_several_messages_is_seen_whole() {
    let mut world = World::new(1);
    three(&mut world);
    world.run(2, store(UidSet::range(1, 2), StoreMode::Add, seen()));
    let flagged = world.run(2, fetch());
    let copied = world.run(2, Op::Copy { folder: INBOX, uids: UidSet::range(1, 2), to: "Trash".to_owned() });
    let trash = world.run(3, select("Trash"));
    let moved = world.run(2, Op::Move { folder: INBOX, uids: UidSet::range(1, 2), to: "Trash".to_owned() });
    let after = world.run(2, fetch());
    right(&world);
    let half = |reply: &mut Reply| (lines(reply)[1].2, lines(reply)[1].3) = (Flags::none(), 1);
    breaks(Rule::Atomic, answering(&world, flagged, half));
    let half = |reply: &mut Reply| {
        let Reply::Answer(Answer::Selected(selected)) = reply else { panic!("{reply:?}") };
        selected.messages.truncate(1);
    };
    breaks(Rule::Atomic, answering(&world, trash, half));
    let still = |reply: &mut Reply| lines(reply).insert(0, (1, 1, seen(), 1));
    breaks(Rule::Atomic, answering(&world, after, still));
    breaks(
        Rule::Atomic,
        telling(&world, |event| {
            if let Change::Expunged(uids) = &mut event.change {
                *uids = UidSet::range(1, 1);
            }
            true
        }),
    );
    for (id, trash_too) in [(copied, false), (moved, true)] {
        let half = answering(&world, id, |reply| {
            let Reply::Answer(Answer::Copied { from, to, .. }) = reply else { panic!("{reply:?}") };
            from.truncate(1);
            to.truncate(1);
        });
        let broken = broken(half);
        assert!(broken.contains_key(&Rule::Atomic) && (broken.len() == 1 || !trash_too), "{broken:#?}");
    }
}

#[test]
fn rule_8_replicas_agree() {
    let replica = |node: u64, applied: u64, hash: u8, state: u8| Record::Replica {
        at: 5,
        node,
        partition: PARTITION,
        applied,
        count: applied / 2,
        hash: [hash; 32],
        state_hash: Some([state; 32]),
    };
    let history = |third: Record| vec![replica(1, 8, 1, 1), replica(2, 8, 1, 1), third];
    assert!(broken(history(replica(3, 10, 2, 2))).is_empty());
    breaks(Rule::ReplicasAgree, history(replica(3, 8, 2, 1)));
    breaks(Rule::ReplicasAgree, history(replica(3, 8, 1, 2)));
    breaks(Rule::ReplicasAgree, history(replica(3, 9, 2, 3)));
}

#[test]
fn rule_9_no_answer_is_stale() {
    let mut world = World::new(1);
    three(&mut world);
    let sync = world.run(2, Op::Sync);
    let list = world.run(3, Op::List);
    let refused = world.run(3, status("none"));
    let write = world.run(3, Op::Subscribe { name: "x".to_owned(), on: true });
    right(&world);
    let earlier = |_: &mut Ended, position: &mut Option<At>| position.as_mut().unwrap().index -= 1;
    breaks(Rule::Stale, ending(&world, sync, earlier));
    breaks(Rule::Stale, ending(&world, write, earlier));
    breaks(Rule::Stale, ending(&world, sync, |ended, _| *ended = Ended::NoSuchMailbox));
    breaks(Rule::Stale, ending(&world, refused, |ended, _| *ended = Ended::Refused(Refusal::FolderExists)));
    let less = |reply: &mut Reply| {
        let Reply::Answer(Answer::Folders(lines)) = reply else { panic!("{reply:?}") };
        lines.pop();
    };
    breaks(Rule::Stale, answering(&world, list, less));
    let no_mailbox = ending(&world, sync, |ended, _| *ended = Ended::NoSuchMailbox);
    let unknown = no_mailbox.into_iter().filter(|r| !matches!(r, Record::Mailbox { .. })).collect();
    assert!(broken(unknown).is_empty(), "nobody said that it exists");
}

#[test]
fn a_change_that_nobody_told_of_lies_behind_what_was_seen_without_it() {
    let mut world = World::new(1);
    three(&mut world);
    // It sees the last delivery, and not what comes later.
    world.run(3, select("INBOX"));
    let untold = world.run(2, store(all(), StoreMode::Add, seen()));
    world.run(4, select("INBOX"));
    right(&world);
    let untold = |record: &mut Record| match record {
        Record::Ended { id, .. } | Record::Resolved { id, .. } => *id != untold,
        Record::Event { event, .. } => event.origin != untold,
        _ => true,
    };
    assert_eq!(broken(but(&world, untold)), [].into());
}

#[test]
fn a_change_that_nobody_told_of_may_be_seen_before_the_entry_that_shows_it() {
    let mut world = World::new(1);
    three(&mut world);
    world.run(3, select("INBOX"));
    let marker = world.new_marker();
    let untold = world.ask(2, Op::Append { folder: "INBOX".to_owned(), marker, flags: seen(), date: None });
    world.step(false);
    // Its session comes back to the folder between the two, and no answer names that position.
    world.fail_over();
    world.append(4, "INBOX", Flags::none());
    world.run(3, fetch());
    right(&world);
    let forgotten = |record: &mut Record| !matches!(record, Record::Resolved { id, .. } if *id == untold);
    assert_eq!(broken(but(&world, forgotten)), [].into());
    // It is a state of the folder as a whole: without its message it is none.
    let part = but(&world, |record| {
        if let Record::Resumed { resumed, .. } = record {
            resumed.changed.clear();
        }
        forgotten(record)
    });
    assert_eq!(Vec::from_iter(broken(part).into_keys()), [Rule::Modseq]);
}

#[test]
fn rule_9_what_ran_at_the_same_time_may_be_ordered_either_way() {
    let mut world = World::new(1);
    three(&mut world);
    let first = world.ask(2, Op::Append { folder: "INBOX".to_owned(), marker: 8, flags: seen(), date: None });
    world.step(true);
    let now = world.now;
    let sync = world.run(3, Op::Sync);
    let earlier = |_: &mut Ended, position: &mut Option<At>| position.as_mut().unwrap().index -= 1;
    breaks(Rule::Stale, ending(&world, sync, earlier));
    // Asked in the microsecond in which the append ended.
    world.records.retain_mut(|record| {
        if let Record::Asked { at, id, .. } = record
            && *id == sync
        {
            *at = now;
        }
        !matches!(record, Record::Event { .. } | Record::Opened { .. })
    });
    assert!(world.records.iter().any(|r| matches!(r, Record::Ended { id, at, .. } if *id == first && *at == now)));
    assert!(broken(ending(&world, sync, earlier)).is_empty());
}

/// Writes that wait through a fault, and what becomes of them: served after so many steps, or never.
fn outage(served_after: Option<u64>) -> Vec<Record> {
    let mut world = World::new(1);
    three(&mut world);
    let from = world.now;
    world.records.push(Record::Fault { at: from, name: "partition".to_owned() });
    let id = world.ask(2, Op::Append { folder: "INBOX".to_owned(), marker: 8, flags: seen(), date: None });
    world.now += 20 * STEP_MICROS;
    world.records.push(Record::Healed { at: world.now });
    world.now += served_after.unwrap_or(30) * STEP_MICROS;
    while world.step(true) {}
    if served_after.is_none() {
        return ending(&world, id, |ended, position| (*ended, *position) = (Ended::Unknown, None));
    }
    world.records
}

#[test]
fn rule_10_partitions_serve_once_healed() {
    let report = check(outage(Some(3)));
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert_eq!(report.without_service["partition"], 24 * STEP_MICROS);
    breaks(Rule::Liveness, outage(Some(11)));
    let mut records = outage(None);
    records.retain(|r| !matches!(r, Record::Event { .. }));
    let broken = broken(records);
    assert!(broken.contains_key(&Rule::Liveness), "{broken:#?}");
    let mut early = outage(Some(30));
    early.truncate(early.iter().position(|r| matches!(r, Record::Healed { .. })).unwrap() + 1);
    assert!(check(early).is_clean(), "the history ends before the bound");
    let _ = MAILBOX;
}

/// What a maildrop shows is held to the same rules.
#[test]
fn a_maildrop_shows_what_is_there_under_ids_that_stay() {
    let mut world = World::new(1);
    three(&mut world);
    let maildrop = world.run(3, Op::Maildrop);
    let unique_ids = world.run(3, Op::UniqueIds { folder: INBOX, uids: all() });
    let removed = world.run(3, Op::Remove { folder: INBOX, uids: UidSet::range(1, 2) });
    world.run(3, Op::UniqueIds { folder: INBOX, uids: all() });
    world.run(2, status("INBOX"));
    right(&world);
    let messages = |reply: &mut Reply, edit: fn(&mut Vec<MaildropMessage>)| {
        let Reply::Answer(Answer::Maildrop(maildrop)) = reply else { panic!("{reply:?}") };
        edit(&mut maildrop.messages);
    };
    let less = |reply: &mut Reply| messages(reply, |shown| shown.truncate(2));
    breaks(Rule::ExactlyOnce, answering(&world, maildrop, less));
    let more = |reply: &mut Reply| messages(reply, |shown| shown.push(MaildropMessage { uid: 4, size_bytes: 1 }));
    breaks(Rule::Uncommitted, answering(&world, maildrop, more));
    let turned = |reply: &mut Reply| messages(reply, |shown| shown.reverse());
    breaks(Rule::Uids, answering(&world, maildrop, turned));
    let ids = |reply: &mut Reply, edit: fn(&mut Vec<(u32, String)>)| {
        let Reply::Answer(Answer::UniqueIds(lines)) = reply else { panic!("{reply:?}") };
        edit(lines);
    };
    let other = |reply: &mut Reply| ids(reply, |lines| lines[2].1.push('x'));
    breaks(Rule::Uids, answering(&world, unique_ids, other));
    let same = |reply: &mut Reply| ids(reply, |lines| lines[0].1 = lines[1].1.clone());
    breaks(Rule::Uids, answering(&world, unique_ids, same));
    breaks(Rule::ExactlyOnce, answering(&world, unique_ids, |reply| ids(reply, |lines| drop(lines.pop()))));
    let part = |reply: &mut Reply| {
        let Reply::Answer(Answer::Expunged { uids, .. }) = reply else { panic!("{reply:?}") };
        *uids = UidSet::range(1, 1);
    };
    breaks(Rule::Atomic, answering(&world, removed, part));
}
