//! Another region takes the cluster over from its home.

use mailraft_cluster::regions::{Durability, RegionName, RegionSettings, SyncSetChange};
use mailraft_cluster::{Decision, Input, MemberChange, SettingsOutcome, TakeOverOutcome, TakeOverRefusal};
use mailraft_storage::{CommandId, Incarnation, NodeId, PartitionId};

use crate::network::Network;
use crate::regions::{SECOND, SOUTH, degrades, is_applied, led, status};

const P1: PartitionId = PartitionId(1);
const HOME: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn incarnation(number: u32, nonce: u8) -> Incarnation {
    Incarnation { number, nonce: [nonce; 16] }
}

/// Whether owners run in south.
fn south_serves(network: &Network) -> bool {
    [P1, PartitionId::CONTROL].iter().all(|p| network.leader(*p).is_some_and(|node| SOUTH.contains(&node)))
}

/// The home is lost.
fn lose_home(network: &mut Network) {
    network.cut_off.extend(HOME);
}

/// South hears nothing of the home any more, which lives on.
fn cut_home_off(network: &mut Network) {
    for home in HOME {
        network.cut.extend(SOUTH.iter().flat_map(|south| [(home, *south), (*south, home)]));
    }
}

/// Every node of south is given the word.
fn fail_over(network: &mut Network, of: Incarnation) {
    let asked = SOUTH.map(|node| (node, network.take_over(node, of)));
    network.ticks(4);
    for (node, request) in asked {
        assert_eq!(network.taken_over(node, request), Some(TakeOverOutcome::Adopted), "{node}");
    }
    network.until(2 * SECOND, "south serves", south_serves);
}

#[test]
fn south_serves_within_two_seconds_with_all_that_was_answered() {
    let (mut network, old) = led(Durability::Geo);
    let before = network.propose(old, P1, 1, 1);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(old, before)));
    lose_home(&mut network);
    network.propose(old, P1, 2, 2);
    network.ticks(SECOND);
    let second = incarnation(2, 7);
    fail_over(&mut network, second);
    let new = network.leader(P1).unwrap();
    assert_eq!(network.host(new).leading[&P1].1, second);
    assert!(network.host(new).leading[&P1].0 > second.first_term());
    assert!(network.has_row(new, P1, 1, 1) && !network.has_row(new, P1, 2, 2));
    let after = network.propose(new, P1, 3, 3);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(new, after)));
    let regions = network.regions(new);
    assert_eq!((regions.home().0.as_str(), regions.sync_set().len()), ("south", 0));
    let [taken] = regions.takeovers() else { panic!("{:?}", regions.takeovers()) };
    assert_eq!((taken.incarnation, taken.word.as_str()), (second, "the old region is off"));
    for placed in regions.placements() {
        assert!(placed.members.iter().all(|m| m.voter && SOUTH.contains(&m.node)) && placed.members.len() == 3);
    }
    // And so it is after a restart of all of them.
    for node in SOUTH {
        network.flush(node);
        network.crash(node, 0);
        network.start(node);
    }
    network.until(5 * SECOND, "south serves again", south_serves);
    let new = network.leader(P1).unwrap();
    assert!(network.has_row(new, P1, 3, 3));
}

#[test]
fn the_old_home_seals_itself_when_it_hears_of_it_and_stays_sealed() {
    let (mut network, old) = led(Durability::Region { rpo_max_ms: 60_000 });
    cut_home_off(&mut network);
    let lost = network.propose(old, P1, 2, 2);
    network.ticks(4);
    assert!(is_applied(network.proposal(old, lost)), "it answers on, within its bound");
    fail_over(&mut network, incarnation(2, 7));
    // One of the old home hears of it, and tells the others.
    network.cut.retain(|(from, to)| ![*from, *to].contains(&NodeId(1)));
    let sealed = |n: &Network| {
        HOME.iter().all(|node| {
            let of = status(n, *node);
            of.sealed_by == Some(2) && of.sealed_voters.len() == 3 && !of.sealed_voters.contains(&of.replica)
        })
    };
    network.until(5 * SECOND, "the old home is sealed", sealed);
    assert!(HOME.iter().all(|node| network.host(*node).leading.is_empty()));
    for node in HOME {
        network.crash(node, 0);
        network.start(node);
    }
    network.ticks(5 * SECOND);
    assert!(sealed(&network) && HOME.iter().all(|node| network.host(*node).leading.is_empty()));
    let new = network.leader(P1).unwrap();
    assert!(SOUTH.contains(&new) && !network.has_row(new, P1, 2, 2), "what only the old home had stays there");
    let barrier = network.read(NodeId(1), P1, mailraft_cluster::Reader::Visible);
    assert_eq!(network.barrier(NodeId(1), barrier), Some(mailraft_cluster::BarrierOutcome::Unavailable));
}

