//! The format of a snapshot, the same on the wire and in its staged file:
//!
//! ```text
//! version (1)
//! record…   kind (1) ‖ length (4, big-endian) ‖ content
//!   header  1: the position and Raft's message, once, first
//!   page    2: rows, each key length (2) ‖ key without the replica ‖ value length (4) ‖ value
//!   end     3: number of rows (8) ‖ SHA-256 of every byte before this record (32), once, last
//! ```

use bytes::{Buf, Bytes};
use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::rows::Applied;
use mailraft_storage::{ClusterId, RowKey, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of the format.
pub(super) const VERSION: u8 = 1;
/// Kind and length in front of each record.
pub(super) const RECORD_HEAD_BYTES: usize = 5;
/// A page is closed at this size; one row may exceed it.
pub(super) const PAGE_BYTES: usize = 1 << 20;
/// The longest record accepted.
pub(super) const RECORD_MAX_BYTES: usize = 4 << 20;

const KIND_HEADER: u8 = 1;
const KIND_PAGE: u8 = 2;
const KIND_END: u8 = 3;
const END_BYTES: usize = 8 + 32;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The cluster whose rows these are.
    pub(super) cluster: ClusterId,
    /// The position of its rows.
    pub(super) applied: Applied,
    /// Raft's MsgSnapshot, as the core encodes it.
    pub(super) message: Bytes,
}

/// The writing side.
pub(super) struct Writer {
    hash: Sha256,
    count: u64,
}

impl Writer {
    /// Begins with version and header, to be sent first.
    pub(super) fn begin(header: &Header) -> (Self, Vec<u8>) {
        let mut out = vec![VERSION];
        out.extend_from_slice(&record(KIND_HEADER, &versioned_encode(VERSION, header)));
        let mut writer = Writer { hash: Sha256::new(), count: 0 };
        writer.hash.update(&out);
        (writer, out)
    }

    /// The next page of these rows.
    pub(super) fn page(&mut self, rows: &[(RowKey, Bytes)]) -> Vec<u8> {
        let mut content = Vec::new();
        for (key, value) in rows {
            let key = key.encode();
            // Both in range: keys are bounded by their type, values by the entry that brought them.
            content.extend_from_slice(&(key.len() as u16).to_be_bytes());
            content.extend_from_slice(&key);
            content.extend_from_slice(&(value.len() as u32).to_be_bytes());
            content.extend_from_slice(value);
        }
        self.count += rows.len() as u64;
        let out = record(KIND_PAGE, &content);
        self.hash.update(&out);
        out
    }

    /// The last record.
    pub(super) fn end(self) -> Vec<u8> {
        let mut content = self.count.to_be_bytes().to_vec();
        content.extend_from_slice(&self.hash.finalize());
        record(KIND_END, &content)
    }
}

/// A record, checked as far as it can be at its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Header(Box<Header>),
    Page(Vec<(RowKey, Bytes)>),
    End,
}

/// The reading side: takes the bytes in order, tells what is wrong with them.
pub(super) struct Checker {
    hash: Sha256,
    count: u64,
    seen_header: bool,
}

impl Checker {
    /// Takes the first byte.
    pub(super) fn begin(version: u8) -> Result<Self, StoreError> {
        match version {
            0 => Err(damaged("format version 0")),
            VERSION => {
                let mut hash = Sha256::new();
                hash.update([version]);
                Ok(Checker { hash, count: 0, seen_header: false })
            }
            found => Err(StoreError::Newer { place: "snapshot".into(), found, known: VERSION }),
        }
    }

    /// The length of the record that this head begins, before memory is taken for it.
    pub(super) fn length(head: &[u8; RECORD_HEAD_BYTES]) -> Result<usize, StoreError> {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > RECORD_MAX_BYTES {
            return Err(damaged(format!("a record of {length} bytes")));
        }
        Ok(length)
    }

    /// Takes a whole record. After [`Record::End`] there is no more.
    pub(super) fn record(&mut self, head: &[u8; RECORD_HEAD_BYTES], content: Bytes) -> Result<Record, StoreError> {
        if head[0] == KIND_END {
            return self.end(&content);
        }
        self.hash.update(head);
        self.hash.update(&content);
        match (head[0], self.seen_header) {
            (KIND_HEADER, false) => {
                self.seen_header = true;
                Ok(Record::Header(Box::new(versioned_decode("snapshot header", VERSION, &content)?)))
            }
            (KIND_PAGE, true) => {
                let rows = page(content)?;
                self.count += rows.len() as u64;
                Ok(Record::Page(rows))
            }
            (kind, _) => Err(damaged(format!("a record of kind {kind} out of place"))),
        }
    }

