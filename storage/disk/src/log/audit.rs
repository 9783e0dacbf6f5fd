//! What the log's files hold is judged before the engine opens them, because the engine cuts whatever it can't
//! read at the end of a queue, without telling an answered batch that was damaged from an unanswered one that is torn.
//!
//! A batch begins only after the one before it is durable. So all but the last must be whole, and so must be
//! whatever the witness names. A last batch behind that is torn if some of its sectors were never written, which
//! read as zeros or lie behind the file's end: no answer followed it, and it is cut. One that was written wholly and
//! does not match its checksum is damage, because an answer may have followed it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailraft_storage::{DAMAGED_NODE_ADVICE, StoreError};
use raft_engine::env::{FileSystem, Handle, Permission};

use super::files::{Queue, read_all};
use super::witness::{Named, Span};

/// How a file of the engine begins; then follow the version of its format and, from the second on, an alignment.
const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FILE_HEAD_V1_BYTES: usize = FILE_MAGIC.len() + 8;
const FILE_HEAD_V2_BYTES: usize = FILE_HEAD_V1_BYTES + 8;
/// A batch begins with its length and kind (8) and where its items begin (8).
const BATCH_HEAD_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// What a disk writes wholly or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// What is to be changed before the engine may open the files.
#[derive(Default)]
pub(super) struct Repair {
    /// Files whose deletion was undone by a power loss.
    delete: Vec<PathBuf>,
    /// Files and the length at which their unfinished end is cut.
    cut: Vec<(PathBuf, u64)>,
    /// Files whose making was interrupted: only their head is to be written.
    begin: Vec<PathBuf>,
}

/// Judges the files of a log.
///
/// # Errors
/// [`StoreError::Damaged`] if something is missing or changed that was durable; nothing was changed then.
pub(super) fn audit<F: FileSystem>(dir: &Path, files: &F, named: Option<&Named>) -> Result<Repair, StoreError> {
    let mut found = list(dir)?;
    let mut repair = Repair::default();
    for queue in Queue::ALL {
        let span = named.map(|named| match queue {
            Queue::Appended => named.appended,
            Queue::Rewritten => named.rewritten,
        });
        let mut present = std::mem::take(&mut found[queue as usize]);
        if let Some(span) = span {
            let kept = present.split_off(&span.first);
            repair.delete.extend(std::mem::replace(&mut present, kept).into_values());
        } else if let Some(missing) = missing(&present) {
            // The engine would take those before it for deleted. Without a witness nobody can tell, so nothing is: whoever
            // finds the file and the witness again can still put them back.
            return Err(damaged_log(dir, format_args!("its file {missing:016}{} is missing", queue.suffix())));
        }
        audit_queue(dir, files, queue, span, &present, &mut repair)?;
    }
    Ok(repair)
}

/// What a witness names that is made for files that have none yet.
///
/// # Errors
/// If the directory can't be listed.
pub(super) fn beginning(dir: &Path) -> Result<Named, StoreError> {
    let [appended, rewritten] =
        list(dir)?.map(|files| Span { first: files.keys().next().copied().unwrap_or(1), ..Span::default() });
    Ok(Named { batch: 0, appended, rewritten })
}

fn list(dir: &Path) -> Result<[BTreeMap<u64, PathBuf>; 2], StoreError> {
    let listing = |e: std::io::Error| StoreError::io(format!("listing the raft log in {}", dir.display()), e);
    let mut found: [BTreeMap<u64, PathBuf>; 2] = Default::default();
    for entry in std::fs::read_dir(dir).map_err(listing)? {
        let path = entry.map_err(listing)?.path();
        if let Some((queue, number)) = Queue::of(&path) {
            found[queue as usize].insert(number, path);
        }
    }
    Ok(found)
}

/// The first number that no file has between those of two that are there.
fn missing(files: &BTreeMap<u64, PathBuf>) -> Option<u64> {
    let (first, last) = (*files.keys().next()?, *files.keys().next_back()?);
    (first..last).find(|number| !files.contains_key(number))
}

