//! All nodes lose power at once.

use mailraft_storage::PartitionId;
use raft::eraftpb::MessageType;

use crate::faults::Fault;
use crate::scenarios::events;
use crate::scenarios::script::{MS, S, Script, Scripted, process, rows_at};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const OTHER: PartitionId = PartitionId(2);
/// Bytes of the logs that survive of what was not synced: a torn record each.
const TORN: [usize; 2] = [21, 150];

/// Logs are torn; a majority comes back alone, and later the one that had more in its log than the others.
pub fn at_once(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 2)?;
    let leader = s.leader(P)?;
    let [one, two] = [s.followers(P)?[0], s.followers(P)?[1]];
    let mut busy = Vec::new();
    for node in [leader, one, two] {
        for partition in [P, OTHER] {
            let client = s.client(node, partition)?;
            s.deliver(client)?;
            busy.push(client);
        }
    }
    // Of this one only the leader's log has anything.
    let alone = s.hold(events::raft(MessageType::MsgAppend, P, Some(leader), None));
    let (own, index) = (s.replica(leader, P)?, s.status(leader, P)?.last.0 + 1);
    s.begin_delivery(busy[0]);
    let durable = events::synced(leader, own, move |w| w.append.iter().any(|e| e.index == index));
    s.until_after("the leader's log has more", 100 * MS, durable)?;
    for client in busy.iter().skip(1).step_by(2) {
        s.begin_delivery(*client);
    }
    let torn = events::synced(one, s.replica(one, OTHER)?, |w| !w.append.is_empty());
    s.until_before("the others are writing", 200 * MS, torn)?;
    s.expect("a group is unsynced", process(&s.world, one).is_some_and(|p| p.writing.is_some()))?;
    s.expect("the logs differ", s.status(one, P)?.last.0 < index && s.status(two, P)?.last.0 < index)?;
    s.kill_torn(leader, usize::MAX >> 1);
    s.kill_torn(one, TORN[0]);
    let flipped = s.fault(Fault::TornBit { node: two, torn: TORN[1] })?;
    s.lose(alone);
    s.wait(S)?;

    s.restart(one)?;
    s.over(flipped)?;
    let next = s.led_by_another(P, &[leader])?;
    let writer = s.client(next, P)?;
    for _ in 0..3 {
        s.deliver(writer)?;
    }
    s.wait(S)?;
    s.restart(leader)?;
    s.expect("the one that comes late has another entry there", s.status(leader, P)?.last.0 >= index)?;
    s.until("it has what the others have", 5 * S, move |w| rows_at(w, leader, P) >= rows_at(w, next, P))?;
    s.expect_clean()
}
