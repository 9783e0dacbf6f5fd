//! DELETE.

use std::sync::Arc;

use crate::api::{Answer, Change, FolderId, Refusal};
use crate::names;
use crate::notice::ListChange;
use crate::records::{PAGE_UIDS, folder_key, page_of};
use crate::state::Dead;
use crate::uids::UidSet;
use crate::work::Work;

pub fn delete_folder(work: &mut Work<'_>, name: &str) -> Result<Answer, Refusal> {
    let name = names::spelt(name);
    let id = work.state.named(&name).ok_or(Refusal::NoSuchFolder)?;
    if name == names::INBOX {
        return Err(Refusal::NotAllowed("INBOX can't be deleted".to_owned()));
    }
    let has_below = !work.state.below(&name).is_empty();
    if has_below && work.opened(id).is_err() {
        return Err(Refusal::NotAllowed("this level has folders below it".to_owned()));
    }
    empty(work, id)?;
    if !has_below {
        remove(work, id, &name);
    }
    work.tell_list(ListChange::Removed(Some(id)), &name);
    if !has_below {
        prune_above(work, &name);
    }
    Ok(Answer::Done)
}

/// Deletes the levels above a name that are no folders and have nothing below them any more.
pub fn prune_above(work: &mut Work<'_>, name: &str) {
    let mut name = name;
    while let Some(above) = names::parent(name) {
        let Some(id) = work.state.named(above) else { break };
        if work.opened(id).is_ok() || !work.state.below(above).is_empty() {
            break;
        }
        remove(work, id, above);
        work.tell_list(ListChange::Removed(None), above);
        name = above;
    }
}

/// Takes everything out of a folder and makes it a mere level.
fn empty(work: &mut Work<'_>, id: FolderId) -> Result<(), Refusal> {
    let modseq = work.next_modseq();
    let folder = work.touch(id, modseq)?;
    let removed: Vec<_> = folder.iter().map(|(uid, message)| (uid, message.clone())).collect();
    let mut dead: Vec<Dead> = folder.expunged.keys().map(|modseq| Dead::Expunged(id, *modseq)).collect();
    let mut pages: Vec<u32> = removed.iter().map(|(uid, _)| page_of(*uid)).collect();
    pages.push(page_of(folder.record.uid_next));
    pages.dedup();
    dead.extend(pages.into_iter().map(|page| Dead::Page(id, page)));
    folder.clear();
    folder.expunged = Arc::default();
    let last = folder.record.uid_next - 1;
    let record = &mut folder.record;
    record.selectable = false;
    record.special_use = None;
    record.expunged_floor = modseq;
    // Should it become a folder again, its UIDs begin in a page that no sweep is about to delete.
    record.uid_next = record.uid_next.div_ceil(PAGE_UIDS).saturating_add(1).saturating_mul(PAGE_UIDS);
    record.first_unclaimed = record.uid_next;
    work.release(id, removed, &mut dead);
    if last > 0 {
        work.bury(id, &UidSet::range(1, last), dead);
    }
    work.tell(id, modseq, Change::FolderDeleted);
    Ok(())
}

fn remove(work: &mut Work<'_>, id: FolderId, name: &str) {
    work.state.remove_folder(id, name);
    work.touched.remove(&id);
    work.delete(folder_key(work.mailbox(), id));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::{Command, FolderInfo};
    use crate::harness::{World, create};

    #[test]
    fn a_level_stays_until_nothing_is_below_it_and_subscriptions_stay() {
        let mut world = World::new();
        world.run(create("a/b/c")).unwrap();
        world.run(Command::Subscribe { name: "a".into(), on: true }).unwrap();
        let delete = |name: &str| Command::DeleteFolder { name: name.into() };
        world.run(delete("a")).unwrap();
        world.run(delete("a/b")).unwrap();
        assert!(matches!(world.run(delete("a")), Err(Refusal::NotAllowed(_))));
        assert!(matches!(world.run(delete("inbox")), Err(Refusal::NotAllowed(_))));
        assert_eq!(world.run(delete("none")), Err(Refusal::NoSuchFolder));
        let list = |world: &mut World| match world.run(Command::List) {
            Ok(Answer::Folders(f)) => f.into_iter().filter(|f| f.name.starts_with('a')).collect::<Vec<FolderInfo>>(),
            other => panic!("{other:?}"),
        };
        let lines: Vec<_> = list(&mut world).into_iter().map(|f| (f.name, f.selectable, f.id.is_some())).collect();
        assert_eq!(
            lines,
            [("a".to_owned(), false, false), ("a/b".to_owned(), false, false), ("a/b/c".to_owned(), true, true)]
        );
        world.run(delete("a/b/c")).unwrap();
        let lines: Vec<_> = list(&mut world).into_iter().map(|f| (f.name, f.subscribed)).collect();
        assert_eq!(lines, [("a".to_owned(), true)], "the name is still subscribed to");
        world.assert_rows_are_memory();
    }
}
