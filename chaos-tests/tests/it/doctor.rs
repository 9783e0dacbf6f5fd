//! `mailraft doctor` against a real node: what it says of one that is well, and of what was made wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mailraft_chaos::cluster::{Cluster, binary};
use serde_json::Value;

/// The exit code and the findings.
fn examine(config: &Path) -> (Option<i32>, Vec<Value>) {
    let run = Command::new(binary())
        .args(["doctor", "--json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said: Value =
        serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&run.stderr)));
    assert_eq!(said["healthy"], run.status.code() == Some(0));
    (run.status.code(), said["findings"].as_array().unwrap().clone())
}

fn of<'a>(findings: &'a [Value], check: &str, verdict: &str) -> Vec<&'a str> {
    findings
        .iter()
        .filter(|f| f["check"] == check && f["verdict"] == verdict)
        .map(|f| f["found"].as_str().unwrap())
        .collect()
}

#[test]
fn a_node_that_is_well_is_told_apart_from_one_with_faults() {
    let cluster = Cluster::start_new(|text| text);
    let config = PathBuf::from(cluster.text(1, "config"));
    let (code, findings) = examine(&config);
    let bad: Vec<&Value> = findings.iter().filter(|f| f["verdict"] == "bad").collect();
    // A test's directory may be in memory, where nothing survives a power cut: rightly bad.
    assert!(bad.iter().all(|f| f["found"].as_str().unwrap().contains("gone with the power")), "{bad:?}");
    assert_eq!(code, Some(i32::from(!bad.is_empty())));
    for check in ["disk", "descriptors", "memory", "certificates", "ports", "clock", "versions"] {
        assert!(findings.iter().any(|f| f["check"] == check), "{check} was not looked at");
    }
    assert_eq!(of(&findings, "versions", "good").len(), 1, "{findings:?}");
    assert!(of(&findings, "clock", "good").contains(&"those of 3 nodes agree"), "{findings:?}");
    assert!(of(&findings, "ports", "good").iter().any(|f| f.starts_with("node 3 is reached at")), "{findings:?}");

    // Another node's certificate, a key that all may read, a limit that no machine here has, an address of another
    // machine, a node that is not there.
    let dir = cluster.dir.join("wrong");
    fs::create_dir_all(&dir).unwrap();
    fs::copy(cluster.dir.join("node2/peer.pem"), dir.join("peer.pem")).unwrap();
    fs::copy(cluster.dir.join("node2/peer.key"), dir.join("peer.key")).unwrap();
    fs::set_permissions(dir.join("peer.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let shown = dir.display();
    let text = fs::read_to_string(&config)
        .unwrap()
        .lines()
        .map(|line| match line.split(" =").next().unwrap() {
            "certificate_file" => format!("certificate_file = \"{shown}/peer.pem\""),
            "key_file" => format!("key_file = \"{shown}/peer.key\""),
            "smtp" => "smtp = \"192.0.2.1:2525\"".to_owned(),
            "memory_bytes" => format!("memory_bytes = {}", 1u64 << 50),
            _ if line.trim_start().starts_with("{ id = 3,") => "  { id = 3, peer = \"127.0.0.1:1\" },".to_owned(),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n");
    let wrong = dir.join("mailraft.toml");
    fs::write(&wrong, text).unwrap();
    let (code, findings) = examine(&wrong);
    assert_eq!(code, Some(1));
    let bad = |check: &str, part: &str| {
        assert!(of(&findings, check, "bad").iter().any(|f| f.contains(part)), "{check} {part}: {findings:#?}");
    };
    bad("certificates", "peer.key may be read or changed by others");
    bad("certificates", "[peer]");
    bad("ports", "listen.smtp 192.0.2.1:2525 can't be had");
    bad("memory", "MiB given");
    assert!(of(&findings, "ports", "warning").iter().any(|f| f.starts_with("node 3 is not reached")), "{findings:#?}");
    for finding in &findings {
        assert_eq!(finding["verdict"] == "good", finding["todo"].is_null(), "{finding}");
    }
}

#[test]
fn records_that_a_power_cut_took_are_missed() {
    let cluster = Cluster::start_new(|text| text);
    let config = PathBuf::from(cluster.text(1, "config"));
    let mut write = Command::new(binary());
    write.args(["doctor", "--power-cut-write", "--config"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut writing = write.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(writing.stdout.take().unwrap()));
    let seen: u64 = lines.by_ref().map(Result::unwrap).filter_map(|line| line.parse().ok()).nth(4).unwrap();
    assert_eq!(seen, 5);
    writing.kill().unwrap();
    writing.wait().unwrap();
    let check = |number: u64| {
        let mut command = Command::new(binary());
        command.args(["doctor", "--power-cut-check", &number.to_string(), "--config"]).arg(&config);
        let run = command.output().unwrap();
        (run.status.code(), String::from_utf8_lossy(&run.stdout).into_owned())
    };
    let (code, said) = check(1_000_000_000);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("BAD: record 1000000000 was synced"), "{said}");
    let (code, said) = check(seen);
    assert_eq!((code, said.as_str()), (Some(0), "good: all 5 records that were synced are there\n"));
}
