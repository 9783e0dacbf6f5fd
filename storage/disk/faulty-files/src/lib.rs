//! The Raft log's files in memory: they lose what was not synced, tear, fail, and come back, with power cuts between any
//! two calls. Tests of the log run over them, and the simulator's worlds that keep their logs as production does.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_storage::StoreError;
use mailraft_storage::log::Log;
use mailraft_storage::memory::conformance::{DiskFault, LogDisk};
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use rand::{Rng, RngCore};

/// What a disk writes wholly or not at all, in bytes.
const SECTOR_BYTES: usize = 512;
/// Where names of files stand, if there is such a place: on a disk the syncs of their directory would be the slowest of all.
const MEMORY: &str = "/dev/shm";

/// Files in memory; only their names are on the real disk, where the engine lists them.
#[derive(Clone, Default)]
pub struct FaultyFiles(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Content>,
    /// Deleted since the last power loss, with what they would be again.
    deleted: BTreeMap<PathBuf, Vec<u8>>,
    armed: Option<DiskFault>,
    /// The power is gone: nothing is done any more.
    off: bool,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    /// What a power loss leaves; None for a file that was never synced.
    durable: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Call {
    Write,
    Sync,
    Other,
}

enum Fails {
    Not,
    /// With this error, having done a part.
    With(Error),
}

impl FaultyFiles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call; says how it ends.
    fn call(&mut self, call: Call) -> Fails {
        if self.off {
            // Whoever cleans up may not panic.
            return if call == Call::Sync { Fails::Not } else { Fails::With(Error::other("no power")) };
        }
        let Some(armed) = &mut self.armed else { return Fails::Not };
        let (after, kind) = match armed {
            DiskFault::PowerCut(after) => (after, None),
            DiskFault::FailedSync(after) => (after, Some(Call::Sync)),
            DiskFault::FailedWrite(after) | DiskFault::FullDisk(after) => (after, Some(Call::Write)),
        };
        if *after > 0 {
            *after -= 1;
            return Fails::Not;
        }
        if kind.is_some_and(|kind| kind != call) {
            return Fails::Not;
        }
        match self.armed.take() {
            Some(DiskFault::PowerCut(_)) => {
                self.off = true;
                Fails::With(Error::other("the power went"))
            }
            Some(DiskFault::FullDisk(_)) => Fails::With(Error::new(ErrorKind::StorageFull, "nospace")),
            Some(DiskFault::FailedSync(_) | DiskFault::FailedWrite(_)) | None => {
                Fails::With(Error::other("told to fail"))
            }
        }
    }

    fn content(&mut self, path: &Path) -> &mut Content {
        self.files.entry(path.to_owned()).or_default()
    }
}

/// An open file, and where in it.
pub struct OpenFile {
    files: FaultyFiles,
    path: PathBuf,
    at: usize,
}

impl OpenFile {
    fn done(&self, call: Call) -> Result<()> {
        match self.files.state().call(call) {
            Fails::Not => Ok(()),
            Fails::With(error) => Err(error),
        }
    }
}

impl FileSystem for FaultyFiles {
    type Handle = OpenFile;
    type Reader = OpenFile;
    type Writer = OpenFile;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<OpenFile> {
        let file = OpenFile { files: self.clone(), path: path.as_ref().to_owned(), at: 0 };
        file.done(Call::Other)?;
        std::fs::write(&path, b"")?;
        self.state().content(path.as_ref());
        Ok(file)
    }

    fn open<P: AsRef<Path>>(&self, path: P, _: Permission) -> Result<OpenFile> {
        match self.state().files.contains_key(path.as_ref()) {
            true => Ok(OpenFile { files: self.clone(), path: path.as_ref().to_owned(), at: 0 }),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        let mut state = self.state();
        if let Fails::With(error) = state.call(Call::Other) {
            return Err(error);
        }
        std::fs::remove_file(&path)?;
        if let Some(durable) = state.files.remove(path.as_ref()).and_then(|content| content.durable) {
            state.deleted.insert(path.as_ref().to_owned(), durable);
        }
        Ok(())
    }

    fn rename<P: AsRef<Path>>(&self, _: P, _: P) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn new_reader(&self, handle: Arc<OpenFile>) -> Result<OpenFile> {
        self.open(&handle.path, Permission::ReadOnly)
    }

    fn new_writer(&self, handle: Arc<OpenFile>) -> Result<OpenFile> {
        self.open(&handle.path, Permission::ReadWrite)
    }
}

impl Handle for OpenFile {
    fn truncate(&self, offset: usize) -> Result<()> {
        self.done(Call::Other)?;
        self.files.state().content(&self.path).now.resize(offset, 0);
        Ok(())
    }

