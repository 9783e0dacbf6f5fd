//! What clients of real processes hear while no majority answers, and what a repeat of the same then comes to.

use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::imap::{Ended, Imap};
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;
use rustix::process::Signal;
use serde_json::Value;

/// Messages of one APPEND.
const SEVERAL: usize = 12;
/// How long an APPEND of several is under way when its leader dies.
const KILLED_AFTER_MILLIS: [u64; 6] = [0, 4, 10, 20, 40, 80];
const DATE: &str = "\" 1-Feb-1996 00:00:00 +0100\"";

fn append(subject: &str) -> String {
    let message = format!("Subject: {subject}\r\n\r\nhello\r\n");
    format!("APPEND INBOX (\\Seen) {DATE} {{{}+}}\r\n{message}", message.len())
}

/// One APPEND of several messages, with so many lines in the second.
fn append_several(subject: &str, lines: usize) -> String {
    let literal = |number: usize| {
        let body = "a line of which there are some or many\r\n".repeat(if number == 1 { lines } else { 3 });
        let message = format!("Subject: {subject}\r\nX-Number: {number}\r\n\r\n{body}");
        format!(" (\\Seen) {DATE} {{{}+}}\r\n{message}", message.len())
    };
    let all: String = (0..SEVERAL).map(literal).collect();
    format!("APPEND INBOX{all}")
}

/// The UIDs of the messages with a subject.
fn uids(imap: &mut Imap, folder: &str, subject: &str) -> Vec<u32> {
    imap.ok(&format!("SELECT {folder}")).unwrap();
    if imap.untagged.iter().any(|line| line == "* 0 EXISTS") {
        return Vec::new();
    }
    imap.subjects().unwrap().into_iter().filter(|(_, s)| s == subject).map(|(uid, _)| uid).collect()
}

