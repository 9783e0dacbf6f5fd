//! A message has one unique id (RFC 1939, section 7) for as long as it is in its folder, whoever is asked.

use std::collections::BTreeMap;

use mailraft_mailbox::api::{Answer, FolderId};

use crate::history::{Ended, Op, Reply};
use crate::operation::MailboxHistory;
use crate::report::{Report, Rule};

pub(crate) fn check(history: &MailboxHistory, report: &mut Report) {
    let mut known: BTreeMap<(FolderId, u32), &str> = BTreeMap::new();
    for of in &history.operations {
        let Op::UniqueIds { folder, .. } = &of.op else { continue };
        let Some((at, Ended::Done(Reply::Answer(Answer::UniqueIds(lines))))) = &of.ended else { continue };
        for (uid, unique_id) in lines {
            let first = *known.entry((*folder, *uid)).or_insert(unique_id);
            report.check(Rule::Uids, *at, first == unique_id, || {
                format!("mailbox {}: UID {uid} had the unique id {first}, now {unique_id}", history.mailbox)
            });
        }
    }
}