#[test]
fn a_majority_of_the_standbys_begins_an_incarnation_and_the_others_follow() {
    let (mut network, _) = led(Durability::Geo);
    lose_home(&mut network);
    let second = incarnation(2, 7);
    network.take_over(SOUTH[0], second);
    network.ticks(5 * SECOND);
    assert!(!south_serves(&network), "one of three is not enough");
    network.cut_off.insert(SOUTH[2]);
    network.take_over(SOUTH[1], second);
    network.until(2 * SECOND, "south serves", south_serves);
    assert_eq!(status(&network, SOUTH[2]).incarnation.number, 1);
    network.cut_off.remove(&SOUTH[2]);
    network.until(3 * SECOND, "the third follows", |n| {
        status(n, SOUTH[2]).incarnation == second && status(n, SOUTH[2]).last == status(n, SOUTH[0]).last
    });
    let again = network.take_over(SOUTH[2], second);
    assert_eq!(network.taken_over(SOUTH[2], again), Some(TakeOverOutcome::Adopted));
}

#[test]
fn what_was_adopted_survives_a_crash_and_what_was_not_synced_was_not_adopted() {
    let (mut network, _) = led(Durability::Geo);
    lose_home(&mut network);
    let second = incarnation(2, 7);
    network.disk_stuck.insert(SOUTH[0]);
    let asked = network.take_over(SOUTH[0], second);
    network.ticks(SECOND);
    assert_eq!(network.taken_over(SOUTH[0], asked), None);
    network.crash(SOUTH[0], 0);
    network.disk_stuck.clear();
    network.start(SOUTH[0]);
    let control = |n: &Network, node| n.status(node, PartitionId::CONTROL).unwrap().incarnation.number;
    assert_eq!(control(&network, SOUTH[0]), 1);
    network.take_over(SOUTH[0], second);
    network.settle();
    network.crash(SOUTH[0], 0);
    network.start(SOUTH[0]);
    assert_eq!(control(&network, SOUTH[0]), 2);
    network.take_over(SOUTH[1], second);
    network.until(3 * SECOND, "south serves", south_serves);
}

#[test]
fn one_number_with_two_nonces_serves_nothing_until_a_higher_one() {
    let (mut network, _) = led(Durability::Geo);
    lose_home(&mut network);
    network.take_over(SOUTH[0], incarnation(2, 1));
    network.take_over(SOUTH[1], incarnation(2, 2));
    network.ticks(5 * SECOND);
    let contested = |n: &Network, node| n.status(node, PartitionId::CONTROL).unwrap().contested;
    assert!(contested(&network, SOUTH[0]) && contested(&network, SOUTH[1]) && !south_serves(&network));
    let own = 2;
    let again = network.take_over(SOUTH[1], incarnation(2, 3));
    let refused = TakeOverOutcome::Refused(TakeOverRefusal::NotHigher { own });
    assert_eq!(network.taken_over(SOUTH[1], again), Some(refused));
    network.crash(SOUTH[0], 0);
    network.start(SOUTH[0]);
    assert!(contested(&network, SOUTH[0]));
    let third = incarnation(3, 4);
    fail_over(&mut network, third);
    let new = network.leader(P1).unwrap();
    assert_eq!(network.host(new).leading[&P1].1, third);
}

/// So much is written that it is not in the log of whoever comes back later.
fn written_past_the_log(network: &mut Network, partitions: &[PartitionId]) {
    for round in 0..2 {
        for partition in partitions {
            let leader = network.leader(*partition).unwrap();
            for number in 0..80 {
                network.propose_value(leader, *partition, number, round, vec![number; 30_000]);
            }
            network.ticks(10);
        }
        (1..=6).map(NodeId).for_each(|node| network.flush(node));
    }
}

fn with_short_logs(network: &mut Network, nodes: [NodeId; 3]) {
    (network.log_keep, network.region_log_keep_bytes) = (4, 1 << 20);
    for node in nodes {
        network.crash(node, 0);
        network.start(node);
    }
}

#[test]
fn who_may_be_ahead_of_its_region_adopts_nothing_and_is_sealed_in_the_end() {
    let (mut network, _) = led(Durability::Region { rpo_max_ms: 3_600_000 });
    let both = [P1, PartitionId::CONTROL];
    with_short_logs(&mut network, HOME);
    network.until(400, "both groups are led", |n| both.iter().all(|p| n.leader(*p).is_some()));
    network.ticks(SECOND);
    // The first of south gets a snapshot of what the others lack.
    network.cut_off.extend(SOUTH);
    written_past_the_log(&mut network, &both);
    network.cut_off.remove(&SOUTH[0]);
    let ahead = |n: &Network, p| n.status(SOUTH[0], p).unwrap().ahead;
    network.until(10 * SECOND, "it is ahead", |n| both.iter().all(|p| ahead(n, *p).is_some()));
    lose_home(&mut network);
    network.cut_off.remove(&SOUTH[1]);
    network.cut_off.remove(&SOUTH[2]);
    let second = incarnation(2, 7);
    let asked = network.take_over(SOUTH[0], second);
    let why = TakeOverRefusal::Ahead(ahead(&network, PartitionId::CONTROL).unwrap());
    assert_eq!(network.taken_over(SOUTH[0], asked), Some(TakeOverOutcome::Refused(why)));
    network.take_over(SOUTH[1], second);
    network.take_over(SOUTH[2], second);
    network.until(3 * SECOND, "south serves", south_serves);
    network.until(3 * SECOND, "it is sealed", |n| status(n, SOUTH[0]).sealed_by == Some(2));
}

