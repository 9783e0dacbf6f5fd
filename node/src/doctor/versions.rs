//! The versions that nodes run.

use std::collections::BTreeMap;

use mailraft_server::status::{ClusterStatus, NodeAnswer};

use super::finding::Finding;

/// Whether all nodes run one version, and this program is of it.
pub fn examine(status: Result<&ClusterStatus, &String>) -> Vec<Finding> {
    match status {
        Ok(status) => vec![judge(env!("CARGO_PKG_VERSION"), status)],
        Err(why) => vec![Finding::unknown("versions", why.clone(), "start the node, then ask again")],
    }
}

fn judge(own: &str, status: &ClusterStatus) -> Finding {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in &status.nodes {
        if let NodeAnswer::Up(answer) = &node.answer {
            versions.entry(&answer.version).or_default().push(node.id.to_string());
        }
    }
    let each: Vec<String> = versions.iter().map(|(v, nodes)| format!("{v} on nodes {}", nodes.join(", "))).collect();
    let found = each.join("; ");
    if versions.len() > 1 {
        Finding::warning("versions", found, "finish the upgrade: run the newest on every node, one after the other")
    } else if versions.keys().any(|v| *v != own) {
        Finding::warning("versions", format!("{found}; this program is {own}"), "use the nodes' own program")
    } else {
        Finding::good("versions", found)
    }
}
