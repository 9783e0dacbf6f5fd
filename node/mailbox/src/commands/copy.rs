//! COPY: places only, the contents stay.

use crate::api::{Answer, FolderId, Refusal};
use crate::names;
use crate::records::content_key;
use crate::uids::UidSet;
use crate::work::Work;

/// The most messages that one COPY or MOVE takes, so that its result fits an entry.
pub const COPY_UIDS_MAX: usize = 200_000;

pub fn copy(work: &mut Work<'_>, id: FolderId, uids: &UidSet, to: &str) -> Result<Answer, Refusal> {
    work.opened(id)?;
    let target = work.state.named(&names::spelt(to)).filter(|id| work.opened(*id).is_ok());
    copy_to(work, id, uids, target.ok_or(Refusal::TryCreate)?)
}

/// Copies to a folder that is there.
pub fn copy_to(work: &mut Work<'_>, id: FolderId, uids: &UidSet, target: FolderId) -> Result<Answer, Refusal> {
    let uid_validity = work.opened(target)?.record.uid_validity;
    let (mut from, mut copies) = (Vec::new(), Vec::new());
    for (uid, message) in work.opened(id)?.within(uids) {
        let email = work.state.email(message.email).ok_or(Refusal::Corrupt)?;
        from.push(uid);
        copies.push((message.email, email.info, message.flags.clone()));
    }
    if from.is_empty() {
        return Ok(Answer::Copied { uid_validity, from, to: Vec::new() });
    }
    if from.len() > COPY_UIDS_MAX {
        return Err(Refusal::Limit(format!("at most {COPY_UIDS_MAX} messages are copied or moved at once")));
    }
    let mailbox = work.mailbox();
    work.requires.extend(copies.iter().map(|(email, ..)| content_key(mailbox, *email)));
    let (to, _) = work.add_messages(target, copies)?;
    Ok(Answer::Copied { uid_validity, from, to })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::harness::{ALL, World, create};
    use mailraft_storage::Table;

    #[test]
    fn copies_share_their_content_until_the_last_is_gone() {
        let mut world = World::new();
        world.append("INBOX", "x");
        let inbox = world.id("INBOX");
        let copy = |to: &str| Command::Copy { folder: inbox, uids: ALL(), to: to.into() };
        assert_eq!(world.run(copy("a")), Err(Refusal::TryCreate));
        world.run(create("a")).unwrap();
        assert!(matches!(world.run(copy("a")), Ok(Answer::Copied { from, to, .. }) if from == [1] && to == [1]));
        assert!(matches!(world.run(copy("INBOX")), Ok(Answer::Copied { from, to, .. }) if from == [1] && to == [2]));
        assert_eq!((world.count(Table::Places), world.count(Table::Contents)), (3, 1));
        let delete = |folder, uids| Command::Move { folder, uids, to: "Trash".into() };
        world.run(delete(inbox, ALL())).unwrap();
        for name in ["Trash", "a"] {
            assert_eq!(world.count(Table::Contents), 1);
            world.run(Command::DeleteFolder { name: name.into() }).unwrap();
        }
        assert_eq!((world.count(Table::Contents), world.count(Table::Chunks)), (0, 0));
        assert!(matches!(world.run(copy("INBOX")), Ok(Answer::Copied { from, .. }) if from.is_empty()));
        world.assert_rows_are_memory();
    }
}
