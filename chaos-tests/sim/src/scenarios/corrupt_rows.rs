//! Rows turn bad on one node's disk: others serve what they hold, nobody gets the damage, and the operator replaces
//! the replica.

use mailraft_checkers::{Ended, Op, Reply};
use mailraft_storage::{NodeId, PartitionId, RowKey, Table};

use crate::faults::Fault;
use crate::scenarios::events;
use crate::scenarios::script::{Client, S, Script, Scripted, process, rows_at, status};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const LOG_KEEP: u64 = 20;
/// A write waits no longer than a failover may take.
const FAILOVER_MAX: u64 = S;
/// A replica is replaced within this time.
const REPLACED_WITHIN: u64 = 10 * S;

/// The leader's rows of one mailbox are damaged, and its actor is gone: another leads at once, and for good.
pub fn of_the_leader(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 2)?;
    let leader = s.leader(P)?;
    let (viewer, writer) = (s.client(s.followers(P)?[0], P)?, s.client(s.outsiders(P)[0], P)?);
    for _ in 0..3 {
        s.deliver(writer)?;
    }
    s.opens(viewer, "INBOX")?;
    let mailbox = s.mailbox(P)?;
    corrupt(&mut s, leader, P, |key| key.mailbox == mailbox && key.table == Table::Places.number())?;
    s.fault(Fault::ActorPanic { node: leader })?;
    served_at_once(&mut s, writer)?;
    s.led_by_another(P, &[leader])?;
    s.expect("the leader knows", status(&s.world, leader, P).is_some_and(|r| r.damaged))?;
    replaced(&mut s, leader)?;
    s.expect("its node lives", process(&s.world, leader).is_some())?;
    let all = move |w: &World| {
        let following = w.clients().session(viewer.0).and_then(|s| s.following());
        following.is_some_and(|f| f.uids().count() == 4)
    };
    s.until("the viewer sees every message", 3 * S, all)?;
    s.expect_clean()
}

/// The contents of messages are damaged beside a leader that has their mailbox in memory: it refuses to show one, and the next
/// leader shows it.
pub fn of_a_loaded_mailbox(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 2)?;
    let leader = s.leader(P)?;
    let reader = s.client(s.outsiders(P)[0], P)?;
    s.deliver(reader)?;
    s.opens(reader, "INBOX")?;
    corrupt(&mut s, leader, P, |key| key.table == Table::Contents.number())?;
    let folder = s.session(reader)?.following().map(|f| f.folder());
    let Some(folder) = folder else { return Err(s.failed("no folder is open")) };
    let fetch = Op::Fetch { folder, uids: [1].into_iter().collect() };
    s.begin(reader, fetch.clone());
    let refused = s.answer(reader)?;
    let told = matches!(refused, Ended::NotDone) && s.world.clients().refused_damaged();
    s.expect("the damage is told, and nothing else", told)?;
    s.led_by_another(P, &[leader])?;
    match s.does(reader, fetch)? {
        Reply::Fetched(seen) => s.expect("the next leader shows the message", seen.len() == 1)?,
        other => return Err(s.failed(&format!("FETCH is answered by {other:?}"))),
    }
    replaced(&mut s, leader)?;
    s.expect_clean()
}

/// A follower's rows are damaged; it becomes the leader, and another one's log is so old that it needs a snapshot.
pub fn of_a_snapshot_sender(seed: u64) -> Scripted<Ran> {
    let mut s = Script::keeping(seed, 5, 1, LOG_KEEP)?;
    let (leader, damaged, away) = (s.leader(P)?, s.followers(P)?[0], s.followers(P)?[1]);
    let writer = s.client(s.outsiders(P)[0], P)?;
    s.leave_behind(away, P, writer)?;
    let replica = s.replica(damaged, P)?;
    corrupt(&mut s, damaged, P, |key| key.table == Table::Places.number())?;
    let from_damaged = s.hold(events::snapshot(P, damaged, away));
    s.kill(leader);
    s.restart(away)?;
    let knows = move |w: &World| w.host(damaged).told_damaged.contains(&replica);
    s.until("the next leader finds that it can't send its rows", 5 * S, knows)?;
    s.restart(leader)?;
    // Sooner than balance would do it.
    s.led_by(P, leader, FAILOVER_MAX)?;
    s.until("who was away has caught up", 5 * S, move |w| rows_at(w, away, P) == rows_at(w, leader, P))?;
    s.expect("nothing was sent of the damaged rows", s.held(from_damaged) == 0)?;
    served_at_once(&mut s, writer)?;
    replaced(&mut s, damaged)?;
    s.expect_clean()
}

/// The keys of mailboxes are damaged in a leader's replica of the control group: it leads nothing any more.
pub fn of_the_control_group(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 2)?;
    let leader = s.leader(P)?;
    let writer = s.client(s.outsiders(P)[0], P)?;
    s.deliver(writer)?;
    corrupt(&mut s, leader, PartitionId::CONTROL, |key| key.table == Table::MailboxKeys.number())?;
    s.fault(Fault::ActorPanic { node: leader })?;
    served_at_once(&mut s, writer)?;
    s.until("its node is set aside", REPLACED_WITHIN, move |w| w.host(leader).lost.is_some())?;
    s.until("its replicas are replaced", REPLACED_WITHIN, |w| w.moves().count() > 0 && w.moves().are_done())?;
    s.expect("nobody counts on it", !s.members(P)?.contains(&leader))?;
    s.expect_clean()
}

/// Rows of a node's replica that are on its disk turn bad.
fn corrupt(s: &mut Script, node: NodeId, partition: PartitionId, which: impl Fn(&RowKey) -> bool) -> Scripted<()> {
    s.flush(node)?;
    let replica = s.replica(node, partition)?;
    let host = s.world.host_mut(node);
    let keys: Vec<RowKey> = host.rows.keys(replica).into_iter().filter(which).collect();
    let some = !keys.is_empty();
    host.damage_rows(replica, keys);
    s.expect("there are rows to damage", some)
}

fn served_at_once(s: &mut Script, writer: Client) -> Scripted<()> {
    let begun = s.world.now();
    s.deliver(writer)?;
    s.expect("a write takes no longer than a failover", s.world.now() - begun <= FAILOVER_MAX)
}

/// The operator replaces a node's replica.
fn replaced(s: &mut Script, node: NodeId) -> Scripted<()> {
    let done = move |w: &World| w.moves().count() > 0 && w.moves().are_done() && status(w, node, P).is_none();
    s.until("the damaged replica is replaced", REPLACED_WITHIN, done)
}
