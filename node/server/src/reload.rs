//! Signals: when a node is to end, and what SIGHUP takes up anew.

use std::path::Path;

use mailraft_driver::Cluster;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::sessions::tls::{CertificateFiles, MailTls};

/// Waits for SIGTERM or SIGINT; each SIGHUP is answered by this.
///
/// # Errors
/// If signals can't be heard.
pub async fn until_told_to_stop(mut reload: impl FnMut()) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => reload(),
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
