//! What the engine asks of its session's mailbox.

use std::future::Future;

use mailraft_protocol::{Failure, Mailbox, Refusal};
use zeroize::Zeroizing;

/// A session's mailbox, wherever it is. What is asked is done only while no other session has the maildrop to itself, and
/// takes it for this one.
pub trait Maildrop: Mailbox {
    /// Logs in; from then on the other methods are about that account's mailbox.
    ///
    /// # Errors
    /// If the credentials are wrong, or nobody can say now.
    fn login(&mut self, user: &str, password: Zeroizing<String>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// A command begins: what it computes is counted from here.
    fn begin_command(&mut self);

    /// Called by whatever computes for long, every millisecond or few: others get their turn.
    ///
    /// # Errors
    /// If this command has computed for as long as one may.
    fn breathe(&mut self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Whether the mailbox was asked nothing for so long that it should hear of the session: else a new login takes the
    /// maildrop from it.
    fn is_silent(&self) -> bool;

    /// Waits until the mailbox is at an owner that knows nothing of the session. Its future may be dropped at any point and
    /// nothing is lost.
    fn wait_for_another_owner(&mut self) -> impl Future<Output = ()> + Send;

    /// Gives the maildrop back: whoever logs in after this gets it, if the mailbox can be reached.
    fn leave(&mut self) -> impl Future<Output = ()> + Send;
}
