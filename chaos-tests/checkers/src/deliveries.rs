//! Deliveries that a sender may repeat: stored once within a day.

use std::collections::BTreeMap;

use mailraft_mailbox::api::Answer;
use mailraft_mailbox::{DELIVERIES_MAX, DELIVERY_KEPT_MILLIS};
use mailraft_storage::MailboxId;

use crate::history::{Micros, Op};
use crate::operation::{Operation, Outcome};
use crate::report::{Report, Rule};

/// How long a repeated delivery is answered with the first one's answer.
const DELIVERY_KEPT_MICROS: Micros = DELIVERY_KEPT_MILLIS * 1_000;

/// The first answer for each marker.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    known: BTreeMap<u64, Delivered>,
}

/// A delivery as it is remembered.
#[derive(Debug)]
struct Delivered {
    asked: Micros,
    uid_validity: u32,
    uid: u32,
    modseq: u64,
}

impl Deliveries {
    /// One delivery in the log's order; `new` if it changed something there.
    pub fn check(&mut self, mailbox: MailboxId, of: &Operation, new: bool, report: &mut Report) {
        let (Op::Deliver { marker, deduplicate: true }, Outcome::Took(_, Ok(answer))) = (&of.op, of.outcome()) else {
            return;
        };
        let Answer::Stored { uid_validity, uid, modseq } = answer else { return };
        let ended = of.ended_at().unwrap_or(of.asked);
        let told = || format!("mailbox {} command {} of marker {marker}", mailbox, of.id);
        match self.known.get(marker) {
            Some(first) if !new => {
                let same = (first.uid_validity, first.uid, first.modseq) == (uid_validity, uid, modseq);
                report.check(Rule::ExactlyOnce, ended, same, || {
                    format!("{}: repeated, and answered {answer:?}; first it was UID {}", told(), first.uid)
                });
                return;
            }
            Some(first) => {
                let within = ended.saturating_sub(first.asked) <= DELIVERY_KEPT_MICROS;
                let remembered = self.known.len() <= DELIVERIES_MAX;
                report.check(Rule::ExactlyOnce, ended, !(within && remembered), || {
                    format!("{}: stored again as UID {uid} within a day, first as {}", told(), first.uid)
                });
            }
            None => {
                report.check(Rule::ExactlyOnce, ended, new, || {
                    format!("{}: answered {answer:?}, which is not its own", told())
                });
            }
        }
        self.known.insert(*marker, Delivered { asked: of.asked, uid_validity, uid, modseq });
    }
}
