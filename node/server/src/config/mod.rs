//! The configuration file: TOML, every key commented where it is written, every error naming the key and
//! what to do. Read into types that can't hold a wrong state.

mod file;
mod render;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailraft_driver::{DriverConfig, PeerTls, Revoked};
use mailraft_outbound::tls::mta_sts::Policy;
use mailraft_sender_auth::Enforcement;
use mailraft_storage::{ClusterId, NodeId};
use zeroize::Zeroizing;

pub use render::{Files, Listens, OnLoopback, Rendered, render, render_on_loopback};

/// The text of a file, for tests.
#[cfg(test)]
pub(crate) fn example() -> String {
    render_on_loopback(&OnLoopback {
        id: 2,
        region: "home",
        root_key_use: RootKeyUse::Always,
        cluster: &"ab".repeat(16),
        partitions: 16,
        peers: &[(1, "127.0.0.1:10700".into()), (3, "127.0.0.1:12700".into())],
        dir: Path::new("/d/node2"),
        ca_file: Path::new("/d/ca.pem"),
        token_file: Path::new("/d/token"),
        base_port: 11_000,
    })
}

/// Why there is no configuration: one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node keeps everything.
    pub data_dir: PathBuf,
    /// `[node]`
    pub node: Node,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[keys]`
    pub keys: Keys,
    /// `[peer]`
    pub peer: Peer,
    /// `[tls]`
    pub tls: Tls,
    /// `[listen]`
    pub listen: Listen,
    /// `[admin]`
    pub admin: Admin,
    /// `[sender_auth]`
    pub sender_auth: SenderAuth,
    /// `[outbound]`
    pub outbound: Outbound,
    /// `[reports]`
    pub reports: Reports,
    /// `[mta_sts]`: what we tell other servers about the TLS of ours, if anything.
    pub mta_sts: Option<Policy>,
    /// `[limits]`
    pub limits: Limits,
    /// `[storage]`
    pub storage: Storage,
    /// `[log]`
    pub log: Log,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// A name for people.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// The command that makes sure that the home region is off, and its arguments; empty if there is none.
    pub fence_command: Vec<String>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Mail partitions.
    pub partitions: u32,
    /// The other nodes, as host:port.
    pub peers: BTreeMap<NodeId, String>,
}

/// Where the root key is, which opens all other keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// 64 hexadecimal digits.
    pub root_key_file: PathBuf,
    /// When this node reads it.
    pub used: RootKeyUse,
}

/// When a node reads the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKeyUse {
    /// At each start.
    Always,
    /// At each start at which its region is home. In a backup region the file need not be there.
    AtHome,
}

impl RootKeyUse {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            RootKeyUse::Always => "always",
            RootKeyUse::AtHome => "at_home",
        }
    }
}

/// Connections between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where other nodes connect to.
    pub listen: SocketAddr,
    /// The cluster's certificate authority, PEM.
    pub ca_file: PathBuf,
    /// This node's certificate, PEM.
    pub certificate_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Fingerprints of nodes' certificates that count no more, if there is such a list.
    pub revoked_file: Option<PathBuf>,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// This server's name.
    pub hostname: String,
    /// Certificates, the preferred one first.
    pub certificates: Vec<Certificate>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, the server's own first.
    pub certificate_file: PathBuf,
    /// PEM.
    pub key_file: PathBuf,
}

/// Where clients connect to; a service without an address is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// SMTP from other servers.
    pub smtp: Option<SocketAddr>,
    /// Submission with STARTTLS.
    pub submission: Option<SocketAddr>,
    /// Submission over TLS.
    pub submissions: Option<SocketAddr>,
    /// IMAP with STARTTLS.
    pub imap: Option<SocketAddr>,
    /// IMAP over TLS.
    pub imaps: Option<SocketAddr>,
    /// POP3 with STLS.
    pub pop3: Option<SocketAddr>,
    /// POP3 over TLS.
    pub pop3s: Option<SocketAddr>,
    /// Pages over HTTPS.
    pub https: Option<SocketAddr>,
}

/// The admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Its address, on loopback.
    pub listen: SocketAddr,
    /// The file with the token that requests must bear.
    pub token_file: PathBuf,
}

/// How mail from other servers is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderAuth {
    /// What is done of what DMARC asks for; None where nothing is checked.
    pub enforcement: Option<Enforcement>,
    /// Who is asked about the DNS; the machine's own resolvers if empty.
    pub resolvers: Vec<SocketAddr>,
    /// In whose name the results are told.
    pub authserv_id: String,
}

/// How mail goes to other servers.
#[derive(Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Whether any does: where not, accounts are refused recipients outside.
    pub enabled: bool,
    /// Recipients in other domains that an account may send to in an hour, through each node; 0 is no limit.
    pub account_recipients_per_hour: u32,
    /// The port of other servers.
    pub port: u16,
    /// Whether it may go to addresses of private networks and of this machine.
    pub private_addresses: bool,
    /// All of it goes there.
    pub smart_host: Option<SmartHost>,
}

/// A server that takes all mail for others.
#[derive(Clone, PartialEq, Eq)]
pub struct SmartHost {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What TLS it has.
    pub tls: SmartHostTls,
    /// Who we are to it, and the password.
    pub credentials: Option<(String, zeroize::Zeroizing<String>)>,
}

/// What TLS a smart host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmartHostTls {
    /// From the first octet on.
    Implicit,
    /// By STARTTLS, and nothing is sent without.
    StartTls,
    /// By STARTTLS if it offers it.
    Opportunistic,
}

/// What other domains are told once a day, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// How TLS went with their servers (RFC 8460).
    pub tls: bool,
    /// Who sent this cluster mail in their name (RFC 7489).
    pub dmarc: bool,
    /// The address that reports come from; None for postmaster in the domain of `tls.hostname`.
    pub from: Option<String>,
    /// Who reports; None for the domain of that address.
    pub organization: Option<String>,
    /// The address for questions; None for that address itself.
    pub contact: Option<String>,
}

/// Recipients in other domains that an account may send to in an hour, where nothing else is said.
pub const ACCOUNT_RECIPIENTS_PER_HOUR: u32 = 1_000;

/// Mail that goes nowhere but by the DNS.
impl Default for Outbound {
    fn default() -> Self {
        Outbound {
            enabled: false,
            account_recipients_per_hour: ACCOUNT_RECIPIENTS_PER_HOUR,
            port: 25,
            private_addresses: false,
            smart_host: None,
        }
    }
}

/// Without the password.
impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let smart_host = self.smart_host.as_ref().map(|of| (&of.host, of.port, of.tls));
        f.debug_struct("Outbound")
            .field("enabled", &self.enabled)
            .field("port", &self.port)
            .field("account_recipients_per_hour", &self.account_recipients_per_hour)
            .field("private_addresses", &self.private_addresses)
            .field("smart_host", &smart_host)
            .finish_non_exhaustive()
    }
}

/// What one node takes on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes.
    pub max_message_bytes: u64,
    /// Sessions of clients on this node.
    pub sessions: usize,
    /// Sessions of clients of one address.
    pub sessions_per_address: usize,
    /// Sessions that nobody has logged in to, of one service, in hundredths of all.
    pub strangers_percent: usize,
    /// Sessions of one address that nobody has logged in to.
    pub strangers_per_address: usize,
    /// A mail program logs in within this time.
    pub login_max: Duration,
    /// Messages on their way in at once.
    pub messages: usize,
    /// Of those, from one address.
    pub messages_per_address: usize,
    /// The least pace of a message, in bytes a second.
    pub message_bytes_per_second: u64,
    /// A message has come within this time.
    pub message_max: Duration,
    /// Mailbox actors on this node.
    pub actors: usize,
    /// Below so many hundredths of the disk a node takes no new mail, and
    pub low_water_percent: u64,
    /// below so many free bytes.
    pub low_water_bytes: u64,
    /// Bytes on disk of messages on their way in.
    pub spool_bytes: u64,
    /// Bytes of mail in one mailbox, if limited.
    pub quota_bytes: Option<u64>,
    /// Memory for messages on their way in, in bytes.
    pub body_memory_bytes: usize,
    /// Password checks at once.
    pub auth_parallel: usize,
    /// Memory of the whole process, in bytes; 0 for three quarters of what there is.
    pub memory_bytes: u64,
}

/// The stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Entries of a log kept for followers that are behind.
    pub log_keep: u64,
    /// Rows are flushed this often.
    pub flush_interval: Duration,
    /// The rate of one snapshot.
    pub snapshot_bytes_per_second: u64,
    /// The rate of one snapshot to another region.
    pub region_snapshot_bytes_per_second: u64,
    /// Bytes of a log kept for other regions.
    pub region_log_keep_bytes: u64,
    /// Results of commands are kept this long.
    pub results_kept: Duration,
    /// Every row is read and compared with what was applied in this time.
    pub scrub_every: Duration,
}

/// What the node logs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// JSON instead of text.
    pub json: bool,
    /// A level or a filter of tracing.
    pub level: String,
    /// Whether of users' names only the first letter and the domain stand in the log.
    pub mask_addresses: bool,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// One sentence that names the file, the key and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let said = |e: String| ConfigError(format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(path)
            .map_err(|e| said(format!("can't be read ({e}): name the file that quickstart wrote, or a copy")))?;
        Config::parse(&text).map_err(|e| said(e.0))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// One sentence that names the key and what to do.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: file::File = toml::from_str(text).map_err(|e| ConfigError(e.to_string().trim_end().to_owned()))?;
        file.check()
    }

    /// The files that it names and that must be there, with their keys.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let peer = &self.peer;
        let mut out: Vec<(&'static str, &Path)> = vec![
            ("peer.ca_file", &peer.ca_file),
            ("peer.certificate_file", &peer.certificate_file),
            ("peer.key_file", &peer.key_file),
            ("admin.token_file", &self.admin.token_file),
        ];
        if self.keys.used == RootKeyUse::Always {
            out.insert(0, ("keys.root_key_file", &self.keys.root_key_file));
        }
        out.extend(peer.revoked_file.iter().map(|path| ("peer.revoked_file", path.as_path())));
        for Certificate { certificate_file, key_file } in &self.tls.certificates {
            out.extend([
                ("tls.certificates.certificate_file", certificate_file.as_path()),
                ("tls.certificates.key_file", key_file),
            ]);
        }
        out
    }

    /// A node's name for people.
    pub fn node_name(&self, node: NodeId) -> String {
        if node == self.node.id { self.node.name.clone() } else { format!("node{node}") }
    }

    /// One sentence for each change that a reload can't apply.
    pub fn needs_restart(&self, new: &Config) -> Vec<String> {
        let changed = [
            ("data_dir", self.data_dir != new.data_dir),
            ("[node]", self.node != new.node),
            ("[cluster]", self.cluster != new.cluster),
            ("[keys]", self.keys != new.keys),
            ("peer.listen", self.peer.listen != new.peer.listen),
            ("[listen]", self.listen != new.listen),
            ("[admin]", self.admin != new.admin),
            ("sender_auth.resolvers", self.sender_auth.resolvers != new.sender_auth.resolvers),
            ("[storage]", self.storage != new.storage),
            ("[log]", (self.log.json, &self.log.level) != (new.log.json, &new.log.level)),
            ("limits.memory_bytes", self.limits.memory_bytes != new.limits.memory_bytes),
        ];
        let sentence = |key: &str| format!("{key} changed: restart the node for it to take effect");
        changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| sentence(key)).collect()
    }

    /// Certificates, key and list of revoked certificates for connections between nodes, as the files are now.
    ///
    /// # Errors
    /// One sentence if one of them can't be used.
    pub fn peer_tls(&self) -> Result<PeerTls, String> {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).map_err(|e| {
                format!("peer.{key} {} can't be read ({e}): name the file that quickstart wrote", path.display())
            })
        };
        let ca = read("ca_file", &self.peer.ca_file)?;
        let chain = read("certificate_file", &self.peer.certificate_file)?;
        let key = Zeroizing::new(read("key_file", &self.peer.key_file)?);
        let revoked = match &self.peer.revoked_file {
            None => Revoked::default(),
            Some(path) => {
                let said = |e: &dyn std::fmt::Display| format!("peer.revoked_file {}: {e}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|e| said(&format_args!("it can't be read ({e}): it may be empty, and must be there")))?;
                Revoked::parse(&text).map_err(|e| said(&e))?
            }
        };
        PeerTls::with_revoked(&ca, &chain, &key, revoked).map_err(|e| format!("[peer]: {e}"))
    }

    /// What the driver is told; `connections_max` other nodes' connections at a time.
    ///
    /// # Errors
    /// One sentence if a certificate or key can't be used.
    pub fn driver(&self, connections_max: usize) -> Result<DriverConfig, String> {
        let tls = self.peer_tls()?;
        let mut driver = DriverConfig::new(
            self.node.id,
            self.cluster.id,
            self.cluster.partitions,
            self.peer.listen,
            self.cluster.peers.clone(),
            tls,
            self.data_dir.join("staging"),
        );
        driver.connections_max = connections_max;
        driver.flush_interval = self.storage.flush_interval;
        driver.log_keep_entries = self.storage.log_keep;
        driver.snapshot_bytes_per_second = self.storage.snapshot_bytes_per_second;
        driver.region_snapshot_bytes_per_second = self.storage.region_snapshot_bytes_per_second;
        driver.region_log_keep_bytes = self.storage.region_log_keep_bytes;
        driver.results_kept = self.storage.results_kept;
        driver.scrub_every = self.storage.scrub_every;
        driver.scrub_file = Some(self.data_dir.join("scrub.json"));
        Ok(driver)
    }
}
