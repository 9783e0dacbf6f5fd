//! Addresses that forward to other domains: what comes for them goes on once, and what comes back of it goes to who sent it first.

use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Cluster, PATIENCE};
use mailraft_chaos::name_server::{NameServer, Record};
use mailraft_chaos::other_server::{OtherServer, Taken};
use mailraft_chaos::plain::Plain;

use crate::sending::{arc_of_dkimpy, cluster, cluster_with, of_subject, published, queue, read, submit};

/// The address that forwards.
const TEAM: &str = "team@example.test";

fn forward(cluster: &Cluster, targets: &[&str]) {
    cluster.mailraft(&[&["address", "add", TEAM], targets].concat(), "");
}

fn message(from: &str, subject: &str) -> String {
    // The last of it as a server may have signed it: with white space, and an octet above 127.
    format!(
        "From: <{from}>\r\nTo: <{TEAM}>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@far.test>\r\n\r\na  line \r\n.\u{e9}\r\n\r\n"
    )
}

/// Hands a message over as another server does, and again where that may be better later.
fn bring(cluster: &Cluster, from: &str, to: &str, message: &str) -> String {
    let mut last = String::new();
    let mut nodes = cluster.node_ids().into_iter().cycle();
    cluster.wait("an answer for good", |cluster| {
        last = bring_once(cluster, nodes.next().unwrap_or(1), from, to, message);
        !last.starts_with('4')
    });
    last
}

fn bring_once(cluster: &Cluster, node: u64, from: &str, to: &str, message: &str) -> String {
    let Ok(mut server) = Plain::connect(&cluster.text(node, "smtp")) else { return "421 no connection".to_owned() };
    let mut say = |text: &str| {
        server.send(text.as_bytes())?;
        server.line()
    };
    let mut talk = || -> std::io::Result<String> {
        say("")?;
        let content = message.replace("\r\n.", "\r\n..");
        for line in ["HELO relay.far.test", &format!("MAIL FROM:<{from}>"), &format!("RCPT TO:<{to}>"), "DATA"] {
            let reply = say(&format!("{line}\r\n"))?;
            if !reply.starts_with(['2', '3']) {
                return Ok(reply);
            }
        }
        say(&format!("{content}.\r\n"))
    };
    match talk() {
        Ok(reply) if reply.is_empty() => "421 the connection ended".to_owned(),
        Ok(reply) => reply,
        Err(error) => format!("421 {error}"),
    }
}

fn taken_as(cluster: &Cluster, other: &OtherServer, subject: &str) -> Taken {
    cluster.wait(subject, |_| !of_subject(&other.taken(), subject).is_empty());
    let taken = other.taken();
    let found = of_subject(&taken, subject);
    assert_eq!(found.len(), 1, "{subject} came once");
    found[0].clone()
}

