//! What a cluster of several regions survives now, in words: what the loss of its home would cost, and how each backup
//! region is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mailraft_cluster::bootstrap::CONTROL_VOTERS_MAX;
use mailraft_cluster::mode::Mode;
use mailraft_cluster::regions::{Durability, RegionName, Regions};
use mailraft_cluster::status::SILENT_AFTER_MS;
use mailraft_cluster::{RegionStatus, ReplicaStatus};
use mailraft_driver::NodeStatus;
use mailraft_storage::{NodeId, PartitionId};

use crate::filling::Filling;

mod line;
mod words;

pub use line::{RegionLine, RegionState};
pub use words::moment;
pub(crate) use words::seconds;
use words::{DEFERRED_AFTER_S, millis, sentence};

/// What is known of all regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survival {
    /// What is survived and what is not, in one sentence.
    pub survives: String,
    /// Each backup region, by name.
    pub regions: Vec<RegionLine>,
}

impl Survival {
    /// Of what the nodes say of themselves. There are partitions 0 to `partitions`.
    /// Those that are locked take part in Raft and open no mailbox.
    pub fn of(
        regions: &Regions,
        partitions: u32,
        answers: &BTreeMap<NodeId, Option<&NodeStatus>>,
        locked: &BTreeSet<NodeId>,
    ) -> Self {
        let leaders = leaders(answers);
        let row = regions.row();
        let backups = regions.names().filter(|region| **region != row.home);
        let lines: Vec<RegionLine> =
            backups.map(|region| line(regions, region, partitions, &leaders, answers)).collect();
        Survival { survives: survives(regions, &leaders, partitions, &lines, locked), regions: lines }
    }
}

/// The leader of each partition in the highest term of which anyone told.
fn leaders<'a>(answers: &BTreeMap<NodeId, Option<&'a NodeStatus>>) -> BTreeMap<PartitionId, &'a ReplicaStatus> {
    let mut leaders: BTreeMap<PartitionId, &ReplicaStatus> = BTreeMap::new();
    let replicas = answers.values().flatten().flat_map(|node| &node.partitions);
    for replica in replicas.filter(|replica| replica.role == mailraft_cluster::Role::Leader) {
        let known = leaders.entry(replica.partition).or_insert(replica);
        if known.term < replica.term {
            *known = replica;
        }
    }
    leaders
}

