//! A backup region takes over from its home, as an operator does it.

use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::hung_disk::HungDisk;
use mailraft_chaos::imap::Imap;
use mailraft_chaos::scenarios::{Loss, Promise, lose_home};
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;
use rustix::process::Signal;
use serde_json::Value;

use super::mbsync::{Mbsync, is_installed};

fn loses(promise: Promise, lie: bool) -> Value {
    let line = lose_home(&Loss { promise, lie, lives_cut_off: Duration::from_millis(300) }).unwrap();
    println!("{line}");
    let steps: Vec<&str> = line["steps"].as_array().unwrap().iter().filter_map(|step| step["step"].as_str()).collect();
    for step in ["adopted", "elected", "home", "serves", "unsealed", "clients", "message"] {
        assert!(steps.contains(&step), "{step} is not among {steps:?}");
    }
    line
}

#[test]
fn the_south_takes_over_from_a_home_that_is_lost_and_has_all_that_was_answered() {
    let line = loses(Promise::Geo, false);
    assert_eq!(line["lost"], 0);
    assert!(line["said"].as_str().is_some_and(|said| said.starts_with("lost: nothing, unless home was set")), "{line}");
    assert!(line["accepted_after"].as_u64() > Some(0));
}

#[test]
fn under_region_no_more_is_lost_than_was_said() {
    let line = loses(Promise::Region, false);
    let bound = "lost: of each mailbox at most 1000 ms of what was answered less than ";
    assert!(line["said"].as_str().is_some_and(|said| said.starts_with(bound)), "{line}");
}

#[test]
fn a_home_that_lives_on_seals_itself_when_it_hears_of_it() {
    let line = loses(Promise::Geo, true);
    assert!(line["lost"] == 0 && line["sealed_after_ms"].is_u64(), "{line}");
}

/// A cluster whose home answered a message and is dead, and its root key.
fn without_home() -> (Cluster, String) {
    let mut cluster = Cluster::start_regions("home=3,south=3", 6, &|config| config);
    until_accepted(&cluster, 1, "before");
    let key = std::fs::read_to_string(cluster.dir.join("node1/root.key")).unwrap();
    let heard =
        |cluster: &Cluster| said(cluster, &["--to", "south", "--dry-run"], "").1.contains("17 partitions: home heard");
    cluster.wait("all of the south says that it heard the home", heard);
    for node in cluster.nodes_in("home") {
        cluster.kill(node);
    }
    (cluster, key)
}

fn trust(cluster: &Cluster) -> Trust {
    Trust::in_file(&cluster.ca_cert()).unwrap()
}

fn until_accepted(cluster: &Cluster, node: u64, subject: &str) {
    let (from, to) = (cluster.account(0), cluster.account(1).address);
    let message = format!("Subject: {subject}\r\nMessage-ID: <{subject}@chaos.test>\r\n\r\nx\r\n");
    cluster.wait("a message is accepted", |cluster| {
        let smtp = Smtp::login(&trust(cluster), &cluster.text(node, "submissions"), &from);
        let said = smtp.and_then(|mut smtp| smtp.send(&from.address, &to, message.as_bytes()));
        matches!(said, Ok(SmtpReply::Accepted { .. }))
    });
}

fn subjects(cluster: &Cluster, node: u64) -> Vec<String> {
    let mut subjects = Vec::new();
    cluster.wait("somebody says what is there", |cluster| {
        let imap = Imap::login(&trust(cluster), &cluster.text(node, "imaps"), &cluster.account(1));
        let there = imap.and_then(|mut imap| imap.by_subject("INBOX"));
        let is_there = there.is_ok();
        subjects = there.unwrap_or_default().into_keys().collect();
        is_there
    });
    subjects
}

