//! A message to many mailboxes: one 250, and each of them has it once, whichever processes die meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Account, Cluster, PATIENCE};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::plain::Plain;
use mailraft_chaos::wire::Trust;
use serde_json::Value;

/// Recipients of a message.
const RECIPIENTS: usize = 100;
const PASSWORD: &str = "correct-horse-battery";

fn recipients(cluster: &Cluster, count: usize) -> Vec<Account> {
    let one = |number: usize| {
        let address = format!("r{number}@example.test");
        cluster.mailraft(&["account", "create", &address, "--password-stdin"], PASSWORD);
        Account { address, password: PASSWORD.to_owned() }
    };
    (0..count).map(one).collect()
}

/// Sends a message as another server does: the last reply.
fn send(address: &str, to: &[&str], message: &str) -> io::Result<(u16, String)> {
    let mut plain = Plain::connect(address)?;
    let mut commands = vec!["EHLO sender.test".to_owned(), "MAIL FROM:<sender@elsewhere.test>".to_owned()];
    commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
    commands.push("DATA".to_owned());
    let mut reply = reply(&mut plain)?;
    for command in commands {
        plain.say(&command)?;
        reply = self::reply(&mut plain)?;
        if reply.0 >= 400 {
            return Ok(reply);
        }
    }
    assert_eq!(reply.0, 354, "{reply:?}");
    plain.send(message.as_bytes())?;
    plain.say(".")?;
    self::reply(&mut plain)
}

fn reply(plain: &mut Plain) -> io::Result<(u16, String)> {
    loop {
        let line = plain.line()?;
        let (code, rest) = line.split_at_checked(3).ok_or_else(|| io::Error::other("the connection ended"))?;
        if !rest.starts_with('-') {
            return Ok((code.parse().map_err(io::Error::other)?, rest.trim_start().to_owned()));
        }
    }
}

