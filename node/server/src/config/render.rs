//! The file that quickstart and `cluster create` write: every key with a comment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::RootKeyUse;

/// What is filled in.
pub struct Rendered<'a> {
    /// The node's number.
    pub id: u64,
    /// Its name for people.
    pub name: &'a str,
    /// Its region.
    pub region: &'a str,
    /// When it reads the root key.
    pub root_key_use: RootKeyUse,
    /// Its zone.
    pub zone: &'a str,
    /// The cluster's id in hexadecimal.
    pub cluster: &'a str,
    /// Mail partitions.
    pub partitions: u32,
    /// Other nodes: number and host:port.
    pub peers: &'a [(u64, String)],
    /// What the server calls itself.
    pub hostname: &'a str,
    /// What is done of what DMARC asks for.
    pub dmarc: &'a str,
    /// `outbound.enabled`.
    pub outbound: bool,
    /// Everything the node keeps.
    pub data_dir: &'a Path,
    /// Where the node's keys and certificates are.
    pub files: Files,
    /// Where it listens.
    pub listens: Listens,
}

/// The node's keys and certificates.
pub struct Files {
    /// The root key.
    pub root_key: PathBuf,
    /// The cluster's certificate authority.
    pub ca: PathBuf,
    /// The node's certificate, towards other nodes.
    pub peer_certificate: PathBuf,
    /// Its key.
    pub peer_key: PathBuf,
    /// The server's certificate, towards clients.
    pub mail_certificate: PathBuf,
    /// Its key.
    pub mail_key: PathBuf,
    /// The admin token.
    pub admin_token: PathBuf,
}

impl Files {
    /// Under their usual names: what is read at the start alone in `secrets`, all others in `dir`.
    pub fn in_dirs(dir: &Path, secrets: &Path) -> Self {
        Files {
            root_key: secrets.join("root.key"),
            ca: dir.join("ca.pem"),
            peer_certificate: dir.join("peer.pem"),
            peer_key: secrets.join("peer.key"),
            mail_certificate: dir.join("mail.pem"),
            mail_key: dir.join("mail.key"),
            admin_token: secrets.join("admin-token"),
        }
    }
}

/// Where a node listens.
#[derive(Clone, Copy)]
pub struct Listens {
    /// Other nodes.
    pub peer: SocketAddr,
    /// SMTP from other servers.
    pub smtp: SocketAddr,
    /// Submission with STARTTLS.
    pub submission: SocketAddr,
    /// Submission over TLS.
    pub submissions: SocketAddr,
    /// IMAP with STARTTLS.
    pub imap: SocketAddr,
    /// IMAP over TLS.
    pub imaps: SocketAddr,
    /// POP3 with STLS.
    pub pop3: SocketAddr,
    /// POP3 over TLS.
    pub pop3s: SocketAddr,
    /// The admin server, on loopback.
    pub admin: SocketAddr,
}

/// A node of a cluster that lives on one machine, on loopback.
pub struct OnLoopback<'a> {
    /// The node's number.
    pub id: u64,
    /// Its region.
    pub region: &'a str,
    /// When it reads the root key.
    pub root_key_use: RootKeyUse,
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

/// The text of the file of a node on loopback.
pub fn render_on_loopback(r: &OnLoopback<'_>) -> String {
    let at = |offset| SocketAddr::from(([127, 0, 0, 1], r.base_port + offset));
    render(&Rendered {
        id: r.id,
        name: &format!("node{}", r.id),
        region: r.region,
        root_key_use: r.root_key_use,
        zone: "",
        cluster: r.cluster,
        partitions: r.partitions,
        peers: r.peers,
        hostname: "localhost",
        // Nobody sends from elsewhere.
        dmarc: "off",
        outbound: false,
        data_dir: &r.dir.join("data"),
        files: Files { ca: r.ca_file.to_owned(), admin_token: r.token_file.to_owned(), ..Files::in_dirs(r.dir, r.dir) },
        listens: Listens {
            peer: at(700),
            smtp: at(25),
            submission: at(587),
            submissions: at(465),
            imap: at(143),
            imaps: at(993),
            pop3: at(110),
            pop3s: at(995),
            admin: at(80),
        },
    })
}

