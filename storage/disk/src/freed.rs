//! Memory that was freed, and that the C library keeps for who asks next. The only module of this project with `unsafe`.
#![allow(unsafe_code)]

/// Gives the machine back what was freed and lies in whole pages, in all arenas of the C library's allocator. That takes some
/// milliseconds for each hundred MiB, in which who wants memory of the same arena waits. Whether something was given back; never
/// where the C library is not GNU's, whose allocator has no such call.
///
/// Source: malloc_trim(3).
pub fn give_back_freed_memory() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and no pointer, any thread may call it at any time (attributes(7): MT-Safe), and it discards only
    // pages that belong to no allocation.
    return unsafe { libc::malloc_trim(0) } == 1;
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What this process has of memory that is no file's, in KiB.
    fn anonymous_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
    }

    #[test]
    fn what_lies_freed_between_things_that_are_kept_is_given_back() {
        const MIB: usize = 256;
        let kept = std::thread::spawn(|| {
            let all: Vec<Box<[u8; 1_024]>> = (0..MIB << 10).map(|n| Box::new([n as u8; 1_024])).collect();
            all.into_iter().step_by(100).collect::<Vec<_>>()
        });
        let kept = kept.join().unwrap();
        let before = anonymous_kib();
        assert!(before > (MIB as u64) << 9, "{before} KiB: most of what was freed is kept");
        assert!(give_back_freed_memory());
        let after = anonymous_kib();
        assert!(after < before - ((MIB as u64) << 9), "{before} KiB before, {after} after");
        assert!(kept.iter().enumerate().all(|(n, one)| one[7] == (n * 100) as u8));
    }
}
