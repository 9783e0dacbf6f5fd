//! What all sessions of a node share.

use std::time::Duration;

use tokio::sync::watch;

use super::SessionLimits;
use super::tls::MailTls;
use crate::spool::Budget;
use crate::world::World;

/// How long a TLS handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Waits until the node shuts down.
pub(super) async fn stopped(serving: &mut watch::Receiver<bool>) {
    let _ = serving.wait_for(|serving| !serving).await;
}
