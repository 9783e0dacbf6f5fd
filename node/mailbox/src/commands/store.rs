//! STORE.

use std::collections::BTreeMap;

use crate::api::{Answer, Change, FolderId, Refusal, StoreMode};
use crate::flags::Flags;
use crate::records::page_of;
use crate::uids::UidSet;
use crate::work::{check_flags, states, Work};

/// More changed messages than this in one page are written as the page's row.
pub const PAGE_ABOVE_MESSAGES: usize = 16;
/// A change of more messages than this is written as pages wherever a page has several of them.
const PAGES_ABOVE_MESSAGES: usize = 1_000;

pub fn store(
    work: &mut Work<'_>, id: FolderId, uids: &UidSet, mode: StoreMode, flags: &Flags, unchanged_since: Option<u64>,
) -> Result<Answer, Refusal> {
    check_flags(flags)?;
    let mut modified = UidSet::new();
    let mut changed: BTreeMap<u32, Vec<(u32, Flags)>> = BTreeMap::new();
    for (uid, message) in work.opened(id)?.within(uids) {
        if unchanged_since.is_some_and(|limit| message.modseq > limit) {
            modified.insert(uid);
            continue;
        }
        let now = match mode {
            StoreMode::Replace => flags.clone(),
            StoreMode::Add => message.flags.clone().union(flags),
            StoreMode::Remove => message.flags.clone().minus(flags),
        };
        if now != message.flags {
            check_flags(&now)?;
            changed.entry(page_of(uid)).or_default().push((uid, now));
        }
    }
    if changed.is_empty() {
        return Ok(Answer::Flagged { modified, modseq: None });
    }
    let modseq = work.next_modseq();
    let folder = work.touch(id, modseq)?;
    let total: usize = changed.values().map(Vec::len).sum();
    let as_page = |count: usize| count > PAGE_ABOVE_MESSAGES || (total > PAGES_ABOVE_MESSAGES && count > 1);
    let mut all = UidSet::new();
    for (_, messages) in &mut changed {
        let paged = as_page(messages.len());
        for (uid, now) in messages {
            all.insert(*uid);
            if let Some(message) = folder.get_mut(*uid) {
                message.flags = std::mem::take(now);
                message.modseq = modseq;
                message.paged = paged;
            }
        }
    }
    let flagged = states(folder.within(&all));
    for (page, messages) in changed {
        if as_page(messages.len()) {
            work.write_page(id, page);
        } else {
            for (uid, _) in messages {
                work.write_place(id, uid);
            }
        }
    }
    work.tell(id, modseq, Change::Flagged(flagged));
    Ok(Answer::Flagged { modified, modseq: Some(modseq) })
}
