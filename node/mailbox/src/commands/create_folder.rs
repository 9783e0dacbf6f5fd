//! CREATE, and the folders that a mailbox begins with.

use super::subscribe;
use crate::api::{Answer, FOLDERS_MAX, FolderId, HIERARCHY_SEPARATOR, Refusal, SpecialUse};
use crate::names;
use crate::notice::ListChange;
use crate::plant::{self, Fault};
use crate::records::FolderRecord;
use crate::work::Work;

/// What a new mailbox has, all of it subscribed to.
const FIRST_FOLDERS: [(&str, Option<SpecialUse>); 6] = [
    (names::INBOX, None),
    ("Drafts", Some(SpecialUse::Drafts)),
    ("Sent", Some(SpecialUse::Sent)),
    ("Junk", Some(SpecialUse::Junk)),
    ("Trash", Some(SpecialUse::Trash)),
    ("Archive", Some(SpecialUse::Archive)),
];

/// UIDVALIDITY of a mailbox's first folder is the time of its making, in seconds since then (November 2023): an account that
/// is deleted and made again under its name must name no other messages by numbers that a mail program knows (RFC 3501,
/// section 2.3.1.1). It lasts for 136 years.
const FIRST_UID_VALIDITY_FROM_MS: u64 = 1_700_000_000_000;

/// Makes the first folders.
pub fn begin(work: &mut Work<'_>) -> Result<(), Refusal> {
    let seconds = work.env.wall.0.saturating_sub(FIRST_UID_VALIDITY_FROM_MS) / 1_000;
    // Half of what there is stays for folders that are made later, whatever the clock says.
    work.state.counters.uid_validity = u32::try_from(seconds).unwrap_or(u32::MAX / 2).min(u32::MAX / 2);
    for (name, special_use) in FIRST_FOLDERS {
        make(work, name, special_use)?;
        subscribe::subscribe(work, name, true)?;
    }
    work.state.begun = true;
    Ok(())
}

pub fn create_folder(work: &mut Work<'_>, name: &str) -> Result<Answer, Refusal> {
    create(work, name, None)
}

fn create(work: &mut Work<'_>, name: &str, special_use: Option<SpecialUse>) -> Result<Answer, Refusal> {
    // RFC 3501, section 6.3.3: a trailing separator says that folders below are meant to come.
    let name = names::canonical(name.strip_suffix(HIERARCHY_SEPARATOR).unwrap_or(name))?;
    match work.state.named(&name) {
        Some(id) if work.opened(id).is_ok() => return Err(Refusal::FolderExists),
        Some(id) => revive(work, id, &name, special_use)?,
        None => {
            make(work, &name, special_use)?;
        }
    }
    Ok(Answer::Done)
}

/// Makes a folder for a special use. Two of the same would leave it to chance which of them a mail program takes.
pub fn create_folder_for(work: &mut Work<'_>, name: &str, special_use: SpecialUse) -> Result<Answer, Refusal> {
    if work.state.folders().any(|(_, folder)| folder.record.special_use == Some(special_use)) {
        return Err(Refusal::NotAllowed("another folder has this special use".to_owned()));
    }
    if names::spelt(name) == names::INBOX {
        return Err(Refusal::FolderExists);
    }
    create(work, name, Some(special_use))
}

/// Makes a folder of a name that is not there, and those above it.
pub fn make(work: &mut Work<'_>, name: &str, special_use: Option<SpecialUse>) -> Result<FolderId, Refusal> {
    let parent = make_above(work, name)?;
    if work.state.folders().count() >= FOLDERS_MAX {
        return Err(Refusal::Limit(format!("a mailbox has at most {FOLDERS_MAX} folders")));
    }
    let (uid_validity, highest_modseq) = (next_uid_validity(work)?, work.next_modseq());
    work.state.counters.folder += 1;
    let id = FolderId(work.state.counters.folder);
    let record = FolderRecord {
        parent,
        leaf: names::leaf(name).to_owned(),
        uid_validity,
        uid_next: 1,
        highest_modseq,
        special_use,
        selectable: true,
        first_unclaimed: 1,
        expunged_floor: 0,
    };
    work.state.add_folder(id, name.to_owned(), record);
    work.touched.insert(id);
    work.tell_list(ListChange::Made, name);
    Ok(id)
}

