//! A cluster of several machines, as `mailraft cluster create` writes it: each node from its own copied directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Account, PATIENCE, binary, free_base_port, without_reserve};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;

fn mailraft(args: &[&str]) -> Output {
    Command::new(binary()).args(args).stdin(Stdio::null()).output().unwrap()
}

fn succeed(args: &[&str]) -> String {
    let run = mailraft(args);
    assert!(run.status.success(), "mailraft {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// A node that ends with the test.
struct Node {
    process: Child,
    admin: String,
    token: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// Starts what was copied to a machine, and waits until the service manager would know that it serves.
    fn start(machine: &Path, address: &str, base: u16) -> Self {
        let manager = UnixDatagram::bind(machine.join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let process = Command::new(binary())
            .args(["node", "--config"])
            .arg(machine.join("etc/mailraft.toml"))
            .env("NOTIFY_SOCKET", machine.join("notify"))
            .env("WATCHDOG_USEC", "3000000")
            .stdin(Stdio::null())
            .stderr(fs::File::create(machine.join("log")).unwrap())
            .spawn()
            .unwrap();
        let node =
            Node { process, admin: format!("http://{address}:{}", base + 80), token: machine.join("etc/admin-token") };
        let mut said = String::new();
        while !(said.contains("READY=1") && said.contains("WATCHDOG=1")) {
            let mut bytes = [0; 256];
            let length = manager.recv(&mut bytes).unwrap_or_else(|e| {
                panic!("{e}; told {said:?}; {}", fs::read_to_string(machine.join("log")).unwrap_or_default())
            });
            said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        node
    }

    fn ask(&self, args: &[&str]) -> Output {
        let mut all = args.to_vec();
        let token = self.token.to_string_lossy();
        all.extend(["--admin", &self.admin, "--token-file", &token]);
        mailraft(&all)
    }
}

#[test]
fn a_cluster_made_on_one_machine_serves_mail_from_the_directories_copied_to_others() {
    let temporary = tempfile::tempdir().unwrap();
    let made = temporary.path().join("made");
    // Peers and the admin server are at 10,700 and 10,080 above the offset.
    let base = free_base_port(2);
    let offset = base - 10_000;
    let made_text = made.to_string_lossy();
    let mut args: Vec<String> =
        ["cluster", "create", "--dir", &made_text, "--partitions", "4"].map(String::from).into();
    args.extend(["--mail-name", "localhost", "--port-offset", &offset.to_string()].map(String::from));
    for id in 1..=3 {
        args.extend(["--node".into(), format!("id={id},host=127.0.0.{id},listen=127.0.0.{id},zone=z{id}")]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = succeed(&args);
    assert!(said.contains("Made a cluster of 3 nodes with 4 mail partitions"), "{said}");
    let again = mailraft(&args);
    assert_eq!(again.status.code(), Some(2), "a second cluster in the same directory");

    let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(rights(&made), 0o700);
    for secret in ["root.key", "peer.key", "mail.key", "admin-token"] {
        assert_eq!(rights(&made.join("nodes/node1/config").join(secret)), 0o600, "{secret}");
    }
    let authority = fs::read_to_string(made.join("authority/ca.key")).unwrap();
    let config_says = succeed(&[
        "node",
        "--check-config",
        "--config",
        &made.join("nodes/node2/config/mailraft.toml").to_string_lossy(),
    ]);
    assert!(config_says.contains("right, for node 2 of cluster"), "{config_says}");

    // What is copied: to another place, as to another machine.
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let machine = temporary.path().join(format!("machine{id}"));
        let from = made.join(format!("nodes/node{id}"));
        fs::create_dir(&machine).unwrap();
        fs::rename(from.join("config"), machine.join("etc")).unwrap();
        fs::rename(from.join("data"), machine.join("lib")).unwrap();
        for file in fs::read_dir(machine.join("etc")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(!text.contains(authority.trim()), "the authority's key would be copied to a node");
        }
        let config = machine.join("etc/mailraft.toml");
        let text = fs::read_to_string(&config).unwrap();
        let there = machine.to_string_lossy();
        let text = text
            .replace("/etc/mailraft", &format!("{there}/etc"))
            .replace("/var/lib/mailraft/data", &format!("{there}/lib"));
        fs::write(&config, without_reserve(&text)).unwrap();
        nodes.push(Node::start(&machine, &format!("127.0.0.{id}"), base));
    }
    let started = Instant::now();
    while !nodes[0].ask(&["status"]).status.success() {
        assert!(started.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&nodes[0].ask(&["status"]).stdout));
        std::thread::sleep(Duration::from_millis(50));
    }
    for args in [&["domain", "create", "example.org"][..], &["account", "create", "jane@example.org", "--json"]] {
        let run = nodes[1].ask(args);
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
        if args[0] == "account" {
            let done: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
            let jane =
                Account { address: "jane@example.org".into(), password: done["password"].as_str().unwrap().to_owned() };
            let trust = Trust::in_file(&temporary.path().join("machine3/etc/ca.pem")).unwrap();
            let mut smtp = Smtp::login(&trust, &format!("127.0.0.1:{}", 465 + offset), &jane).unwrap();
            let sent = smtp.send(&jane.address, &jane.address, b"Subject: first mail\r\n\r\nhello\r\n").unwrap();
            assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
            let mut imap = Imap::login(&trust, &format!("127.0.0.3:{}", 993 + offset), &jane).unwrap();
            assert!(imap.by_subject("INBOX").unwrap().contains_key("first mail"));
        }
    }

    // The directory of the authority issues again; a name that no node has is refused with those that there are.
    succeed(&["cluster", "certificates", "--dir", &made_text, "--node", "node2"]);
    let issued = made.join("nodes/node2/config");
    assert_eq!(rights(&issued.join("peer.key")), 0o600);
    let before = fs::read(temporary.path().join("machine2/etc/peer.pem")).unwrap();
    assert_ne!(fs::read(issued.join("peer.pem")).unwrap(), before);
    let unknown = mailraft(&["cluster", "certificates", "--dir", &made_text, "--node", "node9"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("choose from node1, node2, node3"));
}

#[test]
fn a_cluster_that_could_not_work_is_refused_with_what_to_do() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("made");
    let dir = dir.to_string_lossy();
    let create = |more: &[&str]| {
        let mut args = vec!["cluster", "create", "--dir", &dir];
        args.extend(more);
        let run = mailraft(&args);
        assert_eq!(run.status.code(), Some(2), "{more:?}");
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    for (more, said) in [
        (&["--node", "id=1,host=a", "--node", "id=1,host=b"][..], "two nodes have the number 1"),
        (&["--node", "id=1,host=a.x", "--node", "id=2,host=a.y"], "two nodes are called a"),
        (&["--node", "id=1,host=a", "--data-dir", "data"], "write an absolute path"),
        (&["--node", "id=1,host=a", "--mail-name", "ma il..org"], "--mail-name is"),
        (&["--node", "id=1"], "host is missing"),
        (&[], "--node"),
    ] {
        let error = create(more);
        assert!(error.contains(said), "{error:?} does not say {said:?}");
    }
    assert!(!Path::new(&*dir).exists(), "a refused cluster left files");
}

#[test]
fn a_wrong_configuration_is_named_and_nothing_starts() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("mailraft.toml");
    fs::write(&file, "data_dir = \"/d\"\nnonsense = 1\n").unwrap();
    let run = mailraft(&["node", "--check-config", "--config", &file.to_string_lossy()]);
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("nonsense"));
}

#[test]
fn manual_pages_and_completions_know_every_command() {
    let temporary = tempfile::tempdir().unwrap();
    succeed(&["man", "--dir", &temporary.path().to_string_lossy()]);
    let page = fs::read_to_string(temporary.path().join("mailraft-cluster-create.1")).unwrap();
    assert!(page.contains("partitions"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeed(&["completions", shell]).contains("quickstart"), "{shell}");
    }
}
