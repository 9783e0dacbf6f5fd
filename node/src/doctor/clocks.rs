//! Clocks: set by a time service, and near those of the other nodes.

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use mailraft_server::status::{ClusterStatus, NodeAnswer};
use mailraft_storage::NodeId;

use super::finding::Finding;

/// Nodes' clocks may differ by this: they are asked one after the other's answer, within a second and a half.
const APART_MAX_MS: u64 = 3_000;
/// timedatectl may take this long.
const TIMEDATECTL_MAX: Duration = Duration::from_secs(5);

/// Whether the kernel says that its clock is kept, and how far nodes' clocks are apart.
pub fn examine(status: Result<&ClusterStatus, &String>) -> Vec<Finding> {
    let apart = match status {
        Ok(status) => judge_apart(&clocks(status)),
        Err(why) => {
            Finding::unknown("clock", format!("not compared with other nodes: {why}"), "start the node, then ask again")
        }
    };
    vec![judge_kept(timedatectl().as_deref()), apart]
}

/// What timedatectl(1) says of `NTPSynchronized`: the kernel's own word, whichever time service there is.
fn timedatectl() -> Option<String> {
    let (tell, told) = mpsc::channel();
    // Left behind if it hangs: the doctor ends before long.
    std::thread::spawn(move || {
        let output = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output();
        let _ = tell.send(output);
    });
    let output = told.recv_timeout(TIMEDATECTL_MAX).ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn judge_kept(said: Option<&str>) -> Finding {
    match said {
        Some("yes") => Finding::good("clock", "kept by a time service".to_owned()),
        Some(_) => Finding::warning(
            "clock",
            "no time service keeps it: mail gets wrong dates, and certificates seem to have ended".to_owned(),
            "install and start systemd-timesyncd or chrony",
        ),
        None => Finding::unknown(
            "clock",
            "timedatectl can't be asked whether a time service keeps it".to_owned(),
            "see that systemd-timesyncd or chrony runs",
        ),
    }
}

/// Each node that told its clock, in milliseconds since 1970.
fn clocks(status: &ClusterStatus) -> Vec<(NodeId, u64)> {
    let told = |node: &mailraft_server::status::NodeLine| match &node.answer {
        NodeAnswer::Up(answer) => answer.clock_unix_ms.map(|clock| (node.id, clock)),
        NodeAnswer::Down { .. } => None,
    };
    status.nodes.iter().filter_map(told).collect()
}

fn judge_apart(clocks: &[(NodeId, u64)]) -> Finding {
    let (Some(first), Some(last)) = (clocks.iter().min_by_key(|c| c.1), clocks.iter().max_by_key(|c| c.1)) else {
        return Finding::unknown("clock", "no node told its clock".to_owned(), "upgrade the nodes");
    };
    let apart_ms = last.1 - first.1;
    if apart_ms > APART_MAX_MS {
        Finding::bad(
            "clock",
            format!("node {} is {}.{:03} s ahead of node {}", last.0, apart_ms / 1_000, apart_ms % 1_000, first.0),
            "let a time service keep both clocks; when most are wrong, results of commands are forgotten too early",
        )
    } else {
        Finding::good("clock", format!("those of {} nodes agree", clocks.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_nobody_keeps_or_that_is_off_is_found() {
        assert_eq!(judge_kept(Some("yes")).verdict, Verdict::Good);
        assert_eq!(judge_kept(Some("no")).verdict, Verdict::Warning);
        assert_eq!(judge_kept(None).verdict, Verdict::Unknown);
        let near = [(NodeId(1), 10_000), (NodeId(2), 13_000)];
        assert_eq!(judge_apart(&near).verdict, Verdict::Good);
        let far = judge_apart(&[(NodeId(1), 13_001), (NodeId(2), 10_000), (NodeId(3), 11_000)]);
        assert_eq!(far.verdict, Verdict::Bad);
        assert_eq!(far.found, "node 1 is 3.001 s ahead of node 2");
        assert_eq!(judge_apart(&[]).verdict, Verdict::Unknown);
    }
}
