//! Deliveries that a sender may repeat: stored once within a day, while the message is in the mailbox.

use std::collections::BTreeMap;

use mailraft_mailbox::api::Answer;
use mailraft_storage::MailboxId;

use crate::history::{Micros, Op};
use crate::operation::{Operation, Outcome};
use crate::report::{Bounds, Report, Rule};

/// What a client gave up is carried out within this time or never.
pub(crate) const UNDER_WAY_MAX: Micros = 300_000_000;

/// The first answer for each marker.
#[derive(Debug)]
pub(crate) struct Deliveries {
    bounds: Bounds,
    known: BTreeMap<u64, Delivered>,
    /// How many messages with a marker were stored since there was none: of several, which one is there is not told.
    stored: BTreeMap<u64, usize>,
}

/// A delivery as it is remembered.
#[derive(Debug)]
struct Delivered {
    asked: Micros,
    uid_validity: u32,
    uid: u32,
    modseq: u64,
}

/// What is known of a message that may be delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// It is in the mailbox, before the entry and after it.
    Stays,
    /// It is in the mailbox no more, not even before the entry.
    Gone,
    /// It came or went in this entry, or something whose outcome nobody knows may have removed it.
    Unsure,
}

impl Deliveries {
    /// Of a mailbox to which nothing was delivered.
    pub fn new(bounds: Bounds) -> Self {
        Deliveries { bounds, known: BTreeMap::new(), stored: BTreeMap::new() }
    }

    /// Whether a message with this marker was delivered before.
    pub fn knows(&self, marker: u64) -> bool {
        self.stored.contains_key(&marker)
    }

    /// Whether the first answer to deliveries with this marker is known.
    pub fn is_answered(&self, marker: u64) -> bool {
        self.known.contains_key(&marker)
    }

    /// One delivery in the log's order; `new` if it changed something there. `earlier` is what became of the message
    /// that it may repeat, `unheard` whether its answer may be that of an earlier one that nobody heard.
    pub fn check(
        &mut self,
        mailbox: MailboxId,
        of: &Operation,
        new: bool,
        earlier: Earlier,
        unheard: bool,
        report: &mut Report,
    ) {
        let Op::Deliver { marker, deduplicate } = &of.op else { return };
        let alone = self.stored.get(marker).is_none_or(|n| *n == 1);
        if new {
            let stored = self.stored.entry(*marker).or_default();
            *stored = if earlier == Earlier::Gone { 1 } else { *stored + 1 };
        }
        let (true, Outcome::Took(_, Ok(answer))) = (*deduplicate, of.outcome()) else { return };
        let Answer::Stored { uid_validity, uid, modseq } = answer else { return };
        let ended = of.ended_at().unwrap_or(of.asked);
        let told = || format!("mailbox {} command {} of marker {marker}", mailbox, of.id);
        match self.known.get(marker) {
            Some(first) if !new => {
                let same = (first.uid_validity, first.uid, first.modseq) == (uid_validity, uid, modseq);
                report.check(Rule::ExactlyOnce, ended, same, || {
                    format!("{}: repeated, and answered {answer:?}; first it was UID {}", told(), first.uid)
                });
                report.check(Rule::ExactlyOnce, ended, earlier != Earlier::Gone, || {
                    format!("{}: repeated after UID {} had been removed, and not stored", told(), first.uid)
                });
                return;
            }
            Some(first) => {
                // Nobody told when a command was decided whose client had gone.
                let decided = if of.position.is_some() { ended } else { ended + UNDER_WAY_MAX };
                let within = decided.saturating_sub(first.asked) <= self.bounds.delivery_kept;
                let remembered = self.known.len() <= self.bounds.deliveries_max;
                let repeats = within && remembered && alone && earlier == Earlier::Stays;
                report.check(Rule::ExactlyOnce, ended, !repeats, || {
                    format!("{}: stored again as UID {uid} within a day, first as {}", told(), first.uid)
                });
            }
            None => {
                report.check(Rule::ExactlyOnce, ended, new || unheard, || {
                    format!("{}: answered {answer:?}, which is not its own", told())
                });
            }
        }
        self.known.insert(*marker, Delivered { asked: of.asked, uid_validity, uid, modseq });
    }
}
