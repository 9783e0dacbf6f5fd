//! What happened, as a hash over everything and as the last lines for people.

use std::collections::VecDeque;

use mailraft_checkers::Micros;
use sha2::{Digest, Sha256};

/// Lines kept for the timeline.
const LINES_MAX: usize = 400;

/// Hashed together.
const BLOCK_BYTES: usize = 4 << 10;

/// The trace of a run.
pub struct Trace {
    hash: Sha256,
    /// What is not hashed yet.
    block: Vec<u8>,
    events: u64,
    lines: VecDeque<(Micros, String)>,
    /// Lines of the whole run are printed as they come.
    pub loud: bool,
}

impl Trace {
    /// Nothing happened yet.
    pub fn new(loud: bool) -> Self {
        Trace {
            hash: Sha256::new(),
            block: Vec::with_capacity(2 * BLOCK_BYTES),
            events: 0,
            lines: VecDeque::new(),
            loud,
        }
    }

    /// One event, as numbers that tell it from others.
    pub fn event(&mut self, at: Micros, what: &[u64]) {
        self.events += 1;
        self.block.extend_from_slice(&at.to_le_bytes());
        for number in what {
            self.block.extend_from_slice(&number.to_le_bytes());
        }
        self.hash_blocks();
    }

    fn hash_blocks(&mut self) {
        if self.block.len() >= BLOCK_BYTES {
            self.hash.update(&self.block);
            self.block.clear();
        }
    }

    /// A line for people; part of the hash as well.
    pub fn line(&mut self, at: Micros, line: String) {
        self.block.extend_from_slice(line.as_bytes());
        self.hash_blocks();
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
        self.hash.clone().chain_update(&self.block).finalize().into()
    }

    /// The last lines, as text.
    pub fn timeline(&self) -> Vec<String> {
        self.lines.iter().map(|(at, line)| format!("{:>12.6} {line}", *at as f64 / 1e6)).collect()
    }
}
