//! Which incarnation a takeover adopts: numbers rise, and no two nodes draw one. Pure: of what the region's nodes say.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_storage::{Incarnation, NodeId, PartitionId};

use super::facts::{Facts, Standing};
use super::refused::Refused;

/// The incarnation to adopt: the one that was begun and broken off, if there is such, else a new one.
///
/// Numbers rise, and those that one node draws no other does: a takeover that another node of the region began and of which
/// this one heard nothing has another number, so that the higher one goes on, where one number with two nonces would serve
/// nothing.
///
/// It is above `above` as well: a node whose disk stood still was told that number, and may adopt it yet. Only a number that
/// the region's nodes could have drawn counts, so that nobody uses all numbers up by one order.
///
/// # Errors
/// If there are no numbers any more.
pub fn incarnation(
    facts: &BTreeMap<NodeId, Option<Facts>>,
    own: NodeId,
    above: u32,
    nonce: [u8; 16],
) -> Result<Incarnation, Refused> {
    if let Some(begun) = broken_off(facts).filter(|begun| begun.number >= above) {
        return Ok(begun);
    }
    let known = controls(facts).map(|control| control.incarnation.number).chain(begun(facts)).max().unwrap_or(1);
    let highest = above.clamp(known, known.saturating_add(u32::try_from(facts.len()).unwrap_or(0)));
    let place = facts.keys().position(|node| *node == own).unwrap_or(0);
    let number = drawn(highest, place, facts.len());
    if number > mailraft_cluster::taken_over::INCARNATION_MAX {
        return Err(Refused::new(
            "no_numbers",
            format!("a cluster is taken over up to incarnation 4095, and {highest} is there"),
        ));
    }
    Ok(Incarnation { number, nonce })
}

/// The first number above the highest that is this node's, of so many nodes.
fn drawn(highest: u32, place: usize, of: usize) -> u32 {
    let (place, of) = (u32::try_from(place).unwrap_or(0), u32::try_from(of.max(1)).unwrap_or(1));
    (highest + 1..).find(|number| number % of == place % of).unwrap_or(u32::MAX)
}

fn controls(facts: &BTreeMap<NodeId, Option<Facts>>) -> impl Iterator<Item = &Standing> {
    facts.values().flatten().filter_map(|node| node.of(PartitionId::CONTROL))
}

/// The newest takeovers that have begun.
fn begun(facts: &BTreeMap<NodeId, Option<Facts>>) -> impl Iterator<Item = u32> {
    facts.values().flatten().map(|node| node.begun)
}

/// A node whose standby of partition 0 has adopted a higher number than the newest that began.
pub fn left_alone(facts: &BTreeMap<NodeId, Option<Facts>>) -> Option<NodeId> {
    let newest = begun(facts).max()?;
    let is_higher = |node: &&Facts| node.of(PartitionId::CONTROL).is_some_and(|own| own.incarnation.number > newest);
    facts.values().flatten().find(is_higher).map(|node| node.node)
}

/// The highest incarnation that a standby of partition 0 has adopted and that has not begun, if nobody disputes it.
pub fn broken_off(facts: &BTreeMap<NodeId, Option<Facts>>) -> Option<Incarnation> {
    let highest = controls(facts).map(|control| control.incarnation.number).max()?;
    if begun(facts).any(|number| number >= highest) || highest < 2 {
        return None;
    }
    let of_it: Vec<&Standing> = controls(facts).filter(|control| control.incarnation.number == highest).collect();
    let nonces: BTreeSet<[u8; 16]> = of_it.iter().map(|control| control.incarnation.nonce).collect();
    let disputed = nonces.len() > 1 || of_it.iter().any(|control| control.contested);
    (!disputed).then(|| of_it[0].incarnation)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_cluster::regions::Durability;

    use super::super::plan::tests::World;
    use super::*;

    #[test]
    fn what_was_broken_off_goes_on_and_two_nodes_never_draw_one_number() {
        let mut world = World::new(Durability::Geo);
        let draw = |world: &World, own: u64| incarnation(&world.facts, NodeId(own), 0, [9; 16]).unwrap();
        let numbers: BTreeSet<u32> = (4..=6).map(|own| draw(&world, own).number).collect();
        assert_eq!(numbers, [2, 3, 4].into());
        let second = Incarnation { number: 2, nonce: [7; 16] };
        world.control(4, |control| control.incarnation = second);
        assert_eq!((draw(&world, 4), draw(&world, 6)), (second, second));
        assert_eq!(world.plan().unwrap().goes_on_with, Some(2));
        // It has begun: the next one is another.
        world.each(|facts| facts.begun = 2);
        assert!(draw(&world, 4).number > 2 && draw(&world, 4).nonce == [9; 16]);
        // Two nonces: only a higher number serves.
        let mut world = World::new(Durability::Geo);
        world.control(4, |control| control.incarnation = second);
        world.control(5, |control| control.incarnation = Incarnation { number: 2, nonce: [8; 16] });
        assert!(draw(&world, 4).number > 2);
        world.control(5, |control| control.incarnation.nonce = [7; 16]).control(5, |control| control.contested = true);
        assert!(draw(&world, 4).number > 2);
        let highest = Incarnation { number: 4_095, nonce: [7; 16] };
        world.each(|facts| facts.begun = 4_095).control(4, |control| control.incarnation = highest);
        assert_eq!(incarnation(&world.facts, NodeId(4), 0, [9; 16]).unwrap_err().code, "no_numbers");
    }

    #[test]
    fn what_a_node_was_told_that_adopts_it_later_is_below_what_another_draws() {
        let mut world = World::new(Durability::Geo);
        let draw = |world: &World, own, above| incarnation(&world.facts, NodeId(own), above, [9; 16]).unwrap().number;
        let hangs = draw(&world, 5, 0);
        assert!(hangs == 4 && draw(&world, 4, 0) == 3, "without it the number would be lower");
        assert!(draw(&world, 4, hangs) > hangs && draw(&world, 6, hangs) > hangs);
        // It has adopted by now: that goes on, as what was begun and broken off.
        world.control(5, |control| control.incarnation = Incarnation { number: hangs, nonce: [7; 16] });
        assert_eq!(draw(&world, 4, hangs), hangs);
        // What nobody was told uses no numbers up.
        let world = World::new(Durability::Geo);
        assert!(draw(&world, 4, 4_000) <= 7, "{}", draw(&world, 4, 4_000));
    }
}
