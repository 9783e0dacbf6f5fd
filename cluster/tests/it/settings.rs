//! Other settings of regions, while the region that they may be about is away.

use mailraft_cluster::low_water::LowWater;
use mailraft_cluster::mode::{Mode, Unheld};
use mailraft_cluster::regions::{
    Durability, RegionName, RegionSettings, RegionsRow, SettingsRefusal, SyncSetChange, Unconfirmed,
};
use mailraft_cluster::{Decision, Input, RequestId, Role, SettingsOutcome};
use mailraft_storage::{CommandId, MailboxId, NodeId, PartitionId, RowBatch, RowKey, Table, UnixMillis};

use crate::network::Network;
use crate::regions::{SECOND, SOUTH, degrades, is_applied, led, refuses, status};

const P1: PartitionId = PartitionId(1);
const CONTROL: PartitionId = PartitionId::CONTROL;

impl Network {
    /// Changes settings of regions through the control group's leader, whether its owners have started or not.
    pub fn set_regions(&mut self, settings: RegionSettings) -> (NodeId, RequestId) {
        let id = CommandId(u128::from(self.next_request().0).to_be_bytes());
        self.set_regions_as(id, settings)
    }

    /// The same, under this id.
    pub fn set_regions_as(&mut self, id: CommandId, settings: RegionSettings) -> (NodeId, RequestId) {
        let leader = self.raft_leader(PartitionId::CONTROL).unwrap();
        (leader, self.set_regions_at(leader, id, settings))
    }

    /// Sets the clock of a node.
    fn set_clock(&mut self, node: NodeId, to: impl Fn(u64) -> u64) {
        let clock = &mut self.hosts.iter_mut().find(|host| host.id == node).unwrap().env.wall;
        *clock = UnixMillis(to(clock.0));
    }

    /// The same, at this node.
    pub fn set_regions_at(&mut self, node: NodeId, id: CommandId, settings: RegionSettings) -> RequestId {
        let request = self.next_request();
        self.input(node, Input::SetRegions { request, id, settings });
        request
    }

    /// What became of that, if it is decided.
    pub fn settings(&self, (node, request): (NodeId, RequestId)) -> Option<SettingsOutcome> {
        match self.host(node).decided.get(&request)? {
            Decision::Settings(outcome) => Some(outcome.clone()),
            other => panic!("settings are answered with {other:?}"),
        }
    }

    /// Who leads a partition as Raft goes, of those that run.
    pub fn raft_leader(&self, partition: PartitionId) -> Option<NodeId> {
        let nodes: Vec<NodeId> = self.hosts.iter().map(|host| host.id).collect();
        let led = nodes.into_iter().filter_map(|node| Some((node, self.status(node, partition)?)));
        let led = led.filter(|(_, status)| status.role == Role::Leader);
        led.max_by_key(|(_, status)| status.term).map(|(node, _)| node)
    }

    /// Proposes a change of a partition's own rows, as the directory does.
    pub fn propose_own(&mut self, node: NodeId, partition: PartitionId, key: u64) -> RequestId {
        let mut batch = RowBatch::default();
        batch.put(RowKey::new(MailboxId::PARTITION, Table::Places, key.to_be_bytes()), key.to_be_bytes().to_vec());
        self.propose_rows(node, partition, MailboxId::PARTITION, batch)
    }
}

fn is_changed(outcome: Option<&SettingsOutcome>) -> bool {
    matches!(outcome, Some(SettingsOutcome::Changed { .. }))
}

fn sync_set(change: fn(RegionName) -> SyncSetChange, region: &str) -> RegionSettings {
    RegionSettings { sync_set: Some(change(RegionName(region.into()))), ..RegionSettings::default() }
}

fn promises(durability: Durability) -> RegionSettings {
    RegionSettings { durability: Some(durability), ..RegionSettings::default() }
}

