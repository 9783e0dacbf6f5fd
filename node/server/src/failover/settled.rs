//! What is settled already where a region is asked to take over: it has done so, or another one has. The asked node may have
//! slept through either; whoever of its region knows most is believed. Pure: of what the region's nodes say.

use std::collections::BTreeMap;

use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_storage::NodeId;

use super::facts::{Facts, Seal};
use super::refused::Refused;

/// The number of the takeover by which the region is home, if there was one.
///
/// # Errors
/// A later one was another region's.
pub fn taken_over(
    to: &RegionName,
    regions: &Regions,
    facts: &BTreeMap<NodeId, Option<Facts>>,
) -> Result<Option<u32>, Refused> {
    let own = regions.takeovers().last().filter(|row| row.home == *to).map(|row| row.incarnation.number);
    let others = facts.values().flatten().filter(|node| node.home == to.0 && node.begun > 1).map(|node| node.begun);
    let begun = others.chain(own).max();
    let seals = facts.values().flatten().filter_map(|node| Some((node.node, node.sealed_by.as_ref()?)));
    match seals.max_by_key(|(_, seal)| seal.number) {
        Some((node, seal)) if Some(seal.number) > begun => Err(is_sealed(to, node, seal)),
        Some(_) | None => Ok(begun),
    }
}

fn is_sealed(to: &RegionName, node: NodeId, Seal { number, region }: &Seal) -> Refused {
    let (by, there) = match region {
        Some(region) => (format!("region {region}"), format!("region {region}")),
        None => ("another region".to_owned(), "that region".to_owned()),
    };
    Refused::new(
        "sealed",
        format!(
            "{by} took over as incarnation {number}, and what is in {} is SEALED (node {node} says so): it serves nothing, and \
             no command brings it back yet. Mail is served in {there}: ask a node there",
            to.0
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_cluster::regions::Durability;

    use super::super::numbers::{incarnation, left_alone};
    use super::super::plan::tests::{World, name};
    use super::*;

    fn settled(world: &World, to: &str) -> Result<Option<u32>, Refused> {
        taken_over(&name(to), &world.regions(), &world.facts)
    }

    #[test]
    fn a_node_that_slept_through_the_takeover_goes_by_those_that_did_not() {
        let mut world = World::new(Durability::Geo);
        assert_eq!(settled(&world, "south").unwrap(), None);
        for node in [4, 5] {
            world.node(node, |facts| (facts.home, facts.begun) = ("south".into(), 3));
            world.control(node, |control| control.incarnation.number = 3);
        }
        // Node 6 is asked: its rows, and what it says of itself, are of before.
        assert_eq!(settled(&world, "south").unwrap(), Some(3));
        let refused = world.plan().unwrap_err();
        assert!(refused.code == "has_begun" && refused.sentence == "south took over as incarnation 3", "{refused}");
        assert_eq!(left_alone(&world.facts), None);
        // It draws none: all that it could draw begins a second takeover.
        assert!(incarnation(&world.facts, NodeId(6), 0, [9; 16]).unwrap().number > 3);
    }

    #[test]
    fn a_home_that_was_taken_over_says_so_and_where_to_ask() {
        let mut world = World::new(Durability::Geo);
        assert_eq!(settled(&world, "home").unwrap(), None);
        let seal = |facts: &mut Facts| facts.sealed_by = Some(Seal { number: 2, region: Some("south".into()) });
        world.node(5, seal);
        let refused = settled(&world, "home").unwrap_err();
        let words = "region south took over as incarnation 2, and what is in home is SEALED (node 5 says so): it serves nothing, \
                     and no command brings it back yet. Mail is served in region south: ask a node there";
        assert_eq!((refused.code, &refused.sentence[..]), ("sealed", words));
        // The word comes before that the rows call it home, and before any majority.
        world.row.home = name("south");
        assert_eq!(world.plan().unwrap_err().code, "sealed");
        // What began later here counts.
        world.node(6, |facts| (facts.home, facts.begun) = ("south".into(), 4));
        assert_eq!(settled(&world, "south").unwrap(), Some(4));
        world.node(5, |facts| facts.sealed_by = Some(Seal { number: 5, region: None }));
        assert!(
            settled(&world, "south").unwrap_err().sentence.starts_with("another region took over as incarnation 5")
        );
    }
}
