//! What is accepted for several mailboxes at once, as it travels: who it is for, and how far its delivery is. It goes
//! between nodes in postcard: variants and fields are only ever added at the end.

use mailraft_storage::{CommandId, Index, MailboxId, PartitionId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The most mailboxes that one message is accepted for.
pub const MAILBOXES_MAX: usize = 200;

/// The envelope of a message that is accepted for several mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEnvelope {
    /// The reverse-path, empty for null.
    pub reverse_path: String,
    /// Each mailbox once, at most [`MAILBOXES_MAX`].
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

/// One of the mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRecipient {
    /// The recipient's address as it was given.
    pub address: String,
    /// The mailbox that it stands for.
    pub mailbox: MailboxId,
    /// Its `+detail`.
    pub detail: Option<String>,
    /// NOTIFY (RFC 3461), as it was given.
    pub notify: Option<String>,
    /// ORCPT.
    pub orcpt: Option<String>,
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
}

/// Why a delivery does not go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldBecause {
    /// The account was deleted after the message was accepted.
    NoSuchMailbox,
}

/// A change of a queue mailbox's, which its own owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