/// Two regions under `refuse`, the other one away, and a change of the directory that waits for it. Gives the control
/// group's leader.
fn refusing_without_south() -> (Network, NodeId) {
    let (mut network, _) = led(Durability::Geo);
    network.set_regions(refuses());
    network.ticks(2 * SECOND);
    network.cut_off.extend(SOUTH);
    let control = network.leader(CONTROL).unwrap();
    let waits = network.propose_own(control, CONTROL, 1);
    network.ticks(10 * SECOND);
    assert_eq!(network.proposal(control, waits), None);
    (network, control)
}

/// The row about regions at a node.
fn row(network: &Network, node: NodeId) -> RegionsRow {
    network.regions(node).row().clone()
}

#[test]
fn who_has_lost_the_other_region_changes_settings_whatever_waits_for_it() {
    let (mut network, control) = refusing_without_south();
    let asked = network.set_regions(degrades(8_000));
    network.ticks(4);
    assert!(is_changed(network.settings(asked).as_ref()), "{:?}", network.settings(asked));
    assert!((1..=3).all(|node| row(&network, NodeId(node)).unconfirmed == Unconfirmed::Degrade));
    network.until(2 * SECOND, "the home goes on alone", |n| {
        status(n, control).mode.is_none_or(|mode| mode.mode == Mode::Alone)
    });
    network.ticks(SECOND);
    let leader = network.leader(P1).unwrap();
    let answered = network.propose(leader, P1, 1, 1);
    network.ticks(4);
    assert!(is_applied(network.proposal(leader, answered)));
}

#[test]
fn also_where_the_control_groups_leader_died_and_its_successors_owners_wait_for_that_region() {
    let (mut network, dead) = refusing_without_south();
    network.crash(dead, 0);
    network.ticks(4 * SECOND);
    let control = network.raft_leader(CONTROL).unwrap();
    assert_eq!(network.leader(CONTROL), None, "no owner may load what is not visible");
    let asked = network.set_regions(degrades(8_000));
    network.ticks(4);
    assert!(is_changed(network.settings(asked).as_ref()), "{:?}", network.settings(asked));
    network.until(10 * SECOND, "the home goes on alone and its owners start", |n| {
        n.leader(CONTROL) == Some(control) && n.leader(P1).is_some()
    });
    let leader = network.leader(P1).unwrap();
    let answered = network.propose(leader, P1, 1, 1);
    network.ticks(4);
    assert!(is_applied(network.proposal(leader, answered)));
    // South comes back: it hears what was set, and everything that was answered.
    network.cut_off.clear();
    network.until(30 * SECOND, "it is whole", |n| {
        status(n, leader).mode.is_some_and(|mode| mode.mode == Mode::Whole && !mode.alone)
    });
    assert!(SOUTH.iter().all(|node| row(&network, *node).unconfirmed == Unconfirmed::Degrade));
}

#[test]
fn two_changes_at_once_lose_nothing_of_each_other_and_each_is_made_once() {
    let (mut network, _) = refusing_without_south();
    let id = |n| CommandId([n; 16]);
    let first = network.set_regions_as(id(1), degrades(8_000));
    let second = network.set_regions_as(id(2), promises(Durability::Region { rpo_max_ms: 500 }));
    let again = network.set_regions_as(id(1), degrades(8_000));
    let other = network.set_regions_as(id(1), refuses());
    assert_eq!(network.settings(other), Some(SettingsOutcome::Refused(SettingsRefusal::IdIsTaken)));
    network.ticks(4);
    let done = network.settings(first);
    assert!(is_changed(done.as_ref()) && is_changed(network.settings(second).as_ref()));
    assert_eq!(network.settings(again), done);
    let changed = row(&network, NodeId(1));
    assert_eq!((changed.unconfirmed, changed.degrade_after_ms), (Unconfirmed::Degrade, 8_000));
    assert_eq!(changed.durability, Durability::Region { rpo_max_ms: 500 });
    // Long after, and at another leader, it is still known to be made; what came after it stays.
    network.set_regions_as(id(3), refuses());
    network.ticks(4);
    let dead = network.raft_leader(CONTROL).unwrap();
    network.crash(dead, 0);
    network.ticks(4 * SECOND);
    let late = network.set_regions_as(id(1), degrades(8_000));
    let other = network.set_regions_as(id(2), refuses());
    network.ticks(4);
    assert_eq!(network.settings(late), done);
    assert_eq!(network.settings(other), Some(SettingsOutcome::Refused(SettingsRefusal::IdIsTaken)));
    let live = network.raft_leader(CONTROL).unwrap();
    assert_eq!(row(&network, live).unconfirmed, Unconfirmed::Refuse);
    assert_eq!(network.regions(live).changes().iter().count(), 4);
}

