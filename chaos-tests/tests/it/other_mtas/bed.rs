//! A cluster among other mail servers: a Postfix, an Exim, a host of policies, and a resolver that validates.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU8, Ordering};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::other_server::OtherServer;
use tempfile::TempDir;

use super::certificates::Authority;
use super::exim::{self, Exim};
use super::policy_host;
use super::postfix::{self, Postfix};
use super::zones::{Resolver, Signed, Zone};

/// What nobody's certificate has.
const NO_CERTIFICATE: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

/// The bed.
pub struct Bed {
    /// The cluster, which sends by what the resolver says.
    pub cluster: Cluster,
    /// `*.plain.test`, and with TLSA records `*.signed.test`.
    pub postfix: Postfix,
    /// `exim.plain.test`, and with TLSA records `exim.signed.test`.
    pub exim: Exim,
    /// The server of `bare.plain.test` and `bare.signed.test`, which has no TLS.
    pub bare: OtherServer,
    /// What they all ask.
    pub resolver: Resolver,
    /// Where Postfix listens.
    pub postfix_at: SocketAddr,
    /// Where Exim listens.
    pub exim_at: SocketAddr,
    mended: String,
    _dir: TempDir,
}

/// Addresses of a bed's own in the loopback network, so that no two beds meet.
fn addresses() -> [Ipv4Addr; 5] {
    static BEDS: AtomicU8 = AtomicU8::new(0);
    let (process, bed) = (std::process::id(), BEDS.fetch_add(1, Ordering::Relaxed) % 50);
    let address = |host: u8| Ipv4Addr::new(127, 1 + (process / 250 % 250) as u8, (process % 250) as u8, 5 * bed + host);
    [1, 2, 3, 4, 5].map(address)
}

/// A port that is free at these addresses.
fn free_port(addresses: &[Ipv4Addr]) -> u16 {
    loop {
        let port = TcpListener::bind((addresses[0], 0)).unwrap().local_addr().unwrap().port();
        if addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok()) {
            return port;
        }
    }
}

