//! What the engine asks of the shell.

use std::future::Future;

use mailraft_mailbox::api::{FETCH_UIDS_MAX, FetchWhat, ZonedTime};
use mailraft_mailbox::{Answer, Command, Event, Flags, Refusal};
use zeroize::Zeroizing;

/// The version of ENVELOPE and BODYSTRUCTURE as the mailbox keeps them.
pub(crate) const PARSED_VERSION: u8 = 1;

/// Messages that are asked for at once where their header blocks and structures come too: these may be a quarter
/// of a MiB each, and an answer must fit a frame between nodes.
const FETCH_HEADERS_MAX: usize = 64;

/// How many messages are asked for at once.
pub(crate) fn fetch_at_once(what: FetchWhat) -> usize {
    if what.header { FETCH_HEADERS_MAX } else { FETCH_UIDS_MAX }
}

/// Why the mailbox did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// It refuses.
    Refused(Refusal),
    /// No majority, or the outcome is not known.
    Unavailable,
    /// Too busy.
    Overloaded,
    /// The mailbox is no more.
    NoSuchMailbox,
}

/// Why someone may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// Not these credentials.
    Wrong,
    /// Too many attempts.
    Throttled,
    /// Whether the password is right can't be said now.
    Unavailable,
}

/// Why a message being appended can't be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveFailure {
    /// Too busy.
    Overloaded,
    /// Its header block is too long.
    HeaderTooLong,
    /// The server can't keep it.
    Unavailable,
}

/// A session's mailbox, wherever it is.
pub trait Mailstore: Send {
    /// Logs in; from then on the other methods are about that account's mailbox.
    fn login(
        &mut self,
        user: &str,
        password: Zeroizing<String>,
    ) -> impl Future<Output = Result<(), LoginFailure>> + Send;

    /// One command, with retries and failover inside.
    fn ask(&mut self, command: Command) -> impl Future<Output = Result<Answer, StoreFailure>> + Send;

    /// Waits until there are events to take. Its future may be dropped at any point and nothing is lost.
    fn wait_for_event(&mut self) -> impl Future<Output = ()> + Send;

    /// Events of the open folder since the last call, in order.
    fn take_events(&mut self) -> Vec<Event>;

    /// The session closed its folder.
    fn close_folder(&mut self);

    /// Keeps the next bytes of a message being appended.
    ///
    /// # Errors
    /// If it can't; the bytes before are dropped.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), ReceiveFailure>;

    /// Drops the bytes kept.
    fn discard(&mut self);

    /// Appends the message kept; UIDVALIDITY and UID.
    fn append(
        &mut self,
        folder: String,
        flags: Flags,
        internal_date: Option<ZonedTime>,
    ) -> impl Future<Output = Result<Result<(u32, u32), ReceiveFailure>, StoreFailure>> + Send;
}
