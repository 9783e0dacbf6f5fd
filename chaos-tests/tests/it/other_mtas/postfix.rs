//! A Postfix of the bed's own: it takes mail for its domains into one folder, and sends the rest to the cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::certificates::Certificate;
use super::programs::{done, give, program};

/// The services of Postfix that take, keep and send mail.
const SERVICES: &str = "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 1 1 qmgr\n\
    tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
    defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nflush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\n\
    smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nerror unix - - n - - error\nretry unix - - n - - error\n\
    discard unix - - n - - discard\nvirtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\n\
    postlog unix-dgram n - n - 1 postlogd\n";

/// What it is told.
pub struct Told<'a> {
    /// Where it listens.
    pub at: SocketAddr,
    /// Its own certificate.
    pub certificate: &'a Certificate,
    /// The nodes' ports for mail.
    pub nodes: &'a [String],
    /// The authority by which it knows the nodes.
    pub nodes_authority: &'a Path,
}

/// A running Postfix; stopped when dropped.
pub struct Postfix {
    dir: PathBuf,
}

impl Postfix {
    /// Starts one.
    pub fn start(dir: &Path, told: &Told<'_>) -> Self {
        let at = |below: &str| dir.join(below);
        for below in ["conf", "queue", "data", "mail"] {
            std::fs::create_dir_all(at(below)).unwrap();
        }
        give("postfix", &at("data"));
        give("nobody", &at("mail"));
        let bracketed =
            |node: &String| node.rsplit_once(':').map(|(host, port)| format!("[{host}]:{port}")).unwrap_or_default();
        let nodes: Vec<String> = told.nodes.iter().map(bracketed).collect();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {dir}/queue\ndata_directory = {dir}/data\nmaillog_file_prefixes = {dir}\n\
             maillog_file = {dir}/log\nmyhostname = mx.postfix.plain.test\nmydestination =\nmynetworks = 127.0.0.1/32\n\
             inet_protocols = ipv4\nalias_maps =\nalias_database =\nsmtpd_tls_security_level = may\n\
             smtpd_tls_chain_files = {key}, {chain}\nsmtpd_tls_loglevel = 1\nsmtpd_tls_received_header = yes\n\
             virtual_mailbox_domains = regexp:{dir}/conf/ours\nvirtual_mailbox_maps = static:all/\n\
             virtual_mailbox_base = {dir}/mail\nvirtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
             smtpd_recipient_restrictions = check_recipient_access regexp:{dir}/conf/recipients\n\
             smtp_tls_security_level = secure\nsmtp_tls_secure_cert_match = localhost\nsmtp_tls_CAfile = {authority}\n\
             smtp_tls_loglevel = 1\nsmtp_destination_concurrency_limit = 4\nminimal_backoff_time = 1s\n\
             maximal_backoff_time = 2s\nqueue_run_delay = 1s\ntransport_retry_time = 1s\nrelayhost = {first}\n\
             smtp_fallback_relay = {others}\n",
            dir = dir.display(),
            key = told.certificate.key.display(),
            chain = told.certificate.chain.display(),
            authority = told.nodes_authority.display(),
            first = nodes[0],
            others = nodes[1..].join(" "),
        );
        std::fs::write(at("conf/main.cf"), main).unwrap();
        std::fs::write(at("conf/ours"), "/\\.(signed|plain|bogus)\\.test$/ x\n").unwrap();
        std::fs::write(at("conf/recipients"), "/^never/ 550 5.1.1 there is nobody of this name\n").unwrap();
        std::fs::write(at("conf/master.cf"), format!("{} inet n - n - - smtpd\n{SERVICES}", told.at)).unwrap();
        let postfix = Postfix { dir: dir.to_owned() };
        postfix.command("start");
        postfix
    }

    fn command(&self, what: &str) {
        done(program("postfix").arg("-c").arg(self.dir.join("conf")).arg(what));
    }

    /// Where the mail that it took is.
    pub fn folder(&self) -> PathBuf {
        self.dir.join("mail/all/new")
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Postfix's log\n{}", self.log());
        }
        let _ = program("postfix").arg("-c").arg(self.dir.join("conf")).arg("stop").status();
    }
}