fn appended(ended: Ended) -> u32 {
    let Ended::Tagged(line) = &ended else { panic!("{ended:?}") };
    let code = line.strip_prefix("OK [APPENDUID ").and_then(|rest| rest.split(']').next());
    code.and_then(|code| code.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

fn appended_several(ended: &Ended) -> Vec<u32> {
    let Ended::Tagged(line) = ended else { panic!("{ended:?}") };
    let code = line.strip_prefix("OK [APPENDUID ").and_then(|rest| rest.split([']', ' ']).nth(1));
    let (first, last) = code.and_then(|set| set.split_once(':')).unwrap_or_else(|| panic!("{line}"));
    (first.parse().unwrap()..=last.parse().unwrap()).collect()
}

struct Outage {
    cluster: Cluster,
    trust: Trust,
    /// Alice's partition.
    partition: u64,
    /// It leads that partition, and goes on.
    left: u64,
    stopped: [u64; 2],
}

impl Outage {
    fn new() -> Self {
        let cluster = Cluster::start_new(|config| config);
        let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
        let accounts: Value = serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).unwrap();
        let alice = cluster.account(0).address;
        let line = accounts.as_array().unwrap().iter().find(|line| line["address"] == alice.as_str()).unwrap();
        let status = cluster.status(1).unwrap();
        let partitions = status["partitions"].as_array().unwrap();
        let partition = partitions.iter().find(|p| p["partition"] == line["partition"]).unwrap();
        let left = partition["leader"].as_u64().unwrap();
        let others: Vec<u64> = cluster.node_ids().into_iter().filter(|node| *node != left).collect();
        let partition = line["partition"].as_u64().unwrap();
        Outage { cluster, trust, partition, left, stopped: [others[0], others[1]] }
    }

    /// Who leads the partition, as this node knows it.
    fn leader(&self, node: u64) -> u64 {
        let status = self.cluster.status(node).unwrap();
        let partitions = status["partitions"].as_array().unwrap();
        partitions.iter().find(|p| p["partition"] == self.partition).and_then(|p| p["leader"].as_u64()).unwrap()
    }

    /// Asks again, at this node, for several messages that were appended or not, all or none: then they are there once.
    fn repeats_several(&self, node: u64, subject: &str, lines: usize) -> Vec<u32> {
        let mut imap = self.imap_in_time(node);
        let first = uids(&mut imap, "INBOX", subject);
        assert!(first.is_empty() || first.len() == SEVERAL, "{subject}: a part of them: {first:?}");
        let again = appended_several(&imap.ends(&append_several(subject, lines)).unwrap());
        assert!(first.is_empty() || again == first, "{subject}: {first:?}, and then {again:?}");
        assert_eq!(uids(&mut imap, "INBOX", subject), again);
        first
    }

    /// The replica of who goes on, as that says itself.
    fn replica(&self) -> Value {
        let status: Value =
            serde_json::from_str(&self.cluster.get(self.left, "/api/v1/status/local").unwrap()).unwrap();
        let replicas = status["partitions"].as_array().unwrap();
        replicas.iter().find(|r| r["partition"] == self.partition).unwrap().clone()
    }

    /// The last entry in the log of who goes on.
    fn last(&self) -> u64 {
        self.replica()["last"].as_u64().unwrap()
    }

    /// Stops all but who leads, also where the lead moves meanwhile. A session there.
    fn begins_where_it_is_led(&mut self) -> Imap {
        for _ in 0..10 {
            self.left = self.leader(self.left);
            let others: Vec<u64> = self.cluster.node_ids().into_iter().filter(|node| *node != self.left).collect();
            self.stopped = [others[0], others[1]];
            let imap = self.imap(self.left);
            self.begins();
            // A leader alone knows of followers.
            if self.replica()["followers"].as_array().is_some_and(|followers| !followers.is_empty()) {
                return imap;
            }
            self.ends();
            self.cluster.wait_until_caught_up();
        }
        panic!("the lead moved ten times");
    }

    fn begins(&self) {
        self.stopped.iter().for_each(|node| self.cluster.signal(*node, Signal::STOP));
    }

    fn ends(&self) {
        self.stopped.iter().for_each(|node| self.cluster.signal(*node, Signal::CONT));
    }

    fn imap(&self, node: u64) -> Imap {
        Imap::login(&self.trust, &self.cluster.text(node, "imaps"), &self.cluster.account(0)).unwrap()
    }

    /// A session at a node that may not reach a majority yet.
    fn imap_in_time(&self, node: u64) -> Imap {
        let mut session = None;
        self.cluster.wait("a session that may select", |cluster| {
            let login = Imap::login(&self.trust, &cluster.text(node, "imaps"), &cluster.account(0));
            session = login.ok().and_then(|mut imap| imap.ok("SELECT INBOX").ok().map(|_| imap));
            session.is_some()
        });
        session.unwrap()
    }

    fn smtp(&self, node: u64) -> Smtp {
        Smtp::login(&self.trust, &self.cluster.text(node, "submissions"), &self.cluster.account(1)).unwrap()
    }

    fn submit(&self, smtp: &mut Smtp) -> SmtpReply {
        let (from, to) = (self.cluster.account(1).address, self.cluster.account(0).address);
        smtp.send(&from, &to, b"Subject: submitted\r\n\r\nhello\r\n").unwrap()
    }
}

#[test]
fn what_may_have_been_done_is_told_as_unknown_and_done_once_if_it_is_repeated() {
    let mut outage = Outage::new();
    let left = outage.left;
    let mut appending = outage.imap(left);
    appended(appending.ends(&append("source")).unwrap());
    let (mut copying, mut submitting) = (outage.imap(left), outage.smtp(left));
    let source = uids(&mut copying, "INBOX", "source");
    let copy = format!("UID COPY {} Archive", source[0]);

    outage.begins();
    std::thread::scope(|scope| {
        let last = outage.last();
        let appending = scope.spawn(move || {
            let begun = Instant::now();
            let tag = appending.begin(&append("appended")).unwrap();
            (appending.hear_end(&tag).unwrap(), begun.elapsed())
        });
        // Its entry is alone, and in the log of who is left.
        outage.cluster.wait("the message is in a log", |_| outage.last() > last);
        let (outage, copy) = (&outage, &copy);
        let copying = scope.spawn(move || copying.ends(copy).unwrap());
        let submitting = scope.spawn(move || outage.submit(&mut submitting));
        // Who asks how it is hears it soon, though the first nodes hang.
        let begun = Instant::now();
        let status = outage.cluster.runs(&["status", "--json"], "");
        let json: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!((status.status.code(), &json["healthy"]), (Some(1), &Value::Bool(false)));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());

        let (ended, took) = appending.join().unwrap();
        assert!(matches!(&ended, Ended::Bye(words) if words.contains("not known")), "{ended:?}");
        assert!((28..=40).contains(&took.as_secs()), "{took:?}");
        let ended = copying.join().unwrap();
        assert!(matches!(&ended, Ended::Bye(words) if words.contains("not known")), "{ended:?}");
        let said = submitting.join().unwrap();
        assert!(matches!(&said, SmtpReply::Refused(451, words) if words.contains("not known")), "{said:?}");
    });

    // The log of who is left has the message, so that it leads again, and what nobody was told of is done.
    let [back, dead] = outage.stopped;
    outage.cluster.kill(dead);
    outage.cluster.signal(back, Signal::CONT);
    let mut imap = outage.imap_in_time(back);
    let first = uids(&mut imap, "INBOX", "appended");
    assert_eq!(first.len(), 1, "it was done though nobody knew");
    // Twice: the first repeat's own answer was heard, so that the second is another message.
    let uid = appended(imap.ends(&append("appended")).unwrap());
    assert_eq!((uid, uids(&mut imap, "INBOX", "appended")), (first[0], first.clone()));
    let another = appended(imap.ends(&append("appended")).unwrap());
    assert_eq!(uids(&mut imap, "INBOX", "appended"), [first[0], another]);

    imap.ok("SELECT INBOX").unwrap();
    imap.ok(&copy).unwrap();
    assert_eq!(uids(&mut imap, "Archive", "source").len(), 1);
    let mut smtp = outage.smtp(back);
    for times in 1..3 {
        let said = outage.submit(&mut smtp);
        assert!(matches!(said, SmtpReply::Accepted { .. }), "{said:?}");
        assert_eq!(uids(&mut imap, "INBOX", "submitted").len(), times);
    }
    outage.cluster.start(dead);
    outage.cluster.wait_until_caught_up();
}

