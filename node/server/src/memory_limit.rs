//! How much memory this node may take, and for what: one limit, divided once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Limits;
use crate::memory::{GrowingShare, Share, SharedByAccounts};
use crate::spool::parse_memory_max_bytes;

/// The program, its threads' stacks, the newest entries of the Raft logs, in bytes.
const PROGRAM_BYTES: u64 = 96 << 20;
/// One password check (Argon2id, 19 MiB), in bytes.
pub const PASSWORD_CHECK_BYTES: u64 = 20 << 20;
/// What is divided after these is no less than this, in bytes: with less a node does not work.
const DIVIDED_MIN_BYTES: u64 = 128 << 20;
/// RocksDB gets no more than this, in bytes: the machine's own cache of files does as well.
const ROWS_MAX_BYTES: u64 = 4 << 30;
/// What a client's session takes beside what it has open, in bytes: its buffers, TLS. An idle one has 35 KiB.
pub const SESSION_BYTES: u64 = 48 << 10;
/// Of what may wait for sessions one account may have one part of so many,
const QUEUE_PARTS: usize = 8;
/// and of what they know of their open folders one of so many: the largest mailbox is to be opened on a small machine.
const VIEW_PARTS: usize = 2;

/// Who gets how much, in bytes. What is left is the allocator's: what it keeps between two uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// All of it.
    pub limit: u64,
    /// RocksDB: memtables and cached blocks.
    pub rows: u64,
    /// Mailboxes in memory.
    pub actors: u64,
    /// Messages on their way in.
    pub bodies: u64,
    /// Sessions, and what they know of their open folders.
    pub sessions: u64,
    /// What waits for sessions.
    pub queues: u64,
    /// Password checks.
    pub argon2: u64,
    /// Taking messages apart.
    pub parses: u64,
}

impl Division {
    /// That of `limit` bytes on this machine.
    pub fn of(limit: u64, limits: &Limits) -> Self {
        Self::with(limit, limits, parses_bytes())
    }

    /// That of `limit` bytes, of which taking messages apart needs so many.
    fn with(limit: u64, limits: &Limits, parses: u64) -> Self {
        let argon2 = (limits.auth_parallel as u64).saturating_mul(PASSWORD_CHECK_BYTES);
        let set_aside = PROGRAM_BYTES.saturating_add(argon2).saturating_add(parses);
        let divided = limit.saturating_sub(set_aside).max(DIVIDED_MIN_BYTES);
        Division {
            limit,
            rows: (divided / 4).min(ROWS_MAX_BYTES),
            actors: divided / 4,
            bodies: (limits.body_memory_bytes as u64).min(divided / 8),
            sessions: divided / 4,
            queues: divided / 16,
            argon2,
            parses,
        }
    }

    /// The least limit that a node works with.
    pub fn least(limits: &Limits) -> u64 {
        (limits.auth_parallel as u64)
            .saturating_mul(PASSWORD_CHECK_BYTES)
            .saturating_add(PROGRAM_BYTES + DIVIDED_MIN_BYTES + parses_bytes())
    }

    /// Each share by its name.
    pub fn shares(&self) -> [(&'static str, u64); 6] {
        let Division { limit: _, rows, actors, bodies, sessions, queues, argon2, parses: _ } = *self;
        [
            ("rows", rows),
            ("actors", actors),
            ("bodies", bodies),
            ("sessions", sessions),
            ("queues", queues),
            ("argon2", argon2),
        ]
    }

    /// Sessions that there is memory for: half of their share is for what they have open.
    pub fn sessions_max(&self) -> usize {
        usize::try_from(self.sessions / 2 / SESSION_BYTES).unwrap_or(usize::MAX)
    }
}

/// What taking messages apart takes at once on this machine, in bytes.
fn parses_bytes() -> u64 {
    parse_memory_max_bytes(std::thread::available_parallelism().map_or(1, usize::from)) as u64
}

/// `limits.memory_bytes`, or three quarters of what the machine or the control group gives; None if that can't be told.
pub fn limit_bytes(limits: &Limits) -> Option<u64> {
    match limits.memory_bytes {
        0 => given_bytes().map(|given| given / 4 * 3),
        bytes => Some(bytes),
    }
}

/// What the machine or the control group gives, in bytes.
pub fn given_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_bytes(&text, "MemTotal"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [machine, group_bytes(&groups, |path| fs::read_to_string(path).ok())].into_iter().flatten().min()
}

/// A line of proc_meminfo(5), which counts in KiB, in bytes.
pub fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// The least limit of the control groups of proc_self_cgroup (cgroups(7), both versions) and of those above them.
fn group_bytes(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" if number == "0" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let paths = Path::new(path).ancestors().filter_map(|path| path.strip_prefix("/").ok());
        paths.filter_map(|path| read(&Path::new(root).join(path).join(file))?.trim().parse::<u64>().ok()).min()
    };
    groups.lines().filter_map(of_line).min()
}

/// What a node takes of its memory.
#[derive(Clone)]
pub struct NodeMemory {
    /// Who gets how much.
    pub division: Division,
    /// What waits for sessions.
    pub queues: SharedByAccounts,
    /// What sessions know of their open folders.
    pub views: SharedByAccounts,
    /// Mailboxes in memory.
    pub actors: Arc<GrowingShare>,
}

/// A node's memory as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// What it may take in all.
    pub limit_bytes: u64,
    /// What it has of the machine's memory now.
    pub resident_bytes: u64,
    /// Of that what is no file's, such as the program's own.
    #[serde(default)]
    pub anonymous_bytes: u64,
    /// Its shares by name.
    pub shares: BTreeMap<String, ShareStatus>,
}

