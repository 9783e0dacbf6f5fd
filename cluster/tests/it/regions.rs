//! A backup region: what it holds, what is answered, what its standbys hear.

use mailraft_cluster::low_water::LowWater;
use mailraft_cluster::mode::Mode;
use mailraft_cluster::placement::MemberRow;
use mailraft_cluster::regions::{Durability, RegionSettings, Unconfirmed};
use mailraft_cluster::{
    BarrierOutcome, ChangeOutcome, ChangeRefusal, Decision, Difference, Input, MemberChange, Reader, RegionStatus,
    ReplicaStatus, Role, SlotOutcome,
};
use mailraft_storage::{Index, NodeId, PartitionId, ProposalOutcome, ReplicaId, Verdict};

use crate::network::Network;

const P1: PartitionId = PartitionId(1);
/// The nodes of the backup region.
pub const SOUTH: [NodeId; 3] = [NodeId(4), NodeId(5), NodeId(6)];
/// Ticks of a second.
pub const SECOND: u32 = 40;

/// Two regions that are led, and the leader of partition 1.
pub fn led(durability: Durability) -> (Network, NodeId) {
    let mut network = Network::with_south(3, 3, durability);
    network.until(200, "both groups are led", |n| n.leader(P1).is_some() && n.leader(PartitionId::CONTROL).is_some());
    network.ticks(SECOND);
    let leader = network.leader(P1).unwrap();
    (network, leader)
}

/// Whether a write was carried out.
pub fn is_applied(outcome: Option<ProposalOutcome>) -> bool {
    matches!(outcome, Some(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }))
}

/// After so long without confirmation the home goes on alone.
pub fn degrades(after_ms: u64) -> RegionSettings {
    let unconfirmed = Some(Unconfirmed::Degrade);
    RegionSettings { unconfirmed, degrade_after_ms: Some(after_ms), ..RegionSettings::default() }
}

/// It never does.
pub fn refuses() -> RegionSettings {
    RegionSettings { unconfirmed: Some(Unconfirmed::Refuse), ..RegionSettings::default() }
}

/// How partition 1 is at a node.
pub fn status(network: &Network, node: NodeId) -> ReplicaStatus {
    network.status(node, P1).unwrap()
}

#[test]
fn under_geo_an_answer_waits_for_a_majority_of_the_standbys_and_distance_changes_no_election() {
    let (mut network, leader) = led(Durability::Geo);
    assert!(SOUTH.iter().all(|node| status(&network, *node).role == Role::Learner));
    network.cut_off.extend(SOUTH);
    let request = network.propose(leader, P1, 1, 1);
    network.ticks(SECOND);
    let last = status(&network, leader).last;
    assert_eq!((status(&network, leader).applied, network.proposal(leader, request)), (last, None));
    assert!(status(&network, leader).visible < last);
    network.cut_off.remove(&SOUTH[0]);
    network.ticks(2 * SECOND);
    assert_eq!(status(&network, SOUTH[0]).last, last);
    assert_eq!(network.proposal(leader, request), None, "one of three holds nothing");
    network.cut_off.remove(&SOUTH[1]);
    network.ticks(2 * SECOND);
    assert!(is_applied(network.proposal(leader, request)));
    assert_eq!((status(&network, leader).visible, network.leader(P1)), (last, Some(leader)));
}

#[test]
fn a_replica_that_comes_to_a_home_node_later_leads_as_any_other() {
    let mut network = Network::with_south(4, 3, Durability::Geo);
    network.until(200, "it is led", |n| n.leader(P1).is_some());
    network.ticks(SECOND);
    let placed = network.placed(P1);
    let free = (1..=4).map(NodeId).find(|node| placed.iter().all(|m| m.node != *node)).unwrap();
    let new = MemberRow { replica: ReplicaId(100), node: free, voter: true };
    let leader = network.leader(P1).unwrap();
    network.create(free, P1, new.replica);
    network.ticks(2);
    for change in [MemberChange::AddLearner(new), MemberChange::Promote(new.replica)] {
        network.reconfigure(leader, P1, change);
        network.ticks(2 * SECOND);
    }
    assert_eq!(status(&network, free).role, Role::Follower);
    for other in placed.iter().filter(|m| m.node.0 <= 4 && m.node != leader) {
        network.reconfigure(leader, P1, MemberChange::Demote(other.replica));
        network.ticks(SECOND);
    }
    network.input(leader, Input::HandOver);
    network.until(2 * SECOND, "it leads", |n| n.leader(P1) == Some(free));
    let request = network.propose(free, P1, 1, 1);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(free, request)));
}

