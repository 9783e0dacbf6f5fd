//! Groups that grow, shrink and have a replica replaced, in calm and in random schedules.

use std::collections::BTreeMap;

use mailraft_cluster::placement::MemberRow;
use mailraft_cluster::{ChangeOutcome, ChangeRefusal, CreateOutcome, Decision, Input, MemberChange, RequestId, Role};
use mailraft_storage::log::Log;
use mailraft_storage::{Env, NodeId, PartitionId, ProposalOutcome, ReplicaId, Rows, Verdict};

use crate::network::{Network, roll};

const P1: PartitionId = PartitionId(1);
const NODES: u64 = 5;
/// Rounds of disorder; then all is well again.
const ROUNDS: usize = 300;

fn nodes() -> impl Iterator<Item = NodeId> {
    (1..=NODES).map(NodeId)
}

/// Five nodes; partition 1 has replicas on three of them.
fn elected() -> Network {
    let mut network = Network::new(NODES, 1);
    network.until(60, "led", |n| n.leader(P1).is_some());
    network
}

/// Nodes without a replica of partition 1.
fn spare(network: &Network) -> Vec<NodeId> {
    nodes().filter(|n| network.status(*n, P1).is_none()).collect()
}

fn learner(replica: u64, node: NodeId) -> MemberRow {
    MemberRow { replica: ReplicaId(replica), node, voter: false }
}

/// Makes a change in calm; gives the members after it.
fn change(network: &mut Network, change: MemberChange) -> Vec<MemberRow> {
    for _ in 0..200 {
        let Some(leader) = network.leader(P1) else {
            network.tick();
            continue;
        };
        let request = network.reconfigure(leader, P1, change);
        network.ticks(4);
        match network.change(leader, request) {
            Some(ChangeOutcome::Changed { members, .. }) => return members.clone(),
            Some(ChangeOutcome::NotLeader { .. } | ChangeOutcome::Refused { why: ChangeRefusal::Lags { .. }, .. }) => {}
            other => panic!("{change:?}: {other:?}"),
        }
        network.ticks(10);
    }
    panic!("{change:?} is not made");
}

fn refusal(network: &mut Network, change: MemberChange) -> ChangeRefusal {
    let leader = network.leader(P1).unwrap();
    let request = network.reconfigure(leader, P1, change);
    match network.change(leader, request) {
        Some(ChangeOutcome::Refused { why, .. }) => *why,
        other => panic!("{change:?}: {other:?}"),
    }
}

fn add(network: &mut Network, node: NodeId, replica: u64) {
    let request = network.create(node, P1, ReplicaId(replica));
    network.settle();
    assert_eq!(network.created(node, request), Some(&CreateOutcome::Created));
    change(network, MemberChange::AddLearner(learner(replica, node)));
    network.ticks(20);
    let members = change(network, MemberChange::Promote(ReplicaId(replica)));
    assert!(members.contains(&MemberRow { voter: true, ..learner(replica, node) }));
}

fn write(network: &mut Network, key: u64) {
    network.until(60, "led", |n| n.leader(P1).is_some());
    let leader = network.leader(P1).unwrap();
    let request = network.propose(leader, P1, 1, key);
    network.ticks(6);
    assert!(matches!(network.proposal(leader, request), Some(ProposalOutcome::Applied { .. })), "write {key}");
}

/// Every voter has the same rows.
fn agree(network: &Network, voters: &[MemberRow]) {
    let states: Vec<_> = voters.iter().map(|m| network.position(m.node, P1)).collect();
    assert!(states.windows(2).all(|w| w[0] == w[1]), "{states:?}");
}

