//! A leader that everyone hears and that hears nobody.

use mailraft_storage::PartitionId;

use crate::faults::Fault;
use crate::scenarios::script::{MS, S, Script, Scripted};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const WRITES: usize = 120;
/// A write takes no longer than this while no leader changes: an order to take the lead that is not heard would stop
/// writes for longer.
const CALM_WRITE_MAX: u64 = 100 * MS;

/// It is deposed, and is not handed the lead back before it hears again, though it goes on speaking.
pub fn is_deposed(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let preferred = s.leader(P)?;
    let others = s.followers(P)?;
    let writer = s.client(others[0], P)?;
    s.deliver(writer)?;
    let mut deaf = Vec::new();
    for other in &others {
        deaf.push(s.fault(Fault::OneWay { from: *other, to: preferred })?);
    }
    let next = s.led_by_another(P, &[preferred])?;
    s.deliver(writer)?;
    let term = s.term(P)?;
    for _ in 0..WRITES {
        let begun = s.world.now();
        s.deliver(writer)?;
        let took = s.world.now() - begun;
        s.expect(&format!("a write takes less than {} ms", took / MS), took <= CALM_WRITE_MAX)?;
        // Seldom enough that it does not fall far behind.
        s.wait(100 * MS)?;
    }
    s.expect("nobody was disturbed", (s.leader(P)?, s.term(P)?) == (next, term))?;
    for fault in deaf {
        s.over(fault)?;
    }
    s.led_by(P, preferred, 15 * S)?;
    s.expect_clean()
}
