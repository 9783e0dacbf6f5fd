//! Memory: what the configuration can make a node take, against what the machine or the unit gives it.

use std::fs;

use mailraft_server::config::Limits;
use mailraft_server::memory_limit::{Division, given_bytes, limit_bytes, meminfo_bytes};

use super::finding::Finding;

/// Whether there is enough, and whether keys could be swapped to a disk.
pub fn examine(limits: &Limits) -> Vec<Finding> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let swap = machine.as_deref().and_then(|text| meminfo_bytes(text, "SwapTotal"));
    vec![judge(given_bytes(), limit_bytes(limits), limits), judge_swap(swap)]
}

/// Whether the limit is within what is given, and enough for what the configuration asks for.
fn judge(given: Option<u64>, limit: Option<u64>, limits: &Limits) -> Finding {
    let least = Division::least(limits);
    let (Some(given), Some(limit)) = (given, limit) else {
        return Finding::unknown(
            "memory",
            "/proc/meminfo can't be read".to_owned(),
            format!("see that the node has {} MiB, and write limits.memory_bytes", least >> 20),
        );
    };
    let division = Division::of(limit, limits);
    let found = format!("{} MiB given; the node's limit is {division}", given >> 20);
    if limit > given {
        return Finding::bad(
            "memory",
            found,
            "lower limits.memory_bytes, or give the machine or the unit (MemoryMax) more",
        );
    }
    if limit < least {
        return Finding::bad(
            "memory",
            format!("{found}; it needs {} MiB", least >> 20),
            "give the machine or the unit (MemoryMax) more, raise limits.memory_bytes, or lower limits.auth_parallel",
        );
    }
    if division.bodies < limits.body_memory_bytes as u64 || division.sessions_max() < limits.sessions {
        let sessions = division.sessions_max().min(limits.sessions);
        return Finding::warning(
            "memory",
            format!("{found}; that is for {sessions} sessions and {} MiB of bodies", division.bodies >> 20),
            "give the machine or the unit (MemoryMax) more, or lower limits.sessions and limits.body_memory_bytes",
        );
    }
    Finding::good("memory", found)
}

fn judge_swap(swap: Option<u64>) -> Finding {
    match swap {
        Some(0) => Finding::good("memory", "no swap".to_owned()),
        Some(bytes) => Finding::warning(
            "memory",
            format!("{} MiB of swap: keys in memory may reach that disk, and a node that swaps is slow", bytes >> 20),
            "switch it off (swapoff -a, and out of /etc/fstab), or set MemorySwapMax=0 in the unit, as the package does",
        ),
        None => Finding::unknown("memory", "/proc/meminfo names no swap".to_owned(), "see that there is none"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use mailraft_server::config::{Config, OnLoopback, render_on_loopback};

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_limit_is_judged_by_what_there_is_and_what_is_asked_for() {
        let dir = Path::new("/d");
        let text = render_on_loopback(&OnLoopback {
            region: "home",
            root_key_use: mailraft_server::config::RootKeyUse::Always,
            id: 2,
            cluster: &"ab".repeat(16),
            partitions: 16,
            peers: &[],
            dir,
            ca_file: dir,
            token_file: dir,
            base_port: 11_000,
        });
        let limits = Config::parse(&text).unwrap().limits;
        let verdict = |given, limit| judge(Some(given), Some(limit), &limits).verdict;
        assert_eq!(verdict(8 << 30, 6 << 30), Verdict::Good);
        assert_eq!(verdict(4 << 30, 6 << 30), Verdict::Bad);
        assert_eq!(verdict(256 << 20, 192 << 20), Verdict::Bad);
        assert_eq!(verdict(1 << 30, 768 << 20), Verdict::Warning);
        assert_eq!(judge(None, None, &limits).verdict, Verdict::Unknown);
        assert_eq!(judge_swap(Some(0)).verdict, Verdict::Good);
        assert_eq!(judge_swap(Some(1 << 30)).verdict, Verdict::Warning);
    }
}