#[test]
fn a_group_grows_to_five_survives_two_deaths_and_shrinks_to_three() {
    let mut network = elected();
    write(&mut network, 1);
    let (spare, first) = (spare(&network), network.placed(P1));
    add(&mut network, spare[0], 100);
    add(&mut network, spare[1], 101);
    write(&mut network, 2);
    for node in [spare[0], first[0].node] {
        network.crash(node, 0);
    }
    network.ticks(60);
    write(&mut network, 3);
    for node in [spare[0], first[0].node] {
        network.start(node);
    }
    network.ticks(60);
    for gone in &first[..2] {
        change(&mut network, MemberChange::Remove(gone.replica));
        network.ticks(60);
        assert!(network.gone.contains(&gone.replica) && network.status(gone.node, P1).is_none());
        assert!(network.host(gone.node).rows.applied(gone.replica).unwrap().is_none(), "rows are left");
    }
    write(&mut network, 4);
    network.ticks(20);
    let left: Vec<MemberRow> = [first[2], learner(100, spare[0]), learner(101, spare[1])].to_vec();
    agree(&network, &left);
    for member in &left {
        assert!((1..=4).all(|key| network.has_row(member.node, P1, 1, key)));
    }
    // A start knows who the members are, and that the others are gone.
    for node in nodes() {
        network.flush(node);
        network.crash(node, 0);
        network.start(node);
    }
    network.ticks(60);
    write(&mut network, 5);
    assert!(first[..2].iter().all(|m| network.status(m.node, P1).is_none()));
}

#[test]
fn a_node_is_told_who_leads_until_its_new_replica_knows() {
    let mut network = elected();
    network.ticks(200);
    let (spare, leader) = (spare(&network)[0], network.leader(P1));
    let told = |network: &Network| network.host(spare).leaders.get(&P1).copied().flatten();
    assert_eq!(told(&network), leader);
    network.create(spare, P1, ReplicaId(100));
    network.settle();
    assert!(network.status(spare, P1).is_some() && told(&network) == leader, "its replica is no member yet");
    network.crash(spare, 0);
    network.start(spare);
    network.ticks(60);
    assert_eq!(told(&network), leader);
    change(&mut network, MemberChange::AddLearner(learner(100, spare)));
    network.ticks(80);
    assert_eq!(told(&network), leader, "nobody tells it any more, and its replica knows");
    network.crash(leader.unwrap(), 0);
    network.until(80, "led again", |n| n.leader(P1).is_some_and(|now| Some(now) != leader));
    network.ticks(4);
    assert_eq!(told(&network), network.leader(P1));
}

#[test]
fn a_node_whose_replica_was_removed_is_told_who_leads() {
    let mut network = elected();
    let spare = spare(&network)[0];
    add(&mut network, spare, 100);
    let leader = network.leader(P1);
    let gone = network.placed(P1).into_iter().find(|m| Some(m.node) != leader).unwrap();
    change(&mut network, MemberChange::Remove(gone.replica));
    network.ticks(60);
    let told = |network: &Network| network.host(gone.node).leaders.get(&P1).copied().flatten();
    assert!(network.status(gone.node, P1).is_none());
    assert_eq!(told(&network), leader);
    network.crash(leader.unwrap(), 0);
    network.until(80, "led again", |n| n.leader(P1).is_some_and(|now| Some(now) != leader));
    network.ticks(4);
    assert_eq!(told(&network), network.leader(P1));
}

