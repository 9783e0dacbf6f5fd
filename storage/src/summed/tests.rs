#![allow(clippy::unwrap_used)]

use rand::Rng;

use super::*;
use crate::env::Env;
use crate::memory::{MemoryRows, conformance};
use crate::rows::state_hash;
use crate::seal::Key;

const R: ReplicaId = ReplicaId(3);
const ALICE: MailboxId = MailboxId([1; 16]);
const BOB: MailboxId = MailboxId([2; 16]);
/// Far more than any test has.
const ALL_BYTES: u64 = 1 << 30;

fn sum_key() -> SumKey {
    SumKey::derived_from(&Key::from_bytes([9; 32]))
}

fn over(below: &MemoryRows) -> SummedRows {
    open(below, Missing::Damaged)
}

fn open(below: &MemoryRows, missing: Missing) -> SummedRows {
    SummedRows::open(Arc::new(below.clone()), sum_key(), missing, |_, _| ()).unwrap()
}

fn place(mailbox: MailboxId, n: u8) -> RowKey {
    RowKey::new(mailbox, Table::Places, [n])
}

fn content(mailbox: MailboxId, n: u8) -> RowKey {
    RowKey::new(mailbox, Table::Contents, [n; 16])
}

fn account(n: u8) -> RowKey {
    RowKey::partition(Table::Accounts, [n; 16])
}

fn put(rows: &dyn Rows, index: u64, puts: &[(RowKey, &[u8])], deletes: &[RowKey]) {
    let puts = puts.iter().map(|(key, value)| (key.clone(), Bytes::copy_from_slice(value))).collect();
    let batch = RowBatch { puts, deletes: deletes.to_vec() };
    let applied = Applied { index: Index(index), ..Applied::default() };
    rows.write(&[ReplicaBatch { replica: R, batch, applied }]).unwrap();
}

/// Rows of two mailboxes and of the partition, as they are after two entries.
fn filled() -> (MemoryRows, SummedRows) {
    let below = MemoryRows::new();
    let rows = over(&below);
    let first: [(RowKey, &[u8]); 5] = [
        (place(ALICE, 1), b"unseen"),
        (content(ALICE, 1), b"hello"),
        (place(BOB, 1), b"unseen"),
        (account(1), b"old password"),
        (RowKey::new(BOB, Table::Chunks, [7; 20]), &[7; 9_000]),
    ];
    put(&rows, 1, &first, &[]);
    put(&rows, 2, &[(place(ALICE, 1), b"seen"), (account(1), b"new password")], &[]);
    rows.flush().unwrap();
    (below, rows)
}

/// What a scrub from the first row to the last finds.
fn scrubbed(rows: &SummedRows) -> Vec<String> {
    let done = rows.scrub(Some((ReplicaId(0), MailboxId::PARTITION)), ALL_BYTES).unwrap();
    assert_eq!(done.next, None);
    rows.take_news().into_iter().map(|(_, why)| why).collect()
}

/// Reads a view of all rows in pages.
fn viewed(rows: &SummedRows) -> Result<[u8; 32], StoreError> {
    state_hash(rows.view(R)?.unwrap().as_ref())
}

#[test]
fn a_store_with_sums_does_all_that_one_without_does() {
    conformance::rows(&over(&MemoryRows::new()));
}

#[test]
fn nothing_is_found_where_nothing_was_done() {
    let (below, rows) = filled();
    for rows in [rows, over(&below)] {
        assert_eq!(scrubbed(&rows), [""; 0]);
        viewed(&rows).unwrap();
        for mailbox in [ALICE, BOB, MailboxId([9; 16])] {
            rows.check_mailbox(R, mailbox).unwrap();
        }
        assert_eq!(rows.sum(R).map(|(index, _)| index), Some(Index(2)));
    }
}

#[test]
fn an_older_account_row_that_was_put_back_is_found_at_the_start() {
    let (below, _) = filled();
    below.corrupt(R, &account(1), Bytes::from_static(b"old password"));
    let rows = over(&below);
    let found = rows.check_trusted(R).unwrap_err().to_string();
    assert!(found.contains("partition itself are not those that were applied"), "{found}");
    assert_eq!(rows.take_news().len(), 1);
    assert!(rows.view(R).is_err() && rows.sum(R).is_none() && rows.check_mailbox(R, ALICE).is_err());
}

#[test]
fn an_older_row_of_a_mailbox_is_found_before_that_is_loaded_and_the_others_are_served() {
    let (below, _) = filled();
    below.corrupt(R, &place(ALICE, 1), Bytes::from_static(b"unseen"));
    let rows = over(&below);
    let found = rows.check_mailbox(R, ALICE).unwrap_err().to_string();
    assert!(found.contains("put back, changed or deleted"), "{found}");
    rows.check_mailbox(R, BOB).unwrap();
    assert!(viewed(&rows).is_err(), "and it goes into no snapshot");
    assert_eq!(scrubbed(&rows).len(), 1);
    rows.check_trusted(R).unwrap();
}

