//! The witness: a small file beside the log that names the newest durable batch and where the log's files begin
//! and end. A log that ends before what its witness names has lost something, whatever is left of it looks like.
//!
//! It is written after the batch's fsync returned and before anyone is answered, and synced a little later: a
//! process that dies loses nothing of it, a machine that loses power what was not synced yet. Three slots take
//! turns: one is durable, one is being synced, and one takes what is named meanwhile.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_storage::StoreError;
use raft_engine::env::{FileSystem, Handle, Permission};

/// The newest format of a slot that this binary reads, and the one it writes.
const SLOT_VERSION: u8 = 1;
/// Slots stand this far apart, so that no write of one touches the sectors of another, in bytes.
const SLOT_EVERY_BYTES: u64 = 4096;
const SLOTS: usize = 3;
/// Checksum, version and eight numbers.
const SLOT_BYTES: usize = 4 + 1 + 8 * 8;

/// What the witness names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The newest durable batch.
    pub(super) batch: u64,
    /// How far the engine's files of batches were durable with it.
    pub(super) appended: Span,
    /// How far its files of what it moved out of old ones were durable when it last deleted a file.
    pub(super) rewritten: Span,
}

/// Which files of a queue must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The number of the first file; those before it are or will be deleted.
    pub(super) first: u64,
    /// The number of the last file, and its length in bytes.
    pub(super) end: (u64, u64),
}

/// The open file.
pub(super) struct Witness<F: FileSystem> {
    handle: Arc<F::Handle>,
    slots: Mutex<Slots<F::Writer>>,
    /// Held by the one who syncs.
    syncing: Mutex<()>,
}

struct Slots<W> {
    writer: W,
    named: Named,
    /// Rises with every write.
    sequence: u64,
    writing: usize,
    durable: usize,
    /// Whether something was written since the last sync began.
    dirty: bool,
}

impl<F: FileSystem> Witness<F> {
    /// Opens the witness and gives what it names; None if there is no file, or one that was never written whole.
    pub(super) fn open(path: &Path, files: &F) -> Result<Option<(Self, Named)>, StoreError> {
        let failed = |e: std::io::Error| StoreError::io(format!("reading the log's witness {}", path.display()), e);
        let handle = match files.open(path, Permission::ReadWrite) {
            Ok(handle) => Arc::new(handle),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut bytes = Vec::new();
        files.new_reader(handle.clone()).and_then(|mut r| r.read_to_end(&mut bytes)).map_err(failed)?;
        let mut newest: Option<(u64, Named, usize)> = None;
        for slot in 0..SLOTS {
            let from = slot * SLOT_EVERY_BYTES as usize;
            let found = bytes.get(from..from + SLOT_BYTES).map(|slot| decode(path, slot)).transpose()?.flatten();
            if let Some((sequence, named)) = found
                && newest.is_none_or(|(before, _, _)| sequence > before)
            {
                newest = Some((sequence, named, slot));
            }
        }
        let Some((sequence, named, slot)) = newest else { return Ok(None) };
        let writer = files.new_writer(handle.clone()).map_err(failed)?;
        let (writing, durable) = ((slot + 1) % SLOTS, slot);
        let slots = Slots { writer, named, sequence, writing, durable, dirty: false };
        // What is read may stand in memory only.
        handle.sync().map_err(failed)?;
        Ok(Some((Witness { handle, slots: Mutex::new(slots), syncing: Mutex::default() }, named)))
    }

    /// Makes a witness that names this, durably but for its directory.
    pub(super) fn create(path: &Path, files: &F, named: Named) -> Result<Self, StoreError> {
        let failed = |e: std::io::Error| StoreError::io(format!("making the log's witness {}", path.display()), e);
        let handle = Arc::new(files.create(path).map_err(failed)?);
        let mut writer = files.new_writer(handle.clone()).map_err(failed)?;
        let whole = vec![0; SLOT_EVERY_BYTES as usize * SLOTS];
        writer.seek(SeekFrom::Start(0)).and_then(|_| writer.write_all(&whole)).map_err(failed)?;
        let slots = Slots { writer, named, sequence: 0, writing: 0, durable: SLOTS - 1, dirty: false };
        let witness = Witness { handle, slots: Mutex::new(slots), syncing: Mutex::default() };
        witness.name(|_| {}).map_err(failed)?;
        witness.sync().map_err(failed)?;
        Ok(witness)
    }

    /// Changes what is named; durable only once [`Witness::sync`] returned.
    pub(super) fn name(&self, change: impl FnOnce(&mut Named)) -> std::io::Result<()> {
        let mut slots = self.slots();
        change(&mut slots.named);
        slots.sequence += 1;
        let bytes = encode(slots.sequence, &slots.named);
        let at = slots.writing as u64 * SLOT_EVERY_BYTES;
        slots.writer.seek(SeekFrom::Start(at))?;
        slots.writer.write_all(&bytes)?;
        slots.dirty = true;
        Ok(())
    }

    /// Makes durable what was named before it began.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = {
            let mut slots = self.slots();
            if !std::mem::take(&mut slots.dirty) {
                return Ok(());
            }
            let (slot, durable) = (slots.writing, slots.durable);
            slots.writing = (0..SLOTS).find(|other| *other != slot && *other != durable).unwrap_or(slot);
            slot
        };
        self.handle.sync()?;
        self.slots().durable = slot;
        Ok(())
    }

    fn slots(&self) -> MutexGuard<'_, Slots<F::Writer>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(sequence: u64, named: &Named) -> [u8; SLOT_BYTES] {
    let Named { batch, appended, rewritten } = *named;
    let numbers = [
        sequence,
        batch,
        appended.first,
        appended.end.0,
        appended.end.1,
        rewritten.first,
        rewritten.end.0,
        rewritten.end.1,
    ];
    let mut out = [0; SLOT_BYTES];
    out[4] = SLOT_VERSION;
    for (place, number) in out[5..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    let checksum = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// Sequence and content of a slot; None if it is torn or was never written.
fn decode(path: &Path, slot: &[u8]) -> Result<Option<(u64, Named)>, StoreError> {
    if slot[..4] != crc32fast::hash(&slot[4..]).to_be_bytes() {
        return Ok(None);
    }
    if slot[4] > SLOT_VERSION {
        let place = format!("the log's witness {}", path.display());
        return Err(StoreError::Newer { place, found: slot[4], known: SLOT_VERSION });
    }
    let mut numbers = [0; 8];
    for (number, place) in numbers.iter_mut().zip(slot[5..].chunks_exact(8)) {
        *number = u64::from_be_bytes(place.try_into().unwrap_or_default());
    }
    let [sequence, batch, first, last, bytes, rewrite_first, rewrite_last, rewrite_bytes] = numbers;
    let appended = Span { first, end: (last, bytes) };
    let rewritten = Span { first: rewrite_first, end: (rewrite_last, rewrite_bytes) };
    Ok(Some((sequence, Named { batch, appended, rewritten })))
}