    fn file_size(&self) -> Result<usize> {
        Ok(self.files.state().content(&self.path).now.len())
    }

    fn sync(&self) -> Result<()> {
        self.done(Call::Sync)?;
        let mut state = self.files.state();
        if !state.off {
            let content = state.content(&self.path);
            content.durable = Some(content.now.clone());
        }
        Ok(())
    }
}

impl Read for OpenFile {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let mut state = self.files.state();
        let from = state.content(&self.path).now.get(self.at..).unwrap_or_default();
        let length = from.len().min(out.len());
        out[..length].copy_from_slice(&from[..length]);
        self.at += length;
        Ok(length)
    }
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut state = self.files.state();
        let fails = state.call(Call::Write);
        let length = match (&fails, state.off) {
            (Fails::Not, _) => bytes.len(),
            (Fails::With(_), false) => bytes.len() / 2,
            // A part of it, but only where the power went in this call.
            (Fails::With(error), true) if error.to_string() == "the power went" => bytes.len() / 2,
            (Fails::With(_), true) => 0,
        };
        let now = &mut state.content(&self.path).now;
        if now.len() < self.at + length {
            now.resize(self.at + length, 0);
        }
        now[self.at..self.at + length].copy_from_slice(&bytes[..length]);
        match fails {
            Fails::Not => {
                self.at += length;
                Ok(length)
            }
            Fails::With(error) => Err(error),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Seek for OpenFile {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let end = self.file_size()? as i64;
        self.at = match to {
            SeekFrom::Start(at) => at as usize,
            SeekFrom::Current(by) => (self.at as i64 + by) as usize,
            SeekFrom::End(by) => (end + by) as usize,
        };
        Ok(self.at as u64)
    }
}

impl WriteExt for OpenFile {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        Handle::truncate(self, offset)?;
        self.at = offset;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        self.done(Call::Other)?;
        let mut state = self.files.state();
        let now = &mut state.content(&self.path).now;
        now.resize(now.len().max(offset + size), 0);
        Ok(())
    }
}

/// Opens a log over such files.
pub type Opener = fn(Arc<FaultyFiles>, &Path) -> std::result::Result<Box<dyn Log>, StoreError>;

/// A log over such files.
pub struct LogOnFaultyFiles {
    dir: tempfile::TempDir,
    files: FaultyFiles,
    opener: Opener,
}

impl LogOnFaultyFiles {
    /// One without files.
    ///
    /// # Panics
    /// If no directory can be made for the files' names.
    pub fn new(opener: Opener) -> Self {
        let memory = Path::new(MEMORY);
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        LogOnFaultyFiles { dir: dir.expect("a directory for names"), files: FaultyFiles::default(), opener }
    }

    /// The files there are.
    pub fn names(&self) -> Vec<PathBuf> {
        self.files.state().files.keys().cloned().collect()
    }

    /// What a file holds.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.files.state().content(path).now.clone()
    }

    /// The same log once more.
    ///
    /// # Panics
    /// If a name can't be written.
    pub fn copied(&self) -> Self {
        let mut copy = LogOnFaultyFiles::new(self.opener);
        let mut files: BTreeMap<PathBuf, Content> = BTreeMap::new();
        for (from, content) in &self.files.state().files {
            let to = copy.beside(from);
            std::fs::write(&to, b"").expect("a name");
            files.insert(to, content.clone());
        }
        copy.files = FaultyFiles(Arc::new(Mutex::new(State { files, ..State::default() })));
        copy
    }

    /// The same log once more, with a bit of one of its files turned over.
    pub fn spoilt(&self, name: &Path, bit: usize) -> Self {
        let copy = self.copied();
        copy.files.state().content(&copy.beside(name)).now[bit / 8] ^= 1 << (bit % 8);
        copy
    }

    /// Everything that was not synced is lost.
    pub fn lose_unsynced(&self) {
        for content in self.files.state().files.values_mut() {
            content.now = content.durable.clone().unwrap_or_default();
        }
    }

    /// A file of this name in this log's directory.
    fn beside(&self, path: &Path) -> PathBuf {
        self.dir.path().join(path.file_name().unwrap_or_default())
    }
}

