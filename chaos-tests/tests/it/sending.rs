//! Mail to other domains: what has its 250 gets there whichever processes die, and its sender is told what does not.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Account, Cluster, PATIENCE};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::name_server::{NameServer, Record};
use mailraft_chaos::other_server::{OtherServer, Taken};
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;
use serde_json::Value;

/// A node hands its leads over within this.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// A cluster that sends to another server, by what a name server says.
pub fn cluster(dns: &NameServer, other: &OtherServer) -> Cluster {
    cluster_with(dns, other, &|text| text.to_owned())
}

pub fn cluster_with(dns: &NameServer, other: &OtherServer, more: &dyn Fn(&str) -> String) -> Cluster {
    dns.set("away.test", &[Record::Mx(10, "mx.away.test".to_owned())]);
    dns.set("mx.away.test", &[Record::A([127, 0, 0, 1].into())]);
    dns.set("closed.test", &[Record::Mx(0, String::new())]);
    let resolvers = format!("resolvers = [\"{}\"]", dns.address());
    let port = format!("port = {} ", other.address().port());
    Cluster::start_new(|text| {
        more(&text)
            .replace("resolvers = []", &resolvers)
            .replace("enabled = false", "enabled = true")
            .replace("private_addresses = false", "private_addresses = true")
            .replace("port = 25 ", &port)
    })
}

fn smtp(cluster: &Cluster, node: u64, account: &Account) -> io::Result<Smtp> {
    Smtp::login(&Trust::in_file(&cluster.ca_cert()).unwrap(), &cluster.text(node, "submissions"), account)
}

fn message(from: &str, to: &str, subject: &str, body: &str) -> String {
    format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@test>\r\n\r\n{body}\r\n")
}

