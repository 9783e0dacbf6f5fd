//! All attacks at once, for a short time; `mailraft-chaos run siege --seconds 3600` is the long one.

use std::time::Duration;

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::scenarios::siege;

/// What three nodes together must not need in so short a time, each.
const RESIDENT_MAX_BYTES: u64 = 1 << 30;

#[test]
fn all_attacks_at_once_end_no_node_stop_nobody_and_lose_nothing() {
    let mut cluster = Cluster::start_new(|c| c);
    let outcome = siege(&mut cluster, Duration::from_secs(15)).unwrap();
    println!("{outcome}");
    for (node, most) in &outcome.resident_max_bytes {
        assert!(*most < RESIDENT_MAX_BYTES, "node {node}: {} MiB", most >> 20);
    }
    assert!(outcome.every_attack_was_tried(), "{outcome}");
}
