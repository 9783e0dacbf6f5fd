//! Where leaders should be: each partition's members are in an order of preference that quickstart spreads
//! evenly, so that leaders are spread when all nodes live and when one is dead.

use mailraft_storage::ReplicaId;

/// A leader looks every so many ticks (1 s).
pub const LOOK_EVERY_TICKS: u64 = 40;
/// A new leader stays at least so many ticks (2 s).
pub const STAY_TICKS: u64 = 80;
/// A member must be the better leader for so many ticks (1 s) before it is handed the lead.
pub const STEADY_TICKS: u64 = 40;
/// A node hands over at most so many partitions at one look, or a share of those it has, whichever is more: all
/// are where they should be within 30 s.
const HAND_OVERS: usize = 4;
const HAND_OVER_SHARE: usize = 32;
/// A follower this many entries behind is not handed the lead.
pub const LAG_MAX_ENTRIES: u64 = 64;

/// A member as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub replica: ReplicaId,
    pub voter: bool,
    /// It answered within the last election timeout.
    pub active: bool,
    pub lag_entries: u64,
    /// How often it was offered the lead in this term.
    pub offered: u32,
    /// Its node hears, and is heard by, as many as any other's.
    pub well_placed: bool,
}

/// How many partitions a node with so many replicas hands over at one look.
pub fn hand_overs_max(replicas: usize) -> usize {
    HAND_OVERS.max(replicas / HAND_OVER_SHARE)
}

/// To whom a leader should hand over: the first in the order that is fit and well placed, if that is not itself.
/// `well_placed` says whether it is so itself.
pub fn better_leader(order: &[ReplicaId], own: ReplicaId, well_placed: bool, members: &[Member]) -> Option<ReplicaId> {
    for replica in order {
        if *replica == own && well_placed {
            return None;
        }
        let fit = |m: &&Member| {
            let other = m.replica == *replica && m.replica != own;
            other && m.voter && m.active && m.well_placed && m.lag_entries <= LAG_MAX_ENTRIES
        };
        if members.iter().any(|m| fit(&m)) {
            return Some(*replica);
        }
    }
    None
}

/// To whom a leader that is to go should hand over: of the active voters that were offered the lead least often the one
/// that lags least. So whoever does not take it, being damaged perhaps, is followed by the next.
pub fn successor(own: ReplicaId, members: &[Member]) -> Option<ReplicaId> {
    members
        .iter()
        .filter(|m| m.replica != own && m.voter && m.active)
        .min_by_key(|m| (m.offered, m.lag_entries, m.replica))
        .map(|m| m.replica)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn member(n: u64, active: bool, lag_entries: u64) -> Member {
        Member { replica: ReplicaId(n), voter: true, active, lag_entries, offered: 0, well_placed: true }
    }

    #[test]
    fn the_first_fit_member_in_the_order_should_lead() {
        let order = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let all = [member(1, true, 0), member(2, true, 0), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(3), true, &all), Some(ReplicaId(1)));
        assert_eq!(better_leader(&order, ReplicaId(1), true, &all), None);
        let dead = [member(1, false, 0), member(2, true, 0), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(3), true, &dead), Some(ReplicaId(2)));
        let behind = [member(1, true, LAG_MAX_ENTRIES + 1), member(2, false, 0), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(3), true, &behind), None);
        assert_eq!(successor(ReplicaId(3), &behind), Some(ReplicaId(1)));
    }

    #[test]
    fn whoever_does_not_hear_all_that_others_hear_should_not_lead() {
        let order = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let badly = |n| Member { well_placed: false, ..member(n, true, 0) };
        let one = [badly(1), badly(2), member(3, true, 0)];
        assert_eq!(better_leader(&order, ReplicaId(1), false, &one), Some(ReplicaId(3)));
        assert_eq!(better_leader(&order, ReplicaId(2), false, &one), Some(ReplicaId(3)));
        assert_eq!(better_leader(&order, ReplicaId(3), true, &one), None, "it keeps the lead");
        let none = [badly(1), member(2, false, 0), member(3, true, LAG_MAX_ENTRIES + 1)];
        assert_eq!(better_leader(&order, ReplicaId(1), false, &none), None, "better here than nowhere");
    }

    #[test]
    fn who_was_offered_the_lead_and_did_not_take_it_is_followed_by_the_next() {
        let mut members = [member(1, true, 0), member(2, true, 5), member(3, true, 7), member(4, false, 0)];
        let mut order = Vec::new();
        for _ in 0..4 {
            let next = successor(ReplicaId(3), &members).unwrap();
            members.iter_mut().filter(|m| m.replica == next).for_each(|m| m.offered += 1);
            order.push(next.0);
        }
        assert_eq!(order, [1, 2, 1, 2]);
    }
}