/// Submits until it is taken, as a mail program does whose server ends. The id under which it was.
pub fn submit(cluster: &Cluster, account: &Account, to: &str, subject: &str, body: &str) -> String {
    let begun = Instant::now();
    let message = message(&account.address, to, subject, body);
    for node in cluster.node_ids().iter().cycle() {
        let sent =
            smtp(cluster, *node, account).and_then(|mut smtp| smtp.send(&account.address, to, message.as_bytes()));
        match sent {
            Ok(SmtpReply::Accepted { id, .. }) => return id,
            Ok(SmtpReply::Refused(code, text)) if code >= 500 => panic!("{code} {text}"),
            Ok(SmtpReply::Refused(..)) | Err(_) => assert!(begun.elapsed() < PATIENCE, "{subject} is not taken"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    unreachable!("it goes round")
}

pub fn of_subject<'a>(taken: &'a [Taken], subject: &str) -> Vec<&'a Taken> {
    let line = format!("Subject: {subject}\r\n");
    taken.iter().filter(|taken| taken.content.contains(&line)).collect()
}

pub fn queue(cluster: &Cluster, node: u64) -> Vec<Value> {
    let listed = cluster.get(node, "/api/v1/queue").unwrap_or_default();
    serde_json::from_str::<Value>(&listed).ok().and_then(|all| all.as_array().cloned()).unwrap_or_default()
}

/// A message of a folder, whole.
pub fn read(cluster: &Cluster, account: &Account, subject: &str) -> Option<String> {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut imap = Imap::login(&trust, &cluster.text(1, "imaps"), account).ok()?;
    let found = imap.by_subject("INBOX").ok()?;
    let uid = found.iter().find(|(of, _)| of.contains(subject)).map(|(_, uid)| *uid)?;
    imap.ok(&format!("UID FETCH {uid} BODY.PEEK[]")).ok()?;
    Some(imap.untagged.concat())
}

/// What Debian's dkimpy says of a message, with these keys.
pub fn dkimpy_verifies(content: &str, keys: &[(String, String)]) -> bool {
    let script = "count=message.lower().count(b'dkim-signature:')\n\
        good=[dkim.DKIM(message).verify(idx=at,dnsfunc=dns) for at in range(count)]\n\
        print(bool(good) and all(good))";
    dkimpy(script, content, keys) == "True"
}

/// What it says of its chain: `none`, `pass`, `fail`, or `terminated` where that was told before.
pub fn arc_of_dkimpy(content: &str, keys: &[(String, String)]) -> String {
    dkimpy("print((dkim.arc_verify(message,dnsfunc=dns)[0] or b'terminated').decode())", content, keys)
}

/// What a script prints that has a `message`, and keys by `dns`; nothing if it fails, as dkimpy does where a digest is another one.
fn dkimpy(script: &str, content: &str, keys: &[(String, String)]) -> String {
    let before = "import sys,json,dkim\nkeys=json.loads(sys.argv[1])\nmessage=sys.stdin.buffer.read()\n\
        dns=lambda name,timeout=5: keys.get((name if isinstance(name,str) else name.decode()).rstrip('.'),'').encode()\n";
    let keys: serde_json::Map<String, Value> =
        keys.iter().map(|(n, t)| (n.clone(), Value::String(t.clone()))).collect();
    let said = python(&[&format!("{before}{script}"), &Value::Object(keys).to_string()], content);
    said.map(|said| said.trim().to_owned()).unwrap_or_default()
}

/// What Debian's Python prints, by a script and its arguments; None if that fails.
fn python(script: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new("/usr/bin/python3")
        .arg("-c")
        .args(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writes = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writes.join().unwrap().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The keys of the first domain, as they are published.
pub fn published(cluster: &Cluster) -> Vec<(String, String)> {
    let listed = cluster.mailraft(&["domain", "key", "list", "example.test", "--json"], "");
    let keys: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let text = |key: &Value, field: &str| key[field].as_str().unwrap_or_default().to_owned();
    keys.iter().map(|key| (format!("{}._domainkey.example.test", text(key, "selector")), text(key, "record"))).collect()
}

#[test]
fn what_is_sent_gets_there_and_its_sender_is_told_what_does_not() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    submit(&cluster, &account, "bob@away.test", "hello", "a line\r\n.hidden\r\nthe end");
    cluster.wait("it is sent", |_| !of_subject(&other.taken(), "hello").is_empty());
    let taken = other.taken();
    let hello = of_subject(&taken, "hello")[0];
    assert_eq!(
        (hello.from.as_str(), hello.to.as_slice()),
        (account.address.as_str(), &["bob@away.test".to_owned()][..])
    );
    assert!(hello.content.ends_with("\r\n\r\na line\r\n.hidden\r\nthe end\r\n"), "{}", hello.content);
    assert!(!hello.content.to_lowercase().contains("return-path:"), "{}", hello.content);
    cluster.wait("nothing waits", |cluster| queue(cluster, 2).is_empty());

    // Refused for good: a report in words, and in fields for programs.
    submit(&cluster, &account, "never@away.test", "refused", "x");
    let mut report = String::new();
    cluster.wait("the sender is told", |cluster| {
        report =
            read(cluster, &account, "ndelivered").or_else(|| read(cluster, &account, "eliver")).unwrap_or_default();
        !report.is_empty()
    });
    for expected in [
        "report-type=delivery-status",
        "Action: failed",
        "Status: 5.1.1",
        "Final-Recipient: rfc822; never@away.test",
        "there is nobody of this name",
        "Subject: refused",
        "Return-Path: <>",
    ] {
        assert!(report.contains(expected), "{expected} is not in {report}");
    }
    // A domain that takes no mail, at once.
    submit(&cluster, &account, "x@closed.test", "closed", "x");
    cluster.wait("nothing waits", |cluster| queue(cluster, 3).is_empty());
    assert!(of_subject(&other.taken(), "refused").is_empty());

    // Refused for now: it waits, says why, and goes when it is tried again.
    let id = submit(&cluster, &account, "later@away.test", "late", "x");
    cluster.wait("it waits", |cluster| {
        let shown = cluster.get(1, &format!("/api/v1/queue/{id}")).unwrap_or_default();
        shown.contains("\"deferred\"") && shown.contains("come again later")
    });
    other.relent();
    cluster.mailraft(&["queue", "retry", &id], "");
    cluster.wait("it is sent", |_| of_subject(&other.taken(), "late").len() == 1);
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
}

/// Submits a message to one recipient with these parameters of MAIL and RCPT.
fn ask(cluster: &Cluster, account: &Account, (mail, rcpt): (&str, &str), to: &str, subject: &str) -> SmtpReply {
    let message = message(&account.address, to, subject, "x");
    let mut smtp = smtp(cluster, 1, account).unwrap();
    smtp.send_asking((&account.address, mail), (to, rcpt), message.as_bytes()).unwrap()
}

#[test]
fn a_sender_is_told_of_what_he_asked_for_and_of_nothing_else() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let (account, to) = (cluster.account(0), cluster.account(1));
    let taken = |reply| match reply {
        SmtpReply::Accepted { id, .. } => id,
        SmtpReply::Refused(code, text) => panic!("{code} {text}"),
    };
    // Who is not told is asked for first: had a report come of it, it would be there before the others.
    taken(ask(&cluster, &account, ("", " NOTIFY=NEVER"), "never@away.test", "silent"));
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    // A mailbox here, which gets it by the queue then, and one far away whose server tells nothing more.
    let asked = (" RET=HDRS ENVID=QQ+2B1", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2B1@here.test");
    taken(ask(&cluster, &account, asked, &to.address, "arrives"));
    cluster.wait("it is there", |cluster| read(cluster, &to, "arrives").is_some());
    let mut report = String::new();
    cluster.wait("its sender is told", |cluster| {
        report = read(cluster, &account, "Your message was delivered").unwrap_or_default();
        !report.is_empty()
    });
    for expected in [
        "Action: delivered",
        "Status: 2.0.0",
        "Original-Envelope-Id: QQ+1",
        "Original-Recipient: rfc822; old+1@here.test",
        &format!("Final-Recipient: rfc822; {}", to.address),
        "Subject: arrives",
        "Return-Path: <>",
    ] {
        assert!(report.contains(expected), "{expected} is not in {report}");
    }
    taken(ask(&cluster, &account, ("", " NOTIFY=SUCCESS"), "bob@away.test", "leaves"));
    cluster.wait("its sender is told", |cluster| read(cluster, &account, "Your message was passed on").is_some());
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    assert!(read(&cluster, &account, "not delivered").is_none(), "nobody wanted to hear of that");
    // What was asked is shown while it waits.
    let id = taken(ask(&cluster, &account, asked, "later@away.test", "waits"));
    let shown = cluster.mailraft(&["queue", "show", &id], "");
    for expected in ["RET=HDRS ENVID=QQ+2B1", "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2B1@here.test"] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
}

#[test]
fn what_has_to_have_tls_to_the_end_goes_nowhere_without() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let (account, to) = (cluster.account(0), cluster.account(1));
    let requires = (" REQUIRETLS", " NOTIFY=SUCCESS,FAILURE");
    // The other server has no TLS.
    for (to, subject) in [(to.address.as_str(), "inside"), ("bob@away.test", "outside")] {
        let reply = ask(&cluster, &account, requires, to, subject);
        assert!(matches!(reply, SmtpReply::Accepted { .. }), "{reply:?}");
    }
    for told in ["Your message was delivered", "Your message was not delivered"] {
        cluster.wait(told, |cluster| read(cluster, &account, told).is_some());
    }
    assert!(read(&cluster, &to, "inside").is_some() && other.taken().is_empty());
    let report = read(&cluster, &account, "not delivered").unwrap_or_default();
    assert!(report.contains("Status: 5.7.") && report.contains("text/rfc822-headers"), "{report}");
}

#[test]
fn a_connection_serves_the_next_message_and_what_a_server_takes_few_at_a_time_goes_over_several() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    // All queues are led by some node, each of which has its own connections.
    let nodes = cluster.node_ids().len() as u64;
    for number in 0..3 * nodes {
        let subject = format!("one{number}");
        submit(&cluster, &account, "bob@away.test", &subject, "x");
        cluster.wait("it is sent", |_| !of_subject(&other.taken(), &subject).is_empty());
    }
    assert!(other.connections() < 3 * nodes, "{} connections", other.connections());
    other.be_curt(2, 1);
    let mut smtp = smtp(&cluster, 1, &account).unwrap();
    for subject in ["first", "second"] {
        let to: Vec<String> = (0..7).map(|number| format!("r{number}@away.test")).collect();
        let all: Vec<(&str, &str)> = to.iter().map(|to| (to.as_str(), "")).collect();
        let text = message(&account.address, "all@away.test", subject, "x");
        let reply = smtp.send_to_each((&account.address, ""), &all, text.as_bytes()).unwrap();
        assert!(matches!(reply, SmtpReply::Accepted { .. }), "{reply:?}");
        // At once: nobody waits for a next attempt.
        cluster.wait("all have it", |_| of_subject(&other.taken(), subject).len() >= 4);
        let mut taken: Vec<String> = of_subject(&other.taken(), subject).iter().flat_map(|of| of.to.clone()).collect();
        taken.sort();
        assert_eq!(taken, to);
    }
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
}

