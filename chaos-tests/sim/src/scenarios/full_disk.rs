//! Disks on which nothing can be written any more.

use mailraft_checkers::{Ended, Op};
use mailraft_storage::PartitionId;

use crate::faults::Fault;
use crate::scenarios::script::{S, Script, Scripted, process};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// The leader's, then another one's too, so that no majority is left; then they are freed.
pub fn one_then_two(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let first = s.leader(P)?;
    let home = s.followers(P)?[0];
    let client = s.client(home, P)?;
    s.deliver(client)?;
    let full = s.fault(Fault::FullDisk { node: first })?;
    s.begin_delivery(client);
    s.until("the leader ends", S, move |w| process(w, first).is_none())?;
    let next = s.led_by_another(P, &[first])?;
    s.ok(client)?;
    s.restart(first)?;
    s.expect("it can't start", process(&s.world, first).is_none())?;

    let second = s.followers(P)?.into_iter().chain([next]).find(|n| *n != home).unwrap_or(next);
    let full_too = s.fault(Fault::FullDisk { node: second })?;
    s.begin_delivery(client);
    s.until("the second ends", S, move |w| process(w, second).is_none())?;
    let ended = s.answer(client)?;
    s.expect("no write without a majority", matches!(ended, Ended::Unknown | Ended::NotDone))?;
    s.begin(client, Op::Status { folder: "INBOX".to_owned() });
    let ended = s.answer(client)?;
    s.expect("no read without a majority", matches!(ended, Ended::Unknown | Ended::NotDone))?;

    s.over(full)?;
    s.expect("the first starts", process(&s.world, first).is_some())?;
    s.led_by_another(P, &[second])?;
    s.deliver(client)?;
    s.over(full_too)?;
    s.expect("the second starts", process(&s.world, second).is_some())?;
    s.expect_clean()
}
