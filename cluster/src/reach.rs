//! Which nodes hear each other, and who should lead where not all do.
//!
//! A link between two living nodes may be down while a third hears both: a full routing table, a firewall rule, a damaged
//! port of a switch. Raft elects nobody else, as the third hears its leader; and whoever asks through the node at the other
//! end is not served. So each node tells the others once a second whom it hears, and with how many it hears each other
//! (its *links*). A leader whose node has fewer links than another voter's hands its lead over.
//!
//! Only wishes depend on it: Raft decides who leads, and whoever has the only complete log leads wherever it stands.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_storage::NodeId;

/// Each node tells whom it hears every so many ticks (1 s).
pub const TELL_EVERY_TICKS: u64 = 40;
/// Who was not heard for so many ticks (3 s) is not heard; what it told counts as long.
const SILENT_TICKS: u64 = 3 * TELL_EVERY_TICKS;
/// Another must have more links for so many ticks (2 s): two nodes hear of a third that starts or ends up to a second apart.
const STEADY_TICKS: u64 = 2 * TELL_EVERY_TICKS;
/// A node that fell silent twice within so many ticks (60 s) counts as silent for [`FLAPPING_TICKS`] more: leads that
/// went back and forth with such a link would be nowhere for most of the time.
const OFTEN_TICKS: u64 = 60 * TELL_EVERY_TICKS;
/// 30 s.
const FLAPPING_TICKS: u64 = 30 * TELL_EVERY_TICKS;
/// No cluster has more nodes; a message that names more is refused.
pub const NODES_MAX: usize = 1_024;

/// What a node knows of who hears whom.
#[derive(Debug, Default)]
pub struct Reach {
    now: u64,
    /// The nodes that count beside this one: those whose replicas may lead.
    others: BTreeSet<NodeId>,
    /// When each was heard, whatever it said.
    heard: BTreeMap<NodeId, Heard>,
    told: BTreeMap<NodeId, Told>,
    /// Since when another has had more links than this node, without a break.
    worse_since: Option<u64>,
}

#[derive(Debug)]
struct Heard {
    last: u64,
    /// When it was heard again after a silence.
    back: Option<u64>,
    /// It does not count before this.
    doubted_until: u64,
}

#[derive(Debug)]
struct Told {
    at: u64,
    hears_us: bool,
    links: u32,
}

impl Reach {
    /// A tick passed; `others` are the nodes that count beside this one.
    pub fn tick(&mut self, others: BTreeSet<NodeId>) {
        self.now += 1;
        if self.others != others {
            self.heard.retain(|node, _| others.contains(node));
            self.told.retain(|node, _| others.contains(node));
            self.others = others;
        }
        match self.links() < self.most_links() {
            true => self.worse_since = self.worse_since.or(Some(self.now)),
            false => self.worse_since = None,
        }
    }

    /// Something arrived from a node.
    pub fn heard(&mut self, node: NodeId) {
        if !self.others.contains(&node) {
            return;
        }
        let now = self.now;
        let heard = self.heard.entry(node).or_insert(Heard { last: now, back: None, doubted_until: 0 });
        if now - heard.last >= SILENT_TICKS {
            if heard.back.is_some_and(|back| now - back < OFTEN_TICKS) {
                heard.doubted_until = now + FLAPPING_TICKS;
            }
            heard.back = Some(now);
        }
        heard.last = now;
    }

    /// A node says whom it hears, this one, `own`, among them or not, and with how many it hears each other.
    pub fn told(&mut self, node: NodeId, own: NodeId, hears: &[NodeId], links: u32) {
        if self.others.contains(&node) {
            self.told.insert(node, Told { at: self.now, hears_us: hears.contains(&own), links });
        }
    }

    /// The nodes that this one hears.
    pub fn hears(&self) -> Vec<NodeId> {
        let counts = |heard: &Heard| self.is_recent(heard.last) && self.now >= heard.doubted_until;
        self.heard.iter().filter(|(_, heard)| counts(heard)).map(|(node, _)| *node).collect()
    }

    /// With how many nodes this one hears each other.
    pub fn links(&self) -> u32 {
        let both = |node: &&NodeId| self.lately(**node).is_some_and(|told| told.hears_us);
        u32::try_from(self.hears().iter().filter(both).count()).unwrap_or(u32::MAX)
    }

    /// Whether another node has had more links than this one for a while: its replicas should lead.
    pub fn is_worse(&self) -> bool {
        self.worse_since.is_some_and(|since| self.now - since >= STEADY_TICKS)
    }

    /// Whether a node has as many links as any. One that told nothing lately is believed to.
    pub fn is_best(&self, node: NodeId) -> bool {
        self.lately(node).is_none_or(|told| told.links >= self.most_links().max(self.links()))
    }

