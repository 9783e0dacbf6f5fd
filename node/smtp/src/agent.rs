//! What a session asks of whoever delivers its messages, and the answers.

use std::future::Future;

use mailraft_protocol::Tls;
use zeroize::Zeroizing;

use crate::parse::{Mailbox, Path};

/// Who checks senders, recipients and credentials for a session, and takes its messages in: a mail delivery agent
/// (RFC 5598, section 4.3.3), wherever the mailboxes are.
pub trait DeliveryAgent: Send {
    /// Whether this account may send as this reverse-path.
    fn check_sender(&mut self, identity: &str, reverse_path: &Mailbox) -> impl Future<Output = Sender> + Send;

    /// Looks a recipient up.
    fn verify(&mut self, address: &Mailbox) -> impl Future<Output = Recipient> + Send;

    /// Checks credentials; both are as the client sent them.
    fn authenticate(&mut self, user: &str, password: Zeroizing<String>) -> impl Future<Output = AuthOutcome> + Send;

    /// Keeps the next bytes of the message, dots undone. If it can't, it says so when the message is whole.
    fn receive(&mut self, bytes: &[u8]);

    /// Drops the bytes kept: the message won't be delivered, whatever follows of it.
    fn discard(&mut self);

    /// The message is whole: delivers what was kept.
    fn deliver(&mut self, transaction: Transaction) -> impl Future<Output = Delivery> + Send;
}

/// A message's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path; None is the null one.
    pub reverse_path: Path,
    /// The recipients as given, all of one mailbox; at least one.
    pub recipients: Vec<Mailbox>,
    /// Where it goes.
    pub destination: Destination,
    /// What HELO or EHLO said.
    pub helo: String,
    /// EHLO, not HELO.
    pub extended: bool,
    /// BODY=8BITMIME.
    pub eight_bit: bool,
    /// What SIZE= announced, in bytes; nobody checked that it is true.
    pub announced_bytes: Option<u64>,
    /// Who is logged in.
    pub identity: Option<String>,
    /// Which TLS it came over, if any.
    pub tls: Option<Tls>,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The mailbox's id.
    pub mailbox: [u8; 16],
    /// The detail of the first recipient's address: what follows its `+`.
    pub detail: Option<String>,
}

/// Whether an account may send as a reverse-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// It is its own.
    Own,
    /// It is not, as a read barrier says.
    NotOwn,
    /// Nobody can say now.
    Unavailable,
}

/// What became of looking a recipient up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// It is this mailbox.
    Mailbox(Destination),
    /// Nobody of that name, as a read barrier says.
    Unknown,
    /// Not a domain of this server.
    NotOurs,
    /// It stands for several mailboxes, which one transaction can't reach yet.
    Several,
    /// Its mailbox is full.
    OverQuota,
    /// Nobody can say now.
    Unavailable,
    /// Too busy.
    Overloaded,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Logged in as this.
    Ok(String),
    /// Not these credentials.
    Wrong,
    /// Too many attempts.
    Throttled,
    /// Nobody can say now.
    Unavailable,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Durable on a majority; the text tells where.
    Accepted(String),
    /// No majority, or the outcome is not known.
    Unavailable,
    /// Too busy.
    Overloaded,
    /// The mailbox is full.
    OverQuota,
    /// Its header block is too long.
    HeaderTooLong,
    /// The mailbox is no more.
    NoSuchMailbox,
    /// Damaged there, being repaired.
    Corrupt,
    /// Refused for this reason.
    Refused(String),
}
