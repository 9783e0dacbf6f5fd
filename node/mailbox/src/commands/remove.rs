//! Removing messages whatever their flags: POP3's UPDATE state (RFC 1939, section 6).

use crate::api::{Answer, FolderId, Refusal};
use crate::uids::UidSet;
use crate::work::Work;

pub fn remove(work: &mut Work<'_>, id: FolderId, uids: &UidSet) -> Result<Answer, Refusal> {
    let gone: Vec<u32> = work.opened(id)?.within(uids).map(|(uid, _)| uid).collect();
    if gone.is_empty() {
        return Ok(Answer::Expunged { uids: UidSet::new(), modseq: None });
    }
    let modseq = work.remove_messages(id, &gone)?;
    Ok(Answer::Expunged { uids: gone.into_iter().collect(), modseq: Some(modseq) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::Table;

    use super::*;
    use crate::api::Command;
    use crate::harness::World;

    #[test]
    fn what_is_there_of_the_uids_goes_whatever_its_flags() {
        let mut world = World::new();
        for n in 0..4 {
            world.append("INBOX", &n.to_string());
        }
        let folder = world.id("INBOX");
        let removed = world.run(Command::Remove { folder, uids: UidSet::from_ranges(vec![(2, 3), (9, 20)]) });
        assert!(matches!(removed, Ok(Answer::Expunged { uids, modseq: Some(_) }) if uids == UidSet::range(2, 3)));
        assert_eq!(world.uids("INBOX"), [1, 4]);
        let again = world.run(Command::Remove { folder, uids: UidSet::range(2, 3) });
        assert_eq!(again, Ok(Answer::Expunged { uids: UidSet::new(), modseq: None }));
        assert_eq!((world.count(Table::Contents), world.count(Table::Chunks)), (2, 2));
        world.assert_rows_are_memory();
    }
}
