//! A maildrop while nodes die: what a POP3 client was told holds, and its session goes on.

use std::io;
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::{Trust, Wire};

/// More than sockets hold on the way, so that the rest is read after the leader's death.
const LARGE_LINES: usize = 1_000_000;
const LINE: &str = ".123456789abcde\r\n";

/// A client of POP3 over TLS.
struct Pop3(Wire);

impl Pop3 {
    fn connect(cluster: &Cluster, node: u64) -> Self {
        let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
        let mut wire = Wire::connect(&trust, &cluster.text(node, "pop3s")).unwrap();
        assert_eq!(wire.line().unwrap(), "+OK Mailraft");
        Pop3(wire)
    }

    /// A session that somebody is logged in to, or the line that refused it.
    fn login(cluster: &Cluster, node: u64, account: &Account) -> Result<Self, String> {
        let mut pop3 = Pop3::connect(cluster, node);
        pop3.ok(&format!("USER {}", account.address));
        let told = pop3.say(&format!("PASS {}", account.password)).unwrap();
        if told.starts_with("+OK ") { Ok(pop3) } else { Err(told) }
    }

    fn say(&mut self, command: &str) -> io::Result<String> {
        self.0.send(format!("{command}\r\n").as_bytes())?;
        self.0.line()
    }

    fn ok(&mut self, command: &str) -> String {
        let told = self.say(command).unwrap();
        assert!(told.starts_with("+OK "), "{command}: {told}");
        told
    }

    fn lines(&mut self, command: &str) -> Vec<String> {
        self.ok(command);
        std::iter::from_fn(|| Some(self.0.line().unwrap()).filter(|line| line != ".")).collect()
    }
}

fn deliver(cluster: &Cluster, from: &Account, to: &Account, message: &[u8]) {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), from).unwrap();
    let sent = smtp.send(&from.address, &to.address, message).unwrap();
    assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
}

/// Who leads the partition of an account's mailbox.
pub(crate) fn leader(cluster: &Cluster, account: &Account) -> u64 {
    let list: serde_json::Value = serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).unwrap();
    let partition = list.as_array().unwrap().iter().find(|a| a["address"] == account.address).unwrap()["partition"]
        .as_u64()
        .unwrap();
    let status = cluster.status(1).unwrap();
    let partitions = status["partitions"].as_array().unwrap();
    partitions.iter().find(|p| p["partition"] == partition).unwrap()["leader"].as_u64().unwrap()
}

#[test]
fn a_maildrop_outlives_its_leader_between_dele_and_quit_and_in_the_middle_of_retr() {
    let mut cluster = Cluster::start_new(|c| c);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    deliver(&cluster, &alice, &bob, b"Subject: first\r\n\r\nhello\r\n");
    deliver(&cluster, &alice, &bob, format!("Subject: large\r\n\r\n{}", LINE.repeat(LARGE_LINES)).as_bytes());
    deliver(&cluster, &alice, &bob, b"Subject: third\r\n\r\nbye\r\n");

    // Two sessions on different nodes, neither of them where the mailbox is.
    let led = leader(&cluster, &bob);
    let others: Vec<u64> = cluster.node_ids().into_iter().filter(|node| *node != led).collect();
    let mut one = Pop3::login(&cluster, others[0], &bob).unwrap();
    let refused = Pop3::login(&cluster, others[1], &bob).err().unwrap();
    assert!(refused.starts_with("-ERR [IN-USE] "), "{refused}");
    let ids = one.lines("UIDL");
    assert_eq!(ids.len(), 3);

    // In the middle of RETR.
    let first = one.ok("RETR 2");
    let octets: usize = first.split(' ').nth(1).unwrap().parse().unwrap();
    let mut read = 0;
    let mut lines = 0;
    let mut dead = false;
    let begun = Instant::now();
    loop {
        let line = one.0.line().unwrap();
        if line == "." {
            break;
        }
        let line = line.strip_prefix('.').unwrap_or(&line);
        read += line.len() + 2;
        lines += usize::from(line == LINE.trim_end());
        if !dead && lines == 1_000 {
            cluster.kill(led);
            dead = true;
        }
    }
    assert_eq!((read, lines, dead), (octets, LARGE_LINES, true));
    println!("the message was read in {:?}, its leader dead since its beginning", begun.elapsed());

    // The session has the maildrop at the new leader too, although its client has said nothing since.
    let refused = Pop3::login(&cluster, others[1], &bob).err().unwrap();
    assert!(refused.starts_with("-ERR [IN-USE] "), "{refused}");
    assert_eq!(one.lines("UIDL"), ids, "unique ids stay through a failover");
    one.ok("QUIT");
    cluster.start(led);
    cluster.wait_until_caught_up();

    // Between DELE and QUIT.
    let led = leader(&cluster, &bob);
    let others: Vec<u64> = cluster.node_ids().into_iter().filter(|node| *node != led).collect();
    let mut two = Pop3::login(&cluster, others[0], &bob).unwrap();
    two.ok("DELE 1");
    two.ok("DELE 2");
    cluster.kill(led);
    let told = two.ok("QUIT");
    assert!(told.contains("removed"), "{told}");
    // The one that gave it back is gone, and what it removed stays removed.
    let mut three = Pop3::login(&cluster, others[1], &bob).unwrap();
    let left: Vec<String> = three.lines("UIDL").iter().map(|line| line[2..].to_owned()).collect();
    assert_eq!(left, [ids[2][2..].to_owned()]);
    // A session whose node dies holds nothing any more.
    cluster.start(led);
    cluster.wait_until_caught_up();
    cluster.kill(others[1]);
    cluster.wait("the maildrop is free", |cluster| Pop3::login(cluster, others[0], &bob).is_ok());
}

#[test]
fn without_a_majority_a_quit_says_what_became_of_its_deletions() {
    let mut cluster = Cluster::start_new(|c| c);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    deliver(&cluster, &alice, &bob, b"Subject: first\r\n\r\nhello\r\n");
    let node = cluster.node_ids().into_iter().find(|node| *node != leader(&cluster, &bob)).unwrap();
    let mut pop3 = Pop3::login(&cluster, node, &bob).unwrap();
    pop3.ok("DELE 1");
    let others: Vec<u64> = cluster.node_ids().into_iter().filter(|other| *other != node).collect();
    others.iter().for_each(|other| cluster.kill(*other));
    cluster.wait("no leader", |cluster| {
        let Some(status) = cluster.status(node) else { return false };
        let partitions = status["partitions"].as_array().unwrap();
        partitions.iter().all(|partition| partition["leader"].is_null())
    });
    let asked = Instant::now();
    let told = pop3.say("QUIT").unwrap();
    assert!(told.starts_with("-ERR [SYS/TEMP] no message was removed: no majority"), "{told}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    others.iter().for_each(|other| cluster.start(*other));
    cluster.wait_until_caught_up();
    cluster.wait("a login", |cluster| {
        Pop3::login(cluster, node, &bob).is_ok_and(|mut again| again.ok("STAT").starts_with("+OK 1 "))
    });
}
