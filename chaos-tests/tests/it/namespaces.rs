//! Mail to other servers from a network of its own, with public addresses of both families, hosts that are silent, and such as no way
//! leads to. It takes a machine on which network namespaces can be made; without them the test says so and tries nothing.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::name_server::{NameServer, Record};
use mailraft_chaos::other_server::OtherServer;
use serde_json::Value;

use super::sending::{of_subject, submit};

/// A silent host is waited for so long.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Set for the process that runs in the namespace.
const INSIDE: &str = "MAILRAFT_TEST_INSIDE";
/// Addresses of servers that are there, of the namespace's own.
const THERE_4: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 25);
const THERE_6: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0x25);
/// What is sent there gets lost in another namespace.
const SILENT_4: Ipv4Addr = Ipv4Addr::new(11, 0, 9, 1);
const SILENT_6: Ipv6Addr = Ipv6Addr::new(0x2a00, 9, 0, 0, 0, 0, 0, 1);
/// No way leads there.
const NO_WAY_6: Ipv6Addr = Ipv6Addr::new(0x2a00, 8, 0, 0, 0, 0, 0, 1);

/// A namespace that hears packets and passes none on, as long as this is there.
struct Silence(Child);

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn mail_goes_by_ipv6_first_and_past_hosts_that_are_silent_which_keep_no_other_waiting() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let can = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("skipped: no network namespace can be made here; that takes root, unshare and ip");
        return;
    }
    let name = "namespaces::mail_goes_by_ipv6_first_and_past_hosts_that_are_silent_which_keep_no_other_waiting";
    let this = std::env::current_exe().unwrap();
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(this).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let done = inside.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Gives this namespace its addresses, and ways that end in another one.
fn network() -> Silence {
    ip("link set lo up");
    ip(&format!("address add {THERE_4}/32 dev lo"));
    ip(&format!("address add {THERE_6}/128 dev lo nodad"));
    let silence = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
    let silence = Silence(silence);
    let of_it = silence.0.id();
    ip("link add here type veth peer name there");
    // It has its own namespace only once it runs.
    let begun = Instant::now();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    while namespace(&of_it.to_string()).ok() == namespace("self").ok() {
        assert!(begun.elapsed().as_secs() < 10, "no namespace");
        std::thread::yield_now();
    }
    ip(&format!("link set there netns {of_it}"));
    ip("address add 10.255.0.1/24 dev here");
    ip("address add fd00::1/64 dev here nodad");
    ip("link set here up");
    let inside = |words: &str| {
        let net = format!("--net=/proc/{of_it}/ns/net");
        let done = Command::new("nsenter").arg(net).arg("ip").args(words.split(' ')).output().unwrap();
        assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
    };
    inside("address add 10.255.0.2/24 dev there");
    inside("address add fd00::2/64 dev there nodad");
    inside("link set there up");
    // What arrives for others is dropped: nothing is forwarded where nobody said so.
    ip("route add 11.0.9.0/24 via 10.255.0.2");
    ip("-6 route add 2a00:9::/32 via fd00::2");
    ip("-6 route add unreachable 2a00:8::/32");
    silence
}

fn inside() {
    let _silence = network();
    let dns = NameServer::start().unwrap();
    let six = OtherServer::start_at((THERE_6, 0).into()).unwrap();
    let four = OtherServer::start_at((THERE_4, six.address().port()).into()).unwrap();
    let hosts = |name: &str, addresses: &[Record]| dns.set(name, addresses);
    hosts("both", &[Record::A(THERE_4), Record::Aaaa(THERE_6)]);
    hosts("old", &[Record::A(THERE_4)]);
    hosts("silent6", &[Record::Aaaa(SILENT_6), Record::A(THERE_4)]);
    hosts("noway6", &[Record::Aaaa(NO_WAY_6), Record::A(THERE_4)]);
    hosts("silent", &[Record::A(SILENT_4)]);
    for (domain, exchanges) in [
        ("both.test", &["both"][..]),
        ("noway6.test", &["noway6"]),
        ("silent6.test", &["silent6"]),
        ("second.test", &["silent", "old"]),
        ("gone.test", &["silent"]),
        ("last.test", &["both"]),
    ] {
        let exchanges: Vec<Record> =
            (1..).zip(exchanges).map(|(preference, host)| Record::Mx(preference, (*host).to_owned())).collect();
        dns.set(domain, &exchanges);
    }
    // As it is in the world: addresses of this machine and of private networks are none to send to.
    let cluster = Cluster::start_new(|text| {
        text.replace("resolvers = []", &format!("resolvers = [\"{}\"]", dns.address()))
            .replace("enabled = false", "enabled = true")
            .replace("port = 25 ", &format!("port = {} ", six.address().port()))
    });
    let account = cluster.account(0);
    let send = |domain: &str| submit(&cluster, &account, &format!("r@{domain}"), domain, "x");
    let gone = send("gone.test");
    for domain in ["silent6.test", "second.test", "both.test", "noway6.test"] {
        send(domain);
    }
    // None of them waits for those that are silent.
    let begun = Instant::now();
    cluster.wait("it goes by IPv6, or past where no way leads to", |_| {
        of_subject(&six.taken(), "both.test").len() == 1 && of_subject(&four.taken(), "noway6.test").len() == 1
    });
    send("last.test");
    cluster.wait("so does what comes later", |_| of_subject(&six.taken(), "last.test").len() == 1);
    assert!(begun.elapsed() < CONNECT_MAX, "it waited for a silent host");
    cluster.wait("others go to the next address, or to the next host", |_| {
        ["silent6.test", "second.test"].iter().all(|subject| of_subject(&four.taken(), subject).len() == 1)
    });
    cluster.wait("what only a silent host takes is tried again", |cluster| {
        let shown = cluster.get(1, &format!("/api/v1/queue/{gone}")).unwrap_or_default();
        let shown: Value = serde_json::from_str(&shown).unwrap_or_default();
        let recipient = &shown["recipients"][0];
        recipient["state"] == "deferred"
            && recipient["last_attempt"]["said"].as_str().is_some_and(|said| said.contains("did not answer within 30s"))
    });
    assert_eq!((six.count(), four.count()), (2, 3));
}
