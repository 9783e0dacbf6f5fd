//! What a node is made of above its links: sessions and the admin server are handed it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mailraft_directory::Lookup;
use mailraft_driver::Cluster;
use mailraft_protocol::Refusal;
use mailraft_storage::body::CHUNK_PLAIN_BYTES;

use crate::actors::Registry;
use crate::config::Config;
use crate::counted::Counted;
use crate::credentials::Credentials;
use crate::descriptors::Descriptors;
use crate::disk_space::DiskSpace;
use crate::failover::Failover;
use crate::links::{Links, Reach, StatusLinks};
use crate::logged_in::LoggedIn;
use crate::memory_limit::{MemoryStatus, NodeMemory};
use crate::outbound::allowed::Allowed;
use crate::places::{Bounds, Places};
use crate::queues::QueueWatch;
use crate::sender_auth::SenderAuth;
use crate::spool::Budget;
use crate::status::SessionStatus;
use crate::trail::Trail;
use crate::turns::Turns;

/// Memory that a message on its way in has behind it: a chunk for itself, and as much for those that are whole.
const MESSAGE_MEMORY_BYTES: usize = 2 * CHUNK_PLAIN_BYTES;

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
    /// Connections over which nodes of other regions are asked how they are.
    pub far: StatusLinks,
    /// The node's part in takeovers.
    pub failover: Failover,
    /// When the first message was accepted since this node serves mail.
    pub accepted: Arc<OnceLock<Instant>>,
    /// Memory, and who gets how much.
    pub memory: NodeMemory,
    /// Memory that the rows take now, in bytes.
    pub rows_memory: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Memory and files for messages on their way in.
    pub bodies: Budget,
    /// Who may log in.
    pub credentials: Arc<Credentials>,
    /// How many files and connections there may be, and for whom.
    pub descriptors: Descriptors,
    /// How much room the disk has.
    pub disk: DiskSpace,
    /// Checks who sent what other servers bring.
    pub sender_auth: SenderAuth,
    /// What is counted for reports to other domains.
    pub counted: Counted,
    /// Places for client sessions.
    pub places: Places,
    /// How much accounts may still send to other domains.
    pub allowed: Allowed,
    /// What waits in queues.
    pub queues: QueueWatch,
    /// What happened lately to each message here.
    pub trail: Trail,
    /// Turns of commands that compute for long.
    pub turns: Turns,
    /// Who is logged in here.
    pub logged_in: LoggedIn,
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
            queues: self.memory.queues.clone(),
            trail: self.trail.clone(),
        }
    }

    /// Client sessions at a time: what the configuration says, as far as there are descriptors and memory for them.
    pub fn sessions_max(&self) -> usize {
        self.config().limits.sessions.min(self.descriptors.sessions).min(self.memory.division.sessions_max())
    }

    /// Memory for messages on their way in: what the configuration says, as far as there is any.
    pub fn body_memory_bytes(&self) -> usize {
        self.memory.body_memory_bytes(&self.config().limits)
    }

    /// Whether new mail is taken.
    ///
    /// # Errors
    /// If the disk is nearly full.
    pub fn has_room(&self) -> Result<(), Refusal> {
        if self.disk.is_low() { Err(Refusal::ServerFull) } else { Ok(()) }
    }

    /// Bounds on places for client sessions.
    pub fn bounds(&self) -> Bounds {
        let limits = &self.config().limits;
        // Half of the memory is for messages that are whole.
        let messages = limits.messages.min(self.body_memory_bytes() / MESSAGE_MEMORY_BYTES).max(1);
        Bounds {
            sessions: self.sessions_max(),
            sessions_per_address: limits.sessions_per_address,
            strangers_percent: limits.strangers_percent,
            strangers_per_address: limits.strangers_per_address,
            messages,
            messages_per_address: limits.messages_per_address.min((messages / 4).max(1)),
        }
    }

    /// How many client sessions there are and may be.
    pub fn session_status(&self) -> SessionStatus {
        let max = self.sessions_max();
        ::metrics::gauge!("mailraft_sessions_limit").set(max as f64);
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            ::metrics::gauge!("mailraft_descriptors_open").set(open.count() as f64);
        }
        SessionStatus { open: self.places.open(), max, wanted: self.config().limits.sessions }
    }

    /// How much memory there is and who has it.
    pub fn memory_status(&self) -> MemoryStatus {
        let (bodies, argon2) = (self.bodies.taken_bytes(), self.credentials.memory_bytes());
        self.memory.status((self.rows_memory)(), bodies, self.places.open() as u64, argon2)
    }

    /// The configuration now; a reload replaces it.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
