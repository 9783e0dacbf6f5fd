//! What a session asks of whoever delivers its messages, and the answers.

use std::future::Future;

use mailraft_protocol::{Failure, Refusal, Tls};
use zeroize::Zeroizing;

use crate::dsn::{Asked, Return};
use crate::parse::{Mailbox, Path};

/// Who checks senders, recipients and credentials for a session, and takes its messages in: a mail delivery agent
/// (RFC 5598, section 4.3.3), wherever the mailboxes are.
pub trait DeliveryAgent: Send {
    /// Whether this account may send as this reverse-path.
    ///
    /// # Errors
    /// If it may not, or nobody can say now.
    fn check_sender(
        &mut self,
        identity: &str,
        reverse_path: &Mailbox,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Looks a recipient up, for whoever is logged in.
    ///
    /// # Errors
    /// If nothing can be delivered there, or nobody can say now.
    fn verify(
        &mut self,
        identity: Option<&str>,
        address: &Mailbox,
    ) -> impl Future<Output = Result<Verified, Failure>> + Send;

    /// Whether a mailbox has room for a message of so many bytes; of one at least, where nobody announced how many. Asked of
    /// each as soon as there are several: what is taken for several is delivered to each, whatever comes meanwhile.
    ///
    /// # Errors
    /// If it has not, or nobody can say now.
    fn check_quota(
        &mut self,
        mailbox: [u8; 16],
        announced_bytes: Option<u64>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Checks credentials; both are as the client sent them. Returns who is logged in.
    ///
    /// # Errors
    /// If they are wrong, or nobody can say now.
    fn authenticate(
        &mut self,
        user: &str,
        password: Zeroizing<String>,
    ) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Whether messages are taken now at all.
    ///
    /// # Errors
    /// If they are not.
    fn has_room(&self) -> Result<(), Refusal>;

    /// A message is about to come.
    ///
    /// # Errors
    /// If there is no place for one more now.
    fn begin_message(&mut self) -> Result<(), Refusal>;

    /// Keeps the next bytes of the message, dots undone. If it can't, it says so when the message is whole.
    fn receive(&mut self, bytes: &[u8]);

    /// Drops the bytes kept: the message won't be delivered, whatever follows of it.
    fn discard(&mut self);

    /// All replies so far were handed to the client's connection, and it has sent more since.
    fn client_went_on(&mut self);

    /// The client ends the session or is gone: the mailbox has heard of it when this is over, if it can be reached.
    fn client_leaves(&mut self) -> impl Future<Output = ()> + Send;

    /// The message is whole: delivers what was kept. Returns a text that tells where it is, once it is durable on a
    /// majority.
    ///
    /// # Errors
    /// If it was not delivered, or may not have been.
    fn deliver(&mut self, transaction: Transaction) -> impl Future<Output = Result<String, Failure>> + Send;
}

/// A message's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path; None is the null one.
    pub reverse_path: Path,
    /// The recipients as given; at least one.
    pub recipients: Vec<Mailbox>,
    /// Where it goes: at least one, each mailbox and each address outside once.
    pub destinations: Vec<Destination>,
    /// What HELO or EHLO said.
    pub helo: String,
    /// EHLO, not HELO.
    pub extended: bool,
    /// BODY=8BITMIME.
    pub eight_bit: bool,
    /// REQUIRETLS (RFC 8689): it goes over TLS alone, to the end.
    pub requiretls: bool,
    /// RET (RFC 3461): what of it a report brings back.
    pub ret: Option<Return>,
    /// ENVID: what its sender calls it, in xtext.
    pub envid: Option<String>,
    /// What SIZE= announced, in bytes; nobody checked that it is true.
    pub announced_bytes: Option<u64>,
    /// Who is logged in.
    pub identity: Option<String>,
    /// Which TLS it came over, if any.
    pub tls: Option<Tls>,
}

/// What a recipient's address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Mailboxes of this cluster.
    Mailboxes {
        /// Their ids; at least one, each once.
        mailboxes: Vec<[u8; 16]>,
        /// The address's detail: what follows its `+`.
        detail: Option<String>,
    },
    /// Another cluster's, or another server's: it is sent there.
    Outside,
    /// Somebody elsewhere whom an address of this cluster forwards to, and perhaps mailboxes.
    Forwarded {
        /// The ids of mailboxes of this cluster, each once.
        mailboxes: Vec<[u8; 16]>,
        /// Addresses of other domains, each once; at least one.
        outside: Vec<Forward>,
        /// The address's detail: what follows its `+`.
        detail: Option<String>,
    },
    /// Whoever sent what was forwarded under this address as its reverse-path: reports of it go there, and nothing else.
    Returned(Mailbox),
}

/// Somebody elsewhere whom an address of this cluster forwards to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Who.
    pub to: Mailbox,
    /// Which address does.
    pub by: String,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The mailbox's id; None for an address outside.
    pub mailbox: Option<[u8; 16]>,
    /// The first recipient that stands for it; of one outside, the address that it is sent to.
    pub address: Mailbox,
    /// The detail of that address: what follows its `+`. Of one outside, the address of this cluster's that forwards to it, if one
    /// does; the domain alone, where a report goes back to whoever sent what was forwarded.
    pub detail: Option<String>,
    /// What its sender wants to be told of it.
    pub asked: Asked,
}

/// Whether a message is taken into a queue, as it goes to several or outside, or as its sender wants to hear that it arrived;
/// else it goes straight into its mailbox. Of what has no sender nobody is told.
pub fn goes_by_queue(reverse_path: &Path, destinations: &[Destination]) -> bool {
    match destinations {
        [Destination { mailbox: Some(_), asked, .. }] => reverse_path.is_some() && asked.wants_success(),
        [] => false,
        _ => true,
    }
}
