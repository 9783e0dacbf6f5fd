//! Two regions of real nodes: what the backup has of what was answered, and what is said without it.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::imap::Imap;
use mailraft_chaos::scenarios::{backup_region, two_regions as two_regions_apart};
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::{Trust, Wire};
use serde_json::Value;

use super::secrecy::search;

fn two_regions() -> Cluster {
    Cluster::start_regions("home=3,south=3", 6, &|config| config)
}

fn submit(cluster: &Cluster, smtp: &mut Smtp, subject: &str) -> SmtpReply {
    let (from, to) = (cluster.account(0).address, cluster.account(1).address);
    let message = format!("Subject: {subject}\r\nMessage-ID: <{subject}@chaos.test>\r\n\r\nzebrabody\r\n");
    smtp.send(&from, &to, message.as_bytes()).unwrap()
}

fn trust(cluster: &Cluster) -> Trust {
    Trust::in_file(&cluster.ca_cert()).unwrap()
}

fn smtp(cluster: &Cluster) -> Smtp {
    Smtp::login(&trust(cluster), &cluster.text(1, "submissions"), &cluster.account(0)).unwrap()
}

fn imap(cluster: &Cluster) -> Imap {
    Imap::login(&trust(cluster), &cluster.text(2, "imaps"), &cluster.account(1)).unwrap()
}

/// How a partition is at a node; None if that does not answer.
fn replica(cluster: &Cluster, node: u64, partition: u64) -> Option<Value> {
    let local: Value = serde_json::from_str(&cluster.get(node, "/api/v1/status/local").ok()?).unwrap();
    let replicas = local["partitions"].as_array().unwrap();
    replicas.iter().find(|replica| replica["partition"] == partition).cloned()
}

/// The last entry of a partition in the log of a node.
fn last(cluster: &Cluster, node: u64, partition: u64) -> u64 {
    replica(cluster, node, partition).unwrap()["last"].as_u64().unwrap()
}

/// Which node of the home leads a partition, as it says itself.
fn leader(cluster: &Cluster, partition: u64) -> Option<u64> {
    let leads = |node: &u64| replica(cluster, *node, partition).is_some_and(|of| of["role"] == "leader");
    cluster.nodes_in("home").into_iter().find(leads)
}

fn accepted_at(said: &SmtpReply) -> (u64, u64) {
    let SmtpReply::Accepted { at, .. } = said else { panic!("{said:?}") };
    let parts: Vec<u64> = at.split('.').map(|part| part.parse().unwrap()).collect();
    (parts[0], parts[2])
}

/// Sent again while it is deferred, as a client does.
fn until_accepted(cluster: &Cluster, subject: &str) {
    until_accepted_at(cluster, 1, subject);
}

fn until_accepted_at(cluster: &Cluster, node: u64, subject: &str) {
    cluster.wait("the message is accepted", |cluster| {
        // Where a leader has just died, whoever logs in may be told to come again.
        let submissions = cluster.text(node, "submissions");
        let Ok(mut smtp) = Smtp::login(&trust(cluster), &submissions, &cluster.account(0)) else { return false };
        match submit(cluster, &mut smtp, subject) {
            SmtpReply::Accepted { .. } => true,
            SmtpReply::Refused(code, words) => {
                assert_eq!(code, 451, "{words}");
                false
            }
        }
    });
}

