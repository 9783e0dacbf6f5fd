//! The disk under the data directory: whether what is synced to it stays, how long that takes, how much is free.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

use super::finding::Finding;

/// Synced writes that are timed.
const SYNCS: usize = 64;
/// Timing ends after this.
const SYNCS_MAX: Duration = Duration::from_secs(10);
/// An entry of the Raft log, in bytes.
const WRITE_BYTES: usize = 4 << 10;
/// A median above this makes every write wait noticeably.
const SLOW: Duration = Duration::from_millis(20);
/// No disk that turns (120 times a second) syncs a write in less.
const TURNING_LEAST: Duration = Duration::from_millis(1);
/// Less free, in hundredths, is warned of.
const FREE_LEAST_PERCENT: u64 = 10;

/// Looks at the file system, its mount options, its device, and times synced writes.
pub fn examine(data_dir: &Path) -> Vec<Finding> {
    let Ok(dir) = fs::canonicalize(data_dir) else {
        return vec![Finding::bad(
            "disk",
            format!("{} is not there, or not for this user", data_dir.display()),
            "run as the node's user; a node starts from what mailraft quickstart or mailraft cluster create wrote for it",
        )];
    };
    let mut findings = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mount_of(&mounts, &dir);
    let mut turning = None;
    match &mount {
        Some(mount) => {
            let queue = device_queue(&mount.device);
            turning = queue.as_deref().and_then(|q| word(&q.join("rotational"))).map(|word| word == "1");
            let cache = queue.as_deref().and_then(|q| word(&q.join("write_cache")));
            findings.push(judge_mount(mount, cache.as_deref()));
        }
        None => findings.push(Finding::unknown(
            "disk",
            format!("/proc/self/mountinfo names no file system for {}", dir.display()),
            "see that it is on a disk of this machine",
        )),
    }
    findings.push(match statvfs(&dir) {
        Ok(stat) => {
            judge_free(stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize))
        }
        Err(error) => Finding::unknown("disk", format!("its free space can't be told ({error})"), "see df"),
    });
    findings.push(match time_syncs(&dir) {
        Ok(times) => judge_syncs(times, turning),
        Err(error) => Finding::bad(
            "disk",
            format!("{} can't be written ({error})", dir.display()),
            "run as the node's user; see that the file system is mounted for writing and not full",
        ),
    });
    findings
}

/// A line of proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    point: String,
    kind: String,
    options: Vec<String>,
}

/// The mount that a directory is on: the last of those with the longest mount point.
fn mount_of(mountinfo: &str, dir: &Path) -> Option<Mount> {
    mountinfo.lines().filter_map(parse_mount).filter(|m| dir.starts_with(&m.point)).max_by_key(|m| m.point.len())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (first, second) = line.split_once(" - ")?;
    let first: Vec<&str> = first.split(' ').collect();
    let second: Vec<&str> = second.split(' ').collect();
    let (device, point, own) = (first.get(2)?, first.get(4)?, first.get(5)?);
    let (kind, of_all) = (second.first()?, second.get(2).unwrap_or(&""));
    Some(Mount {
        device: (*device).to_owned(),
        point: point.replace("\\040", " "),
        kind: (*kind).to_owned(),
        options: own.split(',').chain(of_all.split(',')).map(str::to_owned).collect(),
    })
}

/// The queue of a device, given as major:minor; of the whole disk where it is a partition.
fn device_queue(device: &str) -> Option<std::path::PathBuf> {
    let own = fs::canonicalize(format!("/sys/dev/block/{device}")).ok()?;
    [own.join("queue"), own.parent()?.join("queue")].into_iter().find(|q| q.is_dir())
}

