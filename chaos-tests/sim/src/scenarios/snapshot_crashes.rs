//! A node dies at each step of a snapshot's installation.

use mailraft_storage::log::InstallMark;
use mailraft_storage::{NodeId, PartitionId, ReplicaId};

use crate::scenarios::events;
use crate::scenarios::script::{S, Script, Scripted, process, rows_at};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const LOG_KEEP: u64 = 20;

/// One snapshot, five deaths: before the mark, after it, among the rows, before the log's reset, after it.
pub fn five_deaths(seed: u64) -> Scripted<Ran> {
    let mut s = Script::keeping(seed, 3, 1, LOG_KEEP)?;
    let (leader, away) = (s.leader(P)?, s.followers(P)?[0]);
    let replica = s.replica(away, P)?;
    let writer = s.client(leader, P)?;
    let before = s.status(away, P)?.applied.0;
    s.leave_behind(away, P, writer)?;
    s.restart(away)?;

    let marks = || events::synced(away, replica, |w| matches!(w.mark, Some(InstallMark::Begun(_))));
    s.until_before("the mark becomes durable", 5 * S, marks())?;
    let staged = s.world.host(away).staged.keys().any(|(of, _)| *of == replica);
    s.expect("the snapshot is there and not marked", staged && !is_marked(&s, away, replica))?;
    dies(&mut s, away)?;

    s.until_after("the mark becomes durable", 5 * S, marks())?;
    s.expect("it is marked, the rows are the old ones", is_marked(&s, away, replica))?;
    dies(&mut s, away)?;

    s.until_before("the rows are in place", 5 * S, events::installed(away, replica))?;
    s.world.host_mut(away).dies_at_install = true;
    s.until("it dies among the rows", S, move |w| process(w, away).is_none())?;
    s.expect("it is still marked", is_marked(&s, away, replica))?;
    s.restart(away)?;

    s.until_after("the rows are in place", 5 * S, events::installed(away, replica))?;
    s.expect("the mark is there still", is_marked(&s, away, replica))?;
    s.expect("the rows are new", rows_at(&s.world, away, P).is_some_and(|at| at > before))?;
    dies(&mut s, away)?;

    s.begin_delivery(writer);
    s.until_after("the log begins anew", 5 * S, events::synced(away, replica, |w| w.reset.is_some()))?;
    let position = rows_at(&s.world, away, P);
    s.expect("the mark is gone", !is_marked(&s, away, replica))?;
    dies(&mut s, away)?;
    s.until_before("apply goes on", 5 * S, events::applied(away, replica, |_| true))?;
    s.expect("it goes on after the snapshot", rows_at(&s.world, away, P) == position)?;
    dies(&mut s, away)?;

    s.ok(writer)?;
    s.until("it has caught up", 5 * S, move |w| rows_at(w, away, P) == rows_at(w, leader, P))?;
    s.expect_clean()
}

fn dies(s: &mut Script, node: NodeId) -> Scripted<()> {
    s.kill(node);
    s.restart(node)
}

/// Whether the durable log says that a snapshot is being installed.
fn is_marked(s: &Script, node: NodeId, replica: ReplicaId) -> bool {
    let state = s.world.host(node).log.as_log().state(replica).ok().flatten();
    state.is_some_and(|state| state.installing.is_some())
}