#[test]
fn a_backup_region_has_no_key_and_no_mail_in_clear_and_says_where_mail_is_served() {
    let cluster = two_regions();
    let of_nodes: Vec<&str> =
        cluster.json["nodes"].as_array().unwrap().iter().filter_map(|node| node["region"].as_str()).collect();
    assert_eq!(of_nodes, ["home", "home", "home", "south", "south", "south"]);
    let said = submit(&cluster, &mut smtp(&cluster), "zebrasubject");
    accepted_at(&said);
    for node in cluster.node_ids() {
        cluster.request(node, "POST", "/api/v1/flush").unwrap();
    }
    let key = std::fs::read_to_string(cluster.dir.join("node1/root.key")).unwrap();
    let raw: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&key[2 * n..2 * n + 2], 16).unwrap()).collect();
    for node in cluster.nodes_in("south") {
        let own = cluster.dir.join(format!("node{node}"));
        assert!(!own.join("root.key").exists(), "node {node}");
        let mut found = Vec::new();
        search(&own, &[b"zebra", key.trim().as_bytes(), &raw], &mut found);
        assert!(found.is_empty(), "{found:?}");

        let why = "this server keeps a backup in region south: mail is served in region home";
        for (service, said) in [
            ("smtp", format!("421 4.3.2 localhost {why}")),
            ("submission", format!("421 4.3.2 localhost {why}")),
            ("imap", format!("* BYE [UNAVAILABLE] {why}")),
            ("pop3", format!("-ERR [SYS/TEMP] {why}")),
        ] {
            let mut line = String::new();
            let socket = TcpStream::connect(cluster.text(node, service)).unwrap();
            BufReader::new(socket).read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), said);
        }
        for (service, begins) in
            [("submissions", "421 4.3.2"), ("imaps", "* BYE [UNAVAILABLE]"), ("pop3s", "-ERR [SYS/TEMP]")]
        {
            let line = Wire::connect(&trust(&cluster), &cluster.text(node, service)).unwrap().line().unwrap();
            assert!(line.starts_with(begins) && line.contains("region home"), "{line}");
        }
        let refused = cluster.get(node, "/api/v1/accounts").unwrap_err().to_string();
        assert!(refused.contains("503") && refused.contains("\"code\":\"standby\""), "{refused}");
        // How all are can be asked anywhere.
        let status = cluster.status(node).unwrap();
        assert_eq!((&status["healthy"], status["nodes"].as_array().unwrap().len()), (&Value::Bool(true), 6));
    }
}

/// What `status` says beside what clients hear, over a link of 40 ms one way that is cut and slowed to 150.
#[test]
fn under_load_status_says_what_clients_see_while_the_backup_is_killed_cut_off_and_slowed() {
    let (mut cluster, wan) = two_regions_apart(Duration::from_millis(40));
    println!("{}", backup_region(&mut cluster, &wan).unwrap());
}

#[test]
fn with_150_ms_one_way_all_nodes_hear_of_each_other_and_an_answer_takes_a_round_trip() {
    let (cluster, _wan) = two_regions_apart(Duration::from_millis(150));
    let mut smtp = smtp(&cluster);
    until_accepted(&cluster, "first");
    let begun = Instant::now();
    accepted_at(&submit(&cluster, &mut smtp, "second"));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    for node in [1, 4] {
        cluster.wait("all are up, and the backup holds all", |cluster| {
            let Some(status) = cluster.status(node) else { return false };
            let up = status["nodes"].as_array().unwrap().iter().filter(|line| line["up"] == true).count();
            let line = &status["regions"][0];
            let away_ms = line["round_trip_ms"].as_u64().unwrap_or(0);
            up == 6 && line["state"] == "holds" && away_ms >= 300
        });
    }
}

