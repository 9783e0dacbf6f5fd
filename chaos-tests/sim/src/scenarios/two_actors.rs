//! Two actors of one mailbox in one term.

use mailraft_storage::{MailboxId, NodeId, PartitionId};
use raft::eraftpb::MessageType;

use crate::host::Waiter;
use crate::scenarios::events;
use crate::scenarios::script::{MS, S, Script, Scripted, process};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// Actors panic while an entry is in flight; the next start at once and wait for it.
pub fn in_one_term(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let (leader, term, mailbox) = (s.leader(P)?, s.term(P)?, s.mailbox(P)?);
    let (one, other) = (s.client(s.followers(P)?[0], P)?, s.client(s.followers(P)?[1], P)?);
    s.deliver(one)?;
    s.deliver(other)?;
    let acks = s.hold(events::raft(MessageType::MsgAppendResponse, P, None, Some(leader)));
    let index = s.status(leader, P)?.last.0 + 1;
    s.begin_delivery(one);
    let in_log = move |w: &World| crate::scenarios::script::status(w, leader, P).is_some_and(|s| s.last.0 == index);
    s.until("the change is in the log", 100 * MS, in_log)?;
    for _ in 0..2 {
        let before = actor(&s.world, leader, mailbox);
        s.expect("there is an actor", before.is_some())?;
        s.world.actors_panic(leader);
        s.world.settle();
        let next = move |w: &World| {
            let now = actor(w, leader, mailbox);
            now.is_some() && now != before && waits_for_slot(w, leader, mailbox, now)
        };
        s.until("the next actor waits for its slot", S, next)?;
    }
    s.begin_delivery(other);
    s.wait(100 * MS)?;
    s.expect("nobody has an answer", s.ended(one).is_none() && s.ended(other).is_none())?;
    s.expect("the entry is in flight still", s.status(leader, P)?.commit.0 < index)?;
    s.release(acks)?;
    s.ok(one)?;
    s.expect("the answer is that of the first actor's entry", s.position(one).is_some_and(|at| at.index == index))?;
    s.ok(other)?;
    s.expect("it was one term", s.term(P)? == term)?;
    s.expect_clean()
}

/// The number of a mailbox's actor.
fn actor(world: &World, node: NodeId, mailbox: MailboxId) -> Option<u64> {
    process(world, node)?.actors.get(&mailbox).map(|a| a.number)
}

fn waits_for_slot(world: &World, node: NodeId, of: MailboxId, number: Option<u64>) -> bool {
    let is = |w: &Waiter| matches!(w, Waiter::Slot { mailbox, actor } if *mailbox == of && Some(*actor) == number);
    process(world, node).is_some_and(|p| p.waiting.values().any(is))
}
