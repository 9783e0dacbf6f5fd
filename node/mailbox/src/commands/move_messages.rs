//! MOVE (RFC 6851): the copies and the removal are one change.

use super::copy;
use crate::api::{Answer, FolderId, Refusal};
use crate::uids::UidSet;
use crate::work::Work;

pub fn move_messages(work: &mut Work<'_>, id: FolderId, uids: &UidSet, to: &str) -> Result<Answer, Refusal> {
    let answer = copy::copy(work, id, uids, to)?;
    if let Answer::Copied { from, .. } = &answer {
        if !from.is_empty() {
            work.remove_messages(id, from)?;
        }
    }
    Ok(answer)
}
