//! One operation from its asking to what the table of commands says of it, and all of one mailbox.

use std::collections::BTreeSet;

use mailraft_mailbox::api::{Answer, FolderId, Refusal, Selected};
use mailraft_storage::{CommandId, MailboxId};

use crate::history::{At, Ended, Micros, Op, Reply};
use crate::names::spelt;
use crate::report::Rule;

/// An operation, as far as it is known.
#[derive(Debug)]
pub(crate) struct Operation {
    pub id: CommandId,
    pub session: u64,
    pub asked: Micros,
    pub op: Op,
    pub ended: Option<(Micros, Ended)>,
    pub position: Option<At>,
    /// What the table of commands says, if it was asked.
    pub resolved: Option<Option<(At, Result<Answer, Refusal>)>>,
    /// Its last MODSEQ, as an event told it.
    pub hint: Option<u64>,
    /// What its session saw when it opened the folder.
    pub opened: Option<Selected>,
    /// The commands whose answers its client had heard, as it told along with it.
    pub hears: Vec<CommandId>,
}

/// What became of a changing operation.
pub(crate) enum Outcome {
    /// It stands in the log; where, if that was told.
    Took(Option<At>, Result<Answer, Refusal>),
    NotDone,
    /// Nobody told.
    Unknown,
}

impl Operation {
    pub fn ended_at(&self) -> Option<Micros> {
        self.ended.as_ref().map(|(at, _)| *at)
    }

    /// The result that the client was given.
    pub fn answered(&self) -> Option<Result<Answer, Refusal>> {
        match &self.ended {
            Some((_, Ended::Done(Reply::Answer(answer)))) => Some(Ok(answer.clone())),
            Some((_, Ended::Refused(refusal))) => Some(Err(refusal.clone())),
            Some((_, Ended::Done(Reply::Fetched(_) | Reply::Body(_) | Reply::BodyDamaged)))
            | Some((_, Ended::NotDone | Ended::NoSuchMailbox | Ended::Unknown))
            | None => None,
        }
    }

    /// What it saw of a folder that it opened.
    pub fn selected(&self) -> Option<&Selected> {
        match &self.ended {
            Some((_, Ended::Done(Reply::Answer(Answer::Selected(selected))))) => Some(selected),
            _ => self.opened.as_ref(),
        }
    }

    /// The highest MODSEQ that a read told of a folder.
    pub fn told_modseq(&self) -> Option<u64> {
        match &self.ended {
            Some((_, Ended::Done(Reply::Answer(Answer::Status(status))))) => Some(status.highest_modseq),
            _ => self.selected().map(|selected| selected.highest_modseq),
        }
    }

    pub fn outcome(&self) -> Outcome {
        let table = self.resolved.as_ref();
        if let Some(result) = self.answered() {
            let at = self.position.or_else(|| table.and_then(|t| t.as_ref()).map(|(at, _)| *at));
            return Outcome::Took(at, result);
        }
        match (table, &self.ended) {
            (Some(Some((at, result))), _) => Outcome::Took(Some(*at), result.clone()),
            (Some(None), _) | (None, Some((_, Ended::NotDone | Ended::NoSuchMailbox))) => Outcome::NotDone,
            (None, _) => Outcome::Unknown,
        }
    }
}

/// What happened to an operation, in the observer's order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    Asked(usize),
    Ended(usize),
}

/// Everything that was asked of one mailbox.
#[derive(Debug)]
pub(crate) struct MailboxHistory {
    pub mailbox: MailboxId,
    pub partition: Option<u32>,
    pub operations: Vec<Operation>,
    pub moments: Vec<Moment>,
    /// Folders that sessions opened.
    pub opened: Vec<Selected>,
    /// The HIGHESTMODSEQs that sessions were told as they resumed a folder, and when.
    pub resumed: Vec<(Micros, u64)>,
    /// Answers that were told to be heard by themselves.
    pub told_heard: BTreeSet<CommandId>,
}

/// The folder that an operation names by its id.
pub(crate) fn folder_of(op: &Op) -> Option<FolderId> {
    match op {
        Op::Store { folder, .. }
        | Op::Copy { folder, .. }
        | Op::Move { folder, .. }
        | Op::Expunge { folder, .. }
        | Op::Fetch { folder, .. }
        | Op::ReadBody { folder, .. }
        | Op::UniqueIds { folder, .. }
        | Op::Remove { folder, .. } => Some(*folder),
        Op::Deliver { .. }
        | Op::Append { .. }
        | Op::Create { .. }
        | Op::Delete { .. }
        | Op::Rename { .. }
        | Op::Subscribe { .. }
        | Op::Sync
        | Op::List
        | Op::Status { .. }
        | Op::Select { .. }
        | Op::Unselect
        | Op::Maildrop => None,
    }
}

/// The rule that a command's answer is held to.
pub(crate) fn rule_of(op: &Op) -> Rule {
    match op {
        Op::Deliver { .. } | Op::Append { .. } => Rule::Uids,
        Op::Store { .. } => Rule::Flags,
        Op::Copy { .. } | Op::Move { .. } | Op::Expunge { .. } | Op::Remove { .. } => Rule::Atomic,
        Op::Create { .. }
        | Op::Delete { .. }
        | Op::Rename { .. }
        | Op::Subscribe { .. }
        | Op::Sync
        | Op::List
        | Op::Status { .. }
        | Op::Select { .. }
        | Op::Fetch { .. }
        | Op::Unselect
        | Op::ReadBody { .. }
        | Op::Maildrop
        | Op::UniqueIds { .. } => Rule::Stale,
    }
}

/// Whether what an operation would change can be told from one read or the next answer.
pub(crate) fn is_simple(op: &Op) -> bool {
    matches!(op, Op::Deliver { .. } | Op::Append { .. } | Op::Store { .. })
}

/// Whether an operation of unknown outcome can be why something seems to break a rule.
pub(crate) fn may_cause(op: &Op, rule: Rule) -> bool {
    match op {
        Op::Deliver { .. } | Op::Append { .. } => !matches!(rule, Rule::Flags | Rule::ExactlyOnce),
        Op::Store { .. } => matches!(rule, Rule::Flags | Rule::Modseq | Rule::Atomic | Rule::Uncommitted),
        Op::Subscribe { .. } => false,
        _ => true,
    }
}

/// Whether after an operation one that is asked again may be no repeat: messages were removed from where they were, a name is
/// another folder's, or there are more to copy.
pub(crate) fn may_undo(op: &Op, again: &Op) -> bool {
    match op {
        Op::Move { .. } | Op::Expunge { .. } | Op::Remove { .. } | Op::Delete { .. } | Op::Rename { .. } => true,
        Op::Deliver { .. } | Op::Append { .. } | Op::Copy { .. } => matches!(again, Op::Copy { .. }),
        _ => false,
    }
}

/// The name that an operation subscribes to, or no more.
pub(crate) fn subscribes(op: &Op) -> Option<(String, bool)> {
    match op {
        Op::Subscribe { name, on } => Some((spelt(name), *on)),
        _ => None,
    }
}

/// The marker of a delivery.
pub(crate) fn delivered(op: &Op) -> Option<u64> {
    if let Op::Deliver { marker, .. } = op { Some(*marker) } else { None }
}