#[test]
fn a_standby_hears_of_no_commit_that_its_region_does_not_hold() {
    let (mut network, leader) = led(Durability::Geo);
    let held = status(&network, leader).last;
    network.cut_off.extend([SOUTH[1], SOUTH[2]]);
    for key in 0..5 {
        network.propose(leader, P1, key, u64::from(key));
    }
    network.ticks(3 * SECOND);
    let (home, far) = (status(&network, leader), status(&network, SOUTH[0]));
    assert!(home.commit == home.last && far.last == home.last, "{home:?} {far:?}");
    assert_eq!((far.commit, far.applied), (held, held));
    network.cut_off.clear();
    network.ticks(3 * SECOND);
    assert!(SOUTH.iter().all(|node| status(&network, *node).applied == home.last));
}

#[test]
fn a_lost_backup_stops_writes_and_not_the_reads_of_a_running_owner() {
    let (mut network, leader) = led(Durability::Geo);
    let (term, _) = network.host(leader).leading[&P1];
    network.cut_off.extend(SOUTH);
    let written = network.propose(leader, P1, 1, 1);
    network.ticks(10);
    let (owner, anyone) = (network.read(leader, P1, Reader::Owner(term)), network.read(leader, P1, Reader::Visible));
    network.ticks(10);
    assert!(matches!(network.barrier(leader, owner), Some(BarrierOutcome::Passed { .. })));
    assert_eq!((network.barrier(leader, anyone), network.proposal(leader, written)), (None, None));
    network.cut_off.clear();
    network.ticks(30);
    assert!(matches!(network.barrier(leader, anyone), Some(BarrierOutcome::Passed { .. })));
    assert!(is_applied(network.proposal(leader, written)));
}

#[test]
fn under_region_what_removes_the_last_copy_elsewhere_waits_until_it_is_held() {
    let (mut network, leader) = led(Durability::Region { rpo_max_ms: 60_000 });
    let (term, _) = network.host(leader).leading[&P1];
    network.ticks(2 * SECOND);
    network.cut_off.extend(SOUTH);
    let written = network.propose(leader, P1, 1, 1);
    network.ticks(10);
    assert!(is_applied(network.proposal(leader, written)), "it is answered before it is held");
    let (held, owner) = (network.read(leader, P1, Reader::Held(term)), network.read(leader, P1, Reader::Owner(term)));
    network.ticks(10);
    assert!(matches!(network.barrier(leader, owner), Some(BarrierOutcome::Passed { .. })));
    assert_eq!(network.barrier(leader, held), None);
    network.ticks(2 * SECOND);
    assert_eq!(network.barrier(leader, held), Some(BarrierOutcome::Unavailable), "whoever asks asks again");
    let held = network.read(leader, P1, Reader::Held(term));
    network.cut_off.clear();
    network.ticks(SECOND);
    assert!(matches!(network.barrier(leader, held), Some(BarrierOutcome::Passed { .. })));
}

#[test]
fn owners_of_a_new_leader_start_when_the_terms_first_entry_is_held() {
    let (mut network, old) = led(Durability::Geo);
    let before = network.host(old).leading[&P1].0;
    network.cut_off.extend(SOUTH);
    network.propose(old, P1, 1, 1);
    network.ticks(4);
    network.crash(old, 0);
    network.ticks(2 * SECOND);
    let leads = |n: &Network, node: &NodeId| n.status(*node, P1).is_some_and(|s| s.role == Role::Leader);
    let home = [NodeId(1), NodeId(2), NodeId(3)];
    let new = home.into_iter().find(|node| *node != old && leads(&network, node)).unwrap();
    let applied = status(&network, new);
    assert_eq!((applied.applied, network.leader(P1)), (applied.last, None), "no owner may load what is not visible");
    network.cut_off.clear();
    network.until(2 * SECOND, "its owners start", |n| n.leader(P1) == Some(new));
    assert!(network.host(new).leading[&P1].0 > before);
}

