//! Where messages were seen of which nobody was told that they were stored: in reads, in the answers to who asked for the
//! same once more, and in folders that were opened, which say of no message which one it is.
//!
//! Within a term the next UID and MODSEQ tell of what was done before them. Where UIDs and MODSEQs jump they tell nothing: what
//! was done last before that is known by its traces alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use mailraft_mailbox::Answer;
use mailraft_mailbox::api::{FolderId, MessageState};

use crate::history::{Ended, Micros, Op, Reply};
use crate::model::{ALONE_UID_JUMP, Folder, Model, Number, Step};
use crate::operation::{MailboxHistory, Operation, Outcome};
use crate::pending::Pending;

/// All of a mailbox.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// By the marker of the message.
    marked: BTreeMap<u64, Vec<Trace>>,
    /// Of which nobody ever read which message it is.
    unmarked: Vec<Unmarked>,
}

/// One message at one place.
#[derive(Debug)]
struct Trace {
    seen: Micros,
    folder: InFolder,
    uid: u32,
    /// The lowest that anybody saw it at: it came there at this one or before it.
    modseq: Option<u64>,
}

/// A message that was seen when its folder was opened, as it was at the lowest MODSEQ.
#[derive(Clone, Debug)]
struct Unmarked {
    seen: Micros,
    folder: FolderId,
    uid_validity: u32,
    message: MessageState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum InFolder {
    Id(FolderId),
    Validity(u32),
}

impl Traces {
    /// All that a history tells.
    pub fn of(history: &MailboxHistory) -> Self {
        let (mut traces, mut lowest) = (Traces::default(), BTreeMap::<(FolderId, u32), u64>::new());
        let (mut lines, mut opened) = (Vec::new(), BTreeMap::<(FolderId, u32, u32), Unmarked>::new());
        for of in &history.operations {
            if let Some(selected) = of.selected() {
                let (folder, uid_validity) = (selected.folder, selected.uid_validity);
                let seen = of.ended_at().unwrap_or(of.asked);
                for message in &selected.messages {
                    lower(&mut lowest, (folder, message.uid), message.modseq);
                    let one = || Unmarked { seen, folder, uid_validity, message: message.clone() };
                    let known = opened.entry((folder, uid_validity, message.uid)).or_insert_with(one);
                    if message.modseq < known.message.modseq {
                        *known = one();
                    }
                }
            }
            match (&of.op, &of.ended) {
                (Op::Fetch { folder, .. }, Some((at, Ended::Done(Reply::Fetched(fetched))))) => {
                    for (uid, marker, _, modseq) in fetched {
                        lower(&mut lowest, (*folder, *uid), *modseq);
                        lines.push((*marker, *folder, *uid, *at));
                    }
                }
                (Op::ReadBody { folder, uid }, Some((at, Ended::Done(Reply::Body(Some(marker)))))) => {
                    lines.push((*marker, *folder, *uid, *at));
                }
                (op, _) => traces.add_told(of, op),
            }
        }
        for (marker, folder, uid, seen) in lines {
            let modseq = lowest.get(&(folder, uid)).copied();
            traces.add(marker, Trace { seen, folder: InFolder::Id(folder), uid, modseq });
        }
        let marked: BTreeSet<(InFolder, u32)> = traces.marked.values().flatten().map(|t| (t.folder, t.uid)).collect();
        let is_marked = |of: &Unmarked| {
            [InFolder::Id(of.folder), InFolder::Validity(of.uid_validity)]
                .into_iter()
                .any(|folder| marked.contains(&(folder, of.message.uid)))
        };
        traces.unmarked = opened.into_values().filter(|of| !is_marked(of)).collect();
        traces
    }

    /// Where a message is by an answer to who asked for it, be it stored then or before.
    fn add_told(&mut self, of: &Operation, op: &Op) {
        let (Op::Deliver { marker, .. } | Op::Append { marker, .. }) = op else { return };
        let Outcome::Took(_, Ok(Answer::Stored { uid_validity, uid, modseq })) = of.outcome() else { return };
        let folder = InFolder::Validity(uid_validity);
        self.add(*marker, Trace { seen: of.ended_at().unwrap_or(of.asked), folder, uid, modseq: Some(modseq) });
    }