#[test]
fn who_waits_for_a_majority_that_comes_back_hears_what_it_came_to() {
    let outage = Outage::new();
    let mut imap = outage.imap(outage.left);
    outage.begins();
    let tag = imap.begin(&append("late")).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    outage.ends();
    let uid = appended(imap.hear_end(&tag).unwrap());
    assert_eq!(uids(&mut imap, "INBOX", "late"), [uid]);
}

#[test]
fn a_repeat_by_a_client_whose_connection_broke_is_joined() {
    let outage = Outage::new();
    for (round, node) in outage.cluster.node_ids().into_iter().enumerate() {
        let subject = format!("broke {round}");
        let mut broken = outage.imap(node);
        broken.begin(&append(&subject)).unwrap();
        let mut imap = outage.imap(outage.stopped[0]);
        outage.cluster.wait("the message is there", |_| !uids(&mut imap, "INBOX", &subject).is_empty());
        drop(broken);
        let first = uids(&mut imap, "INBOX", &subject);
        assert_eq!(appended(imap.ends(&append(&subject)).unwrap()), first[0]);
        assert_eq!(uids(&mut imap, "INBOX", &subject), first);
    }
}

#[test]
fn several_messages_in_one_log_alone_are_none_without_it_and_all_with_it() {
    let mut outage = Outage::new();
    assert!(in_one_log_alone(&mut outage, "lost", true).is_empty());
    // What came into the log may have been another entry, and the lead may have moved just before: then there are none.
    let kept = (1..=3).any(|round| in_one_log_alone(&mut outage, &format!("kept {round}"), false).len() == SEVERAL);
    assert!(kept, "what is in the log of who goes on comes to be in the mailbox");
}

/// Several messages are appended where only one log is, which goes or stays. Those that are there then, all or none.
fn in_one_log_alone(outage: &mut Outage, subject: &str, is_lost: bool) -> Vec<u32> {
    let mut appending = outage.begins_where_it_is_led();
    let ([back, dead], last) = (outage.stopped, outage.last());
    appending.begin(&append_several(subject, 3)).unwrap();
    outage.cluster.wait("they are in a log", |_| outage.last() > last);
    drop(appending);
    let gone = if is_lost { outage.left } else { dead };
    outage.cluster.kill(gone);
    outage.stopped.iter().filter(|node| **node != gone).for_each(|node| outage.cluster.signal(*node, Signal::CONT));
    let first = outage.repeats_several(back, subject, 3);
    outage.cluster.start(gone);
    outage.cluster.wait_until_caught_up();
    first
}