/// The same again until it is taken, as a sender does whose connection broke or who was asked to.
fn send_until_taken(cluster: &Cluster, nodes: &[u64], to: &[&str], message: &str) -> String {
    let begun = Instant::now();
    for node in nodes.iter().cycle() {
        match send(&cluster.text(*node, "smtp"), to, message) {
            Ok((250, text)) => return text,
            Ok((code, text)) if code >= 500 => panic!("{code} {text}"),
            Ok(_) | Err(_) => assert!(begun.elapsed() < PATIENCE, "the message is not taken"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    unreachable!("it goes round")
}

fn id_of(reply: &str) -> String {
    reply.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

fn message(subject: &str, body: &str) -> String {
    format!("Message-ID: <{subject}@elsewhere.test>\r\nSubject: {subject}\r\n\r\n{body}\r\n")
}

/// Waits until the command says of every recipient that it has the message.
fn wait_until_delivered(cluster: &Cluster, node: u64, id: &str, count: usize) {
    cluster.wait(&format!("message {id} is delivered to all"), |cluster| {
        let Ok(answer) = cluster.get(node, &format!("/api/v1/commands/{id}")) else { return false };
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let Some(recipients) = answer["recipients"].as_array() else { return false };
        recipients.len() == count && recipients.iter().all(|r| r["state"] == "delivered")
    });
}

/// Each of these mailboxes has these messages, once.
fn assert_once(cluster: &Cluster, node: u64, accounts: &[Account], subjects: &[String]) {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    for account in accounts {
        let read = || -> io::Result<BTreeMap<String, u32>> {
            // It fails for a subject that is there twice.
            Imap::login(&trust, &cluster.text(node, "imaps"), account)?.by_subject("INBOX")
        };
        let begun = Instant::now();
        let found = loop {
            // Leaders move back to a node that is there again, and whoever asks meanwhile may be asked to try again.
            match read() {
                Ok(found) => break found,
                Err(why) => assert!(begun.elapsed() < PATIENCE, "{}: {why}", account.address),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let found: Vec<&String> = found.keys().collect();
        assert_eq!(found, subjects.iter().collect::<Vec<_>>(), "{}", account.address);
    }
}

#[test]
fn a_message_to_a_hundred_mailboxes_is_in_each_once_whichever_processes_die() {
    let mut cluster = Cluster::start_new(|c| c);
    let accounts = recipients(&cluster, RECIPIENTS);
    let to: Vec<&str> = accounts.iter().map(|account| account.address.as_str()).collect();
    let mut subjects = vec!["all-well".to_owned()];
    let taken = send_until_taken(&cluster, &[1], &to, &message("all-well", "to each of you"));
    wait_until_delivered(&cluster, 2, &id_of(&taken), RECIPIENTS);
    // A body of several chunks, and the same sent again as by a sender that lost the 250.
    let large = message("large", &"0123456789abcdef\r\n".repeat(40_000));
    for _ in 0..2 {
        let taken = send_until_taken(&cluster, &[2], &to[..7], &large);
        wait_until_delivered(&cluster, 3, &id_of(&taken), 7);
    }
    // Each node dies in its turn, at some moment of taking in and delivering.
    for round in 0..6u64 {
        let victim = round % 3 + 1;
        let nodes: Vec<u64> = (1..=3).filter(|node| *node != victim).collect();
        let subject = format!("round-{round}");
        let pid = rustix::process::Pid::from_raw(cluster.pid(victim)).unwrap();
        let taken = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Somewhere between the first command and the last delivery.
                std::thread::sleep(Duration::from_millis(40 * (round + 1)));
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            });
            send_until_taken(&cluster, &nodes, &to, &message(&subject, "whoever dies"))
        });
        cluster.kill(victim);
        wait_until_delivered(&cluster, nodes[0], &id_of(&taken), RECIPIENTS);
        subjects.push(subject);
        cluster.start(victim);
    }
    cluster.wait("no queue has anything left", |cluster| {
        let listed = cluster.runs(&["queue", "list"], "");
        listed.status.success() && listed.stdout.is_empty()
    });
    let (few, others) = accounts.split_at(7);
    subjects.sort();
    assert_once(&cluster, 1, others, &subjects);
    subjects.push("large".to_owned());
    subjects.sort();
    assert_once(&cluster, 2, few, &subjects);
}

/// So many lines of 50 bytes that no compression makes much smaller.
fn incompressible(lines: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    (0..lines).map(|_| [word(), word(), word(), "\r\n".to_owned()].concat()).collect()
}

/// What a node's process has had written to its disk since it started, in bytes.
fn written_bytes(cluster: &Cluster, node: u64) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", cluster.pid(node))).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_message_of_some_megabytes_to_many_is_in_each_once_and_is_written_a_few_times() {
    const MAILBOXES: usize = 12;
    let mut cluster = Cluster::start_new(|c| c);
    let accounts = recipients(&cluster, MAILBOXES);
    let to: Vec<&str> = accounts.iter().map(|account| account.address.as_str()).collect();
    let large = message("some-megabytes", &incompressible(160_000));
    let taken = send_until_taken(&cluster, &[1], &to, &large);
    // In the middle of its deliveries.
    cluster.wait("some have it", |cluster| {
        let Ok(answer) = cluster.get(2, &format!("/api/v1/commands/{}", id_of(&taken))) else { return false };
        answer.contains("delivered")
    });
    cluster.kill(3);
    wait_until_delivered(&cluster, 1, &id_of(&taken), MAILBOXES);
    // Each node has it for the queue and for each mailbox in its log, and perhaps as rows, once flushed and once compacted.
    let once = (large.len() * (MAILBOXES + 1)) as u64;
    for node in [1, 2] {
        let written = written_bytes(&cluster, node);
        assert!(written < 3 * once, "node {node} wrote {written} bytes for {once}");
    }
    cluster.start(3);
    assert_once(&cluster, 2, &accounts, &["some-megabytes".to_owned()]);
}

#[test]
fn groups_and_aliases_reach_each_mailbox_once_and_a_full_one_is_refused_before_the_message() {
    let cluster = Cluster::start_new(|c| c.replace("quota_bytes = 10737418240 ", "quota_bytes = 1048576 "));
    let accounts = recipients(&cluster, 3);
    cluster.mailraft(&["address", "add", "all@example.test", "r0@example.test", "r1@example.test"], "");
    cluster.mailraft(&["address", "add", "more@example.test", "all@example.test", "r2@example.test"], "");
    let to = ["more@example.test", "R1@example.test", "all+x@example.test"];
    let taken = send_until_taken(&cluster, &[1], &to, &message("grouped", "x"));
    wait_until_delivered(&cluster, 1, &id_of(&taken), 3);
    assert_once(&cluster, 2, &accounts, &["grouped".to_owned()]);
    let shown = cluster.runs(&["queue", "show", &id_of(&taken)], "");
    assert!(String::from_utf8_lossy(&shown.stderr).contains("mailraft trace says"), "{shown:?}");
    // One of them is full: it says so before the message, and the others are not kept from it.
    let filling = message("filling", &("y".repeat(70) + "\r\n").repeat(14_000));
    let (code, text) = send(&cluster.text(1, "smtp"), &["r2@example.test"], &filling).unwrap();
    assert_eq!(code, 250, "{text}");
    let mut plain = Plain::connect(&cluster.text(2, "smtp")).unwrap();
    assert_eq!(reply(&mut plain).unwrap().0, 220);
    let mut say = |line: &str| {
        plain.say(line).unwrap();
        reply(&mut plain).unwrap()
    };
    assert_eq!(say("EHLO sender.test").0, 250);
    assert_eq!(say("MAIL FROM:<sender@elsewhere.test> SIZE=50000").0, 250);
    let replies = ["r0", "r2", "r1"].map(|name| say(&format!("RCPT TO:<{name}@example.test>")).0);
    assert_eq!(replies, [250, 452, 250]);
}
