//! What rows take in memory.

use mailraft_storage::rows::Rows;
use mailraft_storage::{MailboxId, RowKey, Table};

use super::*;

const BOUND_BYTES: u64 = 16 << 20;
/// RocksDB counts in steps, and what is being written or read is not let go of.
const BEYOND_BYTES: u64 = 8 << 20;

#[test]
fn memtables_and_blocks_are_within_one_bound() {
    let dir = tempfile::tempdir().unwrap();
    let rows = DiskRows::open_within(dir.path(), CLUSTER, 256, BOUND_BYTES as usize).unwrap();
    let key = |n: u32| {
        let table = if n.is_multiple_of(2) { Table::Contents } else { Table::Chunks };
        RowKey::new(MailboxId([1; 16]), table, n.to_be_bytes())
    };
    // What does not compress: 100 MiB.
    let value = |n: u32| -> Vec<u8> {
        let mut at = u64::from(n) + 1;
        let mut next = || {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (at >> 56) as u8
        };
        (0..50 << 10).map(|_| next()).collect()
    };
    let within = |what: &str| {
        let bytes = rows.memory_bytes();
        assert!(bytes < BOUND_BYTES + BEYOND_BYTES, "{} MiB after {what}", bytes >> 20);
        bytes
    };
    let mut most = 0;
    for n in 0..2_000 {
        put(&rows, u64::from(n) + 1, &[(key(n), value(n))]).unwrap();
        most = most.max(within("a write"));
    }
    for n in 0..2_000 {
        assert_eq!(rows.get(R, &key(n)).unwrap().unwrap(), value(n));
        within("a read");
    }
    assert!(most > BOUND_BYTES / 8, "memtables are counted: {most}");
}
