//! Moments as an operator is told of them, whose clocks may be wrong.

use mailraft_storage::UnixMillis;

use crate::survival::{moment, seconds};

/// From when on a distance in time is told: it is read at once, or kept with the word.
#[derive(Clone, Copy)]
pub enum Since {
    Now,
    Word,
}

impl Since {
    /// How what was before that is told.
    pub fn before(self) -> &'static str {
        match self {
            Since::Now => "ago",
            Since::Word => "before this was said",
        }
    }
}

/// A time as its distance from now, which no clock that is wrong changes, and as the clocks here have it.
pub fn by_age(at: UnixMillis, now: UnixMillis, since: Since) -> String {
    let after = match since {
        Since::Now => "from now",
        Since::Word => "after this was said",
    };
    let (apart_ms, side) = match now.0.checked_sub(at.0) {
        Some(ago_ms) => (ago_ms, since.before()),
        None => (at.0 - now.0, after),
    };
    format!("{} s {side} ({} by the clocks here)", seconds(apart_ms), moment(at.0))
}

/// Since a moment that a home wrote down.
pub fn by_its_clocks(at: UnixMillis) -> String {
    match at.0 {
        0 => "since a time that nobody wrote down".to_owned(),
        ms => format!("since {} by its own clocks", moment(ms)),
    }
}

/// So much later.
pub fn later(at: UnixMillis, by_ms: u64) -> UnixMillis {
    UnixMillis(at.0.saturating_add(by_ms))
}

/// In milliseconds.
pub fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
