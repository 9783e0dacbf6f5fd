//! Memory: what the configuration can make a node take, against what the machine or the unit gives it.

use std::fs;

use mailraft_server::config::Limits;
use mailraft_server::spool::parse_memory_max_bytes;

use super::finding::Finding;

/// RocksDB's cache and memtables, Raft logs' newest entries, the program itself, in bytes.
const STORES_BYTES: u64 = 512 << 20;
/// One password check (Argon2id, 19 MiB), in bytes.
const PASSWORD_CHECK_BYTES: u64 = 20 << 20;
/// One session of a mail program, in bytes.
const SESSION_BYTES: u64 = 64 << 10;
/// One mailbox in memory, small as most are, in bytes.
const ACTOR_BYTES: u64 = 64 << 10;

/// Whether there is enough, and whether keys could be swapped to a disk.
pub fn examine(limits: &Limits) -> Vec<Finding> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)))
        .and_then(|path| fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok())
        .and_then(|text| text.trim().parse::<u64>().ok());
    let total = machine.as_deref().and_then(|text| meminfo_bytes(text, "MemTotal"));
    let swap = machine.as_deref().and_then(|text| meminfo_bytes(text, "SwapTotal"));
    vec![judge(total.map(|t| group.map_or(t, |g| g.min(t))), needed(limits)), judge_swap(swap)]
}

fn needed(limits: &Limits) -> u64 {
    needed_for(limits.body_memory_bytes, limits.auth_parallel, limits.sessions, limits.actors)
}

/// What messages that are taken apart need is in it too.
fn needed_for(body_memory_bytes: usize, password_checks: usize, sessions: usize, actors: usize) -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    [
        body_memory_bytes as u64,
        (password_checks as u64).saturating_mul(PASSWORD_CHECK_BYTES),
        (sessions as u64).saturating_mul(SESSION_BYTES),
        (actors as u64).saturating_mul(ACTOR_BYTES),
    ]
    .into_iter()
    .fold(STORES_BYTES + parse_memory_max_bytes(processors) as u64, u64::saturating_add)
}

fn judge(given: Option<u64>, needed: u64) -> Finding {
    let Some(given) = given else {
        return Finding::unknown(
            "memory",
            "/proc/meminfo can't be read".to_owned(),
            format!("see that the node has {} MiB", needed >> 20),
        );
    };
    let found = format!("{} MiB given, about {} MiB needed with every limit reached", given >> 20, needed >> 20);
    if given >= needed {
        Finding::good("memory", found)
    } else {
        Finding::bad(
            "memory",
            found,
            "give the machine or the unit (MemoryMax) more, or lower limits.body_memory_bytes, sessions and actors",
        )
    }
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

/// A line of proc_meminfo(5), which counts in KiB.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn meminfo_is_read_and_judged() {
        let text = "MemTotal:       24684084 kB\nSwapTotal:             0 kB\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), Some(24_684_084 << 10));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
        assert_eq!(judge_swap(meminfo_bytes(text, "SwapTotal")).verdict, Verdict::Good);
        assert_eq!(judge_swap(Some(1 << 30)).verdict, Verdict::Warning);
        assert_eq!(judge(Some(1 << 30), 2 << 30).verdict, Verdict::Bad);
        assert_eq!(judge(Some(2 << 30), 2 << 30).verdict, Verdict::Good);
        assert_eq!(judge(None, 2 << 30).verdict, Verdict::Unknown);
    }

    #[test]
    fn every_limit_counts() {
        let none = needed_for(0, 0, 0, 0);
        for more in [needed_for(1, 0, 0, 0), needed_for(0, 1, 0, 0), needed_for(0, 0, 1, 0), needed_for(0, 0, 0, 1)] {
            assert!(more > none);
        }
        assert_eq!(needed_for(usize::MAX, usize::MAX, usize::MAX, usize::MAX), u64::MAX);
    }
}
