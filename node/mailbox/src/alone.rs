//! Terms that began while the home answered alone, and what follows from them for numbers that clients hold on to.
//!
//! Where no other region held a term's first entry as it began, an entry of an earlier leader may live on in another region,
//! though nobody at home has it: a takeover there makes it part of the log. What this home answers meanwhile is lost then.
//! So that no UID, UIDVALIDITY or modification sequence means one thing in what is lost and another in what lives on, a
//! mailbox that is loaded in such a term goes on above whatever that one entry can have given out: a mailbox has one entry in
//! flight.
//!
//! One small entry before any other says so. Folders follow in memory, at each load, as for an incarnation: one whose row is
//! older than that entry, as its HIGHESTMODSEQ says, is raised as if the entry had written it. Of a staged change in parts the
//! last entry gives out all UIDs; those are found beside the parts, which are rows already.

use std::collections::BTreeMap;

use mailraft_storage::entry::ENTRY_MAX_BYTES;

use crate::api::FolderId;
use crate::plant::{self, Fault};
use crate::records::{AloneRecord, alone_key};
use crate::state::{Dead, State};
use crate::work::{Context, FOLDER_ROW_BYTES, PLACE_RECORD_BYTES, Work};

/// A folder's UIDs go on so far above those that are known.
pub(crate) const ALONE_UID_JUMP: u32 = 1 << 13;
/// UIDVALIDITY goes on so far above the last that is known.
pub(crate) const ALONE_UID_VALIDITY_JUMP: u32 = 1 << 13;
/// Modification sequences go on so far above the last that is known.
pub const ALONE_MODSEQ_JUMP: u64 = 1 << 20;
/// Of so many terms a mailbox keeps apart what it was in them; older ones count as begun together.
pub(crate) const ALONE_TERMS_MAX: usize = 64;

const _: () = assert!(ENTRY_MAX_BYTES / PLACE_RECORD_BYTES < ALONE_UID_JUMP as usize, "one entry's new places");
const _: () = assert!(ENTRY_MAX_BYTES / FOLDER_ROW_BYTES < ALONE_UID_VALIDITY_JUMP as usize, "one entry's new folders");
const _: () = assert!(ENTRY_MAX_BYTES / 32 < ALONE_MODSEQ_JUMP as usize, "one entry's changes, each of a row at least");

impl State {
    /// Everything was read. In a term that began alone modification sequences go on above what may live on elsewhere.
    pub fn loaded_alone(&mut self, cx: &Context) {
        let (place, last) = (&cx.place, self.alone.last());
        let known = last.is_some_and(|last| (last.incarnation, last.term) >= (place.incarnation.number, place.term));
        // A queue mailbox gives out nothing that clients hold on to.
        let counts = place.began_alone && !place.mailbox.is_queue();
        if !counts || known || plant::is(Fault::AloneGoesOn) {
            return;
        }
        self.must_begin_alone = true;
        self.counters.modseq += ALONE_MODSEQ_JUMP;
        let (incarnation, modseq) = (place.incarnation.number, self.counters.modseq);
        self.alone.push(AloneRecord { incarnation, term: place.term, modseq, terms: 1 });
        if self.alone.len() > ALONE_TERMS_MAX {
            let oldest = self.alone.remove(0);
            let second = &mut self.alone[0];
            second.terms = second.terms.saturating_add(oldest.terms);
        }
    }
}

/// Begins the owner's term in a mailbox that was loaded in it.
pub(crate) fn begin_alone(work: &mut Work<'_>) {
    work.state.must_begin_alone = false;
    let counters = &mut work.state.counters;
    counters.uid_validity = counters.uid_validity.saturating_add(ALONE_UID_VALIDITY_JUMP);
    let (key, alone) = (alone_key(work.mailbox()), work.state.alone.clone());
    work.put(key, &alone);
    for (id, next) in above_parts(&work.state) {
        let Some(folder) = work.state.folder_mut(id).filter(|folder| folder.record.uid_next < next) else { continue };
        folder.record.uid_next = next;
        work.touched.insert(id);
    }
}

