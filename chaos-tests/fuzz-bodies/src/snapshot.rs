//! What one node sends another as a replica's rows.

use mailraft_driver::verify_snapshot;
use mailraft_storage::{Index, ReplicaId};
use sha2::{Digest, Sha256};

/// A whole snapshot, as the first version wrote it: version, header, one page, end.
const WHOLE: &str = include_str!("../../../cluster/driver/src/snapshot/testdata/v1.hex");
/// Where its first page begins.
const PAGE_AT: usize = 67;
const PAGE: u8 = 2;
const END: u8 = 3;

/// A snapshot, or, if the first byte says so, the rows of a page of one that is right otherwise.
pub fn snapshot(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind % 2 == 0 {
        let _ = verify_snapshot(bytes, ReplicaId(1), None);
        return;
    }
    let whole = data_encoding::HEXLOWER.decode(WHOLE.trim().as_bytes()).expect("test data is hex");
    let mut file = whole[..PAGE_AT].to_vec();
    file.extend_from_slice(&record(PAGE, bytes));
    let sum = Sha256::digest(&file);
    let rows = rows(bytes);
    file.extend_from_slice(&record(END, &[&rows.unwrap_or_default().to_be_bytes()[..], &sum].concat()));
    match verify_snapshot(&file[..], ReplicaId(1), None) {
        Ok(applied) => assert!(applied.index == Index(7) && rows.is_some(), "taken though a page ends within a row"),
        Err(error) => assert!(!error.to_string().contains("SHA-256"), "{error}"),
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("an input is short");
    [&[kind][..], &length.to_be_bytes(), content].concat()
}

/// How many rows a page has; None if it ends within one.
fn rows(mut page: &[u8]) -> Option<u64> {
    let mut rows = 0;
    while !page.is_empty() {
        let (key_length, rest) = page.split_first_chunk::<2>()?;
        let (_, rest) = rest.split_at_checked(u16::from_be_bytes(*key_length).into())?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        page = rest.split_at_checked(u32::from_be_bytes(*value_length) as usize)?.1;
        rows += 1;
    }
    Some(rows)
}
