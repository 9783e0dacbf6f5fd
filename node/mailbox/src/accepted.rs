//! What is accepted for several mailboxes at once, as it travels: who it is for, and how far its delivery is. It goes
//! between nodes in postcard: variants and fields are only ever added at the end.

use mailraft_storage::{CommandId, Index, MailboxId, PartitionId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The most recipients that one message is accepted for: mailboxes, and addresses outside the cluster.
pub const MAILBOXES_MAX: usize = 200;
/// What is kept of why an attempt to send failed, in bytes of text.
pub const DIAGNOSIS_MAX_BYTES: usize = 1_024;

/// When an attempt is due that an operator asked for: before all others, whatever is known of the domain's servers.
pub const ASKED_FOR: UnixMillis = UnixMillis(0);
/// When an attempt is due for which nobody waits any longer.
pub const AT_ONCE: UnixMillis = UnixMillis(1);

/// The envelope of a message that a queue mailbox accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEnvelope {
    /// The reverse-path, empty for null.
    pub reverse_path: String,
    /// Each mailbox once, and each address outside, at most [`MAILBOXES_MAX`].
    pub recipients: Vec<AcceptedRecipient>,
    /// Whether each recipient's mailbox recognises a sender's repeat: not on submission.
    pub deduplicate: bool,
    /// Who was logged in.
    pub identity: Option<String>,
    /// The client's address, but for submissions.
    pub client: Option<String>,
    /// RET and ENVID (RFC 3461), BODY (RFC 6152), as they were given.
    pub ret: Option<String>,
    /// ENVID.
    pub envid: Option<String>,
    /// BODY.
    pub body: Option<String>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
}

/// One of the recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRecipient {
    /// The recipient's address as it was given; of one outside, the address that it is sent to.
    pub address: String,
    /// The mailbox that it stands for, or [`MailboxId::OUTSIDE`].
    pub mailbox: MailboxId,
    /// Its `+detail`; of one outside, the address of this cluster's that forwards to it, if one does, or the domain alone, where a
    /// report goes back to whoever sent what was forwarded.
    pub detail: Option<String>,
    /// NOTIFY (RFC 3461), as it was given.
    pub notify: Option<String>,
    /// ORCPT.
    pub orcpt: Option<String>,
}

/// Where a recipient's mail goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Into a mailbox of this cluster.
    Mailbox(MailboxId),
    /// To the servers of this domain, or to the address in brackets.
    Outside(&'a str),
}

impl AcceptedRecipient {
    /// Where its mail goes.
    pub fn destination(&self) -> Destination<'_> {
        if self.mailbox != MailboxId::OUTSIDE {
            return Destination::Mailbox(self.mailbox);
        }
        Destination::Outside(self.address.rsplit_once('@').map_or("", |(_, domain)| domain))
    }

    /// Whether its sender wants to be told that it arrived (RFC 3461, section 4.1).
    pub fn wants_success(&self) -> bool {
        let words = self.notify.as_deref().unwrap_or_default().split(',');
        words.map(str::trim).any(|word| word.eq_ignore_ascii_case("SUCCESS"))
    }
}

/// A position in the log of a queue's partition, ordered across incarnations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueuePosition {
    /// The incarnation's number.
    pub incarnation: u32,
    /// The index.
    pub index: Index,
}

/// What a queue says of a delivery when it asks for it, and when it releases it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueOrigin {
    /// The queue's partition.
    pub queue: PartitionId,
    /// The applied state of that partition on which it decided to ask.
    pub at: QueuePosition,
    /// The id under which the message was accepted.
    pub item: CommandId,
    /// Which of its recipients, from 0 on.
    pub recipient: u32,
}

/// How far the delivery to one recipient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryStage {
    /// It is to be delivered.
    Waiting,
    /// It is in the recipient's mailbox, which may forget that it has it from here.
    Delivered,
    /// It can't be delivered, and stays until somebody decides about it.
    Held(HeldBecause),
    /// The last attempt to send it to another server failed for now.
    Deferred {
        /// Attempts that failed.
        failed: u32,
        /// When the next one is due.
        next: UnixMillis,
        /// Whether its sender was told that it is late, or need not be.
        warned: bool,
    },
    /// Its sender is to be told what became of it; then nothing more is to be done.
    Reporting(ReportKind),
}

/// What a sender is told of a recipient (RFC 3464, section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReportKind {
    /// It was not delivered, and won't be.
    Failed,
    /// It was not delivered yet.
    Delayed,
    /// Another server has it, which tells nobody.
    Relayed,
    /// The recipient's mailbox has it.
    Delivered,
}

/// How an attempt to send something to another server ended for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The recipient.
    pub recipient: u32,
    /// How it ended.
    pub end: AttemptEnd,
    /// Why, or what the other server said.
    pub diagnosis: Diagnosis,
}