#[test]
fn who_leads_no_more_changes_nothing() {
    let (mut network, _) = led(Durability::Geo);
    let old = network.leader(CONTROL).unwrap();
    network.cut_off.insert(old);
    let asked = (old, network.set_regions_at(old, CommandId([1; 16]), degrades(8_000)));
    network.ticks(4 * SECOND);
    assert_eq!(network.settings(asked), Some(SettingsOutcome::Unknown));
    network.cut_off.clear();
    network.ticks(4 * SECOND);
    assert!((1..=6).all(|node| row(&network, NodeId(node)).unconfirmed == Unconfirmed::Refuse));
    let follower = (1..=3).map(NodeId).find(|node| network.raft_leader(CONTROL) != Some(*node)).unwrap();
    let asked = (follower, network.set_regions_at(follower, CommandId([1; 16]), degrades(8_000)));
    let leader = network.raft_leader(CONTROL);
    assert_eq!(network.settings(asked), Some(SettingsOutcome::NotLeader { leader }));
    let standby = (SOUTH[0], network.set_regions_at(SOUTH[0], CommandId([1; 16]), degrades(8_000)));
    assert_eq!(network.settings(standby), Some(SettingsOutcome::NotLeader { leader }));
}

#[test]
fn a_region_that_is_lost_is_taken_out_and_nothing_waits_for_it_and_it_comes_back_once_it_has_everything() {
    let (mut network, _) = refusing_without_south();
    let asked = network.set_regions(sync_set(SyncSetChange::Remove, "south"));
    network.ticks(SECOND);
    assert!(is_changed(network.settings(asked).as_ref()), "{:?}", network.settings(asked));
    let leader = network.leader(P1).unwrap();
    for key in 0..200 {
        let answered = network.propose(leader, P1, 1, key);
        network.ticks(2);
        assert!(is_applied(network.proposal(leader, answered)), "write {key}");
    }
    network.ticks(20 * SECOND);
    let home = status(&network, leader);
    assert_ne!(home.log_held_by, LowWater::Regions, "{home:?}");
    let south = &home.regions[0];
    assert!(!south.in_sync_set && south.held < home.last && home.unheld_ms == 0 && !home.unconfirmed, "{home:?}");
    assert_eq!(home.mode.map(|mode| mode.mode), Some(Mode::Whole), "it is no more alone than a home without backup");
    let again = network.set_regions(sync_set(SyncSetChange::Remove, "south"));
    network.ticks(4);
    assert!(is_changed(network.settings(again).as_ref()));

    // It comes back, is told, and nobody waits for it.
    network.cut_off.clear();
    network.ticks(5 * SECOND);
    assert!(SOUTH.iter().all(|node| row(&network, *node).sync_set.is_empty()));
    network.cut_off.extend(SOUTH);
    let answered = network.propose(leader, P1, 1, 201);
    network.ticks(4);
    assert!(is_applied(network.proposal(leader, answered)));
    let refused = network.set_regions(sync_set(SyncSetChange::Add, "south"));
    assert!(matches!(network.settings(refused), Some(SettingsOutcome::Refused(SettingsRefusal::BadSettings(_)))));
    network.set_regions(degrades(8_000));
    network.ticks(4);
    let added = network.set_regions(sync_set(SyncSetChange::Add, "south"));
    network.ticks(SECOND);
    assert!(is_changed(network.settings(added).as_ref()));
    let is =
        |n: &Network, mode| status(n, leader).mode.is_some_and(|m| m.mode == mode && m.alone == (mode == Mode::Alone));
    network.ticks(10 * SECOND);
    assert!(is(&network, Mode::Alone), "it lacks what was answered without it");
    let answered = network.propose(leader, P1, 1, 202);
    network.ticks(4);
    assert!(is_applied(network.proposal(leader, answered)));
    network.cut_off.clear();
    network.until(30 * SECOND, "it is whole", |n| is(n, Mode::Whole));
    let home = status(&network, leader);
    assert!(home.regions[0].held >= home.last && home.regions[0].in_sync_set, "{home:?}");
    network.cut_off.extend(SOUTH);
    let waits = network.propose(leader, P1, 1, 203);
    network.ticks(SECOND);
    assert_eq!(network.proposal(leader, waits), None);
}