#[test]
fn what_is_promised_is_set_and_said_and_status_begins_with_it() {
    let cluster = two_regions();
    let text = cluster.mailraft(&["status"], "");
    let first = "survives: any one node; loss of region home, 0 accepted mail lost (by hand). NOT: loss of home and south \
                 together";
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(first));
    assert!(lines.next().unwrap().starts_with("south holds all that was answered; "), "{text}");
    let show = || cluster.mailraft(&["region", "show"], "");
    let promise = "durability geo: while answers wait, a loss of region home loses no mail that was answered\n";
    let shown = show();
    assert!(shown.starts_with(promise), "{shown}");
    let set = |args: &[&str]| cluster.runs(&[&["region", "set"], args].concat(), "");
    assert!(set(&["--durability", "region", "--rpo-max", "700ms", "--unconfirmed", "refuse"]).status.success());
    let shown: Value = serde_json::from_str(&cluster.mailraft(&["region", "show", "--json"], "")).unwrap();
    assert_eq!((&shown["durability"], &shown["rpo_max_ms"]), (&Value::from("region"), &Value::from(700)));
    assert_eq!((&shown["unconfirmed"], &shown["degrade_after_ms"]), (&Value::from("refuse"), &Value::from(60_000)));
    let listed: Value = serde_json::from_str(&cluster.mailraft(&["region", "list", "--json"], "")).unwrap();
    assert_eq!(listed[1]["nodes"], serde_json::json!([4, 5, 6]));
    assert_eq!(set(&["--rpo-max", "1s"]).status.code(), Some(2));
    assert_eq!(set(&[]).status.code(), Some(2));
    let refused = set(&["--degrade-after", "1ms"]);
    assert!(refused.status.code() == Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    // Who serves is asked, not a node of the backup that has not heard of it yet.
    for (to, is_said) in
        [("geo", "durability geo"), ("region", "durability region"), ("geo", "durability geo")].repeat(5)
    {
        assert!(set(&["--durability", to]).status.success());
        let shown = show();
        assert!(shown.starts_with(is_said), "{shown}");
    }
    for name in ["mailraft_region_in_sync", "mailraft_region_sent_bytes_total"] {
        cluster.wait(name, |cluster| cluster.node_ids().iter().any(|node| cluster.metric(*node, name) > 0.0));
    }
}

#[test]
fn what_was_answered_by_an_earlier_promise_is_said_to_be_missing_until_it_is_held() {
    let (cluster, wan) = two_regions_apart(Duration::from_millis(40));
    cluster.mailraft(&["region", "set", "--durability", "region", "--rpo-max", "60s"], "");
    until_accepted(&cluster, "before");
    let state = |cluster: &Cluster| cluster.status(1).map(|status| status["regions"][0]["state"].clone());
    cluster.wait("south holds all", |cluster| state(cluster).is_some_and(|state| state == "holds"));
    wan.cut(true);
    // These run ahead of south by what is promised.
    let mut smtp = smtp(&cluster);
    for number in 0..5 {
        accepted_at(&submit(&cluster, &mut smtp, &format!("ahead{number}")));
    }
    cluster.mailraft(&["region", "set", "--durability", "geo"], "");
    cluster.wait("it is said", |cluster| state(cluster).is_some_and(|state| state == "returning"));
    let survives = cluster.status(1).unwrap()["survives"].clone();
    assert!(survives.as_str().unwrap().ends_with("NOT: loss of region home"), "{survives}");
    wan.cut(false);
    cluster.wait("nothing is missing", |cluster| state(cluster).is_some_and(|state| state == "holds"));
    until_accepted(&cluster, "after");
}

