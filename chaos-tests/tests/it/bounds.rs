//! Attacks on what a node has only so much of, with real processes: it lives, whoever is at work goes on, and newcomers
//! hear why they are refused.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Cluster, binary};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::plain::{Plain, open_many};
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;
use serde_json::Value;

/// Sends a message from the first account to the second.
fn sent(cluster: &Cluster, node: u64, trust: &Trust, subject: &str) -> SmtpReply {
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let mut smtp = Smtp::login(trust, &cluster.text(node, "submissions"), &alice).unwrap();
    smtp.send(&alice.address, &bob.address, format!("Subject: {subject}\r\n\r\nx\r\n").as_bytes()).unwrap()
}

#[test]
fn a_thousand_idle_connections_leave_the_node_its_own_descriptors() {
    open_many().unwrap();
    let mut cluster = Cluster::start_new(|c| {
        c.replace("strangers_per_address = 50 ", "strangers_per_address = 2000 ")
            .replace("strangers_percent = 25 ", "strangers_percent = 100 ")
    });
    for node in cluster.node_ids() {
        cluster.stop(node);
        cluster.start_with_descriptors(node, 1_024);
    }
    cluster.wait_until_caught_up();
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut established = Imap::login(&trust, &cluster.text(1, "imaps"), &cluster.account(1)).unwrap();
    established.ok("SELECT INBOX").unwrap();
    let (smtp, imap) = (cluster.text(1, "smtp"), cluster.text(1, "imap"));
    let mut held = Vec::new();
    let mut refused = 0;
    for n in 0..1_500 {
        let (address, no) = if n % 2 == 0 { (&smtp, "421 4.3.2 ") } else { (&imap, "* BYE [LIMIT] ") };
        let mut stranger = Plain::connect(address).unwrap();
        // Whoever comes while many are being refused may be told nothing.
        let first = stranger.line().unwrap_or_default();
        match first.starts_with("220 ") || first.starts_with("* OK ") {
            true => held.push(stranger),
            false => {
                assert!(first.is_empty() || first.starts_with(no), "{first}");
                refused += usize::from(!first.is_empty());
            }
        }
    }
    let status = cluster.status(1).expect("the node lives and its admin server answers");
    let node = &status["nodes"][0];
    let max = node["sessions"]["max"].as_u64().unwrap();
    assert!(max < 1_024 && node["sessions"]["open"].as_u64().unwrap() <= max, "{node}");
    assert!(held.len() as u64 <= max && refused > 500, "{} held of {max}, {refused} heard why not", held.len());
    assert!(status["notes"][0].as_str().unwrap().contains("LimitNOFILE"), "{}", status["notes"]);
    assert_eq!(status["healthy"], true, "{}", status["problems"]);
    // The session that was there before, and Raft, go on.
    for n in 0..20 {
        assert!(
            matches!(sent(&cluster, 2, &trust, &format!("goes on {n}")), SmtpReply::Accepted { .. }),
            "message {n}"
        );
    }
    established.ok("NOOP").unwrap();
    assert!(established.untagged.iter().any(|line| line == "* 20 EXISTS"), "{:?}", established.untagged);
    established.ok("STORE 1:20 +FLAGS (\\Seen)").unwrap();
    cluster.request(1, "POST", "/api/v1/flush").unwrap();
    drop(held);
    cluster.wait("places come back", |_| {
        Plain::connect(&smtp).is_ok_and(|mut stranger| {
            stranger.line().is_ok_and(|line| line.starts_with("220 ")) && stranger.say("QUIT").is_ok()
        })
    });
}

#[test]
fn a_root_key_that_others_may_read_stops_a_start_and_data_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut cluster = Cluster::start_new(|c| c);
    let (config, data) = (cluster.text(1, "config"), cluster.text(1, "data_dir"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(Path::new(&data)), 0o700);
    cluster.stop(1);
    let key = Path::new(&config).with_file_name("root.key");
    let refusal = |rights: u32| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(rights)).unwrap();
        let run = Command::new(binary()).args(["node", "--config", &config]).output().unwrap();
        assert!(!run.status.success());
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    let said = refusal(0o644);
    assert!(said.contains("others may read or change it (mode 644): chmod 600"), "{said}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    // As an earlier version, or a copy, left it.
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.start(1);
    cluster.wait_until_caught_up();
    assert_eq!(mode(Path::new(&data)), 0o700);
}