#[test]
fn past_a_time_without_confirmation_writes_are_refused_and_what_is_in_flight_waits_for_its_verdict() {
    let (mut network, leader) = led(Durability::Geo);
    network.cut_off.extend(SOUTH);
    let waits = network.propose(leader, P1, 1, 1);
    network.ticks(4 * SECOND);
    let early = network.propose(leader, P1, 2, 2);
    network.ticks(2 * SECOND);
    assert_eq!((network.proposal(leader, waits), network.proposal(leader, early)), (None, None));
    let refused = network.propose(leader, P1, 3, 3);
    assert_eq!(network.proposal(leader, refused), Some(ProposalOutcome::NotConfirmed));
    assert!(status(&network, leader).unconfirmed);
    network.ticks(120 * SECOND);
    assert_eq!((network.proposal(leader, waits), network.proposal(leader, early)), (None, None), "its owner goes on");
    let slot = network.await_slot(leader, P1, 1);
    network.ticks(SECOND);
    assert_eq!(network.slot(leader, slot), None, "its entry may become visible yet");
    network.cut_off.clear();
    network.ticks(2 * SECOND);
    assert_eq!(network.slot(leader, slot), Some(SlotOutcome::Free));
    assert!(is_applied(network.proposal(leader, waits)) && is_applied(network.proposal(leader, early)));
    assert!(!status(&network, leader).unconfirmed);
    let goes_on = network.propose(leader, P1, 1, 4);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(leader, goes_on)));
}

#[test]
fn no_lead_goes_back_to_where_it_should_be_while_the_other_region_is_silent() {
    let (mut network, first) = led(Durability::Geo);
    network.ticks(5 * SECOND);
    network.crash(first, 0);
    network.until(4 * SECOND, "another leads", |n| n.leader(P1).is_some_and(|leader| leader != first));
    let second = network.leader(P1);
    network.ticks(SECOND);
    network.cut_off.extend(SOUTH);
    network.ticks(3 * SECOND);
    network.start(first);
    network.ticks(20 * SECOND);
    assert_eq!(network.leader(P1), second, "its mailboxes go on being read");
    network.cut_off.clear();
    network.until(20 * SECOND, "it goes back", |n| n.leader(P1) == Some(first));
}

#[test]
fn under_region_answers_run_ahead_for_the_bound() {
    let (mut network, leader) = led(Durability::Region { rpo_max_ms: 1_000 });
    network.cut_off.extend(SOUTH);
    let first = network.propose(leader, P1, 1, 1);
    network.ticks(SECOND / 2);
    let second = network.propose(leader, P1, 2, 2);
    network.settle();
    assert!(is_applied(network.proposal(leader, first)) && is_applied(network.proposal(leader, second)));
    network.ticks(SECOND);
    let late = network.propose(leader, P1, 3, 3);
    network.ticks(SECOND);
    assert_eq!(network.proposal(leader, late), None);
    network.cut_off.clear();
    network.ticks(2 * SECOND);
    assert!(is_applied(network.proposal(leader, late)));
}

#[test]
fn a_leaders_status_says_what_the_other_region_holds_and_for_how_long_it_lacks_something() {
    let (mut network, leader) = led(Durability::Geo);
    let of = |n: &Network| {
        let status = status(n, leader);
        let [south] = <[RegionStatus; 1]>::try_from(status.regions).unwrap();
        assert_eq!((south.region.as_str(), south.in_sync_set, south.standbys), ("south", true, 3));
        assert_eq!(south.unheld_ms, status.unheld_ms, "no other region lacks anything");
        (south.confirming, south.held.0, status.unheld_ms)
    };
    let last = status(&network, leader).last.0;
    assert_eq!(of(&network), (3, last, 0));
    let follower = (1..=3).map(NodeId).find(|node| *node != leader).unwrap();
    assert!(status(&network, follower).regions.is_empty(), "only a leader knows");
    network.cut_off.extend([SOUTH[0], SOUTH[1]]);
    network.propose(leader, P1, 1, 1);
    network.ticks(4 * SECOND);
    let (confirming, held, unheld_ms) = of(&network);
    assert_eq!((confirming, held), (1, last));
    assert!((3_900..=4_000).contains(&unheld_ms), "{unheld_ms} ms");
    network.cut_off.clear();
    network.ticks(2 * SECOND);
    assert_eq!(of(&network), (3, last + 1, 0));
}

#[test]
fn settings_change_while_it_runs_and_every_replica_goes_by_them() {
    let (mut network, leader) = led(Durability::Geo);
    let promises = |durability| RegionSettings { durability: Some(durability), ..RegionSettings::default() };
    network.set_regions(promises(Durability::Region { rpo_max_ms: 60_000 }));
    network.ticks(SECOND);
    network.cut_off.extend(SOUTH);
    let ahead = network.propose(leader, P1, 1, 1);
    network.ticks(4);
    assert!(is_applied(network.proposal(leader, ahead)), "what is answered may be ahead now");
    network.cut_off.clear();
    network.ticks(2 * SECOND);
    network.set_regions(promises(Durability::Geo));
    network.ticks(SECOND);
    network.cut_off.extend(SOUTH);
    let waits = network.propose(leader, P1, 1, 2);
    network.ticks(SECOND);
    assert_eq!(network.proposal(leader, waits), None, "and not again, as before");
}