#[test]
fn what_is_forwarded_arrives_once_and_what_comes_back_of_it_goes_to_who_sent_it_first() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    dns.set("far.test", &[Record::Mx(10, "mx.away.test".to_owned())]);
    let alice = cluster.account(0);
    forward(&cluster, &["Bob.B@away.test", &alice.address]);
    assert!(cluster.mailraft(&["address", "list"], "").contains("Bob.B@away.test"));

    // Elsewhere and here, with nothing changed but what is before it.
    let hello = message("jane@far.test", "hello");
    assert!(bring(&cluster, "jane+x@far.test", TEAM, &hello).starts_with("250 "));
    let gone = taken_as(&cluster, &other, "hello");
    assert!(gone.from.starts_with("SRS0=") && gone.from.ends_with("=far.test=jane+x@example.test"), "{}", gone.from);
    assert_eq!(gone.to, ["Bob.B@away.test"]);
    assert!(gone.content.starts_with(&format!("Delivered-To: {TEAM}\r\n")), "{}", gone.content);
    assert!(gone.content.ends_with(&hello), "{}", gone.content);
    cluster.wait("it is here too", |cluster| read(cluster, &alice, "hello").is_some());

    // What comes back goes to who sent it; nobody else's does, and nothing but reports.
    let report = |subject: &str| message("mailer-daemon@away.test", subject);
    assert!(bring(&cluster, "", &gone.from, &report("returned")).starts_with("250 "));
    let back = taken_as(&cluster, &other, "returned");
    assert_eq!((back.from.as_str(), back.to.as_slice()), ("", &["jane+x@far.test".to_owned()][..]));
    let forged = gone.from.replace("=jane+x@", "=joan@");
    assert!(bring(&cluster, "", &forged, &report("forged")).starts_with("550 5.1.1 "));
    assert!(bring(&cluster, "x@far.test", &gone.from, &report("relayed")).starts_with("550 5.7.1 "));

    // What it has forwarded before, and what would be believed because we send it.
    let again = format!("Delivered-To: Team@Example.test\r\n{}", message("jane@far.test", "again"));
    assert!(bring(&cluster, "jane@far.test", TEAM, &again).starts_with("554 5.4.6 "));
    let boss = message("boss@example.test", "boss");
    assert!(bring(&cluster, "jane@far.test", TEAM, &boss).starts_with("550 5.7.1 "));

    // What one of ours sends is his own; a report that comes of it has no reverse-path.
    submit(&cluster, &alice, TEAM, "ours", "x");
    assert_eq!(taken_as(&cluster, &other, "ours").from, alice.address);
    cluster.mailraft(&["address", "add", "lost@example.test", "never@away.test"], "");
    assert!(
        bring(&cluster, "jane@far.test", "lost@example.test", &message("jane@far.test", "nobody")).starts_with("250 ")
    );
    cluster.wait("its sender is told", |_| {
        other.taken().iter().any(|taken| taken.from.is_empty() && taken.content.contains("Subject: nobody\r\n"))
    });

    // By another key, and by one after that.
    cluster.mailraft(&["address", "renew-key"], "");
    assert!(bring(&cluster, "", &gone.from, &report("later")).starts_with("250 "));
    cluster.mailraft(&["address", "renew-key"], "");
    assert!(bring(&cluster, "", &gone.from, &report("too late")).starts_with("550 5.1.1 "));
    cluster.wait("nothing waits", |cluster| queue(cluster, 2).is_empty());
    let taken = other.taken();
    for subject in ["forged", "relayed", "again", "boss", "too late"] {
        assert!(of_subject(&taken, subject).is_empty(), "{subject}");
    }
}

#[test]
fn what_is_forwarded_is_sealed_with_what_was_found_out_of_it_as_others_verify() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster_with(&dns, &other, &|text| text.replace("dmarc = \"off\"", "dmarc = \"mark\""));
    let keys = published(&cluster);
    for (name, record) in &keys {
        dns.set(name, &[Record::Txt(record.clone())]);
    }
    // From one to the next, each of which is one of ours here.
    for by in ["one@example.test", "two@example.test", "three@example.test", "four@example.test"] {
        cluster.mailraft(&["address", "add", by, "bob@away.test"], "");
    }
    let forwarded = |by: &str, message: &str, number: usize| {
        assert!(bring(&cluster, "jane@far.test", by, message).starts_with("250 "));
        cluster.wait("it is sent", |_| of_subject(&other.taken(), "sealed").len() == number);
        let taken = other.taken();
        let gone =
            of_subject(&taken, "sealed").into_iter().find(|of| of.content.contains(&format!("Delivered-To: {by}")));
        gone.unwrap().content.clone()
    };
    let first = forwarded("one@example.test", &message("jane@far.test", "sealed"), 1);
    assert_eq!(arc_of_dkimpy(&first, &keys), "pass", "{first}");
    assert!(first.contains("ARC-Authentication-Results: i=1; ") && first.contains(" cv=none;"), "{first}");
    let second = forwarded("two@example.test", &first, 2);
    assert_eq!(arc_of_dkimpy(&second, &keys), "pass", "{second}");
    assert!(second.contains("arc=pass header.d=example.test") && second.contains(" cv=pass;"), "{second}");
    // A chain that does not hold is told once.
    let altered = second.replace("a  line", "another line");
    assert_eq!(arc_of_dkimpy(&altered, &keys), "fail");
    let third = forwarded("three@example.test", &altered, 3);
    assert!(third.contains("ARC-Seal: i=3; ") && third.contains(" cv=fail;"), "{third}");
    assert_eq!(arc_of_dkimpy(&third, &keys), "terminated", "{third}");
    let fourth = forwarded("four@example.test", &third, 4);
    assert!(!fourth.contains("i=4;") && fourth.contains("arc=fail"), "{fourth}");
}

