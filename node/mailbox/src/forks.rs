//! Where incarnations began in a mailbox, and what follows from it for what clients hold on to.
//!
//! A home that was lost may have given out UIDs, UIDVALIDITY and modification sequences that nobody here knows. So UIDs and
//! UIDVALIDITY of the next incarnation go on far above what is known, and a client that brings a modification sequence of
//! before a fork is told everything, once: it may have seen what was lost. That its number lies below the fork does not show
//! that it saw nothing, since clients keep messages and flags as they hear of them and HIGHESTMODSEQ when they close.
//!
//! When a mailbox is loaded in an incarnation for the first time, one small entry before any other says where the fork was
//! and moves UIDVALIDITY. Folders follow in memory, at each load: one whose row is of an earlier incarnation, as its
//! HIGHESTMODSEQ says, is raised as if that entry had written its row.

use crate::alone::ALONE_UID_JUMP;
use crate::api::FolderId;
use crate::plant::{self, Fault};
use crate::records::{ForkRecord, forks_key};
use crate::state::State;
use crate::work::{Context, MODSEQ_COUNTER_BITS, UID_JUMP, UID_VALIDITY_JUMP, Work};

impl State {
    /// Whether the incarnation of this number has begun in the mailbox, durably.
    pub fn is_of(&self, incarnation: u32) -> bool {
        self.begun && (self.counters.incarnation >= incarnation || plant::is(Fault::UidsGoOn))
    }

    /// Everything was read, in the incarnation of this number.
    pub fn loaded_in(&mut self, cx: &Context) {
        let incarnation = cx.place.incarnation.number;
        if !self.is_of(incarnation) {
            self.forks.push(ForkRecord { incarnation, modseq: self.counters.modseq });
        }
        self.loaded_alone(cx);
        let forks = self.forks.iter().map(|fork| modseq(fork.incarnation, fork.modseq));
        let alone = self.alone.iter().map(|alone| modseq(alone.incarnation, alone.modseq));
        let Some(floor) = forks.chain(alone).max() else { return };
        let folders: Vec<FolderId> = self.folders().map(|(id, _)| id).collect();
        for id in folders {
            let Some(folder) = self.folder(id) else { continue };
            let jump = self.jump_since(folder.record.highest_modseq);
            if jump == 0 {
                continue;
            }
            let Some(folder) = self.folder_mut(id) else { continue };
            folder.record.uid_next = folder.record.uid_next.saturating_add(jump);
            folder.record.highest_modseq = floor;
        }
    }

    /// How far UIDs of a folder go on above those of its row, which was written at this modification sequence.
    fn jump_since(&self, highest: u64) -> u32 {
        let forks = self.forks.iter().filter(|fork| u64::from(fork.incarnation) > number(highest)).map(|_| UID_JUMP);
        let later = self.alone.iter().filter(|alone| modseq(alone.incarnation, alone.modseq) > highest);
        let alone = later.map(|alone| ALONE_UID_JUMP.saturating_mul(alone.terms));
        forks.chain(alone).fold(0, u32::saturating_add)
    }

    /// Whether a client with this modification sequence may have seen what is not part of the mailbox: an incarnation began
    /// since.
    pub fn is_before_fork(&self, since: u64) -> bool {
        self.forks.last().is_some_and(|fork| u64::from(fork.incarnation) > number(since))
            && !plant::is(Fault::ForkNotHeard)
    }

    /// Whether this modification sequence is of a change that is not part of the mailbox.
    pub fn is_past_fork(&self, modseq: u64) -> bool {
        let next = self.forks.iter().find(|fork| u64::from(fork.incarnation) > number(modseq));
        next.is_some_and(|fork| counter(modseq) > fork.modseq && !plant::is(Fault::ForkNotHeard))
    }
}

/// Whether a modification sequence was given in an earlier incarnation than another one: only then it may lie past a fork.
pub fn is_of_earlier_incarnation(modseq: u64, than: u64) -> bool {
    number(modseq) < number(than)
}

/// Begins the owner's incarnation in a mailbox that has lived in an earlier one.
pub fn begin_incarnation(work: &mut Work<'_>) {
    let counters = &mut work.state.counters;
    counters.uid_validity = counters.uid_validity.saturating_add(UID_VALIDITY_JUMP);
    counters.incarnation = work.cx.place.incarnation.number;
    let (key, forks) = (forks_key(work.mailbox()), work.state.forks.clone());
    work.put(key, &forks);
}

fn modseq(incarnation: u32, counter: u64) -> u64 {
    (u64::from(incarnation) << MODSEQ_COUNTER_BITS) | counter
}