#[test]
fn a_leaders_status_says_how_far_away_a_region_is_and_each_answer_how_long_it_waited() {
    let (mut network, leader) = led(Durability::Geo);
    network.propose(leader, P1, 2, 1);
    network.ticks(1);
    network.waited.clear();
    network.cut_off.extend(SOUTH);
    let request = network.propose(leader, P1, 1, 1);
    network.ticks(3 * SECOND);
    let waits = status(&network, leader);
    assert_eq!((waits.answers.waiting, network.waited.len()), (1, 0));
    let heard_ms = waits.regions[0].heard_ms.unwrap();
    assert!((2_900..=4_000).contains(&heard_ms), "{heard_ms} ms");
    network.cut_off.clear();
    network.ticks(2 * SECOND);
    assert!(is_applied(network.proposal(leader, request)));
    let told = status(&network, leader);
    let [waited] = network.waited[..] else { panic!("{:?}", network.waited) };
    assert_eq!(told.answers.waiting, 0);
    assert!((2_900..=5_000).contains(&waited.as_millis()), "{waited:?}");
    assert!(told.regions[0].heard_ms.unwrap() <= 1_100 && told.regions[0].round_trip_ms == Some(0), "{told:?}");
}

#[test]
fn a_part_of_a_body_waits_for_no_other_region() {
    let (mut network, leader) = led(Durability::Geo);
    network.cut_off.extend(SOUTH);
    let part = network.propose_chunk(leader, P1);
    network.settle();
    assert!(is_applied(network.proposal(leader, part)));
}

#[test]
fn an_idle_standby_hears_a_heartbeat_a_second_and_takes_part_in_no_round_of_reads() {
    let (mut network, leader) = led(Durability::Geo);
    let (term, _) = network.host(leader).leading[&P1];
    network.heartbeats.clear();
    for _ in 0..10 {
        network.read(leader, P1, Reader::Owner(term));
        network.ticks(SECOND);
    }
    for node in SOUTH {
        assert!((9..=11).contains(&network.heartbeats[&node]), "{:?}", network.heartbeats);
        let active = status(&network, leader).followers.into_iter().find(|f| f.node == node).unwrap().active;
        assert!(active, "a standby that answers once a second is active");
    }
    let home = network.heartbeats.iter().filter(|(node, _)| node.0 <= 3 && **node != leader);
    assert!(home.into_iter().all(|(_, count)| *count >= 200), "{:?}", network.heartbeats);
}

#[test]
fn members_in_another_region_do_not_change() {
    let (mut network, leader) = led(Durability::Geo);
    let standby = network.placed(P1).into_iter().find(|m| m.node == SOUTH[0]).unwrap().replica;
    let new = MemberRow { replica: ReplicaId(100), node: NodeId(9), voter: false };
    for (change, node) in [
        (MemberChange::Promote(standby), SOUTH[0]),
        (MemberChange::Remove(standby), SOUTH[0]),
        (MemberChange::AddLearner(new), NodeId(9)),
    ] {
        let request = network.reconfigure(leader, P1, change);
        network.settle();
        let Some(Decision::Change(ChangeOutcome::Refused { why, .. })) = network.host(leader).decided.get(&request)
        else {
            panic!("{change:?} is not refused");
        };
        assert_eq!(*why, ChangeRefusal::OtherRegion(node), "{change:?}");
    }
}

#[test]
fn a_standby_that_finds_its_own_rows_wrong_says_so_and_holds_nothing() {
    let (mut network, leader) = led(Durability::Geo);
    let wrong = network.replica(SOUTH[0], P1);
    network.input(SOUTH[0], Input::Damaged { replica: wrong });
    network.ticks(3 * SECOND);
    let said = network.differ.iter().filter(|(node, other, _)| *node == leader && *other == wrong);
    assert_eq!(said.map(|(.., difference)| *difference).collect::<Vec<_>>(), [Difference::OtherIsWrong], "once");
    let south = &status(&network, leader).regions[0];
    assert_eq!((south.disagreeing, south.confirming, south.standbys), (1, 2, 3));
    // The other two are a majority, and one of them is none.
    let request = network.propose(leader, P1, 1, 1);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(leader, request)));
    network.cut_off.insert(SOUTH[1]);
    let waits = network.propose(leader, P1, 2, 2);
    network.ticks(SECOND);
    assert_eq!(network.proposal(leader, waits), None);
    assert!((1..=3).all(|node| network.status(NodeId(node), P1).is_some()), "it stops nobody at home");
}

