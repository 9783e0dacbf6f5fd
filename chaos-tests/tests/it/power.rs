//! All nodes die in the same moment, again and again, and come back by themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::scenarios::Load;
use rustix::process::Signal;

use crate::rows::Disk;

const ROUNDS: u64 = 4;
/// Messages that the others take while one node is away, more than its log can bring it later.
const WHILE_AWAY: usize = 60;

/// Files of rows in a node's data directory.
fn row_files(data: &Path) -> BTreeSet<PathBuf> {
    let files = std::fs::read_dir(data.join("rows")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "sst" || e == "blob")).collect()
}

#[test]
fn all_nodes_die_at_once_with_a_snapshot_and_flushes_under_way_and_come_back_by_themselves() {
    let adjust = |config: String| {
        config
            .replace("log_keep = 50000 ", "log_keep = 10 ")
            .replace("flush_interval_ms = 5000 ", "flush_interval_ms = 100 ")
            .replace("snapshot_bytes_per_second = 100000000", "snapshot_bytes_per_second = 4194304")
    };
    let mut cluster = Cluster::start_new(adjust);
    let data = |cluster: &Cluster, node: u64| PathBuf::from(cluster.text(node, "data_dir"));
    let load = Load::start(&cluster, 4_000).unwrap();
    let (mut snapshots, mut left_over) = (0, 0);
    for round in 0..ROUNDS {
        let away = 1 + round % 3;
        let others: Vec<u64> = cluster.node_ids().into_iter().filter(|node| *node != away).collect();
        load.rest(false);
        cluster.kill(away);
        let before = load.accepted();
        cluster.wait("more mail than the log keeps", |_| load.accepted() > before + WHILE_AWAY);
        for node in &others {
            cluster.request(*node, "POST", "/api/v1/flush").unwrap();
        }
        cluster.start(away);
        let staging = data(&cluster, away).join("staging");
        let arrives = || std::fs::read_dir(&staging).is_ok_and(|mut files| files.next().is_some());
        let begun = Instant::now();
        while !arrives() && begun.elapsed() < Duration::from_secs(10) {
            // Flushes, and from time to time a compaction after them.
            for node in &others {
                let _ = cluster.request(*node, "POST", "/api/v1/flush");
            }
        }
        // One after the other at once, before any is waited for.
        for node in cluster.node_ids() {
            cluster.signal(node, Signal::KILL);
        }
        for node in cluster.node_ids() {
            cluster.kill(node);
        }
        snapshots += u64::from(arrives());
        for node in cluster.node_ids() {
            let files = row_files(&data(&cluster, node));
            drop(Disk::of(&cluster, node));
            // What no finished flush or compaction names is deleted when the rows are opened.
            left_over += files.difference(&row_files(&data(&cluster, node))).count();
        }
        for node in cluster.node_ids() {
            cluster.start(node);
        }
        load.rest(true);
        cluster.wait_until_caught_up();
    }
    let said = load.end(&cluster).unwrap_or_else(|e| panic!("{e}"));
    println!("{ROUNDS} times: {snapshots} with a snapshot under way, {left_over} files of unfinished flushes: {said}");
    assert!(snapshots > 0, "no snapshot was under way");
}