impl LogDisk for LogOnFaultyFiles {
    fn open(&mut self) -> std::result::Result<Box<dyn Log>, StoreError> {
        let (files, opener) = (Arc::new(self.files.clone()), self.opener);
        // The engine panics where a sync fails: at a start as anywhere, the process would end.
        let opened = catch_unwind(AssertUnwindSafe(|| opener(files, self.dir.path())));
        opened.unwrap_or_else(|_| Err(StoreError::io("opening the log", "a panic")))
    }

    fn arm(&mut self, fault: DiskFault) {
        self.files.state().armed = Some(fault);
    }

    fn kill(&mut self, log: Option<Box<dyn Log>>) {
        // What a process writes when it ends in good order is not written by one that dies.
        let off = std::mem::replace(&mut self.files.state().off, true);
        drop(log);
        let mut state = self.files.state();
        (state.off, state.armed) = (false, None);
        if off {
            // The power is back, and what was not synced is as it was: the kindest of all losses.
            state.deleted.clear();
        }
    }

    fn lose_power(&mut self, log: Option<Box<dyn Log>>, rng: &mut dyn RngCore) {
        self.files.state().off = true;
        drop(log);
        let mut state = self.files.state();
        (state.off, state.armed) = (false, None);
        for (path, durable) in std::mem::take(&mut state.deleted) {
            if rng.random_bool(0.3) {
                std::fs::write(&path, b"").expect("a name");
                state.files.insert(path, Content { now: durable.clone(), durable: Some(durable) });
            }
        }
        for (path, content) in std::mem::take(&mut state.files) {
            if content.durable.is_none() && rng.random_bool(0.5) {
                std::fs::remove_file(&path).expect("a name");
                continue;
            }
            let left = torn(content.durable.unwrap_or_default(), &content.now, rng);
            state.files.insert(path, Content { now: left.clone(), durable: Some(left) });
        }
    }

    fn flip(&mut self, rng: &mut dyn RngCore) {
        let mut state = self.files.state();
        // Of each file what was ever written to: space that is set aside behind it says nothing.
        let used = |content: &Content| content.now.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bytes: usize = state.files.values().map(used).sum();
        if bytes == 0 {
            return;
        }
        let mut at = rng.random_range(0..bytes);
        for content in state.files.values_mut() {
            let here = used(content);
            if at < here {
                content.now[at] ^= 1 << rng.random_range(0..8);
                return;
            }
            at -= here;
        }
    }
}

/// What a power loss leaves of a file: of its sectors that were not synced some, and of its lengths one between.
fn torn(durable: Vec<u8>, now: &[u8], rng: &mut dyn RngCore) -> Vec<u8> {
    let (short, long) = (durable.len().min(now.len()), durable.len().max(now.len()));
    let length = match rng.random_range(0..3) {
        0 => durable.len(),
        1 => now.len(),
        _ => rng.random_range(short..=long),
    };
    let mut left = durable;
    left.resize(length, 0);
    let kept = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
    for from in (0..length).step_by(SECTOR_BYTES) {
        let to = (from + SECTOR_BYTES).min(length).min(now.len());
        if from < to && rng.random_bool(kept) {
            left[from..to].copy_from_slice(&now[from..to]);
        }
    }
    left
}

/// The engine panics where a sync fails, thousands of times here: nobody wants to read of those.
pub fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
            if !["the power went", "no power", "told to fail"].iter().any(|quiet| text.contains(quiet)) {
                before(panic);
            }
        }));
    });
}
