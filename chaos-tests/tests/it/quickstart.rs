//! Quickstart leaves nothing running that it does not mean to.

use std::process::Command;

use mailraft_chaos::cluster::{Cluster, binary};

/// Processes that run this cluster's nodes.
fn running(cluster: &Cluster) -> usize {
    let dir = cluster.dir.to_string_lossy().into_owned();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| std::fs::read(e.ok()?.path().join("cmdline")).ok())
        .filter(|line| {
            let line = String::from_utf8_lossy(line).replace('\0', " ");
            line.contains(" node --config ") && line.contains(&dir)
        })
        .count()
}

#[test]
fn stop_finds_nodes_started_by_hand_and_a_failed_start_leaves_none() {
    let mut cluster = Cluster::start_new(|c| c);
    cluster.kill(1);
    cluster.start(1);
    cluster.wait_until_caught_up();
    assert_eq!(running(&cluster), 3);
    let said = cluster.mailraft(&["stop"], "");
    assert_eq!(said.trim(), "stopped 3 nodes");
    assert_eq!(running(&cluster), 0);
    let taken = std::net::TcpListener::bind(cluster.text(2, "imap")).unwrap();
    let again = || Command::new(binary()).args(["quickstart", "--detach", "--dir"]).arg(&cluster.dir).output().unwrap();
    let failed = again();
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        !failed.status.success() && text.contains("node 2 did not get ready") && text.contains("can't listen"),
        "{text}"
    );
    assert_eq!(running(&cluster), 0, "a failed start left nodes running");
    drop(taken);
    let started = again();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    assert_eq!(running(&cluster), 3);
    cluster.mailraft(&["stop"], "");
}

#[test]
fn the_admin_token_does_not_leave_this_machine() {
    let token = std::env::temp_dir().join(format!("mailraft-token-{}", std::process::id()));
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let run = Command::new(binary())
        .args(["status", "--admin", "http://192.0.2.1:80", "--token-file"])
        .arg(&token)
        .output()
        .unwrap();
    std::fs::remove_file(&token).unwrap();
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && text.contains("not on loopback"), "{text}");
}
