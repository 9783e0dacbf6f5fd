//! RENAME.

use super::copy;
use super::create_folder::{make, make_above};
use super::delete_folder::prune_above;
use crate::api::{Answer, FOLDER_NAME_MAX_BYTES, HIERARCHY_SEPARATOR, Refusal};
use crate::listing;
use crate::names;
use crate::notice::ListChange;
use crate::uids::UidSet;
use crate::work::Work;

pub fn rename_folder(work: &mut Work<'_>, from: &str, to: &str) -> Result<Answer, Refusal> {
    let from = names::spelt(from);
    let id = work.state.named(&from).ok_or(Refusal::NoSuchFolder)?;
    let to = names::canonical(to)?;
    if work.state.named(&to).is_some() {
        return Err(Refusal::FolderExists);
    }
    if from == names::INBOX {
        return rename_inbox(work, &to);
    }
    if to.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with(HIERARCHY_SEPARATOR)) {
        return Err(Refusal::NotAllowed("a folder can't move below itself".to_owned()));
    }
    let below = work.state.below(&from);
    if below.iter().any(|(name, _)| name.len() - from.len() + to.len() > FOLDER_NAME_MAX_BYTES) {
        return Err(Refusal::BadName("a name below it would be longer than 1,000 bytes".to_owned()));
    }
    let parent = make_above(work, &to)?;
    let modseq = work.next_modseq();
    let record = &mut work.touch(id, modseq)?.record;
    record.parent = parent;
    record.leaf = names::leaf(&to).to_owned();
    for (name, _) in &below {
        work.state.rename_key(name, format!("{to}{}", &name[from.len()..]));
    }
    work.state.rename_key(&from, to.clone());
    let below = listing::below(&work.state, &to);
    work.tell_list(ListChange::Renamed { from: from.clone(), below }, &to);
    prune_above(work, &from);
    Ok(Answer::Done)
}

/// RFC 3501, section 6.3.5: its messages move to a new folder; it stays, and what is below it too.
fn rename_inbox(work: &mut Work<'_>, to: &str) -> Result<Answer, Refusal> {
    let inbox = work.state.named(names::INBOX).ok_or(Refusal::NoSuchFolder)?;
    let target = make(work, to, None)?;
    if let Answer::Copied { from, .. } = copy::copy_to(work, inbox, &UidSet::range(1, u32::MAX), target)?
        && !from.is_empty()
    {
        work.remove_messages(inbox, &from)?;
    }
    Ok(Answer::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::harness::{World, create};

    #[test]
    fn a_subtree_is_renamed_by_few_rows_and_keeps_its_messages() {
        let mut world = World::new();
        for name in ["a/b/c", "x"] {
            world.run(create(name)).unwrap();
        }
        world.append("a/b/c", "m");
        let before = world.select("a/b/c");
        let rename = |from: &str, to: &str| Command::RenameFolder { from: from.into(), to: to.into() };
        world.run(rename("a", "y/z")).unwrap();
        assert_eq!(world.last, (3, 0), "counters, the folder, one made above it");
        assert_eq!(world.select("y/z/b/c").uid_validity, before.uid_validity);
        world.run(create("a/b/c")).unwrap();
        assert!(world.select("a/b/c").uid_validity > before.uid_validity);
        for (from, to, refusal) in [
            ("none", "q", Some(Refusal::NoSuchFolder)),
            ("x", "Inbox", Some(Refusal::FolderExists)),
            ("x", "x", Some(Refusal::FolderExists)),
            ("y", "y/z/q", None),
            ("x", "", None),
        ] {
            let answer = world.run(rename(from, to)).unwrap_err();
            assert!(refusal.is_none_or(|r| r == answer), "{from} to {to}: {answer:?}");
        }
        let long = "l".repeat(FOLDER_NAME_MAX_BYTES - 2);
        assert!(matches!(world.run(rename("y", &long)), Err(Refusal::BadName(_))));
        world.assert_rows_are_memory();
    }

    #[test]
    fn renaming_inbox_moves_its_messages_and_leaves_what_is_below() {
        let mut world = World::new();
        world.run(create("INBOX/sub")).unwrap();
        world.append("INBOX", "m");
        world.run(Command::RenameFolder { from: "Inbox".into(), to: "old".into() }).unwrap();
        assert_eq!((world.uids("INBOX").len(), world.uids("old").len(), world.uids("inbox/sub").len()), (0, 1, 0));
        world.assert_rows_are_memory();
    }
}
