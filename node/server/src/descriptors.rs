//! How many files and connections this process may have open at once, and who gets how many of them.
//!
//! What would end the node if it got none (stores, the Raft log, other nodes) has its share set aside before clients get
//! the rest: at their bound a client is refused, and nothing else notices.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Taken for the bound where the system says that there is none.
const UNBOUNDED: u64 = 1 << 20;
/// The process itself: its standard streams, event loops, timers, signals, listening sockets.
const PROCESS: usize = 96;
/// Files of the Raft log, with those that it opens to give space back.
const LOG: usize = 128;
/// Files of the rows that are open at once, at most.
const ROWS_MAX: usize = 1_024;
/// Files of the rows that are open at once, at least.
pub const ROWS_MIN: usize = 128;
/// Beyond those, files that flushes and compactions write, and snapshots.
const ROWS_WRITTEN: usize = 64;
/// Connections that other nodes may have to this one, at most and at least.
const PEERS_MAX: usize = 1_024;
const PEERS_MIN: usize = 96;
/// Connections to another node, for each of them, uploads aside.
const TO_PEER: usize = 8;
/// Connections of the admin server.
pub const ADMIN_CONNECTIONS: usize = 32;
/// Connections that are being refused, with a line that says why.
pub const REFUSING: usize = 32;
/// Large messages on their way in, at most and at least: a file, later a connection to where it goes.
const LARGE_MESSAGES_MAX: usize = 2_048;
const LARGE_MESSAGES_MIN: usize = 16;
/// Mail to other servers, at most and at least: connections with them, some that are kept, the DNS, policies.
const SENDING_MAX: usize = 192;
const SENDING_MIN: usize = 32;
/// Fewer sessions are not worth a start.
const SESSIONS_MIN: usize = 32;

/// Who may have how many files and connections open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// What the system allows this process (RLIMIT_NOFILE).
    pub allowed: usize,
    /// Files of the rows.
    pub rows: usize,
    /// Connections of other nodes.
    pub peers: usize,
    /// Large messages on their way in.
    pub large_messages: usize,
    /// Mail to other servers.
    #[serde(default)]
    pub sending: usize,
    /// Sessions of clients: what is left. `limits.sessions` may ask for fewer.
    pub sessions: usize,
}

impl Descriptors {
    /// Raises the process's bound to the highest that it may set itself, and shares it out.
    ///
    /// # Errors
    /// One sentence that says what to do if it does not do for a node.
    pub fn claim(other_nodes: usize, sessions_wanted: usize) -> Result<Self, String> {
        Self::share_out(raise(), other_nodes, sessions_wanted)
    }

    /// Shares so many out.
    ///
    /// # Errors
    /// One sentence if hardly any are left for clients.
    pub fn share_out(allowed: usize, other_nodes: usize, sessions_wanted: usize) -> Result<Self, String> {
        let rows = (allowed / 8).clamp(ROWS_MIN, ROWS_MAX);
        let peers = (allowed / 16).clamp(PEERS_MIN, PEERS_MAX);
        let large_messages = (allowed / 16).clamp(LARGE_MESSAGES_MIN, LARGE_MESSAGES_MAX);
        let sending = (allowed / 16).clamp(SENDING_MIN, SENDING_MAX);
        let fixed = PROCESS + LOG + ROWS_WRITTEN + ADMIN_CONNECTIONS + REFUSING;
        let reserved = fixed + rows + peers + large_messages + sending + TO_PEER * other_nodes;
        let left = allowed.saturating_sub(reserved);
        if left < SESSIONS_MIN {
            return Err(format!(
                "only {allowed} files may be open at once, and a node needs {reserved} for itself: set LimitNOFILE={} \
                 in its unit (or ulimit -n)",
                reserved + sessions_wanted
            ));
        }
        Ok(Descriptors { allowed, rows, peers, large_messages, sending, sessions: left })
    }

    /// Says in the log what there is, and more loudly where it is less than was asked for.
    pub fn announce(&self, sessions_wanted: usize) {
        let Descriptors { allowed, rows, peers, large_messages, sending, sessions } = *self;
        if sessions < sessions_wanted {
            tracing::warn!(
                allowed,
                sessions,
                sessions_wanted,
                "fewer sessions than limits.sessions: raise LimitNOFILE in the node's unit (or ulimit -n)"
            );
        }
        tracing::info!(allowed, sessions, rows, peers, large_messages, sending, "files and connections shared out");
        ::metrics::gauge!("mailraft_descriptors_allowed").set(allowed as f64);
    }
}

/// Enough for so many sessions whatever else is used, for advice.
pub fn enough_for(sessions: usize, other_nodes: usize) -> usize {
    let own = PROCESS + LOG + ROWS_WRITTEN + ADMIN_CONNECTIONS + REFUSING;
    sessions + own + ROWS_MAX + PEERS_MAX + LARGE_MESSAGES_MAX + SENDING_MAX + TO_PEER * other_nodes
}

/// Raises the bound on open files as far as this process may; the bound from then on.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (current, wanted) = (current.unwrap_or(UNBOUNDED), maximum.unwrap_or(UNBOUNDED));
    let mut allowed = current;
    if wanted > current {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => allowed = wanted,
            Err(error) => tracing::warn!(%error, current, wanted, "the bound on open files can't be raised"),
        }
    }
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sessions_follow_from_what_is_left_and_all_shares_fit() {
        for allowed in [768, 1_024, 4_096, 65_536, 524_288] {
            for nodes in [0, 2, 6] {
                let given = Descriptors::share_out(allowed, nodes, 10_000).unwrap();
                let fixed = PROCESS + LOG + ROWS_WRITTEN + ADMIN_CONNECTIONS + REFUSING + TO_PEER * nodes;
                let sum = given.rows + given.peers + given.large_messages + given.sending + given.sessions + fixed;
                assert!(sum <= allowed && given.sessions >= SESSIONS_MIN, "{given:?}");
            }
        }
        assert!(Descriptors::share_out(enough_for(10_000, 2), 2, 10_000).unwrap().sessions >= 10_000);
        assert!(Descriptors::share_out(1_024, 2, 10_000).unwrap().sessions < 1_024);
    }

    #[test]
    fn too_few_are_refused_with_the_number_to_set() {
        let said = Descriptors::share_out(256, 2, 1_000).unwrap_err();
        assert!(said.starts_with("only 256 files may be open at once") && said.contains("LimitNOFILE="), "{said}");
    }
}
