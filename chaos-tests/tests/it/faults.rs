//! Kills, restarts and what must hold through them.

use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::hung_disk::HungDisk;
use mailraft_chaos::imap::Imap;
use mailraft_chaos::scenarios;
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;

#[test]
fn nothing_acknowledged_is_lost_or_doubled_while_nodes_are_killed() {
    let said = scenarios::kill_under_load(&mut Cluster::start_new(|c| c), Duration::from_secs(60))
        .unwrap_or_else(|e| panic!("{e}"));
    println!("{said}");
}

#[test]
fn a_connection_to_a_living_node_survives_kills_of_the_others() {
    let said = scenarios::living_connection(&mut Cluster::start_new(|c| c), 30).unwrap_or_else(|e| panic!("{e}"));
    println!("{said}");
}

#[test]
fn without_a_majority_everything_is_refused_for_the_moment_and_nothing_is_lost() {
    let said = scenarios::two_nodes_dead(&mut Cluster::start_new(|c| c)).unwrap_or_else(|e| panic!("{e}"));
    println!("{said}");
}

#[test]
fn idle_on_one_node_hears_of_a_delivery_through_another_and_sessions_see_each_other() {
    let mut cluster = Cluster::start_new(|c| c);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut one = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).unwrap();
    let mut two = Imap::login(&trust, &cluster.text(2, "imaps"), &bob).unwrap();
    one.ok("SELECT INBOX").unwrap();
    two.ok("SELECT INBOX").unwrap();
    one.idle().unwrap();
    let mut smtp = Smtp::login(&trust, &cluster.text(3, "submissions"), &alice).unwrap();
    let sent = smtp.send(&alice.address, &bob.address, b"Subject: heard\r\n\r\nx\r\n").unwrap();
    assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
    assert_eq!(one.hear(" EXISTS").unwrap(), "* 1 EXISTS");
    one.done().unwrap();
    one.ok("STORE 1 +FLAGS (\\Flagged)").unwrap();
    two.ok("NOOP").unwrap();
    assert!(two.untagged.iter().any(|l| l == "* 1 EXISTS"), "{:?}", two.untagged);
    two.ok("FETCH 1 (FLAGS)").unwrap();
    assert!(two.untagged[0].contains("\\Flagged"), "{:?}", two.untagged);
    two.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").unwrap();
    two.ok("EXPUNGE").unwrap();
    one.ok("NOOP").unwrap();
    assert!(one.untagged.iter().any(|l| l == "* 1 EXPUNGE"), "{:?}", one.untagged);
    // A session that idles hears of what comes after its mailbox's leader died.
    one.idle().unwrap();
    let status = cluster.status(1).unwrap();
    let list: serde_json::Value = serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).unwrap();
    let partition =
        list.as_array().unwrap().iter().find(|a| a["address"] == bob.address).unwrap()["partition"].as_u64().unwrap();
    let leader =
        status["partitions"].as_array().unwrap().iter().find(|p| p["partition"] == partition).unwrap()["leader"]
            .as_u64()
            .unwrap();
    if leader != 1 {
        cluster.kill(leader);
    }
    let other = if leader == 3 { 2 } else { 3 };
    let mut smtp = Smtp::login(&trust, &cluster.text(other, "submissions"), &alice).unwrap();
    let sent = smtp.send(&alice.address, &bob.address, b"Subject: after\r\n\r\nx\r\n").unwrap();
    assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
    assert_eq!(one.hear(" EXISTS").unwrap(), "* 1 EXISTS");
}

#[test]
fn a_node_away_longer_than_the_log_reaches_comes_back_by_snapshot_with_the_same_state() {
    let mut cluster = Cluster::start_new(|config| config.replace("log_keep = 50000 ", "log_keep = 10 "));
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    cluster.kill(3);
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).unwrap();
    let mut at = String::new();
    for n in 0..200 {
        let message = format!("Subject: away-{n}\r\n\r\n{}\r\n", "y".repeat(2_000));
        match smtp.send(&alice.address, &bob.address, message.as_bytes()).unwrap() {
            SmtpReply::Accepted { at: position, .. } => at = position,
            SmtpReply::Refused(code, text) => panic!("{code} {text}"),
        }
    }
    let partition: u32 = at.split('.').next().unwrap().parse().unwrap();
    for node in [1, 2] {
        cluster.request(node, "POST", "/api/v1/flush").unwrap();
    }
    cluster.start(3);
    cluster.wait_until_caught_up();
    cluster.wait("node 3 has installed a snapshot", |c| {
        c.get(3, "/metrics").unwrap().lines().any(|l| l.starts_with("mailraft_snapshot_install_seconds_count"))
    });
    let hash = |node: u64| -> (u64, String) {
        let text = cluster.get(node, &format!("/api/v1/partitions/{partition}/state-hash")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        (json["index"].as_u64().unwrap(), json["state_hash"].as_str().unwrap().to_owned())
    };
    cluster.wait("the same state on every node", |_| hash(1) == hash(3) && hash(2) == hash(3));
}