#[test]
fn the_sums_that_belong_to_an_older_row_do_not_help_it() {
    let (below, rows) = filled();
    let older = |key: &RowKey| below.get(R, key).unwrap().unwrap();
    let (sums, root) = (older(&sums_key(ALICE)), older(&root_key()));
    put(&rows, 3, &[(place(ALICE, 1), b"flagged")], &[]);
    rows.flush().unwrap();
    below.corrupt(R, &place(ALICE, 1), Bytes::from_static(b"seen"));
    below.corrupt(R, &sums_key(ALICE), sums);
    assert!(over(&below).check_trusted(R).is_err());
    below.corrupt(R, &root_key(), root);
    assert!(over(&below).check_trusted(R).unwrap_err().to_string().contains("another position"));
}

#[test]
fn deleted_rows_are_found_by_the_scrub_wherever_they_were() {
    for key in [content(ALICE, 1), place(ALICE, 1), RowKey::new(BOB, Table::Chunks, [7; 20]), account(1)] {
        let (below, rows) = filled();
        let batch = RowBatch { puts: Vec::new(), deletes: vec![key.clone()] };
        below.write_sums(R, &batch).unwrap();
        below.flush().unwrap();
        assert_eq!(scrubbed(&rows).len(), 1, "{key:?}");
        let again = over(&below);
        let at_start = again.take_news().len();
        assert_eq!(at_start, usize::from(key == account(1)));
        assert_eq!(at_start + scrubbed(&again).len(), 1, "{key:?}");
    }
}

#[test]
fn a_whole_mailbox_that_was_deleted_is_found_by_the_scrub_and_with_its_sums_at_the_start() {
    let (below, rows) = filled();
    let keys: Vec<RowKey> = below.keys(R).into_iter().filter(|key| key.mailbox == BOB).collect();
    below.write_sums(R, &RowBatch { puts: Vec::new(), deletes: keys }).unwrap();
    below.flush().unwrap();
    assert_eq!(scrubbed(&rows).len(), 1);
    below.write_sums(R, &RowBatch { puts: Vec::new(), deletes: vec![sums_key(BOB)] }).unwrap();
    assert!(over(&below).check_trusted(R).is_err());
}

#[test]
fn a_row_that_was_put_back_shows_in_the_sum_once_it_is_changed() {
    let (other_below, other) = filled();
    let (below, rows) = filled();
    assert_eq!(rows.sum(R), other.sum(R));
    below.corrupt(R, &place(ALICE, 1), Bytes::from_static(b"unseen"));
    for rows in [&rows, &other] {
        put(rows, 3, &[(place(BOB, 1), b"seen")], &[]);
    }
    assert_eq!(rows.sum(R), other.sum(R), "nothing has read it");
    for rows in [&rows, &other] {
        put(rows, 4, &[(place(ALICE, 1), b"answered")], &[]);
    }
    assert_ne!(rows.sum(R), other.sum(R));
    drop(other_below);
}

#[test]
fn rows_without_sums_get_them_once_and_their_absence_is_damage_later() {
    let below = MemoryRows::new();
    put(&below, 7, &[(place(ALICE, 1), b"seen"), (account(1), b"x"), (content(BOB, 2), b"y")], &[]);
    let mut told = Vec::new();
    let made = |replica, rows| told.push((replica, rows));
    let rows = SummedRows::open(Arc::new(below.clone()), sum_key(), Missing::Make, made).unwrap();
    assert_eq!((scrubbed(&rows), rows.sum(R).map(|s| s.0)), (Vec::new(), Some(Index(7))));
    assert_eq!(told, [(R, 3)]);
    over(&below).check_trusted(R).unwrap();
    // A version without sums goes on writing, and the next start makes them once more.
    put(&below, 8, &[(place(ALICE, 1), b"seen")], &[content(BOB, 2)]);
    assert!(over(&below).check_trusted(R).is_err());
    assert_eq!(scrubbed(&open(&below, Missing::Make)), [""; 0]);
    put(&below, 9, &[(content(BOB, 2), b"y")], &[]);
    let rows = open(&below, Missing::Make);
    let first = MemoryRows::new();
    let same = over(&first);
    put(&same, 9, &[(place(ALICE, 1), b"seen"), (account(1), b"x"), (content(BOB, 2), b"y")], &[]);
    assert_eq!(rows.sum(R), same.sum(R), "whatever the way to it");
    below.write_sums(R, &RowBatch { puts: Vec::new(), deletes: vec![root_key()] }).unwrap();
    assert!(over(&below).check_trusted(R).is_err());
}