    /// The most links that another node has, as far as it told.
    fn most_links(&self) -> u32 {
        self.told.values().filter(|told| self.is_recent(told.at)).map(|told| told.links).max().unwrap_or(0)
    }

    fn lately(&self, node: NodeId) -> Option<&Told> {
        self.told.get(&node).filter(|told| self.is_recent(told.at))
    }

    fn is_recent(&self, at: u64) -> bool {
        self.now - at < SILENT_TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    /// Three nodes over so many seconds; `up` says whether what one says reaches another.
    fn run(nodes: &mut BTreeMap<NodeId, Reach>, seconds: u64, up: impl Fn(NodeId, NodeId) -> bool) {
        for tick in 0..seconds * 40 {
            for (node, reach) in nodes.iter_mut() {
                reach.tick(ALL.into_iter().filter(|other| other != node).collect());
            }
            for from in ALL.into_iter().filter(|from| tick % TELL_EVERY_TICKS == from.0 * 7) {
                let Some((hears, links)) = nodes.get(&from).map(|node| (node.hears(), node.links())) else { continue };
                for (to, reach) in nodes.iter_mut().filter(|(to, _)| **to != from && up(from, **to)) {
                    reach.heard(from);
                    reach.told(from, *to, &hears, links);
                }
            }
        }
    }

    fn three() -> BTreeMap<NodeId, Reach> {
        ALL.into_iter().map(|node| (node, Reach::default())).collect()
    }

    fn worse(nodes: &BTreeMap<NodeId, Reach>) -> Vec<u64> {
        nodes.iter().filter(|(_, reach)| reach.is_worse()).map(|(node, _)| node.0).collect()
    }

    #[test]
    fn who_can_not_hear_one_that_others_hear_is_worse_placed_until_it_can() {
        for one_way in [false, true] {
            let cut = |from: NodeId, to: NodeId| (from.0, to.0) == (1, 2) || (!one_way && (from.0, to.0) == (2, 1));
            let mut nodes = three();
            run(&mut nodes, 10, |_, _| true);
            assert_eq!((worse(&nodes), nodes[&NodeId(1)].links()), (vec![], 2));
            run(&mut nodes, 8, |from, to| !cut(from, to));
            assert_eq!(worse(&nodes), [1, 2], "one way {one_way}");
            assert!(nodes[&NodeId(1)].is_best(NodeId(3)) && !nodes[&NodeId(3)].is_best(NodeId(1)));
            run(&mut nodes, 8, |_, _| true);
            assert_eq!(worse(&nodes), [0_u64; 0]);
            assert!(nodes[&NodeId(3)].is_best(NodeId(1)));
        }
    }

    #[test]
    fn a_node_that_ends_or_starts_makes_nobody_worse() {
        let mut nodes = three();
        for second in 0..6 {
            run(&mut nodes, 1, |_, _| true);
            assert_eq!(worse(&nodes), [0_u64; 0], "second {second} after all started");
        }
        let third = nodes.remove(&NodeId(3)).unwrap_or_default();
        drop(third);
        for second in 0..10 {
            run(&mut nodes, 1, |_, _| true);
            assert_eq!(worse(&nodes), [0_u64; 0], "second {second} after it ended");
        }
        nodes.insert(NodeId(3), Reach::default());
        for second in 0..10 {
            run(&mut nodes, 1, |_, _| true);
            // The one that starts leads nothing.
            assert!(!worse(&nodes).iter().any(|node| *node != 3), "second {second} after it started");
        }
    }

    #[test]
    fn a_link_that_comes_and_goes_counts_as_down_until_it_has_stayed() {
        let cut = |from: NodeId, to: NodeId| from.0 + to.0 == 3;
        let mut nodes = three();
        run(&mut nodes, 10, |_, _| true);
        for turn in 0..8 {
            run(&mut nodes, 4, |from, to| !cut(from, to));
            for _ in 0..4 {
                run(&mut nodes, 1, |_, _| true);
                assert!(turn < 2 || worse(&nodes) == [1, 2], "turn {turn}: {:?}", worse(&nodes));
            }
        }
        run(&mut nodes, 34, |_, _| true);
        assert_eq!(worse(&nodes), [0_u64; 0]);
    }

    #[test]
    fn who_tells_nothing_is_as_good_as_any_and_who_does_not_count_is_not_counted() {
        let mut reach = Reach::default();
        reach.tick([NodeId(2)].into());
        reach.heard(NodeId(9));
        reach.told(NodeId(9), NodeId(1), &[NodeId(1)], 7);
        reach.heard(NodeId(2));
        assert_eq!((reach.hears(), reach.links(), reach.is_best(NodeId(2))), (vec![NodeId(2)], 0, true));
    }
}
