//! What happened lately to each message at this node, without its content: for `mailraft trace`. It is in memory alone, the
//! newest of it, since addresses and other servers' words are for no log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use mailraft_storage::CommandId;
use serde::{Deserialize, Serialize};

use crate::environment::wall;

/// What a node keeps of it, in bytes, roughly.
pub const TRAIL_MAX_BYTES: usize = 16 << 20;
/// Steps that a node tells at once, the newest.
pub const TRAIL_TOLD_MAX: usize = 2_000;
/// Messages of an address that are told, the newest.
pub const TRAIL_MESSAGES_MAX: usize = 50;
/// What is kept of words, in bytes.
const WORDS_MAX_BYTES: usize = 512;
/// A step without its texts, in bytes.
const STEP_BYTES: usize = 160;

/// A step of a message's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When, in milliseconds since 1970, by this node's clock.
    pub unix_ms: u64,
    /// The id under which the message was taken.
    pub id: String,
    /// What happened: `accepted`, `refused`, `delivered`, `sent`, `deferred`, `failed`, `reported`; by an operator `held`,
    /// `released`, `retried`, `returned`, `dropped`.
    pub what: String,
    /// The reverse-path, empty for null; only where it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The recipients that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// The recipient's number in its queue, if it is about one whose address is not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<u32>,
    /// More, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
    /// Of a report to a sender, its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

impl Step {
    /// Now, to this message.
    pub fn new(id: CommandId, what: &str) -> Self {
        Step {
            unix_ms: wall().0,
            id: id.to_string(),
            what: what.to_owned(),
            from: None,
            to: Vec::new(),
            recipient: None,
            says: String::new(),
            report: None,
        }
    }

    /// With what is said of it, as far as that is kept.
    pub fn saying(mut self, words: &str) -> Self {
        let mut end = words.len().min(WORDS_MAX_BYTES);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        words[..end].clone_into(&mut self.says);
        self
    }

    fn bytes(&self) -> usize {
        STEP_BYTES
            + self.from.as_ref().map_or(0, String::len)
            + self.to.iter().map(|to| to.len() + size_of::<String>()).sum::<usize>()
            + self.says.len()
    }

    fn is_about(&self, address: &str) -> bool {
        let is_it = |of: &String| of.eq_ignore_ascii_case(address);
        self.from.as_ref().is_some_and(is_it) || self.to.iter().any(is_it)
    }
}

/// What is asked for: an address, or ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailQuestion {
    /// Messages from this address, or to it.
    pub address: Option<String>,
    /// These messages, and reports on them.
    pub ids: Vec<String>,
}

/// The trail; clones share it.
#[derive(Clone, Debug)]
pub struct Trail(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    steps: VecDeque<Step>,
    bytes: usize,
    most_bytes: usize,
}

impl Default for Trail {
    fn default() -> Self {
        Trail::new(TRAIL_MAX_BYTES)
    }
}

impl Trail {
    /// Empty, with room for so many bytes.
    pub fn new(most_bytes: usize) -> Self {
        Trail(Arc::new(Mutex::new(Ring { steps: VecDeque::new(), bytes: 0, most_bytes })))
    }

    /// Keeps a step, and as many of the earlier ones as there is room for.
    pub fn add(&self, step: Step) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += step.bytes();
        ring.steps.push_back(step);
        while ring.bytes > ring.most_bytes
            && let Some(oldest) = ring.steps.pop_front()
        {
            ring.bytes -= oldest.bytes();
        }
    }

    /// The newest steps that are asked for, oldest first.
    pub fn tell(&self, question: &TrailQuestion) -> Vec<Step> {
        let ids: BTreeSet<&str> = question.ids.iter().map(String::as_str).collect();
        let is_asked = |step: &&Step| {
            ids.contains(step.id.as_str())
                || step.report.as_deref().is_some_and(|report| ids.contains(report))
                || question.address.as_deref().is_some_and(|address| step.is_about(address))
        };
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told: Vec<Step> = ring.steps.iter().rev().filter(is_asked).take(TRAIL_TOLD_MAX).cloned().collect();
        told.reverse();
        told
    }
}

/// The ids of the newest messages in these steps, and of reports on them.
pub fn messages_of(steps: &[Step]) -> Vec<String> {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for step in steps {
        for id in [Some(step.id.as_str()), step.report.as_deref()].into_iter().flatten() {
            let at = newest.entry(id).or_default();
            *at = step.unix_ms.max(*at);
        }
    }
    let mut all: Vec<(u64, &str)> = newest.into_iter().map(|(id, at)| (at, id)).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.truncate(TRAIL_MESSAGES_MAX);
    all.into_iter().map(|(_, id)| id.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u8, what: &str, to: &str) -> Step {
        Step { unix_ms: u64::from(number), to: vec![to.to_owned()], ..Step::new(CommandId([number; 16]), what) }
    }

    #[test]
    fn a_message_is_found_by_its_id_and_by_its_addresses_and_what_is_old_makes_room() {
        let one = step(1, "accepted", "a@here.test").bytes();
        let trail = Trail::new(10 * one);
        for number in 1..=20 {
            let from = (number == 20).then(|| "Sender@here.test".to_owned());
            trail.add(Step {
                from,
                ..step(number, "accepted", &format!("{}@here.test", char::from(b'a' + number % 4)))
            });
        }
        let all = |ids: &[u8], address: Option<&str>| {
            let ids = ids.iter().map(|number| CommandId([*number; 16]).to_string()).collect();
            trail.tell(&TrailQuestion { address: address.map(str::to_owned), ids })
        };
        let times = |steps: &[Step]| steps.iter().map(|step| step.unix_ms).collect::<Vec<_>>();
        assert_eq!(times(&all(&[1, 20, 15], None)), [15, 20], "the first one has gone");
        assert_eq!(times(&all(&[], Some("A@HERE.test"))), [12, 16, 20]);
        assert_eq!(times(&all(&[], Some("sender@here.test"))), [20]);
        let ring = trail.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(ring.bytes <= 10 * one && ring.bytes == ring.steps.iter().map(Step::bytes).sum::<usize>());
    }

    #[test]
    fn words_are_bounded_and_the_newest_messages_are_named_with_their_reports() {
        assert_eq!(step(1, "failed", "a").saying(&"ä".repeat(WORDS_MAX_BYTES)).says.len(), WORDS_MAX_BYTES);
        let mut reported = step(3, "reported", "a");
        reported.report = Some(CommandId([9; 16]).to_string());
        let steps = [step(1, "accepted", "a"), step(2, "accepted", "a"), reported];
        assert_eq!(messages_of(&steps), [9, 3, 2, 1].map(|number| CommandId([number; 16]).to_string()));
        let many: Vec<Step> = (0..=255).map(|number| step(number, "accepted", "a")).collect();
        let newest = messages_of(&many);
        assert_eq!((newest.len(), newest[0].clone()), (TRAIL_MESSAGES_MAX, CommandId([255; 16]).to_string()));
    }
}