#[test]
fn what_must_not_be_changed_is_refused_and_says_why() {
    let mut network = elected();
    network.ticks(200);
    let (spare, first) = (spare(&network), network.placed(P1));
    let highest = first.iter().map(|m| m.replica).max().unwrap();
    let leader = network.leader(P1).unwrap();
    let own = first.iter().find(|m| m.node == leader).unwrap().replica;
    let other = first.iter().find(|m| m.node != leader).unwrap();
    let add = |replica, node| MemberChange::AddLearner(learner(replica, node));
    assert_eq!(refusal(&mut network, add(highest.0, spare[0])), ChangeRefusal::IdUsed(highest));
    assert_eq!(refusal(&mut network, add(100, other.node)), ChangeRefusal::NodeTaken(other.node));
    for replica in [ReplicaId(77), other.replica] {
        let promote = MemberChange::Promote(replica);
        assert_eq!(refusal(&mut network, promote), ChangeRefusal::NotMember(replica));
    }
    let request = network.reconfigure(leader, P1, add(100, spare[0]));
    assert_eq!(refusal(&mut network, add(101, spare[1])), ChangeRefusal::Pending);
    network.ticks(4);
    assert!(matches!(network.change(leader, request), Some(ChangeOutcome::Changed { .. })));
    // Nothing is there that could have caught up.
    let promote = MemberChange::Promote(ReplicaId(100));
    assert!(matches!(refusal(&mut network, promote), ChangeRefusal::Lags { entries, .. } if entries > 0));
    // Removed before it ever lived: its id is used up.
    change(&mut network, MemberChange::Remove(ReplicaId(100)));
    assert_eq!(refusal(&mut network, add(100, spare[0])), ChangeRefusal::IdUsed(ReplicaId(100)));
    for node in nodes() {
        network.flush(node);
        network.crash(node, 0);
        network.start(node);
    }
    network.until(60, "led again", |n| n.leader(P1).is_some());
    network.ticks(20);
    assert_eq!(refusal(&mut network, add(100, spare[0])), ChangeRefusal::IdUsed(ReplicaId(100)));
    let leader = network.leader(P1).unwrap();
    let dead = first.iter().find(|m| m.node != leader && m.replica != own).unwrap();
    let alive = first.iter().find(|m| m.node != leader && m.replica != dead.replica).unwrap();
    network.crash(dead.node, 0);
    network.ticks(20);
    assert_eq!(refusal(&mut network, MemberChange::Remove(alive.replica)), ChangeRefusal::LosesQuorum);
    assert_eq!(refusal(&mut network, MemberChange::Demote(alive.replica)), ChangeRefusal::LosesQuorum);
    change(&mut network, MemberChange::Remove(dead.replica));
}

/// Where nothing is appended raft-rs has no reason to ask one that could not be reached for a moment for anything again.
#[test]
fn who_could_not_be_reached_for_a_moment_counts_as_keeping_up_where_nothing_is_appended() {
    let mut network = elected();
    network.ticks(80);
    let (node, replica) = (spare(&network)[0], 100);
    network.create(node, P1, ReplicaId(replica));
    network.settle();
    change(&mut network, MemberChange::AddLearner(learner(replica, node)));
    network.ticks(20);
    let leader = network.leader(P1).unwrap();
    for other in nodes().filter(|n| *n != leader) {
        network.input(leader, Input::Unreachable { node: other });
    }
    network.ticks(20);
    let last = network.status(leader, P1).unwrap().last;
    let request = network.reconfigure(leader, P1, MemberChange::Promote(ReplicaId(replica)));
    network.ticks(4);
    let changed = network.change(leader, request);
    assert!(matches!(changed, Some(ChangeOutcome::Changed { .. })), "{changed:?} at {last}");
}

#[test]
fn a_leader_whose_node_stops_hands_over_to_one_that_could_not_be_reached_for_a_moment() {
    let mut network = elected();
    network.ticks(80);
    let leader = network.leader(P1).unwrap();
    for other in nodes().filter(|n| *n != leader) {
        network.input(leader, Input::Unreachable { node: other });
    }
    network.ticks(20);
    network.input(leader, Input::HandOver);
    // An election timeout is 10 ticks at least.
    network.ticks(6);
    assert!(network.leader(P1).is_some_and(|now| now != leader));
}

#[test]
fn a_leader_that_is_to_go_offers_its_lead_to_the_next_where_a_damaged_one_takes_none() {
    let mut network = elected();
    network.ticks(80);
    let first = network.placed(P1);
    let leader = network.leader(P1).unwrap();
    let own = first.iter().find(|m| m.node == leader).unwrap();
    let damaged = first.iter().filter(|m| m.node != leader).min_by_key(|m| m.replica).unwrap();
    network.input(damaged.node, Input::Damaged { replica: damaged.replica });
    let members = change(&mut network, MemberChange::Remove(own.replica));
    assert!(!members.iter().any(|m| m.replica == own.replica), "{members:?}");
    network.ticks(20);
    assert!(network.leader(P1).is_some_and(|l| l != leader && l != damaged.node));
}

