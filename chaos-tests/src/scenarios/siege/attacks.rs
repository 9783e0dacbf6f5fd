//! What a stranger, or somebody with an account, does to end a node, to fill it, or to keep others waiting. Whatever the
//! server says to it, it goes on.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::{Account, Cluster};
use crate::imap::Imap;
use crate::plain::{Plain, socket_from};
use crate::wire::{Trust, Wire};

const PASSWORD: &str = "it is an attacker's own";
/// Places in the INBOX of the hoarder and of the copier.
const PLACES: usize = 8_192;
/// Between two attempts of one attack.
const PAUSE: Duration = Duration::from_millis(20);

/// What is attacked.
pub(super) struct Target {
    trust: Trust,
    nodes: Vec<Ports>,
    victim: Account,
    /// Has one message in very many places.
    hoarder: Account,
    /// Has as many, and copies them.
    copier: Account,
    /// Has large messages.
    deaf: Account,
    /// Gets strange messages.
    strange: Account,
}

struct Ports {
    smtp: String,
    imap: String,
    imaps: String,
    admin: String,
    peer: String,
}

impl Target {
    /// Makes the attackers' accounts.
    pub(super) fn of(cluster: &Cluster) -> Result<Self, String> {
        let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
        let victim = cluster.account(1);
        let domain = victim.address.split('@').next_back().unwrap_or_default().to_owned();
        let account = |name: &str| {
            let account = Account { address: format!("{name}@{domain}"), password: PASSWORD.into() };
            cluster.mailraft(&["account", "create", &account.address, "--password-stdin"], &format!("{PASSWORD}\n"));
            account
        };
        let nodes = cluster.node_ids().into_iter().map(|node| Ports {
            smtp: cluster.text(node, "smtp"),
            imap: cluster.text(node, "imap"),
            imaps: cluster.text(node, "imaps"),
            admin: cluster.text(node, "admin"),
            peer: cluster.text(node, "peer"),
        });
        let nodes = nodes.collect();
        let target = Target {
            trust,
            nodes,
            victim,
            hoarder: account("hoarder"),
            copier: account("copier"),
            deaf: account("deaf"),
            strange: account("strange"),
        };
        target.fill().map_err(|e| e.to_string())?;
        Ok(target)
    }

    fn fill(&self) -> io::Result<()> {
        for account in [&self.hoarder, &self.copier] {
            let mut session = self.login(0, account)?;
            session.ok("APPEND INBOX {9+}\r\nA: b\r\n\r\nx")?;
            session.ok("SELECT INBOX")?;
            let mut places = 1;
            while places < PLACES {
                session.ok("COPY 1:* INBOX")?;
                places *= 2;
            }
        }
        let mut deaf = self.login(1, &self.deaf)?;
        let text = format!("Subject: large\r\n\r\n{}", "words in a long line of their own\r\n".repeat(20_000));
        for _ in 0..32 {
            deaf.ok(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len()))?;
        }
        Ok(())
    }

    fn node(&self, turn: u64) -> &Ports {
        &self.nodes[turn as usize % self.nodes.len()]
    }

    fn login(&self, turn: u64, account: &Account) -> io::Result<Imap> {
        Imap::login(&self.trust, &self.node(turn).imaps, account)
    }
}

/// One kind of attack, by some threads.
pub(super) struct Attack {
    name: &'static str,
    threads: u64,
    once: fn(&Target, &Turn<'_>) -> io::Result<()>,
    tries: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

/// A try of an attack.
struct Turn<'a> {
    /// Its number.
    number: u64,
    stop: &'a AtomicBool,
}

impl Turn<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// An address of one of ten networks' hosts.
    fn stranger(&self) -> [u8; 4] {
        [127, 0, 9 + (self.number % 10) as u8, 1 + (self.number / 10 % 20) as u8]
    }
}

impl Attack {
    /// All kinds.
    pub(super) fn all() -> Vec<Self> {
        let attack =
            |name, threads, once| Attack { name, threads, once, tries: Arc::default(), refused: Arc::default() };
        vec![
            attack("silent strangers", 4, silent_strangers),
            attack("half-sent messages", 2, half_sent_messages),
            attack("drips", 2, drips),
            attack("flags of very many places before sessions that don't read", 1, flag_storm),
            attack("copies of very many places", 1, copy_storm),
            attack("sessions that don't read", 10, deaf),
            attack("strange messages", 2, strange_messages),
            attack("guesses", 4, guesses),
            attack("recipients that are nobody", 2, probes),
            attack("silence on the ports for nodes and administration", 1, silent_ports),
            attack("garbage", 2, garbage),
        ]
    }

    /// How often it was begun.
    pub(super) fn tries(&self) -> u64 {
        self.tries.load(Ordering::Relaxed)
    }

