//! REPLACE (RFC 8508): an APPEND, and the end of the message that the new one is for.

use super::append::append;
use crate::api::{Answer, FolderId, NewMessage, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::work::Work;

pub fn replace(
    work: &mut Work<'_>,
    (id, uid): (FolderId, u32),
    to: &str,
    new_message: &NewMessage,
    flags: &Flags,
    internal_date: ZonedTime,
) -> Result<Answer, Refusal> {
    if work.opened(id)?.get(uid).is_none() {
        return Err(Refusal::NotAllowed("the message that is to be replaced is no more".to_owned()));
    }
    // First: the new one may have its part of the quota.
    work.remove_messages(id, &[uid])?;
    append(work, to, new_message, flags, internal_date)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::Table;

    use super::*;
    use crate::api::Command;
    use crate::harness::{World, stored_uid};

    fn replace(world: &mut World, uid: u32, to: &str, text: &str) -> Result<Answer, Refusal> {
        let (folder, new_message) = (world.id("INBOX"), world.new_message(text));
        let (to, flags, internal_date) = (to.to_owned(), Flags::none(), ZonedTime::default());
        world.run(Command::Replace { folder, uid, to, new_message, flags, internal_date })
    }

    #[test]
    fn a_message_takes_the_place_of_another_one_or_neither_changes() {
        let mut world = World::new();
        world.mailbox.engine_mut().set_quota_bytes(Some(10));
        world.append("INBOX", "sixsix");
        assert_eq!(stored_uid(replace(&mut world, 1, "INBOX", "ninenine!")), 2);
        assert_eq!((world.uids("INBOX"), world.count(Table::Contents)), (vec![2], 1));
        assert_eq!(stored_uid(replace(&mut world, 2, "Drafts", "other")), 1);
        assert_eq!((world.uids("INBOX"), world.uids("Drafts")), (vec![], vec![1]));
        assert!(matches!(replace(&mut world, 2, "INBOX", "x"), Err(Refusal::NotAllowed(_))));
        world.append("INBOX", "y");
        assert_eq!(replace(&mut world, 3, "Nowhere", "z"), Err(Refusal::TryCreate));
        assert_eq!(replace(&mut world, 3, "INBOX", "more than ten"), Err(Refusal::OverQuota));
        assert_eq!((world.uids("INBOX"), world.count(Table::Chunks)), (vec![3], 2));
        world.reload();
        world.assert_rows_are_memory();
    }
}
