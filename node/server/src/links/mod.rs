//! How a session reaches the mailbox actor, here or on another node, and goes on after a failover.
//!
//! A session has one [`MailboxSession`]. It attaches to the actor beside the partition's leader, asks one
//! command at a time, and hears answers and events in the order of the log. When the link breaks, it
//! attaches again wherever the partition is led now, resumes its open folder, and sends the command once
//! more under the same id.

mod batch;
mod chunks;
mod errands;
mod failover;
mod frame;
mod handshake;
mod packed;
mod peer;
mod questions;
mod serve;
mod session;
mod source;
mod upload;

pub use errands::{ERRANDS_AT_ONCE, run_errands};
pub use failover::{AboutFailover, FailoverAnswers, FailoverLinks, FailoverSource};
pub use frame::{Rpc, RpcReply};
pub use handshake::LinkKey;
pub use peer::Links;
pub use questions::{StatusLinks, StatusSource, answer as answer_status};
pub use serve::{OwnAnswers, serve_streams};
pub use session::{MailboxSession, Stored, stored_under};

use std::sync::Arc;

use mailraft_directory::Lookup;
use mailraft_driver::Cluster;
use mailraft_mailbox::{Command, Detached};
use mailraft_storage::CommandId;

use crate::actors::{LocalLink, Registry};
use crate::memory::SharedByAccounts;
use crate::trail::Trail;
use peer::RemoteLink;

/// What a session needs to reach mailboxes.
#[derive(Clone)]
pub struct Reach {
    /// The replicated groups: who leads, and the way to other nodes.
    pub cluster: Cluster,
    /// The mailboxes' keys.
    pub lookup: Arc<Lookup>,
    /// Mailbox actors of partitions that this node leads.
    pub registry: Registry,
    /// Connections to other nodes' actors.
    pub links: Arc<Links>,
    /// What may wait for sessions, in bytes.
    pub queues: SharedByAccounts,
    /// What happened lately to each message here.
    pub trail: Trail,
}

/// A session's way to one actor.
pub enum Link {
    /// The actor is on this node.
    Local(LocalLink),
    /// The actor is on another node.
    Remote(RemoteLink),
}

impl Link {
    /// Hands a command over. The answer comes through the inbox.
    ///
    /// # Errors
    /// If the link is broken or the other side can't take more.
    pub fn ask(&self, id: CommandId, attempt: u32, command: Command) -> Result<(), Detached> {
        match self {
            Link::Local(link) => link.ask(id, attempt, command),
            Link::Remote(link) => link.ask(id, attempt, command),
        }
    }
}
