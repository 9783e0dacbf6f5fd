//! Large messages, leaders that change between their parts, and the sweep of what was abandoned.

use mailraft_storage::{MailboxId, NodeId, PartitionId, Rows, Table};
use raft::eraftpb::MessageType;

use crate::faults::Fault;
use crate::scenarios::events;
use crate::scenarios::script::{Client, MS, S, Script, Scripted};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
/// Past the time after which an upload that did not become live is swept.
const PAST_SWEEPING_MS: i64 = 2 * 3_600_000;
/// More uploads are never open.
const OPEN_MAX: usize = 16;

/// The leader changes after half of the chunks. The next owner takes the slow second attempt for abandoned and sweeps
/// it between its parts; then it sweeps a third right before it would become live.
pub fn swept_under_way(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let (leader, home) = (s.leader(P)?, s.followers(P)?[0]);
    let (client, bystander) = (s.client(home, P)?, s.client(home, P)?);
    s.deliver(bystander)?;
    let second_part = s.hold(events::chunk(client, 1));
    s.begin_large_delivery(client);
    s.until_after("half of it is durable", 200 * MS, events::chunk_done(client))?;
    s.until_held(second_part, 1, 100 * MS)?;
    s.kill(leader);
    s.lose(second_part);

    let second_part = s.hold(events::chunk(client, 1));
    let loading = s.hold(events::loads());
    let half = move |w: &World| {
        let elsewhere = w.clients().session(client.0).filter(|s| s.conn.is_some_and(|(_, node)| node != leader));
        elsewhere.is_some_and(|s| s.machine.chunks_durable() == Some(1))
    };
    s.until("half of the second attempt is durable", S, half)?;
    let next = s.leader(P)?;
    s.until_held(loading, 1, 100 * MS)?;
    s.until_held(second_part, 1, 100 * MS)?;
    let abandoned = open(&s.world, next)?;
    s.expect("the first upload and a second are open", abandoned.len() >= 2)?;
    s.release(loading)?;
    clocks_jump(&mut s)?;
    swept(&mut s, bystander, next, abandoned)?;
    s.release(second_part)?;
    s.ok(client)?;

    // Once more, and this time all parts are there when the sweep begins.
    let loading = s.hold(events::loads());
    s.world.actors_panic(next);
    s.world.settle();
    s.wait(20 * MS)?;
    let live = s.hold(events::asks(client, next));
    s.begin_large_delivery(client);
    s.until_held(live, 1, S)?;
    s.until_held(loading, 1, S)?;
    let whole = open(&s.world, next)?;
    s.expect("the upload is whole", whole.len() == 1)?;
    s.release(loading)?;
    clocks_jump(&mut s)?;
    swept(&mut s, bystander, next, whole)?;
    s.release(live)?;
    let again = move |w: &World| w.clients().session(client.0).is_some_and(|s| s.machine.chunks_durable().is_some());
    s.until("the client hears that its body is lost", 100 * MS, again)?;
    s.ok(client)?;
    s.expect("nothing is left open", open(&s.world, next)?.is_empty())?;
    s.restart(leader)?;
    s.expect_clean()
}

/// The owner decides to sweep and to make live at the same time: the first in the log wins.
pub fn live_before_the_sweep(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let (leader, home) = (s.leader(P)?, s.followers(P)?[0]);
    let (client, bystander) = (s.client(home, P)?, s.client(home, P)?);
    s.deliver(bystander)?;
    let loading = s.hold(events::loads());
    s.world.actors_panic(leader);
    s.world.settle();
    let live = s.hold(events::asks(client, leader));
    s.begin_large_delivery(client);
    s.until_held(live, 1, S)?;
    s.until_held(loading, 1, S)?;
    s.expect("the upload is whole", open(&s.world, leader)?.len() == 1)?;
    s.release(loading)?;
    clocks_jump(&mut s)?;
    s.expect("the upload is open still", open(&s.world, leader)?.len() == 1)?;
    // It is decided to make it live; while that is in flight the sweep is due.
    let acks = s.hold(events::raft(MessageType::MsgAppendResponse, P, None, Some(leader)));
    let index = s.status(leader, P)?.last.0 + 1;
    s.release(live)?;
    let decided = move |w: &World| crate::scenarios::script::status(w, leader, P).is_some_and(|s| s.last.0 == index);
    s.until("it is decided", 200 * MS, decided)?;
    s.begin_delivery(bystander);
    s.wait(20 * MS)?;
    s.release(acks)?;
    s.ok(client)?;
    s.expect("the first in the log made it live", s.position(client).is_some_and(|at| at.index == index))?;
    s.ok(bystander)?;
    s.wait(S)?;
    s.expect_clean()
}

/// All clocks jump past the time after which what was abandoned is swept.
fn clocks_jump(s: &mut Script) -> Scripted<()> {
    for node in s.world.nodes() {
        s.fault(Fault::Jump { node, ms: PAST_SWEEPING_MS })?;
    }
    // They tell each other.
    s.wait(150 * MS)
}

/// A bystander's writes make the owner decide, until these uploads are gone.
fn swept(s: &mut Script, bystander: Client, node: NodeId, abandoned: Vec<Vec<u8>>) -> Scripted<()> {
    for _ in 0..4 {
        s.deliver(bystander)?;
    }
    let gone = move |w: &World| open(w, node).is_ok_and(|open| !open.iter().any(|key| abandoned.contains(key)));
    s.until("what seemed abandoned is swept", 200 * MS, gone)
}

/// Keys of uploads that are open by a node's rows.
fn open(world: &World, node: NodeId) -> Scripted<Vec<Vec<u8>>> {
    let mailbox =
        world.mailboxes().ids().find(|id| world.mailboxes().partition(*id) == P).unwrap_or(MailboxId::PARTITION);
    let replica = world.replica(node, P).ok_or("the node has no replica")?;
    let rows = world.host(node).rows.scan(replica, mailbox, Table::OpenBodies, &[], &[], OPEN_MAX);
    rows.map(|rows| rows.into_iter().map(|(key, _)| key).collect()).map_err(|e| e.to_string())
}