#[test]
fn a_leader_knows_when_the_rows_of_the_standbys_were_compared_last_whoever_led_before() {
    let (mut network, first) = led(Durability::Geo);
    let compared_ms = |n: &Network, node| status(n, node).regions[0].compared_ms;
    network.ticks(10 * SECOND);
    assert!(compared_ms(&network, first).is_some_and(|ms| ms <= 1_100), "{:?}", compared_ms(&network, first));
    network.crash(first, 0);
    network.until(4 * SECOND, "another leads", |n| n.leader(P1).is_some_and(|leader| leader != first));
    let second = network.leader(P1).unwrap();
    network.ticks(2 * SECOND);
    assert!(compared_ms(&network, second).is_some_and(|ms| ms <= 2_100), "{:?}", compared_ms(&network, second));
    // Of rows that differ it is not said, nor of who says nothing.
    network.wrong_rows = SOUTH.map(|node| network.replica(node, P1)).into();
    network.propose(second, P1, 1, 1);
    network.ticks(4 * SECOND);
    assert_eq!(compared_ms(&network, second), None);
}

#[test]
fn a_standby_that_differs_from_its_home_holds_nothing_and_stops_nobody_there() {
    let (mut network, leader) = led(Durability::Geo);
    let wrong = network.placed(P1).into_iter().find(|m| m.node == SOUTH[0]).unwrap().replica;
    network.wrong_rows.insert(wrong);
    network.propose(leader, P1, 1, 1);
    network.ticks(3 * SECOND);
    assert!(network.differ.contains(&(leader, wrong, Difference::OtherIsWrong)), "{:?}", network.differ);
    let south = &status(&network, leader).regions[0];
    assert_eq!((south.disagreeing, south.standbys), (1, 3));
    assert!((1..=3).map(NodeId).all(|node| network.is_up(node)));
    // Two are left, and one of them goes.
    network.cut_off.insert(SOUTH[1]);
    let request = network.propose(leader, P1, 2, 2);
    network.ticks(2 * SECOND);
    assert_eq!(network.proposal(leader, request), None, "what it has counts no more");
    network.cut_off.clear();
    network.ticks(2 * SECOND);
    assert!(is_applied(network.proposal(leader, request)));
}

#[test]
fn a_standby_alone_in_its_region_holds_what_it_has() {
    let mut network = Network::with_south(1, 1, Durability::Geo);
    network.until(200, "it leads", |n| n.leader(P1).is_some());
    let request = network.propose(NodeId(1), P1, 1, 1);
    network.ticks(2);
    assert!(is_applied(network.proposal(NodeId(1), request)));
    network.cut_off.insert(NodeId(2));
    let waits = network.propose(NodeId(1), P1, 1, 2);
    network.ticks(SECOND);
    assert_eq!(network.proposal(NodeId(1), waits), None);
}

#[test]
fn a_read_barrier_of_the_control_group_passes_everywhere_once_what_is_committed_is_visible() {
    let (mut network, _) = led(Durability::Geo);
    let control = network.leader(PartitionId::CONTROL).unwrap();
    let follower = (1..=3).map(NodeId).find(|node| *node != control).unwrap();
    for node in [control, follower, SOUTH[2]] {
        let read = network.read(node, PartitionId::CONTROL, Reader::Visible);
        network.ticks(4);
        assert!(matches!(network.barrier(node, read), Some(BarrierOutcome::Passed { .. })), "at node {node}");
    }
    network.cut_off.extend(SOUTH);
    network.propose(control, PartitionId::CONTROL, 1, 1);
    network.settle();
    let read = network.read(follower, PartitionId::CONTROL, Reader::Visible);
    let yes = network.read(follower, PartitionId::CONTROL, Reader::Applied);
    network.ticks(SECOND);
    assert_eq!(network.barrier(follower, read), None);
    assert!(matches!(network.barrier(follower, yes), Some(BarrierOutcome::Passed { .. })), "a region stops no login");
    network.cut_off.clear();
    // Late, but within what a question waits.
    network.ticks(15);
    assert!(matches!(network.barrier(follower, read), Some(BarrierOutcome::Passed { .. })));
}