#[test]
fn an_operator_has_it_tried_at_once_that_waits_for_a_domain_that_was_down() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    other.be_down(true);
    let id = submit(&cluster, &account, "bob@away.test", "first", "x");
    cluster.wait("it waits", |cluster| {
        cluster.get(1, &format!("/api/v1/queue/{id}")).unwrap_or_default().contains("\"deferred\"")
    });
    // This one is not even attempted, while the domain is left alone.
    let asked_for = submit(&cluster, &account, "bob@away.test", "second", "x");
    other.be_down(false);
    let begun = Instant::now();
    for id in [&id, &asked_for] {
        cluster.mailraft(&["queue", "retry", id], "");
    }
    for subject in ["first", "second"] {
        cluster.wait("it is sent", |_| of_subject(&other.taken(), subject).len() == 1);
    }
    // By itself a node leaves a domain alone for a minute.
    assert!(begun.elapsed() < Duration::from_secs(45), "the pause was not ended");
}

#[test]
fn an_account_that_sends_too_much_is_deferred_and_others_are_not() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster_with(&dns, &other, &|text| {
        text.replace("account_recipients_per_hour = 1000", "account_recipients_per_hour = 2")
    });
    let [hog, quiet] = [0, 1].map(|number| cluster.account(number));
    let send = |account: &Account, to: &str| {
        let text = message(&account.address, to, "s", "x");
        smtp(&cluster, 1, account).unwrap().send(&account.address, to, text.as_bytes()).unwrap()
    };
    for _ in 0..2 {
        assert!(matches!(send(&hog, "bob@away.test"), SmtpReply::Accepted { .. }));
    }
    let SmtpReply::Refused(451, text) = send(&hog, "bob@away.test") else { panic!("it is taken") };
    assert!(text.starts_with("4.7.1 this account has sent to as many addresses"), "{text}");
    // What stays here is not counted, and nobody else is.
    assert!(matches!(send(&hog, &quiet.address), SmtpReply::Accepted { .. }));
    assert!(matches!(send(&quiet, "bob@away.test"), SmtpReply::Accepted { .. }));
}

