//! The file that quickstart writes: every key with a comment.

use std::path::Path;

/// What quickstart fills in.
pub struct Rendered<'a> {
    /// The node's number.
    pub id: u64,
    /// The cluster's id in hexadecimal.
    pub cluster: &'a str,
    /// Mail partitions.
    pub partitions: u32,
    /// Other nodes: number and host:port.
    pub peers: &'a [(u64, String)],
    /// The node's own directory with its keys.
    pub dir: &'a Path,
    /// The cluster's certificate authority.
    pub ca_file: &'a Path,
    /// The admin token.
    pub token_file: &'a Path,
    /// The first port of this node; services add their well-known numbers.
    pub base_port: u16,
}

/// The text of the file.
pub fn render(r: &Rendered<'_>) -> String {
    let dir = r.dir.display();
    let port = |offset: u16| r.base_port + offset;
    let peers: String = r.peers.iter().map(|(id, peer)| format!("  {{ id = {id}, peer = \"{peer}\" }},\n")).collect();
    format!(
        r#"# Mailraft node. After a change restart the node. Certificates and [limits] also take effect on SIGHUP; the log
# says what needs a restart.

# Everything the node keeps. Belongs to one node of one cluster.
data_dir = "{dir}/data"

[node]
id = {id}                 # the node's number, never used again for another
name = "node{id}"         # for people
region = "home"           # a failure domain far from others
zone = ""                 # a site within the region

[cluster]
id = "{cluster}"          # the same on every node
partitions = {partitions} # fixed when the cluster was created
# The other nodes, as they are reached from here.
peers = [
{peers}]

[keys]
# 64 hexadecimal digits, the same on every node. Without it nothing can be read: keep a copy elsewhere.
root_key_file = "{dir}/root.key"

[peer]
# Other nodes connect here; mutual TLS 1.3 with certificates of the cluster's own authority.
listen = "127.0.0.1:{peer}"
ca_file = "{ca}"
certificate_file = "{dir}/peer.pem"
key_file = "{dir}/peer.key"

[tls]
hostname = "localhost"    # what the server calls itself
# Towards mail programs and other servers. An RSA certificate may follow an ECDSA one.
certificates = [
  {{ certificate_file = "{dir}/mail.pem", key_file = "{dir}/mail.key" }},
]

[listen]
# Leave a line out to switch the service off.
smtp = "127.0.0.1:{smtp}"              # from other servers
submission = "127.0.0.1:{submission}"  # from mail programs, STARTTLS
submissions = "127.0.0.1:{submissions}" # from mail programs, TLS
imap = "127.0.0.1:{imap}"              # STARTTLS
imaps = "127.0.0.1:{imaps}"            # TLS

[admin]
listen = "127.0.0.1:{admin}"           # health, metrics, API; on loopback only
token_file = "{token}"

[limits]
max_message_bytes = 52428800           # the longest message
sessions = 10000                       # sessions on this node
sessions_per_address = 1000            # of them from one address
actors = 20000                         # mailboxes in memory at once
# quota_bytes = 10737418240            # mail in one mailbox; without the line no limit
body_memory_bytes = 268435456          # memory for messages on their way in
auth_parallel = 2                      # password checks at once; each takes 19 MiB

[storage]
log_keep = 50000                       # entries kept for a follower that is behind; past it, a snapshot
flush_interval_ms = 5000               # how often applied rows are flushed
snapshot_bytes_per_second = 100000000  # the rate of one snapshot
results_kept_hours = 48                # results of commands, for who asks again; 25 at least

[log]
format = "text"                        # or "json"
level = "info"                         # error, warn, info, debug, trace, or a filter such as mailraft_driver=debug
"#,
        id = r.id,
        cluster = r.cluster,
        partitions = r.partitions,
        peer = port(700),
        ca = r.ca_file.display(),
        token = r.token_file.display(),
        smtp = port(25),
        submission = port(587),
        submissions = port(465),
        imap = port(143),
        imaps = port(993),
        admin = port(80),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn text() -> String {
        render(&Rendered {
            id: 2,
            cluster: &"ab".repeat(16),
            partitions: 16,
            peers: &[(1, "127.0.0.1:10700".into()), (3, "127.0.0.1:12700".into())],
            dir: Path::new("/d/node2"),
            ca_file: Path::new("/d/ca.pem"),
            token_file: Path::new("/d/token"),
            base_port: 11_000,
        })
    }

    #[test]
    fn what_quickstart_writes_loads() {
        let config = Config::parse(&text()).unwrap();
        assert_eq!(config.cluster.peers.len(), 2);
        assert_eq!(config.listen.imaps.map(|a| a.port()), Some(11_993));
        assert!(config.needs_restart(&config).is_empty());
    }

    #[test]
    fn errors_name_the_key_and_the_fix() {
        for (from, to, said) in [
            ("auth_parallel = 2 ", "auth_parallel = 0 ", "limits.auth_parallel is 0: choose between 1 and 64"),
            ("results_kept_hours = 48 ", "results_kept_hours = 24 ", "storage.results_kept_hours is 24"),
            ("auth_parallel = 2 ", "auth_paralell = 2 ", "auth_paralell"),
            ("partitions = 16", "partitions = 0", "cluster.partitions is 0"),
            ("format = \"text\"", "format = \"xml\"", "log.format is \"xml\": choose"),
            ("listen = \"127.0.0.1:11080\"", "listen = \"0.0.0.0:11080\"", "admin.listen is 0.0.0.0:11080"),
            ("peer = \"127.0.0.1:12700\"", "peer = \"nowhere\"", "cluster.peers.peer is \"nowhere\": write host:port"),
        ] {
            let changed = text().replace(from, to);
            assert_ne!(changed, text(), "{from}");
            let error = Config::parse(&changed).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(said), "{error:?} does not say {said:?}");
        }
    }
}
