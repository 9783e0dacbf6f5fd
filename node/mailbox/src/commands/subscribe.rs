//! SUBSCRIBE and UNSUBSCRIBE: of names, whether or not there is a folder (RFC 3501, section 6.3.6).

use crate::api::{Answer, FOLDERS_MAX, FolderId, Refusal};
use crate::names;
use crate::notice::ListChange;
use crate::records::{FolderRow, folder_key};
use crate::work::Work;

pub fn subscribe(work: &mut Work<'_>, name: &str, on: bool) -> Result<Answer, Refusal> {
    let mailbox = work.mailbox();
    let kept = names::spelt(name);
    match (work.state.subscribed(&kept), on) {
        (None, true) => {
            let name = names::canonical(name)?;
            if work.state.subscriptions().count() >= FOLDERS_MAX {
                return Err(Refusal::Limit(format!("at most {FOLDERS_MAX} names can be subscribed to")));
            }
            work.state.counters.folder += 1;
            let row = FolderId(work.state.counters.folder);
            work.put(folder_key(mailbox, row), &FolderRow::Subscription(name.clone()));
            work.state.subscribe(name.clone(), row);
            work.tell_list(ListChange::Subscription, &name);
        }
        (Some(row), false) => {
            work.state.unsubscribe(&kept);
            work.delete(folder_key(mailbox, row));
            work.tell_list(ListChange::Subscription, &kept);
        }
        (Some(_), true) | (None, false) => {}
    }
    Ok(Answer::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::Command;
    use crate::harness::World;

    #[test]
    fn names_need_no_folder_and_repeats_are_no_error() {
        let mut world = World::new();
        for (on, count) in [(true, 7), (true, 7), (false, 6), (false, 6)] {
            assert_eq!(world.run(Command::Subscribe { name: "inbox/none".into(), on }), Ok(Answer::Done));
            assert_eq!(world.mailbox.engine().state().subscriptions().count(), count);
            world.assert_rows_are_memory();
        }
        assert!(matches!(world.run(Command::Subscribe { name: String::new(), on: true }), Err(Refusal::BadName(_))));
    }
}
