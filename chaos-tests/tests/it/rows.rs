//! Rows that were changed on the disk of a stopped node, below everything that seals them.

use std::path::PathBuf;

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;
use mailraft_disk::DiskRows;
use mailraft_storage::rows::RowsView;
use mailraft_storage::{ClusterId, ReplicaId, RowBatch, RowKey, Rows, Table};

const NEW_PASSWORD: &str = "another word for alice";

/// A stopped node's rows, opened as anybody can who has the disk.
pub struct Disk {
    pub rows: DiskRows,
}

impl Disk {
    pub fn of(cluster: &Cluster, node: u64) -> Self {
        let config = std::fs::read_to_string(cluster.text(node, "config")).unwrap();
        let values = config.lines().filter_map(|line| line.strip_prefix("id = "));
        let id = values.filter_map(|value| ClusterId::from_hex(value.split('"').nth(1)?)).next();
        let id = id.expect("the cluster's id");
        Disk { rows: DiskRows::open(&PathBuf::from(cluster.text(node, "data_dir")).join("rows"), id).unwrap() }
    }

    fn all(&self, replica: ReplicaId) -> Vec<(RowKey, Vec<u8>)> {
        let view: Box<dyn RowsView> = self.rows.view(replica).unwrap().unwrap();
        view.rows(None, usize::MAX).unwrap().into_iter().map(|(key, value)| (key, value.to_vec())).collect()
    }

    fn control(&self) -> ReplicaId {
        let holds = |replica: &ReplicaId| self.all(*replica).iter().any(|(key, _)| key.table == Table::Keyring as u8);
        self.rows.replicas().unwrap().into_iter().find(holds).expect("a replica of the control group")
    }

    fn accounts(&self) -> Vec<(RowKey, Vec<u8>)> {
        let mut rows = self.all(self.control());
        rows.retain(|(key, _)| key.table == Table::Accounts as u8);
        rows
    }

    fn change(&self, replica: ReplicaId, change: RowBatch) {
        self.rows.write_sums(replica, &change).unwrap();
        self.rows.flush().unwrap();
    }
}

/// Whether this account may log in through a node, also if that does not answer at all.
fn may_log_in(cluster: &Cluster, node: u64, account: &Account) -> bool {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    Imap::login(&trust, &cluster.text(node, "imaps"), account).is_ok()
}

#[test]
fn an_older_account_row_put_back_on_a_stopped_node_lets_no_old_password_in() {
    let mut cluster = Cluster::start_new(|c| c);
    let alice = cluster.account(0);
    cluster.stop(3);
    let old = Disk::of(&cluster, 3).accounts();
    cluster.start(3);
    cluster.mailraft(&["account", "password", &alice.address, "--password-stdin"], NEW_PASSWORD);
    cluster.wait_until_caught_up();
    assert!(!may_log_in(&cluster, 3, &alice), "the old password");
    cluster.stop(3);
    {
        let disk = Disk::of(&cluster, 3);
        let now = disk.accounts();
        let puts: Vec<_> = old.into_iter().filter(|row| !now.contains(row)).collect();
        assert_eq!(puts.len(), 1, "one account has changed");
        let puts = puts.into_iter().map(|(key, value)| (key, value.into())).collect();
        disk.change(disk.control(), RowBatch { puts, deletes: Vec::new() });
    }
    cluster.start(3);
    let log = cluster.text(3, "log");
    cluster.wait("node 3 to say what is wrong, or to answer", |c| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.contains("not those that were applied") || c.status(3).is_some()
    });
    assert!(!may_log_in(&cluster, 3, &alice), "the old password logs in through the node with the old row");
    // The others go on.
    let new = Account { password: NEW_PASSWORD.to_owned(), ..alice };
    assert!(may_log_in(&cluster, 1, &new) && may_log_in(&cluster, 2, &new));
}