#[test]
fn a_leader_that_nobody_relieves_goes_on_between_its_offers() {
    let mut network = elected();
    network.ticks(80);
    let first = network.placed(P1);
    let leader = network.leader(P1).unwrap();
    let own = first.iter().find(|m| m.node == leader).unwrap();
    for other in first.iter().filter(|m| m.node != leader) {
        network.input(other.node, Input::Damaged { replica: other.replica });
    }
    let (mut refused, mut written) = (0, 0);
    for key in 0..100 {
        let request = network.reconfigure(leader, P1, MemberChange::Remove(own.replica));
        network.ticks(2);
        let refusal = ChangeRefusal::NoSuccessor;
        let is_refused =
            matches!(network.change(leader, request), Some(ChangeOutcome::Refused { why, .. }) if *why == refusal);
        refused += usize::from(is_refused);
        let write = network.propose(leader, P1, 1, key);
        network.ticks(4);
        written += usize::from(matches!(network.proposal(leader, write), Some(ProposalOutcome::Applied { .. })));
    }
    assert!(refused > 50 && written > 50, "{refused} refused, {written} of 100 written");
    assert_eq!(network.leader(P1), Some(leader));
}

#[test]
fn a_leader_that_is_to_go_hands_over_first_and_a_demoted_voter_only_learns() {
    let mut network = elected();
    network.ticks(100);
    let first = network.placed(P1);
    let leader = network.leader(P1).unwrap();
    let own = first.iter().find(|m| m.node == leader).unwrap();
    let request = network.reconfigure(leader, P1, MemberChange::Demote(own.replica));
    let Some(ChangeOutcome::NotLeader { leader: Some(to) }) = network.change(leader, request).cloned() else {
        panic!("not handed over");
    };
    network.until(10, "the other leads", |n| n.leader(P1) == Some(to) && n.host(leader).leading.is_empty());
    change(&mut network, MemberChange::Demote(own.replica));
    network.ticks(10);
    assert_eq!(network.status(leader, P1).unwrap().role, Role::Learner);
    network.cut_off.insert(leader);
    network.ticks(100);
    assert_eq!(network.status(leader, P1).unwrap().role, Role::Learner, "it does not campaign");
    network.cut_off.clear();
    network.ticks(20);
    change(&mut network, MemberChange::Promote(own.replica));
    write(&mut network, 1);
    agree(&network, &first);
}

#[test]
fn who_wins_with_its_own_removal_or_demotion_in_its_log_hands_over_at_once() {
    for change in [MemberChange::Remove, MemberChange::Demote] {
        let mut network = elected();
        network.ticks(200);
        // In the order in which they lead and campaign.
        let first = network.placed(P1);
        let [leader, next] = [0, 1].map(|n| first[n].node);
        assert_eq!(network.leader(P1), Some(leader));
        network.reconfigure(leader, P1, change(first[1].replica));
        let proposed = network.status(leader, P1).unwrap().last;
        while network.status(next, P1).unwrap().last < proposed {
            assert!(network.step_once());
        }
        network.crash(leader, 0);
        // Back just before the next one campaigns, to vote.
        network.ticks(9);
        network.asked_for_votes.clear();
        network.start(leader);
        // Without it the others would wait out an election timeout more.
        network.until(9, "another leads", |n| n.leader(P1).is_some_and(|l| l != next));
        assert!(network.asked_for_votes.contains_key(&first[1].replica), "it did not campaign");
        network.until(4, "it is gone or learns", |n| n.status(next, P1).is_none_or(|s| s.role == Role::Learner));
        write(&mut network, 1);
    }
}

