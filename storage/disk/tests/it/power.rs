//! What a disk has of the files under one directory: what was synced, and what was only written. At a drawn call the
//! power goes, or that call fails; what a power cut leaves is then laid out in another directory.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;

/// What a disk writes wholly or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

static ON: AtomicBool = AtomicBool::new(false);
static WATCHED: Mutex<Option<Disk>> = Mutex::new(None);
static TURN: Mutex<()> = Mutex::new(());

/// A call on an open file.
pub enum Call<'a> {
    Write { at: usize, bytes: &'a [u8] },
    Truncate(usize),
    Sync,
}

/// What becomes of a call.
pub enum Verdict {
    Do,
    /// It fails with this error number.
    Fail(i32),
}

/// What is to go wrong, after so many calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wrong {
    PowerCut(u64),
    FailedSync(u64),
    FailedWrite(u64),
    FullDisk(u64),
    /// From then on each sync takes so long.
    SlowSync(u64, Duration),
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    /// Written since, in order.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone)]
enum NameChange {
    Is(PathBuf, u64),
    Gone(PathBuf),
}

/// The files as they are after a power cut, but for what is drawn.
#[derive(Clone, Default)]
struct Files {
    contents: BTreeMap<u64, Content>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the directory was synced, in order.
    pending_names: Vec<NameChange>,
}

enum Open {
    File(u64),
    Directory,
}

#[derive(Default)]
struct Disk {
    root: PathBuf,
    files: Files,
    names: BTreeMap<PathBuf, u64>,
    open: HashMap<i32, Open>,
    next: u64,
    calls: u64,
    wrong: Option<Wrong>,
    /// What was there when the power went.
    cut: Option<Files>,
    failed: bool,
    slow: Option<Duration>,
}

/// Watches a directory as long as it lives; one at a time.
pub struct Watch {
    _turn: MutexGuard<'static, ()>,
}

impl Watch {
    /// Everything in the directory is durable as it is. Until it goes, this goes wrong.
    pub fn over(root: &Path, wrong: Option<Wrong>) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut disk = Disk { root: root.to_owned(), wrong, ..Disk::default() };
        for file in std::fs::read_dir(root).unwrap().map(|file| file.unwrap().path()).filter(|path| counts(path)) {
            let content = Content { durable: std::fs::read(&file).unwrap(), pending: Vec::new() };
            disk.next += 1;
            disk.files.contents.insert(disk.next, content);
            disk.names.insert(file, disk.next);
        }
        disk.files.durable_names = disk.names.clone();
        *watched() = Some(disk);
        ON.store(true, Ordering::SeqCst);
        Watch { _turn: turn }
    }

    /// From now on the next write fails.
    pub fn fail_next_write(&self) {
        if let Some(disk) = watched().as_mut() {
            disk.wrong = Some(Wrong::FailedWrite(disk.calls));
        }
    }

    /// The power goes in the call after so many more.
    pub fn cut_after(&self, calls: u64) {
        if let Some(disk) = watched().as_mut() {
            disk.wrong = Some(Wrong::PowerCut(disk.calls + calls));
        }
    }

    /// Whether the power is gone: what is done from now on counts for nothing.
    pub fn is_off(&self) -> bool {
        watched().as_ref().is_some_and(|disk| disk.cut.is_some())
    }

    /// Whether a call has failed.
    pub fn has_failed(&self) -> bool {
        watched().as_ref().is_some_and(|disk| disk.failed)
    }

    /// The power goes now, if it has not gone before.
    pub fn cut(&self) {
        if let Some(disk) = watched().as_mut() {
            disk.cut.get_or_insert_with(|| disk.files.clone());
        }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        watched().as_ref().map_or(0, |disk| disk.calls)
    }

    /// Lays out in an empty directory what the power cut has left: of what was written and not synced some sectors, and
    /// of the last changes of names some of the first.
    pub fn lay_out(self, to: &Path, draw: &mut impl Rng) {
        ON.store(false, Ordering::SeqCst);
        let disk = watched().take().expect("a watched directory");
        let files = disk.cut.unwrap_or(disk.files);
        let mut names = files.durable_names;
        let kept = draw.random_range(0..=files.pending_names.len());
        for change in &files.pending_names[..kept] {
            match change {
                NameChange::Is(path, file) => drop(names.insert(path.clone(), *file)),
                NameChange::Gone(path) => drop(names.remove(path)),
            }
        }
        for (path, file) in names {
            let content = files.contents.get(&file).map(|content| content.torn(draw)).unwrap_or_default();
            std::fs::write(to.join(path.file_name().expect("a name")), content).unwrap();
        }
        // What the tests' own code writes is no matter of RocksDB's.
        std::fs::copy(disk.root.join("MAILRAFT"), to.join("MAILRAFT")).unwrap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        ON.store(false, Ordering::SeqCst);
        *watched() = None;
    }
}

