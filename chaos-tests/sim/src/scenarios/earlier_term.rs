//! A change that an earlier leader left in the log, and its client at the next one.

use mailraft_cluster::Role;
use mailraft_storage::{Index, PartitionId};
use raft::eraftpb::MessageType;

use crate::scenarios::events;
use crate::scenarios::script::{MS, S, Script, Scripted, process, rows_at, status};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
/// An entry's bytes at most.
const ENTRY_BYTES: usize = 1 << 20;

/// The next leader has the change uncommitted; its client asks again before and after it is applied there.
pub fn committed_later(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let first = s.leader(P)?;
    let (heir, third) = (s.followers(P)?[0], s.followers(P)?[1]);
    let (term, replica) = (s.term(P)?, s.replica(heir, P)?);
    let client = s.client(third, P)?;
    s.deliver(client)?;
    s.wait(200 * MS)?;
    let lost = s.hold(events::raft(MessageType::MsgAppend, P, Some(first), Some(third)));
    let acks = s.hold(events::raft(MessageType::MsgAppendResponse, P, Some(heir), Some(first)));
    let index = s.status(heir, P)?.last.0 + 1;
    s.begin_delivery(client);
    let durable = events::synced(heir, replica, move |w| w.append.iter().any(|e| e.index == index));
    s.until_after("one follower has the change", 200 * MS, durable)?;
    s.until_held(acks, 1, 200 * MS)?;
    s.expect("it is not committed", s.status(first, P)?.commit.0 < index)?;
    s.kill(first);

    // Nothing is committed by the next leader for a while.
    let still = s.hold(events::raft(MessageType::MsgAppend, P, Some(heir), Some(third)));
    s.until("the heir is elected", 2 * S, move |w| status(w, heir, P).is_some_and(|s| s.role == Role::Leader))?;
    for _ in 0..2 {
        s.until_after("the client asks before it is applied", S, events::from_client(client, heir))?;
        let owns = process(&s.world, heir).is_some_and(|p| p.leading.contains_key(&P));
        let applied = rows_at(&s.world, heir, P).is_some_and(|at| at >= index);
        s.expect("the heir answers nobody yet", !owns && !applied && s.ended(client).is_none())?;
    }
    s.release(still)?;
    s.until("the heir leads", S, move |w: &World| process(w, heir).is_some_and(|p| p.leading.contains_key(&P)))?;
    s.expect("the client waits still", s.ended(client).is_none())?;
    s.ok(client)?;
    let entry = s.world.host(heir).log.as_log().entries(replica, Index(index), Index(index + 1), ENTRY_BYTES);
    let of_term = entry.map_err(|e| e.to_string())?.first().map(|e| e.term);
    s.expect("its entry is that of the earlier term", of_term == Some(term.0))?;
    s.expect("the answer is that entry's", s.position(client).is_some_and(|at| at.index == index))?;
    s.lose(acks);
    s.lose(lost);
    s.restart(first)?;
    s.expect_clean()
}