/// Whoever has the disk of a node of the backup region has no key, and can put an old row back all the same. The node finds
/// it, the home hears of it, counts on that node no more, and goes on with the other two.
#[test]
fn an_old_row_put_back_on_a_standby_is_told_to_its_home_and_counted_and_stops_nobody_there() {
    let mut cluster = Cluster::start_regions("home=3,south=3", 6, &|config| config);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    cluster.stop(4);
    let old = Disk::of(&cluster, 4).accounts();
    cluster.start(4);
    cluster.mailraft(&["account", "password", &alice.address, "--password-stdin"], NEW_PASSWORD);
    cluster.wait_until_caught_up();
    cluster.wait("rows are compared", |c| {
        c.status(1).is_some_and(|status| status["regions"][0]["compared_s"].as_u64().is_some_and(|s| s < 30))
    });
    cluster.stop(4);
    {
        let disk = Disk::of(&cluster, 4);
        let now = disk.accounts();
        let puts: Vec<_> = old.into_iter().filter(|row| !now.contains(row)).collect();
        assert_eq!(puts.len(), 1, "one account has changed");
        let puts = puts.into_iter().map(|(key, value)| (key, value.into())).collect();
        disk.change(disk.control(), RowBatch { puts, deletes: Vec::new() });
    }
    cluster.start(4);
    cluster.wait("the home counts it", |c| {
        (1..=3).any(|node| c.metric(node, "mailraft_region_disagreements_total") > 0.0)
    });
    cluster.wait("status says so", |c| {
        c.status(1).is_some_and(|status| {
            let south = &status["regions"][0];
            let said = south["sentence"].to_string().contains("differ");
            said && south["disagreeing"].as_u64() > Some(0) && south["confirming"] == 2
        })
    });
    // Nobody at home ends or waits: two of three standbys are a majority.
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let new = Account { password: NEW_PASSWORD.to_owned(), ..alice };
    cluster.wait("mail is accepted", |cluster| {
        let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &new).unwrap();
        let sent = smtp.send(&new.address, &bob.address, b"Subject: goes on\r\n\r\nx\r\n").unwrap();
        matches!(sent, SmtpReply::Accepted { .. })
    });
    let status = cluster.status(2).unwrap();
    let up = status["nodes"].as_array().unwrap().iter().filter(|line| line["up"] == true).count();
    assert_eq!(up, 6, "{status}");
}

#[test]
fn places_deleted_on_the_disk_of_a_stopped_node_are_found_by_its_scrub_and_told() {
    let mut cluster = Cluster::start_new(|c| c);
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).unwrap();
    let sent = smtp.send(&alice.address, &bob.address, b"Subject: here\r\n\r\nx\r\n").unwrap();
    assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
    cluster.wait("node 3 has read all of its rows once", |c| {
        c.status(3).is_some_and(|s| s["nodes"][2]["scrub"]["percent"] == 100)
    });
    cluster.wait_until_caught_up();
    cluster.stop(3);
    let deleted = {
        let disk = Disk::of(&cluster, 3);
        let mut deleted = 0;
        for replica in disk.rows.replicas().unwrap() {
            let mut rows = disk.all(replica);
            rows.retain(|(key, _)| key.table == Table::Places as u8);
            deleted += rows.len();
            let deletes = rows.into_iter().map(|(key, _)| key).collect();
            disk.change(replica, RowBatch { puts: Vec::new(), deletes });
        }
        deleted
    };
    assert!(deleted > 0, "bob has a message");
    // Not in a week, but now.
    std::fs::remove_file(PathBuf::from(cluster.text(3, "data_dir")).join("scrub.json")).unwrap();
    cluster.start(3);
    cluster.wait("the damage is told", |c| {
        c.status(1).is_some_and(|s| {
            let told = s["problems"]
                .as_array()
                .is_some_and(|p| p.iter().any(|p| p.to_string().contains("node 3 has damaged rows")));
            told && s["nodes"][2]["scrub"]["damaged"].as_u64() > Some(0)
        })
    });
    // The others have it, and serve it.
    let mut imap = Imap::login(&trust, &cluster.text(3, "imaps"), &bob).unwrap();
    assert_eq!(imap.by_subject("INBOX").unwrap().len(), 1);
}
