//! The files under the engine. Before the engine deletes one, the witness durably says so, and how far what was
//! moved out of it is durable: what is not there any more is then known not to be lost.

use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use super::witness::Witness;

/// The two queues of files that the engine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Batches, as they were written.
    Appended,
    /// What was moved out of old files.
    Rewritten,
}

impl Queue {
    pub(super) const ALL: [Queue; 2] = [Queue::Appended, Queue::Rewritten];

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Queue::Appended => ".raftlog",
            Queue::Rewritten => ".rewrite",
        }
    }

    /// The queue and the number of a file, by its name.
    pub(super) fn of(path: &Path) -> Option<(Queue, u64)> {
        let name = path.file_name()?.to_str()?;
        Queue::ALL.into_iter().find_map(|queue| Some((queue, name.strip_suffix(queue.suffix())?.parse().ok()?)))
    }
}

/// The first failed write or sync of a log. After it nothing is written any more: a sync that failed may have lost
/// what it was given.
#[derive(Default)]
pub(super) struct Failure(OnceLock<String>);

impl Failure {
    /// Keeps the error if it is the first, and gives it back.
    pub(super) fn keep<E: std::fmt::Display>(&self, error: E) -> E {
        // A later one is a consequence.
        let _ = self.0.set(error.to_string());
        error
    }

    pub(super) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// A file system that the engine is opened over.
pub(super) struct Files<F: FileSystem> {
    inner: Arc<F>,
    witness: OnceLock<Arc<Witness<F>>>,
    failure: Arc<Failure>,
    /// The last file of each queue.
    last: Mutex<[Option<Last<F>>; 2]>,
}

type Last<F> = (u64, Arc<FileState<F>>);

/// An open file of the engine.
pub(super) struct FileHandle<F: FileSystem>(Arc<FileState<F>>);

struct FileState<F: FileSystem> {
    inner: Arc<F::Handle>,
    failure: Arc<Failure>,
    /// Where what was written ends; the file may be longer, by space that was set aside.
    end: AtomicU64,
}

/// A writer that counts.
pub(super) struct FileWriter<F: FileSystem> {
    inner: F::Writer,
    file: Arc<FileState<F>>,
    at: u64,
}

impl<F: FileSystem> Files<F> {
    pub(super) fn new(inner: Arc<F>, failure: Arc<Failure>) -> Self {
        Files { inner, witness: OnceLock::new(), failure, last: Mutex::new([None, None]) }
    }

    /// Who is told of deletions; before it is set, nothing is deleted.
    pub(super) fn watch(&self, witness: Arc<Witness<F>>) {
        // It is set once, when the engine is open.
        let _ = self.witness.set(witness);
    }

    /// The number of a queue's last file, and where what was written to it ends.
    pub(super) fn end(&self, queue: Queue) -> Option<(u64, u64)> {
        self.last(queue).map(|(number, file)| (number, file.end.load(Ordering::SeqCst)))
    }

    /// Syncs a queue's last file.
    pub(super) fn sync(&self, queue: Queue) -> Result<()> {
        self.last(queue).map_or(Ok(()), |(_, file)| file.inner.sync())
    }

    fn last(&self, queue: Queue) -> Option<Last<F>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last[queue as usize].as_ref().map(|(number, file)| (*number, file.clone()))
    }

    fn opened(&self, path: &Path, handle: F::Handle, writable: bool) -> Result<FileHandle<F>> {
        let (inner, failure) = (Arc::new(handle), self.failure.clone());
        let end = AtomicU64::new(inner.file_size()? as u64);
        let file = Arc::new(FileState { inner, failure, end });
        if writable && let Some((queue, number)) = Queue::of(path) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last[queue as usize] = Some((number, file.clone()));
        }
        Ok(FileHandle(file))
    }

    fn tell_witness(&self, queue: Queue, number: u64) -> Result<()> {
        let Some(witness) = self.witness.get() else { return Err(std::io::Error::other("nobody would know")) };
        let rewritten = self.end(Queue::Rewritten);
        self.sync(Queue::Rewritten)?;
        witness.name(|named| {
            let span = match queue {
                Queue::Appended => &mut named.appended,
                Queue::Rewritten => &mut named.rewritten,
            };
            span.first = span.first.max(number + 1);
            if let Some(end) = rewritten {
                named.rewritten.end = end;
            }
        })?;
        witness.sync()
    }
}

impl<F: FileSystem> FileSystem for Files<F> {
    type Handle = FileHandle<F>;
    type Reader = F::Reader;
    type Writer = FileWriter<F>;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<Self::Handle> {
        let handle = self.inner.create(path.as_ref())?;
        self.opened(path.as_ref(), handle, true)
    }

    fn open<P: AsRef<Path>>(&self, path: P, perm: Permission) -> Result<Self::Handle> {
        let handle = self.inner.open(path.as_ref(), perm)?;
        self.opened(path.as_ref(), handle, perm == Permission::ReadWrite)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        if let Some((queue, number)) = Queue::of(path.as_ref()) {
            self.tell_witness(queue, number).map_err(|e| self.failure.keep(e))?;
        }
        self.inner.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, src_path: P, dst_path: P) -> Result<()> {
        self.inner.rename(src_path, dst_path)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> Result<Self::Reader> {
        self.inner.new_reader(handle.0.inner.clone())
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> Result<Self::Writer> {
        let inner = self.inner.new_writer(handle.0.inner.clone())?;
        Ok(FileWriter { inner, file: handle.0.clone(), at: 0 })
    }
}

impl<F: FileSystem> Handle for FileHandle<F> {
    fn truncate(&self, offset: usize) -> Result<()> {
        self.0.end.fetch_min(offset as u64, Ordering::SeqCst);
        self.0.inner.truncate(offset)
    }

    fn file_size(&self) -> Result<usize> {
        self.0.inner.file_size()
    }

    /// The engine panics on an error here: what it was is kept, so that it can be said.
    fn sync(&self) -> Result<()> {
        self.0.inner.sync().map_err(|e| self.0.failure.keep(e))
    }
}

impl<F: FileSystem> Write for FileWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.inner.write(bytes)?;
        self.at += written as u64;
        self.file.end.fetch_max(self.at, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

impl<F: FileSystem> Seek for FileWriter<F> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.at = self.inner.seek(to)?;
        Ok(self.at)
    }
}

impl<F: FileSystem> WriteExt for FileWriter<F> {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.inner.truncate(offset)?;
        self.at = offset as u64;
        self.file.end.fetch_min(self.at, Ordering::SeqCst);
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        self.inner.allocate(offset, size)
    }
}

/// All bytes of a file.
pub(super) fn read_all<F: FileSystem>(files: &F, handle: &Arc<F::Handle>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files.new_reader(handle.clone())?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
