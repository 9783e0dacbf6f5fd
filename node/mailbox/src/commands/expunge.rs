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
