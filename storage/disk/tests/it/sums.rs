//! Sums over rows on disk.

use std::sync::Arc;

use mailraft_storage::SummedRows;
use mailraft_storage::rows::RowsProof;
use mailraft_storage::seal::Key;
use mailraft_storage::summed::Missing;
use mailraft_storage::sums::SumKey;

use super::*;

fn summed(rows: DiskRows) -> SummedRows {
    let key = SumKey::derived_from(&Key::from_bytes([3; 32]));
    SummedRows::open(Arc::new(rows), key, Missing::Damaged, |_, _| ()).unwrap()
}

#[test]
fn rows_on_disk_with_sums_over_them_do_what_those_in_memory_do() {
    let dir = tempfile::tempdir().unwrap();
    conformance::rows(&summed(DiskRows::open(dir.path(), CLUSTER).unwrap()));
}

#[test]
fn what_is_changed_on_the_disk_behind_the_sums_is_found_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let write = |rows: &SummedRows, index: u64, value: u8| {
        let tables = [Table::Accounts, Table::Places, Table::Contents, Table::Chunks];
        let number = |table: Table| if table.is_written_once() { value } else { 1 };
        let puts = tables.map(|table| (row(table, number(table)), Bytes::from(vec![value; 6_000]))).to_vec();
        let batch = RowBatch { puts, deletes: Vec::new() };
        let applied = Applied { index: Index(index), ..Applied::default() };
        rows.write(&[ReplicaBatch { replica: R, batch, applied }]).unwrap();
    };
    let found = |rows: &SummedRows| {
        let loaded = rows.check_mailbox(R, MailboxId([1; 16])).is_err();
        let done = rows.scrub(Some((ReplicaId(0), MailboxId::PARTITION)), 1 << 30).unwrap();
        assert_eq!(done.next, None);
        (loaded, rows.take_news().len())
    };
    {
        let rows = summed(DiskRows::open(dir.path(), CLUSTER).unwrap());
        write(&rows, 1, 1);
        rows.flush().unwrap();
        write(&rows, 2, 2);
        assert_eq!(found(&rows), (false, 0));
        rows.flush().unwrap();
    }
    for (table, at_load) in [(Table::Places, true), (Table::Contents, false), (Table::Chunks, false)] {
        let there = tempfile::tempdir().unwrap();
        copy(dir.path(), there.path());
        {
            let rows = DiskRows::open(there.path(), CLUSTER).unwrap();
            rows.write_sums(R, &RowBatch { puts: Vec::new(), deletes: vec![row(table, 1)] }).unwrap();
            rows.flush().unwrap();
        }
        assert_eq!(found(&summed(DiskRows::open(there.path(), CLUSTER).unwrap())), (at_load, 1), "{table:?}");
    }
    // What stood there before, of the same length and under its own checksum.
    let rows = DiskRows::open(dir.path(), CLUSTER).unwrap();
    let puts = vec![(row(Table::Accounts, 1), Bytes::from(vec![1; 6_000]))];
    rows.write_sums(R, &RowBatch { puts, deletes: Vec::new() }).unwrap();
    assert_eq!(found(&summed(rows)), (true, 1));
}

/// Prints what sums add to the CPU time of one delivery's write, on a store with some mail in it.
#[test]
#[ignore = "a measurement: cargo test --release --workspace --test it what_sums_cost -- --ignored --nocapture"]
fn what_sums_cost() {
    const MAILBOXES: u64 = 64;
    const BEFORE: u64 = 40_000;
    const MEASURED: u64 = 20_000;
    fn cpu_us() -> f64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
    }
    fn delivery(n: u64) -> Vec<ReplicaBatch> {
        let mailbox = MailboxId([(n % MAILBOXES) as u8 + 1; 16]);
        let unique = |bytes: usize| {
            let mut key = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes().to_vec();
            key.resize(bytes, 7);
            key
        };
        let uid = [[0, 0, 0, 1], (n as u32).to_be_bytes()].concat();
        let of = |table, key: Vec<u8>, bytes| (RowKey::new(mailbox, table, key), Bytes::from(vec![n as u8; bytes]));
        let puts = vec![
            of(Table::Counters, Vec::new(), 90),
            of(Table::Folders, vec![0, 0, 0, 1], 120),
            of(Table::Contents, unique(16), 800),
            of(Table::Places, uid, 130),
            of(Table::MessageIds, unique(48), 46),
            of(Table::Deliveries, unique(32), 100),
            of(Table::Chunks, unique(20), 4_200),
            (RowKey::partition(Table::Commands, unique(16)), Bytes::from(vec![n as u8; 130])),
        ];
        let replica = ReplicaId(1 + n % 16);
        let applied = Applied { index: Index(n), ..Applied::default() };
        vec![ReplicaBatch { replica, batch: RowBatch { puts, deletes: Vec::new() }, applied }]
    }
    let run = |rows: &dyn Rows| {
        for n in 1..=BEFORE {
            rows.write(&delivery(n)).unwrap();
            if n % 8_000 == 0 {
                rows.flush().unwrap();
            }
        }
        let begun = cpu_us();
        for n in BEFORE + 1..=BEFORE + MEASURED {
            rows.write(&delivery(n)).unwrap();
        }
        (cpu_us() - begun) / MEASURED as f64
    };
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Threads of their own, to be told apart by a profiler.
    let measured = |name: &str, rows: &dyn Rows| {
        std::thread::scope(|scope| {
            std::thread::Builder::new().name(name.into()).spawn_scoped(scope, || run(rows)).unwrap().join().unwrap()
        })
    };
    let without = measured("without", &DiskRows::open(one.path(), CLUSTER).unwrap());
    let with = measured("with", &summed(DiskRows::open(other.path(), CLUSTER).unwrap()));
    println!("a delivery's write: {without:.1} us of CPU, with sums {with:.1} us, so {:.1} us more", with - without);
}
