//! The end of a run with other servers: faults end, days pass until nothing waits, and each recipient is looked up in the books.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_mailbox::accepted::ReportKind;
use mailraft_storage::{CommandId, MailboxId};

use super::World;
use super::books::{Item, Recipient, Sender, is_wanted};

/// Rounds within which everything must be done once all faults end: an owner asks each minute for a domain that is down, for
/// five days.
const HEALING_ROUNDS: usize = 20_000;
/// Of those five days so many milliseconds pass at once, while only an owner's own clock has it go on.
const LULL_MILLIS: u64 = 10 * 60_000;

impl World {
    /// All faults end. Who can't be reached then can't be reached for days.
    ///
    /// # Errors
    /// If something waits for ever.
    pub(super) fn heal_outside(&mut self) -> Result<(), String> {
        self.healing = true;
        self.days_pass()?;
        while !self.late.is_empty() {
            self.late_copy()?;
            self.days_pass()?;
        }
        Ok(())
    }

    fn days_pass(&mut self) -> Result<(), String> {
        for _ in 0..HEALING_ROUNDS {
            self.pass(1);
            while self.partitions.iter().any(|partition| !partition.deposed.is_empty()) {
                self.deposed_ends()?;
            }
            self.wake_queues()?;
            self.client()?;
            self.wake_due()?;
            for mailbox in self.flying() {
                self.applies(mailbox)?;
            }
            for job in std::mem::take(&mut self.jobs) {
                self.carry_out(job)?;
            }
            while let Some(at) = self.due_tasks().first().copied() {
                self.go_on(at)?;
            }
            if !self.jobs.is_empty() || !self.flying().is_empty() || self.unanswered() > 0 {
                continue;
            }
            match self.next_moment() {
                Some(at) if at > self.env.now => {
                    let pause = at - self.env.now + Duration::from_millis(1);
                    self.pass(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(LULL_MILLIS));
                }
                Some(_) => {}
                None => {
                    self.nobody_sleeps()?;
                    if self.release_all()? && self.waiting()?.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
        Err(format!("liveness: these wait: {:?}", self.waiting()?))
    }

    /// Looks each recipient up.
    ///
    /// # Errors
    /// The rule that is broken, and how.
    pub(super) fn check_outside(&mut self) -> Result<(), String> {
        let mut found: BTreeMap<u64, usize> = BTreeMap::new();
        for mailbox in self.mailboxes.clone() {
            for marker in self.markers(mailbox)? {
                *found.entry(marker).or_default() += 1;
            }
        }
        for (id, item) in &self.books.items {
            if !item.accepted {
                if item.report.is_none() {
                    return Err(format!("forgotten: {id} was accepted, and no queue had it"));
                }
                continue;
            }
            for (number, recipient) in item.recipients.iter().enumerate() {
                self.check_recipient((*id, number), item, recipient)?;
                match recipient.mailbox {
                    Some(mailbox) => check_report(item, mailbox, &found, self.deleted.contains(&mailbox))?,
                    None => {
                        let count = |of: fn(&super::books::Final) -> bool| {
                            recipient.finals.iter().filter(|found| of(found)).count()
                        };
                        let taken = count(|of| of.arrived == Some(true));
                        self.summary.outside += 1;
                        self.summary.taken += taken;
                        self.summary.repeated += taken.saturating_sub(1);
                        self.summary.unheard += count(|of| of.unheard);
                    }
                }
            }
        }
        self.summary.reports = self.books.reports;
        Ok(())
    }

    fn check_recipient(
        &self,
        (id, number): (CommandId, usize),
        item: &Item,
        recipient: &Recipient,
    ) -> Result<(), String> {
        let who = format!("recipient {number} of {id}");
        if let Some(mailbox) = recipient.mailbox {
            if recipient.told.contains_key(&ReportKind::Failed) && !self.deleted.contains(&mailbox) {
                return Err(format!("bounced: {who} has a mailbox"));
            }
            return Ok(());
        }
        let hears = match item.sender {
            Sender::Null | Sender::Unknown => false,
            Sender::Outside => true,
            Sender::Mailbox(mailbox) => !self.deleted.contains(&mailbox),
        };
        let is_due =
            |kind| hears && is_wanted(recipient.notify.as_deref(), kind) && !recipient.told.contains_key(&kind);
        let arrived = recipient.finals.iter().any(|of| of.arrived == Some(true));
        if !arrived && !recipient.dropped {
            if !recipient.failed && !recipient.returned {
                return Err(format!("forgotten: {who} has nothing, and nobody decided that"));
            }
            if is_due(ReportKind::Failed) {
                return Err(format!("untold: {who} has nothing, and the sender does not know: {recipient:?}"));
            }
        }
        let was_returned = recipient.dropped || recipient.told.contains_key(&ReportKind::Failed);
        if recipient.relayed && !was_returned && is_due(ReportKind::Relayed) {
            return Err(format!("untold: {who} has it, and the sender wanted to know: {item:?}"));
        }
        Ok(())
    }
}

/// Each report that a queue has taken is in its sender's mailbox once.
fn check_report(item: &Item, mailbox: MailboxId, found: &BTreeMap<u64, usize>, deleted: bool) -> Result<(), String> {
    let Some(report) = item.report.as_ref().filter(|_| !deleted) else { return Ok(()) };
    let times = found.get(&report.marker).copied().unwrap_or_default();
    if times != 1 {
        return Err(format!("{times} times: the report {} in mailbox {mailbox}", report.marker));
    }
    Ok(())
}
