//! All attacks at once, for a short time; `mailraft-chaos run siege --seconds 3600` is the long one.

use std::time::Duration;

use mailraft_chaos::scenarios::{besieged, siege};

#[test]
fn all_attacks_at_once_end_no_node_stop_nobody_and_lose_nothing() {
    let mut cluster = besieged();
    let outcome = siege(&mut cluster, Duration::from_secs(15)).unwrap();
    println!("{outcome}");
    for (node, most) in &outcome.resident_max_bytes {
        assert!(*most < outcome.memory_limit_bytes, "node {node}: {} MiB", most >> 20);
    }
    assert!(outcome.every_attack_was_tried(), "{outcome}");
}
