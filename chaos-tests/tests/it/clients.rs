//! Python's smtplib, imaplib and poplib, curl, swaks, mbsync, fetchmail and mutt against three nodes over TLS.

use std::path::Path;
use std::process::{Command, Stdio};

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::wire::Trust;

fn run(command: &mut Command, what: &str) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{what} can't be run: {e}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{what} failed:\n{out}\n{err}");
    out.into_owned()
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

fn python(cluster: &Cluster, script: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    run(Command::new("python3").arg(path).arg(cluster.dir.join("cluster.json")), script);
}

fn subjects(cluster: &Cluster, node: u64, account: &Account) -> Vec<String> {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), account).unwrap();
    imap.by_subject("INBOX").unwrap().into_keys().collect()
}

#[test]
fn mail_programs_do_their_work_through_any_node() {
    let cluster = Cluster::start_new(|c| c);
    python(&cluster, "smtp.py");
    python(&cluster, "imap.py");
    python(&cluster, "pop3.py");
    fetchmail(&cluster);
    curl(&cluster);
    swaks(&cluster);
    mbsync(&cluster);
    mutt(&cluster);
    operations(&cluster);
    reload(&cluster);
}

fn curl(cluster: &Cluster) {
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let message = cluster.dir.join("message");
    std::fs::write(&message, "Subject: by curl\r\n\r\nhello\r\n").unwrap();
    let user = |a: &Account| format!("{}:{}", a.address, a.password);
    let ca = cluster.ca_cert();
    run(
        Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(&ca)
            .arg(format!("smtps://localhost:{}", port(&cluster.text(1, "submissions"))))
            .args(["--mail-from", &alice.address, "--mail-rcpt", &bob.address, "--user", &user(&alice), "-T"])
            .arg(&message),
        "curl smtps",
    );
    let found = run(
        Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(&ca)
            .arg(format!("imaps://localhost:{}/INBOX?SUBJECT%20curl", port(&cluster.text(3, "imaps"))))
            .args(["--user", &user(&bob)]),
        "curl imaps search",
    );
    let number = found.trim().rsplit(' ').next().unwrap();
    let read = run(
        Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(&ca)
            .arg(format!("imaps://localhost:{}/INBOX;MAILINDEX={number}", port(&cluster.text(2, "imaps"))))
            .args(["--user", &user(&bob)]),
        "curl imaps",
    );
    assert!(
        read.contains("Subject: by curl") && read.contains("hello") && read.starts_with("Return-Path: <alice@"),
        "{read}"
    );
}

/// Takes alice's mail away by POP3: what it says it has fetched is not there any more.
fn fetchmail(cluster: &Cluster) {
    use std::os::unix::fs::PermissionsExt;
    let alice = cluster.account(0);
    let dir = cluster.dir.join("fetchmail");
    std::fs::create_dir_all(&dir).unwrap();
    let fetched = dir.join("fetched");
    let config = dir.join("fetchmailrc");
    let text = format!(
        "set no bouncemail\npoll localhost protocol pop3 service {} uidl user \"{}\" password \"{}\" ssl sslcertck sslcertfile \"{}\" nokeep fetchall mda \"cat >>{}\"\n",
        port(&cluster.text(3, "pop3s")),
        alice.address,
        alice.password,
        cluster.ca_cert().display(),
        fetched.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, PermissionsExt::from_mode(0o700)).unwrap();
    run(
        Command::new("fetchmail")
            .env("HOME", &dir)
            .env("FETCHMAILHOME", &dir)
            .args(["--nosyslog", "--nodetach", "--pidfile"])
            .arg(dir.join("pid"))
            .arg("-f")
            .arg(&config),
        "fetchmail",
    );
    let read = std::fs::read_to_string(&fetched).unwrap();
    assert!(read.contains("Subject: large") && read.contains("Subject: third"), "{}", read.len());
    assert_eq!(read.matches(".123456789abcde\n").count(), 100_000);
    let url = format!("pop3s://localhost:{}/", port(&cluster.text(1, "pop3s")));
    let left = run(
        Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(cluster.ca_cert())
            .arg(url)
            .args(["--user", &format!("{}:{}", alice.address, alice.password)]),
        "curl pop3s",
    );
    assert_eq!(left.trim(), "", "curl lists what fetchmail took");
}

