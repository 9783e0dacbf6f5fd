//! Clients of a node without a replica of their partition.

use mailraft_checkers::Ended;
use mailraft_storage::PartitionId;

use crate::faults::Fault;
use crate::scenarios::script::{MS, S, Script, Scripted, rows_at};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// Leaders change, and links carry only one way.
pub fn find_the_leader(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 4)?;
    let home = s.outsiders(P)[0];
    let client = s.client(home, P)?;
    s.deliver(client)?;

    // The leader dies while it is asked.
    let first = s.leader(P)?;
    s.begin_delivery(client);
    s.kill(first);
    let second = s.led_by_another(P, &[first])?;
    s.ok(client)?;
    s.restart(first)?;

    // The leader does not hear the node: only another leader can serve it.
    let deaf = s.fault(Fault::OneWay { from: home, to: second })?;
    s.begin_delivery(client);
    s.wait(100 * MS)?;
    s.expect("it waits", s.ended(client).is_none())?;
    s.kill(second);
    let third = s.led_by_another(P, &[second])?;
    s.ok(client)?;
    s.over(deaf)?;
    s.restart(second)?;

    // The node does not hear the leader, which does what it is asked; the next one has the answer.
    s.deliver(client)?;
    let third = if s.leader(P)? == third { third } else { s.leader(P)? };
    let mute = s.fault(Fault::OneWay { from: third, to: home })?;
    let before = rows_at(&s.world, third, P);
    s.begin_delivery(client);
    s.until("it is done", S, move |w| rows_at(w, third, P) > before)?;
    let done = rows_at(&s.world, third, P);
    s.wait(300 * MS)?;
    s.expect("the client does not know", s.ended(client).is_none())?;
    s.kill(third);
    s.led_by_another(P, &[third])?;
    s.ok(client)?;
    s.expect("it was done once", s.position(client).map(|at| at.index) <= done)?;
    s.over(mute)?;
    s.restart(third)?;
    s.wait(6 * S)?;

    // Nobody dies: the lead goes to a node that hears all and is heard by all.
    let leader = s.leader(P)?;
    let mute = s.fault(Fault::OneWay { from: leader, to: home })?;
    s.wait(10 * S)?;
    let next = s.leader(P)?;
    s.expect("another node leads", next != leader)?;
    s.deliver(client)?;
    s.over(mute)?;
    s.wait(6 * S)?;

    // The node hears nobody for long: the client gives up, and once the links are whole it is served again.
    let cut = s.fault(Fault::Partition { side: vec![home] })?;
    s.begin_delivery(client);
    let ended = s.answer(client)?;
    s.expect("it gives up", matches!(ended, Ended::Unknown | Ended::NotDone))?;
    s.over(cut)?;
    s.wait(2 * S)?;
    s.deliver(client)?;
    s.expect_clean()
}