/// Makes what is missing above a name; the folder right above it.
pub fn make_above(work: &mut Work<'_>, name: &str) -> Result<Option<FolderId>, Refusal> {
    let missing: Vec<&str> = names::above(name).filter(|above| work.state.named(above).is_none()).collect();
    for above in missing {
        make(work, above, None)?;
    }
    Ok(names::parent(name).and_then(|above| work.state.named(above)))
}

/// Makes a level that was deleted a folder again, with another UIDVALIDITY.
fn revive(work: &mut Work<'_>, id: FolderId, name: &str, special_use: Option<SpecialUse>) -> Result<(), Refusal> {
    let (uid_validity, modseq) = (next_uid_validity(work)?, work.next_modseq());
    let folder = work.touch(id, modseq)?;
    folder.record.selectable = true;
    folder.record.special_use = special_use;
    folder.record.uid_validity = uid_validity;
    work.tell_list(ListChange::Made, name);
    Ok(())
}

fn next_uid_validity(work: &mut Work<'_>) -> Result<u32, Refusal> {
    let counters = &mut work.state.counters;
    if plant::is(Fault::UidValidityReused) {
        return Ok(1);
    }
    counters.uid_validity = counters
        .uid_validity
        .checked_add(1)
        .ok_or_else(|| Refusal::Limit("the mailbox made too many folders in its life".to_owned()))?;
    Ok(counters.uid_validity)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mailraft_storage::memory::MemoryRows;

    use crate::api::Command;
    use crate::harness::{World, create};

    #[test]
    fn a_mailbox_that_is_made_later_under_the_same_name_has_other_uid_validities() {
        let validities = |later_s: u64| {
            let mut world = World::sharing(MemoryRows::new(), 1);
            world.env.wall.0 += later_s * 1_000;
            world.drain();
            FIRST_FOLDERS.map(|(name, _)| world.select(name).uid_validity)
        };
        let (first, second) = (validities(0), validities(1));
        assert_eq!(first, [1, 2, 3, 4, 5, 6]);
        assert!(first.iter().zip(second).all(|(first, second)| *first < second), "{first:?}, {second:?}");
        assert!(validities(u64::MAX / 2_000).into_iter().all(|validity| validity > u32::MAX / 2));
    }

    #[test]
    fn a_special_use_belongs_to_one_folder_at_a_time() {
        let mut world = World::new();
        let create_for = |name: &str| Command::CreateFolderFor { name: name.into(), special_use: SpecialUse::Sent };
        let uses = |world: &mut World| {
            match world.run(Command::List) {
                Ok(Answer::Folders(all)) => {
                    all.into_iter().filter(|f| f.special_use == Some(SpecialUse::Sent)).map(|f| f.name)
                }
                other => panic!("{other:?}"),
            }
            .collect::<Vec<_>>()
        };
        assert!(matches!(world.run(create_for("a/Out")), Err(Refusal::NotAllowed(_))));
        assert_eq!(uses(&mut world), ["Sent"]);
        world.run(Command::DeleteFolder { name: "Sent".into() }).unwrap();
        assert_eq!(world.run(create_for("Inbox")), Err(Refusal::FolderExists));
        world.run(create_for("a/Out/")).unwrap();
        world.run(Command::RenameFolder { from: "a".into(), to: "b".into() }).unwrap();
        assert_eq!(uses(&mut world), ["b/Out"]);
        world.assert_rows_are_memory();
        world.reload();
        assert_eq!(uses(&mut world), ["b/Out"]);
    }

    #[test]
    fn levels_above_are_made_and_no_uid_validity_comes_twice() {
        let mut world = World::new();
        world.run(create("a/b/c/")).unwrap();
        let mut seen: Vec<u32> = ["a", "a/b", "a/b/c"].map(|name| world.select(name).uid_validity).to_vec();
        for _ in 0..2 {
            world.run(Command::DeleteFolder { name: "a/b/c".into() }).unwrap();
            world.run(create("a/b/c")).unwrap();
            seen.push(world.select("a/b/c").uid_validity);
        }
        assert!(seen.windows(2).all(|w| w[0] < w[1]), "{seen:?}");
        for (name, refusal) in
            [("Inbox", Refusal::FolderExists), ("a/b", Refusal::FolderExists), ("a/b/", Refusal::FolderExists)]
        {
            assert_eq!(world.run(create(name)), Err(refusal), "{name}");
        }
        assert!(matches!(world.run(create("a//b")), Err(Refusal::BadName(_))));
    }
}