#[test]
fn a_replica_removed_while_it_was_away_disturbs_nobody_and_learns_that_it_is_gone() {
    let mut network = elected();
    network.ticks(100);
    let first = network.placed(P1);
    let leader = network.leader(P1).unwrap();
    let away = first.iter().find(|m| m.node != leader).unwrap();
    network.crash(away.node, 0);
    network.ticks(20);
    change(&mut network, MemberChange::Remove(away.replica));
    let (term, _) = network.host(leader).leading[&P1];
    network.start(away.node);
    network.ticks(60);
    assert_eq!(network.host(leader).leading.get(&P1).map(|l| l.0), Some(term), "the leader was disturbed");
    assert!(network.status(away.node, P1).is_none() && network.gone.contains(&away.replica));
    assert!(network.host(away.node).log.state(away.replica).unwrap().is_some(), "no mark says that it is gone");
    let request = network.create(away.node, P1, away.replica);
    let Some(CreateOutcome::Refused { why, .. }) = network.created(away.node, request) else { panic!("made anew") };
    assert_eq!(*why, ChangeRefusal::IdUsed(away.replica));
    network.crash(away.node, 0);
    network.start(away.node);
    network.ticks(40);
    assert!(network.status(away.node, P1).is_none());
    // Another replica may live there.
    add(&mut network, away.node, 100);
    write(&mut network, 1);
    network.ticks(10);
    assert!(network.has_row(away.node, P1, 1, 1));
}

#[test]
fn a_replica_that_slept_through_the_replacement_of_all_others_finds_them() {
    let mut network = elected();
    network.ticks(100);
    let (spare, first) = (spare(&network), network.placed(P1));
    let sleeper = first[2];
    network.crash(sleeper.node, 0);
    network.ticks(20);
    add(&mut network, spare[0], 100);
    add(&mut network, spare[1], 101);
    for gone in &first[..2] {
        change(&mut network, MemberChange::Remove(gone.replica));
        network.ticks(30);
    }
    write(&mut network, 1);
    network.start(sleeper.node);
    network.ticks(60);
    assert!(network.has_row(sleeper.node, P1, 1, 1));
    network.crash(spare[0], 0);
    network.ticks(60);
    write(&mut network, 2);
}

#[test]
fn a_crash_between_any_two_outputs_of_a_change_brings_back_one_configuration() {
    for at in 0..70 {
        let mut network = elected();
        let (spare, first) = (spare(&network), network.placed(P1));
        network.create(spare[0], P1, ReplicaId(100));
        if at % 2 == 0 {
            network.settle();
        }
        let leader = network.leader(P1).unwrap();
        let added = network.reconfigure(leader, P1, MemberChange::AddLearner(learner(100, spare[0])));
        for _ in 0..at {
            network.step_once();
        }
        let victim = [leader, spare[0], first.iter().find(|m| m.node != leader).unwrap().node][at % 3];
        network.crash(victim, (at * 13) % 70);
        network.settle();
        network.start(victim);
        network.ticks(60);
        if network.status(spare[0], P1).is_none() {
            network.create(spare[0], P1, ReplicaId(100));
            network.settle();
        }
        let known = network.change(leader, added).cloned();
        let again = network.leader(P1).unwrap();
        let request = network.reconfigure(again, P1, MemberChange::AddLearner(learner(100, spare[0])));
        network.ticks(30);
        let members = match network.change(again, request) {
            Some(ChangeOutcome::Changed { members, .. }) => {
                assert!(!matches!(known, Some(ChangeOutcome::Changed { .. })), "after {at} steps: made twice");
                members
            }
            Some(ChangeOutcome::Refused { why: ChangeRefusal::IdUsed(_), members }) => members,
            other => panic!("after {at} steps: {other:?}"),
        };
        assert!(members.contains(&learner(100, spare[0])), "after {at} steps: {members:?}");
        network.ticks(40);
        change(&mut network, MemberChange::Promote(ReplicaId(100)));
        write(&mut network, 1);
        network.ticks(10);
        agree(&network, &[&first[..], &[learner(100, spare[0])]].concat());
    }
}

/// A group with a learner, and the learner's promotion just proposed.
fn promoting() -> (Network, NodeId, Vec<MemberRow>) {
    let mut network = elected();
    let (node, first) = (spare(&network)[0], network.placed(P1));
    network.create(node, P1, ReplicaId(100));
    network.settle();
    change(&mut network, MemberChange::AddLearner(learner(100, node)));
    network.ticks(30);
    let leader = network.leader(P1).unwrap();
    network.reconfigure(leader, P1, MemberChange::Promote(ReplicaId(100)));
    (network, leader, first)
}