#[test]
fn where_nothing_is_sent_no_forward_is_made_and_mail_for_one_waits_where_it_is() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    forward(&cluster, &["bob@away.test"]);
    for node in cluster.node_ids() {
        let path = cluster.text(node, "config");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, outbound) = text.split_once("[outbound]").unwrap();
        let off = outbound.replacen("enabled = true", "enabled = false", 1);
        std::fs::write(&path, format!("{before}[outbound]{off}")).unwrap();
        cluster.signal(node, rustix::process::Signal::HUP);
    }
    let bring = |node| bring_once(&cluster, node, "jane@far.test", TEAM, &message("jane@far.test", "waits"));
    for node in cluster.node_ids() {
        cluster.wait("nothing is sent", |_| bring(node).starts_with("451 4.3.2 <team@example.test> forwards"));
    }
    let refused = cluster.runs(&["address", "add", "other@example.test", "bob@away.test"], "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("outbound.enabled = true"), "{said}");
}

#[test]
fn an_address_forwards_so_much_in_an_hour_whoever_sends_to_it() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster_with(&dns, &other, &|text| {
        text.replace("account_recipients_per_hour = 1000", "account_recipients_per_hour = 2")
    });
    forward(&cluster, &["bob@away.test"]);
    cluster.mailraft(&["address", "add", "other@example.test", "bob@away.test"], "");
    let bring = |number: usize, to: &str| {
        let from = format!("jane{number}@far.test");
        bring_once(&cluster, 1, &from, to, &message(&from, &format!("s{number}")))
    };
    for number in 0..2 {
        assert!(bring(number, TEAM).starts_with("250 "));
    }
    let refused = bring(2, TEAM);
    assert!(refused.starts_with("451 4.3.2 <team@example.test> forwards"), "{refused}");
    assert!(bring(3, "other@example.test").starts_with("250 "));
}

#[test]
fn what_is_forwarded_is_neither_lost_nor_doubled_whichever_process_ends() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let mut cluster = cluster(&dns, &other);
    let alice = cluster.account(0);
    forward(&cluster, &["bob@away.test", &alice.address]);
    // Nobody is there at first, so that all of it waits when processes end.
    other.be_down(true);
    let mut subjects = Vec::new();
    for victim in cluster.node_ids() {
        cluster.kill(victim);
        for number in 0..4 {
            let subject = format!("v{victim}n{number}x");
            let reply = bring(&cluster, "jane@far.test", TEAM, &message("jane@far.test", &subject));
            assert!(reply.starts_with("250 "), "{reply}");
            subjects.push(subject);
        }
        cluster.start(victim);
        cluster.wait_until_caught_up();
    }
    other.be_down(false);
    let begun = Instant::now();
    while other.taken().len() < subjects.len() {
        assert!(begun.elapsed() < 4 * PATIENCE, "{} of {} are there", other.taken().len(), subjects.len());
        for item in queue(&cluster, 1) {
            // It may have gone meanwhile.
            let _ = cluster.runs(&["queue", "retry", item["id"].as_str().unwrap_or_default()], "");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    for subject in &subjects {
        let gone = taken_as(&cluster, &other, subject);
        assert!(gone.from.starts_with("SRS0="), "{}", gone.from);
        cluster.wait("it is here", |cluster| read(cluster, &alice, subject).is_some());
    }
    assert_eq!(other.taken().len(), subjects.len(), "nothing else was sent, and no report");
}
