//! Where leaders should be: each partition's members are in an order of preference that quickstart spreads
//! evenly, so that leaders are spread when all nodes live and when one is dead.

use mailraft_storage::ReplicaId;

/// A leader looks every so many ticks (1 s).
pub const LOOK_EVERY_TICKS: u64 = 40;
/// A new leader stays at least so many ticks (2 s).
pub const STAY_TICKS: u64 = 80;
/// A node hands over at most so many partitions at one look.
pub const HAND_OVERS_MAX: usize = 4;
/// A follower this many entries behind is not handed the lead.
pub const LAG_MAX_ENTRIES: u64 = 64;

/// A member as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub replica: ReplicaId,
    pub voter: bool,
    /// Heard of within the last election timeout.
    pub active: bool,
    pub lag_entries: u64,
}

/// To whom a leader should hand over: the first in the order that is fit, if that is not itself.
pub fn better_leader(order: &[ReplicaId], own: ReplicaId, members: &[Member]) -> Option<ReplicaId> {
    for replica in order {
        if *replica == own {
            return None;
        }
        let fit = |m: &&Member| m.replica == *replica && m.voter && m.active && m.lag_entries <= LAG_MAX_ENTRIES;
        if members.iter().any(|m| fit(&m)) {
            return Some(*replica);
        }
    }
    None
}

/// To whom a leader that stops should hand over: the active voter that lags least.
pub fn successor(own: ReplicaId, members: &[Member]) -> Option<ReplicaId> {
    members
        .iter()
        .filter(|m| m.replica != own && m.voter && m.active)
        .min_by_key(|m| (m.lag_entries, m.replica))
        .map(|m| m.replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u64, active: bool, lag_entries: u64) -> Member {
        Member { replica: ReplicaId(n), voter: true, active, lag_entries }
    }

    #[test]
    fn the_first_fit_member_in_the_order_should_lead() {
        let order = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let all = [member(1, true, 0), member(2, true, 0), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(3), &all), Some(ReplicaId(1)));
        assert_eq!(better_leader(&order, ReplicaId(1), &all), None);
        let dead = [member(1, false, 0), member(2, true, 0), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(3), &dead), Some(ReplicaId(2)));
        let behind = [member(1, true, LAG_MAX_ENTRIES + 1), member(2, false, 0), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(3), &behind), None);
        assert_eq!(successor(ReplicaId(3), &behind), Some(ReplicaId(1)));
    }
}
