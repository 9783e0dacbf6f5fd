//! The root key of a node whose region may become the home: in its file, tried every minute, or given by an operator and
//! kept in memory alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_directory::keys::{RootKey, check_root};
use mailraft_driver::Cluster;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Config;
use crate::metrics::ROOT_KEY_USABLE;

/// The file is tried so often while nothing hangs on it.
const TRY_EVERY: Duration = Duration::from_secs(60);

/// Whether a node can open mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Whether it can.
    pub usable: bool,
    /// Why not, for people; empty if it can.
    #[serde(default)]
    pub why: String,
    /// Whether something is where the key should be. Where nothing is, an operator brings it.
    #[serde(default)]
    pub is_there: bool,
}

/// A node's root key, or the want of it.
#[derive(Clone)]
pub struct Unsealing {
    cluster: Cluster,
    config: Arc<Config>,
    /// Read at the start, or given by an operator.
    given: Arc<Mutex<Option<RootKey>>>,
    state: watch::Sender<KeyState>,
}

impl Unsealing {
    /// With what was read at the start, if it was.
    pub fn new(cluster: Cluster, config: Arc<Config>, root: Option<RootKey>) -> Self {
        let state = match &root {
            Some(_) => KeyState { usable: true, why: String::new(), is_there: true },
            None => KeyState { usable: false, why: "it was not tried yet".to_owned(), is_there: false },
        };
        let state = watch::Sender::new(state);
        Unsealing { cluster, config, given: Arc::new(Mutex::new(root)), state }
    }

    /// How it was when it was tried last.
    pub fn state(&self) -> KeyState {
        self.state.borrow().clone()
    }

    /// Hears of it when that changes.
    pub fn changes(&self) -> watch::Receiver<KeyState> {
        self.state.subscribe()
    }

    /// Tries the file every minute, for ever.
    pub async fn watch(self) {
        let mut pause = tokio::time::interval(TRY_EVERY);
        loop {
            pause.tick().await;
            // What came of it stands in the state.
            let _ = self.key().await;
        }
    }

    /// The key, from memory or else from its file.
    ///
    /// # Errors
    /// One sentence that says why there is none.
    pub async fn key(&self) -> Result<RootKey, String> {
        let own = self.clone();
        let read = tokio::task::spawn_blocking(move || own.read()).await;
        let read = read.unwrap_or_else(|e| Err((e.to_string(), false)));
        let state = match &read {
            Ok(_) => KeyState { usable: true, why: String::new(), is_there: true },
            Err((why, is_there)) => KeyState { usable: false, why: why.clone(), is_there: *is_there },
        };
        ::metrics::gauge!(ROOT_KEY_USABLE).set(f64::from(u8::from(state.usable)));
        self.state.send_if_modified(|known| std::mem::replace(known, state.clone()) != state);
        read.map_err(|(why, _)| why)
    }

    /// Whether a key is this cluster's.
    ///
    /// # Errors
    /// One sentence if it is not.
    pub async fn fits(&self, text: &str) -> Result<RootKey, String> {
        let root = RootKey::parse(text).map_err(|e| e.to_string())?;
        let own = self.clone();
        let checked = tokio::task::spawn_blocking(move || own.check(&root).map(|()| root));
        checked.await.unwrap_or_else(|e| Err(e.to_string()))
    }

    /// Takes a key that an operator gives, in memory alone.
    ///
    /// # Errors
    /// One sentence if it is not this cluster's.
    pub async fn take(&self, text: &str) -> Result<(), String> {
        let root = self.fits(text).await?;
        *self.given() = Some(root);
        self.key().await.map(|_| ())
    }

    /// Why there is none, and whether something is where it should be.
    fn read(&self) -> Result<RootKey, (String, bool)> {
        if let Some(root) = self.given().clone() {
            return Ok(root);
        }
        let path = &self.config.keys.root_key_file;
        if !path.exists() {
            return Err((format!("no file is at keys.root_key_file {}", path.display()), false));
        }
        let root = RootKey::read(path).map_err(|e| (e.to_string(), true))?;
        self.check(&root).map_err(|why| (why, true))?;
        Ok(root)
    }

    fn check(&self, root: &RootKey) -> Result<(), String> {
        check_root(self.cluster.rows().as_ref(), self.cluster.cluster_id(), root).map_err(|e| e.to_string())
    }

    fn given(&self) -> MutexGuard<'_, Option<RootKey>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
