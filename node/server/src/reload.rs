//! Signals: when a node is to end, and what SIGHUP takes up anew.

use std::path::Path;

use mailraft_driver::Cluster;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::sessions::tls::{CertificateFiles, MailTls};

/// The signals that a node hears, from its beginning on: none is lost between two of its parts.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Hears them from now on.
    ///
    /// # Errors
    /// If signals can't be heard.
    pub fn hear() -> Result<Self, String> {
        let heard = |kind| signal(kind).map_err(|e| format!("signals can't be heard: {e}"));
        Ok(Signals {
            terminate: heard(SignalKind::terminate())?,
            interrupt: heard(SignalKind::interrupt())?,
            hangup: heard(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; each SIGHUP is answered by this. May be dropped and waited for again.
    pub async fn until_told_to_stop(&mut self, mut reload: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// Reads the configuration again and takes certificates up, towards other nodes and towards clients. What can't take effect
/// without a restart is named in the log. None if something is wrong, as the log says; then the old ones stay.
pub fn certificates(now: &Config, path: &Path, cluster: &Cluster, tls: &MailTls) -> Option<Config> {
    let new = match Config::load(path) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "not reloaded: the old configuration stays");
            return None;
        }
    };
    for sentence in now.needs_restart(&new) {
        tracing::warn!("{sentence}");
    }
    let ended = new.peer_tls().and_then(|peers| cluster.reload_peers(&peers).map_err(|e| e.to_string()));
    let ended = match ended {
        Ok(ended) => ended,
        Err(sentence) => {
            tracing::error!("not reloaded: {sentence}; the old certificates stay");
            return None;
        }
    };
    if ended > 0 {
        tracing::warn!(connections = ended, "connections of nodes whose certificates are revoked have ended");
    }
    if let Err(sentence) = tls.reload(&CertificateFiles::of(&new)) {
        tracing::error!("not reloaded: {sentence}; the old certificates stay");
        return None;
    }
    Some(new)
}