/// Of each folder with places that wait to be swept, what follows the last of their UIDs.
fn above_parts(state: &State) -> BTreeMap<FolderId, u32> {
    let mut above = BTreeMap::new();
    for dead in state.garbage.iter().flat_map(|garbage| &garbage.dead) {
        if let Dead::Place(folder, uid) = dead {
            let next = above.entry(*folder).or_insert(0);
            *next = u32::max(*next, uid.saturating_add(1));
        }
    }
    above
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::{Table, Term};

    use super::*;
    use crate::api::Command;
    use crate::harness::{World, create};
    use crate::uids::UidSet;

    /// Another leader's term begins, alone or not.
    fn next_term(world: &mut World, began_alone: bool) {
        world.place.term = Term(world.place.term.0 + 1);
        world.place.began_alone = began_alone;
        world.reload();
        world.drain();
        world.assert_rows_are_memory();
    }

    #[test]
    fn numbers_go_on_above_whatever_an_earlier_leaders_entry_can_have_given_out() {
        let mut world = World::new();
        world.append("INBOX", "one");
        world.run(create("before")).unwrap();
        let (inbox, before) = (world.select("INBOX"), world.select("before"));
        let entries = world.entries;
        next_term(&mut world, true);
        assert_eq!(world.entries, entries + 1, "one entry, before any other");
        let here = world.append("INBOX", "lost");
        world.run(create("lost")).unwrap();
        let (inbox_here, folder_here) = (world.select("INBOX"), world.select("lost"));
        assert_eq!(here, inbox.uid_next + ALONE_UID_JUMP);
        assert!(inbox_here.highest_modseq > before.highest_modseq.max(inbox.highest_modseq) + ALONE_MODSEQ_JUMP);
        assert!(folder_here.uid_validity > before.uid_validity + ALONE_UID_VALIDITY_JUMP);
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_term_jumps_once_however_often_the_mailbox_is_loaded_and_only_if_it_began_alone() {
        let mut world = World::new();
        world.append("INBOX", "one");
        next_term(&mut world, false);
        let before = world.select("INBOX");
        next_term(&mut world, true);
        let opened = world.select("INBOX");
        assert_eq!(opened.uid_next, before.uid_next + ALONE_UID_JUMP);
        let entries = world.entries;
        for _ in 0..2 {
            world.reload();
            world.drain();
            assert_eq!((world.select("INBOX"), world.entries), (opened.clone(), entries));
        }
        next_term(&mut world, false);
        assert_eq!((world.select("INBOX"), world.entries), (opened.clone(), entries));
        let two = world.append("INBOX", "two");
        next_term(&mut world, true);
        assert_eq!(world.append("INBOX", "three"), two + 1 + ALONE_UID_JUMP);
        world.assert_rows_are_memory();
    }

    #[test]
    fn terms_are_told_apart_up_to_a_bound_and_older_ones_still_count() {
        let mut world = World::new();
        world.run(create("untouched")).unwrap();
        let before = world.select("untouched").uid_next;
        let terms = 2 * u32::try_from(ALONE_TERMS_MAX).unwrap();
        for _ in 0..terms {
            next_term(&mut world, true);
        }
        assert_eq!(world.mailbox.engine().state().alone.len(), ALONE_TERMS_MAX);
        assert_eq!(world.select("untouched").uid_next, before + terms * ALONE_UID_JUMP);
    }

    #[test]
    fn uids_go_on_above_the_parts_of_a_change_whose_last_entry_may_live_on() {
        /// More than two terms jump over.
        const COPIED: u32 = 20_000;
        let mut world = World::new();
        world.fill("INBOX", COPIED);
        world.run(create("copies")).unwrap();
        let folder = world.select("INBOX").folder;
        let first = world.select("copies").uid_next;
        let copy = Command::Copy { folder, uids: UidSet::range(1, u32::MAX), to: "copies".into() };
        let id = world.submit(1, copy);
        while world.count(Table::Places) < 2 * COPIED as usize {
            assert!(world.step());
        }
        assert!(!world.answers.contains_key(&id), "its last entry is not written");
        // Swept by a leader of whom nothing else is left, and found by the next one.
        for _ in 0..2 {
            next_term(&mut world, true);
        }
        let opened = world.select("copies");
        assert!(opened.uid_next >= first + COPIED && opened.messages.is_empty(), "UIDNEXT is {}", opened.uid_next);
        world.assert_rows_are_memory();
    }
}
