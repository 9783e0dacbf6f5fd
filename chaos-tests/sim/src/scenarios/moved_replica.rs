//! A replica moves to another node, and somebody dies at each step.

use mailraft_storage::PartitionId;

use crate::operator::Stage;
use crate::run::Ran;
use crate::scenarios::script::{MS, S, Script, Told, process, status};
use crate::world::Event;

const P: PartitionId = PartitionId(1);
const STEPS: [Stage; 6] = [Stage::Place, Stage::Create, Stage::Add, Stage::Promote, Stage::Remove, Stage::Unplace];
/// A step is done after so many tries, whoever dies.
const TRIES_MAX: usize = 60;

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
pub fn deaths(seed: u64) -> Told<Ran> {
    let mut s = Script::calm(seed, 5, 2)?;
    for (turn, dies) in [Dies::Joiner, Dies::Leaver, Dies::Leader, Dies::ControlLeader].into_iter().enumerate() {
        let members = s.members(P)?;
        let (from, to) = (members[turn % members.len()], s.outsiders(P)[turn % 2]);
        // Its steps are asked for one by one.
        let operator = s.hold(Box::new(|_, event| matches!(event, Event::Operate)));
        s.world.move_replica(P, from, to);
        let last = s.world.moves.len() - 1;
        s.expect("the move begins", last == turn)?;
        for (number, step) in STEPS.into_iter().enumerate() {
            s.expect(&format!("{step:?} is next"), s.world.moves[last].stage == step)?;
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
                if s.world.moves[last].stage != step {
                    break;
                }
                s.until_held(operator, 1, S)?;
                s.release_one(operator)?;
                s.wait(200 * MS)?;
            }
        }
        s.expect("the move is done", s.world.moves[last].stage == Stage::Done)?;
        s.lose(operator);
        s.until("the replica that left is gone", 5 * S, move |w| status(w, from, P).is_none())?;
        s.expect("its node lives", process(&s.world, from).is_some())?;
        s.expect("the new one is there", s.members(P)?.contains(&to))?;
    }
    s.expect_clean()
}
