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
    /// When the last event was.
    last: Micros,
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
            last: 0,
            lines: VecDeque::new(),
            loud,
        }
    }

    /// One event, as numbers that tell it from others: their count, the time since the last event, and each, small
    /// numbers in few bytes.
    pub fn event(&mut self, at: Micros, what: &[u64]) {
        self.events += 1;
        self.block.push(what.len() as u8);
        let since = at - std::mem::replace(&mut self.last, at);
        self.number(since);
        what.iter().for_each(|number| self.number(*number));
        self.hash_blocks();
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.block.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.block.push(number as u8);
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
