//! A follower that was away longer than the log reaches, and leaders that die while they send it a snapshot.

use mailraft_cluster::{Input, SnapshotEvent};
use mailraft_storage::PartitionId;

use crate::scenarios::events;
use crate::scenarios::script::{S, Script, Scripted, rows_at};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const LOG_KEEP: u64 = 20;

/// The sender dies in the middle; the next leader sends its own.
pub fn dies(seed: u64) -> Scripted<Ran> {
    let mut s = Script::keeping(seed, 3, 1, LOG_KEEP)?;
    let (leader, away, next) = (s.leader(P)?, s.followers(P)?[0], s.followers(P)?[1]);
    let writer = s.client(next, P)?;
    s.leave_behind(away, P, writer)?;
    let half = s.hold(events::snapshot(P, leader, away));
    s.restart(away)?;
    s.until_held(half, 1, 5 * S)?;
    s.kill(leader);
    s.lose(half);
    // It commits nothing before the one that was away has its log, which begins with a snapshot.
    let replica = s.replica(away, P)?;
    s.until_after("the next leader's snapshot is in place", 5 * S, events::installed(away, replica))?;
    s.led_by(P, next, S)?;
    s.deliver(writer)?;
    s.until("it has caught up", 5 * S, move |w| rows_at(w, away, P) == rows_at(w, next, P))?;
    s.restart(leader)?;
    s.expect_clean()
}

/// The snapshot of the leader that died was whole, and comes while the next leader's is being installed, and
/// once more after it.
pub fn comes_late(seed: u64) -> Scripted<Ran> {
    let mut s = Script::keeping(seed, 3, 1, LOG_KEEP)?;
    let (leader, away, next) = (s.leader(P)?, s.followers(P)?[0], s.followers(P)?[1]);
    let writer = s.client(next, P)?;
    s.leave_behind(away, P, writer)?;
    let late = s.hold(events::snapshot(P, leader, away));
    s.restart(away)?;
    s.until_held(late, 1, 5 * S)?;
    // It never hears that it arrived, so another node must lead before a second is sent.
    s.kill(leader);
    let replica = s.replica(away, P)?;
    s.until_before("the next leader's snapshot is in place", 5 * S, events::installed(away, replica))?;
    s.expect("it is being installed", s.status(away, P)?.installing)?;
    s.release(late)?;
    let installed = s.world.witness().installed();
    s.led_by(P, next, S)?;
    s.deliver(writer)?;
    s.until("it has caught up", 5 * S, move |w| rows_at(w, away, P) == rows_at(w, next, P))?;
    s.expect("one snapshot was put in place", s.world.witness().installed() == installed + 1)?;
    s.restart(leader)?;
    s.expect_clean()
}

/// The leader takes its snapshot for lost and sends a newer one; both come, the second while the first is being
/// installed.
pub fn comes_twice(seed: u64) -> Scripted<Ran> {
    let mut s = Script::keeping(seed, 3, 1, LOG_KEEP)?;
    let (leader, away) = (s.leader(P)?, s.followers(P)?[0]);
    let writer = s.client(s.followers(P)?[1], P)?;
    let (own, replica) = (s.replica(leader, P)?, s.replica(away, P)?);
    s.leave_behind(away, P, writer)?;
    let both = s.hold(events::snapshot(P, leader, away));
    s.restart(away)?;
    s.until_held(both, 1, 5 * S)?;
    for _ in 0..3 {
        s.deliver(writer)?;
    }
    let failed = SnapshotEvent::Sent { replica: own, to: replica, ok: false };
    s.world.input(leader, Input::Snapshot(failed));
    s.world.settle();
    s.until_held(both, 2, 5 * S)?;
    s.release_one(both)?;
    s.until_before("the rows are in place", S, events::installed(away, replica))?;
    s.expect("the first is being installed", s.status(away, P)?.installing)?;
    s.release(both)?;
    s.deliver(writer)?;
    s.until("it has caught up", 5 * S, move |w| rows_at(w, away, P) == rows_at(w, leader, P))?;
    s.expect_clean()
}
