//! When a message is tried again: soon at first, which is what a greylist waits for, then less and less often, for five days
//! (RFC 5321, section 4.5.4.1).

use std::time::Duration;

/// The pause after the first attempt; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_secs(2 * 60);
/// The longest pause, before chance makes it longer.
pub const PAUSE_MAX: Duration = Duration::from_secs(4 * 60 * 60);
/// A message is given up this long after it was accepted.
pub const EXPIRY: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// Its sender is told that it waits this long after it was accepted.
pub const WARNING: Duration = Duration::from_secs(4 * 60 * 60);
/// Chance makes a pause longer by at most one part in so many, so that what failed together is not tried together.
const JITTER_PARTS: u64 = 4;

/// What comes after an attempt that was deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another one, at this time in milliseconds.
    At(u64),
    /// None: five days have passed.
    Expired,
}

/// What comes after so many attempts, the last of which was deferred now. `chance` is any number; times are in milliseconds.
/// The last attempt of all is at the expiry itself.
pub fn retry(accepted_ms: u64, now_ms: u64, attempts: u32, chance: u64) -> Retry {
    let expiry_ms = accepted_ms.saturating_add(millis(EXPIRY));
    if now_ms >= expiry_ms {
        return Retry::Expired;
    }
    let doubled = millis(FIRST_PAUSE).saturating_mul(1 << attempts.saturating_sub(1).min(32));
    let pause_ms = doubled.min(millis(PAUSE_MAX));
    let longer_ms = chance % (pause_ms / JITTER_PARTS + 1);
    Retry::At(now_ms.saturating_add(pause_ms + longer_ms).min(expiry_ms))
}

/// Whether a message that was accepted then has waited for so long that its sender is told.
pub fn is_warning_due(accepted_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(accepted_ms) >= millis(WARNING)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn pauses_double_up_to_four_hours() {
        for (attempts, minutes) in
            [(0, 2), (1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 64), (7, 128), (8, 240), (9, 240), (u32::MAX, 240)]
        {
            assert_eq!(retry(0, 7, attempts, 0), Retry::At(7 + minutes * MINUTE_MS), "{attempts}");
        }
    }

    #[test]
    fn chance_makes_a_pause_longer_by_a_quarter_at_most_and_never_shorter() {
        let pause_ms = 2 * MINUTE_MS;
        for chance in [0, 1, pause_ms / 4, pause_ms / 4 + 1, u64::MAX, 123_456_789] {
            let Retry::At(at) = retry(0, 0, 1, chance) else { panic!("it has not expired") };
            assert!((pause_ms..=pause_ms + pause_ms / 4).contains(&at), "{chance}: {at}");
        }
    }

    #[test]
    fn a_message_is_tried_once_more_at_its_expiry_and_then_given_up() {
        let expiry_ms = millis(EXPIRY);
        assert_eq!(retry(5, expiry_ms - MINUTE_MS, 40, 0), Retry::At(5 + expiry_ms));
        assert_eq!(retry(5, 5 + expiry_ms - 1, 40, 0), Retry::At(5 + expiry_ms));
        assert_eq!(retry(5, 5 + expiry_ms, 41, 0), Retry::Expired);
        // Every attempt leads nearer to the end.
        let (mut now_ms, mut attempts) = (0, 1);
        while let Retry::At(at) = retry(0, now_ms, attempts, u64::MAX) {
            assert!(at > now_ms);
            (now_ms, attempts) = (at, attempts + 1);
        }
        assert!((30..60).contains(&attempts) && now_ms == expiry_ms, "{attempts} attempts");
    }

    #[test]
    fn a_sender_is_told_after_four_hours() {
        assert!(!is_warning_due(5, 4 + millis(WARNING)) && is_warning_due(5, 5 + millis(WARNING)));
        assert!(!is_warning_due(5, 0));
    }
}
