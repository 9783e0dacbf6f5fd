//! MOVE (RFC 6851): the copies and the removal are one change.

use super::copy;
use crate::api::{Answer, FolderId, Refusal};
use crate::uids::UidSet;
use crate::work::Work;

pub fn move_messages(work: &mut Work<'_>, id: FolderId, uids: &UidSet, to: &str) -> Result<Answer, Refusal> {
    let answer = copy::copy(work, id, uids, to)?;
    if let Answer::Copied { from, .. } = &answer
        && !from.is_empty()
    {
        work.remove_messages(id, from)?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::{Change, Command};
    use crate::harness::World;

    #[test]
    fn a_move_adds_before_it_removes_and_may_stay_in_its_folder() {
        let mut world = World::new();
        for text in ["1", "2", "3"] {
            world.append("INBOX", text);
        }
        let inbox = world.id("INBOX");
        world.events.clear();
        let answer = world.run(Command::Move { folder: inbox, uids: UidSet::range(2, 3), to: "inbox".into() });
        assert!(matches!(answer, Ok(Answer::Copied { from, to, .. }) if from == [2, 3] && to == [4, 5]));
        assert_eq!(world.uids("INBOX"), [1, 4, 5]);
        assert!(matches!(world.events[0].change, Change::Added(_)));
        assert_eq!(world.events[1].change, Change::Expunged(UidSet::range(2, 3)));
        world.assert_rows_are_memory();
    }
}
