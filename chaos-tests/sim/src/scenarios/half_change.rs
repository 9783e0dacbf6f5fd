//! Restarts with a change of members half applied.

use mailraft_cluster::{MemberChange, Role};
use mailraft_storage::{NodeId, PartitionId, ReplicaId};
use raft::eraftpb::MessageType;

use crate::scenarios::events;
use crate::scenarios::script::{MS, S, Script, Scripted};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// How far the change came on the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// In its log alone.
    Appended,
    /// Committed, and the hard state that says so is not synced.
    CommitNotDurable,
    /// Raft goes by it, the rows don't say so.
    NotInRows,
    /// The rows say so, and are not flushed.
    NotFlushed,
}

/// A follower is demoted and promoted; all processes die, or only the leader's, with the change at each step.
pub fn restarts(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    for half in [Half::Appended, Half::CommitNotDurable, Half::NotInRows, Half::NotFlushed] {
        for all in [true, false] {
            turn(&mut s, half, all)?;
        }
    }
    s.expect_clean()
}

fn turn(s: &mut Script, half: Half, all: bool) -> Scripted<()> {
    let leader = s.leader(P)?;
    let (own, follower) = (s.replica(leader, P)?, s.followers(P)?[0]);
    let keeps_up = move |w: &World| {
        let status = crate::scenarios::script::status(w, leader, P);
        status.is_some_and(|s| s.role == Role::Leader && s.followers.iter().all(|f| f.active && f.matched == s.last))
    };
    s.until("everyone keeps up", 3 * S, keeps_up)?;
    let before = learners(&s.world, leader);
    let change = match before.first() {
        Some(learner) => MemberChange::Promote(*learner),
        None => MemberChange::Demote(s.replica(follower, P)?),
    };
    let index = s.status(leader, P)?.last.0 + 1;
    let alone = (half == Half::Appended).then(|| s.hold(events::raft(MessageType::MsgAppend, P, Some(leader), None)));
    s.reconfigure(P, change)?;
    s.expect("the change is in the log", s.status(leader, P)?.last.0 == index)?;
    let commits = events::synced(leader, own, move |w| w.hard_state.as_ref().is_some_and(|h| h.commit >= index));
    let applies = events::applied(leader, own, move |at| at == index);
    match half {
        Half::Appended => {
            let appends = events::synced(leader, own, move |w| w.append.iter().any(|e| e.index == index));
            s.until_after("the change is durable on the leader", 200 * MS, appends)?;
        }
        Half::CommitNotDurable => s.until_before("the commit becomes durable", 200 * MS, commits)?,
        Half::NotInRows => s.until_before("the change is applied", 200 * MS, applies)?,
        Half::NotFlushed => {
            s.until_after("the change is applied", 200 * MS, applies)?;
            s.expect("the rows say so", learners(&s.world, leader) != before)?;
            s.expect("the rows are not flushed", s.status(leader, P)?.flushed.0 < index)?;
        }
    }
    let commit = s.status(leader, P)?.commit.0;
    s.expect("the change is committed or not", (commit >= index) == (half != Half::Appended))?;
    let dies: Vec<NodeId> = if all { s.world.nodes() } else { vec![leader] };
    dies.iter().for_each(|node| s.kill(*node));
    alone.into_iter().for_each(|hold| s.lose(hold));
    if !all {
        // With a learner only two vote, and one of them is gone.
        s.wait(600 * MS)?;
    }
    for node in dies {
        s.restart(node)?;
    }
    s.led_by_another(P, &[])?;
    let writer = s.client(follower, P)?;
    s.deliver(writer)?;
    let agree = |w: &World| w.nodes().iter().all(|n| learners(w, *n) == learners(w, leader));
    s.until("all rows hold one configuration", 3 * S, agree)?;
    let made = learners(&s.world, leader) != before;
    s.expect("a change that was committed is made", made || half == Half::Appended)
}

/// Who learns, by a node's rows.
fn learners(world: &World, node: NodeId) -> Vec<ReplicaId> {
    let applied = world.replica(node, P).and_then(|replica| world.applied(node, replica));
    applied.map(|a| a.learners).unwrap_or_default()
}
