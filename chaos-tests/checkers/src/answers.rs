//! Whether a changing command's answer is what the model would answer.

use mailraft_mailbox::api::{Answer, Refusal};

use crate::model::{Decision, Model, Step};
use crate::report::Rule;

/// How an answer compares.
#[derive(Debug)]
pub(crate) enum Verdict {
    Right,
    /// It depends on what the model does not hold: sizes, bounds, damage.
    Unknowable,
    Wrong(Rule, String),
}

impl Verdict {
    pub fn is_right(&self) -> bool {
        match self {
            Verdict::Right | Verdict::Unknowable => true,
            Verdict::Wrong(..) => false,
        }
    }
}

/// Whether two refusals are the same, whatever their words.
pub(crate) fn same_refusal(a: &Refusal, b: &Refusal) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Whether the model can't foresee this refusal.
pub(crate) fn is_unknowable(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Limit(_)
        | Refusal::OverQuota
        | Refusal::Corrupt
        | Refusal::QueueFull
        | Refusal::Stale
        // Who has the maildrop is in the owner's memory, and ends with it.
        | Refusal::MaildropInUse => true,
        Refusal::NoSuchFolder
        | Refusal::TryCreate
        | Refusal::FolderExists
        | Refusal::BadName(_)
        | Refusal::NotAllowed(_)
        | Refusal::FolderGone => false,
    }
}

/// Compares what was answered with what the model decided. Gaps above a UID or MODSEQ are allowed.
pub(crate) fn compare(model: &Model, decision: &Decision, answered: &Result<Answer, Refusal>) -> Verdict {
    let wrong = |rule| Verdict::Wrong(rule, format!("expected {:?}, answered {answered:?}", decision.result));
    let (expected, answered) = match (&decision.result, answered) {
        (_, Err(refusal)) if is_unknowable(refusal) => return Verdict::Unknowable,
        (Err(a), Err(b)) => return if same_refusal(a, b) { Verdict::Right } else { wrong(Rule::Stale) },
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => return wrong(Rule::Stale),
        (Ok(expected), Ok(answered)) => (expected, answered),
    };
    let validity = |expected: u32, answered: u32| {
        if expected != 0 {
            return expected == answered;
        }
        let target = decision.steps.iter().find_map(|step| match step {
            Step::Add { folder, .. } => Some(*folder),
            _ => None,
        });
        target.is_none_or(|number| model.fits_validity(number, answered).is_ok())
    };
    match (expected, answered) {
        (
            Answer::Stored { uid_validity: v, uid: u, modseq: m },
            Answer::Stored { uid_validity: validity_now, uid, modseq },
        ) => {
            if !validity(*v, *validity_now) || (uid < u && !uid_next_unknown(model, decision)) {
                return wrong(Rule::Uids);
            }
            if modseq < m { wrong(Rule::Modseq) } else { Verdict::Right }
        }
        (Answer::Flagged { modified: a, modseq: m }, Answer::Flagged { modified: b, modseq: n }) => {
            if a != b || m.is_some() != n.is_some() {
                return wrong(Rule::Flags);
            }
            if n < m { wrong(Rule::Modseq) } else { Verdict::Right }
        }
        (
            Answer::Copied { uid_validity: v, from: expected_from, to: expected_to },
            Answer::Copied { uid_validity, from, to },
        ) => {
            if expected_from != from || from.len() != to.len() {
                return wrong(Rule::Atomic);
            }
            let low = expected_to.first() > to.first() && !uid_next_unknown(model, decision);
            if low || !validity(*v, *uid_validity) || to.windows(2).any(|w| w[0] >= w[1]) {
                return wrong(Rule::Uids);
            }
            Verdict::Right
        }
        (Answer::Expunged { uids: a, modseq: m }, Answer::Expunged { uids: b, modseq: n }) => {
            if a != b {
                let part = b.ranges().iter().all(|&(lo, hi)| a.ranges().iter().any(|&(l, h)| l <= lo && hi <= h));
                return wrong(if part { Rule::Atomic } else { Rule::Flags });
            }
            if m.is_some() != n.is_some() || n < m { wrong(Rule::Modseq) } else { Verdict::Right }
        }
        (Answer::Done, Answer::Done) => Verdict::Right,
        _ => wrong(Rule::Stale),
    }
}

/// Whether the folder that is added to was made again, so that its UIDs go on where nobody told.
fn uid_next_unknown(model: &Model, decision: &Decision) -> bool {
    decision.steps.iter().any(|step| match step {
        Step::Add { folder, .. } => model.folder(*folder).is_some_and(|f| f.uid_next_unknown),
        _ => false,
    })
}

/// The MODSEQ in an answer: the command's last.
pub(crate) fn modseq_of(answer: &Result<Answer, Refusal>) -> Option<u64> {
    match answer {
        Ok(Answer::Stored { modseq, .. }) => Some(*modseq),
        Ok(Answer::Flagged { modseq, .. } | Answer::Expunged { modseq, .. }) => *modseq,
        Ok(
            Answer::Done
            | Answer::Folders(_)
            | Answer::Status(_)
            | Answer::Selected(_)
            | Answer::Resumed(_)
            | Answer::Fetched(_)
            | Answer::Chunk(_)
            | Answer::Chunks(_)
            | Answer::Maildrop(_)
            | Answer::UniqueIds(_)
            | Answer::SaveDates(_)
            | Answer::Statuses(_)
            | Answer::Quota(_)
            | Answer::Search(_)
            | Answer::Counted(_)
            | Answer::Accepted { .. }
            | Answer::QueueItems(_)
            | Answer::QueueAsked(_)
            | Answer::QueueAttempts(_)
            | Answer::QueueItem(_)
            | Answer::Appended { .. }
            | Answer::Copied { .. },
        )
        | Err(_) => None,
    }
}

/// Puts the UIDs that were answered in the place of those foreseen.
pub(crate) fn adopt(steps: &mut [Step], answered: &Result<Answer, Refusal>) {
    let uids: &[u32] = match answered {
        Ok(Answer::Stored { uid, .. }) => std::slice::from_ref(uid),
        Ok(Answer::Copied { to: uids, .. } | Answer::Appended { uids, .. }) => uids,
        _ => return,
    };
    for step in steps {
        if let Step::Add { messages, .. } = step
            && messages.len() == uids.len()
        {
            for ((foreseen, _), uid) in messages.iter_mut().zip(uids) {
                *foreseen = *uid;
            }
        }
    }
}
