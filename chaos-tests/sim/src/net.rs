//! The network: messages between nodes are late, and under faults lost, doubled, out of order or held back.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_checkers::Micros;
use mailraft_storage::NodeId;

use crate::actors::SessionName;
use crate::dice::Dice;
use crate::event::Event;

/// A message between two nodes of one region takes at least this long.
const LATENCY_MIN: Micros = 150;
/// ... and so much more in the mean.
const LATENCY_MEAN: Micros = 150;
/// Within one node.
const LATENCY_OWN: Micros = 5;

/// What is wrong with the network now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// Messages doubled, of a thousand.
    pub twice: u64,
    /// Messages that may be overtaken, of a thousand.
    pub overtaken: u64,
    /// So much later in the mean.
    pub late: Micros,
}

/// The kinds of connection between two nodes; each keeps its order by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft's messages.
    Peers,
    /// Sessions and actors.
    Sessions,
}

/// The way of one message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It arrives then.
    At(Micros),
    /// It waits until the link is whole again.
    Held,
    /// The connection breaks.
    Broken,
}

/// What waited for a link arrives so long after it is whole again.
const RELEASED_AFTER: Micros = 300;

/// The links between all nodes.
pub struct Net {
    /// Whoever is in it hears nothing from the other: (from, to).
    blocked: BTreeMap<(NodeId, NodeId), ()>,
    last: BTreeMap<(NodeId, NodeId, Lane), Micros>,
    /// What is wrong with all of it.
    weather: Weather,
    /// What waits for a link to be whole: from, to, and what.
    held: Vec<(NodeId, NodeId, Event)>,
    /// Sessions' connections that broke.
    broken: BTreeSet<SessionName>,
    /// Nodes that are far from all others, and how long a message between them takes.
    far: (BTreeSet<NodeId>, Micros),
}

impl Net {
    /// All is well.
    pub fn new() -> Self {
        Net {
            blocked: BTreeMap::new(),
            last: BTreeMap::new(),
            weather: Weather::default(),
            held: Vec::new(),
            broken: BTreeSet::new(),
            far: (BTreeSet::new(), 0),
        }
    }

    /// What is wrong with all of it from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// These nodes are so far from all others, one way.
    pub fn set_far(&mut self, far: BTreeSet<NodeId>, one_way: Micros) {
        self.far = (far, one_way);
    }

    /// How long a message takes at least because its ends are far from each other.
    pub fn distance(&self, from: NodeId, to: NodeId) -> Micros {
        let (far, one_way) = &self.far;
        if far.contains(&from) == far.contains(&to) { 0 } else { *one_way }
    }

    /// These links carry nothing, all others do.
    pub fn block(&mut self, links: impl IntoIterator<Item = (NodeId, NodeId)>) {
        self.blocked = links.into_iter().map(|link| (link, ())).collect();
    }

    /// Something waits until a link is whole.
    pub fn hold(&mut self, from: NodeId, to: NodeId, what: Event) {
        self.held.push((from, to, what));
    }

    /// What waited for links that are whole now, and when it arrives, each in its place in its stream.
    pub fn release(&mut self, now: Micros) -> Vec<(Micros, Event)> {
        let mut released = Vec::new();
        for (from, to, what) in std::mem::take(&mut self.held) {
            if self.is_blocked(from, to) {
                self.held.push((from, to, what));
            } else {
                released.push((self.released(now, from, to), what));
            }
        }
        released
    }

    /// A session's connection breaks: it carries nothing any more.
    pub fn breaks(&mut self, name: SessionName) {
        self.broken.insert(name);
    }

    /// Whether a session's connection broke.
    pub fn is_broken(&self, name: SessionName) -> bool {
        self.broken.contains(&name)
    }

    /// Whether a link carries nothing.
    pub fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.contains_key(&(from, to))
    }

    /// When copies of one of Raft's messages arrive.
    pub fn datagram(&mut self, dice: &mut Dice, now: Micros, from: NodeId, to: NodeId) -> [Option<Micros>; 2] {
        if self.is_blocked(from, to) || dice.chance(self.weather.loss) {
            return [None, None];
        }
        let first = self.arrival(dice, now, from, to, Lane::Peers);
        let second = dice.chance(self.weather.twice).then(|| first + dice.exponential(10_000));
        [Some(first), second]
    }

    /// When a message of a session arrives.
    pub fn stream(&mut self, dice: &mut Dice, now: Micros, from: NodeId, to: NodeId) -> Carried {
        if self.is_blocked(from, to) {
            return if dice.chance(500) { Carried::Held } else { Carried::Broken };
        }
        Carried::At(self.arrival(dice, now, from, to, Lane::Sessions))
    }

    fn released(&mut self, now: Micros, from: NodeId, to: NodeId) -> Micros {
        let last = self.last.entry((from, to, Lane::Sessions)).or_default();
        *last = (now + RELEASED_AFTER).max(*last + 1);
        *last
    }

    fn arrival(&mut self, dice: &mut Dice, now: Micros, from: NodeId, to: NodeId, lane: Lane) -> Micros {
        let mut at = now + if from == to { LATENCY_OWN } else { LATENCY_MIN + dice.exponential(LATENCY_MEAN) };
        let distance = self.distance(from, to);
        if distance > 0 {
            at += distance + dice.exponential(distance / 20 + 1);
        }
        if from != to && self.weather.late > 0 {
            at += dice.exponential(self.weather.late);
        }
        if lane == Lane::Peers && dice.chance(self.weather.overtaken) {
            return at + dice.exponential(5_000);
        }
        let last = self.last.entry((from, to, lane)).or_default();
        at = at.max(*last + 1);
        *last = at;
        at
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_for_a_link_keeps_its_place_in_the_stream() {
        let (mut net, mut dice, a, b) = (Net::new(), Dice::new(1, 0), NodeId(1), NodeId(2));
        net.weather.late = 50_000;
        let Carried::At(before) = net.stream(&mut dice, 0, a, b) else { panic!("the link is whole") };
        net.weather.late = 0;
        let waited = net.released(10, a, b);
        let Carried::At(after) = net.stream(&mut dice, 20, a, b) else { panic!("the link is whole") };
        assert!(before < waited && waited < after, "{before}, {waited}, {after}");
    }
}
