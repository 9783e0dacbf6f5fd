//! Zones, some of them signed, and a resolver on loopback that validates them: unbound, which has the zones itself and asks
//! nobody else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::PATIENCE;

use super::programs::{Running, done, program};

/// A zone.
pub struct Zone {
    /// Its name.
    pub name: &'static str,
    /// How far it is signed.
    pub signed: Signed,
    /// Its records but for SOA and NS, as a zone file has them.
    pub records: String,
}

/// How far a zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// By the key that the resolver knows.
    Rightly,
    /// By another key than the one that the resolver knows.
    Wrongly,
    /// Not at all.
    Not,
}

/// A resolver with zones.
pub struct Resolver {
    dir: PathBuf,
    at: SocketAddr,
    unbound: Running,
}

impl Resolver {
    /// One at this address that has these.
    pub fn start(dir: &Path, address: Ipv4Addr, zones: &[Zone]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let at = UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap();
        let (mut of_zones, mut anchors) = (String::new(), String::new());
        for zone in zones {
            let Zone { name, signed, records } = zone;
            let file = write(dir, name, records);
            let file = match signed {
                Signed::Not => file,
                Signed::Rightly | Signed::Wrongly => {
                    let key = new_key(dir, name);
                    sign(dir, name, &key);
                    std::fs::write(dir.join(format!("{name}.key-file")), &key).unwrap();
                    let known = if *signed == Signed::Rightly { key } else { new_key(dir, name) };
                    anchors += &format!("  trust-anchor-file: \"{known}.ds\"\n");
                    dir.join(format!("{name}.signed"))
                }
            };
            of_zones += &format!(
                "auth-zone:\n  name: \"{name}\"\n  zonefile: \"{}\"\n  for-downstream: no\n  for-upstream: yes\n  fallback-enabled: no\n",
                file.display()
            );
        }
        let config = format!(
            "server:\n  directory: \"{dir}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"{dir}/pid\"\n  use-syslog: no\n  \
             interface: {ip}@{port}\n  do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n  \
             module-config: \"validator iterator\"\n  local-zone: \"test.\" nodefault\n  num-threads: 1\n{anchors}\
             remote-control:\n  control-enable: no\n{of_zones}",
            dir = dir.display(),
            ip = at.ip(),
            port = at.port()
        );
        std::fs::write(dir.join("unbound.conf"), config).unwrap();
        let mut unbound = program("unbound");
        unbound.args(["-d", "-c"]).arg(dir.join("unbound.conf"));
        let unbound = Running::start(&mut unbound, &dir.join("unbound.log"));
        let resolver = Resolver { dir: dir.to_owned(), at, unbound };
        resolver.wait_until_it_answers();
        resolver
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Gives a signed zone other records.
    pub fn change(&self, name: &str, records: &str) {
        write(&self.dir, name, records);
        let key = std::fs::read_to_string(self.dir.join(format!("{name}.key-file"))).unwrap();
        sign(&self.dir, name, &key);
        self.unbound.reload();
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // SOA of plain.test, recursion desired.
        let question = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05plain\x04test\x00\x00\x06\x00\x01";
        let begun = Instant::now();
        let mut answer = [0; 512];
        loop {
            // It is refused while nobody listens.
            let asked = socket.send_to(question, self.at).and_then(|_| socket.recv(&mut answer));
            // Without an error, and with an answer.
            if asked.is_ok_and(|length| length > 12 && answer[3] & 15 == 0 && answer[7] > 0) {
                return;
            }
            let log = std::fs::read_to_string(self.dir.join("unbound.log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "unbound does not answer: {log}");
        }
    }
}

fn write(dir: &Path, name: &str, records: &str) -> PathBuf {
    let path = dir.join(name);
    let head = format!("$ORIGIN {name}.\n$TTL 60\n@ SOA ns root 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n");
    std::fs::write(&path, head + records).unwrap();
    path
}

/// The path of a new key, without its ending.
fn new_key(dir: &Path, name: &str) -> String {
    let made = done(program("ldns-keygen").args(["-a", "ECDSAP256SHA256", "-k", name]).current_dir(dir));
    dir.join(made.trim()).display().to_string()
}

fn sign(dir: &Path, name: &str, key: &str) {
    done(program("ldns-signzone").args(["-n", name, key]).current_dir(dir));
}