#[test]
fn several_messages_that_are_appended_while_their_leader_dies_are_all_there_once_or_none() {
    let mut outage = Outage::new();
    // The second goes into the log before the command that names it.
    let lines = 20_000;
    for (round, millis) in KILLED_AFTER_MILLIS.into_iter().flat_map(|millis| [millis; 2]).enumerate() {
        let subject = format!("several {round}");
        let leader = outage.leader(outage.cluster.node_ids()[round % 3]);
        let others: Vec<u64> = outage.cluster.node_ids().into_iter().filter(|node| *node != leader).collect();
        // At the node that dies, and at one that goes on with the next leader.
        let node = if round % 2 == 0 { leader } else { others[0] };
        let mut appending = outage.imap(node);
        let tag = appending.begin(&append_several(&subject, lines)).unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        outage.cluster.kill(leader);
        let ended = appending.hear_end(&tag);
        drop(appending);
        let first = outage.repeats_several(others[1], &subject, lines);
        println!("{subject}: after {millis} ms {} were there; {ended:?}", first.len());
        match ended {
            Ok(ended @ Ended::Tagged(_)) => assert_eq!(appended_several(&ended), first),
            Ok(Ended::Bye(words)) => panic!("a majority was there: {words}"),
            Err(_) => assert_eq!(node, leader, "the connection to a node that lives goes on"),
        }
        outage.cluster.start(leader);
        outage.cluster.wait_until_caught_up();
    }
}

/// Whoever heard the goodbye may begin the same anew on any node at once.
#[test]
fn who_left_in_order_has_the_same_twice_however_soon_it_is_asked_again() {
    let outage = Outage::new();
    let nodes = outage.cluster.node_ids();
    for round in 1..=10 {
        let node = nodes[round % nodes.len()];
        let mut smtp = outage.smtp(node);
        let said = outage.submit(&mut smtp);
        assert!(matches!(said, SmtpReply::Accepted { .. }), "{said:?}");
        smtp.quit().unwrap();
        let mut imap = outage.imap(node);
        appended(imap.ends(&append("left")).unwrap());
        imap.ok("LOGOUT").unwrap();
        let mut imap = outage.imap(nodes[0]);
        assert_eq!(uids(&mut imap, "INBOX", "left").len(), round);
        assert_eq!(uids(&mut imap, "INBOX", "submitted").len(), round);
    }
}

#[test]
fn a_change_of_the_directory_that_may_have_happened_is_told_as_such_and_joined_by_its_id() {
    let mut outage = Outage::new();
    outage.begins();
    let run = outage.cluster.runs(&["domain", "create", "unknown.test"], "");
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{said}");
    let id =
        said.split("--command-id ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_else(|| panic!("{said}"));
    outage.ends();
    outage.cluster.wait_until_caught_up();
    let again = ["domain", "create", "unknown.test", "--json", "--command-id", id];
    let first = outage.cluster.mailraft(&again, "");
    assert_eq!(outage.cluster.mailraft(&again, ""), first, "it was done once");
    let list: Value = serde_json::from_str(&outage.cluster.mailraft(&["domain", "list", "--json"], "")).unwrap();
    assert_eq!(list.as_array().unwrap().iter().filter(|line| line["name"] == "unknown.test").count(), 1);
    // The id stays that of the first, whatever it is given to.
    let other = outage.cluster.runs(&["domain", "create", "other.test", "--command-id", id], "");
    let said_of_other = String::from_utf8(other.stderr).unwrap();
    assert_eq!(other.status.code(), Some(1), "{said_of_other}");
    assert!(said_of_other.contains("belongs to another change"), "{said_of_other}");
    assert!(!outage.cluster.mailraft(&["domain", "list"], "").contains("other.test"));
    // Under an id of its own it is refused.
    assert_eq!(outage.cluster.runs(&["domain", "create", "unknown.test"], "").status.code(), Some(1));

    // With nobody there at all there is still JSON, and it is soon there.
    for node in outage.cluster.node_ids() {
        outage.cluster.kill(node);
    }
    let begun = Instant::now();
    let status = outage.cluster.runs(&["status", "--json"], "");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let json: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status.status.code(), &json["healthy"]), (Some(1), &Value::Bool(false)));
    assert_eq!(json["nodes"].as_array().unwrap().len(), 3);
}