#[test]
fn a_clean_stop_hands_leaders_over_and_a_damaged_file_stops_a_start_with_one_sentence() {
    let mut cluster = Cluster::start_new(|c| c);
    let begun = Instant::now();
    cluster.stop(1);
    assert!(begun.elapsed() < Duration::from_secs(8), "a clean stop took {:?}", begun.elapsed());
    cluster.wait("the others lead everything", |c| {
        c.status(2).is_some_and(|s| s["partitions"].as_array().unwrap().iter().all(|p| !p["leader"].is_null()))
    });
    let config = cluster.text(1, "config");
    let dir = std::path::Path::new(&config).parent().unwrap().to_owned();
    for (file, said) in [
        ("root.key", "64 hexadecimal digits"),
        ("mail.pem", "certificate"),
        ("peer.key", "peer"),
        ("config.toml", "config.toml"),
    ] {
        let path = dir.join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"damaged").unwrap();
        let run = std::process::Command::new(mailraft_chaos::cluster::binary())
            .args(["node", "--config", &config])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(!run.status.success() && text.contains(said), "{file}: {text}");
        std::fs::write(&path, good).unwrap();
    }
    cluster.start(1);
    cluster.wait_until_caught_up();
}

#[test]
fn of_five_nodes_each_serves_every_mailbox_also_while_one_is_dead() {
    let mut cluster = Cluster::start_of(5, &|c| c);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut sent = 0;
    let mut deliver = |cluster: &Cluster, node: u64| {
        let mut smtp = Smtp::login(&trust, &cluster.text(node, "submissions"), &alice).unwrap();
        for to in [&alice, &bob] {
            sent += 1;
            let said = smtp.send(&alice.address, &to.address, format!("Subject: {sent}\r\n\r\nx\r\n").as_bytes());
            assert!(matches!(said, Ok(SmtpReply::Accepted { .. })), "through node {node}: {said:?}");
        }
    };
    for node in 1..=5 {
        deliver(&cluster, node);
    }
    // Whoever has no replica of a partition hears who leads it next.
    cluster.kill(1);
    for node in 2..=5 {
        deliver(&cluster, node);
    }
    for node in 2..=5 {
        for account in [&alice, &bob] {
            let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), account).unwrap();
            assert_eq!(imap.by_subject("INBOX").unwrap().len(), 9, "through node {node}");
        }
    }
}

#[test]
fn a_node_whose_disk_hangs_stops_nobodys_mail_and_is_named() {
    let mut cluster = Cluster::start_new(|c| c);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let disks: Vec<HungDisk> =
        [1, 2, 3].map(|node| HungDisk::in_dir(&cluster.dir.join(format!("node{node}"))).unwrap()).into();
    for node in 1..=3 {
        cluster.stop(node);
        cluster.start_on(node, &disks[node as usize - 1]);
        cluster.wait_until_caught_up();
    }
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let send = |cluster: &Cluster, node: u64, subject: &str| -> Option<u64> {
        let message = format!("Message-ID: <{subject}@here.test>\r\nSubject: {subject}\r\n\r\nx\r\n");
        let mut smtp = Smtp::login(&trust, &cluster.text(node, "submissions"), &alice).ok()?;
        match smtp.send(&alice.address, &bob.address, message.as_bytes()).ok()? {
            SmtpReply::Accepted { at, .. } => at.split('.').next()?.parse().ok(),
            SmtpReply::Refused(..) => None,
        }
    };
    let mut partition = None;
    cluster.wait("a first message is taken", |c| {
        partition = send(c, 1, "before");
        partition.is_some()
    });
    let leader = |cluster: &Cluster, of: u64| {
        let lines = cluster.status(of)?["partitions"].as_array()?.clone();
        lines.iter().find(|line| line["partition"].as_u64() == partition)?["leader"].as_u64()
    };
    let hung = leader(&cluster, 1).unwrap();
    let well = hung % 3 + 1;
    disks[hung as usize - 1].hang().unwrap();
    let begun = Instant::now();
    cluster.wait("mail for that mailbox is taken again", |c| send(c, well, "meanwhile").is_some());
    assert!(begun.elapsed() < Duration::from_secs(20), "after {:?}", begun.elapsed());
    assert_ne!(leader(&cluster, well), Some(hung));
    let said = format!("node {hung} has waited for");
    cluster.wait("status names the node", |c| {
        c.status(well).is_some_and(|status| {
            let problems = status["problems"].as_array().unwrap();
            problems.iter().any(|problem| problem.as_str().unwrap().starts_with(&said))
        })
    });
    disks[hung as usize - 1].go_on().unwrap();
    cluster.wait_until_caught_up();
    cluster.wait("nothing is wrong any more", |c| c.status(hung).is_some_and(|status| status["healthy"] == true));
    let mut imap = Imap::login(&trust, &cluster.text(hung, "imaps"), &bob).unwrap();
    imap.ok("SELECT INBOX").unwrap();
    for subject in ["before", "meanwhile"] {
        imap.ok(&format!("SEARCH SUBJECT {subject}")).unwrap();
        let found = imap.untagged.iter().find(|line| line.starts_with("* SEARCH")).unwrap();
        assert_eq!(found.split(' ').count(), 3, "{subject}: {found}");
    }
}