fn number(modseq: u64) -> u64 {
    modseq >> MODSEQ_COUNTER_BITS
}

fn counter(modseq: u64) -> u64 {
    modseq & ((1 << MODSEQ_COUNTER_BITS) - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::api::{Answer, Command, Resumed, StoreMode};
    use crate::flags::{Flags, SystemFlag};
    use crate::harness::{World, create};
    use crate::uids::UidSet;

    /// The mailbox is loaded in the next incarnation.
    fn taken_over(world: &mut World) {
        world.place.incarnation.number += 1;
        world.reload();
        world.drain();
        world.assert_rows_are_memory();
    }

    fn resume(world: &mut World, folder: FolderId, uid_validity: u32, since: u64, known: UidSet) -> Resumed {
        let Ok(Answer::Resumed(resumed)) = world.run(Command::Resume { folder, uid_validity, since, known }) else {
            panic!("no folder to resume");
        };
        resumed
    }

    #[test]
    fn uids_and_uid_validity_jump_once_with_an_incarnation_however_often_it_is_loaded() {
        let mut world = World::new();
        let first = world.append("INBOX", "one");
        world.run(create("before")).unwrap();
        let before = world.select("before").uid_validity;
        let entries = world.entries;
        taken_over(&mut world);
        assert_eq!(world.entries, entries + 1, "one entry, before any other");
        let opened = world.select("INBOX");
        assert_eq!(opened.uid_next, first + 1 + UID_JUMP);
        assert_eq!(opened.highest_modseq >> MODSEQ_COUNTER_BITS, 2);
        for _ in 0..2 {
            world.reload();
            world.drain();
            assert_eq!((world.select("INBOX"), world.entries), (opened.clone(), entries + 1));
        }
        assert_eq!(world.append("INBOX", "two"), first + 1 + UID_JUMP);
        world.reload();
        assert_eq!(world.append("INBOX", "three"), first + 2 + UID_JUMP);
        world.run(create("after")).unwrap();
        let after = world.select("after");
        assert_eq!((after.uid_validity, after.uid_next), (before + UID_VALIDITY_JUMP + 1, 1));
        world.assert_rows_are_memory();
        taken_over(&mut world);
        assert_eq!(world.select("INBOX").uid_next, first + 3 + 2 * UID_JUMP);
        assert_eq!(world.select("before").uid_next, 1 + 2 * UID_JUMP, "nobody wrote its row meanwhile");
    }

    #[test]
    fn who_comes_from_before_a_fork_is_told_everything_once() {
        let mut world = World::new();
        for text in ["one", "two", "three"] {
            world.append("INBOX", text);
        }
        let opened = world.select("INBOX");
        let (folder, validity, at) = (opened.folder, opened.uid_validity, opened.highest_modseq);
        taken_over(&mut world);
        let known = UidSet::range(1, 7);
        // It saw 4 to 7 and flags of 1 to 3 at the lost home, and kept the number of then, of now, or of long before.
        for since in [at + 1, at, at - 1, 0] {
            let lost = resume(&mut world, folder, validity, since, known.clone());
            let changed: Vec<u32> = lost.changed.iter().map(|m| m.uid).collect();
            assert_eq!((changed, lost.vanished), (vec![1, 2, 3], UidSet::range(4, 7)), "since {since}");
            assert_eq!(lost.highest_modseq, world.select("INBOX").highest_modseq);
        }
        let since = world.select("INBOX").highest_modseq;
        let new = resume(&mut world, folder, validity, since, known.clone());
        assert!(new.changed.is_empty() && new.vanished.is_empty(), "{new:?}");
        taken_over(&mut world);
        let second = resume(&mut world, folder, validity, since, known);
        assert_eq!((second.changed.len(), second.vanished), (3, UidSet::range(4, 7)));
    }

    #[test]
    fn a_change_that_rests_on_what_was_lost_is_not_made() {
        let mut world = World::new();
        world.append("INBOX", "one");
        let opened = world.select("INBOX");
        taken_over(&mut world);
        let store = |unchanged_since| Command::Store {
            folder: opened.folder,
            uids: UidSet::range(1, 1),
            mode: StoreMode::Add,
            flags: Flags::none().with(SystemFlag::Seen),
            unchanged_since: Some(unchanged_since),
        };
        let modified = |answer| match answer {
            Ok(Answer::Flagged { modified, .. }) => modified,
            other => panic!("{other:?}"),
        };
        let lost = modified(world.run(store(opened.highest_modseq + 1)));
        assert_eq!(lost, UidSet::range(1, 1));
        assert!(modified(world.run(store(opened.highest_modseq))).is_empty());
    }
}
