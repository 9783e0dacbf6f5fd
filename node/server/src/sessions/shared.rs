//! What all sessions of a node share.

use tokio::sync::watch;

use super::SessionLimits;
use super::tls::MailTls;
use crate::spool::Budget;
use crate::world::World;

/// What all sessions of a node share.
#[derive(Clone)]
pub struct Shared {
    /// The node.
    pub world: World,
    /// Certificates.
    pub tls: MailTls,
    /// Memory for messages on their way in.
    pub budget: Budget,
    /// Bounds on their number.
    pub limits: SessionLimits,
    /// False while the node shuts down.
    pub serving: watch::Receiver<bool>,
}