#[test]
fn an_operator_sees_a_messages_way_over_all_nodes() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let [account, inside] = [0, 1].map(|number| cluster.account(number));
    let to = [inside.address.as_str(), "bob@away.test", "never@away.test"].map(|to| (to, ""));
    let text = message(&account.address, "all", "traced", "a secret");
    let reply =
        smtp(&cluster, 2, &account).unwrap().send_to_each((&account.address, ""), &to, text.as_bytes()).unwrap();
    let SmtpReply::Accepted { id, .. } = reply else { panic!("{reply:?}") };
    cluster.wait("its sender is told", |cluster| read(cluster, &account, "delivered").is_some());
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    for what in [id.as_str(), "never@away.test", &account.address.to_uppercase()] {
        let told = cluster.mailraft(&["trace", what], "");
        for expected in [
            format!(
                "accepted from <{}> to <{}> <bob@away.test> <never@away.test>: for the queue",
                account.address, to[0].0
            ),
            format!("delivered to <{}>", to[0].0),
            "sent to <bob@away.test>: at mx.away.test: ".to_owned(),
            "failed to <never@away.test>: at mx.away.test: 550 5.1.1 there is nobody of this name".to_owned(),
            "reported: failed, by ".to_owned(),
        ] {
            assert!(told.contains(&expected), "{expected:?} is not in {told}");
        }
        assert!(!told.contains("secret") && !told.contains("did not say"), "{told}");
    }
    for node in cluster.node_ids() {
        let told = cluster.get(node, &format!("/api/v1/trace/{id}")).unwrap();
        assert!(told.contains("\"accepted\"") && told.contains("\"delivered\"") && told.contains("\"sent\""), "{told}");
    }
    assert!(cluster.mailraft(&["trace", "nobody@nowhere.test"], "").starts_with("no node remembers"));
}

