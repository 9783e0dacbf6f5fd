//! What several recipients cost, and mail to another server: beside a Postfix of this machine that sends the same to the same
//! server, and with many messages that wait.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::{Account, Cluster};
use crate::name_server::{NameServer, Record};
use crate::other_server::OtherServer;
use crate::smtp::{Smtp, SmtpReply};
use crate::wire::Trust;

use super::{MESSAGE_BYTES, create_accounts, failovers, leads_again, message, ms, print_failovers, quantile};

/// Connections that submit at once.
const CONNECTIONS: usize = 16;
/// Messages to one, ten and a hundred recipients.
const TO_SEVERAL: [(usize, usize); 3] = [(1, 1_000), (10, 200), (100, 40)];
/// Everything is to be done within this.
const PATIENCE: Duration = Duration::from_secs(900);
/// Postfix's services that take and send mail.
const POSTFIX_SERVICES: &str = "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
    tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
    defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\n\
    relay unix - - n - - smtp\nerror unix - - n - - error\nretry unix - - n - - error\nanvil unix - - n - 1 anvil\n\
    scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n";

/// Prints all figures: with so many messages to another server, and so many that wait.
///
/// # Errors
/// If a client can't do what it should.
///
/// # Panics
/// If the cluster can't be started.
pub fn run(messages: usize, queued: usize, kills: usize) -> Result<(), String> {
    let (dns, other) = started().map_err(|e| e.to_string())?;
    let resolvers = format!("resolvers = [\"{}\"]", dns.address());
    let port = format!("port = {} ", other.address().port());
    let mut cluster = Cluster::start_new(|text| {
        text.replace("resolvers = []", &resolvers)
            .replace("enabled = false", "enabled = true")
            .replace("private_addresses = false", "private_addresses = true")
            .replace("account_recipients_per_hour = 1000", "account_recipients_per_hour = 0")
            .replace("port = 25 ", &port)
    });
    super::print_disk(&cluster)?;
    let accounts = create_accounts(&cluster);
    to_several(&cluster, &accounts)?;
    to_another_server(&cluster, &accounts, &other, messages)?;
    if queued == 0 { Ok(()) } else { many_wait(&mut cluster, &accounts, &other, queued, kills) }
}

fn started() -> io::Result<(NameServer, OtherServer)> {
    let (dns, other) = (NameServer::start()?, OtherServer::start()?);
    dns.set("away.test", &[Record::Mx(10, "mx.away.test".to_owned())]);
    dns.set("mx.away.test", &[Record::A(Ipv4Addr::LOCALHOST)]);
    Ok((dns, other))
}

/// Messages to several mailboxes, one connection: until the answer, and until every mailbox has it.
fn to_several(cluster: &Cluster, accounts: &[Account]) -> Result<(), String> {
    println!("recipients  messages  answer p50 ms  p99 ms  CPU ms/recipient");
    for (recipients, messages) in TO_SEVERAL {
        let mut smtp = login(cluster, 0, &accounts[0])?;
        // An alias stands for more mailboxes than there are accounts: each recipient is one of them with a detail of its own.
        let to: Vec<String> =
            (0..recipients).map(|number| with_detail(&accounts[number % accounts.len()], number)).collect();
        let all: Vec<(&str, &str)> = to.iter().map(|to| (to.as_str(), "")).collect();
        let (cpu, mut taken) = (cluster.cpu_seconds(), Vec::new());
        for count in 0..messages {
            let text = message(&accounts[0].address, recipients, count);
            let begun = Instant::now();
            match smtp.send_to_each((&accounts[0].address, ""), &all, &text) {
                Ok(SmtpReply::Accepted { .. }) => taken.push(begun.elapsed()),
                other => return Err(format!("a message to {recipients} was not taken: {other:?}")),
            }
        }
        until_nothing_waits(cluster)?;
        let cpu_ms = (cluster.cpu_seconds() - cpu) * 1_000.0 / (messages * recipients) as f64;
        let (p50, p99) = (ms(quantile(&taken, 0.5)), ms(quantile(&taken, 0.99)));
        println!("{recipients:>10}  {messages:>8}  {p50:>13.1}  {p99:>6.1}  {cpu_ms:>16.2}");
    }
    Ok(())
}

