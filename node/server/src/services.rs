//! What a node is made of above its links: sessions and the admin server are handed it.

use std::sync::Arc;

use mailraft_directory::Lookup;
use mailraft_driver::Cluster;

use crate::actors::Registry;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::links::{Links, Reach};

/// A node's parts, as its sessions and its admin server use them.
#[derive(Clone)]
pub struct Services {
    /// The replicated groups.
    pub cluster: Cluster,
    /// The directory, read from this node's replica of the control group.
    pub lookup: Arc<Lookup>,
    /// Mailbox actors of partitions that this node leads.
    pub registry: Registry,
    /// Connections to other nodes' actors.
    pub links: Arc<Links>,
    /// Who may log in.
    pub credentials: Arc<Credentials>,
    /// The configuration as it was last loaded.
    pub config: Arc<std::sync::RwLock<Arc<Config>>>,
}

impl Services {
    /// What a session needs to reach mailboxes.
    pub fn reach(&self) -> Reach {
        Reach {
            cluster: self.cluster.clone(),
            lookup: Arc::clone(&self.lookup),
            registry: self.registry.clone(),
            links: Arc::clone(&self.links),
        }
    }

    /// The configuration now; a reload replaces it.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
