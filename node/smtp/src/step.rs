//! What a session asks of the shell, and the shell's answers.

use zeroize::Zeroizing;

use crate::parse::{Mailbox, Path};

/// What the shell must do next.
pub enum Step {
    /// Write what was said, then read more.
    NeedInput,
    /// Look up whether this account may send as this reverse-path, then say [`Session::sender_checked`].
    CheckSender {
        /// Who is logged in.
        identity: String,
        /// As whom.
        reverse_path: Mailbox,
    },
    /// Look a recipient up, then say [`Session::verified`].
    Verify(Mailbox),
    /// Check credentials, then say [`Session::authenticated`]. Both are as the client sent them.
    Authenticate {
        /// Who.
        user: String,
        /// With which password.
        password: Zeroizing<String>,
    },
    /// More of the message: keep it.
    Content(Vec<u8>),
    /// The message is whole: deliver it, then say [`Session::delivered`].
    Complete(Transaction),
    /// The message won't be completed, whatever follows of it: drop what was kept.
    Discard,
    /// Write what was said, take up TLS, then say [`Session::tls_started`].
    StartTls,
    /// Write what was said, then close.
    Close,
}

impl std::fmt::Debug for Step {
    /// Shows neither passwords nor content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::NeedInput => f.write_str("NeedInput"),
            Step::CheckSender { identity, reverse_path } => {
                f.debug_struct("CheckSender").field("identity", identity).field("reverse_path", reverse_path).finish()
            }
            Step::Verify(address) => f.debug_tuple("Verify").field(address).finish(),
            Step::Authenticate { user, .. } => {
                f.debug_struct("Authenticate").field("user", user).finish_non_exhaustive()
            }
            Step::Content(bytes) => write!(f, "Content({} bytes)", bytes.len()),
            Step::Complete(transaction) => f.debug_tuple("Complete").field(transaction).finish(),
            Step::Discard => f.write_str("Discard"),
            Step::StartTls => f.write_str("StartTls"),
            Step::Close => f.write_str("Close"),
        }
    }
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
    /// Under TLS.
    pub tls: bool,
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