#[test]
fn a_change_that_is_committed_and_not_applied_keeps_a_restarted_voter_from_campaigning() {
    let (mut network, leader, first) = promoting();
    let follower = first.iter().find(|m| m.node != leader).unwrap();
    network.apply_held.insert(follower.node);
    // Until its commit is durable there, with the next write.
    network.ticks(4);
    write(&mut network, 1);
    let applied = |network: &Network| network.host(follower.node).rows.applied(follower.replica).unwrap().unwrap();
    assert!(!applied(&network).voters.contains(&ReplicaId(100)));
    network.crash(follower.node, 0);
    network.start(follower.node);
    network.cut_off.insert(follower.node);
    network.ticks(60);
    assert!(!network.asked_for_votes.contains_key(&follower.replica), "it campaigns in a configuration of the past");
    network.apply_held.clear();
    network.ticks(60);
    assert!(applied(&network).voters.contains(&ReplicaId(100)));
    assert!(network.asked_for_votes[&follower.replica].contains(&ReplicaId(100)));
}

#[test]
fn what_was_applied_once_holds_after_a_crash_at_any_step() {
    let mut later = 0;
    for at in 0..60 {
        let (mut network, leader, first) = promoting();
        for _ in 0..at {
            network.step_once();
        }
        let follower = first.iter().find(|m| m.node != leader).unwrap().node;
        let victim = first.iter().find(|m| m.node == [leader, follower][at % 2]).unwrap();
        let before = network.host(victim.node).rows.applied(victim.replica).unwrap().unwrap();
        let voted = before.voters.contains(&ReplicaId(100));
        network.crash(victim.node, at * 7 % 40);
        network.asked_for_votes.clear();
        network.start(victim.node);
        network.cut_off.insert(victim.node);
        network.ticks(60);
        let asked = &network.asked_for_votes[&victim.replica];
        assert!(!voted || asked.contains(&ReplicaId(100)), "after {at} steps it asks {asked:?}");
        later += u32::from(voted);
    }
    assert!((5..55).contains(&later), "{later} of 60 crashes after the change was applied");
}

#[test]
fn a_removed_replica_never_comes_back_after_a_crash_at_any_step() {
    let mut knew = 0;
    for at in 0..60 {
        let mut network = elected();
        let leader = network.leader(P1).unwrap();
        let victim = network.placed(P1).into_iter().find(|m| m.node != leader).unwrap();
        network.reconfigure(leader, P1, MemberChange::Remove(victim.replica));
        for _ in 0..at {
            network.step_once();
        }
        let rows = network.host(victim.node).rows.clone();
        let removed = rows.applied(victim.replica).unwrap().is_none_or(|a| !a.voters.contains(&victim.replica));
        if at % 2 == 0 {
            rows.flush().unwrap();
        }
        network.crash(victim.node, at * 11 % 60);
        network.start(victim.node);
        network.cut_off.insert(victim.node);
        network.asked_for_votes.clear();
        network.ticks(60);
        if removed {
            knew += 1;
            assert!(network.status(victim.node, P1).is_none(), "after {at} steps it is back");
            assert!(!network.asked_for_votes.contains_key(&victim.replica), "after {at} steps it campaigns");
        }
        network.cut_off.clear();
        network.ticks(60);
        assert!(network.status(victim.node, P1).is_none(), "after {at} steps it does not know");
        assert!(rows.applied(victim.replica).unwrap().is_none(), "after {at} steps rows are left");
        write(&mut network, 1);
    }
    assert!((5..55).contains(&knew), "{knew} of 60 crashes after it knew");
}

/// What is to be done to a group, one after the other.
#[derive(Clone, Copy, Debug)]
enum Task {
    Create(NodeId, u64),
    Change(MemberChange),
}

/// Carries tasks out as an operator would: asks whoever leads, and judges by the members that it is told.
struct Operator {
    tasks: Vec<Task>,
    asked: Option<(NodeId, RequestId)>,
}