/// One share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStatus {
    /// Bytes that are taken.
    pub used_bytes: u64,
    /// Bytes that may be.
    pub allowed_bytes: u64,
}

impl NodeMemory {
    /// Nothing taken yet.
    pub fn new(division: Division) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        NodeMemory {
            division,
            queues: SharedByAccounts::new(bytes(division.queues), QUEUE_PARTS),
            views: SharedByAccounts::new(bytes(division.sessions / 2), VIEW_PARTS),
            actors: GrowingShare::new(bytes(division.actors)),
        }
    }

    /// Memory for messages on their way in: what the configuration says now, as far as there is any.
    pub fn body_memory_bytes(&self, limits: &Limits) -> usize {
        let most = Division::of(self.division.limit, limits).bodies;
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// How it is, with so many bytes taken by what counts itself; told to the metrics too.
    pub fn status(&self, rows: u64, bodies: u64, sessions: u64, argon2: u64) -> MemoryStatus {
        let used = |share: &Share| share.used() as u64;
        let taken = |name: &str| match name {
            "rows" => rows,
            "actors" => self.actors.used() as u64,
            "bodies" => bodies,
            "sessions" => sessions * SESSION_BYTES + used(self.views.node()),
            "queues" => used(self.queues.node()),
            _ => argon2,
        };
        let shares: BTreeMap<String, ShareStatus> = self
            .division
            .shares()
            .map(|(name, allowed_bytes)| (name.to_owned(), ShareStatus { used_bytes: taken(name), allowed_bytes }))
            .into();
        for (name, share) in &shares {
            let label = name.clone();
            ::metrics::gauge!("mailraft_memory_used_bytes", "share" => label.clone()).set(share.used_bytes as f64);
            ::metrics::gauge!("mailraft_memory_allowed_bytes", "share" => label).set(share.allowed_bytes as f64);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident_bytes = meminfo_bytes(&status, "VmRSS").unwrap_or(0);
        ::metrics::gauge!("mailraft_memory_resident_bytes").set(resident_bytes as f64);
        ::metrics::gauge!("mailraft_memory_limit_bytes").set(self.division.limit as f64);
        let anonymous_bytes = meminfo_bytes(&status, "RssAnon").unwrap_or(0);
        MemoryStatus { limit_bytes: self.division.limit, resident_bytes, anonymous_bytes, shares }
    }
}

impl std::fmt::Display for Division {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{} MiB", self.limit >> 20)?;
        for (name, bytes) in self.shares() {
            write!(to, ", {name} {}", bytes >> 20)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, example};

    fn limits() -> Limits {
        Config::parse(&example()).unwrap().limits
    }

    #[test]
    fn memory_is_divided_by_one_table_and_never_beyond_the_limit() {
        let limits = limits();
        const PARSES: u64 = 24 << 20;
        // Limit, then rows, actors, bodies, sessions, queues, argon2, in MiB.
        for (limit, shares) in [
            (64, [32, 32, 16, 32, 8, 40]),
            (512, [88, 88, 44, 88, 22, 40]),
            (1_024, [216, 216, 108, 216, 54, 40]),
            (4_096, [984, 984, 256, 984, 246, 40]),
            (65_536, [4_096, 16_344, 256, 16_344, 4_086, 40]),
        ] {
            let division = Division::with(limit << 20, &limits, PARSES);
            assert_eq!(division.shares().map(|(_, bytes)| bytes >> 20), shares, "of {limit} MiB");
            let sum: u64 = division.shares().iter().map(|(_, bytes)| bytes).sum();
            assert!(sum + PROGRAM_BYTES + PARSES <= division.limit || limit == 64, "{limit}");
        }
        assert_eq!((Division::least(&limits) - parses_bytes()) >> 20, 264);
        let most = Limits { auth_parallel: usize::MAX, body_memory_bytes: usize::MAX, ..limits };
        assert_eq!(Division::of(u64::MAX, &most).argon2, u64::MAX);
        assert_eq!(Division::least(&most), u64::MAX);
    }

    #[test]
    fn both_versions_of_control_groups_and_those_above_are_heeded() {
        let files = |path: &Path| match path.to_str()? {
            "/sys/fs/cgroup/system.slice/mailraft.service/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/system.slice/memory.max" => Some("2147483648\n".to_owned()),
            "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes" => Some("1073741824\n".to_owned()),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes" => Some("9223372036854771712\n".to_owned()),
            _ => None,
        };
        assert_eq!(group_bytes("0::/system.slice/mailraft.service\n", files), Some(2 << 30));
        assert_eq!(group_bytes("5:cpu,memory:/docker/abc\n0::/\n", files), Some(1 << 30));
        assert_eq!(group_bytes("5:memory:/elsewhere\n", files), Some(9_223_372_036_854_771_712));
        assert_eq!(group_bytes("0::/\n3:cpu:/docker/abc\n", files), None);
        let text = "MemTotal:       24684084 kB\nSwapTotal:             0 kB\n";
        assert_eq!((meminfo_bytes(text, "MemTotal"), meminfo_bytes(text, "Mem")), (Some(24_684_084 << 10), None));
        assert!(given_bytes().is_some_and(|bytes| bytes > 64 << 20));
        assert_eq!(limit_bytes(&Limits { memory_bytes: 7, ..limits() }), Some(7));
    }
}
