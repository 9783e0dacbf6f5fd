//! What a user writes stands in no byte of any node's data or log.

use std::path::Path;

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::imap::Imap;
use mailraft_chaos::smtp::{Smtp, SmtpReply, base64};
use mailraft_chaos::wire::Trust;

/// Looks for these in all files below a directory, whatever the case.
pub fn search(dir: &Path, needles: &[&[u8]], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, needles, found);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for needle in needles {
            if bytes.windows(needle.len()).any(|w| w.eq_ignore_ascii_case(needle)) {
                found.push(format!("{} in {}", String::from_utf8_lossy(needle), path.display()));
            }
        }
    }
}

#[test]
fn no_marker_of_a_user_is_found_in_any_file_of_any_node() {
    let cluster = Cluster::start_new(|c| c);
    cluster.mailraft(&["account", "create", "zebraaddress@example.test", "--password-stdin"], "zebrapassword\n");
    let to = mailraft_chaos::cluster::Account {
        address: "zebraaddress@example.test".into(),
        password: "zebrapassword".into(),
    };
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut smtp = Smtp::login(&trust, &cluster.text(2, "submissions"), &to).unwrap();
    let large = format!("zebraattachment {}", "0123456789abcdef\r\n".repeat(40_000));
    for body in ["zebrabody\r\n".to_owned(), large] {
        let message = format!("Subject: zebrasubject\r\nMessage-ID: <zebraid@example.test>\r\n\r\n{body}\r\n");
        let said = smtp.send(&to.address, &to.address, message.as_bytes()).unwrap();
        assert!(matches!(said, SmtpReply::Accepted { .. }), "{said:?}");
    }
    let mut imap = Imap::login(&trust, &cluster.text(1, "imaps"), &to).unwrap();
    imap.ok("CREATE zebrafolder").unwrap();
    imap.ok("SELECT INBOX").unwrap();
    imap.ok("STORE 1:2 +FLAGS (zebrakeyword)").unwrap();
    imap.ok("COPY 1:2 zebrafolder").unwrap();
    imap.ok("SEARCH BODY zebraattachment").unwrap();
    assert_eq!(imap.untagged, ["* SEARCH 2"]);
    for node in cluster.node_ids() {
        cluster.request(node, "POST", "/api/v1/flush").unwrap();
    }
    let coded = base64(b"\0zebraaddress@example.test\0zebrapassword");
    let needles = [b"zebra".as_slice(), &coded.as_bytes()[..20]];
    let mut found = Vec::new();
    for node in cluster.node_ids() {
        search(Path::new(&cluster.text(node, "data_dir")), &needles, &mut found);
        let log = std::fs::read(cluster.text(node, "log")).unwrap();
        assert!(!log.windows(5).any(|w| w.eq_ignore_ascii_case(b"zebra")), "node {node}'s log names what a user wrote");
    }
    assert!(found.is_empty(), "{found:?}");
}