fn audit_queue<F: FileSystem>(
    dir: &Path,
    files: &F,
    queue: Queue,
    span: Option<Span>,
    present: &BTreeMap<u64, PathBuf>,
    repair: &mut Repair,
) -> Result<(), StoreError> {
    // The engine begins with the first file; it is durable before the witness names anything in it.
    let first = span.map(|s| s.first).or_else(|| present.keys().next().copied());
    let named_end = span.map(|s| s.end).filter(|end| end.1 > 0 && first.is_none_or(|first| end.0 >= first));
    let last = present.keys().next_back().copied();
    let needed = named_end.map(|end| end.0).max(last);
    if let (Some(first), Some(needed)) = (first, needed)
        && let Some(missing) = (first..=needed).find(|number| !present.contains_key(number))
    {
        return Err(damaged_log(dir, format_args!("its file {missing:016}{} is missing", queue.suffix())));
    }
    for (number, path) in present {
        let reading = |e: std::io::Error| StoreError::io(format!("reading {}", path.display()), e);
        let handle = files.open(path, Permission::ReadOnly).map(Arc::new).map_err(reading)?;
        let bytes = read_all(files, &handle).map_err(reading)?;
        let named_bytes = named_end.filter(|end| end.0 == *number).map_or(0, |end| end.1 as usize);
        let is_last = Some(*number) == last;
        let Some(head) = file_head(&bytes) else {
            // A file's head is durable before anything follows it.
            let written = bytes.get(FILE_HEAD_V2_BYTES..).is_some_and(|rest| rest.iter().any(|b| *b != 0));
            if is_last && named_bytes == 0 && (!written || queue == Queue::Rewritten) {
                repair.begin.push(path.clone());
                continue;
            }
            return Err(damaged_log(path, "its head does not match its format"));
        };
        let signature = if head == FILE_HEAD_V2_BYTES { *number as u32 } else { 0 };
        let end = whole_batches(&bytes, head, signature);
        if end < named_bytes {
            return Err(damaged_log(
                path,
                format_args!(
                    "what begins at byte {end} does not match its checksum, and {named_bytes} bytes were durable"
                ),
            ));
        }
        let rest = &bytes[end..];
        if !is_last && !rest.is_empty() {
            return Err(damaged_log(path, format_args!("what begins at byte {end} does not match its checksum")));
        }
        // What was moved and not yet named still stands where it was moved from.
        if queue == Queue::Appended && rest.iter().any(|b| *b != 0) && !is_torn(rest, end, signature) {
            let what = format_args!("a batch at byte {end} was written wholly and does not match its checksum");
            return Err(damaged_log(path, what));
        }
        if !rest.is_empty() {
            repair.cut.push((path.clone(), end as u64));
        }
    }
    Ok(())
}

