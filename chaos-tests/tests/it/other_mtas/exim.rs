//! An Exim of the bed's own: it takes mail for its domains into one folder, and sends the rest to the cluster, in chunks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::certificates::Certificate;
use super::programs::{Running, exim, give};

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

/// A running Exim; killed when dropped.
pub struct Exim {
    dir: PathBuf,
    _running: Running,
}

impl Exim {
    /// Starts one.
    pub fn start(dir: &Path, told: &Told<'_>) -> Self {
        let program = exim().unwrap();
        std::fs::create_dir_all(dir.join("spool")).unwrap();
        give("Debian-exim", dir);
        let nodes: Vec<String> = told.nodes.iter().map(|node| node.replace(':', "::")).collect();
        let config = format!(
            "exim_path = {program}\nprimary_hostname = mx.exim.plain.test\nspool_directory = {dir}/spool\n\
             log_file_path = {dir}/%slog\nexim_user = Debian-exim\nexim_group = Debian-exim\nlocal_interfaces = {ip}\n\
             daemon_smtp_ports = {port}\ntls_advertise_hosts = *\ntls_certificate = {chain}\ntls_privatekey = {key}\n\
             acl_smtp_rcpt = rcpt\nacl_smtp_data = accept\nlog_selector = +all\nkeep_environment =\nnever_users =\n\
             domainlist ours = *.plain.test : *.signed.test\nbegin acl\nrcpt:\n  \
             defer message = 4.2.0 come again later\n    local_parts = ^later\n    \
             condition = ${{if !exists{{{dir}/relents}}}}\n  \
             deny message = 5.1.1 there is nobody of this name\n    local_parts = ^never\n  \
             warn local_parts = ^slow\n    delay = 3s\n  accept\n\
             begin routers\nhere:\n  driver = accept\n  domains = +ours\n  transport = folder\n\
             out:\n  driver = manualroute\n  route_list = * {nodes}\n  self = send\n  transport = smtp\n\
             begin transports\nfolder:\n  driver = appendfile\n  maildir_format\n  directory = {dir}/mail\n  \
             create_directory\n  envelope_to_add\n  user = Debian-exim\n  group = Debian-exim\n\
             smtp:\n  driver = smtp\n  hosts_require_tls = *\n  tls_verify_certificates = {authority}\n  \
             tls_verify_hosts = *\n  tls_verify_cert_hostnames =\nbegin retry\n* * F,1h,1s\n",
            program = program.display(),
            dir = dir.display(),
            ip = told.at.ip(),
            port = told.at.port(),
            chain = told.certificate.chain.display(),
            key = told.certificate.key.display(),
            authority = told.nodes_authority.display(),
            nodes = nodes.join(":"),
        );
        // Exim reads no configuration that anybody but root could have written.
        std::fs::write(dir.join("conf"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-bdf", "-q1s", "-C"]).arg(dir.join("conf")).arg("-oP").arg(dir.join("pid")).current_dir("/");
        let running = Running::start(&mut command, &dir.join("says"));
        Exim { dir: dir.to_owned(), _running: running }
    }

    /// Where the mail that it took is.
    pub fn folder(&self) -> PathBuf {
        self.dir.join("mail/new")
    }

    /// From now on it takes what it refused for now.
    pub fn relent(&self) {
        std::fs::write(self.dir.join("relents"), "").unwrap();
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("mainlog")).unwrap_or_default()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Exim's log\n{}", self.log());
        }
    }
}