/// An account is logged in to over IMAP within 10 s.
fn can_log_in(cluster: &Cluster, trust: &Trust) {
    let begun = Instant::now();
    let mut session = Imap::login(trust, &cluster.text(1, "imaps"), &cluster.account(1)).unwrap();
    session.ok("SELECT INBOX").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn silent_connections_to_port_25_keep_nobody_from_reading_mail_nor_other_servers_from_bringing_it() {
    open_many().unwrap();
    let cluster = Cluster::start_new(|c| c.replace("sessions = 10000 ", "sessions = 400 "));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let smtp = cluster.text(1, "smtp");
    let mut held = Vec::new();
    for host in 1..=10 {
        held.extend((0..45).map(|_| Plain::connect_from([127, 0, 9, host], &smtp).unwrap()));
    }
    can_log_in(&cluster, &trust);
    cluster.wait("another server is heard", |_| {
        let mut server = Plain::connect_from([127, 0, 8, 1], &smtp).unwrap();
        server.line().is_ok_and(|line| line.starts_with("220 "))
    });
    // Who is served is not the one that gives way.
    let mut server = Plain::connect_from([127, 0, 8, 2], &smtp).unwrap();
    server.line().unwrap();
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        server.say("NOOP").unwrap();
        let said = server.line().unwrap();
        assert!(said.starts_with("250 "), "{said}");
        held.extend(Plain::connect_from([127, 0, 9, 11], &smtp));
    }
}

#[test]
fn stalled_messages_keep_no_other_message_out() {
    open_many().unwrap();
    let cluster = Cluster::start_new(|c| c.replace("body_memory_bytes = 268435456 ", "body_memory_bytes = 16777216 "));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (smtp, bob) = (cluster.text(1, "smtp"), cluster.account(1).address);
    let mut held = Vec::new();
    for host in 1..=10 {
        for _ in 0..10 {
            let mut stalled = Plain::connect_from([127, 0, 9, host], &smtp).unwrap();
            stalled.line().unwrap();
            for line in ["HELO a.test", "MAIL FROM:<>", &format!("RCPT TO:<{bob}>"), "DATA"] {
                stalled.say(line).unwrap();
                stalled.line().unwrap();
            }
            // A dot at a time, and never the last one.
            let _ = stalled.say(&("x".repeat(900) + "\r\n").repeat(270));
            held.push(stalled);
        }
    }
    let begun = Instant::now();
    let mut last = String::new();
    while !matches!(sent(&cluster, 1, &trust, "gets through"), SmtpReply::Accepted { .. }) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{last}");
        last = format!("refused for {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    can_log_in(&cluster, &trust);
}

#[test]
fn silent_connections_to_the_ports_for_nodes_and_for_administration_keep_neither_out() {
    open_many().unwrap();
    let mut cluster = Cluster::start_new(|c| c);
    let (peer, admin) = (cluster.text(1, "peer"), cluster.text(1, "admin"));
    let mut held = Vec::new();
    for n in 0..1_200u16 {
        held.extend(Plain::connect_from([127, 0, 9, (n % 200) as u8 + 1], &peer));
        if n < 100 {
            held.extend(Plain::connect(&admin));
        }
    }
    let status = cluster.status(1).expect("the admin server answers");
    assert_eq!(status["healthy"], true, "{}", status["problems"]);
    let open = std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(1))).unwrap().count();
    assert!(open < 700, "{open} descriptors are open");
    // Another node comes back, as if nobody were there.
    cluster.kill(2);
    let begun = Instant::now();
    cluster.start(2);
    cluster.wait("node 1 hears node 2 again", |c| {
        let status = c.status(1).expect("the admin server answers");
        let peers = status["nodes"][0]["peers"].as_array().unwrap().clone();
        peers.iter().any(|peer| peer["node"] == 2 && peer["connected"] == true)
    });
    cluster.wait_until_caught_up();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn half_sent_messages_have_a_budget_on_the_disk() {
    const SPOOL_BYTES: u64 = 16 << 20;
    let cluster =
        Cluster::start_new(|c| c.replace("spool_bytes = 4294967296 ", &format!("spool_bytes = {SPOOL_BYTES} ")));
    let (smtp, bob) = (cluster.text(1, "smtp"), cluster.account(1).address);
    let mut held = Vec::new();
    let line = "x".repeat(998) + "\r\n";
    for _ in 0..13 {
        let mut half = Plain::connect(&smtp).unwrap();
        half.line().unwrap();
        for line in ["HELO a.test", "MAIL FROM:<>", &format!("RCPT TO:<{bob}>"), "DATA"] {
            half.say(line).unwrap();
            half.line().unwrap();
        }
        // More than sockets hold.
        for _ in 0..30 {
            half.say(&line.repeat(1_000)).unwrap();
        }
        held.push(half);
    }
    let deleted = || -> u64 {
        let files = std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(1))).unwrap().flatten();
        let gone =
            files.filter(|f| std::fs::read_link(f.path()).is_ok_and(|to| to.to_string_lossy().ends_with("(deleted)")));
        gone.filter_map(|f| std::fs::metadata(f.path()).ok()).map(|m| m.len()).sum()
    };
    assert!(deleted() <= SPOOL_BYTES, "{} MiB", deleted() >> 20);
    let mut last = held.pop().unwrap();
    last.say("\r\n.").unwrap();
    let said = last.line().unwrap();
    assert!(said.starts_with("452 4.3.1 this server's disk"), "{said}");
}