impl Operator {
    fn step(&mut self, network: &mut Network) {
        let Some(task) = self.tasks.first().copied() else { return };
        if let Some((node, request)) = self.asked {
            match network.host(node).decided.get(&request) {
                None if network.is_up(node) => return,
                Some(Decision::Change(
                    ChangeOutcome::Changed { members, .. } | ChangeOutcome::Refused { members, .. },
                )) if done(task, members) => {
                    self.tasks.remove(0);
                }
                _ => {}
            }
            self.asked = None;
            return;
        }
        match task {
            Task::Create(node, replica) if network.status(node, P1).is_some_and(|s| s.replica.0 == replica) => {
                self.tasks.remove(0);
            }
            Task::Create(node, replica) if network.is_up(node) => {
                self.asked = Some((node, network.create(node, P1, ReplicaId(replica))));
            }
            Task::Create(..) => {}
            Task::Change(change) => {
                if let Some(leader) = network.leader(P1) {
                    self.asked = Some((leader, network.reconfigure(leader, P1, change)));
                }
            }
        }
    }
}

fn done(task: Task, members: &[MemberRow]) -> bool {
    let find = |replica| members.iter().find(|m| m.replica == replica);
    match task {
        Task::Create(..) => false,
        Task::Change(MemberChange::AddLearner(new)) => find(new.replica).is_some(),
        Task::Change(MemberChange::Promote(replica)) => find(replica).is_some_and(|m| m.voter),
        Task::Change(MemberChange::Demote(replica)) => find(replica).is_some_and(|m| !m.voter),
        Task::Change(MemberChange::Remove(replica)) => !members.is_empty() && find(replica).is_none(),
    }
}

fn join(node: NodeId, replica: u64) -> Vec<Task> {
    let changes = [MemberChange::AddLearner(learner(replica, node)), MemberChange::Promote(ReplicaId(replica))];
    [Task::Create(node, replica)].into_iter().chain(changes.map(Task::Change)).collect()
}

/// Disorder while an operator works; then all is well again, the work is done, and nothing acknowledged is
/// lost. How many writes were acknowledged, and how many tasks were done in disorder.
fn disorder(seed: u64, network: &mut Network, tasks: Vec<Task>) -> (u64, usize) {
    let mut dice = Env::seeded(seed);
    network.log_keep = if seed.is_multiple_of(2) { 4 } else { 100_000 };
    let all = tasks.len();
    let mut operator = Operator { tasks, asked: None };
    let mut asked: BTreeMap<RequestId, (NodeId, u64)> = BTreeMap::new();
    let mut in_flight: BTreeMap<NodeId, RequestId> = BTreeMap::new();
    for round in 0..ROUNDS {
        for _ in 0..roll(&mut dice, 120) {
            network.step_at_random(&mut dice);
        }
        network.dies_at_install = roll(&mut dice, 6) == 0;
        let node = NodeId(1 + roll(&mut dice, NODES as usize) as u64);
        match roll(&mut dice, 60) {
            0..=1 if network.is_up(node) => {
                let torn = roll(&mut dice, 400);
                network.crash(node, torn);
            }
            2..=5 if !network.is_up(node) => network.start(node),
            6 => drop(network.cut_off.insert(node)),
            7..=10 => network.cut_off.clear(),
            11..=25 if network.is_up(node) => network.flush_only(node),
            _ => {}
        }
        in_flight.retain(|node, _| network.is_up(*node));
        if let Some(leader) = network.leader(P1)
            && in_flight.get(&leader).is_none_or(|r| network.proposal(leader, *r).is_some())
        {
            let request = network.propose(leader, P1, 1, round as u64);
            asked.insert(request, (leader, round as u64));
            in_flight.insert(leader, request);
        }
        operator.step(network);
        network.tick_only();
    }
    let in_disorder = all - operator.tasks.len();
    network.cut_off.clear();
    network.dies_at_install = false;
    for node in nodes().filter(|n| !network.is_up(*n)).collect::<Vec<_>>() {
        network.start(node);
    }
    for _ in 0..800 {
        if operator.tasks.is_empty() {
            break;
        }
        operator.step(network);
        network.tick();
    }
    assert!(operator.tasks.is_empty(), "seed {seed}: left to do: {:?}", operator.tasks);
    network.ticks(200);
    let leader = network.leader(P1).unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
    let voters: Vec<NodeId> = nodes().filter(|n| network.status(*n, P1).is_some()).collect();
    let states: Vec<_> = voters.iter().map(|n| network.position(*n, P1)).collect();
    assert!(states.windows(2).all(|w| w[0] == w[1]), "seed {seed}: {voters:?}: {states:?}");
    assert_eq!(network.status(leader, P1).unwrap().followers.len() + 1, voters.len(), "seed {seed}");
    let mut acknowledged = 0;
    for (request, (node, key)) in &asked {
        if let Some(ProposalOutcome::Applied { verdict, .. }) = network.proposal(*node, *request) {
            assert_eq!(verdict, Verdict::Accepted);
            acknowledged += 1;
            for voter in &voters {
                assert!(network.has_row(*voter, P1, 1, *key), "seed {seed}: write {key} is lost on {voter}");
            }
        }
    }
    (acknowledged, in_disorder)
}

