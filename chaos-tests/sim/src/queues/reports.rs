//! What senders are told in the queues' world, as a node does it: whether it is anything to be told is production's to say.

use mailraft_mailbox::accepted::{AcceptedEnvelope, AcceptedRecipient, ReportKind, Told};
use mailraft_mailbox::api::ZonedTime;
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_mailbox::queue::outward::OutwardOutcome;
use mailraft_mailbox::{Answer, Command, Refusal};
use mailraft_outbound::report::{
    Action, Class, Diagnostic, Original, Recipient, ReportRefusal, Reporter, Status, report,
};
use mailraft_storage::{CommandId, MailboxId};

use super::books::{self, Item, Report, Sender};
use super::outside::Task;
use super::{Asker, Late, PARTITIONS, World};
use crate::message::{self, LARGE_ONE_IN};
use crate::plant::{self, Fault};

/// Whoever has the mailbox 0 hears what is for the postmaster.
const POSTMASTER: &str = "m0@here.test";

impl World {
    /// Tells the sender of an item what became of it for these recipients.
    pub(super) fn tell(&mut self, task: Task, kind: ReportKind, numbers: &[u32]) -> Result<(), String> {
        let Some(message) = self.read_item(&task, numbers)? else {
            return self.ended(&task, OutwardOutcome::Failed);
        };
        let reverse_path = match message.reverse_path() {
            "" if plant::is(Fault::NullPathTold) => POSTMASTER.to_owned(),
            of => of.to_owned(),
        };
        if self.is_refused(&message, &reverse_path, kind) {
            return self.ended(&task, OutwardOutcome::NobodyToTell);
        }
        let Some((sender, mailbox)) = self.stands_for(&reverse_path) else {
            return self.ended(&task, OutwardOutcome::NobodyToTell);
        };
        self.outside.written += 1;
        let marker = self.outside.written * LARGE_ONE_IN + 2;
        let (new_message, _) = message::seal(&mut self.env, marker);
        let id = self.id_in_queue(task.queue);
        let (about, recipients) = (task.outward.item, numbers.to_vec());
        let recipient = books::Recipient {
            mailbox: match sender {
                Sender::Mailbox(mailbox) => Some(mailbox),
                Sender::Null | Sender::Unknown | Sender::Outside => None,
            },
            ..books::Recipient::default()
        };
        let entered = Report { marker, about, kind, recipients: recipients.clone() };
        self.books.enter(
            id,
            Item { sender: Sender::Null, report: Some(entered), recipients: vec![recipient], accepted: false },
        );
        let to = AcceptedRecipient { address: reverse_path, mailbox, detail: None, notify: None, orcpt: None };
        let command = Command::Report {
            told: Told { item: about, kind, recipients },
            new_message,
            accepted: AcceptedEnvelope { recipients: vec![to], ..AcceptedEnvelope::default() },
            received: ZonedTime::default(),
        };
        if !self.healing && self.dice.chance(120) {
            // Held up on the way: it comes when nobody waits for it any more, or not at all.
            if self.dice.chance(800) {
                self.late.push(Late { mailbox: task.queue, id, command, chunks: Vec::new() });
            }
            return self.ended(&task, OutwardOutcome::Failed);
        }
        if !self.healing && self.dice.chance(120) {
            self.late.push(Late { mailbox: task.queue, id, command: command.clone(), chunks: Vec::new() });
        }
        let queue = task.queue;
        let session = self.session(Asker::Report(task));
        self.ask(queue, session, id, 0, command)
    }

    /// A report is in the queue, or it is not, or nobody knows.
    pub(super) fn report_put(&mut self, task: Task, result: Option<Result<Answer, Refusal>>) -> Result<(), String> {
        let outcome = match result {
            // It was told already, or somebody decided otherwise.
            Some(Ok(_) | Err(Refusal::Stale)) => OutwardOutcome::Reported,
            Some(Err(_)) | None => OutwardOutcome::Failed,
        };
        self.ended(&task, outcome)
    }

    /// Whether no report is written of it.
    fn is_refused(&self, message: &OutgoingMessage, reverse_path: &str, kind: ReportKind) -> bool {
        let seconds = |millis: u64| (millis / 1_000) as i64;
        let (accepted, expires) = message.accepted_and_expires();
        let (action, class) = match kind {
            ReportKind::Failed => (Action::Failed, Class::Permanent),
            ReportKind::Delayed => (Action::Delayed { retry_until_unix_s: seconds(expires.0) }, Class::Transient),
            ReportKind::Relayed => (Action::Relayed, Class::Success),
            ReportKind::Delivered => (Action::Delivered, Class::Success),
        };
        let recipient = |of| recipient(of, action, class);
        let recipients: Vec<Recipient<'_>> = message.recipients.iter().map(recipient).collect();
        let original = Original {
            reverse_path: Some(reverse_path),
            envelope_id: None,
            arrived_unix_s: seconds(accepted.0),
            smtputf8: false,
            header: b"Subject: x\r\n\r\n",
            whole: None,
        };
        let reporter = Reporter { host: "mx.here.test", from: "MAILER-DAEMON@here.test" };
        match report(reporter, &original, &recipients, seconds(self.env.wall.0), [1; 16]) {
            Ok(_) => false,
            Err(ReportRefusal::NullReversePath | ReportRefusal::NobodyAsked | ReportRefusal::NoAddress) => true,
        }
    }

    /// Whom an address stands for: a mailbox of the cluster's, or somebody outside. None for nobody.
    fn stands_for(&self, address: &str) -> Option<(Sender, MailboxId)> {
        let Some(local) = address.strip_suffix("@here.test") else {
            return Some((Sender::Outside, MailboxId::OUTSIDE));
        };
        let number: usize = local.strip_prefix('m')?.parse().ok()?;
        let mailbox = *self.mailboxes.get(number)?;
        (!self.deleted.contains(&mailbox)).then_some((Sender::Mailbox(mailbox), mailbox))
    }

    /// An id by which something is looked for in this queue.
    fn id_in_queue(&mut self, queue: MailboxId) -> CommandId {
        loop {
            let id = self.env.command_id();
            if MailboxId::queue_of(id.queue_partition(PARTITIONS)) == queue {
                return id;
            }
        }
    }
}

fn recipient(of: &mailraft_mailbox::queue::outgoing::OutgoingRecipient, action: Action, class: Class) -> Recipient<'_> {
    Recipient {
        address: &of.address,
        original: of.orcpt.as_deref(),
        notify: of.notify.as_deref(),
        action,
        status: Status::new(class, 0, 0),
        diagnostic: of.last.as_ref().map_or(Diagnostic::None, |last| Diagnostic::Own(&last.text)),
        last_attempt_unix_s: None,
    }
}
