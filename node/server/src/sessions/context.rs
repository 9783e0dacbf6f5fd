//! What client sessions have beyond a node's services.

use tokio::sync::watch;

use super::tls::MailTls;
use crate::permits::Permits;
use crate::services::Services;
use crate::spool::Budget;
use crate::turns::Turn;

/// What every client session is handed: the node's services, and what only clients are concerned with.
#[derive(Clone)]
pub struct SessionContext {
    /// The node's services.
    pub services: Services,
    /// The certificates that mail clients are shown.
    pub tls: MailTls,
    /// Memory for messages on their way in.
    pub budget: Budget,
    /// Connections that are being refused, with a line that says why.
    pub refusing: Permits,
    /// The session's share of the processors.
    pub turn: Turn,
    /// False while the node shuts down.
    pub serving: watch::Receiver<bool>,
}