/// What the command says on standard output, or else on standard error.
fn said(cluster: &Cluster, args: &[&str], input: &str) -> (Option<i32>, String) {
    let run = cluster.runs(&[&["region", "failover"], args].concat(), input);
    let text = [run.stdout, run.stderr].concat();
    (run.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn an_operator_is_told_what_is_certain_asked_and_refused_in_words_and_can_go_on_after_a_break() {
    let (mut cluster, key) = without_home();
    let status = cluster.mailraft_says(&["status"]);
    for words in ["17 of 17 partitions have no leader", "mailraft region failover --to south --dry-run shows"] {
        assert!(status.contains(words), "{words} is not in:\n{status}");
    }
    for (args, words) in [
        (&["--to", "north"][..], "there is no region north: there are home, south"),
        (&["--to", "home"], "home is home already"),
        (&["--to", "home", "--dry-run"], "home is home already"),
    ] {
        let (code, text) = said(&cluster, args, "");
        // The home's own nodes would say it; the south's say where they stand.
        assert!(code == Some(1) && (text.contains(words) || text.contains("ask a node of region home")), "{text}");
    }
    let (code, text) = said(&cluster, &["--to", "south", "--dry-run"], "");
    assert_eq!(code, Some(0), "{text}");
    for words in [
        "south takes over from home.",
        "17 partitions: home heard",
        "3 of 3 standbys can vote; answers waited",
        "Certain:\n  - durability geo: south holds all that home answered",
        "May be missing:\n",
        "Who is cut off? ",
        "If home is off: lost: nothing",
    ] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    // Nobody's word, no key, no majority: nothing is done.
    let (code, text) = said(&cluster, &["--to", "south", "--yes"], "");
    assert!(code == Some(1) && text.contains("give --old-region-is-off, or set node.fence_command"), "{text}");
    // What is refused anyhow is refused before anybody types anything.
    for (args, words) in [
        (&["--to", "south"][..], "give --old-region-is-off, or set node.fence_command"),
        (&["--to", "south", "--old-region-is-off"], "can't unseal: node 4: no file is at keys.root_key_file"),
    ] {
        let (code, text) = said(&cluster, args, "south\n");
        assert!(code == Some(1) && text.contains(words) && !text.contains("Type the name"), "{text}");
    }
    // A rehearsal tries the key, and keeps nothing of it.
    let rehearsal = ["--to", "south", "--dry-run", "--root-key-stdin"];
    let (code, text) = said(&cluster, &rehearsal, &"0".repeat(64));
    assert!(code == Some(1) && text.contains("does not open this cluster's keyring"), "{text}");
    let (code, text) = said(&cluster, &rehearsal, &key);
    assert!(code == Some(0) && text.contains("The root key is this cluster's."), "{text}");
    cluster.kill(5);
    cluster.kill(6);
    let (code, text) = said(&cluster, &["--to", "south", "--old-region-is-off", "--yes"], "");
    assert!(code == Some(1) && text.contains("1 of 3 standbys of partition 0 in south can be reached"), "{text}");
    cluster.start(5);
    let ready = |cluster: &Cluster| said(cluster, &["--to", "south", "--dry-run"], "").0 == Some(0);
    cluster.wait("two of three are there", ready);
    let (code, text) = said(&cluster, &["--to", "south", "--old-region-is-off"], "south\n");
    assert!(code == Some(1) && text.contains("can't unseal: node 4: no file is at keys.root_key_file"), "{text}");
    let key_too = ["--to", "south", "--old-region-is-off", "--yes", "--root-key-stdin"];
    let (code, text) = said(&cluster, &key_too, &"0".repeat(64));
    assert!(code == Some(1) && text.contains("does not open this cluster's keyring"), "{text}");
    assert!(ready(&cluster), "nothing was taken over");
    // Two of three do it.
    let (code, text) = said(&cluster, &key_too, &key);
    assert!(code == Some(0), "{text}");
    for words in ["2 of 3 nodes adopted incarnation", "partition 0 leads in south after", "17 of 17 serve after"] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    until_accepted(&cluster, 4, "after");
    assert_eq!(subjects(&cluster, 4), ["after", "before"]);
    let shown = cluster.mailraft(&["region", "show"], "");
    assert!(shown.contains("south took over at") && shown.contains("an operator at node"), "{shown}");
    assert!(shown.contains("forks (partition:entry.term)\n  0:"), "{shown}");
    let status = cluster.mailraft_says(&["status"]);
    assert!(status.contains("NOT PROTECTED: no backup region; south took over at"), "{status}");
    // What was given is in no file of theirs.
    for node in [4, 5] {
        let mut found = Vec::new();
        super::secrecy::search(&cluster.dir.join(format!("node{node}")), &[key.trim().as_bytes()], &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
    // The third comes back, follows, and is handed the key by who runs the command again.
    cluster.start(6);
    cluster.wait("the third follows", |cluster| {
        said(cluster, &["--to", "south", "--old-region-is-off", "--root-key-stdin"], &key).0 == Some(0)
            && Imap::login(&trust(cluster), &cluster.text(6, "imaps"), &cluster.account(1)).is_ok()
    });
    assert_eq!(subjects(&cluster, 6), ["after", "before"]);
    // A node that starts again has no key, and says so.
    cluster.kill(4);
    cluster.start(4);
    cluster.wait("it waits for its key", |cluster| {
        cluster.status(4).is_some_and(|status| status["problems"].to_string().contains("node 4 opens no mailbox"))
    });
    // What it led before is served by those that have the key.
    cluster.wait("it leads nothing", |cluster| {
        let local = cluster.get(4, "/api/v1/status/local").unwrap_or_default();
        let local: Value = serde_json::from_str(&local).unwrap_or_default();
        let replicas = local["partitions"].as_array().map_or(&[][..], Vec::as_slice);
        replicas.len() == 17 && replicas.iter().all(|replica| replica["role"] == "follower")
    });
    assert_eq!(subjects(&cluster, 5), ["after", "before"]);
    gives_key(&cluster, 4, &key);
    assert_eq!(subjects(&cluster, 4), ["after", "before"]);
    // The old home comes back, and is sealed: whoever starts everything again is told, and ends nothing.
    for node in cluster.nodes_in("home") {
        cluster.start(node);
    }
    cluster.wait("the old home is sealed", |cluster| {
        cluster.status(1).is_some_and(|status| status["survives"].to_string().contains("SEALED"))
    });
    let started = cluster.mailraft(&["quickstart", "--detach"], "");
    assert!(started.contains("node 1: SEALED") && started.contains("Another region took over"), "{started}");
    assert_eq!(subjects(&cluster, 4), ["after", "before"]);
    let status = cluster.mailraft_says(&["status"]);
    assert!(!status.starts_with("SEALED") && status.contains("NOT PROTECTED: no backup region"), "{status}");
}

#[test]
fn a_fence_command_is_the_word_by_its_exit_code() {
    let script = |exit: u8| format!("fence_command = [\"sh\", \"-c\", \"echo fenced $MAILRAFT_REGION; exit {exit}\"]");
    let mut cluster = Cluster::start_regions("home=3,south=3", 6, &|config| {
        config.replace("[cluster]\n", &format!("{}\n[cluster]\n", script(7)))
    });
    let key = std::fs::read_to_string(cluster.dir.join("node1/root.key")).unwrap();
    for node in cluster.nodes_in("home") {
        cluster.kill(node);
    }
    let args = ["--to", "south", "--yes", "--root-key-stdin"];
    let (code, text) = said(&cluster, &args, &key);
    assert!(code == Some(1) && text.contains("node.fence_command sh failed (exit status: 7): fenced home"), "{text}");
    assert_eq!(said(&cluster, &["--to", "south", "--dry-run"], "").0, Some(0), "nothing was taken over");
    // Who has a key by itself is asked for the name.
    gives_key(&cluster, 6, &key);
    cluster.wait("node 6 finds its key", |cluster| {
        let (code, text) = said(cluster, &["--to", "south"], "sout\n");
        code == Some(1) && text.contains("nothing was done: that is not the region's name")
    });
    for node in cluster.nodes_in("south") {
        let config = std::fs::read_to_string(cluster.text(node, "config")).unwrap();
        std::fs::write(cluster.text(node, "config"), config.replace(&script(7), &script(0))).unwrap();
        cluster.stop(node);
        cluster.start(node);
    }
    cluster.wait("south is there again", |cluster| said(cluster, &["--to", "south", "--dry-run"], "").0 == Some(0));
    let (code, text) = said(&cluster, &args, &key);
    assert!(code == Some(0) && text.contains("node.fence_command says that home is off: fenced home after"), "{text}");
    until_accepted(&cluster, 5, "after");
}

fn gives_key(cluster: &Cluster, node: u64, key: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = cluster.dir.join(format!("node{node}/root.key"));
    std::fs::write(&path, key).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a node answers that is asked for a plan.
fn plan_of(cluster: &Cluster, node: u64, to: &str) -> Value {
    // A refusal is an error, with what the node said.
    let answer = cluster.get(node, &format!("/api/v1/failover?to={to}")).unwrap_or_else(|refused| refused.to_string());
    answer.find('{').and_then(|at| serde_json::from_str(&answer[at..]).ok()).unwrap_or_default()
}

#[test]
fn a_node_that_hangs_delays_no_takeover_and_one_that_slept_through_it_begins_no_other() {
    let (mut cluster, key) = without_home();
    cluster.signal(6, Signal::STOP);
    cluster.wait("a plan is there sooner than a node that hangs is waited for", |cluster| {
        let begun = Instant::now();
        said(cluster, &["--to", "south", "--dry-run"], "").0 == Some(0) && begun.elapsed() < Duration::from_millis(650)
    });
    let yes = ["--to", "south", "--old-region-is-off", "--yes", "--root-key-stdin"];
    let (code, text) = said(&cluster, &[&yes[..], &["--json"]].concat(), &key);
    assert_eq!(code, Some(0), "{text}");
    let said_all: Value = serde_json::from_str(text.trim()).unwrap();
    let steps = said_all["progress"]["steps"].as_array().unwrap();
    // What the asked node waited for the third before it gave the word counts.
    assert!(steps.iter().any(|step| step["step"] == "adopted" && step["after_ms"].as_u64() >= Some(150)), "{said_all}");
    let number = said_all["progress"]["incarnation"].as_u64().unwrap();

    cluster.signal(6, Signal::CONT);
    let has_begun = |cluster: &Cluster| {
        let plan = plan_of(cluster, 6, "south");
        assert!(plan["groups"].is_null(), "it would take over anew: {plan}");
        plan["code"] == "has_begun"
    };
    cluster.wait("node 6 knows of the takeover", has_begun);
    // So does one that is asked as soon as it has started.
    cluster.kill(6);
    cluster.start(6);
    cluster.wait("node 6 knows of it again", has_begun);
    let (code, text) = said(&cluster, &yes, &key);
    assert!(code == Some(0) && !text.contains("adopted incarnation"), "{text}");
    let shown = cluster.mailraft(&["region", "show"], "");
    assert_eq!(shown.matches("south took over at").count(), 1, "{shown}");
    assert!(shown.contains(&format!("incarnation {number}  south took over at")), "{shown}");

    // The old home hears of it, and says so.
    (1..=3).for_each(|node| cluster.start(node));
    cluster.wait("node 1 says that it is sealed", |cluster| {
        let answer = plan_of(cluster, 1, "home");
        answer["code"] == "sealed" && answer["error"].to_string().contains("Mail is served in region south")
    });
    let answer = plan_of(&cluster, 1, "south");
    assert!(
        answer["code"] == "sealed" && answer["error"].to_string().contains("region south took over as"),
        "{answer}"
    );
    let (code, text) = said(&cluster, &["--to", "home", "--dry-run"], "");
    assert!(code == Some(1) && (text.contains("SEALED") || text.contains("no standbys any more")), "{text}");
}

#[test]
fn a_takeover_goes_on_without_a_node_whose_disk_hangs_and_names_it() {
    let (mut cluster, key) = without_home();
    let disk = HungDisk::in_dir(&cluster.dir.join("node6")).unwrap();
    cluster.kill(6);
    cluster.start_on(6, &disk);
    let all_vote = |cluster: &Cluster| {
        let answer = said(cluster, &["--to", "south", "--dry-run"], "");
        answer.0 == Some(0) && answer.1.contains("3 of 3 standbys can vote")
    };
    cluster.wait("node 6 is there again", all_vote);
    disk.hang().unwrap();
    let yes = ["--to", "south", "--old-region-is-off", "--yes", "--root-key-stdin"];
    let (code, text) = said(&cluster, &yes, &key);
    assert!(code == Some(0) && text.contains("17 of 17 serve"), "{text}");
    assert!(text.contains("all is served without node 6") && text.contains("\nlost: "), "{text}");
    until_accepted(&cluster, 4, "after");
    disk.go_on().unwrap();
    cluster.wait("node 6 follows", |cluster| plan_of(cluster, 6, "south")["code"] == "has_begun");
    assert_eq!(subjects(&cluster, 6), ["after", "before"]);
}

#[test]
fn a_node_that_was_away_as_less_was_promised_knows_it_from_the_others_and_a_word_keeps_what_is_lost() {
    let mut cluster = Cluster::start_regions("home=3,south=3", 6, &|config| config);
    let key = std::fs::read_to_string(cluster.dir.join("node1/root.key")).unwrap();
    until_accepted(&cluster, 1, "before");
    cluster.kill(5);
    cluster.mailraft(&["region", "set", "--durability", "region", "--rpo-max", "60s"], "");
    let lost = |cluster: &Cluster, node| plan_of(cluster, node, "south")["lost"].as_str().map(str::to_owned);
    let is_said = |cluster: &Cluster, node| {
        lost(cluster, node).is_some_and(|lost| lost.starts_with("lost: of each mailbox at most 60000 ms"))
    };
    cluster.wait("node 4 knows of it", |cluster| is_said(cluster, 4));
    for node in cluster.nodes_in("home") {
        cluster.kill(node);
    }
    cluster.start(5);
    cluster.wait("node 5 has a plan", |cluster| lost(cluster, 5).is_some());
    assert!(is_said(&cluster, 5), "{:?}", lost(&cluster, 5));

    let yes = ["--to", "south", "--old-region-is-off", "--yes", "--root-key-stdin"];
    let (code, text) = said(&cluster, &yes, &key);
    assert!(code == Some(0) && text.contains("lost: of each mailbox at most 60000 ms"), "{text}");
    // Who asks later is told the same.
    let (code, text) = said(&cluster, &yes, &key);
    assert!(code == Some(0) && text.contains("lost: of each mailbox at most 60000 ms"), "{text}");
    let shown = cluster.mailraft(&["region", "show"], "");
    assert!(
        shown.contains("said that the old region is off") && shown.contains("lost: of each mailbox at most 60000 ms"),
        "{shown}"
    );
}

/// A number that the last SELECT told.
fn told(imap: &Imap, code: &str) -> u64 {
    let line = imap.untagged.iter().find_map(|line| line.split_once(&format!("[{code} "))).unwrap();
    line.1.split(']').next().unwrap().parse().unwrap()
}

/// UID and flags of every message.
fn flags(imap: &mut Imap) -> Vec<String> {
    imap.ok("UID FETCH 1:* (FLAGS)").unwrap();
    let lines = imap.untagged.iter().filter(|line| line.contains(" FETCH (")).map(|line| {
        // Not the modification sequence, which a client with QRESYNC is told too.
        let (before, rest) = line.split_once(" MODSEQ (").unwrap_or((line, ""));
        format!("{before}{}", rest.split_once(')').map_or("", |(_, rest)| rest))
    });
    lines.collect()
}

fn with_qresync(cluster: &Cluster, node: u64) -> Imap {
    let mut imap = None;
    cluster.wait("a login", |cluster| {
        imap = Imap::login(&trust(cluster), &cluster.text(node, "imaps"), &cluster.account(1)).ok();
        imap.is_some()
    });
    let mut imap = imap.unwrap();
    imap.ok("ENABLE QRESYNC").unwrap();
    imap
}

#[test]
fn mbsync_and_a_client_with_qresync_keep_their_state_over_a_takeover() {
    let mut cluster = Cluster::start_regions("home=3,south=3", 6, &|config| config);
    let key = std::fs::read_to_string(cluster.dir.join("node1/root.key")).unwrap();
    for n in 0..20 {
        until_accepted(&cluster, 1, &format!("before {n}"));
    }
    let mbsync = is_installed().then(|| Mbsync::new(&cluster, cluster.account(1)));
    if let Some(mbsync) = &mbsync {
        mbsync.until_it_is_done(&cluster, 2);
        assert_eq!(mbsync.near().len(), 20);
    }
    let mut imap = with_qresync(&cluster, 3);
    imap.ok("SELECT INBOX").unwrap();
    imap.ok("UID STORE 3:5 +FLAGS (\\Flagged)").unwrap();
    let before = flags(&mut imap);
    imap.ok("SELECT INBOX").unwrap();
    let (validity, modseq) = (told(&imap, "UIDVALIDITY"), told(&imap, "HIGHESTMODSEQ"));
    let next = told(&imap, "UIDNEXT");
    for node in cluster.nodes_in("home") {
        cluster.kill(node);
    }
    let (code, text) = said(&cluster, &["--to", "south", "--old-region-is-off", "--yes", "--root-key-stdin"], &key);
    assert_eq!(code, Some(0), "{text}");

    let mut imap = with_qresync(&cluster, 4);
    imap.ok(&format!("SELECT INBOX (QRESYNC ({validity} {modseq} 1:20))")).unwrap();
    assert_eq!(told(&imap, "UIDVALIDITY"), validity);
    assert!(told(&imap, "UIDNEXT") >= next + (1 << 20) && told(&imap, "HIGHESTMODSEQ") > modseq, "{:?}", imap.untagged);
    assert!(!imap.untagged.iter().any(|line| line.contains("VANISHED")), "{:?}", imap.untagged);
    assert_eq!(flags(&mut imap), before);
    // A client that kept messages as it heard of them, and the number of when it began, hears that they are gone; once.
    imap.ok(&format!("SELECT INBOX (QRESYNC ({validity} {modseq} 1:25))")).unwrap();
    let now = told(&imap, "HIGHESTMODSEQ");
    assert!(imap.untagged.iter().any(|line| line == "* VANISHED (EARLIER) 21:25"), "{:?}", imap.untagged);
    assert_eq!(imap.untagged.iter().filter(|line| line.contains(" FETCH (")).count(), 20, "{:?}", imap.untagged);
    imap.ok(&format!("SELECT INBOX (QRESYNC ({validity} {now} 1:20))")).unwrap();
    assert!(!imap.untagged.iter().any(|l| l.contains("VANISHED") || l.contains("FETCH")), "{:?}", imap.untagged);
    drop(imap);

    until_accepted(&cluster, 4, "far after");
    let mut expected: Vec<String> = (0..20).map(|n| format!("before {n}")).collect();
    expected.push("far after".to_owned());
    if let Some(mbsync) = &mbsync {
        mbsync.writes("near after");
        expected.push("near after".to_owned());
        expected.sort();
        let done = mbsync.until_it_is_done(&cluster, 5);
        let words = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).to_lowercase();
        assert!(["warning", "error", "uidvalidity"].iter().all(|word| !words.contains(word)), "{words}");
        assert_eq!(mbsync.near().into_keys().collect::<Vec<_>>(), expected, "here");
    }
    expected.sort();
    assert_eq!(subjects(&cluster, 6), expected, "there");
}