fn line(
    regions: &Regions,
    region: &RegionName,
    partitions: u32,
    leaders: &BTreeMap<PartitionId, &ReplicaStatus>,
    answers: &BTreeMap<NodeId, Option<&NodeStatus>>,
) -> RegionLine {
    let row = regions.row();
    let of_leaders: Vec<(&ReplicaStatus, &RegionStatus)> = leaders
        .values()
        .filter_map(|leader| Some((*leader, leader.regions.iter().find(|other| other.region == region.0)?)))
        .collect();
    let lacks = |(leader, there): &(&ReplicaStatus, &RegionStatus)| leader.commit.0.saturating_sub(there.held.0);
    let worst = of_leaders.iter().min_by_key(|(_, there)| there.confirming);
    // The control group's row, as the node knows it that knows the newest.
    let modes = leaders.values().filter_map(|leader| leader.mode);
    let alone = modes.max_by_key(|mode| mode.version).filter(|mode| mode.mode != Mode::Whole);
    let compared: Option<Vec<u64>> = of_leaders.iter().map(|(_, there)| there.compared_ms).collect();
    let mut line = RegionLine {
        region: region.0.clone(),
        state: RegionState::Unknown,
        sentence: String::new(),
        in_sync_set: row.sync_set.contains(region),
        behind_ms: of_leaders.iter().map(|(_, there)| there.unheld_ms).max().unwrap_or(0),
        alone_since_unix_ms: alone.map(|mode| mode.since.0),
        alone_answers: leaders.values().map(|leader| leader.answers.alone).sum(),
        lag_entries: of_leaders.iter().map(lacks).sum(),
        silent_ms: of_leaders.iter().filter_map(|(_, there)| there.heard_ms).max(),
        unconfirmed_ms: of_leaders.iter().map(|(_, there)| there.unconfirmed_ms).max().unwrap_or(0),
        round_trip_ms: of_leaders.iter().filter_map(|(_, there)| there.round_trip_ms).max(),
        standbys: worst.map_or(0, |(_, there)| there.standbys),
        confirming: worst.map_or(0, |(_, there)| there.confirming),
        disagreeing: of_leaders.iter().map(|(_, there)| there.disagreeing).sum(),
        partitions_held: of_leaders.iter().filter(|of| lacks(of) == 0).count(),
        filling: Filling::of(regions, region, &of_leaders, answers),
        compared_s: compared.and_then(|all| all.into_iter().max()).map(|ms| ms / 1_000),
    };
    let all = partitions as usize + 1;
    // Under `region` answers run ahead of what it holds up to the bound.
    let bound_ms = row.durability.rpo_max().map_or(0, millis);
    let is_slow = |of: &(&ReplicaStatus, &RegionStatus)| {
        let slow_ms = (SILENT_AFTER_MS + of.1.round_trip_ms.unwrap_or(0)).max(bound_ms);
        lacks(of) > 0 && of.1.unconfirmed_ms > slow_ms.min(1_000 * DEFERRED_AFTER_S)
    };
    let is_stopped = of_leaders.iter().any(|of| of.1.is_silent() || is_slow(of));
    line.state = if was_left_behind(regions, region) {
        RegionState::LeftBehind
    } else if !line.in_sync_set && line.filling.sending {
        RegionState::Filling
    } else if !line.in_sync_set {
        RegionState::Removed
    } else if of_leaders.len() < all {
        RegionState::Unknown
    } else if alone.is_some_and(|mode| mode.mode == Mode::Alone) {
        RegionState::Alone
    } else if alone.is_some() {
        RegionState::Returning
    } else if is_stopped {
        RegionState::Stopped
    } else if row.durability.rpo_max().is_some() && line.behind_ms > 0 {
        RegionState::Behind
    } else {
        RegionState::Holds
    };
    line.sentence = sentence(regions, &line, is_stopped, all, of_leaders.len());
    let newest =
        regions.changes().newest_durability().filter(|_| row.durability.rpo_max().is_some() && line.in_sync_set);
    let control = of_leaders.iter().find(|(leader, _)| leader.partition == PartitionId::CONTROL);
    if newest.zip(control).is_some_and(|(newest, (_, there))| there.held < newest) {
        let _ = write!(
            line.sentence,
            "; it does not hold yet what is promised now, and answers wait as under geo until it does"
        );
    }
    line
}

/// Whether a region has no standbys because another took over.
pub fn was_left_behind(regions: &Regions, region: &RegionName) -> bool {
    !regions.takeovers().is_empty() && !regions.has_standbys(region)
}

