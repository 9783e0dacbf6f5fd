//! File descriptors: one for each session, and what the node itself needs.

use mailraft_server::descriptors::{Descriptors, enough_for};
use rustix::process::{Resource, getrlimit};

use super::finding::Finding;

/// Whether this user may open enough.
pub fn examine(sessions: usize, other_nodes: usize) -> Vec<Finding> {
    let hard = getrlimit(Resource::Nofile).maximum.map(|hard| usize::try_from(hard).unwrap_or(usize::MAX));
    vec![judge(hard, sessions, other_nodes)]
}

/// `hard` is None where there is no bound.
fn judge(hard: Option<usize>, sessions: usize, other_nodes: usize) -> Finding {
    let Some(hard) = hard else { return Finding::good("descriptors", "no bound".to_owned()) };
    let advice = || {
        let needed = enough_for(sessions, other_nodes);
        format!("set LimitNOFILE={needed} in its unit (or ulimit -n), or lower limits.sessions")
    };
    match Descriptors::share_out(hard, other_nodes, sessions) {
        Ok(given) if given.sessions >= sessions => {
            Finding::good("descriptors", format!("{hard} allowed, which does for {sessions} sessions"))
        }
        Ok(given) => Finding::warning(
            "descriptors",
            format!("{hard} allowed, which does for {} sessions of {sessions}", given.sessions),
            advice(),
        ),
        Err(why) => Finding::bad("descriptors", why, advice()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_bound_is_what_sessions_and_the_node_need_together() {
        assert_eq!(judge(Some(256), 1_000, 2).verdict, Verdict::Bad);
        assert_eq!(judge(Some(1_024), 1_000, 2).verdict, Verdict::Warning);
        assert_eq!(judge(Some(enough_for(1_000, 2)), 1_000, 2).verdict, Verdict::Good);
        assert_eq!(judge(None, usize::MAX, 2).verdict, Verdict::Good);
    }
}