/// Switches sending off or on, on all nodes.
fn switch(cluster: &Cluster, on: bool) {
    for node in cluster.node_ids() {
        let config = cluster.text(node, "config");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace(&format!("\nenabled = {}", !on), &format!("\nenabled = {on}"));
        std::fs::write(&config, text).unwrap();
        cluster.signal(node, rustix::process::Signal::HUP);
    }
}

#[test]
fn what_waits_stays_while_nothing_is_sent_and_goes_when_an_operator_wants_it() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    // Reports that are switched on rest meanwhile.
    let cluster = cluster_with(&dns, &other, &|text| text.replace("# tls = true", "tls = true"));
    let account = cluster.account(0);
    other.be_down(true);
    let id = submit(&cluster, &account, "bob@away.test", "early", "x");
    let dropped = submit(&cluster, &account, "gone@away.test", "dropped", "x");
    for id in [&id, &dropped] {
        cluster.wait("it waits", |cluster| {
            cluster.get(1, &format!("/api/v1/queue/{id}")).unwrap_or_default().contains("\"deferred\"")
        });
    }
    let listed = cluster.mailraft(&["queue", "list"], "");
    assert!(listed.starts_with("id ") && listed.contains(&id), "{listed}");
    assert!(cluster.mailraft(&["queue", "show", &id], "").contains("    tried again "));
    cluster.mailraft(&["queue", "drop", &dropped], "");
    let told = cluster.mailraft(&["trace", &dropped], "");
    assert!(told.contains("dropped to <gone@away.test>: by an operator, for 1 recipient"), "{told}");
    switch(&cluster, false);
    let refused = |cluster: &Cluster, node| {
        let text = message(&account.address, "bob@away.test", "late", "x");
        let sent = smtp(cluster, node, &account)
            .and_then(|mut smtp| smtp.send(&account.address, "bob@away.test", text.as_bytes()));
        matches!(sent, Ok(SmtpReply::Refused(550, text)) if text.contains("outbound.enabled"))
    };
    cluster
        .wait("no node takes mail for others", |cluster| cluster.node_ids().iter().all(|node| refused(cluster, *node)));
    other.be_down(false);
    cluster.mailraft(&["queue", "retry", &id], "");
    // A message to somebody here is not held up by it.
    submit(&cluster, &account, &account.address, "here", "x");
    cluster.wait("it is delivered", |cluster| read(cluster, &account, "here").is_some());
    // What was taken while a node did not know yet waits beside it.
    assert!(other.taken().is_empty() && queue(&cluster, 1).iter().any(|item| item["id"] == id.as_str()));
    switch(&cluster, true);
    cluster.wait("it is sent", |_| of_subject(&other.taken(), "early").len() == 1);
    assert!(of_subject(&other.taken(), "dropped").is_empty());
    // What other servers say, and to whom mail goes, is in no log.
    submit(&cluster, &account, "never@away.test", "refused", "x");
    cluster.wait("its sender is told", |cluster| read(cluster, &account, "not delivered").is_some());
    for node in cluster.node_ids() {
        let log = std::fs::read_to_string(cluster.text(node, "log")).unwrap();
        assert!(!log.contains("there is nobody of this name") && !log.contains("never@") && !log.contains("bob@"));
    }
}

