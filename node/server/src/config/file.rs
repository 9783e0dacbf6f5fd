//! The file as it is written, and the checks that make a [`Config`] of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mailraft_cluster::config::REGION_LOG_KEEP_BYTES;
use mailraft_cluster::eviction::RESULTS_KEPT;
use mailraft_driver::{REGION_SNAPSHOT_BYTES_PER_SECOND, SCRUB_EVERY};
use mailraft_feedback::Reporter;
use mailraft_outbound::tls::mta_sts::{MAX_AGE_MAX_S, Mode, Policy};
use mailraft_sender_auth::{Domain, Enforcement};
use mailraft_storage::{ClusterId, NodeId};
use serde::Deserialize;

use super::{
    ACCOUNT_RECIPIENTS_PER_HOUR, Admin, Certificate, Cluster, Config, ConfigError, Keys, Limits, Listen, Log, Node,
    Outbound, Peer, Reports, RootKeyUse, SenderAuth, SmartHost, SmartHostTls, Storage, Tls,
};
use crate::dns::RESOLVERS_MAX;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    data_dir: PathBuf,
    node: NodeSection,
    cluster: ClusterSection,
    keys: KeysSection,
    peer: PeerSection,
    tls: TlsSection,
    #[serde(default)]
    listen: ListenSection,
    admin: AdminSection,
    #[serde(default)]
    sender_auth: SenderAuthSection,
    #[serde(default)]
    outbound: OutboundSection,
    #[serde(default)]
    reports: ReportsSection,
    #[serde(default)]
    mta_sts: MtaStsSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    storage: StorageSection,
    #[serde(default)]
    log: LogSection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSection {
    id: u64,
    name: Option<String>,
    #[serde(default = "home")]
    region: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    fence_command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterSection {
    id: String,
    partitions: u32,
    #[serde(default)]
    peers: Vec<PeerLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerLine {
    id: u64,
    peer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysSection {
    root_key_file: PathBuf,
    #[serde(rename = "use", default = "always")]
    used: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerSection {
    listen: SocketAddr,
    ca_file: PathBuf,
    certificate_file: PathBuf,
    key_file: PathBuf,
    revoked_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    hostname: String,
    certificates: Vec<CertificateLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateLine {
    certificate_file: PathBuf,
    key_file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenSection {
    smtp: Option<SocketAddr>,
    submission: Option<SocketAddr>,
    submissions: Option<SocketAddr>,
    imap: Option<SocketAddr>,
    imaps: Option<SocketAddr>,
    pop3: Option<SocketAddr>,
    pop3s: Option<SocketAddr>,
    https: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminSection {
    listen: SocketAddr,
    token_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SenderAuthSection {
    dmarc: String,
    resolvers: Vec<SocketAddr>,
    authserv_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OutboundSection {
    enabled: bool,
    account_recipients_per_hour: u32,
    port: u16,
    private_addresses: bool,
    smart_host: String,
    smart_host_tls: String,
    smart_host_user: String,
    smart_host_password_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReportsSection {
    tls: Option<bool>,
    dmarc: bool,
    from: String,
    organization: String,
    contact: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MtaStsSection {
    mode: String,
    mx: Vec<String>,
    max_age_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    max_message_bytes: u64,
    sessions: usize,
    sessions_per_address: usize,
    strangers_percent: usize,
    strangers_per_address: usize,
    login_seconds: u64,
    messages: usize,
    messages_per_address: usize,
    message_bytes_per_second: u64,
    message_seconds: u64,
    actors: usize,
    low_water_percent: u64,
    low_water_bytes: u64,
    spool_bytes: u64,
    quota_bytes: u64,
    body_memory_bytes: usize,
    auth_parallel: usize,
    memory_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StorageSection {
    log_keep: u64,
    flush_interval_ms: u64,
    snapshot_bytes_per_second: u64,
    region_snapshot_bytes_per_second: u64,
    region_log_keep_bytes: u64,
    results_kept_hours: u64,
    scrub_every_hours: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogSection {
    format: String,
    level: String,
    mask_addresses: bool,
}

fn home() -> String {
    "home".into()
}

fn always() -> String {
    RootKeyUse::Always.as_str().into()
}

impl Default for SenderAuthSection {
    fn default() -> Self {
        SenderAuthSection { dmarc: "mark".into(), resolvers: Vec::new(), authserv_id: String::new() }
    }
}

impl SenderAuthSection {
    fn check(self, hostname: &str) -> Result<SenderAuth, ConfigError> {
        let enforcement = match self.dmarc.as_str() {
            "off" => None,
            "mark" => Some(Enforcement::Mark),
            "quarantine" => Some(Enforcement::Quarantine),
            "reject" => Some(Enforcement::Reject),
            other => {
                return Err(ConfigError(format!(
                    "sender_auth.dmarc is {other:?}: choose \"off\", \"mark\", \"quarantine\" or \"reject\""
                )));
            }
        };
        if self.resolvers.len() > RESOLVERS_MAX {
            return Err(ConfigError(format!(
                "sender_auth.resolvers names more than {RESOLVERS_MAX}: keep the nearest"
            )));
        }
        let authserv_id = if self.authserv_id.is_empty() { hostname.to_owned() } else { self.authserv_id };
        if Domain::parse(&authserv_id).is_none_or(|domain| domain.as_str() != authserv_id.to_ascii_lowercase()) {
            return Err(ConfigError(format!(
                "sender_auth.authserv_id is {authserv_id:?}: write a host's name, such as mail.example.org, the same on every node"
            )));
        }
        Ok(SenderAuth { enforcement, resolvers: self.resolvers, authserv_id })
    }
}

impl Default for OutboundSection {
    fn default() -> Self {
        OutboundSection {
            enabled: false,
            account_recipients_per_hour: ACCOUNT_RECIPIENTS_PER_HOUR,
            port: 25,
            private_addresses: false,
            smart_host: String::new(),
            smart_host_tls: "starttls".into(),
            smart_host_user: String::new(),
            smart_host_password_file: None,
        }
    }
}

impl OutboundSection {
    fn check(self) -> Result<Outbound, ConfigError> {
        let port = within("outbound.port", self.port, 1, u16::MAX)?;
        let (enabled, private_addresses) = (self.enabled, self.private_addresses);
        let account_recipients_per_hour = self.account_recipients_per_hour;
        if self.smart_host.is_empty() {
            let smart_host = None;
            return Ok(Outbound { enabled, account_recipients_per_hour, port, private_addresses, smart_host });
        }
        let wrong = || {
            ConfigError(format!(
                "outbound.smart_host is {:?}: write host:port, such as \"relay.example.org:587\"",
                self.smart_host
            ))
        };
        let (host, of_host) = self.smart_host.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let of_host: u16 = of_host.parse().map_err(|_| wrong())?;
        if host.is_empty() || of_host == 0 {
            return Err(wrong());
        }
        let tls = match self.smart_host_tls.as_str() {
            "implicit" => SmartHostTls::Implicit,
            "starttls" => SmartHostTls::StartTls,
            "opportunistic" => SmartHostTls::Opportunistic,
            other => {
                return Err(ConfigError(format!(
                    "outbound.smart_host_tls is {other:?}: choose \"starttls\", \"implicit\" or \"opportunistic\""
                )));
            }
        };
        let credentials = match (self.smart_host_user.is_empty(), &self.smart_host_password_file) {
            (true, None) => None,
            (false, Some(path)) => {
                let read = std::fs::read_to_string(path).map(zeroize::Zeroizing::new).map_err(|e| {
                    ConfigError(format!("outbound.smart_host_password_file {} can't be read: {e}", path.display()))
                })?;
                let password = zeroize::Zeroizing::new(read.trim_end_matches(['\r', '\n']).to_owned());
                Some((self.smart_host_user.clone(), password))
            }
            (true, Some(_)) | (false, None) => {
                return Err(ConfigError(
                    "outbound.smart_host_user and outbound.smart_host_password_file go together: write both, or none"
                        .into(),
                ));
            }
        };
        if credentials.is_some() && tls == SmartHostTls::Opportunistic {
            return Err(ConfigError(
                "outbound.smart_host_user needs a smart host that proves who it is: choose smart_host_tls = \"starttls\" or \"implicit\""
                    .into(),
            ));
        }
        let smart_host = Some(SmartHost { host, port: of_host, tls, credentials });
        Ok(Outbound { enabled, account_recipients_per_hour, port, private_addresses, smart_host })
    }
}

impl ReportsSection {
    fn check(self, sends: bool) -> Result<Reports, ConfigError> {
        // Where they are on, and nothing is sent, as an operator stopped all of it, they rest.
        let tls = self.tls.unwrap_or(sends);
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let (from, contact) = (given(self.from), given(self.contact));
        for (key, address) in [("from", &from), ("contact", &contact)] {
            let Some(address) = address else { continue };
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            Reporter::new("", domain, address, address)
                .map_err(|error| ConfigError(format!("reports.{key} is {address:?}: {error}")))?;
        }
        Ok(Reports { tls, dmarc: self.dmarc, from, organization: given(self.organization), contact })
    }
}

impl Default for MtaStsSection {
    fn default() -> Self {
        MtaStsSection { mode: "off".into(), mx: Vec::new(), max_age_seconds: 604_800 }
    }
}

impl MtaStsSection {
    fn check(self, hostname: &str) -> Result<Option<Policy>, ConfigError> {
        let max_age_s = within("mta_sts.max_age_seconds", self.max_age_seconds, 3_600, MAX_AGE_MAX_S)?;
        let mode = match self.mode.as_str() {
            "off" => return Ok(None),
            "testing" => Mode::Testing,
            "enforce" => Mode::Enforce,
            "none" => Mode::None,
            other => {
                return Err(ConfigError(format!(
                    "mta_sts.mode is {other:?}: choose \"off\", \"testing\", \"enforce\" or \"none\""
                )));
            }
        };
        let patterns = if self.mx.is_empty() { vec![hostname.to_ascii_lowercase()] } else { self.mx };
        let policy = Policy { mode, max_age_s, patterns };
        // Others must be able to read it.
        match Policy::parse(policy.lines().join("\n").as_bytes()) {
            Ok(policy) => Ok(Some(policy)),
            Err(error) => Err(ConfigError(format!(
                "mta_sts.mx is {:?}: write names of servers, such as mail.example.org or *.example.org ({error})",
                policy.patterns
            ))),
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        LimitsSection {
            max_message_bytes: 50 << 20,
            sessions: 10_000,
            sessions_per_address: 1_000,
            strangers_percent: 25,
            strangers_per_address: 50,
            login_seconds: 120,
            messages: 512,
            messages_per_address: 64,
            message_bytes_per_second: 1_024,
            message_seconds: 3_600,
            actors: 20_000,
            low_water_percent: 5,
            low_water_bytes: 2 << 30,
            spool_bytes: 4 << 30,
            quota_bytes: 10 << 30,
            body_memory_bytes: 256 << 20,
            auth_parallel: 2,
            memory_bytes: 0,
        }
    }
}

impl Default for StorageSection {
    fn default() -> Self {
        StorageSection {
            log_keep: 50_000,
            flush_interval_ms: 5_000,
            snapshot_bytes_per_second: 100_000_000,
            region_snapshot_bytes_per_second: REGION_SNAPSHOT_BYTES_PER_SECOND,
            region_log_keep_bytes: REGION_LOG_KEEP_BYTES,
            results_kept_hours: RESULTS_KEPT.as_secs() / 3_600,
            scrub_every_hours: SCRUB_EVERY.as_secs() / 3_600,
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        LogSection { format: "text".into(), level: "info".into(), mask_addresses: true }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, low: T, high: T) -> Result<T, ConfigError> {
    if value < low || value > high {
        return Err(ConfigError(format!("{key} is {value}: choose between {low} and {high}")));
    }
    Ok(value)
}

fn node_id(key: &str, id: u64) -> Result<NodeId, ConfigError> {
    within(key, id, 1, 1_000_000).map(NodeId)
}

/// A filter takes a word that is no level for a part of the program, and then shows nothing at all.
fn check_level(filter: &str) -> Result<(), ConfigError> {
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let is_right = |part: &str| is_level(part.rsplit('=').next().unwrap_or(part));
    match filter.to_ascii_lowercase().split(',').map(str::trim).all(is_right) {
        true => Ok(()),
        false => Err(ConfigError(format!(
            "log.level is {filter:?}: choose error, warn, info, debug or trace, or a filter such as \"info,mailraft_server=debug\""
        ))),
    }
}

/// No two of them listen at one address and port.
fn one_listener_at_each<const N: usize>(all: [(&str, Option<SocketAddr>); N]) -> Result<(), ConfigError> {
    let given: Vec<_> = all.into_iter().filter_map(|(key, at)| Some((key, at.filter(|at| at.port() > 0)?))).collect();
    for (at, (key, one)) in given.iter().enumerate() {
        let any = |ip: std::net::IpAddr| ip.is_unspecified();
        let clash = given[..at].iter().find(|(_, other)| {
            one.port() == other.port() && (one.ip() == other.ip() || any(one.ip()) || any(other.ip()))
        });
        if let Some((other, _)) = clash {
            return Err(ConfigError(format!(
                "{other} and {key} are both at port {}: give one another port",
                one.port()
            )));
        }
    }
    Ok(())
}

impl File {
    pub fn check(self) -> Result<Config, ConfigError> {
        let id = node_id("node.id", self.node.id)?;
        let cluster_id = ClusterId::from_hex(&self.cluster.id).ok_or_else(|| {
            ConfigError(format!(
                "cluster.id is {:?}: it has 32 hexadecimal digits, the same on every node",
                self.cluster.id
            ))
        })?;
        let mut peers = BTreeMap::new();
        for line in self.cluster.peers {
            let peer = node_id("cluster.peers.id", line.id)?;
            if !line.peer.rsplit_once(':').is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok_and(|p| p > 0))
            {
                return Err(ConfigError(format!("cluster.peers.peer is {:?}: write host:port", line.peer)));
            }
            if peer == id {
                return Err(ConfigError(format!(
                    "cluster.peers names node {peer}, which is this node by node.id: name the others there, and give each node an id of its own"
                )));
            }
            if peers.insert(peer, line.peer).is_some() {
                return Err(ConfigError(format!("cluster.peers names node {peer} twice: keep one line")));
            }
        }
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        if self.tls.hostname.is_empty() || !self.tls.hostname.bytes().all(named) {
            return Err(ConfigError(format!(
                "tls.hostname is {:?}: write the server's name, such as mail.example.org",
                self.tls.hostname
            )));
        }
        if self.tls.certificates.is_empty() {
            return Err(ConfigError(
                "tls.certificates is empty: name at least one certificate_file and key_file".into(),
            ));
        }
        if !self.admin.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "admin.listen is {}: the admin server speaks no TLS, so bind it to 127.0.0.1 and reach it through a tunnel",
                self.admin.listen
            )));
        }
        let json = match self.log.format.as_str() {
            "text" => false,
            "json" => true,
            other => return Err(ConfigError(format!("log.format is {other:?}: choose \"text\" or \"json\""))),
        };
        check_level(&self.log.level)?;
        let used = [RootKeyUse::Always, RootKeyUse::AtHome].into_iter().find(|used| used.as_str() == self.keys.used);
        let used = used.ok_or_else(|| {
            ConfigError(format!("keys.use is {:?}: choose \"always\" or \"at_home\"", self.keys.used))
        })?;
        let listen = &self.listen;
        one_listener_at_each([
            ("peer.listen", Some(self.peer.listen)),
            ("admin.listen", Some(self.admin.listen)),
            ("listen.smtp", listen.smtp),
            ("listen.submission", listen.submission),
            ("listen.submissions", listen.submissions),
            ("listen.imap", listen.imap),
            ("listen.imaps", listen.imaps),
            ("listen.pop3", listen.pop3),
            ("listen.pop3s", listen.pop3s),
            ("listen.https", listen.https),
        ])?;
        let sender_auth = self.sender_auth.check(&self.tls.hostname)?;
        let outbound = self.outbound.check()?;
        let reports = self.reports.check(outbound.enabled)?;
        let mta_sts = self.mta_sts.check(&self.tls.hostname)?;
        let limits = self.limits;
        let quota_bytes = match limits.quota_bytes {
            0 => None,
            bytes => Some(within("limits.quota_bytes", bytes, 1 << 20, 1 << 50)?),
        };
        Ok(Config {
            data_dir: self.data_dir,
            node: Node {
                id,
                name: self.node.name.unwrap_or_else(|| format!("node{id}")),
                region: self.node.region,
                zone: self.node.zone,
                fence_command: self.node.fence_command,
            },
            cluster: Cluster {
                id: cluster_id,
                partitions: within("cluster.partitions", self.cluster.partitions, 1, 1_024)?,
                peers,
            },
            keys: Keys { root_key_file: self.keys.root_key_file, used },
            peer: Peer {
                listen: self.peer.listen,
                ca_file: self.peer.ca_file,
                certificate_file: self.peer.certificate_file,
                key_file: self.peer.key_file,
                revoked_file: self.peer.revoked_file,
            },
            tls: Tls {
                hostname: self.tls.hostname,
                certificates: self
                    .tls
                    .certificates
                    .into_iter()
                    .map(|c| Certificate { certificate_file: c.certificate_file, key_file: c.key_file })
                    .collect(),
            },
            listen: Listen {
                smtp: self.listen.smtp,
                submission: self.listen.submission,
                submissions: self.listen.submissions,
                imap: self.listen.imap,
                imaps: self.listen.imaps,
                pop3: self.listen.pop3,
                pop3s: self.listen.pop3s,
                https: self.listen.https,
            },
            admin: Admin { listen: self.admin.listen, token_file: self.admin.token_file },
            sender_auth,
            outbound,
            reports,
            mta_sts,
            limits: Limits {
                max_message_bytes: within("limits.max_message_bytes", limits.max_message_bytes, 64 << 10, 256 << 20)?,
                sessions: within("limits.sessions", limits.sessions, 1, 1_000_000)?,
                sessions_per_address: within("limits.sessions_per_address", limits.sessions_per_address, 1, 1_000_000)?,
                strangers_percent: within("limits.strangers_percent", limits.strangers_percent, 1, 100)?,
                strangers_per_address: within(
                    "limits.strangers_per_address",
                    limits.strangers_per_address,
                    1,
                    1_000_000,
                )?,
                login_max: Duration::from_secs(within("limits.login_seconds", limits.login_seconds, 10, 3_600)?),
                messages: within("limits.messages", limits.messages, 1, 1_000_000)?,
                messages_per_address: within("limits.messages_per_address", limits.messages_per_address, 1, 1_000_000)?,
                message_bytes_per_second: within(
                    "limits.message_bytes_per_second",
                    limits.message_bytes_per_second,
                    1,
                    1 << 20,
                )?,
                message_max: Duration::from_secs(within("limits.message_seconds", limits.message_seconds, 60, 86_400)?),
                actors: within("limits.actors", limits.actors, 16, 1_000_000)?,
                low_water_percent: within("limits.low_water_percent", limits.low_water_percent, 0, 90)?,
                low_water_bytes: within("limits.low_water_bytes", limits.low_water_bytes, 64 << 20, 1 << 50)?,
                spool_bytes: within("limits.spool_bytes", limits.spool_bytes, 16 << 20, 1 << 40)?,
                quota_bytes,
                body_memory_bytes: within("limits.body_memory_bytes", limits.body_memory_bytes, 16 << 20, 64 << 30)?,
                auth_parallel: within("limits.auth_parallel", limits.auth_parallel, 1, 64)?,
                memory_bytes: match limits.memory_bytes {
                    0 => 0,
                    bytes => within("limits.memory_bytes", bytes, 256 << 20, 1 << 50)?,
                },
            },
            storage: Storage {
                log_keep: within("storage.log_keep", self.storage.log_keep, 1, 10_000_000)?,
                flush_interval: Duration::from_millis(within(
                    "storage.flush_interval_ms",
                    self.storage.flush_interval_ms,
                    100,
                    600_000,
                )?),
                snapshot_bytes_per_second: within(
                    "storage.snapshot_bytes_per_second",
                    self.storage.snapshot_bytes_per_second,
                    1 << 20,
                    10 << 30,
                )?,
                region_snapshot_bytes_per_second: within(
                    "storage.region_snapshot_bytes_per_second",
                    self.storage.region_snapshot_bytes_per_second,
                    64 << 10,
                    10 << 30,
                )?,
                region_log_keep_bytes: within(
                    "storage.region_log_keep_bytes",
                    self.storage.region_log_keep_bytes,
                    16 << 20,
                    1 << 50,
                )?,
                // Never less than the day in which a delivery is recognised by its content.
                results_kept: Duration::from_secs(
                    3_600 * within("storage.results_kept_hours", self.storage.results_kept_hours, 25, 24 * 366)?,
                ),
                scrub_every: Duration::from_secs(
                    3_600 * within("storage.scrub_every_hours", self.storage.scrub_every_hours, 1, 24 * 366)?,
                ),
            },
            log: Log { json, level: self.log.level, mask_addresses: self.log.mask_addresses },
        })
    }
}