#[test]
fn what_is_answered_is_in_the_backup_and_without_it_new_mail_waits_and_reading_goes_on() {
    let mut cluster = two_regions();
    let (partition, index) = accepted_at(&submit(&cluster, &mut smtp(&cluster), "before"));
    let south = cluster.nodes_in("south");
    let holding = south.iter().filter(|node| last(&cluster, **node, partition) >= index).count();
    assert!(holding >= 2, "{holding} of three standbys have what was answered");
    // For as long as it takes here.
    cluster.mailraft(&["region", "set", "--unconfirmed", "refuse"], "");
    let mut reading = imap(&cluster);
    reading.ok("SELECT INBOX").unwrap();
    let (before, control_before) = (last(&cluster, 1, partition), last(&cluster, 1, 0));

    south.iter().for_each(|node| cluster.kill(*node));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let cluster = &cluster;
        let in_doubt = scope.spawn(|| cluster.runs(&["domain", "create", "first.test"], ""));
        let waits = scope.spawn(move || (submit(cluster, &mut smtp(cluster), "waits"), begun.elapsed()));
        cluster.wait("both are in the log", |cluster| {
            last(cluster, 1, partition) > before && last(cluster, 1, 0) > control_before
        });
        // Behind it, until the region has been silent for 5 s.
        let said = submit(cluster, &mut smtp(cluster), "queued");
        let took = begun.elapsed();
        let not_confirmed = |said: &SmtpReply| match said {
            SmtpReply::Refused(451, words) => words.starts_with("4.3.0") && words.contains("has not confirmed"),
            SmtpReply::Refused(..) | SmtpReply::Accepted { .. } => false,
        };
        assert!(not_confirmed(&said) && (3..9).contains(&took.as_secs()), "{said:?} after {took:?}");
        let again = Instant::now();
        let said = submit(cluster, &mut smtp(cluster), "refused");
        assert!(not_confirmed(&said) && again.elapsed() < Duration::from_secs(2), "{said:?}");
        let large = format!("Subject: large\r\n\r\n{}\r\n", "0123456789abcdef\r\n".repeat(40_000));
        let to = cluster.account(1).address;
        let said = smtp(cluster).send(&cluster.account(0).address, &to, large.as_bytes()).unwrap();
        assert!(not_confirmed(&said), "{said:?}");

        let message = "Subject: appended\r\n\r\nx\r\n";
        for command in [
            format!("APPEND INBOX {{{}+}}\r\n{message}", message.len()),
            "STORE 1 +FLAGS (\\Flagged)".to_owned(),
            "CREATE new".to_owned(),
        ] {
            let answer = reading.command(&command).unwrap();
            assert!(answer.starts_with("NO [UNAVAILABLE]") && answer.contains("has not confirmed"), "{answer}");
        }
        let mut pop3 = Wire::connect(&trust(cluster), &cluster.text(3, "pop3s")).unwrap();
        let bob = cluster.account(1);
        pop3.line().unwrap();
        for command in [format!("USER {}", bob.address), format!("PASS {}", bob.password), "DELE 1".to_owned()] {
            pop3.send(format!("{command}\r\n").as_bytes()).unwrap();
            let line = pop3.line().unwrap();
            assert!(line.starts_with("+OK"), "{command}: {line}");
        }
        pop3.send(b"QUIT\r\n").unwrap();
        let line = pop3.line().unwrap();
        assert!(line.starts_with("-ERR [SYS/TEMP] no message was removed"), "{line}");

        let reads = |imap: &mut Imap| {
            imap.ok("FETCH 1 (BODY.PEEK[])").unwrap();
            assert!(imap.untagged.iter().any(|line| line.contains("zebrabody")), "{:?}", imap.untagged);
        };
        // A change of the directory is in doubt, which stops nobody who comes; a wrong password is not called wrong.
        let mut anew = imap(cluster);
        anew.ok("SELECT INBOX").unwrap();
        assert!(anew.untagged.iter().any(|line| line == "* 1 EXISTS"), "{:?}", anew.untagged);
        reads(&mut anew);
        let mut wrong = Wire::connect(&trust(cluster), &cluster.text(2, "imaps")).unwrap();
        wrong.line().unwrap();
        wrong.send(format!("a LOGIN {} not-hers\r\n", cluster.account(1).address).as_bytes()).unwrap();
        let refused = wrong.line().unwrap();
        assert!(refused.starts_with("* BYE [UNAVAILABLE]"), "{refused}");
        // Reading a message marks it as seen, where that can be.
        anew.ok("FETCH 1 BODY[]").unwrap();
        let heard = anew.untagged.join("\n");
        assert!(heard.contains("zebrabody") && !heard.contains("\\Seen"), "{heard}");
        assert!(cluster.get(1, "/readyz").is_ok());
        let next = cluster.runs(&["domain", "create", "next.test"], "");
        let said = String::from_utf8_lossy(&next.stderr).into_owned();
        assert!(next.status.code() == Some(1) && said.contains("has not confirmed"), "{said}");

        reads(&mut reading);
        assert_eq!(in_doubt.join().unwrap().status.code(), Some(3));
        let (said, took) = waits.join().unwrap();
        assert!(matches!(&said, SmtpReply::Refused(451, words) if words.contains("not known")), "{said:?}");
        assert!((58..70).contains(&took.as_secs()), "{took:?}");
        reads(&mut reading);
        reads(&mut anew);
    });

    south.iter().for_each(|node| cluster.start(*node));
    cluster.wait_until_caught_up();
    until_accepted(&cluster, "after");
    // What nobody was told of was done, and its repeat is the same.
    until_accepted(&cluster, "waits");
    let mut imap = imap(&cluster);
    imap.ok("SELECT INBOX").unwrap();
    let mut subjects: Vec<String> = imap.subjects().unwrap().into_iter().map(|(_, subject)| subject).collect();
    subjects.sort();
    assert_eq!(subjects, ["after", "before", "waits"]);
    assert!(cluster.mailraft(&["domain", "list"], "").contains("first.test"));
}