/// The same messages to the same server, by the cluster and by Postfix.
fn to_another_server(
    cluster: &Cluster,
    accounts: &[Account],
    other: &OtherServer,
    messages: usize,
) -> Result<(), String> {
    println!(
        "{messages} messages of {MESSAGE_BYTES} bytes to another server   messages/s   CPU ms/message   connections"
    );
    let (cpu, begun, before, connections) = (cluster.cpu_seconds(), Instant::now(), other.count(), other.connections());
    submit(cluster, accounts, messages)?;
    until_taken(other, before + messages)?;
    let (took, connections) = (begun.elapsed(), other.connections() - connections);
    until_nothing_waits(cluster)?;
    print_sent("Mailraft, three nodes, signed twice", messages, took, cluster.cpu_seconds() - cpu, connections);
    let Some(postfix) = Postfix::start(other.address()) else {
        println!("no Postfix can be started on this machine: nothing to compare with");
        return Ok(());
    };
    let (cpu, begun, before, connections) =
        (postfix.cpu_seconds()?, Instant::now(), other.count(), other.connections());
    postfix.submit(messages)?;
    until_taken(other, before + messages)?;
    let took = begun.elapsed();
    print_sent("Postfix", messages, took, postfix.cpu_seconds()? - cpu, other.connections() - connections);
    Ok(())
}

fn print_sent(who: &str, messages: usize, took: Duration, cpu_s: f64, connections: u64) {
    let (per_second, cpu_ms) = (messages as f64 / took.as_secs_f64(), cpu_s * 1_000.0 / messages as f64);
    println!("{who:>52}   {per_second:>10.0}   {cpu_ms:>14.2}   {connections:>11}");
}

/// Messages that wait for a server that is down: memory, and failovers beside them.
fn many_wait(
    cluster: &mut Cluster,
    accounts: &[Account],
    other: &OtherServer,
    queued: usize,
    kills: usize,
) -> Result<(), String> {
    other.be_down(true);
    let before = resident_bytes(cluster)?;
    let begun = Instant::now();
    submit(cluster, accounts, queued)?;
    let took = begun.elapsed();
    let grown = resident_bytes(cluster)?.saturating_sub(before);
    println!(
        "{queued} messages wait: taken in {:.0} s, {} MiB more in memory on three nodes",
        took.as_secs_f64(),
        grown >> 20
    );
    let times = failovers(cluster, accounts, kills, &leads_again)?;
    print_failovers(&times);
    Ok(())
}

fn resident_bytes(cluster: &Cluster) -> Result<u64, String> {
    cluster.serving().into_iter().map(|node| cluster.resident_bytes(node).map_err(|e| e.to_string())).sum()
}

fn with_detail(account: &Account, number: usize) -> String {
    let (local, domain) = account.address.split_once('@').unwrap_or((&account.address, ""));
    format!("{local}+{number}@{domain}")
}

fn login(cluster: &Cluster, number: usize, account: &Account) -> Result<Smtp, String> {
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let nodes = cluster.serving();
    let address = cluster.text(nodes[number % nodes.len()], "submissions");
    Smtp::login(&trust, &address, account).map_err(|e| e.to_string())
}

/// Submits so many messages to another domain, over several connections.
fn submit(cluster: &Cluster, accounts: &[Account], messages: usize) -> Result<(), String> {
    let mut workers = Vec::new();
    for number in 0..CONNECTIONS {
        let account = &accounts[number % accounts.len()];
        let (mut smtp, from) = (login(cluster, number, account)?, account.address.clone());
        let mine = messages / CONNECTIONS + usize::from(number < messages % CONNECTIONS);
        workers.push(std::thread::spawn(move || {
            for count in 0..mine {
                match smtp.send(&from, "somebody@away.test", &message(&from, number, count)) {
                    Ok(SmtpReply::Accepted { .. }) => {}
                    other => return Err(format!("a message to another domain was not taken: {other:?}")),
                }
            }
            Ok(())
        }));
    }
    workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a client panicked".to_owned())?)
}