/// What is survived and what is not, in one sentence.
fn survives(
    regions: &Regions,
    leaders: &BTreeMap<PartitionId, &ReplicaStatus>,
    partitions: u32,
    lines: &[RegionLine],
    locked: &BTreeSet<NodeId>,
) -> String {
    let row = regions.row();
    let home = &row.home.0;
    let one_more =
        leaders.len() > partitions as usize && leaders.values().all(|leader| bears_one_more(regions, leader, locked));
    // Where answers wait for a region, one more of its nodes may be what they wait for.
    let tight: Vec<&str> =
        lines.iter().filter(|line| waits(line) && !line.bears_one_more()).map(|line| line.region.as_str()).collect();
    let node = match (one_more, tight.is_empty()) {
        (true, true) => "any one node".to_owned(),
        (true, false) => format!("any one node of {home}, but no further one of {}", tight.join(" or ")),
        (false, _) => "no further node".to_owned(),
    };
    let protects = |line: &&RegionLine| match line.state {
        RegionState::Holds | RegionState::Behind | RegionState::Stopped => true,
        RegionState::Alone
        | RegionState::Returning
        | RegionState::Filling
        | RegionState::Removed
        | RegionState::Unknown
        | RegionState::LeftBehind => false,
    };
    let protecting: Vec<&RegionLine> = lines.iter().filter(protects).collect();
    // The best of them is what would take over.
    let Some(best) = protecting.iter().min_by_key(|line| line.behind_ms) else {
        let all_removed = !lines.is_empty() && lines.iter().all(|line| line.state == RegionState::Removed);
        let why = if all_removed { ", as there is no backup region" } else { "" };
        return format!("survives: {node}. NOT: loss of region {home}{why}");
    };
    let cost = match row.durability {
        Durability::Region { rpo_max_ms } if best.behind_ms > 0 => {
            format!("at most {} s of accepted mail lost", seconds(best.behind_ms.min(rpo_max_ms)))
        }
        Durability::Geo | Durability::Region { .. } => "0 accepted mail lost".to_owned(),
    };
    let by_hand = match best.confirming > best.standbys / 2 {
        true => "by hand".to_owned(),
        false => format!("by hand, once a majority of the nodes of {} runs", best.region),
    };
    let names: Vec<&str> = protecting.iter().map(|line| line.region.as_str()).collect();
    let together = match names.split_last() {
        Some((last, [])) => format!("{home} and {last}"),
        Some((last, others)) => format!("{home}, {} and {last}", others.join(", ")),
        None => home.clone(),
    };
    format!("survives: {node}; loss of region {home}, {cost} ({by_hand}). NOT: loss of {together} together")
}

/// Whether answers wait for a region.
fn waits(line: &RegionLine) -> bool {
    match line.state {
        RegionState::Holds | RegionState::Behind | RegionState::Stopped | RegionState::Returning => true,
        RegionState::Alone
        | RegionState::Filling
        | RegionState::Removed
        | RegionState::Unknown
        | RegionState::LeftBehind => false,
    }
}

