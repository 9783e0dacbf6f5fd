//! mbsync with what it remembers, both ways, while the mailbox's leaders are killed in the middle: it finds each message once
//! on either side, and has nothing to complain about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::wire::Trust;

use crate::pop3::leader;

/// Leaders that are killed, unless the environment's FAILOVERS says how many.
const FAILOVERS: usize = 3;
/// Messages that come from either side each time.
const MESSAGES: usize = 25;

/// mbsync, with what it remembers in a directory of its own.
pub struct Mbsync {
    dir: PathBuf,
    account: Account,
}

impl Mbsync {
    pub fn new(cluster: &Cluster, account: Account) -> Self {
        let dir = cluster.dir.join("mbsync-failover");
        std::fs::create_dir_all(dir.join("mail")).unwrap();
        Mbsync { dir, account }
    }

    /// A message that its user writes here.
    pub fn writes(&self, name: &str) {
        write(&self.inbox(), name);
    }

    /// Through this node.
    fn begin(&self, cluster: &Cluster, node: u64) -> Child {
        let imaps = cluster.text(node, "imaps");
        let (_, port) = imaps.rsplit_once(':').unwrap();
        let (user, password, dir) = (&self.account.address, &self.account.password, self.dir.display());
        let certificate = cluster.ca_cert();
        let config = format!(
            "IMAPAccount m\nHost localhost\nPort {port}\nUser {user}\nPass {password}\nSSLType IMAPS\nCertificateFile {}\n\nIMAPStore far\nAccount m\n\nMaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\nSubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Both\nExpunge Both\nSyncState *\n",
            certificate.display()
        );
        std::fs::write(self.dir.join("mbsyncrc"), config).unwrap();
        let mut command = Command::new("mbsync");
        command.arg("-c").arg(self.dir.join("mbsyncrc")).arg("c");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// As often as it takes, as its user does.
    pub fn until_it_is_done(&self, cluster: &Cluster, node: u64) -> Output {
        let mut done = None;
        cluster.wait("mbsync is done", |cluster| {
            let output = self.begin(cluster, node).wait_with_output().unwrap();
            done = Some(output).filter(|output| output.status.success());
            done.is_some()
        });
        done.unwrap()
    }

    fn inbox(&self) -> PathBuf {
        self.dir.join("mail/INBOX")
    }

    /// The files of the messages here, by what they are about.
    pub fn near(&self) -> BTreeMap<String, PathBuf> {
        let mut near = BTreeMap::new();
        for part in ["new", "cur"] {
            for file in std::fs::read_dir(self.inbox().join(part)).into_iter().flatten() {
                let path = file.unwrap().path();
                // One that mbsync renames meanwhile is seen under its other name, or the next time.
                let Ok(text) = std::fs::read_to_string(&path) else { continue };
                let subject = subject(&text).to_owned();
                let before = near.insert(subject.clone(), path);
                assert!(before.is_none_or(|before| !before.exists()), "{subject} is here twice");
            }
        }
        near
    }
}

/// Whether it is installed.
pub fn is_installed() -> bool {
    Command::new("mbsync").arg("--version").output().is_ok()
}

fn subject(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default()
}

fn session(cluster: &Cluster, node: u64, account: &Account) -> Imap {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut session = None;
    cluster.wait("a login", |cluster| {
        session = Imap::login(&trust, &cluster.text(node, "imaps"), account).ok();
        session.is_some()
    });
    session.unwrap()
}

fn write(inbox: &Path, name: &str) {
    std::fs::write(inbox.join("new").join(format!("{name}.1.own.host")), format!("Subject: {name}\n\nx\n")).unwrap();
}

#[test]
fn mbsync_loses_doubles_and_complains_of_nothing_while_leaders_are_killed() {
    if !is_installed() {
        println!("mbsync is not installed: nothing was tried");
        return;
    }
    let failovers = std::env::var("FAILOVERS").ok().map_or(FAILOVERS, |count| count.parse().unwrap());
    let mut cluster = Cluster::start_new(|c| c);
    let bob = cluster.account(1);
    let mbsync = Mbsync::new(&cluster, bob);
    mbsync.until_it_is_done(&cluster, 1);
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for round in 0..failovers {
        let led = leader(&cluster, &mbsync.account);
        let other = cluster.node_ids().into_iter().find(|node| *node != led).unwrap();
        // Every second time it talks to the leader's own node, and loses its connection.
        let through = if round % 2 == 0 { other } else { led };
        let mut imap = session(&cluster, other, &mbsync.account);
        for n in 0..MESSAGES {
            let (far, near) = (format!("far {round} {n}"), format!("near {round} {n}"));
            let message = format!("Subject: {far}\r\n\r\nx\r\n");
            let append = format!("APPEND INBOX {{{}+}}\r\n{message}", message.len());
            // Asked for again, as a client does, it is done once.
            cluster.wait("an APPEND", |cluster| {
                let done = imap.ok(&append).is_ok();
                if !done {
                    imap = session(cluster, other, &mbsync.account);
                }
                done
            });
            write(&mbsync.inbox(), &near);
            expected.extend([far, near]);
        }
        // What is removed here goes there, and the other way round.
        let gone = [format!("far {} 0", round.wrapping_sub(1)), format!("near {} 0", round.wrapping_sub(1))];
        if round > 0 {
            std::fs::remove_file(&mbsync.near()[&gone[0]]).unwrap();
            let uid = imap.by_subject("INBOX").unwrap()[&gone[1]];
            imap.ok(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).unwrap();
            imap.ok("EXPUNGE").unwrap();
            expected.retain(|subject| !gone.contains(subject));
        }
        drop(imap);
        let mut running = mbsync.begin(&cluster, through);
        let first = format!("far {round} 0");
        cluster.wait("mbsync is in the middle, or done", |_| {
            mbsync.near().contains_key(&first) || running.try_wait().unwrap().is_some()
        });
        cluster.kill(led);
        let interrupted = running.wait_with_output().unwrap();
        println!("round {round}, through node {through}, led by {led}: {}", interrupted.status);
        mbsync.until_it_is_done(&cluster, other);
        let near: BTreeSet<String> = mbsync.near().into_keys().collect();
        assert_eq!(near, expected, "here");
        let mut far = None;
        cluster.wait("somebody says what is there", |cluster| {
            far = session(cluster, other, &mbsync.account).by_subject("INBOX").ok();
            far.is_some()
        });
        assert_eq!(far.unwrap().into_keys().collect::<BTreeSet<_>>(), expected, "there");
        cluster.start(led);
        cluster.wait_until_caught_up();
    }
    let last = mbsync.until_it_is_done(&cluster, 1);
    let words = String::from_utf8_lossy(&[last.stdout, last.stderr].concat()).to_lowercase();
    assert!(["warning", "error", "duplicate", "lost"].iter().all(|word| !words.contains(word)), "{words}");
}