/// South is lost for good while nothing may be answered without it: the operator says otherwise, whatever waits for south and
/// whoever leads.
#[test]
fn who_has_lost_the_backup_lets_the_home_go_on_alone_whatever_waits_for_it_and_whoever_leads() {
    let mut cluster = two_regions();
    accepted_at(&submit(&cluster, &mut smtp(&cluster), "before"));
    cluster.mailraft(&["region", "set", "--unconfirmed", "refuse", "--degrade-after", "2s"], "");
    cluster.nodes_in("south").into_iter().for_each(|node| cluster.kill(node));
    let before = last(&cluster, 1, 0);
    let in_doubt = cluster.runs(&["domain", "create", "late.test"], "");
    assert_eq!(in_doubt.status.code(), Some(3), "{}", String::from_utf8_lossy(&in_doubt.stderr));
    assert!(last(&cluster, 1, 0) > before, "it is in the log, and waits for south");
    let dead = leader(&cluster, 0).unwrap();
    cluster.kill(dead);
    let alive = *cluster.nodes_in("home").iter().find(|node| **node != dead).unwrap();
    let begun = Instant::now();
    cluster.wait("settings are changed", |cluster| {
        cluster.runs(&["region", "set", "--unconfirmed", "degrade"], "").status.success()
    });
    println!("settings are changed {:?} after the leader died", begun.elapsed());
    until_accepted_at(&cluster, alive, "alone");
    println!("and mail is accepted alone after {:?}", begun.elapsed());
    cluster.wait("it is said", |cluster| {
        let in_sync = cluster.metric(alive, "mailraft_region_in_sync");
        in_sync == 0.0 && cluster.status(alive).is_some_and(|status| status["regions"][0]["state"] == "alone")
    });
    // What waited is done now.
    cluster.wait("the domain is there", |cluster| {
        String::from_utf8_lossy(&cluster.runs(&["domain", "list"], "").stdout).contains("late.test")
    });
    // And back: answers wait for south again, which has everything.
    cluster.start(dead);
    cluster.nodes_in("south").into_iter().for_each(|node| cluster.start(node));
    cluster.wait("south holds all again", |cluster| {
        cluster.status(alive).is_some_and(|status| status["regions"][0]["state"] == "holds")
    });
}