#[test]
fn changes_of_members_found_below_the_takeover_change_nothing() {
    let (mut network, leader) = led(Durability::Geo);
    let follower = network.placed(P1).into_iter().find(|m| m.voter && m.node != leader).unwrap().replica;
    // In the log of one of south, which does not know it to be committed, as the others lack it.
    network.cut_off.extend([SOUTH[1], SOUTH[2]]);
    network.reconfigure(leader, P1, MemberChange::Demote(follower));
    network.ticks(2 * SECOND);
    let found = status(&network, SOUTH[0]);
    assert!(found.applied < found.last, "{found:?}");
    lose_home(&mut network);
    network.cut_off.remove(&SOUTH[1]);
    let second = incarnation(2, 7);
    for node in SOUTH {
        network.take_over(node, second);
    }
    network.until(3 * SECOND, "south serves", south_serves);
    network.cut_off.remove(&SOUTH[2]);
    network.ticks(3 * SECOND);
    let new = network.leader(P1).unwrap();
    let followers = status(&network, new).followers;
    assert!(followers.len() == 2 && followers.iter().all(|f| SOUTH.contains(&f.node)), "{followers:?}");
    let position = network.position(new, P1);
    network.ticks(SECOND);
    assert!(SOUTH.iter().all(|node| network.position(*node, P1) == position), "their rows are alike");
}

#[test]
fn a_standby_that_was_away_adopts_and_is_brought_up_by_a_snapshot_of_the_new_home() {
    let (mut network, _) = led(Durability::Geo);
    lose_home(&mut network);
    with_short_logs(&mut network, SOUTH);
    network.cut_off.insert(SOUTH[2]);
    let second = incarnation(2, 7);
    network.take_over(SOUTH[0], second);
    network.take_over(SOUTH[1], second);
    network.until(3 * SECOND, "south serves", south_serves);
    written_past_the_log(&mut network, &[P1]);
    network.cut_off.remove(&SOUTH[2]);
    let new = network.leader(P1).unwrap();
    network.until(10 * SECOND, "the third has all", |n| {
        let third = status(n, SOUTH[2]);
        third.incarnation == second && third.applied == status(n, new).applied
    });
    assert_eq!((network.position(SOUTH[2], P1), network.installed), (network.position(new, P1), 1));
}

#[test]
fn a_standby_says_when_it_heard_the_home_last_and_a_voter_does_not() {
    let (mut network, _) = led(Durability::Geo);
    network.ticks(2 * SECOND);
    let heard = |n: &Network, node| status(n, node).home_heard_ms;
    // An idle region is spoken to once a second.
    assert!(SOUTH.iter().all(|node| heard(&network, *node).is_some_and(|ms| ms <= 1_100)));
    assert!(HOME.iter().all(|node| heard(&network, *node).is_none()));
    lose_home(&mut network);
    network.ticks(5 * SECOND);
    assert!(SOUTH.iter().all(|node| heard(&network, *node).is_some_and(|ms| (4_900..6_200).contains(&ms))));
    fail_over(&mut network, incarnation(2, 7));
    assert!(SOUTH.iter().all(|node| heard(&network, *node).is_none()));
}

#[test]
fn the_home_takes_nothing_over_and_numbers_rise() {
    let (mut network, _) = led(Durability::Geo);
    for (node, of, why) in [
        (NodeId(1), incarnation(2, 1), TakeOverRefusal::IsHome),
        (SOUTH[0], incarnation(1, 1), TakeOverRefusal::NotHigher { own: 1 }),
        (SOUTH[0], incarnation(4_096, 1), TakeOverRefusal::NotHigher { own: 1 }),
    ] {
        let asked = network.take_over(node, of);
        assert_eq!(network.taken_over(node, asked), Some(TakeOverOutcome::Refused(why)), "{node} {of:?}");
    }
    let mut network = Network::new(3, 1);
    let asked = network.take_over(NodeId(1), incarnation(2, 1));
    let refused = TakeOverOutcome::Refused(TakeOverRefusal::NoStandby);
    assert_eq!(network.taken_over(NodeId(1), asked), Some(refused));
}

