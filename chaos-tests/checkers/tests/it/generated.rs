//! Long histories of the engine, with many commands in an entry, lost answers and failovers.

use mailraft_checkers::{Op, Rule};
use mailraft_mailbox::api::{FolderId, StoreMode};
use mailraft_mailbox::{Flags, SystemFlag, UidSet};

use crate::world::{World, check};

const NAMES: [&str; 9] = ["INBOX", "inbox/x", "Trash", "a", "a/b", "a/b/c", "b", "b/c", "c/"];

fn flags(n: u64) -> Flags {
    match n {
        0 => Flags::none().with(SystemFlag::Deleted),
        1 => Flags::none().with(SystemFlag::Seen).with_keyword("$Junk"),
        2 => Flags::none().with_keyword("other"),
        _ => Flags::none().with(SystemFlag::Deleted).with(SystemFlag::Seen),
    }
}

fn set(world: &mut World) -> UidSet {
    match world.any(4) {
        0 => UidSet::range(1, u32::MAX),
        _ => {
            let around = world.marker as u32 / 4;
            let first = 1 + world.any(u64::from(around) + 20) as u32;
            UidSet::range(first, first + world.any(8) as u32)
        }
    }
}

fn operation(world: &mut World, session: u64, folders: bool) -> Op {
    let name = |n: u64| NAMES[n as usize].to_owned();
    let (one, other) = (world.any(9), world.any(9));
    let folder = match world.open.get(&session) {
        Some(open) => open.folder,
        None => FolderId(1 + 2 * world.any(6) as u32),
    };
    let uids = set(world);
    match world.any(if folders { 24 } else { 20 }) {
        0..3 => Op::Deliver { marker: world.new_marker(), deduplicate: true },
        3 => Op::Deliver { marker: 1 + world.any(world.marker + 1), deduplicate: true },
        4..6 => Op::Append { folder: name(one), marker: world.new_marker(), flags: flags(other % 5) },
        6..9 => {
            let mode = [StoreMode::Add, StoreMode::Remove, StoreMode::Replace][world.any(3) as usize];
            let unchanged_since = (world.any(4) == 0).then_some((1 << 40) + world.marker);
            Op::Store { folder, uids, mode, flags: flags(other % 4), unchanged_since }
        }
        9 => Op::Copy { folder, uids: few(uids), to: name(one) },
        10 => Op::Move { folder, uids: few(uids), to: name(one) },
        11..13 => Op::Expunge { folder, uids: (other % 2 == 0).then_some(uids) },
        13 => Op::Select { folder: name(one) },
        14 => Op::Status { folder: name(one) },
        15..17 => Op::Fetch { folder, uids },
        17 => Op::ReadBody { folder, uid: 1 + world.any(40) as u32 },
        18 => Op::Sync,
        19 => Op::List,
        20 => Op::Create { name: name(one) },
        21 => Op::Delete { name: name(one) },
        22 => Op::Rename { from: name(one), to: name(other) },
        _ => Op::Subscribe { name: name(one), on: other % 2 == 0 },
    }
}

/// Copies of everything would double a folder each time.
fn few(uids: UidSet) -> UidSet {
    uids.iter().take(5).collect()
}

fn generate(seed: u64, operations: usize, sessions: u64, folders: bool) -> World {
    let mut world = World::new(seed);
    for _ in 0..operations {
        let session = 1 + world.any(sessions);
        if world.waiting.values().any(|s| *s == session) {
            world.step(true);
            continue;
        }
        let op = operation(&mut world, session, folders);
        world.ask(session, op);
        match world.any(100) {
            0 => {
                world.step(false);
                world.fail_over();
            }
            1 => world.fail_over(),
            2..30 => {
                world.step(true);
            }
            _ => {}
        }
    }
    while world.step(true) {}
    for name in NAMES {
        world.run(1, Op::Select { folder: name.to_owned() });
    }
    world
}

#[test]
fn histories_of_the_engine_are_right() {
    for seed in 0..40 {
        let world = generate(seed, 1_500, 4, true);
        let report = check(world.records);
        assert!(report.is_clean(), "seed {seed}: {:#?}", &report.violations[..report.violations.len().min(3)]);
    }
}

#[test]
fn a_long_history_is_checked_in_seconds() {
    let world = generate(1, 100_000, 6, false);
    let begun = std::time::Duration::ZERO;
    let report = check(world.records);
    assert!(report.is_clean(), "{:#?}", &report.violations[..report.violations.len().min(3)]);
    assert!(begun.is_zero());
    for rule in [Rule::ExactlyOnce, Rule::Uids, Rule::Modseq, Rule::Flags, Rule::View, Rule::Atomic, Rule::Stale] {
        assert!(report.checks[&rule] > 100, "{rule}: {}", report.checks[&rule]);
    }
    println!("{} operations, skipped {}, {:?}", report.operations, report.skipped, report.checks);
}
