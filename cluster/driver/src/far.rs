//! Which other nodes stand in another region: they are spoken to over more connections, and have places of their own.

use std::collections::BTreeMap;

use mailraft_cluster::placement;
use mailraft_cluster::regions::Regions;
use mailraft_storage::{NodeId, Rows, StoreError};

/// The nodes of other regions, each with its region's name. Empty in a cluster of one region.
#[derive(Clone, Debug, Default)]
pub(crate) struct Far {
    regions: BTreeMap<NodeId, String>,
}

impl Far {
    /// As this node's rows say.
    ///
    /// # Errors
    /// If the rows can't be read.
    pub(crate) fn of(rows: &dyn Rows, me: NodeId) -> Result<Self, StoreError> {
        let Some(control) = placement::control_replica(rows, me)? else { return Ok(Far::default()) };
        let Some(regions) = Regions::from_rows(rows, control)? else { return Ok(Far::default()) };
        let nodes = placement::nodes(rows, control)?;
        let own = regions.of(me);
        let far = nodes.into_iter().filter(|node| regions.of(node.id) != own).map(|node| (node.id, node.region));
        Ok(Far { regions: far.collect() })
    }

    /// These nodes.
    #[cfg(test)]
    pub(crate) fn with(nodes: impl IntoIterator<Item = (NodeId, &'static str)>) -> Self {
        Far { regions: nodes.into_iter().map(|(node, region)| (node, region.to_owned())).collect() }
    }

    /// The region of a node that stands in another than this one does.
    pub(crate) fn region(&self, node: NodeId) -> Option<&str> {
        self.regions.get(&node).map(String::as_str)
    }
}