#[test]
fn what_leaves_is_signed_by_the_domains_keys_as_others_verify() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    submit(&cluster, &account, "bob@away.test", "signed", "a  line \r\n\r\n");
    cluster.wait("it is sent", |_| !of_subject(&other.taken(), "signed").is_empty());
    let taken = other.taken();
    let content = &of_subject(&taken, "signed")[0].content;
    let published = published(&cluster);
    // A domain is made with a key of each algorithm.
    assert_eq!(published.len(), 2, "{published:?}");
    assert!(dkimpy_verifies(content, &published), "{content}\n{published:?}");
    assert!(!dkimpy_verifies(&content.replace("a  line", "another line"), &published));
}

#[test]
fn a_server_without_8bitmime_gets_parts_encoded_and_signed_so_and_what_can_not_be_is_told() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    // Each message has a connection of its own, over which it is said anew what is taken.
    other.be_curt(100, 1);
    // More than one chunk of it.
    let long = "ein langer Absatz \u{fc}ber nichts, \r\n".repeat(20_000);
    let parts = format!(
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{long}\r\n--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\u{3b1}\u{3b2}\r\n\r\n--b--"
    );
    let mime = "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: multipart";
    let send = |subject: &str, kind: &str, body: &str| {
        let header = message(&account.address, "bob@away.test", subject, "").trim_end().to_owned();
        let text = format!("{header}\r\n{mime}/{kind}; boundary=b\r\n\r\n{body}\r\n");
        let taken = smtp(&cluster, 1, &account).unwrap().send_asking(
            (&account.address, " BODY=8BITMIME"),
            ("bob@away.test", ""),
            text.as_bytes(),
        );
        assert!(matches!(taken, Ok(SmtpReply::Accepted { .. })), "{taken:?}");
    };
    // Where they are taken they go as they are.
    send("eight", "signed", "--b\r\n\r\n\u{fc}\r\n--b--");
    cluster.wait("it is sent", |_| !of_subject(&other.taken(), "eight").is_empty());
    assert!(of_subject(&other.taken(), "eight")[0].content.contains("\r\n\u{fc}\r\n"));
    other.be_seven_bit(true);
    send("seven", "mixed", &parts);
    cluster.wait("it is sent", |_| !of_subject(&other.taken(), "seven").is_empty());
    let taken = other.taken();
    let content = &of_subject(&taken, "seven")[0].content;
    assert!(content.is_ascii() && !content.contains("8bit"), "{}", &content[..4_000]);
    let keys = published(&cluster);
    assert!(dkimpy_verifies(content, &keys), "{}", &content[..4_000]);
    assert_eq!(python_decodes(content), [long.as_bytes().to_vec(), "\u{3b1}\u{3b2}\r\n".into()]);
    // What is signed as it is goes back, with a reason.
    send("signed", "signed", &parts);
    cluster.wait("its sender is told", |cluster| read(cluster, &account, "not delivered").is_some());
    let report = read(&cluster, &account, "not delivered").unwrap_or_default();
    for expected in ["Status: 5.6.3", "8BITMIME", "multipart/signed"] {
        assert!(report.contains(expected), "{expected} is not in {}", &report[..4_000.min(report.len())]);
    }
}

/// What Python makes of the parts of a message that have none themselves.
fn python_decodes(content: &str) -> Vec<Vec<u8>> {
    let script = "import sys,email,json\nmessage=email.message_from_bytes(sys.stdin.buffer.read())\n\
        print(json.dumps([list(part.get_payload(decode=True)) for part in message.walk() if not part.is_multipart()]))";
    serde_json::from_str(&python(&[script], content).unwrap()).unwrap()
}

