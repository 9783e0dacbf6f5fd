//! What the engine asks of its session's mailbox.

use std::future::Future;

use mailraft_mailbox::api::{FETCH_UIDS_MAX, FetchWhat, FolderId, ZonedTime};
use mailraft_mailbox::{Event, Flags, Notice};
use mailraft_message::breath::Breath;
use mailraft_protocol::{Failure, Mailbox, Refusal};
use zeroize::Zeroizing;

/// The version of ENVELOPE and BODYSTRUCTURE as the mailbox keeps them.
pub(crate) const PARSED_VERSION: u8 = 1;

/// Messages that are asked for at once where their header blocks, ENVELOPEs and structures come too: these may be 704 KiB
/// together, and an answer must fit a frame between nodes.
const FETCH_HEADERS_MAX: usize = 64;

/// What one SORT or THREAD may hold of the messages that it puts in order, in bytes: some 300,000 of the usual ones.
pub(crate) const KEYS_MAX_BYTES: usize = 32 << 20;

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

    /// Whether the client, which has waited for the command that was begun for so long, should hear how far it is. Then it
    /// is not asked again for a while.
    fn is_progress_due(&mut self) -> bool;

    /// The command that was begun holds so many bytes, of all that it keeps of messages, until the next one begins.
    ///
    /// # Errors
    /// If there is no room for them now.
    fn hold(&mut self, bytes: usize) -> Result<(), Refusal>;

    /// The connection is about to be compressed, to its end.
    ///
    /// # Errors
    /// If there is no room for that now.
    fn compress(&mut self) -> Result<(), Refusal>;

    /// Waits until there are events to take. Its future may be dropped at any point and nothing is lost.
    fn wait_for_event(&mut self) -> impl Future<Output = ()> + Send;

    /// Takes the events of the open folder since the last call, in order.
    fn take_events(&mut self) -> Vec<Event>;

    /// Takes what happened to other folders since the last call, in order. Nothing, unless the session watches them.
    fn take_notices(&mut self) -> Vec<Notice>;

    /// The session keeps so many bytes from here on, to be notified of folders.
    ///
    /// # Errors
    /// If there is no room for them now; then it keeps none.
    fn keep_for_notify(&mut self, bytes: usize) -> Result<(), Refusal>;

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

    /// The message that was kept is whole, and another one comes behind it.
    ///
    /// # Errors
    /// If there is no room for one more; those before are dropped.
    fn next_message(&mut self) -> Result<(), Refusal>;

    /// Drops all that was kept.
    fn discard(&mut self);

    /// Appends the message that was kept, and ends the one of this folder and UID in the same commit. Returns as
    /// [`Mailstore::append`].
    ///
    /// # Errors
    /// If neither was done, or both may have been.
    fn replace(
        &mut self,
        replaced: (FolderId, u32),
        folder: String,
        flags: Flags,
        internal_date: Option<ZonedTime>,
    ) -> impl Future<Output = Result<(u32, u32), Failure>> + Send;

    /// Appends the messages that were kept, each with these flags and this date, all or none. Returns their folder's
    /// UIDVALIDITY and their UIDs.
    ///
    /// # Errors
    /// If they were not appended, or may not have been.
    fn append(
        &mut self,
        folder: String,
        each: Vec<(Flags, Option<ZonedTime>)>,
    ) -> impl Future<Output = Result<(u32, Vec<u32>), Failure>> + Send;
}

/// What a command keeps of the messages that it puts in order takes so many bytes.
///
/// # Errors
/// If that is more than [`KEYS_MAX_BYTES`], or than there is room for now.
pub(crate) fn hold_keys<S: Mailstore>(bytes: usize, store: &mut S) -> Result<(), Refusal> {
    if bytes > KEYS_MAX_BYTES {
        return Err(Refusal::Limit("there are too many messages to put in order; name fewer".to_owned()));
    }
    store.hold(bytes)
}

/// A command that has something computed.
pub(crate) struct Breathing<'a, S>(pub(crate) &'a mut S);

impl<S: Mailstore> Breath for Breathing<'_, S> {
    type Error = Refusal;

    async fn breathe(&mut self) -> Result<(), Refusal> {
        self.0.breathe().await
    }
}
