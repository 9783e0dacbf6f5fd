//! What the queues' world takes down of mail that goes outside, and the rules that this is judged by while it happens: who was
//! sent what, how often, what was recorded of it, and what senders were told.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::accepted::{AttemptEnd, QueueDecision, ReportKind};
use mailraft_outbound::report::{Event, wants};
use mailraft_storage::{CommandId, MailboxId};

/// Who is told what becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Nobody: it has the null reverse-path.
    Null,
    /// Nobody: there is no such account.
    Unknown,
    /// Whoever has this mailbox.
    Mailbox(MailboxId),
    /// Somebody at another server.
    Outside,
}

/// A message that a queue may have.
#[derive(Clone, Debug)]
pub struct Item {
    /// Who sent it.
    pub sender: Sender,
    /// The report that it is, if it is one.
    pub report: Option<Report>,
    /// Its recipients, in the order of their numbers.
    pub recipients: Vec<Recipient>,
    /// It is certain that the queue had it.
    pub accepted: bool,
}

/// What a report is about.
#[derive(Clone, Debug)]
pub struct Report {
    /// Names its text.
    pub marker: u64,
    /// The item.
    pub about: CommandId,
    /// What it says.
    pub kind: ReportKind,
    /// Of whom.
    pub recipients: Vec<u32>,
}

/// A recipient.
#[derive(Clone, Debug, Default)]
pub struct Recipient {
    /// The mailbox of one who has one here.
    pub mailbox: Option<MailboxId>,
    /// NOTIFY.
    pub notify: Option<String>,
    /// The attempts in which the message's last octet was let go.
    pub finals: Vec<Final>,
    /// At which index the queue recorded that it was sent.
    pub sent_at: Option<u64>,
    /// The sender was to hear that it was relayed.
    pub relayed: bool,
    /// The queue recorded that it can't be sent.
    pub failed: bool,
    /// An operator holds it.
    pub held: bool,
    /// An operator returned it, or dropped it, or may have.
    pub returned: bool,
    pub dropped: bool,
    /// What the sender was told, and at which index.
    pub told: BTreeMap<ReportKind, u64>,
}

/// An attempt from its last octet on.
#[derive(Clone, Copy, Debug)]
pub struct Final {
    /// The owner that made it.
    pub epoch: u64,
    /// Whether the other server has the message; None while nobody can say.
    pub arrived: Option<bool>,
    /// Nobody hears what came of it, and it may be made once more.
    pub unheard: bool,
    /// What came of it is recorded.
    pub recorded: bool,
}

/// What an owner was told of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// The item.
    pub item: CommandId,
    /// The recipient.
    pub recipient: u32,
    /// How it ended.
    pub end: AttemptEnd,
}

/// The books.
#[derive(Debug, Default)]
pub struct Books {
    /// By the ids under which they are accepted.
    pub items: BTreeMap<CommandId, Item>,
    /// What operators want, by the ids of their commands.
    pub decisions: BTreeMap<CommandId, (CommandId, Vec<u32>, QueueDecision)>,
    /// Reports that a queue has taken.
    pub reports: usize,
}

impl Books {
    /// A message, or a report, that is about to be accepted under this id.
    pub fn enter(&mut self, id: CommandId, item: Item) {
        self.items.entry(id).or_insert(item);
    }

    fn recipient(&mut self, item: CommandId, number: u32) -> Option<&mut Recipient> {
        self.items.get_mut(&item)?.recipients.get_mut(number as usize)
    }

    /// An attempt lets the message's last octet go.
    ///
    /// # Errors
    /// `repeated` if the recipient may have the message, and nothing was lost that would make up for it; `stopped` if an
    /// operator had decided otherwise.
    pub fn lets_go(&mut self, item: CommandId, number: u32, epoch: u64, unheard: bool) -> Result<(), String> {
        let Some(recipient) = self.recipient(item, number) else {
            return Err(format!("invented: {item} is sent to recipient {number}, whom nobody named"));
        };
        let counts = |of: &&Final| !of.unheard && of.arrived != Some(false);
        // One that nobody hears makes up for itself: its owner is gone.
        if let Some(earlier) = recipient.finals.iter().find(counts).filter(|_| !unheard) {
            return Err(format!("repeated: {item} goes to recipient {number} once more after {earlier:?}"));
        }
        if recipient.mailbox.is_some() {
            return Err(format!("outside: {item} leaves for recipient {number}, who has a mailbox here"));
        }
        if recipient.held || recipient.returned || recipient.dropped {
            return Err(format!("stopped: {item} goes to recipient {number}, as an operator did not want any more"));
        }
        recipient.finals.push(Final { epoch, arrived: None, unheard, recorded: false });
        Ok(())
    }

