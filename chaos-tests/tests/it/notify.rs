//! Sessions that are notified of what others do (RFC 5465), at other nodes than those, and over a failover.

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::imap::{Ended, Imap};
use mailraft_chaos::wire::Trust;
use serde_json::Value;

fn append(folder: &str, subject: &str) -> String {
    let message = format!("Subject: {subject}\r\n\r\nhello\r\n");
    format!("APPEND {folder} {{{}+}}\r\n{message}", message.len())
}

/// Who leads the partition of the first account.
fn leader(cluster: &Cluster) -> u64 {
    let accounts: Value = serde_json::from_str(&cluster.mailraft(&["account", "list", "--json"], "")).unwrap();
    let alice = cluster.account(0).address;
    let line = accounts.as_array().unwrap().iter().find(|line| line["address"] == alice.as_str()).unwrap();
    let status = cluster.status(1).unwrap();
    let partitions = status["partitions"].as_array().unwrap();
    partitions.iter().find(|p| p["partition"] == line["partition"]).and_then(|p| p["leader"].as_u64()).unwrap()
}

#[test]
fn who_is_notified_hears_what_sessions_at_other_nodes_do_also_after_a_failover() {
    let mut cluster = Cluster::start_new(|config| config);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let leads = leader(&cluster);
    let others: Vec<u64> = cluster.node_ids().into_iter().filter(|node| *node != leads).collect();
    let login =
        |cluster: &Cluster, node: u64| Imap::login(&trust, &cluster.text(node, "imaps"), &cluster.account(0)).unwrap();
    let (mut notified, mut other) = (login(&cluster, others[0]), login(&cluster, others[1]));
    let mut silent = login(&cluster, others[0]);
    silent.ok("SELECT INBOX").unwrap();
    notified.ok("SELECT INBOX").unwrap();
    let events = "MessageNew MessageExpunge FlagChange";
    let asked = format!(
        "NOTIFY SET STATUS (SELECTED (MessageNew (UID) MessageExpunge FlagChange)) \
         (PERSONAL ({events} MailboxName SubscriptionChange))"
    );
    notified.ok(&asked).unwrap();
    let statuses = notified.untagged.iter().filter(|line| line.starts_with("* STATUS ")).count();
    assert_eq!(statuses, 5, "all folders but the open one: {:?}", notified.untagged);

    other.ok(&append("Trash", "first")).unwrap();
    notified.hear_begin("* STATUS \"Trash\" (MESSAGES 1 UIDNEXT 2 ").unwrap();
    other.ok("CREATE Lists").unwrap();
    notified.hear_begin("* LIST (\\HasNoChildren) \"/\" \"Lists\"").unwrap();
    other.ok("RENAME Lists News").unwrap();
    notified.hear_begin("* LIST (\\HasNoChildren) \"/\" \"News\" (\"OLDNAME\" (\"Lists\"))").unwrap();
    other.ok("SUBSCRIBE News").unwrap();
    notified.hear_begin("* LIST (\\HasNoChildren \\Subscribed) \"/\" \"News\"").unwrap();
    notified.ok("RENAME News Papers").unwrap();
    assert_eq!(notified.untagged, [""; 0], "what it does itself is no news");
    other.ok(&append("Papers", "in a folder that it renamed itself")).unwrap();
    notified.hear_begin("* STATUS \"Papers\" (MESSAGES 1 UIDNEXT 2 ").unwrap();
    notified.ok("CREATE Mine").unwrap();
    other.ok("RENAME Mine Yours").unwrap();
    notified.hear_begin("* LIST (\\HasNoChildren) \"/\" \"Yours\" (\"OLDNAME\" (\"Mine\"))").unwrap();
    other.ok("RENAME Papers News").unwrap();
    notified.hear_begin("* LIST (\\HasNoChildren \\Subscribed) \"/\" \"News\" (\"OLDNAME\" (\"Papers\"))").unwrap();
    other.ok(&append("INBOX", "second")).unwrap();
    notified.hear_begin("* 1 EXISTS").unwrap();
    notified.hear_begin("* 1 FETCH (UID 1)").unwrap();
    other.ok("SELECT INBOX").unwrap();
    other.ok("STORE 1 +FLAGS (\\Deleted)").unwrap();
    notified.hear_begin("* 1 FETCH (UID 1 FLAGS (\\Deleted").unwrap();
    other.ok("EXPUNGE").unwrap();
    notified.hear_begin("* 1 EXPUNGE").unwrap();

    cluster.kill(leads);
    // Asked again it is done once.
    cluster.wait("another leader", |cluster| {
        let address = cluster.text(others[1], "imaps");
        let ended = Imap::login(&trust, &address, &cluster.account(0))
            .and_then(|mut imap| imap.ends(&append("Archive", "third")));
        matches!(ended, Ok(Ended::Tagged(tagged)) if tagged.starts_with("OK"))
    });
    notified.hear_begin("* STATUS \"Archive\" (MESSAGES 1 UIDNEXT 2 ").unwrap();
    let mut other = login(&cluster, others[1]);
    other.ok("DELETE News").unwrap();
    notified.hear_begin("* LIST (\\NonExistent \\HasNoChildren \\Subscribed) \"/\" \"News\"").unwrap();
    other.ok(&append("INBOX", "fourth")).unwrap();
    notified.hear_begin("* 1 FETCH (UID 2)").unwrap();

    notified.ok("NOTIFY NONE").unwrap();
    other.ok(&append("Trash", "fifth")).unwrap();
    other.ok(&append("INBOX", "sixth")).unwrap();
    notified.ok("UID SEARCH ALL").unwrap();
    assert_eq!(notified.untagged, ["* SEARCH 2"], "it has what it was told, and hears nothing more");
    notified.ok("NOOP").unwrap();
    assert!(notified.untagged.contains(&"* 2 EXISTS".to_owned()), "{:?}", notified.untagged);
    silent.ok("NOOP").unwrap();
    let told = silent.untagged.iter().filter(|line| line.starts_with("* STATUS") || line.starts_with("* LIST")).count();
    assert_eq!(told, 0, "who did not ask for it is not notified: {:?}", silent.untagged);
}