fn many(make: impl Fn(u64) -> (Network, Vec<Task>)) {
    let seeds = std::env::var("MAILRAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let (mut acknowledged, mut tasks) = (0, 0);
    for seed in 0..seeds {
        let (mut network, work) = make(seed);
        let (writes, done) = disorder(seed, &mut network, work);
        (acknowledged, tasks) = (acknowledged + writes, tasks + done);
    }
    println!("{acknowledged} writes and {tasks} tasks in {seeds} schedules");
    // Schedules in which hardly anything happens prove nothing.
    assert!(acknowledged > 10 * seeds && tasks > seeds as usize);
}

#[test]
fn a_group_grows_in_any_schedule() {
    many(|_| {
        let network = elected();
        let spare = spare(&network);
        (network, [join(spare[0], 100), join(spare[1], 101)].concat())
    });
}

#[test]
fn a_group_shrinks_in_any_schedule() {
    many(|seed| {
        let mut network = elected();
        let (spare, first) = (spare(&network), network.placed(P1));
        add(&mut network, spare[0], 100);
        add(&mut network, spare[1], 101);
        let all = [&first[..], &[learner(100, spare[0]), learner(101, spare[1])]].concat();
        let (a, b) = (all[seed as usize % 5].replica, all[(seed as usize / 5 + seed as usize + 2) % 5].replica);
        let tasks = if seed.is_multiple_of(3) {
            vec![MemberChange::Demote(a), MemberChange::Remove(b), MemberChange::Remove(a)]
        } else {
            vec![MemberChange::Remove(a), MemberChange::Remove(b)]
        };
        (network, tasks.into_iter().map(Task::Change).collect())
    });
}

#[test]
fn replicas_are_replaced_in_any_schedule() {
    many(|seed| {
        let network = elected();
        let (spare, first) = (spare(&network), network.placed(P1));
        let old = first[seed as usize % 3];
        let next = first[(seed as usize + 1) % 3];
        let remove = |replica| vec![Task::Change(MemberChange::Remove(replica))];
        // The last one moves to where the first was.
        (network, [join(spare[0], 100), remove(old.replica), join(old.node, 101), remove(next.replica)].concat())
    });
}

#[test]
fn a_replica_that_the_control_group_says_is_gone_goes_though_nobody_told_it() {
    let mut network = elected();
    let first = network.placed(P1);
    let follower = first.iter().find(|m| Some(m.node) != network.leader(P1)).unwrap();
    network.input(follower.node, Input::Destroy { replica: follower.replica });
    network.settle();
    assert!(network.status(follower.node, P1).is_none() && network.gone.contains(&follower.replica));
    network.crash(follower.node, 0);
    network.start(follower.node);
    network.ticks(40);
    assert!(network.host(follower.node).rows.applied(follower.replica).unwrap().is_none());
    write(&mut network, 1);
    // Said of one that is about to be made.
    let node = spare(&network)[0];
    let request = network.create(node, P1, ReplicaId(100));
    network.input(node, Input::Destroy { replica: ReplicaId(100) });
    network.settle();
    assert!(matches!(network.created(node, request), Some(CreateOutcome::Refused { .. })));
    network.crash(node, 0);
    network.start(node);
    network.settle();
    assert!(network.status(node, P1).is_none());
}
