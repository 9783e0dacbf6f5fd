//! A replica moves to another node, and somebody dies at each step.

use mailraft_storage::PartitionId;

use crate::event::Event;
use crate::moves::Stage;
use crate::scenarios::script::{MS, S, Script, Scripted, process, status};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const STEPS: [Stage; 6] = [Stage::Place, Stage::Create, Stage::Add, Stage::Promote, Stage::Remove, Stage::Unplace];
/// A step is done after so many tries, whoever dies.
const TRIES_MAX: usize = 60;

/// How often the leader's replica moves.
const MOVES: usize = 2;
/// A write waits no longer than a failover may take.
const FAILOVER_MAX: u64 = S;

/// Who dies at each step of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    /// The node that the replica comes to.
    Joiner,
    /// The node that it leaves.
    Leaver,
    /// The partition's leader.
    Leader,
    /// The control group's leader.
    ControlLeader,
}

/// Four moves, with another one who dies at each step; right when the step is asked for, or a little later.
pub fn deaths(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 2)?;
    for (turn, dies) in [Dies::Joiner, Dies::Leaver, Dies::Leader, Dies::ControlLeader].into_iter().enumerate() {
        let members = s.members(P)?;
        let (from, to) = (members[turn % members.len()], s.outsiders(P)[turn % 2]);
        // Its steps are asked for one by one.
        let operator = s.hold(Box::new(|_, event| matches!(event, Event::Operate)));
        s.world.move_replica(P, from, to);
        let last = s.world.moves().count() - 1;
        s.expect("the move begins", last == turn)?;
        for (number, step) in STEPS.into_iter().enumerate() {
            s.expect(&format!("{step:?} is next"), s.world.moves().of(last).stage == step)?;
            s.until_held(operator, 1, S)?;
            s.release_one(operator)?;
            s.wait((number as u64 + turn as u64) % 3 * MS / 2)?;
            let node = match dies {
                Dies::Joiner => to,
                Dies::Leaver => from,
                Dies::Leader => s.leader(P)?,
                Dies::ControlLeader => s.leader(PartitionId::CONTROL)?,
            };
            s.kill(node);
            s.wait(if number % 2 == 0 { 100 * MS } else { 600 * MS })?;
            s.restart(node)?;
            s.led_by_another(P, &[])?;
            let writer = s.client(node, P)?;
            s.deliver(writer)?;
            s.led_by_another(PartitionId::CONTROL, &[])?;
            for _ in 0..TRIES_MAX {
                if s.world.moves().of(last).stage != step {
                    break;
                }
                s.until_held(operator, 1, S)?;
                s.release_one(operator)?;
                s.wait(200 * MS)?;
            }
        }
        s.expect("the move is done", s.world.moves().of(last).stage == Stage::Done)?;
        s.lose(operator);
        s.until("the replica that left is gone", 5 * S, move |w| status(w, from, P).is_none())?;
        s.expect("its node lives", process(&s.world, from).is_some())?;
        s.expect("the new one is there", s.members(P)?.contains(&to))?;
    }
    s.expect_clean()
}

/// The leader's own replica moves, twice; on every node one client follows INBOX and one writes, and none waits
/// longer than a failover takes.
pub fn of_the_leader(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 2)?;
    let nodes = s.world.nodes();
    let (mut viewers, mut writers) = (Vec::new(), Vec::new());
    for node in &nodes {
        let (viewer, writer) = (s.client(*node, P)?, s.client(*node, P)?);
        s.deliver(writer)?;
        s.opens(viewer, "INBOX")?;
        viewers.push(viewer);
        writers.push(writer);
    }
    for turn in 0..MOVES {
        let (from, to) = (s.leader(P)?, s.outsiders(P)[turn % 2]);
        s.world.move_replica(P, from, to);
        s.expect("the move begins", s.world.moves().count() == turn + 1)?;
        for _ in 0..TRIES_MAX {
            if s.world.moves().are_done() {
                break;
            }
            for writer in &writers {
                let begun = s.world.now();
                s.deliver(*writer)?;
                let took = s.world.now() - begun;
                s.expect(&format!("a write takes less than {} ms", took / MS), took <= FAILOVER_MAX)?;
                s.wait(20 * MS)?;
            }
        }
        s.expect("the move is done", s.world.moves().are_done() && s.members(P)?.contains(&to))?;
        s.until("the replica that left is gone", 5 * S, move |w| status(w, from, P).is_none())?;
    }
    let there = s.messages(writers[0], "INBOX")?;
    for viewer in viewers {
        let all = move |w: &World| {
            let following = w.clients().session(viewer.0).and_then(|s| s.following());
            following.is_some_and(|f| f.uids().count() == there)
        };
        s.until("every viewer sees every message", 3 * S, all)?;
    }
    s.expect_clean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Fault;

    /// With two voters a group stands still for good once one of them has lost its disk: nothing in the world would be
    /// wrong but the plan of faults.
    #[test]
    fn no_disk_is_lost_while_a_group_has_no_voter_to_spare() {
        let run = || -> Scripted<()> {
            let mut s = Script::calm(1, 5, 2)?;
            let (leader, followers) = (s.leader(P)?, s.followers(P)?);
            let [learns, other] = [followers[0], followers[1]];
            let operator = s.hold(Box::new(|_, event| matches!(event, Event::Operate)));
            s.world.changes_voters(P, learns, other);
            s.until_held(operator, 1, S)?;
            s.release_one(operator)?;
            s.until("one of three only learns", S, |w| w.moves().all().iter().all(|m| m.stage == Stage::Promote))?;
            let log = s.fault(Fault::CorruptLog { node: other, permille: 500 })?;
            s.fault(Fault::CorruptRows { node: other, draw: 7, rows: 1 << 30 })?;
            s.expect("it only dies", process(&s.world, other).is_none())?;
            s.over(log)?;
            s.release(operator)?;
            s.until("it votes again", 5 * S, |w| w.moves().are_done())?;
            let lost = s.fault(Fault::CorruptLog { node: other, permille: 500 })?;
            s.over(lost)?;
            s.expect("its disk is lost now", s.world.host(other).lost.is_some())?;
            s.until("its replicas are replaced", 10 * S, |w| {
                w.moves().all().iter().any(|m| !m.ballot) && w.moves().are_done()
            })?;
            let changes = s.world.moves().count();
            s.world.changes_voters(P, learns, leader);
            s.expect("whose disks are damaged is not known to everyone", s.world.moves().count() == changes)?;
            s.expect_clean().map(drop)
        };
        assert_eq!(run(), Ok(()));
    }
}