/// South is away, and keeps standbys of a home whose own members' logs are short. What is written meanwhile, and whether
/// south needs snapshots to catch up.
fn written_while_south_is_away(region_log_keep_bytes: u64, bytes: usize) -> (Network, NodeId) {
    let (mut network, _) = led(Durability::Region { rpo_max_ms: 3_600_000 });
    (network.log_keep, network.region_log_keep_bytes) = (4, region_log_keep_bytes);
    for node in (1..=3).map(NodeId) {
        network.crash(node, 0);
        network.start(node);
    }
    network.until(400, "it is led", |n| n.leader(P1).is_some());
    network.ticks(SECOND);
    network.cut_off.extend(SOUTH);
    let leader = network.leader(P1).unwrap();
    for key in 0..2 {
        for number in 0..80 {
            network.propose_value(leader, P1, number, key, vec![number; bytes]);
        }
        network.ticks(10);
        (1..=6).map(NodeId).for_each(|node| network.flush(node));
    }
    (network, leader)
}

fn snapshots_after_an_absence(region_log_keep_bytes: u64) -> u64 {
    let (mut network, leader) = written_while_south_is_away(region_log_keep_bytes, 30_000);
    let home = status(&network, leader);
    assert!(home.last.0 > 160 && home.visible == home.last, "{home:?}");
    network.cut_off.clear();
    let has_all = |n: &Network| SOUTH.iter().all(|node| status(n, *node).applied == home.last);
    network.until(10 * SECOND, "south has it all", has_all);
    network.installed
}

#[test]
fn the_log_is_kept_for_another_region_up_to_a_bound_of_its_own() {
    assert_eq!(snapshots_after_an_absence(1 << 30), 0);
    assert_eq!(snapshots_after_an_absence(1 << 20), 3);
}

#[test]
fn a_standby_whose_snapshot_its_region_does_not_hold_knows_it_through_a_restart() {
    let (mut network, leader) = written_while_south_is_away(1 << 20, 30_000);
    let home = status(&network, leader);
    network.cut_off.remove(&SOUTH[0]);
    network.until(10 * SECOND, "it has a snapshot", |n| status(n, SOUTH[0]).applied > Index(80));
    network.ticks(3 * SECOND);
    let far = status(&network, SOUTH[0]);
    assert!(far.ahead.is_some_and(|ahead| ahead <= far.applied), "{far:?}");
    network.crash(SOUTH[0], 0);
    network.start(SOUTH[0]);
    network.ticks(3 * SECOND);
    assert_eq!(status(&network, SOUTH[0]).ahead, far.ahead);
    network.cut_off.clear();
    let has_all = |n: &Network| SOUTH.iter().all(|node| status(n, *node).applied == home.last);
    network.until(10 * SECOND, "south has it all", has_all);
    network.until(3 * SECOND, "all hear it", |n| SOUTH.iter().all(|node| status(n, *node).ahead.is_none()));
    network.propose(leader, P1, 1, 1);
    network.ticks(2 * SECOND);
    for node in SOUTH {
        network.crash(node, 0);
        network.start(node);
        assert_eq!(status(&network, node).ahead, None, "that is durable with what came later");
    }
}

#[test]
fn every_replica_at_home_keeps_what_another_region_does_not_hold_and_its_status_says_so() {
    let (network, _) = written_while_south_is_away(1 << 30, 10);
    let held = status(&network, SOUTH[0]).last;
    for node in (1..=3).map(NodeId) {
        let status = status(&network, node);
        assert_eq!(status.log_held_by, LowWater::Regions, "node {node}: {status:?}");
        assert!(status.log_held_at <= held && status.first <= held, "node {node}: {status:?}, held {held}");
    }
}

/// South's nodes are cut off, and after a time the home goes on alone.
fn alone() -> (Network, NodeId) {
    let (mut network, leader) = led(Durability::Geo);
    network.set_regions(degrades(8_000));
    network.ticks(2 * SECOND);
    network.cut_off.extend(SOUTH);
    network.propose(leader, P1, 1, 1);
    (network, leader)
}

fn mode(network: &Network, node: NodeId) -> (Mode, bool) {
    let mode = status(network, node).mode.unwrap();
    (mode.mode, mode.alone)
}

