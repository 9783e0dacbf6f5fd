//! What the service manager is told, where there is one: ready, alive, stopping (sd_notify(3)).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use mailraft_driver::Cluster;

/// Signs of life within one watchdog period: one may be late without the node being ended.
const SIGNS_IN_A_PERIOD: u32 = 3;

/// The service manager that started this process, if one did.
pub struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment names it: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn of_environment() -> Self {
        let pid = std::env::var("WATCHDOG_PID").ok();
        let ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog_us = std::env::var("WATCHDOG_USEC").ok().filter(|_| ours).and_then(|text| text.parse().ok());
        ServiceManager::at(std::env::var_os("NOTIFY_SOCKET").as_deref(), watchdog_us)
    }

    fn at(socket: Option<&OsStr>, watchdog_us: Option<u64>) -> Self {
        let to = socket.and_then(|name| {
            let opened = address(name).and_then(|to| {
                let socket = UnixDatagram::unbound()?;
                // A manager that reads nothing must not stop the node.
                socket.set_nonblocking(true)?;
                Ok((socket, to))
            });
            opened.inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET can't be used: nobody is told")).ok()
        });
        ServiceManager { to, watchdog: watchdog_us.filter(|us| *us > 0).map(Duration::from_micros) }
    }

    /// The node serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The node hands its leaders over and ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=handing over leaders, ending sessions");
    }

    /// Gives a sign of life, for ever, whenever the core has answered: a core that is stuck gives none, and the
    /// manager ends the process. Returns at once where no watchdog is wanted.
    pub async fn watch(&self, cluster: &Cluster) {
        let Some(period) = self.watchdog else { return };
        let mut pause = tokio::time::interval(period / SIGNS_IN_A_PERIOD);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            // A core that has ended names no partition; each node has a replica of the control group.
            if !cluster.status().await.partitions.is_empty() {
                self.tell("WATCHDOG=1");
            }
        }
    }

    fn tell(&self, text: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(error) = socket.send_to_addr(text.as_bytes(), to)
        {
            tracing::warn!(%error, "the service manager can't be told {text:?}");
        }
    }
}

/// `@name` is in the abstract namespace.
fn address(name: &OsStr) -> std::io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_manager_at_a_path_or_an_abstract_name_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("mailraft-test-{}", std::process::id());
        let at_name = SocketAddr::from_abstract_name(abstract_name.as_bytes()).unwrap();
        let sockets = [(path.as_os_str().to_owned(), UnixDatagram::bind(&path).unwrap()), {
            (format!("@{abstract_name}").into(), UnixDatagram::bind_addr(&at_name).unwrap())
        }];
        for (name, socket) in sockets {
            let manager = ServiceManager::at(Some(&name), Some(30_000_000));
            manager.ready();
            assert!(heard(&socket).starts_with("READY=1\n"));
            manager.stopping();
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
            assert_eq!(manager.watchdog, Some(Duration::from_secs(30)));
        }
    }

    #[test]
    fn without_a_manager_or_with_one_that_is_gone_the_node_goes_on() {
        ServiceManager::at(None, None).ready();
        ServiceManager::at(Some(OsStr::new("/nowhere/notify")), Some(0)).ready();
        assert_eq!(ServiceManager::at(None, Some(0)).watchdog, None);
    }
}