/// Whether a majority of a partition's members at home is there even if one more of them dies, and one that can open its mailboxes.
fn bears_one_more(regions: &Regions, leader: &ReplicaStatus, locked: &BTreeSet<NodeId>) -> bool {
    let at_home = leader.followers.iter().filter(|follower| regions.is_home(follower.node));
    let open = at_home.clone().filter(|follower| follower.active && !locked.contains(&follower.node)).count()
        + usize::from(leader.leader.is_none_or(|own| !locked.contains(&own)));
    if !locked.is_empty() && open < 2 {
        return false;
    }
    let (all, there) = at_home.fold((1, 1), |(all, there), f| (all + 1, there + usize::from(f.active)));
    // Of a control group with more members some only learn.
    let voters = if leader.partition == PartitionId::CONTROL { all.min(CONTROL_VOTERS_MAX) } else { all };
    there.min(voters) > voters / 2 + 1
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_cluster::placement::{self, NodeRow};
    use mailraft_cluster::status::FollowerStatus;
    use mailraft_storage::{Incarnation, Index, ReplicaId};

    use super::*;
    use mailraft_cluster::AnswersStatus;
    use mailraft_cluster::Role;
    use mailraft_cluster::low_water::LowWater;
    use mailraft_cluster::regions::{RegionsRow, Unconfirmed};
    use mailraft_cluster::status::ModeStatus;
    use mailraft_driver::{ScrubStatus, SnapshotStatus};
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::{Applied, ReplicaBatch};
    use mailraft_storage::{RowBatch, Rows, Term, UnixMillis};

    /// A replica of a node.
    pub(crate) fn replica(partition: u32, role: Role, term: u64, commit: u64, applied: u64) -> ReplicaStatus {
        ReplicaStatus {
            partition: PartitionId(partition),
            replica: ReplicaId(u64::MAX - u64::from(partition)),
            role,
            term: Term(term),
            leader: None,
            commit: Index(commit),
            applied: Index(applied),
            flushed: Index(0),
            visible: Index(applied),
            log_held_by: LowWater::Flushed,
            log_held_at: Index(0),
            first: Index(1),
            last: Index(commit),
            count: 0,
            hash: [0xab; 32],
            installing: false,
            damaged: false,
            followers: Vec::new(),
            regions: Vec::new(),
            unheld_ms: 0,
            answers: AnswersStatus::default(),
            mode: None,
            ahead: None,
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            sealed_by: None,
            sealed_voters: Vec::new(),
            home_heard_ms: None,
            contested: false,
            settings_in_log: Vec::new(),
            unconfirmed: false,
        }
    }

    /// What a node says.
    pub(crate) fn node(id: u64, partitions: Vec<ReplicaStatus>) -> NodeStatus {
        NodeStatus {
            node: NodeId(id),
            cluster: "c".into(),
            peers: Vec::new(),
            partitions,
            fsync_p50_us: 1,
            fsync_p99_us: 2,
            log_write_ms: 0,
            core_queue: 0,
            apply_queue: 0,
            scrub: Some(ScrubStatus { percent: 34, rows: 5, bytes: 900, age_s: None, damaged: 0 }),
            rows_bytes: 0,
            snapshots: Vec::new(),
        }
    }

    /// Three nodes at home and three in the south, one mail partition led by node 1.
    struct World {
        row: RegionsRow,
        leaders: [ReplicaStatus; 2],
        snapshots: Vec<SnapshotStatus>,
        locked: BTreeSet<NodeId>,
    }

    fn name(name: &str) -> RegionName {
        RegionName(name.into())
    }

    impl World {
        fn new(durability: Durability) -> Self {
            let leader = |partition| {
                let mut leader = replica(partition, Role::Leader, 3, 50, 50);
                let follower = |node| FollowerStatus {
                    replica: ReplicaId(node),
                    node: NodeId(node),
                    matched: Index(50),
                    lag: 0,
                    active: true,
                    snapshot: false,
                };
                leader.followers = (2..=6).map(follower).collect();
                leader.regions = vec![RegionStatus {
                    region: "south".into(),
                    in_sync_set: true,
                    standbys: 3,
                    disagreeing: 0,
                    confirming: 3,
                    held: Index(50),
                    unheld_ms: 0,
                    heard_ms: Some(900),
                    round_trip_ms: Some(41),
                    compared_ms: Some(1_000 + 500 * u64::from(partition)),
                    unconfirmed_ms: 0,
                }];
                leader
            };
            let row = RegionsRow::new(name("home"), [name("south")].into(), durability);
            World { row, leaders: [leader(0), leader(1)], snapshots: Vec::new(), locked: BTreeSet::new() }
        }

        fn south(&mut self, change: impl Fn(&mut ReplicaStatus)) -> &mut Self {
            self.leaders.iter_mut().for_each(change);
            self
        }

        fn said(&self) -> (String, RegionLine) {
            let stands = |id| NodeRow {
                id: NodeId(id),
                name: String::new(),
                region: if id <= 3 { "home".into() } else { "south".into() },
                zone: String::new(),
                peer: String::new(),
            };
            let mut batch = RowBatch::default();
            placement::write(&mut batch, &(1..=6).map(stands).collect::<Vec<_>>(), &[]);
            mailraft_cluster::regions::write(&mut batch, &self.row);
            let (rows, replica) = (MemoryRows::new(), ReplicaId(1));
            let applied = Applied { index: Index(1), term: Term(1), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica, batch, applied }]).unwrap();
            let regions = Regions::from_rows(&rows, replica).unwrap().unwrap();
            let mut nodes: Vec<NodeStatus> = (1..=6).map(|n| node(n, Vec::new())).collect();
            nodes[0].partitions = self.leaders.to_vec();
            (nodes[0].rows_bytes, nodes[0].snapshots) = (40_000_000_000, self.snapshots.clone());
            let answers = nodes.iter().map(|node| (node.node, Some(node))).collect();
            let Survival { survives, regions } = Survival::of(&regions, 1, &answers, &self.locked);
            let [line] = <[RegionLine; 1]>::try_from(regions).unwrap();
            (survives, line)
        }
    }

    #[test]
    fn what_a_loss_of_the_home_costs_is_said_and_how_the_backup_is() {
        let (survives, south) = World::new(Durability::Geo).said();
        assert_eq!(
            survives,
            "survives: any one node; loss of region home, 0 accepted mail lost (by hand). NOT: loss of home and south \
             together"
        );
        assert_eq!(
            south.sentence,
            "south holds all that was answered; 41 ms away; 3 of 3 standbys; rows compared with home 1 s ago"
        );
        assert_eq!((south.state, south.partitions_held, south.lag_entries), (RegionState::Holds, 2, 0));
    }

    #[test]
    fn standbys_that_differ_from_their_home_are_counted_and_named() {
        let one = |leader: &mut ReplicaStatus| {
            if leader.partition == PartitionId(1) {
                (leader.regions[0].disagreeing, leader.regions[0].confirming) = (1, 2);
            }
        };
        let (_, south) = World::new(Durability::Geo).south(one).said();
        let said = "; 2 of 3 standbys; rows compared with home 1 s ago; 1 replica there differs from home and holds nothing: \
                    replace its node";
        assert!(south.sentence.ends_with(said), "{}", south.sentence);
    }

    #[test]
    fn under_region_what_is_not_held_yet_would_be_lost() {
        let mut world = World::new(Durability::Region { rpo_max_ms: 1_000 });
        let lacks =
            |leader: &mut ReplicaStatus| (leader.regions[0].held, leader.regions[0].unheld_ms) = (Index(41), 350);
        let (survives, south) = world.south(lacks).said();
        assert_eq!(south.sentence, "south is 0.4 s behind, bound 1 s: loss of region home loses at most 0.4 s of mail");
        assert_eq!((south.state, south.behind_ms, south.lag_entries), (RegionState::Behind, 350, 18));
        assert!(survives.contains("loss of region home, at most 0.4 s of accepted mail lost"), "{survives}");
        // Under geo what is not held was not answered.
        let (survives, south) = World::new(Durability::Geo).south(lacks).said();
        assert!(south.state == RegionState::Holds && survives.contains("0 accepted mail lost"), "{south:?}");
    }

    #[test]
    fn a_silent_backup_stops_new_mail_and_what_comes_then_is_said() {
        let mut world = World::new(Durability::Geo);
        let silent = |ms| {
            move |leader: &mut ReplicaStatus| {
                (leader.regions[0].heard_ms, leader.regions[0].unconfirmed_ms) = (Some(ms), ms);
            }
        };
        let (survives, south) = world.south(silent(2_100)).said();
        assert_eq!(
            south.sentence,
            "STOPPED: south has confirmed nothing for 2 s; new mail waits for it, and is deferred (451) from 5 s on, \
             reading goes on; alone from 60 s on"
        );
        assert!(survives.contains("0 accepted mail lost"), "{survives}");
        // Nothing was written since: what counts is that nobody confirms.
        let (_, south) = world.south(silent(6_900)).said();
        assert_eq!(
            south.sentence,
            "STOPPED: south has confirmed nothing for 6 s; new mail is deferred (451), reading goes on; alone from 60 s on"
        );
        let deferred = |leader: &mut ReplicaStatus| {
            (leader.regions[0].held, leader.regions[0].unheld_ms, leader.unconfirmed) = (Index(49), 6_200, true);
            (leader.regions[0].heard_ms, leader.regions[0].unconfirmed_ms) = (Some(300), 6_200);
        };
        world.row.unconfirmed = Unconfirmed::Refuse;
        let (_, south) = world.south(deferred).said();
        assert_eq!(
            south.sentence,
            "STOPPED: south has confirmed nothing for 6 s; new mail is deferred (451), reading goes on; until it \
             confirms again"
        );
        let (_, south) = World::new(Durability::Geo).south(|leader| leader.regions[0].heard_ms = None).said();
        assert!(south.sentence.starts_with("STOPPED: south has confirmed nothing yet"), "{}", south.sentence);
        assert_eq!(south.silent_ms, None);
        // It answers, and its disks do not.
        let slow = |leader: &mut ReplicaStatus| {
            (leader.regions[0].held, leader.regions[0].unheld_ms, leader.regions[0].unconfirmed_ms) =
                (Index(49), 1_500, 1_500);
        };
        assert_eq!(World::new(Durability::Geo).south(slow).said().1.state, RegionState::Stopped);
        let bound = Durability::Region { rpo_max_ms: 2_000 };
        assert_eq!(World::new(bound).south(slow).said().1.state, RegionState::Behind);
    }

    #[test]
    fn a_home_that_answers_alone_is_not_protected_and_says_since_when_and_how_much() {
        let alone = |mode| {
            move |leader: &mut ReplicaStatus| {
                let since = UnixMillis(1_795_684_443_000);
                leader.mode = Some(ModeStatus { version: 1, mode, since, alone: mode == Mode::Alone });
                (leader.regions[0].held, leader.regions[0].unheld_ms, leader.answers.alone) = (Index(40), 30_000, 602);
                leader.regions[0].unconfirmed_ms = 72_000;
            }
        };
        let (survives, south) = World::new(Durability::Geo).south(alone(Mode::Alone)).said();
        assert_eq!(
            south.sentence,
            "NOT PROTECTED: south has confirmed nothing for 72 s; home answers alone since 2026-11-26T09:14:03Z, 1,204 \
             answers so far"
        );
        assert_eq!(survives, "survives: any one node. NOT: loss of region home");
        // Another region is silent, and this one is not.
        let heard = |leader: &mut ReplicaStatus| {
            (leader.regions[0].held, leader.regions[0].unconfirmed_ms, leader.unheld_ms) = (Index(49), 40, 72_000);
        };
        let (_, south) = World::new(Durability::Geo).south(alone(Mode::Alone)).south(heard).said();
        assert_eq!(
            south.sentence,
            "NOT PROTECTED: home answers alone since 2026-11-26T09:14:03Z, 1,204 answers so far; south is heard, and lacks 2 \
             entries now"
        );
        let (survives, south) = World::new(Durability::Geo).south(alone(Mode::Returning)).said();
        assert!(south.sentence.starts_with("NOT PROTECTED YET: home waits for south again"), "{}", south.sentence);
        assert_eq!(survives, "survives: any one node. NOT: loss of region home");
        let mut whole = World::new(Durability::Geo);
        whole.south(alone(Mode::Whole)).south(|leader| leader.regions[0].unconfirmed_ms = 0);
        assert_eq!(whole.said().1.state, RegionState::Holds);
    }

    #[test]
    fn what_protects_nothing_is_not_counted() {
        let mut filling = World::new(Durability::Geo);
        filling.row.sync_set.clear();
        let snapshot = |partition| SnapshotStatus {
            partition: PartitionId(partition),
            to: NodeId(4),
            sent_bytes: 6_200_000_000,
            for_ms: 166_000,
        };
        filling.snapshots = vec![snapshot(0), snapshot(1)];
        filling.south(|leader| (leader.commit, leader.regions[0].held) = (Index(90_000), Index(9)));
        let (survives, south) = filling.said();
        assert_eq!(
            south.sentence,
            "south is being filled: 0 of 2 partitions, 12.4 of 40 GB, about 24 min; home does not wait for it, and it \
             protects nothing"
        );
        let mut removed = World::new(Durability::Geo);
        removed.row.sync_set.clear();
        let (without, south) = removed.said();
        assert_eq!(
            (south.state, south.sentence.as_str()),
            (
                RegionState::Removed,
                "south is taken out: home waits for it no more, and it protects nothing; have it back with mailraft region \
                 add south"
            )
        );
        assert_eq!(without, "survives: any one node. NOT: loss of region home, as there is no backup region");
        let mut alone = World::new(Durability::Geo);
        alone.south(|leader| {
            let mode = Mode::Alone;
            leader.mode = Some(ModeStatus { version: 1, mode, since: UnixMillis(1_795_684_443_000), alone: true });
            (leader.regions[0].heard_ms, leader.regions[0].unconfirmed_ms) = (Some(72_000), 72_000);
        });
        assert!(alone.said().1.sentence.starts_with("NOT PROTECTED: south has confirmed nothing for"));
        alone.snapshots = filling.snapshots;
        assert!(
            alone.said().1.sentence.starts_with("NOT PROTECTED: south is being filled: 2 of 2 partitions, 40 of 40 GB")
        );
        assert_eq!(survives, "survives: any one node. NOT: loss of region home");
        let (survives, south) = World::new(Durability::Geo).south(|leader| leader.role = Role::Follower).said();
        assert_eq!(south.sentence, "NOT KNOWN: of 2 of 2 partitions nobody says how far south is");
        assert_eq!(survives, "survives: no further node. NOT: loss of region home");
    }

    #[test]
    fn with_a_node_of_the_home_dead_no_further_one_is_survived() {
        let dead = |leader: &mut ReplicaStatus| leader.followers[0].active = false;
        let (survives, _) = World::new(Durability::Geo).south(dead).said();
        assert!(survives.starts_with("survives: no further node; loss of region home"), "{survives}");
    }

    #[test]
    fn a_backup_of_which_no_further_node_may_die_is_named_and_so_is_one_that_has_no_majority() {
        let confirm = |confirming| move |leader: &mut ReplicaStatus| leader.regions[0].confirming = confirming;
        for (confirming, said) in [
            (3, "survives: any one node; loss of region home, 0 accepted mail lost (by hand). NOT:"),
            (
                2,
                "survives: any one node of home, but no further one of south; loss of region home, 0 accepted mail lost (by hand). \
                 NOT:",
            ),
            (
                1,
                "survives: any one node of home, but no further one of south; loss of region home, 0 accepted mail lost (by hand, \
                 once a majority of the nodes of south runs). NOT:",
            ),
        ] {
            let (survives, _) = World::new(Durability::Geo).south(confirm(confirming)).said();
            assert!(survives.starts_with(said), "{survives}");
        }
    }

    #[test]
    fn while_what_was_answered_by_an_earlier_promise_is_missing_nothing_is_protected() {
        let mut world = World::new(Durability::Geo);
        let (survives, south) = world
            .south(|leader| {
                let mode = Mode::Returning;
                leader.mode = Some(ModeStatus { version: 1, mode, since: UnixMillis(1_795_684_443_000), alone: false });
                leader.regions[0].held = Index(41);
            })
            .said();
        assert_eq!(
            south.sentence,
            "NOT PROTECTED YET: home waits for south again since 2026-11-26T09:14:03Z; what was answered before is being sent, 18 \
             entries"
        );
        assert_eq!(survives, "survives: any one node. NOT: loss of region home");
    }

    #[test]
    fn a_region_that_is_waited_for_again_and_confirms_nothing_defers_mail_and_that_is_said() {
        let mut world = World::new(Durability::Geo);
        world.row.degrade_after_ms = 20_000;
        world.south(|leader| {
            let mode = Mode::Returning;
            leader.mode = Some(ModeStatus { version: 1, mode, since: UnixMillis(1_795_684_443_000), alone: false });
            (leader.regions[0].held, leader.regions[0].heard_ms) = (Index(41), Some(12_000));
            leader.regions[0].unconfirmed_ms = 12_000;
        });
        let said = "18 entries of before are missing there. STOPPED: south has confirmed nothing for 12 s; new mail is deferred \
                    (451), reading goes on; alone from 20 s on";
        assert!(world.said().1.sentence.ends_with(said), "{}", world.said().1.sentence);
    }

    #[test]
    fn where_one_node_alone_opens_mailboxes_its_loss_is_not_survived() {
        let mut world = World::new(Durability::Geo);
        world.locked = [NodeId(2)].into();
        assert!(world.said().0.starts_with("survives: any one node;"), "{}", world.said().0);
        world.locked.insert(NodeId(3));
        assert!(world.said().0.starts_with("survives: no further node;"), "{}", world.said().0);
    }

    #[test]
    fn times_are_rounded_up_and_short_ones_have_a_tenth() {
        for (ms, said) in [(0, "0"), (1, "0.1"), (400, "0.4"), (1_000, "1"), (1_050, "1.1"), (60_000, "60")] {
            assert_eq!(seconds(ms), said, "{ms} ms");
        }
    }
}
