//! Attacks on a node's memory, with real processes: what one client makes another's session or a whole node keep.

use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::wire::Trust;

/// What grows is watched for so long.
const WATCHED: Duration = Duration::from_secs(6);

/// What all nodes have resident, in bytes.
fn resident(cluster: &Cluster) -> Vec<u64> {
    let of = |node| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(node))).expect("the node lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    cluster.node_ids().into_iter().map(of).collect()
}

/// How much more the node has that has most more.
fn grown(cluster: &Cluster, before: &[u64]) -> u64 {
    resident(cluster).iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).max().unwrap()
}

/// 8,192 places of a few messages in INBOX.
fn fill(trust: &Trust, cluster: &Cluster, account: &Account) -> Imap {
    let mut imap = Imap::login(trust, &cluster.text(1, "imaps"), account).unwrap();
    for n in 0..16 {
        let text = format!("Subject: {n}\r\n\r\nx\r\n");
        imap.ok(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len())).unwrap();
    }
    imap.ok("SELECT INBOX").unwrap();
    for _ in 0..9 {
        imap.ok("COPY 1:* INBOX").unwrap();
    }
    imap.ok("NOOP").unwrap();
    imap
}

/// Sessions on all nodes that idle with INBOX open, and read no more.
fn idle(trust: &Trust, cluster: &Cluster, account: &Account, count: u64) -> Vec<Imap> {
    let one = |n: u64| {
        let mut imap = Imap::login(trust, &cluster.text(1 + n % 3, "imaps"), account).unwrap();
        imap.ok("SELECT INBOX").unwrap();
        imap.idle().unwrap();
        imap
    };
    (0..count).map(one).collect()
}

#[test]
fn one_store_with_long_keywords_over_thousands_of_places_costs_little_however_many_sessions_idle() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let alice = cluster.account(0);
    let mut imap = fill(&trust, &cluster, &alice);
    let _idle = idle(&trust, &cluster, &alice, 6);
    let before = resident(&cluster);
    let keywords: Vec<String> = (0..64).map(|n| format!("k{n:03}{}", "x".repeat(115))).collect();
    imap.ok(&format!("STORE 1:* +FLAGS.SILENT ({})", keywords.join(" "))).unwrap();
    // They hear of it on every node by and by.
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < WATCHED {
        most = most.max(grown(&cluster, &before));
        std::thread::sleep(Duration::from_millis(50));
    }
    // It was 615 to 789 MB, about 90 MB for each copy.
    assert!(most < 150 << 20, "{} MiB more", most >> 20);
}

#[test]
fn sessions_that_do_not_read_keep_little_waiting_and_miss_nothing() {
    const ATTACK: Duration = Duration::from_secs(10);
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let alice = cluster.account(0);
    let mut imap = fill(&trust, &cluster, &alice);
    let mut slow = idle(&trust, &cluster, &alice, 10);
    let before = resident(&cluster);
    let (begun, mut stores) = (Instant::now(), 0u32);
    while begun.elapsed() < ATTACK {
        let sign = if stores % 2 == 0 { '+' } else { '-' };
        imap.ok(&format!("STORE 1:* {sign}FLAGS.SILENT (\\Flagged)")).unwrap();
        stores += 1;
    }
    imap.ok("STORE 1:* FLAGS.SILENT (\\Answered)").unwrap();
    let grown = grown(&cluster, &before);
    // It was 2.4 GB after 1,600 of these, and 100 MB for each 70.
    assert!(grown < 150 << 20, "{} MiB more after {stores} changes", grown >> 20);
    // Who reads again hears how things are.
    let reader = slow.last_mut().unwrap();
    reader.done().unwrap();
    reader.ok("NOOP").unwrap();
    reader.ok("FETCH 8192 (FLAGS)").unwrap();
    assert!(reader.untagged.iter().any(|line| line.contains("\\Answered") && !line.contains("\\Flagged")));
}