#[test]
fn another_key_opens_no_sum() {
    let (below, _) = filled();
    let other = SumKey::derived_from(&Key::from_bytes([8; 32]));
    let rows = SummedRows::open(Arc::new(below), other, Missing::Make, |_, _| ()).unwrap();
    assert!(rows.check_trusted(R).unwrap_err().to_string().contains("root key"));
}

#[test]
fn a_replica_whose_rows_are_replaced_is_trusted_again_and_no_snapshot_brings_sums() {
    let (good, whole) = filled();
    let sent = whole.view(R).unwrap().unwrap().rows(None, usize::MAX).unwrap();
    assert!(sent.iter().all(|(key, _)| !is_own(key)));
    let (below, _) = filled();
    below.corrupt(R, &account(1), Bytes::from_static(b"old password"));
    let rows = over(&below);
    assert!(rows.check_trusted(R).is_err());
    let applied = Applied { index: Index(2), ..Applied::default() };
    // An older version's snapshot may bring what it took for rows.
    let foreign = (sums_key(BOB), Bytes::from_static(b"sums"));
    rows.replace(R, &applied, &mut sent.into_iter().chain([foreign]).map(Ok)).unwrap();
    rows.check_trusted(R).unwrap();
    assert_eq!((rows.sum(R), scrubbed(&rows)), (whole.sum(R), Vec::new()));
    over(&below).check_trusted(R).unwrap();
    drop(good);
}

#[test]
fn a_damaged_row_that_is_to_be_changed_ends_the_trust_and_not_the_write() {
    let (below, rows) = filled();
    below.damage(R, [place(ALICE, 1)]);
    put(&rows, 3, &[(place(ALICE, 1), b"flagged")], &[]);
    assert!(rows.check_trusted(R).is_err() && rows.sum(R).is_none());
    assert_eq!(rows.take_news().len(), 1);
    put(&rows, 4, &[(place(ALICE, 1), b"seen")], &[]);
    rows.flush().unwrap();
    assert_eq!(rows.get(R, &place(ALICE, 1)).unwrap().as_deref(), Some(b"seen".as_slice()));
    assert!(over(&below).check_trusted(R).is_err(), "and stays so at the next start");
}

#[test]
fn a_crash_leaves_sums_and_rows_of_one_position() {
    let (below, rows) = filled();
    put(&rows, 3, &[(place(ALICE, 2), b"new")], &[place(BOB, 1)]);
    below.crash();
    let rows = over(&below);
    assert_eq!((rows.sum(R).map(|s| s.0), scrubbed(&rows)), (Some(Index(2)), Vec::new()));
}

#[test]
fn a_scrub_finds_nothing_wrong_in_rows_that_change_under_it_and_what_is_wrong_all_the_same() {
    for seed in 0..40 {
        let mut env = Env::seeded(seed);
        let below = MemoryRows::new();
        let rows = over(&below);
        let mut index = 0;
        let mut written_once = 0_u16;
        let mut write = |env: &mut Env, index: &mut u64| {
            *index += 1;
            let mut batch = BTreeMap::new();
            for _ in 0..env.rng.random_range(1..6) {
                let mailbox = [MailboxId::PARTITION, ALICE, BOB][env.rng.random_range(0..3)];
                let table = [Table::Commands, Table::Places, Table::Chunks][env.rng.random_range(0..3)];
                let value = env.rng.random_bool(0.6).then(|| Bytes::from(env.bytes::<4>().to_vec()));
                let number = match (&value, table.is_written_once()) {
                    (_, false) => env.rng.random_range(0..60),
                    (Some(_), true) => {
                        written_once += 1;
                        written_once
                    }
                    (None, true) => env.rng.random_range(0..=written_once),
                };
                let key = RowKey::new(mailbox, table, number.to_be_bytes());
                batch.insert(key, value);
            }
            let mut change = RowBatch::default();
            for (key, value) in batch {
                match value {
                    Some(value) => change.put(key, value),
                    None => change.delete(key),
                }
            }
            let applied = Applied { index: Index(*index), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: R, batch: change, applied }]).unwrap();
        };
        for _ in 0..60 {
            write(&mut env, &mut index);
        }
        let mut next = Some((ReplicaId(0), MailboxId::PARTITION));
        let mut steps = 0;
        while next.is_some() {
            write(&mut env, &mut index);
            next = rows.scrub(next, 1).unwrap().next;
            steps += 1;
        }
        assert!(steps > 3, "seed {seed}: {steps} steps");
        assert_eq!(rows.take_news(), [], "seed {seed}");
        over(&below).check_trusted(R).unwrap();

        rows.flush().unwrap();
        let keys: Vec<RowKey> = below.keys(R).into_iter().filter(|key| !is_own(key)).collect();
        let victim = keys[env.rng.random_range(0..keys.len())].clone();
        below.write_sums(R, &RowBatch { puts: Vec::new(), deletes: vec![victim.clone()] }).unwrap();
        assert_eq!(scrubbed(&rows).len(), 1, "seed {seed}: {victim:?}");
    }
}