    /// Begins it; its threads end at `stop`, and with the process.
    pub(super) fn begin(&self, target: &Arc<Target>, stop: &Arc<AtomicBool>) {
        for thread in 0..self.threads {
            let (target, stop, once, threads) = (Arc::clone(target), Arc::clone(stop), self.once, self.threads);
            let (tries, refused) = (Arc::clone(&self.tries), Arc::clone(&self.refused));
            std::thread::spawn(move || {
                let mut number = thread;
                while !stop.load(Ordering::Relaxed) {
                    tries.fetch_add(1, Ordering::Relaxed);
                    if once(&target, &Turn { number, stop: &stop }).is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    number += threads;
                    std::thread::sleep(PAUSE);
                }
            });
        }
    }
}

impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tries, refused) = (self.tries(), self.refused.load(Ordering::Relaxed));
        write!(f, "{}: {tries} tries, {refused} of them cut off", self.name)
    }
}

/// Connections, each of a few hundred, on which nothing is said.
fn silent_strangers(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    const HELD: usize = 250;
    let mut held: VecDeque<Plain> = VecDeque::new();
    let mut number = turn.number;
    while turn.goes_on() {
        number += 4;
        let ports = target.node(number);
        let address = if number % 8 < 4 { &ports.smtp } else { &ports.imap };
        held.extend(Plain::connect_from(Turn { number, stop: turn.stop }.stranger(), address));
        while held.len() > HELD {
            held.pop_front();
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// A server's session up to DATA.
fn in_data(target: &Target, turn: &Turn<'_>) -> io::Result<Plain> {
    let mut session = Plain::connect_from(turn.stranger(), &target.node(turn.number).smtp)?;
    session.set_write_timeout(Duration::from_secs(10))?;
    session.line()?;
    for line in ["HELO a.test", "MAIL FROM:<>", &format!("RCPT TO:<{}>", target.victim.address), "DATA"] {
        session.say(line)?;
        let said = session.line()?;
        if !said.starts_with(['2', '3']) {
            return Err(io::Error::other(said));
        }
    }
    Ok(session)
}

/// Messages that never end: as much as is taken, and then silence until the server gives up.
fn half_sent_messages(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut held = Vec::new();
    for number in 0..40 {
        let Ok(mut session) = in_data(target, &Turn { number: turn.number + number, stop: turn.stop }) else {
            continue;
        };
        let line = "x".repeat(998) + "\r\n";
        for _ in 0..1 + number % 4 * 6 {
            if !turn.goes_on() || session.send(line.repeat(300).as_bytes()).is_err() {
                break;
            }
        }
        held.push(session);
    }
    wait_for_the_end(turn, held)
}

/// A byte a second, in commands and in messages.
fn drips(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut held = Vec::new();
    for number in 0..20 {
        let turn = Turn { number: turn.number + number, stop: turn.stop };
        held.extend(match number % 3 {
            0 => in_data(target, &turn),
            1 => Plain::connect_from(turn.stranger(), &target.node(turn.number).imap),
            _ => Plain::connect_from(turn.stranger(), &target.node(turn.number).smtp),
        });
    }
    let some = !held.is_empty();
    while turn.goes_on() && !held.is_empty() {
        held.retain_mut(|session| session.send(b"N").is_ok() && !session.is_over());
        std::thread::sleep(Duration::from_secs(1));
    }
    if some { Ok(()) } else { Err(io::Error::other("nobody was let in")) }
}

fn wait_for_the_end(turn: &Turn<'_>, mut held: Vec<Plain>) -> io::Result<()> {
    if held.is_empty() {
        return Err(io::Error::other("nobody was let in"));
    }
    while turn.goes_on() && !held.is_empty() {
        held.retain_mut(|session| !session.is_over());
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Flags of 8,192 places are set and taken away, while sessions have the folder open and read nothing of it.
fn flag_storm(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut idle = Vec::new();
    for number in 0..6 {
        let mut session = target.login(number, &target.hoarder)?;
        session.ok("SELECT INBOX")?;
        session.idle()?;
        idle.push(session);
    }
    let mut session = target.login(turn.number, &target.hoarder)?;
    session.ok("SELECT INBOX")?;
    // Some hundred changes: then the sessions that were ended come back.
    for round in 0..200 {
        if !turn.goes_on() {
            break;
        }
        let sign = if round % 2 == 0 { '+' } else { '-' };
        session.ok(&format!("STORE 1:* {sign}FLAGS (\\Flagged $Word{})", round % 16))?;
    }
    Ok(())
}

/// A folder of 8,192 places is copied again and again, and the copies are deleted.
fn copy_storm(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut session = target.login(turn.number, &target.copier)?;
    session.ok("SELECT INBOX")?;
    // It may be there from a try that was cut off.
    session.command("DELETE Pile")?;
    session.ok("CREATE Pile")?;
    for _ in 0..8 {
        if !turn.goes_on() {
            break;
        }
        session.ok("COPY 1:* Pile")?;
    }
    session.ok("DELETE Pile").map(drop)
}

/// Asks for all messages again and again, and reads nothing.
fn deaf(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut session = target.login(turn.number, &target.deaf)?;
    session.ok("SELECT INBOX")?;
    session.set_write_timeout(Duration::from_secs(30))?;
    while turn.goes_on() {
        session.begin("FETCH 1:* (BODY.PEEK[])")?;
    }
    Ok(())
}

/// Messages whose parts or addresses cost more than their bytes; they are fetched, searched, and deleted again.
fn strange_messages(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut session = target.login(turn.number, &target.strange)?;
    for kind in 0..6 {
        let text = strange_message(turn.number + kind);
        let _ = session.command(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len()))?;
    }
    session.ok("SELECT INBOX")?;
    for command in [
        "FETCH 1:* (ENVELOPE BODYSTRUCTURE)",
        "SEARCH TEXT nobody",
        "FETCH 1:* (BODY.PEEK[1.MIME] BODY.PEEK[1.1.1.HEADER])",
        "STORE 1:* +FLAGS.SILENT (\\Deleted)",
        "EXPUNGE",
    ] {
        let _ = session.command(command)?;
    }
    Ok(())
}

fn strange_message(kind: u64) -> String {
    let nested = |inner: &str| format!("Subject: s\r\nContent-Type: message/rfc822\r\n\r\n{inner}");
    match kind % 6 {
        0 => nested(&format!("To: {}\r\n\r\nx\r\n", "a@b,".repeat(60_000))),
        1 => nested(&format!("Content-Type: text/plain{}\r\n\r\nx\r\n", ";".repeat(200_000))),
        2 => {
            let parts = "--b\r\n\r\nx\r\n".repeat(20_000);
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n")
        }
        3 => (0..2_000).fold(String::from("Subject: deep\r\n\r\nx\r\n"), |inner, _| {
            format!("Content-Type: message/rfc822\r\n\r\n{inner}")
        }),
        4 => format!("Subject: {}\r\n\r\n{}", "=?utf-8?q?a?= ".repeat(15_000), "(".repeat(300_000)),
        _ => {
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{}\r\n\r\nx\r\n", ":\r\n".repeat(400_000))
        }
    }
}

/// Wrong passwords for an account that is there, from many addresses.
fn guesses(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let socket = socket_from(turn.stranger(), &target.node(turn.number).imaps)?;
    let guess = Account { address: target.victim.address.clone(), password: format!("guess {}", turn.number) };
    Imap::login_over(Wire::over(&target.trust, socket)?, &guess).map(drop)
}

/// Asks which recipients there are.
fn probes(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut session = Plain::connect_from(turn.stranger(), &target.node(turn.number).smtp)?;
    session.line()?;
    for line in ["HELO a.test", "MAIL FROM:<a@b.test>"] {
        session.say(line)?;
        session.line()?;
    }
    let domain = target.victim.address.split('@').next_back().unwrap_or_default();
    for number in 0..20 {
        session.say(&format!("RCPT TO:<nobody{number}@{domain}>"))?;
        session.line()?;
    }
    Ok(())
}

/// Connections to the ports that are not for clients.
fn silent_ports(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let mut held = VecDeque::new();
    let mut number = turn.number;
    while turn.goes_on() {
        number += 1;
        let ports = target.node(number);
        let stranger = Turn { number, stop: turn.stop }.stranger();
        held.extend(Plain::connect_from(stranger, &ports.peer));
        if number.is_multiple_of(8) {
            held.extend(Plain::connect(&ports.admin));
        }
        // In some rounds there were two.
        while held.len() > 200 {
            held.pop_front();
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Bytes that mean nothing, to every port.
fn garbage(target: &Target, turn: &Turn<'_>) -> io::Result<()> {
    let ports = target.node(turn.number);
    let addresses = [&ports.smtp, &ports.imap, &ports.imaps, &ports.admin, &ports.peer];
    let address = addresses[(turn.number / 3) as usize % addresses.len()];
    let mut session = Plain::connect_from(turn.stranger(), address)?;
    session.set_write_timeout(Duration::from_secs(5))?;
    // A generator of its own: nothing depends on what these bytes are.
    let mut state = turn.number | 1;
    let bytes: Vec<u8> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    session.send(&bytes)?;
    session.line().map(drop)
}