impl Repair {
    /// Carries it out, durably.
    ///
    /// # Errors
    /// Those of the file system; it can be begun again.
    pub(super) fn carry_out<F: FileSystem>(self, files: &F) -> Result<(), StoreError> {
        let failed = |path: &Path, e: std::io::Error| StoreError::io(format!("repairing {}", path.display()), e);
        for path in self.delete {
            files.delete(&path).map_err(|e| failed(&path, e))?;
        }
        for (path, end) in self.cut {
            let cut = files.open(&path, Permission::ReadWrite).and_then(|handle| {
                handle.truncate(end as usize)?;
                handle.sync()
            });
            cut.map_err(|e| failed(&path, e))?;
        }
        for path in self.begin {
            let begun = files.open(&path, Permission::ReadWrite).map(Arc::new).and_then(|handle| {
                handle.truncate(0)?;
                let mut head = FILE_MAGIC.to_vec();
                head.extend_from_slice(&2u64.to_be_bytes());
                head.extend_from_slice(&0u64.to_be_bytes());
                std::io::Write::write_all(&mut files.new_writer(handle.clone())?, &head)?;
                handle.sync()
            });
            begun.map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }
}

/// Damage, with what it means and what to do.
pub(super) fn damaged_log(dir: &Path, what: impl std::fmt::Display) -> StoreError {
    StoreError::damaged(
        format!("the raft log in {}", dir.display()),
        format_args!(
            "{what}. Answered changes may be missing from it, so it must not vote or answer with it; \
             {DAMAGED_NODE_ADVICE}"
        ),
    )
}

/// The length of a file's head; None if it has none.
fn file_head(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    if !bytes.starts_with(FILE_MAGIC) {
        return None;
    }
    match (number(FILE_MAGIC.len())?, number(FILE_HEAD_V1_BYTES)) {
        (1, _) => Some(FILE_HEAD_V1_BYTES),
        (2, Some(0)) => Some(FILE_HEAD_V2_BYTES),
        _ => None,
    }
}

/// Where the whole batches of a file end. The entries of all but the last are not read: a changed one is noticed by
/// who reads it.
fn whole_batches(bytes: &[u8], head: usize, signature: u32) -> usize {
    let (mut at, mut before) = (head, head);
    while let Some(length) = batch_items(&bytes[at..], signature) {
        before = at;
        at += length;
    }
    if at > before && batch(&bytes[before..at], signature).is_none() { before } else { at }
}

/// Length and where the items begin, of what may be a batch.
fn batch_head(bytes: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let (length, items) = (number(0)?, usize::try_from(number(8)?).ok()?);
    let (compressed, length) = (length & 0xff, usize::try_from(length >> 8).ok()?);
    let fits = items >= BATCH_HEAD_BYTES && length.saturating_sub(items) > CHECKSUM_BYTES && compressed <= 1;
    fits.then_some((length, items))
}

/// The length of the batch these bytes begin with, if its items match their checksum.
fn batch_items(bytes: &[u8], signature: u32) -> Option<usize> {
    let (length, items) = batch_head(bytes)?;
    is_checked(bytes.get(items..length)?, signature).then_some(length)
}

/// The length of the batch these bytes begin with, if its entries match theirs too.
fn batch(bytes: &[u8], signature: u32) -> Option<usize> {
    let length = batch_items(bytes, signature)?;
    let (_, items) = batch_head(bytes)?;
    let entries = &bytes[BATCH_HEAD_BYTES..items];
    (entries.is_empty() || is_checked(entries, 0)).then_some(length)
}

fn is_checked(bytes: &[u8], signature: u32) -> bool {
    let Some(at) = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|at| *at > 0) else { return false };
    (crc32fast::hash(&bytes[..at]) ^ signature).to_le_bytes() == bytes[at..]
}

/// Whether what begins at this place of a file, and is no whole batch, is one that was never written wholly.
fn is_torn(rest: &[u8], at: usize, signature: u32) -> bool {
    let written = rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    // A batch begins only once the one before it is durable.
    if (1..written).any(|from| batch(&rest[from..], signature).is_some()) {
        return false;
    }
    // A bit of the head that turned over says a wrong length.
    let mut turned = rest.to_vec();
    for bit in 0..8 * BATCH_HEAD_BYTES.min(rest.len()) {
        turned[bit / 8] ^= 1 << (bit % 8);
        if batch(&turned, signature).is_some() {
            return false;
        }
        turned[bit / 8] ^= 1 << (bit % 8);
    }
    let length = batch_head(rest).map_or(written, |(length, _)| length);
    // Only its beginning: a batch is longer than its head, and never ends with so many zeros.
    if length > rest.len() || written < BATCH_HEAD_BYTES || written + 2 * CHECKSUM_BYTES <= length {
        return true;
    }
    // Sectors, as they lie in the file.
    let mut from = 0;
    while from < length {
        let to = (from + SECTOR_BYTES - (at + from) % SECTOR_BYTES).min(length);
        if rest[from..to].iter().all(|b| *b == 0) {
            return true;
        }
        from = to;
    }
    false
}