    fn end(&mut self, content: &[u8]) -> Result<Record, StoreError> {
        let (count, hash) = content.split_at_checked(8).unwrap_or_default();
        if content.len() != END_BYTES || !self.seen_header {
            return Err(damaged("its end is malformed"));
        }
        if count != self.count.to_be_bytes() {
            return Err(damaged(format!("it has {} rows, but its end says otherwise", self.count)));
        }
        if hash != self.hash.clone().finalize().as_slice() {
            return Err(damaged("its SHA-256 is another than its end says"));
        }
        Ok(Record::End)
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEAD_BYTES + content.len());
    out.push(kind);
    out.extend_from_slice(&(content.len() as u32).to_be_bytes());
    out.extend_from_slice(content);
    out
}

fn page(mut content: Bytes) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
    let short = || damaged("a page ends within a row");
    let mut rows = Vec::new();
    while content.has_remaining() {
        let key_len = usize::from(content.try_get_u16().map_err(|_| short())?);
        if content.remaining() < key_len {
            return Err(short());
        }
        let key = RowKey::decode(&content.split_to(key_len)).ok_or_else(|| damaged("a key is malformed"))?;
        let value_len = content.try_get_u32().map_err(|_| short())? as usize;
        if content.remaining() < value_len {
            return Err(short());
        }
        rows.push((key, content.split_to(value_len)));
    }
    Ok(rows)
}

fn damaged(detail: impl std::fmt::Display) -> StoreError {
    StoreError::damaged("snapshot", detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mailraft_storage::{Index, Table};

    fn whole() -> (Header, Vec<(RowKey, Bytes)>, Vec<u8>) {
        let header = Header {
            cluster: ClusterId([1; 16]),
            applied: Applied { index: Index(7), ..Applied::default() },
            message: Bytes::from_static(b"message"),
        };
        let rows: Vec<_> = (0..5u8)
            .map(|n| (RowKey::partition(Table::Commands, [n; 16]), Bytes::from(vec![n; usize::from(n) * 10])))
            .collect();
        let (mut writer, mut bytes) = Writer::begin(&header);
        bytes.extend(writer.page(&rows[..2]));
        bytes.extend(writer.page(&rows[2..]));
        bytes.extend(writer.end());
        (header, rows, bytes)
    }

    type Whole = (Option<Header>, Vec<(RowKey, Bytes)>);

    fn read(bytes: &[u8]) -> Result<Whole, StoreError> {
        let short = || damaged("short");
        let (mut at, mut header, mut rows) = (1, None, Vec::new());
        let mut checker = Checker::begin(*bytes.first().ok_or_else(short)?)?;
        loop {
            let head: [u8; RECORD_HEAD_BYTES] =
                bytes.get(at..at + RECORD_HEAD_BYTES).ok_or_else(short)?.try_into().unwrap();
            at += RECORD_HEAD_BYTES;
            let length = Checker::length(&head)?;
            let content = Bytes::copy_from_slice(bytes.get(at..at + length).ok_or_else(short)?);
            at += length;
            match checker.record(&head, content)? {
                Record::Header(found) => header = Some(*found),
                Record::Page(page) => rows.extend(page),
                Record::End => return Ok((header, rows)),
            }
        }
    }

    #[test]
    fn what_was_written_comes_back() {
        let (header, rows, bytes) = whole();
        assert_eq!(read(&bytes).unwrap(), (Some(header), rows));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_, _, bytes) = whole();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(read(&bad).is_err(), "flip at {at}");
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_snapshot_of_the_first_version_is_read_for_ever() {
        // Version, header (cluster 01…, index 7, everything else empty, message "m"), one row, end.
        let golden = hex::decode(include_str!("testdata/v1.hex").trim()).unwrap();
        let applied = Applied { index: Index(7), ..Applied::default() };
        let header = Header { cluster: ClusterId([1; 16]), applied, message: Bytes::from_static(b"m") };
        let rows = vec![(RowKey::partition(Table::CommandFloor, []), Bytes::from_static(b"v"))];
        let (mut writer, mut bytes) = Writer::begin(&header);
        bytes.extend(writer.page(&rows));
        bytes.extend(writer.end());
        assert_eq!(hex::encode(&bytes), hex::encode(&golden), "the present writer");
        assert_eq!(read(&golden).unwrap(), (Some(header), rows), "the present reader");
    }
}
