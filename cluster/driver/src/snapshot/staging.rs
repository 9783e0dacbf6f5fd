//! The directory of received snapshots: `<replica>.snap.part` while one arrives, `<replica>-<index>.snap`
//! once it is whole and synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_storage::log::Log;
use mailraft_storage::{Index, ReplicaId, StoreError};

use crate::config::StartError;

/// Shared by all that handle received snapshots.
#[derive(Clone)]
pub(crate) struct Staging {
    dir: Arc<PathBuf>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Replicas whose snapshot arrives at present.
    arriving: BTreeSet<ReplicaId>,
    /// Whose snapshot is whole, and the core has not said what becomes of it; it always does. Until then none other
    /// may arrive, however long that takes: what is thrown away must be what the core saw, and what it took must be there.
    pending: BTreeSet<ReplicaId>,
    /// Whose installation was begun, at which index: that file is needed until the log says it is over.
    installing: BTreeMap<ReplicaId, Index>,
}

/// The right to receive the snapshot of a replica; one at a time.
pub(super) struct Claim {
    staging: Staging,
    replica: ReplicaId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.staging.lock().arriving.remove(&self.replica);
    }
}

impl Staging {
    /// Makes the directory if it is not there. Throws away what a crash left half done, and whatever the log
    /// does not say is being installed.
    pub(crate) fn open(dir: PathBuf, log: &dyn Log) -> Result<Self, StartError> {
        let failed = |error| StartError::Io { what: format!("staging directory {}", dir.display()), error };
        fs::create_dir_all(&dir).map_err(failed)?;
        let mut installing = BTreeMap::new();
        for replica in log.replicas()? {
            // A damaged log is the core's to judge.
            if let Ok(Some(state)) = log.state(replica)
                && let Some(applied) = state.installing
            {
                installing.insert(replica, applied.index);
            }
        }
        for path in files(&dir).map_err(failed)? {
            let needed = parse(&path).is_some_and(|(replica, index)| installing.get(&replica) == Some(&index));
            if !needed {
                tracing::info!(path = %path.display(), "removing a staged snapshot that is not needed");
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        let state = State { installing, ..State::default() };
        Ok(Staging { dir: Arc::new(dir), state: Arc::new(Mutex::new(state)) })
    }

    /// Takes the right to receive a replica's snapshot; None if one arrives, waits or is being installed.
    pub(super) fn claim(&self, replica: ReplicaId) -> Option<Claim> {
        let mut state = self.lock();
        let new = !state.pending.contains(&replica)
            && !state.installing.contains_key(&replica)
            && state.arriving.insert(replica);
        drop(state);
        new.then(|| Claim { staging: self.clone(), replica })
    }

    /// Where a snapshot is written while it arrives.
    pub(super) fn part(&self, replica: ReplicaId) -> PathBuf {
        self.dir.join(format!("{replica}.snap.part"))
    }

    /// Where a whole snapshot is.
    pub(super) fn path(&self, replica: ReplicaId, index: Index) -> PathBuf {
        self.dir.join(format!("{replica}-{index}.snap"))
    }

    /// Gives the part, synced already, its final name, durably; removes the replica's older ones.
    pub(super) fn publish(&self, replica: ReplicaId, index: Index) -> io::Result<()> {
        fs::rename(self.part(replica), self.path(replica, index))?;
        File::open(self.dir.as_path())?.sync_all()?;
        self.remove(replica, |found| found != index);
        self.lock().pending.insert(replica);
        Ok(())
    }

    /// Notes that an installation has begun.
    pub(super) fn begin(&self, replica: ReplicaId, index: Index) {
        let mut state = self.lock();
        state.installing.insert(replica, index);
        state.pending.remove(&replica);
    }

    /// Throws a replica's staged snapshots away but for one that is being installed.
    pub(super) fn discard(&self, replica: ReplicaId) {
        let needed = self.lock().installing.get(&replica).copied();
        self.remove(replica, |found| Some(found) != needed);
        self.lock().pending.remove(&replica);
    }

    /// The log says durably that the replica's installation is over.
    pub(super) fn over(&self, replica: ReplicaId) {
        let index = self.lock().installing.get(&replica).copied();
        self.remove(replica, |found| Some(found) == index);
        self.lock().installing.remove(&replica);
    }

    fn remove(&self, replica: ReplicaId, unneeded: impl Fn(Index) -> bool) {
        // A file that can't be removed now is removed at the next start.
        let Ok(paths) = files(&self.dir) else { return };
        for path in paths {
            if let Some((found, index)) = parse(&path)
                && found == replica
                && unneeded(index)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "could not remove a staged snapshot");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An I/O error of a staged snapshot.
pub(super) fn file_error(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::io(format!("staged snapshot {}", path.display()), error)
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".snap") || name.ends_with(".snap.part") {
            found.push(path);
        }
    }
    Ok(found)
}

fn parse(path: &Path) -> Option<(ReplicaId, Index)> {
    let (replica, index) = path.file_name()?.to_str()?.strip_suffix(".snap")?.split_once('-')?;
    Some((ReplicaId(replica.parse().ok()?), Index(index.parse().ok()?)))
}
