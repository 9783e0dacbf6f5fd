//! File descriptors: one for each session, and what the node itself needs.

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;

/// What stores (RocksDB alone 1,024), Raft, other nodes and the admin server take.
const OWN: u64 = 2_048;

/// Whether this user may open enough.
pub fn examine(sessions: usize) -> Vec<Finding> {
    vec![judge(getrlimit(Resource::Nofile).maximum, sessions as u64)]
}

/// `hard` is None where there is no bound.
fn judge(hard: Option<u64>, sessions: u64) -> Finding {
    let needed = sessions.saturating_add(OWN);
    match hard {
        None => Finding::good("descriptors", "no bound".to_owned()),
        Some(hard) if hard >= needed => {
            Finding::good("descriptors", format!("{hard} allowed, {needed} needed for {sessions} sessions"))
        }
        Some(hard) => Finding::bad(
            "descriptors",
            format!("{hard} allowed, {needed} needed for {sessions} sessions: the node would end under load"),
            format!("set LimitNOFILE={needed} in its unit (or ulimit -n), or lower limits.sessions"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_bound_is_what_sessions_and_the_node_need_together() {
        assert_eq!(judge(Some(1_024), 1_000).verdict, Verdict::Bad);
        assert_eq!(judge(Some(3_047), 1_000).verdict, Verdict::Bad);
        assert_eq!(judge(Some(3_048), 1_000).verdict, Verdict::Good);
        assert_eq!(judge(None, u64::MAX).verdict, Verdict::Good);
    }
}
