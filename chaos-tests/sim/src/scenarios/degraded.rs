//! A home that goes on alone and comes back, and standbys that are not what was applied.

use std::time::Duration;

use mailraft_cluster::mode::Mode;
use mailraft_cluster::regions::{Durability, RegionSettings};
use mailraft_storage::PartitionId;

use crate::faults::Fault;
use crate::scenarios::script::{S, Script, Scripted, leader, status};
use crate::scenarios::takeover::{HOME, SOUTH, from_home, geo, home_dies, region, says, south_serves};
use crate::setup::Setup;
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

fn mode(world: &World) -> Option<Mode> {
    let (node, _) = leader(world, PartitionId::CONTROL)?;
    status(world, node, PartitionId::CONTROL)?.mode.map(|mode| mode.mode)
}

/// 11: The home is alone and returns, and of one partition south lacks that answers wait again. It is not said to be whole,
/// and south takes over meanwhile.
pub fn it_is_whole_only_once_every_partition_says_so(seed: u64) -> Scripted<Ran> {
    let setup = Setup { degrade_after: Some(Duration::from_secs(1)), ..geo(seed) };
    let mut s = Script::of(setup)?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    let cut = s.cut(&SOUTH)?;
    s.deliver(writer)?;
    s.until("the home is alone", 5 * S, |w| mode(w) == Some(Mode::Alone))?;
    s.deliver(writer)?;
    s.over(cut)?;
    s.until("the home returns", 20 * S, |w| mode(w) == Some(Mode::Returning))?;
    let held = SOUTH.map(|node| s.hold(from_home(P, node)));
    s.wait(2 * S)?;
    s.expect("it is not whole yet", mode(&s.world).is_some_and(|mode| mode != Mode::Whole))?;
    home_dies(&mut s);
    held.into_iter().for_each(|hold| s.lose(hold));
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    s.expect_clean()
}

/// A home whose answers may run ahead is to promise that none does. South lacks some of one partition, and it is said to, until it
/// has them.
pub fn what_was_answered_by_less_is_missing_until_it_is_held(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(region(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    let held = SOUTH.map(|node| s.hold(from_home(P, node)));
    s.deliver(writer)?;
    let settings = RegionSettings { durability: Some(Durability::Geo), ..RegionSettings::default() };
    s.fault(Fault::Settings { settings })?;
    s.until("something is said to be missing", 5 * S, |w| mode(w) == Some(Mode::Returning))?;
    s.wait(2 * S)?;
    s.expect("it is missing yet", mode(&s.world) == Some(Mode::Returning))?;
    for hold in held {
        s.release(hold)?;
    }
    s.until("nothing is missing", 5 * S, |w| mode(w) == Some(Mode::Whole))?;
    s.deliver(writer)?;
    s.expect_clean()
}

/// Less is promised in the moment in which south is cut off, and it never hears of that: what it says of the loss of its home goes
/// by the promise that it knows.
pub fn less_is_promised_only_once_it_is_held(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let (writer, other) = (s.client(HOME[0], P)?, s.client(HOME[1], P)?);
    s.deliver(writer)?;
    let mut held = Vec::new();
    for node in SOUTH {
        held.extend([s.hold(from_home(P, node)), s.hold(from_home(PartitionId::CONTROL, node))]);
    }
    let settings =
        RegionSettings { durability: Some(Durability::Region { rpo_max_ms: 60_000 }), ..RegionSettings::default() };
    s.fault(Fault::Settings { settings })?;
    s.until("home has answered that", 5 * S, |w| w.wishes().iter().all(|wish| wish.done.is_some()))?;
    s.wait(S)?;
    s.begin_delivery(writer);
    s.begin_delivery(other);
    s.wait(3 * S)?;
    s.expect("nothing is answered", s.ended(writer).is_none() && s.ended(other).is_none())?;
    home_dies(&mut s);
    held.into_iter().for_each(|hold| s.lose(hold));
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    s.expect_clean()
}

/// 12: A standby is not what was applied. The home serves on, and south takes over.
pub fn a_rotten_standby_stops_nobody(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    s.fault(Fault::RottenStandby { node: SOUTH[0] })?;
    for _ in 0..5 {
        s.wait(S)?;
        s.deliver(writer)?;
    }
    s.expect("the home runs", HOME.iter().all(|node| s.world.host(*node).up.is_some()))?;
    home_dies(&mut s);
    s.kill(SOUTH[0]);
    says(&mut s, &SOUTH[1..])?;
    south_serves(&mut s)?;
    s.expect_clean()
}
