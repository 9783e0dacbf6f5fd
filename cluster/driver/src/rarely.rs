//! Lines in the log that a stranger can cause as often as he likes: so many in a minute, and how many there were beside.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In each of these periods,
const PERIOD: Duration = Duration::from_secs(60);
/// so many lines are written at most.
const LINES_MAX: u32 = 10;

/// One kind of line.
#[derive(Default)]
pub(crate) struct Rarely(Mutex<State>);

#[derive(Default)]
struct State {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Rarely {
    /// Whether a line is written now; if so, how many were not since the one before.
    pub(crate) fn says(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            (state.since, state.lines) = (Some(now), 0);
        }
        if state.lines == LINES_MAX {
            state.unsaid += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_counted_and_not_written() {
        let (rarely, begin) = (Rarely::default(), Instant::now());
        let written = (0..1_000).filter(|n| rarely.says(begin + Duration::from_millis(*n)).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(rarely.says(begin + PERIOD), Some(1_000 - u64::from(LINES_MAX)));
        assert_eq!(rarely.says(begin + PERIOD), Some(0));
    }
}