#[test]
fn after_its_time_without_confirmation_the_home_goes_on_alone_and_back_when_all_is_held() {
    let (mut network, leader) = alone();
    let waits = network.propose(leader, P1, 2, 2);
    network.ticks(7 * SECOND);
    assert_eq!((network.proposal(leader, waits), mode(&network, leader)), (None, (Mode::Whole, false)));
    let refused = network.propose(leader, P1, 3, 3);
    assert_eq!(network.proposal(leader, refused), Some(ProposalOutcome::NotConfirmed));
    network.ticks(3 * SECOND);
    assert!(is_applied(network.proposal(leader, waits)));
    assert_eq!(mode(&network, leader), (Mode::Alone, true));
    let goes_on = network.propose(leader, P1, 3, 4);
    network.settle();
    assert!(is_applied(network.proposal(leader, goes_on)));
    assert!(status(&network, leader).answers.alone >= 3);
    let read = network.read(leader, PartitionId::CONTROL, Reader::Visible);
    network.ticks(8);
    assert!(matches!(network.barrier(leader, read), Some(BarrierOutcome::Passed { .. })));
    network.cut_off.clear();
    network.until(20 * SECOND, "it is whole", |n| mode(n, leader) == (Mode::Whole, false));
    let home = status(&network, leader);
    assert_eq!(home.regions[0].held, home.last, "all that was answered alone is held");
    network.cut_off.extend(SOUTH);
    let waits = network.propose(leader, P1, 5, 5);
    network.ticks(SECOND);
    assert_eq!(network.proposal(leader, waits), None);
}

#[test]
fn the_home_goes_alone_when_the_last_confirmation_is_as_old_as_is_set_whatever_was_written() {
    for written in [false, true] {
        let (mut network, leader) = led(Durability::Geo);
        network.set_regions(degrades(20_000));
        network.ticks(2 * SECOND);
        let said_ms = |n: &Network| status(n, leader).regions[0].unconfirmed_ms;
        assert_eq!(said_ms(&network), 0);
        network.cut_off.extend(SOUTH);
        network.ticks(15 * SECOND);
        let refused = network.propose(leader, P1, 1, 1);
        assert_eq!(
            network.proposal(leader, refused),
            Some(ProposalOutcome::NotConfirmed),
            "nobody has confirmed for 15 s"
        );
        assert!((14_900..=16_100).contains(&said_ms(&network)), "{} ms", said_ms(&network));
        if written {
            network.cut_off.clear();
            network.ticks(2 * SECOND);
            network.cut_off.extend(SOUTH);
            network.propose(leader, P1, 1, 2);
        }
        let mut before_ms = 0;
        network.until(20 * SECOND, "it is alone", |n| {
            mode(n, leader) == (Mode::Alone, true) || {
                assert!(said_ms(n) <= 20_200, "it is to be alone from 20 s on, and {} ms have passed", said_ms(n));
                false
            }
        });
        before_ms = said_ms(&network).max(before_ms);
        assert!((20_000..=20_300).contains(&before_ms), "alone after {before_ms} ms");
    }
}

#[test]
fn while_a_leader_stood_still_nobody_was_asked_to_confirm() {
    let (mut network, leader) = led(Durability::Geo);
    network.set_regions(degrades(8_000));
    network.ticks(2 * SECOND);
    network.propose(leader, P1, 1, 1);
    for host in &mut network.hosts {
        host.env.now += std::time::Duration::from_secs(3_600);
    }
    network.ticks(2 * SECOND);
    assert_eq!(mode(&network, leader), (Mode::Whole, false));
}

#[test]
fn who_comes_to_lead_while_the_home_is_alone_answers_alone_too() {
    let (mut network, old) = alone();
    network.ticks(10 * SECOND);
    assert_eq!(mode(&network, old), (Mode::Alone, true));
    network.crash(old, 0);
    network.until(5 * SECOND, "another leads", |n| n.leader(P1).is_some_and(|node| node != old));
    let new = network.leader(P1).unwrap();
    let request = network.propose(new, P1, 7, 7);
    network.ticks(2);
    assert!(is_applied(network.proposal(new, request)));
    // Whoever was away hears that answers wait again, before it leads.
    network.cut_off.clear();
    network.start(old);
    network.until(30 * SECOND, "it is whole", |n| n.leader(P1).is_some_and(|l| mode(n, l) == (Mode::Whole, false)));
}

#[test]
fn a_leader_that_changes_while_nobody_confirms_goes_alone_too() {
    let (mut network, old) = alone();
    network.ticks(SECOND);
    network.crash(old, 0);
    network.until(30 * SECOND, "another answers alone", |n| {
        n.leader(P1).is_some_and(|node| node != old && mode(n, node) == (Mode::Alone, true))
    });
}