fn word(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn judge_mount(mount: &Mount, write_cache: Option<&str>) -> Finding {
    let found = format!("{} at {}", mount.kind, mount.point);
    let has = |option: &str| mount.options.iter().any(|o| o == option);
    match mount.kind.as_str() {
        "tmpfs" | "ramfs" => {
            return Finding::bad("disk", format!("{found}: memory, gone with the power"), "keep data_dir on a disk");
        }
        "nfs" | "nfs4" | "cifs" | "9p" | "fuse" | "fuse.sshfs" => {
            return Finding::warning(
                "disk",
                format!("{found}: whether a sync reaches a disk is for another machine to say"),
                "keep data_dir on a disk of this machine: Mailraft makes the copies itself",
            );
        }
        "overlay" => {
            return Finding::warning(
                "disk",
                format!("{found}: a container's own layer, gone with the container"),
                "mount a volume at data_dir",
            );
        }
        _ => {}
    }
    if has("nobarrier") || has("barrier=0") {
        return Finding::bad(
            "disk",
            format!("{found}, without barriers: a sync does not empty the disk's cache, so power loss loses mail"),
            "mount it without nobarrier and barrier=0",
        );
    }
    if has("ro") {
        return Finding::bad(
            "disk",
            format!("{found}, mounted for reading only"),
            "see the kernel's log, mount it again",
        );
    }
    match write_cache {
        Some("write back") => Finding::good("disk", format!("{found}; a sync empties the disk's cache")),
        Some(kind) => Finding::warning(
            "disk",
            format!("{found}; the kernel takes the disk's cache for {kind:?} and never empties it"),
            "right for a disk without a cache or with one that keeps its contents; else write \"write back\" to the \
             device's queue/write_cache. To be sure: mailraft doctor --power-cut-write",
        ),
        None => Finding::good("disk", found),
    }
}

fn judge_free(free: u64, total: u64) -> Finding {
    let percent = free.saturating_mul(100).checked_div(total).unwrap_or(0);
    let found = format!("{} GiB of {} GiB free ({percent}%)", free >> 30, total >> 30);
    if percent < FREE_LEAST_PERCENT {
        Finding::warning("disk", found, "make room: a node whose disk is full ends, and the others go on without it")
    } else {
        Finding::good("disk", found)
    }
}

/// Times of synced writes, sorted; the first, which makes the file, does not count.
fn time_syncs(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let timed = time_syncs_of(file);
    fs::remove_file(&path)?;
    timed
}

fn time_syncs_of(mut file: File) -> std::io::Result<Vec<Duration>> {
    let begun = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    for round in 0..=SYNCS {
        let start = Instant::now();
        file.write_all(&[0x5a; WRITE_BYTES])?;
        file.sync_data()?;
        if round > 0 {
            times.push(start.elapsed());
        }
        if begun.elapsed() > SYNCS_MAX {
            break;
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn judge_syncs(sorted: Vec<Duration>, turning: Option<bool>) -> Finding {
    let (Some(median), Some(longest)) = (sorted.get(sorted.len() / 2), sorted.last()) else {
        return Finding::warning(
            "disk",
            format!("one synced write took over {} s", SYNCS_MAX.as_secs()),
            "see the kernel's log for errors of the disk, or use a faster one",
        );
    };
    let ms = |time: &Duration| time.as_secs_f64() * 1_000.0;
    let found =
        format!("a synced write takes {:.2} ms, at most {:.2} ms ({} tries)", ms(median), ms(longest), sorted.len());
    if turning == Some(true) && *median < TURNING_LEAST {
        Finding::warning(
            "disk",
            format!("{found}: faster than the disk turns, so something keeps writes in memory"),
            "right for a controller with a battery; else switch its cache off. To be sure: mailraft doctor --power-cut-write",
        )
    } else if *median > SLOW {
        Finding::warning("disk", format!("{found}: every acknowledged message waits for it"), "use a faster disk")
    } else {
        Finding::good("disk", found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const MOUNTS: &str = "\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw,size=100k
31 22 253:16 / /var/lib/mail\\040raft rw shared:9 - xfs /dev/vdb rw,nobarrier
32 22 0:40 / /srv ro - ext4 /dev/vdc rw
";

    fn at(dir: &str) -> Mount {
        mount_of(MOUNTS, Path::new(dir)).unwrap_or_else(|| panic!("{dir} is on no mount"))
    }

    #[test]
    fn the_mount_with_the_longest_point_is_the_one() {
        assert_eq!(at("/var/lib/mailraft").point, "/");
        assert_eq!(at("/var/lib/mail raft/data").device, "253:16");
        assert_eq!(at("/tmpfiles").kind, "ext4");
        assert_eq!(mount_of("", Path::new("/")), None);
        assert_eq!(mount_of("nonsense\n1 - 2\n", Path::new("/")), None);
    }

    #[test]
    fn what_loses_mail_without_power_is_bad() {
        for (mount, verdict) in [
            (at("/home"), Verdict::Good),
            (at("/tmp/x"), Verdict::Bad),
            (at("/var/lib/mail raft"), Verdict::Bad),
            (at("/srv"), Verdict::Bad),
        ] {
            assert_eq!(judge_mount(&mount, None).verdict, verdict, "{mount:?}");
        }
        assert_eq!(judge_mount(&at("/home"), Some("write back")).verdict, Verdict::Good);
        assert_eq!(judge_mount(&at("/home"), Some("write through")).verdict, Verdict::Warning);
    }

    #[test]
    fn times_and_space_are_judged() {
        let all = |time| vec![time; 9];
        assert_eq!(judge_syncs(all(Duration::from_micros(200)), Some(false)).verdict, Verdict::Good);
        assert_eq!(judge_syncs(all(Duration::from_micros(200)), Some(true)).verdict, Verdict::Warning);
        assert_eq!(judge_syncs(all(Duration::from_millis(8)), Some(true)).verdict, Verdict::Good);
        assert_eq!(judge_syncs(all(Duration::from_millis(21)), None).verdict, Verdict::Warning);
        assert_eq!(judge_syncs(Vec::new(), None).verdict, Verdict::Warning);
        assert_eq!(judge_free(9, 100).verdict, Verdict::Warning);
        assert_eq!(judge_free(10, 100).verdict, Verdict::Good);
        assert_eq!(judge_free(0, 0).verdict, Verdict::Warning);
    }

    #[test]
    fn timing_leaves_nothing_behind_and_no_directory_is_said() {
        let dir = std::env::temp_dir().join(format!("mailraft-doctor-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap_or_default();
        assert_eq!(time_syncs(&dir).map(|times| times.len()).ok(), Some(SYNCS));
        assert_eq!(fs::read_dir(&dir).map(Iterator::count).ok(), Some(0));
        fs::remove_dir(&dir).unwrap_or_default();
        assert_eq!(examine(&dir).first().map(|f| f.verdict), Some(Verdict::Bad));
    }
}
