//! What the engine asks of its session's mailbox.

use std::future::Future;

use mailraft_mailbox::api::{FETCH_UIDS_MAX, FetchWhat, ZonedTime};
use mailraft_mailbox::{Event, Flags};
use mailraft_protocol::{Failure, Mailbox, Refusal};
use zeroize::Zeroizing;

/// The version of ENVELOPE and BODYSTRUCTURE as the mailbox keeps them.
pub(crate) const PARSED_VERSION: u8 = 1;

/// Messages that are asked for at once where their header blocks, ENVELOPEs and structures come too: these may be 704 KiB
/// together, and an answer must fit a frame between nodes.
const FETCH_HEADERS_MAX: usize = 64;

/// How many messages are asked for at once.
pub(crate) fn fetch_at_once(what: FetchWhat) -> usize {
    if what.header { FETCH_HEADERS_MAX } else { FETCH_UIDS_MAX }
}

/// A session's mailbox, wherever it is.
pub trait Mailstore: Mailbox {
    /// Logs in; from then on the other methods are about that account's mailbox.
    ///
    /// # Errors
    /// If the credentials are wrong, or nobody can say now.
    fn login(&mut self, user: &str, password: Zeroizing<String>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// A command begins: what it computes is counted from here.
    fn begin_command(&mut self);

    /// The time, in seconds since 1970-01-01 UTC.
    fn now_unix_seconds(&self) -> i64;

    /// Called by whatever computes for long, every millisecond or few: others get their turn.
    ///
    /// # Errors
    /// If this command has computed for as long as one may.
    fn breathe(&mut self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Waits until there are events to take. Its future may be dropped at any point and nothing is lost.
    fn wait_for_event(&mut self) -> impl Future<Output = ()> + Send;

    /// Takes the events of the open folder since the last call, in order.
    fn take_events(&mut self) -> Vec<Event>;

    /// All responses so far were handed to the client's connection, and it has sent more since.
    fn client_went_on(&mut self);

    /// A command was carried out that took none of that along: the mailbox hears of it by itself.
    fn tell_heard(&mut self);

    /// The client logs out or is gone: the mailbox has heard of it when this is over, if it can be reached.
    fn client_leaves(&mut self) -> impl Future<Output = ()> + Send;

    /// The session closed its folder.
    fn close_folder(&mut self);

    /// A message to be appended is about to come.
    ///
    /// # Errors
    /// If there is no place for one more now.
    fn begin_message(&mut self) -> Result<(), Refusal>;

    /// Keeps the next bytes of a message being appended.
    ///
    /// # Errors
    /// If it can't; the bytes before are dropped.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Refusal>;

    /// Drops the bytes kept.
    fn discard(&mut self);

    /// Appends the message that was kept. Returns its folder's UIDVALIDITY and its UID.
    ///
    /// # Errors
    /// If it was not appended, or may not have been.
    fn append(
        &mut self,
        folder: String,
        flags: Flags,
        internal_date: Option<ZonedTime>,
    ) -> impl Future<Output = Result<(u32, u32), Failure>> + Send;
}