/// The text of the file.
pub fn render(r: &Rendered<'_>) -> String {
    let peers: String = r.peers.iter().map(|(id, peer)| format!("  {{ id = {id}, peer = \"{peer}\" }},\n")).collect();
    format!(
        r#"# Mailraft node. After a change restart the node. Certificates and [limits] also take effect on SIGHUP; the log
# says what needs a restart.

# Everything the node keeps. Belongs to one node of one cluster.
data_dir = "{data_dir}"

[node]
id = {id}                 # the node's number, never used again for another
name = "{name}"         # for people
region = "{region}"           # a failure domain far from others
zone = "{zone}"                 # a site within the region
# Makes sure that the home region is off, before this node's region takes over (mailraft region failover without
# --old-region-is-off). Exit code 0 is that word. MAILRAFT_REGION names the region; it may take 60 s.
# fence_command = ["/usr/local/sbin/fence-home", "--now"]

[cluster]
id = "{cluster}"          # the same on every node
partitions = {partitions} # fixed when the cluster was created
# The other nodes, as they are reached from here.
peers = [
{peers}]

[keys]
# 64 hexadecimal digits, the same on every node. Without it nothing can be read: keep a copy elsewhere.
root_key_file = "{root_key}"
# "at_home": it is not read, and need not be there, while this node's region is the backup of another.
use = "{root_key_use}"

[peer]
# Other nodes connect here; mutual TLS 1.3 with certificates of the cluster's own authority.
listen = "{peer}"
ca_file = "{ca}"
certificate_file = "{peer_certificate}"
key_file = "{peer_key}"
# Certificates of nodes that count no more, the same list on every node: a line for each has what
# `openssl x509 -noout -fingerprint -sha256 -in peer.pem` prints. SIGHUP takes it up, and ends their connections.
# revoked_file = "/etc/mailraft/revoked"

[tls]
hostname = "{hostname}"    # what the server calls itself
# Towards mail programs and other servers. An RSA certificate may follow an ECDSA one.
certificates = [
  {{ certificate_file = "{mail_certificate}", key_file = "{mail_key}" }},
]

[listen]
# Leave a line out to switch the service off.
smtp = "{smtp}"              # from other servers
submission = "{submission}"  # from mail programs, STARTTLS
submissions = "{submissions}" # from mail programs, TLS
imap = "{imap}"              # STARTTLS
imaps = "{imaps}"            # TLS
pop3 = "{pop3}"              # STLS
pop3s = "{pop3s}"            # TLS
# https = "0.0.0.0:443"      # pages for other servers and mail programs

[admin]
listen = "{admin}"           # health, metrics, API; on loopback only
token_file = "{token}"

[sender_auth]
# Mail from other servers is checked: SPF, DKIM, DMARC, ARC, and told in Authentication-Results. "mark" does no more,
# "quarantine" puts in Junk what its author's domain wants quarantined or refused, "reject" refuses what that wants refused,
# "off" checks nothing.
dmarc = "{dmarc}"
# Up to three address:port that answer for the DNS, such as "127.0.0.1:53"; none: those of /etc/resolv.conf.
resolvers = []
# In whose name results are told, the same on every node; without it tls.hostname.
# authserv_id = "mail.example.org"

[outbound]
# Whether accounts may send to other domains than this cluster's. Such mail waits in the cluster until another server has it.
enabled = {outbound}
# Recipients in other domains that an account may send to in an hour, counted by each node for itself; 0 is no limit.
account_recipients_per_hour = 1000
# A server that takes all of it, as "relay.example.org:587"; none: the servers that the DNS names.
smart_host = ""
# "starttls" and "implicit" send nothing without TLS and a certificate for this host that this machine trusts, "opportunistic" does
# without. User and password go together.
smart_host_tls = "starttls"
# smart_host_user = "mailraft"
# smart_host_password_file = "/etc/mailraft/smart-host.password"
# Whether mail may go to addresses of private networks and of this machine, whatever the DNS says.
private_addresses = false
port = 25                              # of other servers

[reports]
# Once a day other domains that ask for it are told how TLS went with their servers (RFC 8460); without this line where
# outbound.enabled is true. The same on every node, like all of this section.
# tls = true
# And who sent this cluster mail in their name, from which addresses, and what became of it (RFC 7489).
dmarc = false
# The address that reports come from, in a domain of this cluster, which signs them; none: postmaster in the domain of tls.hostname.
from = ""
organization = ""                      # who reports; none: the domain of that address
contact = ""                           # the address for questions; none: that one

[mta_sts]
# What other servers are told over listen.https about the TLS of this cluster's servers, for every domain: "off" nothing,
# "testing" that they report failures, "enforce" that they send nothing to a server that is not named here or has no
# certificate that is trusted, "none" that what was told before is over. The same on every node.
mode = "off"
# The servers of MX records, or patterns such as "*.example.org"; none: tls.hostname.
mx = []
max_age_seconds = 604800               # others keep it for so long

[limits]
max_message_bytes = 52428800           # the longest message
sessions = 10000                       # sessions on this node
sessions_per_address = 1000            # of them from one address
strangers_percent = 25                 # of them that nobody has logged in to, of one service (SMTP, submission, IMAP, POP3)
strangers_per_address = 50             # of them that nobody has logged in to, from one address
login_seconds = 120                    # a mail program logs in within this time
messages = 512                         # messages on their way in at once
messages_per_address = 64              # of them from one address
message_bytes_per_second = 1024        # a message that comes more slowly is given up, a minute aside
message_seconds = 3600                 # and one that takes longer
actors = 20000                         # mailboxes in memory at once
low_water_percent = 5                  # with less of its disk free, in hundredths, a node takes no new mail
low_water_bytes = 2147483648           # nor with less than this; the larger of both counts
spool_bytes = 4294967296               # large messages on their way in, on disk
quota_bytes = 10737418240              # mail in one mailbox; 0 is no limit
body_memory_bytes = 268435456          # memory for messages on their way in
auth_parallel = 2                      # password checks at once; each takes 19 MiB
memory_bytes = 0                       # memory of the whole node; 0 is three quarters of what the machine or cgroup has

[storage]
log_keep = 50000                       # entries kept for a follower that is behind; past it, a snapshot
flush_interval_ms = 5000               # how often applied rows are flushed
snapshot_bytes_per_second = 100000000  # the rate of one snapshot
region_snapshot_bytes_per_second = 20000000 # the same to another region, where the link is dearer
region_log_keep_bytes = 4294967296     # log kept for a region that is away; past it, snapshots
results_kept_hours = 48                # results of commands, for who asks again; 25 at least
scrub_every_hours = 168                # in this time every row is read and compared with what was applied

[log]
format = "text"                        # or "json"
level = "info"                         # error, warn, info, debug, trace, or a filter such as mailraft_driver=debug
mask_addresses = true                  # of users' names the log has only the first letter and the domain; also on SIGHUP
"#,
        data_dir = r.data_dir.display(),
        id = r.id,
        name = r.name,
        region = r.region,
        zone = r.zone,
        cluster = r.cluster,
        partitions = r.partitions,
        root_key = r.files.root_key.display(),
        root_key_use = r.root_key_use.as_str(),
        peer = r.listens.peer,
        ca = r.files.ca.display(),
        peer_certificate = r.files.peer_certificate.display(),
        peer_key = r.files.peer_key.display(),
        hostname = r.hostname,
        dmarc = r.dmarc,
        outbound = r.outbound,
        mail_certificate = r.files.mail_certificate.display(),
        mail_key = r.files.mail_key.display(),
        smtp = r.listens.smtp,
        submission = r.listens.submission,
        submissions = r.listens.submissions,
        imap = r.listens.imap,
        imaps = r.listens.imaps,
        pop3 = r.listens.pop3,
        pop3s = r.listens.pop3s,
        admin = r.listens.admin,
        token = r.files.admin_token.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn text() -> String {
        super::super::example()
    }

    #[test]
    fn what_is_written_loads() {
        let config = Config::parse(&text()).unwrap();
        assert_eq!(config.cluster.peers.len(), 2);
        assert_eq!(config.listen.imaps.map(|a| a.port()), Some(11_993));
        assert_eq!(
            (config.listen.pop3.map(|a| a.port()), config.listen.pop3s.map(|a| a.port())),
            (Some(11_110), Some(11_995))
        );
        assert!(config.needs_restart(&config).is_empty());
    }

    #[test]
    fn who_sends_tells_of_tls_unless_that_is_switched_off_and_of_dmarc_only_where_it_is_switched_on() {
        let reports = |text: String| {
            let reports = Config::parse(&text).unwrap().reports;
            (reports.tls, reports.dmarc)
        };
        let sends = text().replace("enabled = false", "enabled = true");
        assert_eq!((reports(text()), reports(sends.clone())), ((false, false), (true, false)));
        assert_eq!(reports(sends.replace("# tls = true", "tls = false")), (false, false));
        assert_eq!(reports(sends.replace("dmarc = false", "dmarc = true")), (true, true));
    }

    #[test]
    fn errors_name_the_key_and_the_fix() {
        for (from, to, said) in [
            ("auth_parallel = 2 ", "auth_parallel = 0 ", "limits.auth_parallel is 0: choose between 1 and 64"),
            ("results_kept_hours = 48 ", "results_kept_hours = 24 ", "storage.results_kept_hours is 24"),
            ("auth_parallel = 2 ", "auth_paralell = 2 ", "auth_paralell"),
            ("dmarc = \"off\"", "dmarc = \"maybe\"", "sender_auth.dmarc is \"maybe\": choose \"off\""),
            ("resolvers = []", "resolvers = [\"dns.test\"]", "resolvers"),
            (
                "# authserv_id = \"mail.example.org\"",
                "authserv_id = \"a b\"",
                "sender_auth.authserv_id is \"a b\": write a host's name",
            ),
            ("mode = \"off\"", "mode = \"on\"", "mta_sts.mode is \"on\": choose"),
            (
                "\"off\"\n# The servers of MX records, or patterns such as \"*.example.org\"; none: tls.hostname.\nmx = []",
                "\"testing\"\nmx = [\"a b\"]",
                "mta_sts.mx is [\"a b\"]: write names of servers",
            ),
            ("from = \"\"", "from = \"nobody\"", "reports.from is \"nobody\""),
            ("contact = \"\" ", "contact = \"a b@c.test\" ", "reports.contact is \"a b@c.test\""),
            ("max_age_seconds = 604800 ", "max_age_seconds = 60 ", "mta_sts.max_age_seconds is 60"),
            ("use = \"always\"", "use = \"never\"", "keys.use is \"never\": choose \"always\" or \"at_home\""),
            ("partitions = 16", "partitions = 0", "cluster.partitions is 0"),
            ("format = \"text\"", "format = \"xml\"", "log.format is \"xml\": choose"),
            ("listen = \"127.0.0.1:11080\"", "listen = \"0.0.0.0:11080\"", "admin.listen is 0.0.0.0:11080"),
            ("level = \"info\"", "level = \"inof\"", "log.level is \"inof\": choose error, warn, info"),
            ("level = \"info\"", "level = \"info,mailraft_server\"", "log.level is"),
            (
                "imaps = \"127.0.0.1:11993\"",
                "imaps = \"127.0.0.1:11143\"",
                "listen.imap and listen.imaps are both at port 11143",
            ),
            (
                "imaps = \"127.0.0.1:11993\"",
                "imaps = \"0.0.0.0:11700\"",
                "peer.listen and listen.imaps are both at port 11700",
            ),
            (
                "pop3s = \"127.0.0.1:11995\"",
                "pop3s = \"127.0.0.1:11110\"",
                "listen.pop3 and listen.pop3s are both at port 11110",
            ),
            ("id = 3, peer", "id = 2, peer", "cluster.peers names node 2, which is this node"),
            ("peer = \"127.0.0.1:12700\"", "peer = \"nowhere\"", "cluster.peers.peer is \"nowhere\": write host:port"),
        ] {
            let changed = text().replace(from, to);
            assert_ne!(changed, text(), "{from}");
            let error = Config::parse(&changed).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(said), "{error:?} does not say {said:?}");
        }
    }
}
