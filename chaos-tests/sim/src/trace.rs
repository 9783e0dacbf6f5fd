//! What happened, as a hash over everything and as the last lines for people.

use std::collections::VecDeque;

use mailraft_checkers::Micros;
use sha2::{Digest, Sha256};

/// Lines kept for the timeline.
const LINES_MAX: usize = 400;

/// The trace of a run.
pub struct Trace {
    hash: Sha256,
    events: u64,
    lines: VecDeque<(Micros, String)>,
    /// Lines of the whole run are printed as they come.
    pub loud: bool,
}

impl Trace {
    /// Nothing happened yet.
    pub fn new(loud: bool) -> Self {
        Trace { hash: Sha256::new(), events: 0, lines: VecDeque::new(), loud }
    }

    /// One event, as numbers that tell it from others.
    pub fn event(&mut self, at: Micros, what: &[u64]) {
        self.events += 1;
        self.hash.update(at.to_le_bytes());
        for number in what {
            self.hash.update(number.to_le_bytes());
        }
    }

    /// A line for people; part of the hash as well.
    pub fn line(&mut self, at: Micros, line: String) {
        self.hash.update(line.as_bytes());
        if self.loud {
            println!("{:>12.6} {line}", at as f64 / 1e6);
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back((at, line));
    }

    /// A detail for people who watch.
    pub fn detail(&self, at: Micros, line: impl FnOnce() -> String) {
        if self.loud {
            println!("{:>12.6}   {}", at as f64 / 1e6, line());
        }
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash over all of it so far.
    pub fn hash(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// The last lines, as text.
    pub fn timeline(&self) -> Vec<String> {
        self.lines.iter().map(|(at, line)| format!("{:>12.6} {line}", *at as f64 / 1e6)).collect()
    }
}
