//! RENAME.

use super::copy;
use super::create_folder::{make, make_above};
use super::delete_folder::prune_above;
use crate::api::{Answer, Refusal, FOLDER_NAME_MAX_BYTES, HIERARCHY_SEPARATOR};
use crate::names;
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
    work.state.rename_key(&from, to);
    prune_above(work, &from);
    Ok(Answer::Done)
}

/// RFC 3501, section 6.3.5: its messages move to a new folder; it stays, and what is below it too.
fn rename_inbox(work: &mut Work<'_>, to: &str) -> Result<Answer, Refusal> {
    let inbox = work.state.named(names::INBOX).ok_or(Refusal::NoSuchFolder)?;
    let target = make(work, to, None)?;
    if let Answer::Copied { from, .. } = copy::copy_to(work, inbox, &UidSet::range(1, u32::MAX), target)? {
        if !from.is_empty() {
            work.remove_messages(inbox, &from)?;
        }
    }
    Ok(Answer::Done)
}