    fn add(&mut self, marker: u64, trace: Trace) {
        self.marked.entry(marker).or_default().push(trace);
    }

    /// Of those whose outcome nobody knows the one that stored a message next before UIDs and MODSEQs jump, by what was seen of it.
    pub fn next_before_jump(&self, history: &MailboxHistory, model: &Model, unknown: &[Pending]) -> Option<Pending> {
        let found = unknown.iter().filter_map(|p| Some((p, self.before_jump(history, model, p)?)));
        let next = found.min_by_key(|(p, (modseq, _))| (*modseq, p.result.is_none()))?;
        Some(next.1.1)
    }

    /// One of them as it was answered, or would have been, and its MODSEQ as far as it is known.
    fn before_jump(&self, history: &MailboxHistory, model: &Model, p: &Pending) -> Option<(u64, Pending)> {
        let of = &history.operations[p.operation];
        let (Op::Deliver { marker, .. } | Op::Append { marker, .. }) = &of.op else { return None };
        let decision = model.decide(&of.op);
        let [Step::Add { folder: number, messages }] = decision.steps.as_slice() else { return None };
        let [(_, message)] = messages.as_slice() else { return None };
        let folder = model.folder(*number).filter(|folder| !folder.uid_next_unknown)?;
        let base = model.modseq();
        let fits = |modseq: &u64| {
            *modseq > base && Model::incarnation_of(*modseq) == model.incarnation && !model.is_jump(*modseq)
        };
        let marked = self.marked.get(marker).and_then(|traces| marked(traces, of, p, (model, *number, folder)));
        let (uid, told) = match marked {
            Some(trace) => (trace.uid, trace.modseq.filter(fits)),
            None => {
                let is_its = |one: &&Unmarked| {
                    p.result.is_none()
                        && one.seen >= of.asked
                        && one.message.flags == message.flags
                        && fits(&one.message.modseq)
                };
                let of_folder = |one: &&Unmarked| {
                    folder.id == Some(one.folder) && model.fits_validity(*number, one.uid_validity).is_ok()
                };
                let here = self.unmarked.iter().filter(|one| next_uids(folder).contains(&one.message.uid));
                let one = here.filter(of_folder).filter(is_its).min_by_key(|one| one.message.modseq)?;
                (one.message.uid, Some(one.message.modseq))
            }
        };
        let modseq = told.unwrap_or(base + 1 + u64::from(uid - folder.uid_next));
        let uid_validity = folder.uid_validity.unwrap_or_default();
        let answer = Answer::Stored { uid_validity, uid, modseq };
        Some((modseq, Pending { result: Some(Ok(answer)), modseq: told, hint: false, ..p.clone() }))
    }
}

/// UIDs that a message may get next in a folder, unless UIDs jump.
fn next_uids(folder: &Folder) -> Range<u32> {
    folder.uid_next..folder.uid_next.saturating_add(ALONE_UID_JUMP)
}

/// Of a message's traces that of where an operation of unknown outcome stored it, next in this folder.
fn marked<'a>(
    traces: &'a [Trace],
    of: &Operation,
    p: &Pending,
    (model, number, folder): (&Model, Number, &Folder),
) -> Option<&'a Trace> {
    let is_there = |trace: &&Trace| match trace.folder {
        InFolder::Id(id) => folder.id == Some(id),
        InFolder::Validity(uid_validity) => model.fits_validity(number, uid_validity).is_ok(),
    };
    let is_its = |trace: &&Trace| match &p.result {
        Some(Ok(Answer::Stored { uid, .. })) => *uid == trace.uid,
        Some(_) => false,
        None => trace.seen >= of.asked,
    };
    let traces = traces.iter().filter(|trace| next_uids(folder).contains(&trace.uid));
    traces.filter(is_there).filter(is_its).min_by_key(|trace| (trace.uid, trace.modseq))
}

/// Keeps the lowest MODSEQ that a message was seen at.
fn lower(lowest: &mut BTreeMap<(FolderId, u32), u64>, place: (FolderId, u32), modseq: u64) {
    lowest.entry(place).and_modify(|now| *now = modseq.min(*now)).or_insert(modseq);
}