impl Bed {
    /// A new one, whose nodes' configurations may be adjusted.
    pub fn start(adjust: impl Fn(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Other servers' users read what is theirs.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let [of_postfix, of_exim, of_bare, of_policies, of_nobody] = addresses();
        let port = free_port(&[of_postfix, of_exim, of_bare]);
        let at = |address: Ipv4Addr| SocketAddr::new(IpAddr::V4(address), port);

        let authority = Authority::new(&dir.path().join("certificates"));
        let hosts = ["mx.postfix.signed.test", "mx.anchor.signed.test", "mx.sts.plain.test"];
        let postfix_certificate = authority.issue("postfix", &hosts);
        let exim_certificate = authority.issue("exim", &["another.name.test"]);
        let policies_certificate = authority.issue(
            "policies",
            &["sts", "stscert", "stsname"].map(|of| format!("mta-sts.{of}.plain.test")).each_ref().map(String::as_str),
        );
        let tlsa = |host: &str, data: &str| format!("_{port}._tcp.{host} TLSA {data}\n");
        let of_key = postfix_certificate.tlsa_of_key();
        let wrong = format!("wrong MX 10 mx.wrong\nmx.wrong A {of_postfix}\n");
        let signed = format!(
            "{wrong}postfix MX 10 mx.postfix\nmx.postfix A {of_postfix}\n{}anchor MX 10 mx.anchor\nmx.anchor A {of_postfix}\n{}\
             exim MX 10 mx.exim\nmx.exim A {of_exim}\n{}bare MX 10 mx.bare\nmx.bare A {of_bare}\n{}",
            tlsa("mx.postfix", &format!("3 1 1 {of_key}")),
            tlsa("mx.anchor", &format!("2 0 1 {}", authority.tlsa_of_whole())),
            tlsa("mx.exim", &format!("3 1 1 {}", exim_certificate.tlsa_of_key())),
            tlsa("mx.bare", &format!("3 1 1 {of_key}")),
        );
        let zone = |name, signed, records| Zone { name, signed, records };
        let sts = |of: &str, mx: &str| {
            format!("{of} MX 10 {mx}\n_mta-sts.{of} TXT \"v=STSv1; id=1\"\nmta-sts.{of} A {of_policies}\n")
        };
        let plain = format!(
            "postfix MX 10 mx.postfix\nsecond MX 10 mx.postfix\nmx.postfix A {of_postfix}\n{}exim MX 10 mx.exim\n\
             mx.exim A {of_exim}\ntwo MX 5 mx.gone\ntwo MX 10 mx.postfix\nmx.gone A {}\nbare MX 10 mx.bare\nmx.bare A {of_bare}\n\
             mx.sts A {of_postfix}\n{}{}{}",
            tlsa("mx.postfix", &format!("3 1 1 {NO_CERTIFICATE}")),
            of_nobody,
            sts("sts", "mx.sts"),
            sts("stscert", "mx.exim"),
            sts("stsname", "mx.postfix"),
        );
        let bogus = format!("@ MX 10 mx\nmx A {of_postfix}\n");
        let wrong = tlsa("mx.wrong", &format!("3 1 1 {NO_CERTIFICATE}"));
        let resolver = Resolver::start(
            &dir.path().join("zones"),
            of_policies,
            &[
                zone("signed.test", Signed::Rightly, format!("{signed}{wrong}")),
                zone("bogus.test", Signed::Wrongly, bogus),
                zone("plain.test", Signed::Not, plain),
            ],
        );
        let policy = |mx: &str| format!("version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n");
        let policies =
            [("sts", "mx.sts.plain.test"), ("stscert", "mx.exim.plain.test"), ("stsname", "*.elsewhere.test")];
        let policies: BTreeMap<String, String> =
            policies.iter().map(|(of, mx)| (format!("mta-sts.{of}.plain.test"), policy(mx))).collect();
        policy_host::start(SocketAddr::new(of_policies.into(), 443), &policies_certificate, policies).unwrap();

        let resolvers = format!("resolvers = [\"{}\"]", resolver.address());
        let mut cluster = Cluster::start_new(|text| {
            let text = text
                .replace("resolvers = []", &resolvers)
                .replace("enabled = false", "enabled = true")
                .replace("private_addresses = false", "private_addresses = true")
                .replace("port = 25 ", &format!("port = {port} "));
            adjust(text)
        });
        for node in cluster.node_ids() {
            cluster.stop(node);
            cluster.start_trusting(node, &authority.certificate());
        }
        cluster.wait_until_caught_up();

        let nodes: Vec<String> = cluster.node_ids().into_iter().map(|node| cluster.text(node, "smtp")).collect();
        // The cluster's own directory is nobody else's.
        let nodes_authority = dir.path().join("nodes.pem");
        std::fs::copy(cluster.ca_cert(), &nodes_authority).unwrap();
        std::fs::set_permissions(&nodes_authority, PermissionsExt::from_mode(0o644)).unwrap();
        let postfix_told = postfix::Told {
            at: at(of_postfix),
            certificate: &postfix_certificate,
            nodes: &nodes,
            nodes_authority: &nodes_authority,
        };
        let exim_told = exim::Told {
            at: at(of_exim),
            certificate: &exim_certificate,
            nodes: &nodes,
            nodes_authority: &nodes_authority,
        };
        Bed {
            postfix: Postfix::start(&dir.path().join("postfix"), &postfix_told),
            exim: Exim::start(&dir.path().join("exim"), &exim_told),
            bare: OtherServer::start_at(at(of_bare)).unwrap(),
            cluster,
            resolver,
            postfix_at: at(of_postfix),
            exim_at: at(of_exim),
            mended: signed + &tlsa("mx.wrong", &format!("3 1 1 {of_key}")),
            _dir: dir,
        }
    }

    /// What `wrong.signed.test` publishes fits from now on.
    pub fn mend_records(&self) {
        self.resolver.change("signed.test", &self.mended);
    }

    /// For whom Postfix and Exim took a message of this subject: once for each time.
    pub fn recipients(&self, subject: &str) -> Vec<String> {
        let mut recipients: Vec<String> =
            self.all().into_iter().filter(|(of, _)| of == subject).map(|(_, to)| to).collect();
        recipients.sort();
        recipients
    }

    /// What Postfix and Exim took: the subject and the recipient of each copy.
    pub fn all(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for folder in [self.postfix.folder(), self.exim.folder()] {
            let Ok(files) = std::fs::read_dir(folder) else { continue };
            for file in files.flatten() {
                let Ok(text) = std::fs::read(file.path()) else { continue };
                let text = String::from_utf8_lossy(&text).into_owned();
                let field = |name: &str| {
                    let mut lines = text.lines().take_while(|line| !line.is_empty());
                    lines.find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
                };
                let to = field("Delivered-To:").or_else(|| field("Envelope-to:")).unwrap_or_default();
                let subject = field("Subject:").unwrap_or_default();
                all.extend(to.split(", ").map(|one| (subject.clone(), one.to_owned())));
            }
        }
        all
    }

    /// A message of this subject that Postfix or Exim took.
    pub fn read(&self, subject: &str) -> Option<String> {
        let line = format!("\nSubject: {subject}\n");
        let folders = [self.postfix.folder(), self.exim.folder()];
        let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let texts = files.filter_map(|file| std::fs::read(file.path()).ok());
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).find(|text| text.contains(&line))
    }
}
