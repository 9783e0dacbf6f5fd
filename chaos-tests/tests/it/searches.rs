//! Searches that an index narrows: whatever it knows, each finds what the messages hold, on any node, and after its owner is gone.

use std::collections::BTreeMap;

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::imap::Imap;
use mailraft_chaos::wire::Trust;
use serde_json::Value;

/// Messages of which each is searched for by a word of its own.
const MESSAGES: u32 = 60;

/// What each message that is there says.
type Model = BTreeMap<u32, String>;

fn append(imap: &mut Imap, model: &mut Model, words: &str) {
    // The middle lies beyond the first chunk in some.
    let filler = "rauschen ".repeat(if model.len().is_multiple_of(9) { 40_000 } else { 40 });
    let message = format!("Subject: {words} im Betreff\r\n\r\n{filler}\r\nKirschen {words} und Brot\r\n");
    let answer = imap.ok(&format!("APPEND INBOX {{{}+}}\r\n{message}", message.len())).unwrap();
    let uid = answer.split("[APPENDUID ").nth(1).and_then(|rest| rest.split([' ', ']']).nth(1)).unwrap();
    model.insert(uid.parse().unwrap(), words.to_owned());
}

/// Each search finds exactly what the model has.
fn check(imap: &mut Imap, model: &Model, when: &str) {
    let mut search = |key: &str, holds: &dyn Fn(&str) -> bool| {
        imap.ok(&format!("UID SEARCH {key}")).unwrap();
        let found: String = model.iter().filter(|(_, words)| holds(words)).map(|(uid, _)| format!(" {uid}")).collect();
        let heard: Vec<&String> = imap.untagged.iter().filter(|line| line.starts_with("* SEARCH")).collect();
        assert_eq!(heard, [&format!("* SEARCH{found}")], "{when}: {key}");
    };
    for (_, words) in model.iter().step_by(7) {
        let own = words.clone();
        search(&format!("BODY \"{words} und\""), &move |words: &str| words == own);
    }
    search("TEXT nirgends", &|_| false);
    search("BODY betreff", &|_| false);
    search("TEXT betreff", &|_| true);
    search("NOT BODY wort1", &|words| !words.starts_with("wort1"));
    search("OR BODY wort2 BODY wort33x", &|words| words.starts_with("wort2") || words.starts_with("wort33x"));
    search("BODY t4", &|words| words.starts_with("wort4"));
}

#[test]
fn whatever_the_index_knows_a_search_finds_what_is_there_on_any_node_and_after_a_failover() {
    let mut cluster = Cluster::start_new(|config| config);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let login =
        |cluster: &Cluster, node: u64| Imap::login(&trust, &cluster.text(node, "imaps"), &cluster.account(0)).unwrap();
    let select = |cluster: &Cluster, node: u64| {
        let mut imap = login(cluster, node);
        imap.ok("SELECT INBOX").unwrap();
        imap
    };
    let mut model = Model::new();
    let mut filling = login(&cluster, 1);
    (0..MESSAGES).for_each(|n| append(&mut filling, &mut model, &format!("wort{n}x")));
    check(&mut select(&cluster, 1), &model, "the first time");
    let indexed: f64 = cluster.node_ids().iter().map(|node| cluster.metric(*node, "mailraft_search_index_bytes")).sum();
    assert!(indexed > 0.0, "the first searches made an index");
    for node in cluster.node_ids() {
        check(&mut select(&cluster, node), &model, &format!("again, at node {node}"));
    }

    // Some go, one is moved away and back, and others come: by another node each.
    let mut second = select(&cluster, 2);
    second.ok("UID STORE 5:9 +FLAGS.SILENT (\\Deleted)").unwrap();
    second.ok("EXPUNGE").unwrap();
    model.retain(|uid, _| !(5..=9).contains(uid));
    second.ok("UID MOVE 20 Trash").unwrap();
    second.ok("SELECT Trash").unwrap();
    second.ok("MOVE 1 INBOX").unwrap();
    let moved = model.remove(&20).unwrap();
    model.insert(MESSAGES + 1, moved);
    let mut third = login(&cluster, 3);
    (0..7).for_each(|n| append(&mut third, &mut model, &format!("wort{}y", 400 + n)));
    for node in cluster.node_ids() {
        check(&mut select(&cluster, node), &model, &format!("after changes, at node {node}"));
    }

    let accounts: Value = serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).unwrap();
    let alice = cluster.account(0).address;
    let line = accounts.as_array().unwrap().iter().find(|line| line["address"] == alice.as_str()).unwrap();
    let status = cluster.status(1).unwrap();
    let partitions = status["partitions"].as_array().unwrap();
    let leads =
        partitions.iter().find(|p| p["partition"] == line["partition"]).and_then(|p| p["leader"].as_u64()).unwrap();
    let left = cluster.node_ids().into_iter().find(|node| *node != leads).unwrap();
    let mut stays = select(&cluster, left);
    cluster.kill(leads);
    cluster.wait("another leader", |_| stays.ok("NOOP").is_ok() && stays.ok("UID SEARCH ALL").is_ok());
    check(&mut stays, &model, "after a failover");
    append(&mut login(&cluster, left), &mut model, "wort777y");
    stays.ok("NOOP").unwrap();
    check(&mut stays, &model, "after a failover, again");
}
