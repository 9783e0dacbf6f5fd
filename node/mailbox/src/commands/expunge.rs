//! EXPUNGE and UID EXPUNGE.

use crate::api::{Answer, FolderId, Refusal};
use crate::flags::SystemFlag;
use crate::uids::UidSet;
use crate::work::Work;

pub fn expunge(work: &mut Work<'_>, id: FolderId, uids: Option<&UidSet>) -> Result<Answer, Refusal> {
    let all = UidSet::range(1, u32::MAX);
    let candidates = work.opened(id)?.within(uids.unwrap_or(&all));
    let gone: Vec<u32> = candidates.filter(|(_, m)| m.flags.has(SystemFlag::Deleted)).map(|(uid, _)| uid).collect();
    if gone.is_empty() {
        return Ok(Answer::Expunged { uids: UidSet::new(), modseq: None });
    }
    let modseq = work.remove_messages(id, &gone)?;
    Ok(Answer::Expunged { uids: gone.into_iter().collect(), modseq: Some(modseq) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::flags::Flags;
    use crate::harness::{World, append};
    use mailraft_storage::Table;

    #[test]
    fn only_deleted_messages_go_and_only_those_asked_for() {
        let mut world = World::new();
        for n in 0..4 {
            let flags = if n < 3 { Flags::none().with(SystemFlag::Deleted) } else { Flags::none() };
            let new_message = world.new_message(&n.to_string());
            world.run(append("INBOX", new_message, flags)).unwrap();
        }
        let folder = world.id("INBOX");
        let some = world.run(Command::Expunge { folder, uids: Some(UidSet::range(2, 9)) });
        assert!(matches!(some, Ok(Answer::Expunged { uids, modseq: Some(_) }) if uids == UidSet::range(2, 3)));
        world.run(Command::Expunge { folder, uids: None }).unwrap();
        assert_eq!(world.uids("INBOX"), [4]);
        let none = world.run(Command::Expunge { folder, uids: None });
        assert_eq!(none, Ok(Answer::Expunged { uids: UidSet::new(), modseq: None }));
        assert_eq!(
            (world.count(Table::Contents), world.count(Table::MessageIds), world.count(Table::Chunks)),
            (1, 1, 1)
        );
        world.assert_rows_are_memory();
    }
}