fn swaks(cluster: &Cluster) {
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    run(
        Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", port(&cluster.text(2, "submission")), "--tls", "--auth", "LOGIN"])
            .args(["--auth-user", &alice.address, "--auth-password", &alice.password])
            .args(["--from", &alice.address, "--to", &bob.address, "--header", "Subject: by swaks"]),
        "swaks submission",
    );
    run(
        Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", port(&cluster.text(3, "smtp")), "--tls-optional"])
            .args(["--from", "someone@elsewhere.test", "--to", &bob.address, "--header", "Subject: from elsewhere"]),
        "swaks smtp",
    );
    let seen = subjects(cluster, 1, &bob);
    assert!(seen.contains(&"by swaks".to_owned()) && seen.contains(&"from elsewhere".to_owned()), "{seen:?}");
}

fn mbsync(cluster: &Cluster) {
    let bob = cluster.account(1);
    let dir = cluster.dir.join("mbsync");
    std::fs::create_dir_all(dir.join("mail")).unwrap();
    let config = format!(
        "IMAPAccount m\nHost localhost\nPort {}\nUser {}\nPass {}\nSSLType IMAPS\nCertificateFile {}\n\nIMAPStore far\nAccount m\n\nMaildirStore near\nPath {}/mail/\nInbox {}/mail/INBOX\nSubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n",
        port(&cluster.text(2, "imaps")),
        bob.address,
        bob.password,
        cluster.ca_cert().display(),
        dir.display(),
        dir.display()
    );
    std::fs::write(dir.join("mbsyncrc"), config).unwrap();
    let sync = || run(Command::new("mbsync").arg("-c").arg(dir.join("mbsyncrc")).arg("c"), "mbsync");
    sync();
    let mut here: Vec<_> = ["new", "cur"]
        .iter()
        .flat_map(|d| std::fs::read_dir(dir.join("mail/INBOX").join(d)).unwrap())
        .map(|f| f.unwrap().path())
        .collect();
    here.sort();
    let there = subjects(cluster, 1, &bob).len();
    assert_eq!(here.len(), there, "mbsync brought another number of messages");
    // One more from this side, one less from that.
    std::fs::write(dir.join("mail/INBOX/new/1.own.host"), "Subject: by mbsync\n\nx\n").unwrap();
    std::fs::remove_file(&here[0]).unwrap();
    sync();
    let seen = subjects(cluster, 3, &bob);
    assert!(seen.contains(&"by mbsync".to_owned()), "{seen:?}");
    assert_eq!(seen.len(), there, "one came and one went");
}

