//! Orders to take the lead that come long after the transfer was given up.

use mailraft_storage::PartitionId;
use raft::eraftpb::MessageType;

use crate::scenarios::events;
use crate::scenarios::script::{Hold, MS, S, Script, Scripted, leader};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
/// Long after a transfer was given up.
const LONG: u64 = 2 * S;

/// MsgTimeoutNow is held back, comes when writes go on, and comes once more in a later term.
pub fn arrives(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let preferred = s.leader(P)?;
    let hold = held_transfer(&mut s)?;
    let (second, term) = (s.leader(P)?, s.term(P)?);
    let other = s.followers(P)?.into_iter().find(|n| *n != preferred).unwrap_or(second);
    let writer = s.client(other, P)?;
    s.deliver(writer)?;
    s.wait(LONG)?;
    s.until_held(hold, 2, 5 * S)?;
    s.deliver(writer)?;
    s.expect("the transfer was given up", (s.leader(P)?, s.term(P)?) == (second, term))?;
    s.wait(50 * MS)?;
    s.release_one(hold)?;
    s.led_by(P, preferred, 2 * S)?;
    s.expect("it was elected by force", s.term(P)? > term)?;
    s.deliver(writer)?;
    let term = s.term(P)?;
    s.release(hold)?;
    s.wait(S)?;
    s.expect("an order of an earlier term changes nothing", s.term(P)? == term)?;
    s.expect_clean()
}

/// The same at a node that has lost entries' messages meanwhile: it disturbs, and must not lead.
pub fn arrives_at_a_short_log(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let preferred = s.leader(P)?;
    let hold = held_transfer(&mut s)?;
    let (second, term) = (s.leader(P)?, s.term(P)?);
    let other = s.followers(P)?.into_iter().find(|n| *n != preferred).unwrap_or(second);
    let writer = s.client(other, P)?;
    s.deliver(writer)?;
    let lost = s.hold(events::raft(MessageType::MsgAppend, P, Some(second), Some(preferred)));
    for _ in 0..3 {
        s.deliver(writer)?;
    }
    let (short, long) = (s.status(preferred, P)?.last, s.status(second, P)?.last);
    s.expect("the preferred leader's log is shorter", short < long)?;
    s.begin_delivery(writer);
    s.release_one(hold)?;
    s.until("a higher term is led", 5 * S, move |w| leader(w, P).is_some_and(|(_, t)| t > term))?;
    s.expect("the one with the short log does not lead", s.leader(P)? != preferred)?;
    s.ok(writer)?;
    s.lose(lost);
    s.lose(hold);
    s.expect_clean()
}

/// The preferred leader dies and comes back; the order to take the lead is held back.
fn held_transfer(s: &mut Script) -> Scripted<Hold> {
    let preferred = s.leader(P)?;
    s.kill(preferred);
    let second = s.led_by_another(P, &[preferred])?;
    let hold = s.hold(events::raft(MessageType::MsgTimeoutNow, P, Some(second), Some(preferred)));
    s.wait(500 * MS)?;
    s.restart(preferred)?;
    s.until_held(hold, 1, 10 * S)?;
    Ok(hold)
}