fn until_taken(other: &OtherServer, count: usize) -> Result<(), String> {
    let begun = Instant::now();
    while other.count() < count {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{} messages of {count} came", other.count()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn until_nothing_waits(cluster: &Cluster) -> Result<(), String> {
    let begun = Instant::now();
    while cluster.get(cluster.serving()[0], "/api/v1/queue").ok().is_none_or(|listed| listed.trim() != "[]") {
        if begun.elapsed() > PATIENCE {
            return Err("something still waits".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A Postfix that sends everything to one server; it is stopped when dropped.
struct Postfix {
    /// Where `dir` is; it goes with this.
    _temporary: tempfile::TempDir,
    dir: PathBuf,
    at: SocketAddr,
    source: PathBuf,
}

impl Postfix {
    /// None if there is none on this machine, or it can't be started.
    fn start(to: SocketAddr) -> Option<Self> {
        let temporary = tempfile::tempdir().ok()?;
        // Its own users come in.
        std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o755)).ok()?;
        let dir = temporary.path().join("postfix");
        let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?;
        for below in ["conf", "queue", "data"] {
            std::fs::create_dir_all(dir.join(below)).ok()?;
        }
        let owner = Command::new("chown").arg("postfix").arg(dir.join("data")).status().ok()?;
        let shown = dir.display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {shown}/queue\ndata_directory = {shown}/data\n\
             maillog_file_prefixes = {shown}\nmaillog_file = {shown}/log\nmyhostname = mx.postfix.test\nmydestination =\n\
             mynetworks = 127.0.0.1/32\ninet_protocols = ipv4\nalias_maps =\nalias_database =\nsmtp_tls_security_level = none\n\
             smtpd_tls_security_level = none\nrelayhost = [{}]:{}\ndisable_dns_lookups = yes\n",
            to.ip(),
            to.port()
        );
        std::fs::write(dir.join("conf/main.cf"), main).ok()?;
        std::fs::write(dir.join("conf/master.cf"), format!("{at} inet n - n - - smtpd\n{POSTFIX_SERVICES}")).ok()?;
        let sources = ["/usr/sbin/smtp-source", "/usr/bin/smtp-source"].map(PathBuf::from);
        let source = sources.into_iter().find(|path| path.exists())?;
        let postfix = Postfix { _temporary: temporary, dir, at, source };
        (owner.success() && postfix.command("start")).then_some(postfix)
    }

    fn command(&self, what: &str) -> bool {
        let mut postfix = Command::new("/usr/sbin/postfix");
        postfix.arg("-c").arg(self.dir.join("conf")).arg(what).stdout(Stdio::null()).stderr(Stdio::null());
        postfix.status().is_ok_and(|status| status.success())
    }

    fn submit(&self, messages: usize) -> Result<(), String> {
        let mut source = Command::new(&self.source);
        source.args(["-s", &CONNECTIONS.to_string(), "-m", &messages.to_string(), "-l", &MESSAGE_BYTES.to_string()]);
        source.args(["-f", "somebody@postfix.test", "-t", "somebody@away.test", &format!("inet:{}", self.at)]);
        let status = source.stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("smtp-source ended with {status}")) }
    }

    /// Of its master, of all processes that this has now, and of those that have ended.
    fn cpu_seconds(&self) -> Result<f64, String> {
        let pid = std::fs::read_to_string(self.dir.join("queue/pid/master.pid")).map_err(|e| e.to_string())?;
        let master: u32 = pid.trim().parse().map_err(|_| format!("{pid:?} is no process"))?;
        let mut ticks = ticks_of(master, None).unwrap_or(0);
        for entry in std::fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            ticks += number.and_then(|number| ticks_of(number, Some(master))).unwrap_or(0);
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.command("stop");
    }
}

/// CPU of a process and of those it waited for, if it is a child of this one (proc(5), /proc/PID/stat, fields 4 and 14 to 17).
fn ticks_of(process: u32, parent: Option<u32>) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if parent.is_some_and(|parent| fields.get(1).and_then(|of| of.parse().ok()) != Some(parent)) {
        return None;
    }
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}