#[test]
fn what_can_not_be_is_refused() {
    let (mut network, _) = led(Durability::Geo);
    for (change, region, why) in [
        (SyncSetChange::Remove as fn(RegionName) -> SyncSetChange, "home", "home region"),
        (SyncSetChange::Remove, "north", "there are home, south"),
        (SyncSetChange::Add, "north", "there is no region north"),
    ] {
        let asked = network.set_regions(sync_set(change, region));
        match network.settings(asked) {
            Some(SettingsOutcome::Refused(SettingsRefusal::BadSettings(said))) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    let asked = network.set_regions(degrades(1));
    match network.settings(asked) {
        Some(SettingsOutcome::Refused(SettingsRefusal::BadSettings(why))) => assert!(why.contains("1 ms"), "{why}"),
        other => panic!("{other:?}"),
    }
    let mut network = Network::new(3, 3);
    network.until(200, "it is led", |n| n.leader(CONTROL).is_some());
    let asked = network.set_regions(refuses());
    assert_eq!(network.settings(asked), Some(SettingsOutcome::Refused(SettingsRefusal::OneRegion)));
}

#[test]
fn so_many_may_wait_for_changes_and_no_more() {
    let (mut network, _) = led(Durability::Geo);
    let control = network.leader(CONTROL).unwrap();
    for other in (1..=6).map(NodeId).filter(|node| *node != control) {
        network.cut_off.insert(other);
    }
    let asked: Vec<_> =
        (0..65).map(|n| (control, network.set_regions_at(control, CommandId([n; 16]), refuses()))).collect();
    assert!(asked[..64].iter().all(|asked| network.settings(*asked).is_none()));
    assert_eq!(network.settings(asked[64]), Some(SettingsOutcome::Overloaded));
}

/// A home that may run ahead by a second has answered a write that south lacks, and then waited for five. Until when all was held,
/// by the clocks there.
fn answered_ahead_and_waited(settings: RegionSettings) -> (Network, u64) {
    let (mut network, leader) = led(Durability::Region { rpo_max_ms: 1_000 });
    network.set_regions(settings);
    network.ticks(2 * SECOND);
    let held_ms = answers_ahead_and_waits(&mut network, leader);
    (network, held_ms)
}

fn answers_ahead_and_waits(network: &mut Network, leader: NodeId) -> u64 {
    network.cut_off.extend(SOUTH);
    let held_ms = network.host(leader).env.wall.0;
    let ahead = network.propose(leader, P1, 1, 1);
    network.ticks(2 * SECOND);
    assert!(is_applied(network.proposal(leader, ahead)), "it is answered ahead");
    let waits = network.propose(leader, P1, 2, 2);
    network.ticks(3 * SECOND);
    assert_eq!(network.proposal(leader, waits), None);
    held_ms
}

/// The moment from which on answers may be missing is no later than the first that is, and not much earlier.
fn says_since(unheld: Unheld, held_ms: u64) {
    let (Unheld::Since(at) | Unheld::SinceLessPromised(at)) = unheld else { panic!("{unheld:?}") };
    assert!(at.0 <= held_ms && held_ms - at.0 <= 3_500, "{unheld:?}, all was held until {held_ms}");
}

#[test]
fn what_was_answered_ahead_is_missing_from_its_own_moment_on_when_the_home_goes_alone_much_later() {
    for dies in [false, true] {
        let (mut network, held_ms) = answered_ahead_and_waited(degrades(8_000));
        if dies {
            // Who leads next has not seen how long ago that was.
            let leader = network.leader(P1).unwrap();
            network.crash(leader, 0);
            network.start(leader);
        }
        let leads = |n: &Network| n.raft_leader(CONTROL).filter(|node| n.regions(*node).mode().mode == Mode::Alone);
        network.until(30 * SECOND, "the home is alone", |n| leads(n).is_some());
        says_since(network.regions(leads(&network).unwrap()).mode().unheld, held_ms);
    }
}

#[test]
fn what_was_answered_ahead_is_missing_from_its_own_moment_on_when_more_is_promised_much_later() {
    let (mut network, held_ms) = answered_ahead_and_waited(refuses());
    network.ticks(10 * SECOND);
    network.set_regions(promises(Durability::Geo));
    network.ticks(SECOND);
    let leader = network.raft_leader(CONTROL).unwrap();
    says_since(network.regions(leader).mode().unheld, held_ms);
}

#[test]
fn moments_for_people_go_by_clocks_that_are_right_again_and_not_by_the_logs() {
    let (mut network, leader) = led(Durability::Geo);
    network.set_regions(degrades(8_000));
    let minutes_10 = 600_000;
    for node in (1..=6).map(NodeId) {
        network.set_clock(node, |wall_ms| wall_ms + minutes_10);
    }
    network.ticks(SECOND);
    network.propose(leader, P1, 1, 1);
    network.ticks(SECOND);
    for node in (1..=6).map(NodeId) {
        network.set_clock(node, |wall_ms| wall_ms - minutes_10);
    }
    network.ticks(2 * SECOND);
    network.cut_off.extend(SOUTH);
    let cut_ms = network.host(leader).env.wall.0;
    let leads = |n: &Network| n.raft_leader(CONTROL).filter(|node| n.regions(*node).mode().mode == Mode::Alone);
    network.until(30 * SECOND, "the home is alone", |n| leads(n).is_some());
    let mode = *network.regions(leads(&network).unwrap()).mode();
    assert!((cut_ms..cut_ms + 30_000).contains(&mode.since.0), "{mode:?}, cut at {cut_ms}");
    assert_eq!(mode.unheld, Unheld::Since(mode.since));
}

#[test]
fn clocks_that_were_once_ahead_make_no_moment_later_than_it_was() {
    let (mut network, leader) = led(Durability::Region { rpo_max_ms: 1_000 });
    network.set_regions(refuses());
    let all = || (1..=6).map(NodeId);
    all().for_each(|node| network.set_clock(node, |wall_ms| wall_ms + 600_000));
    network.ticks(2 * SECOND);
    network.propose(leader, P1, 3, 3);
    network.ticks(2 * SECOND);
    all().for_each(|node| network.set_clock(node, |wall_ms| wall_ms - 600_000));
    network.ticks(2 * SECOND);
    let held_ms = answers_ahead_and_waits(&mut network, leader);
    network.set_regions(promises(Durability::Geo));
    network.ticks(SECOND);
    let leader = network.raft_leader(CONTROL).unwrap();
    says_since(network.regions(leader).mode().unheld, held_ms);
}
