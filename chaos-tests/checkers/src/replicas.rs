//! Whether replicas agree wherever they can be compared.

use std::collections::BTreeMap;

use crate::history::Micros;
use crate::report::{Report, Rule};

type Hash = [u8; 32];

/// The first hash that was told for each place, and by which node.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    chains: BTreeMap<(u32, u64), (u64, Hash)>,
    states: BTreeMap<(u32, u64), (u64, Hash)>,
}

impl Replicas {
    /// The hash chain over `count` entries.
    pub fn chain(&mut self, at: Micros, node: u64, place: (u32, u64), hash: Hash, report: &mut Report) {
        compare(&mut self.chains, at, node, place, hash, "entries", report);
    }

    /// The hash of all rows at an applied index.
    pub fn state(&mut self, at: Micros, node: u64, place: (u32, u64), hash: Hash, report: &mut Report) {
        compare(&mut self.states, at, node, place, hash, "rows at index", report);
    }
}

fn compare(
    known: &mut BTreeMap<(u32, u64), (u64, Hash)>,
    at: Micros,
    node: u64,
    place: (u32, u64),
    hash: Hash,
    of: &str,
    report: &mut Report,
) {
    let Some((other, first)) = known.get(&place).copied() else {
        known.insert(place, (node, hash));
        return;
    };
    report.check(Rule::ReplicasAgree, at, first == hash, || {
        let hex = |hash: Hash| hash.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
        let (partition, number) = place;
        format!(
            "partition {partition}, {of} {number}: node {other} has {}.., node {node} has {}..",
            hex(first),
            hex(hash)
        )
    });
}