/// Submits a message and reads it on a terminal, which mutt wants.
fn mutt(cluster: &Cluster) {
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let dir = cluster.dir.join("mutt");
    std::fs::create_dir_all(&dir).unwrap();
    let (config, body, read) = (dir.join("muttrc"), dir.join("body"), dir.join("read"));
    let url = |scheme: &str, account: &Account, node, listener: &str| {
        let user = account.address.replace('@', "%40");
        format!("{scheme}://{user}@localhost:{}/", port(&cluster.text(node, listener)))
    };
    let text = format!(
        "set certificate_file = \"{}\"\nset ssl_force_tls = yes\nset from = \"{}\"\nset use_from = yes\n\
         set envelope_from = yes\nset smtp_url = \"{}\"\nset smtp_pass = \"{}\"\nset imap_pass = \"{}\"\nset copy = no\nset quit = yes\n\
         set wait_key = no\nset confirmappend = no\nset mbox_type = mbox\nset message_cachedir = \"\"\n\
         set send_charset = utf-8\nset allow_8bit = yes\nset folder = \"{}\"\n",
        cluster.ca_cert().display(),
        alice.address,
        url("smtps", &alice, 1, "submissions"),
        alice.password,
        bob.password,
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::write(&body, "gr\u{fc}n\n.\n").unwrap();
    let as_bob = |command: &mut Command| {
        run(command.env("TERM", "vt100").env("HOME", &dir).env("LC_ALL", "C.UTF-8"), "mutt");
    };
    let mutt = format!("mutt -n -F {}", config.display());
    let submits = format!("{mutt} -s 'by mutt' {} < {}", bob.address, body.display());
    as_bob(Command::new("sh").args(["-c", &submits]));
    let keys = format!("<limit>~s by.mutt<enter><pipe-message>cat > {}<enter><flag-message><quit>", read.display());
    let reads = format!("{mutt} -f {}INBOX -e 'push \"{keys}\"'", url("imaps", &bob, 3, "imaps"));
    as_bob(Command::new("timeout").args(["60", "script", "-q", "-e", "-c", &reads, "/dev/null"]));
    let read = std::fs::read_to_string(&read).unwrap();
    assert!(read.contains("Subject: by mutt") && read.contains("gr\u{fc}n\n.\n"), "{read}");
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut imap = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).unwrap();
    imap.ok("EXAMINE INBOX").unwrap();
    imap.ok("SEARCH FLAGGED SUBJECT \"by mutt\"").unwrap();
    assert!(
        imap.untagged.iter().any(|line| line.trim_end().trim_start_matches("* SEARCH").trim().parse::<u32>().is_ok())
    );
}

fn operations(cluster: &Cluster) {
    let table = cluster.mailraft(&["status"], "");
    assert!(table.starts_with("healthy: all 17 partitions have a leader, 3 of 3 nodes are up"), "{table}");
    cluster.mailraft(&["domain", "create", "second.test"], "");
    cluster.mailraft(&["account", "create", "carol@second.test", "--password-stdin"], "a long password\n");
    cluster.mailraft(&["address", "add", "info@second.test", "carol@second.test"], "");
    let listed = cluster.mailraft(&["address", "list"], "");
    assert!(listed.contains("info@second.test  mailbox of carol@second.test"), "{listed}");
    let metrics = cluster.get(1, "/metrics").unwrap();
    // What an alert watches for its first step is there before it.
    assert!(metrics.contains("\nmailraft_damaged_rows_met_total 0\n"), "{metrics}");
    assert!(
        metrics.contains("mailraft_deliveries_total") && metrics.contains("mailraft_log_fsync_seconds"),
        "{metrics}"
    );
    assert_eq!(cluster.get(2, "/healthz").unwrap(), "ok\n");
    assert_eq!(cluster.get(3, "/readyz").unwrap(), "ready\n");
}

/// What EHLO says on node 1's port for other servers.
fn ehlo(cluster: &Cluster) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(cluster.text(1, "smtp")).unwrap();
    socket.write_all(b"EHLO chaos.test\r\nQUIT\r\n").unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    said
}

fn reload(cluster: &Cluster) {
    assert!(ehlo(cluster).contains("SIZE 52428800"));
    let path = cluster.text(1, "config");
    let before = std::fs::read_to_string(&path).unwrap();
    let hup = || cluster.signal(1, rustix::process::Signal::HUP);
    // A file that can't be read changes nothing.
    std::fs::write(&path, before.replace("auth_parallel = 2", "auth_parallel = 0")).unwrap();
    hup();
    cluster.wait("the log names the key", |c| {
        std::fs::read_to_string(c.text(1, "log")).unwrap().contains("limits.auth_parallel is 0")
    });
    assert!(ehlo(cluster).contains("SIZE 52428800"));
    let after = before.replace("max_message_bytes = 52428800", "max_message_bytes = 1048576");
    assert_ne!(before, after);
    std::fs::write(&path, after).unwrap();
    hup();
    cluster.wait("the new limit is told", |c| ehlo(c).contains("SIZE 1048576"));
    std::fs::write(&path, before).unwrap();
    hup();
    cluster.wait("the old limit is told again", |c| ehlo(c).contains("SIZE 52428800"));
}