#[test]
fn a_node_below_its_low_water_mark_takes_no_mail_leads_nothing_and_recovers_by_itself() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let bob = cluster.account(1);
    let mut reader = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).unwrap();
    reader.ok("SELECT INBOX").unwrap();
    assert!(matches!(sent(&cluster, 1, &trust, "before"), SmtpReply::Accepted { .. }));
    let set = |bytes: u64| {
        let config = cluster.text(1, "config");
        let text = std::fs::read_to_string(&config).unwrap();
        let lines = text.lines().map(|line| match line.starts_with("low_water_bytes = ") {
            true => format!("low_water_bytes = {bytes}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&config, lines.collect::<String>()).unwrap();
        cluster.signal(1, rustix::process::Signal::HUP);
    };
    let leads = |status: &Value| status["nodes"][0]["leads"].as_u64().unwrap();
    set(1 << 49);
    cluster.wait("node 1 says that its disk is full, and leads nothing", |c| {
        c.status(1).is_some_and(|s| {
            s["problems"].as_array().unwrap().iter().any(|p| p.as_str().unwrap().contains("of disk left"))
                && leads(&s) == 0
        })
    });
    let mut server = Plain::connect(&cluster.text(1, "smtp")).unwrap();
    for (say, hear) in [("", "220 "), ("HELO a.test", "250 "), ("MAIL FROM:<a@b.test>", "452 4.3.1 this server's disk")]
    {
        if !say.is_empty() {
            server.say(say).unwrap();
        }
        let said = server.line().unwrap();
        assert!(said.starts_with(hear), "{said}");
    }
    let refused = reader.command("APPEND INBOX {5+}\r\nhello").unwrap();
    assert!(refused.starts_with("NO [OVERQUOTA] this server's disk"), "{refused}");
    // Reading and deleting go on, and so do the others.
    assert!(matches!(sent(&cluster, 2, &trust, "meanwhile"), SmtpReply::Accepted { .. }));
    reader.ok("NOOP").unwrap();
    reader.ok("FETCH 1:2 (BODY[])").unwrap();
    reader.ok("STORE 1 +FLAGS (\\Deleted)").unwrap();
    reader.ok("EXPUNGE").unwrap();
    set(64 << 20);
    cluster
        .wait("node 1 is well again and leads", |c| c.status(1).is_some_and(|s| s["healthy"] == true && leads(&s) > 0));
    assert!(matches!(sent(&cluster, 1, &trust, "after"), SmtpReply::Accepted { .. }));
}
