//! Who leads the partitions that have no replica on this node, or one that knows nothing yet: the leaders' nodes
//! say so. Only hints for routing: whoever is asked in vain is not the leader.

use std::collections::BTreeMap;

use mailraft_storage::{NodeId, PartitionId, Term};

/// What a node leads is told to the others every so many ticks (500 ms), and whenever it changes.
pub const TELL_EVERY_TICKS: u64 = 20;
/// A node that was silent for so many ticks (1.5 s) leads nothing.
const SILENT_MAX_TICKS: u64 = 60;

/// What the other nodes said.
#[derive(Default)]
pub struct Hints {
    leaders: BTreeMap<PartitionId, (Term, NodeId)>,
    heard: BTreeMap<NodeId, u64>,
}

impl Hints {
    /// A node says what it leads, of the partitions about which no replica here knows. Returns what is new.
    pub fn told(&mut self, node: NodeId, led: &[(PartitionId, Term)], tick: u64) -> Vec<(PartitionId, Option<NodeId>)> {
        self.heard.insert(node, tick);
        let leads_no_more =
            |partition, leader| leader == node && !led.iter().any(|(led, _): &(PartitionId, Term)| *led == partition);
        let mut news = drop_where(&mut self.leaders, leads_no_more);
        for (partition, term) in led {
            let known = self.leaders.get(partition).copied();
            if known.is_some_and(|(known, _)| known > *term) {
                continue;
            }
            self.leaders.insert(*partition, (*term, node));
            if known.map(|(_, leader)| leader) != Some(node) {
                news.push((*partition, Some(node)));
            }
        }
        news
    }

    /// A replica here knows from now on.
    pub fn forget(&mut self, partition: PartitionId) {
        self.leaders.remove(&partition);
    }

    /// The connection to a node broke.
    pub fn unreachable(&mut self, node: NodeId) -> Vec<(PartitionId, Option<NodeId>)> {
        drop_where(&mut self.leaders, |_, leader| leader == node)
    }

    /// Forgets what silent nodes said.
    pub fn tick(&mut self, tick: u64) -> Vec<(PartitionId, Option<NodeId>)> {
        let Hints { leaders, heard } = self;
        let silent = |node| heard.get(&node).is_none_or(|at| tick.saturating_sub(*at) > SILENT_MAX_TICKS);
        drop_where(leaders, |_, leader| silent(leader))
    }
}

fn drop_where(
    leaders: &mut BTreeMap<PartitionId, (Term, NodeId)>,
    drop: impl Fn(PartitionId, NodeId) -> bool,
) -> Vec<(PartitionId, Option<NodeId>)> {
    let mut dropped = Vec::new();
    leaders.retain(|partition, (_, leader)| {
        let drop = drop(*partition, *leader);
        if drop {
            dropped.push((*partition, None));
        }
        !drop
    });
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_term_counts_and_silence_ends_it() {
        let (p, q) = (PartitionId(1), PartitionId(2));
        let (one, two) = (NodeId(1), NodeId(2));
        let mut hints = Hints::default();
        assert_eq!(hints.told(one, &[(p, Term(3)), (q, Term(9))], 1), [(p, Some(one)), (q, Some(one))]);
        assert_eq!(hints.told(one, &[(p, Term(3)), (q, Term(9))], 2), []);
        assert_eq!(hints.told(two, &[(p, Term(4)), (q, Term(8))], 3), [(p, Some(two))], "9 is later than 8");
        assert_eq!(hints.told(one, &[(p, Term(3))], 4), [(q, None)], "a deposed leader is not believed");
        assert_eq!(hints.tick(3 + SILENT_MAX_TICKS), []);
        assert_eq!(hints.tick(4 + SILENT_MAX_TICKS), [(p, None)]);
        assert_eq!(hints.told(two, &[(p, Term(4))], 70), [(p, Some(two))]);
        assert_eq!(hints.unreachable(two), [(p, None)]);
    }
}
