//! Another region takes the cluster over from a home that is lost: what the control group's rows say of it, and what each
//! group's do.
//!
//! An operator's word makes the standbys of partition 0 in one region *adopt* a new incarnation: each goes on as a voter
//! beside the others, by one synced write that is never undone. A majority of them meets every majority that held an
//! answer, so whom they elect has all of those. Its first entry says that the incarnation has begun, and names the voters
//! of every other partition; nodes have those adopt by their applied rows, and by nothing else.
//!
//! Terms of an incarnation begin above all of earlier ones, and replicas take and answer messages of their own only. Who
//! hears of a higher one, from a replica that has applied that it began, adopts it where it is named as a voter; anybody
//! else seals itself: it leads, answers and confirms nothing any more, also after a restart.

use std::collections::BTreeSet;

use mailraft_storage::{NodeId, ReplicaId, RowBatch, RowKey, TakenOver};

use crate::mode::ModeRow;
use crate::placement::{self, MemberRow, Placement};
use crate::regions::{self, RegionName, Regions, RegionsRow, TakeoverRow};
use crate::taken_over;

/// The rows of the control group that change when a region becomes the home: where voters stand, that answers wait for
/// nobody else, and that it was taken over.
pub fn control_rows(regions: &Regions, row: &TakeoverRow) -> RowBatch {
    let mut batch = RowBatch::default();
    let home = RegionsRow { home: row.home.clone(), sync_set: BTreeSet::new(), ..regions.row().clone() };
    regions::write(&mut batch, &home);
    // Above every version that the old home may have given without anybody here knowing.
    let version = (regions.mode().version + 1).max(row.incarnation.first_term().0);
    let mode = ModeRow { version, since: row.since, ..ModeRow::default() }.batch();
    for (key, value) in mode.puts {
        batch.put(key, value);
    }
    let taken: Vec<Placement> = regions.placements().filter_map(|p| taken_over(regions, p, &row.home)).collect();
    placement::write(&mut batch, &[], &taken);
    row.write(&mut batch);
    batch
}

/// Where a partition's replicas are once a region has taken it over; None if none of them is there.
fn taken_over(regions: &Regions, placement: &Placement, home: &RegionName) -> Option<Placement> {
    let members: Vec<MemberRow> = standbys(regions, placement, home).map(|m| MemberRow { voter: true, ..m }).collect();
    (!members.is_empty()).then(|| Placement { members, ..placement.clone() })
}

/// A partition's replicas in a region.
pub fn standbys<'a>(
    regions: &'a Regions,
    placement: &'a Placement,
    region: &'a RegionName,
) -> impl Iterator<Item = MemberRow> + 'a {
    placement.members.iter().copied().filter(move |member| regions.of(member.node) == Some(region))
}

/// The rows of a group whose incarnation begins: its configuration as if none had been made before. `known` are the keys
/// of the rows of members that it has.
pub fn group_rows(taken: &TakenOver, voters: &[(ReplicaId, NodeId)], highest: ReplicaId, known: &[RowKey]) -> RowBatch {
    let mut batch = RowBatch::default();
    known.iter().for_each(|key| batch.delete(key.clone()));
    batch.put(placement::highest_key(), placement::highest_row(highest));
    for (replica, node) in voters {
        let row = MemberRow { replica: *replica, node: *node, voter: true };
        batch.put(placement::member_key(*replica), placement::member_row(&row));
    }
    taken_over::write(&mut batch, taken);
    batch
}
