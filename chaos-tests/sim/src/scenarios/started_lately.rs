//! A leader that started lately has heard of few clocks, and most of these are wrong.

use mailraft_checkers::Op;
use mailraft_storage::PartitionId;

use crate::faults::Fault;
use crate::scenarios::script::{S, Script, Scripted};
use crate::setup::Setup;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const HOUR_MS: i64 = 3_600_000;
/// At the start all clocks are nearly right.
const CLOCKS_APART: u64 = 200_000;

/// Of five nodes two are down, and two of the other three show a time that is most of a day wrong: one of them leads,
/// and knows of no other clock. A sender repeats what was accepted a moment ago.
pub fn among_wrong_clocks(seed: u64) -> Scripted<Ran> {
    for (theirs, ours) in [(30, 31), (31, 30), (-31, -30)] {
        let mut s = Script::of(Setup { nodes: 5, partitions: 1, clocks_apart: CLOCKS_APART, ..Setup::new(seed) })?;
        let (first, outsiders) = (s.leader(P)?, s.outsiders(P));
        s.kill(first);
        s.kill(outsiders[1]);
        for node in s.members(P)? {
            s.kill(node);
            s.restart(node)?;
        }
        let leader = s.led_by_another(P, &[])?;
        s.led_by_another(PartitionId::CONTROL, &[])?;
        s.wait(2 * S)?;
        let sender = s.client(outsiders[0], P)?;
        let op = Op::Deliver { marker: s.world.clients_mut().new_marker(), deduplicate: true };
        s.does(sender, op.clone())?;
        let wrong = [
            s.fault(Fault::Jump { node: outsiders[0], ms: theirs * HOUR_MS })?,
            s.fault(Fault::Jump { node: leader, ms: ours * HOUR_MS })?,
        ];
        for _ in 0..3 {
            s.wait(S)?;
            s.does(sender, op.clone())?;
        }
        s.expect("it still leads", s.leader(P)? == leader)?;
        wrong.into_iter().try_for_each(|clock| s.over(clock))?;
        s.restart(first)?;
        s.restart(outsiders[1])?;
        s.wait(2 * S)?;
        s.does(sender, op)?;
        let there = s.messages(sender, "INBOX")?;
        s.expect("it is there once", there == 1)?;
        let ran = s.expect_clean()?;
        if theirs < 0 {
            return Ok(ran);
        }
    }
    Err("no turn was the last".to_owned())
}