impl Attempt {
    /// Whether the other server has it.
    pub fn is_sent(&self) -> bool {
        match self.end {
            AttemptEnd::Sent { .. } => true,
            AttemptEnd::Deferred { .. } | AttemptEnd::Failed => false,
        }
    }
}

/// The ends of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// The other server has it; its sender is to be told that, or not.
    Sent {
        /// What is to be told.
        report: Option<ReportKind>,
    },
    /// It is tried again then.
    Deferred {
        /// When.
        next: UnixMillis,
    },
    /// It is not tried again: its sender is to be told.
    Failed,
}

/// Why an attempt ended as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// When it ended.
    pub at: UnixMillis,
    /// The server that was asked, if one was.
    pub host: Option<String>,
    /// The enhanced status code (RFC 3463), as `5.1.1`.
    pub status: String,
    /// That server's reply, or a sentence of ours.
    pub text: String,
    /// Whether the text is a server's reply.
    pub is_reply: bool,
}

impl Diagnosis {
    /// The same, with texts within [`DIAGNOSIS_MAX_BYTES`].
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let cut = |text: &mut String, max: usize| {
            let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        };
        cut(&mut self.text, DIAGNOSIS_MAX_BYTES);
        cut(&mut self.status, 16);
        if let Some(host) = &mut self.host {
            cut(host, 255);
        }
        self
    }
}

/// What an operator wants done with recipients of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueDecision {
    /// Nothing is done for them until somebody decides otherwise.
    Hold,
    /// What was held goes on.
    Release,
    /// The next attempt is due at once, even while a domain is left alone because its servers could not be reached.
    Retry,
    /// Their sender is told that they don't get it, and they don't.
    Return,
    /// They don't get it, and nobody is told.
    Drop,
}

/// Why a delivery does not go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldBecause {
    /// The account was deleted after the message was accepted. Only in rows of an earlier version: its sender is told now.
    NoSuchMailbox,
    /// An operator wants it so.
    Operator,
}

/// A change of a queue mailbox's, which its own owner asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueChange {
    /// A recipient's mailbox has the message.
    Delivered {
        /// The item.
        item: CommandId,
        /// The recipient.
        recipient: u32,
    },
    /// A recipient can't get it.
    Held {
        /// The item.
        item: CommandId,
        /// The recipient.
        recipient: u32,
        /// The reason.
        because: HeldBecause,
    },
    /// A recipient's mailbox has forgotten that it has the message from here: nothing more is to be done for it.
    Released {
        /// The item.
        item: CommandId,
        /// The recipient.
        recipient: u32,
    },
    /// An attempt to send it to another server ended.
    Attempted {
        /// The item.
        item: CommandId,
        /// For whom, each once.
        attempts: Vec<Attempt>,
    },
    /// The sender is told nothing of these recipients, as he wants it, or as there is nobody to tell.
    NotTold(Told),
}

/// Recipients whose sender is told something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The item.
    pub item: CommandId,
    /// What he is told.
    pub kind: ReportKind,
    /// The recipients.
    pub recipients: Vec<u32>,
}

impl QueueChange {
    /// The item that changes.
    pub fn item(&self) -> CommandId {
        match self {
            QueueChange::Delivered { item, .. }
            | QueueChange::Held { item, .. }
            | QueueChange::Released { item, .. }
            | QueueChange::Attempted { item, .. }
            | QueueChange::NotTold(Told { item, .. }) => *item,
        }
    }
}

/// An item of a queue, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedItem {
    /// The id under which it was accepted.
    pub item: CommandId,
    /// When.
    pub accepted: UnixMillis,
    /// The message's size in bytes.
    pub size_bytes: u64,
    /// Recipients that it is to be delivered to.
    pub waiting: u32,
    /// Recipients whose mailboxes have it.
    pub delivered: u32,
    /// Recipients for whom it is held.
    pub held: u32,
}

/// An item of a queue with its recipients. Those that have it and of whom nothing more is to be done are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedDetail {
    /// The reverse-path.
    pub reverse_path: String,
    /// When it was accepted.
    pub accepted: UnixMillis,
    /// The message's size in bytes.
    pub size_bytes: u64,
    /// The number and address of each recipient, and how far its delivery is.
    pub recipients: Vec<(u32, String, DeliveryStage)>,
}

/// What the sender of an item asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedAsked {
    /// RET (RFC 3461), as it was given.
    pub ret: Option<String>,
    /// ENVID.
    pub envid: Option<String>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
    /// Those recipients of whom something was asked.
    pub recipients: Vec<RecipientAsked>,
}

/// What was asked of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientAsked {
    /// Its number.
    pub recipient: u32,
    /// NOTIFY (RFC 3461), as it was given.
    pub notify: Option<String>,
    /// ORCPT.
    pub orcpt: Option<String>,
}