impl Content {
    /// What is left of it: each sector that was written and not synced is there or not, the length is any between.
    fn torn(&self, draw: &mut impl Rng) -> Vec<u8> {
        let mut out = self.durable.clone();
        let all = draw.random_bool(0.3);
        for change in &self.pending {
            match change {
                Change::Truncate(len) if all || draw.random_bool(0.5) => out.truncate(*len),
                Change::Truncate(_) => {}
                Change::Write(at, bytes) => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = (from + SECTOR_BYTES - (at + from) % SECTOR_BYTES).min(bytes.len());
                        if all || draw.random_bool(0.6) {
                            if out.len() < at + to {
                                out.resize(at + to, 0);
                            }
                            out[at + from..at + to].copy_from_slice(&bytes[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
        out
    }
}

impl Disk {
    /// Counts a call, and says whether it fails.
    fn counts(&mut self, call: &Call<'_>) -> Verdict {
        self.calls += 1;
        let (sync, write) = (matches!(call, Call::Sync), matches!(call, Call::Write { .. }));
        match self.wrong {
            Some(Wrong::PowerCut(at)) if self.calls > at && self.cut.is_none() => {
                self.cut = Some(self.files.clone());
            }
            Some(Wrong::FailedSync(at)) if self.calls > at && sync => return self.fails(libc::EIO),
            Some(Wrong::FailedWrite(at)) if self.calls > at && write => return self.fails(libc::EIO),
            Some(Wrong::FullDisk(at)) if self.calls > at && write => return self.fails(libc::ENOSPC),
            Some(Wrong::SlowSync(at, takes)) if self.calls > at => self.slow = Some(takes),
            Some(_) | None => {}
        }
        Verdict::Do
    }

    fn fails(&mut self, errno: i32) -> Verdict {
        self.wrong = None;
        self.failed = true;
        Verdict::Fail(errno)
    }

    fn renamed(&mut self, change: NameChange) {
        match &change {
            NameChange::Is(path, file) => drop(self.names.insert(path.clone(), *file)),
            NameChange::Gone(path) => drop(self.names.remove(path)),
        }
        self.files.pending_names.push(change);
    }
}

pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

pub fn watches(fd: i32) -> bool {
    watched().as_ref().is_some_and(|disk| disk.open.contains_key(&fd))
}

/// A call on an open file that is watched.
pub fn calls(fd: i32, call: Call<'_>) -> Verdict {
    let mut guard = watched();
    let Some(disk) = guard.as_mut() else { return Verdict::Do };
    if let Verdict::Fail(errno) = disk.counts(&call) {
        return Verdict::Fail(errno);
    }
    let slow = disk.slow;
    match (disk.open.get(&fd), &call) {
        (Some(Open::Directory), Call::Sync) => {
            disk.files.pending_names.clear();
            disk.files.durable_names = disk.names.clone();
        }
        (Some(Open::File(file)), call) => {
            let content = disk.files.contents.entry(*file).or_default();
            match call {
                Call::Write { at, bytes } => content.pending.push(Change::Write(*at, bytes.to_vec())),
                Call::Truncate(len) => content.pending.push(Change::Truncate(*len)),
                Call::Sync => {
                    for change in std::mem::take(&mut content.pending) {
                        match change {
                            Change::Truncate(len) => content.durable.resize(len, 0),
                            Change::Write(at, bytes) => {
                                let end = at + bytes.len();
                                if content.durable.len() < end {
                                    content.durable.resize(end, 0);
                                }
                                content.durable[at..end].copy_from_slice(&bytes);
                            }
                        }
                    }
                }
            }
        }
        (Some(Open::Directory) | None, _) => {}
    }
    drop(guard);
    if let (Call::Sync, Some(takes)) = (call, slow) {
        std::thread::sleep(takes);
    }
    Verdict::Do
}

/// A file or the directory itself was opened.
pub fn opened(fd: i32, path: &Path, truncated: bool, created: bool) {
    let mut guard = watched();
    let Some(disk) = guard.as_mut() else { return };
    if path == disk.root {
        disk.open.insert(fd, Open::Directory);
        return;
    }
    if path.parent() != Some(&disk.root) || !counts(path) {
        disk.open.remove(&fd);
        return;
    }
    let file = match disk.names.get(path).copied() {
        Some(file) => file,
        None if created => {
            disk.next += 1;
            let file = disk.next;
            disk.files.contents.insert(file, Content::default());
            disk.renamed(NameChange::Is(path.to_owned(), file));
            file
        }
        None => return,
    };
    if truncated {
        disk.files.contents.entry(file).or_default().pending.push(Change::Truncate(0));
    }
    disk.open.insert(fd, Open::File(file));
}

pub fn closed(fd: i32) {
    if let Some(disk) = watched().as_mut() {
        disk.open.remove(&fd);
    }
}

pub fn renames(from: &Path, to: &Path) -> Verdict {
    let mut guard = watched();
    let Some(disk) = guard.as_mut() else { return Verdict::Do };
    let Some(file) = disk.names.get(from).copied() else { return Verdict::Do };
    if let Verdict::Fail(errno) = disk.counts(&Call::Truncate(0)) {
        return Verdict::Fail(errno);
    }
    disk.names.remove(from);
    disk.renamed(NameChange::Is(to.to_owned(), file));
    disk.files.pending_names.push(NameChange::Gone(from.to_owned()));
    Verdict::Do
}

pub fn unlinks(path: &Path) -> Verdict {
    let mut guard = watched();
    let Some(disk) = guard.as_mut() else { return Verdict::Do };
    if !disk.names.contains_key(path) {
        return Verdict::Do;
    }
    if let Verdict::Fail(errno) = disk.counts(&Call::Truncate(0)) {
        return Verdict::Fail(errno);
    }
    disk.renamed(NameChange::Gone(path.to_owned()));
    Verdict::Do
}

/// RocksDB's words for people and its lock are no data.
fn counts(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.starts_with("LOG") && name != "LOCK" && name != "MAILRAFT"
}

fn watched() -> MutexGuard<'static, Option<Disk>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
