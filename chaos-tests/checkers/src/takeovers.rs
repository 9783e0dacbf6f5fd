//! What takeovers left of a history. Whoever was answered by what is lost has no answer, and nothing of it was carried out;
//! but what it was told may never mean something else.

use std::collections::BTreeMap;

use mailraft_mailbox::api::Answer;

use crate::history::{At, Ended, Micros, Op};
use crate::model::Model;
use crate::operation::{MailboxHistory, Operation};
use crate::report::{Report, Rule};

/// One takeover of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takeover {
    /// The number of the incarnation that begins.
    pub incarnation: u32,
    /// The last index of the earlier ones that is left.
    pub fork: u64,
    /// When the first answer was given that is lost.
    pub lost_since: Option<Micros>,
}

/// All takeovers of a partition, their incarnations rising.
#[derive(Clone, Debug, Default)]
pub(crate) struct Takeovers(Vec<Takeover>);

impl Takeovers {
    pub fn add(&mut self, takeover: Takeover) {
        self.0.push(takeover);
        self.0.sort_by_key(|takeover| takeover.incarnation);
    }

    /// The one that ended an incarnation.
    fn after(&self, incarnation: u32) -> Option<&Takeover> {
        self.0.iter().find(|takeover| takeover.incarnation > incarnation)
    }

    /// Whether what stands at a position is lost.
    pub fn is_lost(&self, at: At) -> bool {
        self.after(at.incarnation).is_some_and(|takeover| at.index > takeover.fork)
    }

    /// Whether a session that was shown a MODSEQ at this time may have seen what is lost.
    pub fn may_be_lost(&self, modseq: u64, at: Micros) -> bool {
        let takeover = self.after(Model::incarnation_of(modseq));
        takeover.and_then(|takeover| takeover.lost_since).is_some_and(|since| at >= since)
    }

    /// Takes what is lost out of a mailbox's history. No UID that it gave out may be another message's, and no MODSEQ that of
    /// another message that came.
    pub fn prune(&self, history: &mut MailboxHistory, report: &mut Report) {
        history.resumed.retain(|(at, modseq)| !self.may_be_lost(*modseq, *at));
        let (mut uids, mut modseqs) = (BTreeMap::<(u32, u32), u64>::new(), BTreeMap::<u64, u64>::new());
        for of in &mut history.operations {
            if let Some((at, _)) = of.resolved.clone().flatten()
                && self.is_lost(at)
            {
                of.resolved = Some(None);
            }
            if !of.position.is_some_and(|at| self.is_lost(at)) {
                continue;
            }
            if let Some(Given { uid, modseq, marker }) = given_by(of) {
                uids.insert(uid, marker);
                modseqs.insert(modseq, marker);
            }
            of.position = None;
            of.ended = of.ended.take().map(|(at, _)| (at, Ended::Unknown));
            if !of.op.is_read() && of.resolved.is_none() {
                of.resolved = Some(None);
            }
        }
        for of in &history.operations {
            let Some((at, position)) = of.ended_at().zip(of.position) else { continue };
            // A repeat is answered with what was given out before.
            let Some(Given { uid, modseq, marker }) =
                given_by(of).filter(|given| Model::incarnation_of(given.modseq) == position.incarnation)
            else {
                continue;
            };
            for (what, other) in
                [(format!("UID {}", uid.1), uids.get(&uid)), (format!("MODSEQ {modseq}"), modseqs.get(&modseq))]
            {
                let Some(other) = other else { continue };
                report.check(Rule::Forks, at, marker == *other, || {
                    format!(
                        "mailbox {} command {} at {position} gives message {marker} {what}, which was that of {other}, which is lost",
                        history.mailbox, of.id
                    )
                });
            }
        }
    }
}

/// What a new message was answered with.
struct Given {
    /// Its UID, behind its UIDVALIDITY.
    uid: (u32, u32),
    modseq: u64,
    marker: u64,
}

fn given_by(of: &Operation) -> Option<Given> {
    match (&of.op, of.answered()) {
        (
            Op::Deliver { marker, .. } | Op::Append { marker, .. },
            Some(Ok(Answer::Stored { uid_validity, uid, modseq })),
        ) => Some(Given { uid: (uid_validity, uid), modseq, marker: *marker }),
        _ => None,
    }
}
