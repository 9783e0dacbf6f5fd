//! Putting a staged snapshot in place.

use std::fs::File;
use std::io::{BufReader, Read};
use std::time::Instant;

use bytes::Bytes;
use mailraft_storage::rows::Applied;
use mailraft_storage::{DAMAGED_NODE_ADVICE, ReplicaId, RowKey, Rows, StoreError};

use crate::metrics;
use crate::snapshot::file::{Checker, Header, RECORD_HEAD_BYTES, Record};
use crate::snapshot::group_rows::{self, Arriving};
use crate::snapshot::staging::{Staging, file_error};

/// Replaces a replica's rows by its staged snapshot at this position; gives what they say of its group's members, and of
/// regions.
pub(super) fn install(
    staging: &Staging,
    rows: &dyn Rows,
    replica: ReplicaId,
    applied: &Applied,
) -> Result<group_rows::Read, String> {
    let begun = Instant::now();
    staging.begin(replica, applied.index);
    let replaced = replace(staging, rows, replica, applied).and_then(|()| group_rows::read(rows, replica));
    let read = replaced.map_err(|e| {
        format!(
            "the snapshot of replica {replica} at index {} can't be installed: {e}. Check the disk, then start the node \
             again; if that does not help, {DAMAGED_NODE_ADVICE}",
            applied.index
        )
    })?;
    ::metrics::histogram!(metrics::SNAPSHOT_INSTALL).record(begun.elapsed());
    Ok(read)
}

fn replace(staging: &Staging, rows: &dyn Rows, replica: ReplicaId, applied: &Applied) -> Result<(), StoreError> {
    let path = staging.path(replica, applied.index);
    let open = || File::open(&path).map_err(|e| file_error(&path, e));
    // Once to check all of it before anything is replaced, once more to take the rows.
    verify(open()?, replica, Some(applied))?;
    let (mut reader, _) = Reader::begin(open()?)?;
    rows.replace(replica, applied, &mut reader)
}

/// Reads a snapshot's file to its end: whether it is whole, is at this position if one is named, and says nothing to the
/// node that can't be read. Gives its position.
///
/// # Errors
/// If it is not, or can't be read.
pub fn verify(file: impl Read, replica: ReplicaId, at: Option<&Applied>) -> Result<Applied, StoreError> {
    let (reader, header) = Reader::begin(file)?;
    if at.is_some_and(|at| *at != header.applied) {
        return Err(StoreError::damaged(
            "snapshot",
            format!("it is at index {} and not what Raft accepted", header.applied.index),
        ));
    }
    let mut own = Arriving::default();
    for row in reader {
        own.take(&[row?])?;
    }
    own.check(replica, &header.applied)?;
    Ok(header.applied)
}

/// The rows of a staged file; ends with an error if the file is not whole.
struct Reader<R> {
    file: BufReader<R>,
    checker: Checker,
    page: std::vec::IntoIter<(RowKey, Bytes)>,
    ended: bool,
}

impl<R: Read> Reader<R> {
    fn begin(file: R) -> Result<(Self, Header), StoreError> {
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut version = [0];
        read(&mut file, &mut version)?;
        let checker = Checker::begin(version[0])?;
        let mut reader = Reader { file, checker, page: Vec::new().into_iter(), ended: false };
        match reader.record()? {
            Record::Header(header) => Ok((reader, *header)),
            Record::Page(_) | Record::End => Err(StoreError::damaged("snapshot", "its header is missing")),
        }
    }

    fn record(&mut self) -> Result<Record, StoreError> {
        let mut head = [0; RECORD_HEAD_BYTES];
        read(&mut self.file, &mut head)?;
        let mut content = vec![0; Checker::length(&head)?];
        read(&mut self.file, &mut content)?;
        self.checker.record(&head, Bytes::from(content))
    }

    fn advance(&mut self) -> Result<Option<(RowKey, Bytes)>, StoreError> {
        loop {
            if let Some(row) = self.page.next() {
                return Ok(Some(row));
            }
            if self.ended {
                return Ok(None);
            }
            match self.record()? {
                Record::Page(rows) => self.page = rows.into_iter(),
                Record::End => self.ended = true,
                Record::Header(_) => return Err(StoreError::damaged("snapshot", "a second header")),
            }
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<(RowKey, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.ended = true;
        }
        next.transpose()
    }
}

fn read(file: &mut impl Read, buffer: &mut [u8]) -> Result<(), StoreError> {
    file.read_exact(buffer).map_err(|e| StoreError::io("staged snapshot", e))
}