/// South is given up and taken back.
#[test]
fn a_backup_is_taken_out_while_it_is_away_and_has_everything_before_answers_wait_for_it_again() {
    let mut cluster = two_regions();
    cluster.mailraft(&["region", "set", "--unconfirmed", "refuse"], "");
    cluster.nodes_in("south").into_iter().for_each(|node| cluster.kill(node));
    let region = |cluster: &Cluster, args: &[&str]| cluster.runs(&[&["region"], args].concat(), "");
    assert_eq!(region(&cluster, &["remove", "south"]).status.code(), Some(1), "not without --yes");
    let said = region(&cluster, &["remove", "home", "--yes"]);
    assert!(said.status.code() == Some(1) && String::from_utf8_lossy(&said.stderr).contains("home region"), "{said:?}");
    cluster.mailraft(&["region", "remove", "south", "--yes"], "");
    until_accepted(&cluster, "without");
    cluster.wait("it is said, and no problem any more", |cluster| {
        cluster.status(1).is_some_and(|status| {
            let survives = status["survives"].as_str().unwrap_or_default();
            let removed = status["regions"][0]["state"] == "removed";
            removed && survives.ends_with("as there is no backup region") && status["healthy"] == true
        })
    });
    assert!(cluster.mailraft(&["region", "list"], "").contains("south  backup that is taken out"));
    let refused = region(&cluster, &["add", "south"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("degrade first"), "{refused:?}");
    cluster.nodes_in("south").into_iter().for_each(|node| cluster.start(node));
    cluster.mailraft(&["region", "set", "--unconfirmed", "degrade"], "");
    cluster.mailraft(&["region", "add", "south"], "");
    cluster.wait("south holds all again", |cluster| {
        cluster.status(1).is_some_and(|status| status["regions"][0]["state"] == "holds")
    });
    let (partition, index) = accepted_at(&submit(&cluster, &mut smtp(&cluster), "with"));
    let south = cluster.nodes_in("south");
    let holding = south.iter().filter(|node| last(&cluster, **node, partition) >= index).count();
    assert!(holding >= 2, "{holding} of three standbys have what was answered");
}

/// South is given up, and taken back once the log that it lacks is gone.
#[test]
fn a_backup_that_needs_a_copy_is_being_filled_and_it_is_said_how_far_that_is() {
    let mut cluster = Cluster::start_regions("home=3,south=3", 6, &|config| {
        config
            .replace("log_keep = 50000 ", "log_keep = 10 ")
            .replace("flush_interval_ms = 5000 ", "flush_interval_ms = 300 ")
            .replace("region_snapshot_bytes_per_second = 20000000", "region_snapshot_bytes_per_second = 400000")
    });
    cluster.nodes_in("south").into_iter().for_each(|node| cluster.kill(node));
    cluster.mailraft(&["region", "remove", "south", "--yes"], "");
    until_accepted(&cluster, "first");
    let body = "x".repeat(76) + "\r\n";
    let mut smtp = smtp(&cluster);
    let (from, to) = (cluster.account(0).address, cluster.account(1).address);
    let mut send = |number: usize, lines: usize| {
        let message = format!("Subject: {number}\r\nMessage-ID: <{number}@chaos.test>\r\n\r\n{}", body.repeat(lines));
        accepted_at(&smtp.send(&from, &to, message.as_bytes()).unwrap())
    };
    let (partition, _) = send(0, 1);
    for number in 1..30 {
        send(number, 1_000);
    }
    let mut number = 30;
    let first = |cluster: &Cluster| replica(cluster, leader(cluster, partition)?, partition)?["first"].as_u64();
    cluster.wait("the log that south lacks is gone", |cluster| {
        send(number, 1);
        number += 1;
        first(cluster).is_some_and(|first| first > 60)
    });
    cluster.nodes_in("south").into_iter().for_each(|node| cluster.start(node));
    cluster.mailraft(&["region", "add", "south"], "");
    let sentence = |cluster: &Cluster| {
        let status = cluster.status(1)?;
        Some((status["regions"][0]["state"].clone(), status["regions"][0]["sentence"].as_str()?.to_owned()))
    };
    cluster.wait("it is said how far it is filled", |cluster| {
        sentence(cluster).is_some_and(|(_, said)| {
            let filled = said.split_once("south is being filled: ").map(|(_, filled)| filled);
            filled.is_some_and(|filled| filled.contains(" of 17 partitions"))
        })
    });
    cluster.wait("south holds all", |cluster| sentence(cluster).is_some_and(|(state, _)| state == "holds"));
}
