//! The faults of a run, and which of them are under way: what they keep down, which links they break, what the weather
//! on the network is.

use std::collections::BTreeSet;

use mailraft_storage::NodeId;

use crate::faults::{Fault, Planned};
use crate::net::Weather;

/// A plan of faults, and what of it is under way.
pub struct UnderWay {
    plan: Vec<Planned>,
    active: BTreeSet<usize>,
    /// Whether the flapping links are broken at the moment.
    flapped: bool,
}

impl UnderWay {
    /// None of these has begun. They are put into the order in which they begin.
    pub fn new(mut plan: Vec<Planned>) -> Self {
        plan.sort_by_key(|planned| planned.from);
        UnderWay { plan, active: BTreeSet::new(), flapped: false }
    }

    /// One more, behind those that are planned; its number.
    pub fn add(&mut self, planned: Planned) -> usize {
        self.plan.push(planned);
        self.plan.len() - 1
    }

    /// The fault of this number, if there are so many.
    pub fn planned(&self, at: usize) -> Option<&Planned> {
        self.plan.get(at)
    }

    /// A fault begins; None if there is none of this number.
    pub fn begins(&mut self, at: usize) -> Option<Planned> {
        let planned = self.plan.get(at).cloned()?;
        self.active.insert(at);
        Some(planned)
    }

    /// A fault ends; None if it is not under way.
    pub fn ends(&mut self, at: usize) -> Option<Planned> {
        if !self.active.remove(&at) {
            return None;
        }
        self.plan.get(at).cloned()
    }

    /// All end.
    pub fn all_end(&mut self) {
        self.active.clear();
    }

    /// Flapping links change: those that carried something do so no more, and the other way round.
    pub fn flap(&mut self) {
        self.flapped = !self.flapped;
    }

    /// Whether just this fault is under way.
    pub fn is(&self, fault: &Fault) -> bool {
        self.faults().any(|under_way| under_way == fault)
    }

    /// Whether a node is kept down.
    pub fn keeps_down(&self, node: NodeId) -> bool {
        self.faults().any(|fault| match fault {
            Fault::Crash { node: n, .. }
            | Fault::CorruptLog { node: n, .. }
            | Fault::TornBit { node: n, .. }
            | Fault::FullDisk { node: n } => *n == node,
            _ => false,
        })
    }

    /// The links between these nodes that carry nothing: from, to.
    pub fn broken_links(&self, nodes: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let mut broken = Vec::new();
        let mut apart = |a: NodeId, b: NodeId| {
            if a != b {
                broken.extend([(a, b), (b, a)]);
            }
        };
        for fault in self.faults() {
            match fault {
                Fault::Partition { side } => {
                    for a in side {
                        nodes.iter().filter(|b| !side.contains(b)).for_each(|b| apart(*a, *b));
                    }
                }
                Fault::Bridge { bridge, half } => {
                    for a in half {
                        nodes.iter().filter(|b| *b != bridge && !half.contains(b)).for_each(|b| apart(*a, *b));
                    }
                }
                Fault::Flapping { a, b } if self.flapped => apart(*a, *b),
                _ => {}
            }
        }
        for fault in self.faults() {
            if let Fault::OneWay { from, to } = fault {
                broken.push((*from, *to));
            }
        }
        broken
    }

    /// What is wrong with the network as a whole: of each kind the worst.
    pub fn weather(&self) -> Weather {
        let mut weather = Weather::default();
        for fault in self.faults() {
            match fault {
                Fault::Loss { permille } => weather.loss = weather.loss.max(*permille),
                Fault::Twice { permille } => weather.twice = weather.twice.max(*permille),
                Fault::Overtaking { permille } => weather.overtaken = weather.overtaken.max(*permille),
                Fault::Late { mean } => weather.late = weather.late.max(*mean),
                _ => {}
            }
        }
        weather
    }

    /// The whole plan.
    pub fn into_plan(self) -> Vec<Planned> {
        self.plan
    }

    fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.active.iter().map(|at| &self.plan[*at].fault)
    }
}