/// A node of south adopts, and dies before anybody else hears of it; another one is given the word, and draws a lower number.
#[test]
fn who_adopted_a_higher_number_that_never_began_is_brought_back_by_an_operator() {
    let (mut network, _) = led(Durability::Geo);
    lose_home(&mut network);
    let (second, fourth) = (incarnation(2, 7), incarnation(4, 8));
    network.cut_off.insert(SOUTH[2]);
    network.take_over(SOUTH[2], fourth);
    network.ticks(4);
    network.crash(SOUTH[2], 0);
    for node in &SOUTH[..2] {
        network.take_over(*node, second);
    }
    network.until(2 * SECOND, "two of three serve", south_serves);
    let new = network.leader(PartitionId::CONTROL).unwrap();
    let refused = Some(TakeOverOutcome::Refused(TakeOverRefusal::IsHome));
    let asked = network.take_over(new, fourth);
    assert_eq!(network.taken_over(new, asked), refused, "nobody here speaks of it");
    network.start(SOUTH[2]);
    network.cut_off.remove(&SOUTH[2]);
    network.ticks(5 * SECOND);
    assert!(south_serves(&network), "it stops nobody");
    let control = |n: &Network, node| n.status(node, PartitionId::CONTROL).unwrap();
    assert_eq!(control(&network, SOUTH[2]).incarnation, fourth);
    // A lower number than its, or another one of its, brings nobody together.
    for of in [incarnation(3, 9), incarnation(4, 9)] {
        let asked = network.take_over(SOUTH[0], of);
        assert_eq!(network.taken_over(SOUTH[0], asked), refused, "{of:?}");
    }
    let before = network.propose(network.leader(P1).unwrap(), P1, 1, 1);
    network.ticks(4);
    assert!(is_applied(network.proposal(network.leader(P1).unwrap(), before)));
    fail_over(&mut network, fourth);
    network.until(3 * SECOND, "all three are of it", |n| {
        SOUTH
            .iter()
            .all(|node| [P1, PartitionId::CONTROL].iter().all(|p| n.status(*node, *p).unwrap().incarnation == fourth))
    });
    network.until(3 * SECOND, "and have the same", |n| {
        let last = control(n, SOUTH[0]).applied;
        SOUTH.iter().all(|node| control(n, *node).applied == last && n.has_row(*node, P1, 1, 1))
    });
    assert!(south_serves(&network));
}

/// What south has of a partition needs more of the control group than south has.
#[test]
fn what_needs_lost_entries_of_the_control_group_holds_no_partition_up() {
    let (mut network, old) = led(Durability::Region { rpo_max_ms: 60_000 });
    network.deaf.extend(SOUTH.map(|node| (node, PartitionId::CONTROL)));
    for key in 0..20 {
        let leader = network.leader(PartitionId::CONTROL).unwrap();
        let asked = network.propose(leader, PartitionId::CONTROL, 1, key);
        network.ticks(2);
        assert!(is_applied(network.proposal(leader, asked)), "{key}");
    }
    // South has it, and does not know that it is committed.
    for home in HOME {
        network.cut.extend(SOUTH.map(|south| (south, home)));
    }
    let before = status(&network, SOUTH[0]).last;
    let answered = network.propose(old, P1, 2, 2);
    network.ticks(2);
    assert!(is_applied(network.proposal(old, answered)));
    assert!(
        SOUTH.iter().all(|node| status(&network, *node).last > before && status(&network, *node).applied <= before)
    );
    lose_home(&mut network);
    network.deaf.clear();
    fail_over(&mut network, incarnation(2, 7));
    let new = network.leader(P1).unwrap();
    assert!(network.has_row(new, P1, 2, 2));
    let after = network.propose(new, P1, 3, 3);
    network.ticks(SECOND);
    assert!(is_applied(network.proposal(new, after)));
}

#[test]
fn a_home_that_was_left_behind_is_not_waited_for() {
    let (mut network, _) = led(Durability::Geo);
    lose_home(&mut network);
    fail_over(&mut network, incarnation(2, 7));
    network.ticks(SECOND);
    let leader = network.leader(PartitionId::CONTROL).unwrap();
    let (request, id) = (network.next_request(), CommandId([9; 16]));
    let sync_set = Some(SyncSetChange::Add(RegionName("home".into())));
    let settings = RegionSettings { sync_set, ..degrades(1_000) };
    network.input(leader, Input::SetRegions { request, id, settings });
    network.ticks(4);
    let Some(Decision::Settings(SettingsOutcome::Refused(why))) = network.host(leader).decided.get(&request) else {
        panic!("{:?}", network.host(leader).decided.get(&request))
    };
    assert!(why.to_string().starts_with("home has no standbys"), "{why}");
    assert!(network.regions(leader).sync_set().is_empty());
}