#[test]
fn while_the_home_is_alone_a_lead_goes_back_to_where_it_should_be() {
    let (mut network, first) = led(Durability::Geo);
    network.set_regions(degrades(2_000));
    network.ticks(5 * SECOND);
    network.crash(first, 0);
    network.until(4 * SECOND, "another leads", |n| n.leader(P1).is_some_and(|leader| leader != first));
    network.cut_off.extend(SOUTH);
    network.start(first);
    network.until(30 * SECOND, "it goes back", |n| n.leader(P1) == Some(first));
    assert_eq!(mode(&network, first), (Mode::Alone, true));
}

#[test]
fn under_refuse_the_home_never_goes_alone_and_stops_being_so() {
    let (mut network, leader) = alone();
    network.ticks(10 * SECOND);
    assert_eq!(mode(&network, leader), (Mode::Alone, true));
    network.set_regions(refuses());
    network.ticks(2 * SECOND);
    assert_eq!(mode(&network, leader), (Mode::Returning, false));
    let waits = network.propose(leader, P1, 9, 9);
    network.ticks(30 * SECOND);
    assert!(!is_applied(network.proposal(leader, waits)));
    assert_eq!(mode(&network, leader), (Mode::Returning, false));
}

#[test]
fn the_home_is_not_whole_before_the_entry_of_every_partition_is_held() {
    let (mut network, leader) = alone();
    network.ticks(10 * SECOND);
    network.deaf.extend(SOUTH.map(|node| (node, P1)));
    network.cut_off.clear();
    network.ticks(5 * SECOND);
    assert_eq!(mode(&network, leader), (Mode::Alone, true), "south lacks what was answered");
    network.set_regions(refuses());
    network.ticks(10 * SECOND);
    assert_eq!(mode(&network, leader), (Mode::Returning, false));
    network.deaf.clear();
    network.until(5 * SECOND, "it is whole", |n| mode(n, leader) == (Mode::Whole, false));
    let home = status(&network, leader);
    assert_eq!(home.regions[0].held, home.last);
}

#[test]
fn what_is_alone_is_alone_after_a_restart_of_every_node() {
    let (mut network, _) = alone();
    network.ticks(10 * SECOND);
    for node in (1..=3).map(NodeId) {
        network.crash(node, 0);
        network.start(node);
    }
    network.until(10 * SECOND, "owners start", |n| n.leader(P1).is_some());
    let leader = network.leader(P1).unwrap();
    assert_eq!(mode(&network, leader), (Mode::Alone, true));
}

/// A row of the control group is committed, and applied everywhere at home, but no standby hears of it.
fn control_row_is_not_held(network: &mut Network) {
    network.deaf.extend(SOUTH.map(|node| (node, PartitionId::CONTROL)));
    let control = network.leader(PartitionId::CONTROL).unwrap();
    network.propose(control, PartitionId::CONTROL, 1, 1);
    network.ticks(10);
    let of = |node: u64| network.status(NodeId(node), PartitionId::CONTROL).unwrap();
    let last = of(control.0).last;
    assert!((1..=3).all(|node| of(node).applied == last && of(node).visible < last));
}

#[test]
fn no_mail_is_answered_before_what_its_node_knew_of_the_control_group_is_visible() {
    let (mut network, leader) = led(Durability::Geo);
    let before = network.propose(leader, P1, 1, 1);
    network.ticks(4);
    control_row_is_not_held(&mut network);
    let after = network.propose(leader, P1, 2, 2);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(leader, before)));
    let last = status(&network, leader).last;
    assert!(SOUTH.iter().all(|node| status(&network, *node).last == last), "south holds the mail itself");
    assert_eq!(network.proposal(leader, after), None);
    network.deaf.clear();
    network.ticks(2 * SECOND);
    assert!(is_applied(network.proposal(leader, after)));
}

#[test]
fn after_a_restart_nothing_is_shown_that_may_rest_on_what_the_control_group_could_lose() {
    let (mut network, _) = led(Durability::Geo);
    control_row_is_not_held(&mut network);
    for node in (1..=3).map(NodeId) {
        network.crash(node, 0);
        network.start(node);
    }
    network.ticks(5 * SECOND);
    let leader = (1..=3).map(NodeId).find(|node| status(&network, *node).role == Role::Leader).unwrap();
    let found = status(&network, leader);
    assert!(SOUTH.iter().all(|node| status(&network, *node).last == found.last) && found.applied == found.last);
    assert_eq!((network.leader(P1), found.visible), (None, Index(0)));
    network.deaf.clear();
    network.until(3 * SECOND, "owners start", |n| n.leader(P1).is_some());
}