#[test]
fn nothing_that_was_taken_is_lost_whichever_process_ends_and_what_is_sent_twice_is_counted() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let mut cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    let mut subjects = Vec::new();
    // Nobody is there at first, so that all of it waits when processes end.
    other.be_down(true);
    for number in 0..24 {
        let subject = format!("m{number}x");
        submit(&cluster, &account, &format!("r{number}@away.test"), &subject, "x");
        subjects.push(subject);
    }
    other.be_down(false);
    for victim in [1, 2, 3] {
        cluster.kill(victim);
        let subject = format!("k{victim}x");
        let lost = submit(&cluster, &account, &format!("lost{victim}@away.test"), &subject, "x");
        subjects.push(subject);
        let survivor = victim % 3 + 1;
        for item in queue(&cluster, survivor) {
            let id = item["id"].as_str().unwrap_or_default().to_owned();
            // It may have gone meanwhile.
            let _ = cluster.runs(&["queue", "retry", &id], "");
        }
        assert!(!lost.is_empty());
        cluster.start(victim);
        cluster.wait_until_caught_up();
    }
    let begun = Instant::now();
    loop {
        let waiting = queue(&cluster, 1);
        let taken = other.taken();
        let there = subjects.iter().filter(|subject| !of_subject(&taken, subject).is_empty()).count();
        if there == subjects.len() && waiting.is_empty() {
            break;
        }
        assert!(begun.elapsed() < 4 * PATIENCE, "{there} of {} are there, {} wait", subjects.len(), waiting.len());
        for item in waiting {
            let _ = cluster.runs(&["queue", "retry", item["id"].as_str().unwrap_or_default()], "");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let taken = other.taken();
    for subject in &subjects {
        let times = of_subject(&taken, subject).len();
        let most = if subject.starts_with('k') { 3 } else { 2 };
        assert!((1..=most).contains(&times), "{subject} came {times} times");
    }
    // Whose answer was lost came once more, with the same Message-ID.
    let twice = (1..=3).filter(|victim| of_subject(&taken, &format!("k{victim}x")).len() > 1).count();
    assert!(twice > 0, "no answer was lost");
}

#[test]
fn nothing_is_sent_twice_when_nodes_are_restarted_in_turn_while_servers_have_not_answered() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let mut cluster = cluster(&dns, &other);
    let account = cluster.account(0);
    let mut subjects = Vec::new();
    for victim in [1, 2, 3] {
        cluster.wait_until_leads_are_spread();
        other.be_silent(true);
        let before = other.count();
        for number in 0..8 {
            let subject = format!("s{victim}{number}x");
            submit(&cluster, &account, &format!("r{number}@away.test"), &subject, "x");
            subjects.push(subject);
        }
        // So many a node sends to one domain at first.
        cluster.wait("messages are taken without an answer", |_| other.count() >= before + 2);
        cluster.signal(victim, rustix::process::Signal::TERM);
        let survivor = victim % 3 + 1;
        // A lead that nobody can take stays; and who answers no sooner than after ten seconds gets the message again.
        let begun = Instant::now();
        cluster.wait("the leads are handed over", |cluster| {
            if begun.elapsed() > HAND_OVER_MAX {
                return true;
            }
            let status = cluster.status(survivor).unwrap_or_default();
            let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
            !partitions.is_empty() && partitions.iter().all(|p| p["leader"] != victim && !p["leader"].is_null())
        });
        other.be_silent(false);
        cluster.reap(victim);
        cluster.start(victim);
        cluster.wait_until_caught_up();
        cluster.wait("everything is sent", |cluster| queue(cluster, survivor).is_empty());
    }
    let taken = other.taken();
    for subject in &subjects {
        assert_eq!(of_subject(&taken, subject).len(), 1, "{subject}");
    }
}