    /// What the other server made of it, and whether its answer is lost.
    pub fn arrives(&mut self, item: CommandId, number: u32, epoch: u64, arrived: bool, unheard: bool) {
        let Some(recipient) = self.recipient(item, number) else { return };
        let is_it = |of: &&mut Final| of.epoch == epoch && of.arrived.is_none();
        if let Some(of) = recipient.finals.iter_mut().rev().find(is_it) {
            of.arrived = Some(arrived);
            of.unheard |= unheard;
        }
    }

    /// An owner leads no more: of what it let go nothing more is recorded.
    pub fn owner_is_gone(&mut self, epoch: u64) {
        for recipient in self.items.values_mut().flat_map(|item| &mut item.recipients) {
            for of in recipient.finals.iter_mut().filter(|of| of.epoch == epoch && !of.recorded) {
                of.unheard = true;
            }
        }
    }

    /// The queue recorded what came of an attempt, at this index.
    pub fn recorded(&mut self, index: u64, epoch: u64, said: &Said) {
        let Some(recipient) = self.recipient(said.item, said.recipient) else { return };
        match said.end {
            AttemptEnd::Sent { report } => {
                recipient.sent_at.get_or_insert(index);
                recipient.relayed |= report == Some(ReportKind::Relayed);
                // Its own, or what the node of an earlier owner told it: from now on it must not be sent again.
                let is_known = |of: &&mut Final| of.epoch == epoch || of.arrived == Some(true);
                if let Some(of) = recipient.finals.iter_mut().rev().find(is_known) {
                    (of.recorded, of.unheard) = (true, false);
                }
            }
            AttemptEnd::Failed => recipient.failed = true,
            AttemptEnd::Deferred { .. } => {}
        }
    }

    /// An entry of a queue is applied: these commands were decided in it, and of these there are items.
    ///
    /// # Errors
    /// If a sender is told what he must not be.
    pub fn applied(
        &mut self,
        index: u64,
        commands: &[CommandId],
        accepted: &BTreeSet<CommandId>,
    ) -> Result<(), String> {
        for id in commands {
            if let Some((item, recipients, decision)) = self.decisions.remove(id) {
                let Some(item) = self.items.get_mut(&item) else { continue };
                let is_meant = |number: &u32| recipients.is_empty() || recipients.contains(number);
                for (_, recipient) in (0..).zip(&mut item.recipients).filter(|(number, _)| is_meant(number)) {
                    match decision {
                        QueueDecision::Hold => {
                            recipient.held = true;
                            // When it goes on it is late once more, and its sender hears that again.
                            recipient.told.remove(&ReportKind::Delayed);
                        }
                        QueueDecision::Release | QueueDecision::Retry => recipient.held = false,
                        QueueDecision::Return => recipient.returned = true,
                        QueueDecision::Drop => recipient.dropped = true,
                    }
                }
            }
            let Some(item) = self.items.get_mut(id).filter(|item| !item.accepted && accepted.contains(id)) else {
                continue;
            };
            item.accepted = true;
            if let Some(report) = item.report.clone() {
                self.is_told(index, &report)?;
            }
        }
        Ok(())
    }

    /// A queue has taken a report.
    fn is_told(&mut self, index: u64, report: &Report) -> Result<(), String> {
        self.reports += 1;
        let Report { about, kind, recipients, .. } = report;
        let Some(item) = self.items.get_mut(about) else {
            return Err(format!("invented: a report is about {about}, which nobody sent"));
        };
        if item.report.is_some() || item.sender == Sender::Null {
            return Err(format!("report on a report: {kind:?} about {about}, which has the null reverse-path"));
        }
        for number in recipients {
            let Some(recipient) = item.recipients.get_mut(*number as usize) else {
                return Err(format!("invented: a report is about recipient {number} of {about}, whom nobody named"));
            };
            if *kind == ReportKind::Failed && recipient.sent_at.is_some_and(|sent| sent < index) {
                return Err(format!("bounced: recipient {number} of {about} has it, as the queue had recorded"));
            }
            if !is_wanted(recipient.notify.as_deref(), *kind) {
                continue;
            }
            if recipient.told.insert(*kind, index).is_some() {
                return Err(format!("told twice: {kind:?} of recipient {number} of {about}"));
            }
        }
        Ok(())
    }
}

/// Whether a sender wants to hear this of a recipient with this NOTIFY.
pub fn is_wanted(notify: Option<&str>, kind: ReportKind) -> bool {
    let event = match kind {
        ReportKind::Failed => Event::Failure,
        ReportKind::Delayed => Event::Delay,
        ReportKind::Relayed | ReportKind::Delivered => Event::Success,
    };
    wants(notify, event)
}
