//! Memory that was freed and that the allocator keeps: where that comes to much, the machine gets it back.
//!
//! What many threads took in small pieces and freed lies between what they still have. The C library keeps such pages for who asks
//! next, for as long as the process lives: after work on folders of hundreds of thousands of messages that is as much as all shares
//! together.

use std::time::Duration;

use crate::memory_limit::MemoryStatus;
use crate::services::Services;

/// It is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After one time in which hardly anything came back, and what nobody counts is in use: the next is no earlier.
const PAUSE_AFTER_VAIN: Duration = Duration::from_secs(60);
/// What nobody counts may be one part of so many of the node's limit, and what the program itself takes,
const UNCOUNTED_PARTS: u64 = 16;
/// which is this much, in bytes.
const PROGRAM_BYTES: u64 = 64 << 20;

/// Looks again and again for ever, and gives back what was freed where it is much.
pub async fn keep_giving_back(services: Services, give_back: fn() -> bool) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let before = services.memory_status();
        if !is_much(&before) {
            continue;
        }
        if tokio::task::spawn_blocking(give_back).await.is_err() {
            return;
        }
        let after = services.memory_status();
        let came_back = before.anonymous_bytes.saturating_sub(after.anonymous_bytes);
        ::metrics::counter!("mailraft_memory_given_back_bytes_total").increment(came_back);
        if is_much(&after) {
            tokio::time::sleep(PAUSE_AFTER_VAIN).await;
        }
    }
}

/// Whether far more memory is taken than anybody counts.
fn is_much(memory: &MemoryStatus) -> bool {
    let counted: u64 = memory.shares.values().map(|share| share.used_bytes).sum();
    let may_have = counted.saturating_add(PROGRAM_BYTES).saturating_add(memory.limit_bytes / UNCOUNTED_PARTS);
    memory.anonymous_bytes > may_have
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_limit::ShareStatus;

    #[test]
    fn what_nobody_counts_is_much_where_it_is_more_than_the_program_and_a_part_of_the_limit() {
        const MIB: u64 = 1 << 20;
        for (limit, counted, anonymous, much) in [
            (700, 0, 107, false),
            (700, 0, 108, true),
            (700, 300, 407, false),
            (700, 300, 408, true),
            (16_384, 300, 1_388, false),
            (16_384, 300, 1_389, true),
            (0, 0, 0, false),
        ] {
            let share = |bytes| ShareStatus { used_bytes: bytes * MIB, allowed_bytes: 0 };
            let shares = [("actors".to_owned(), share(counted / 3)), ("rows".to_owned(), share(counted - counted / 3))];
            let memory = MemoryStatus {
                limit_bytes: limit * MIB,
                resident_bytes: 0,
                anonymous_bytes: anonymous * MIB,
                shares: shares.into(),
            };
            assert_eq!(is_much(&memory), much, "{counted} of {limit} MiB are counted, {anonymous} taken");
        }
    }
}
