//! What other regions hold of what this node leads: what follows from it for actors, and the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailraft_cluster::ReplicaStatus;
use mailraft_cluster::mode::Mode;
use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_storage::PartitionId;

use crate::metrics::{
    ALONE, ALONE_ANSWERS, ANSWERS_WAITING, REGION_DISAGREEMENTS, REGION_IN_SYNC, REGION_LAG, REGION_UNHELD,
};
use crate::region;
use crate::services::Services;

/// It is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks again and again for ever. In a cluster of one region there is nothing to be seen.
pub async fn watch(services: Services) {
    let mut measured = Measured::default();
    let mut pause = tokio::time::interval(LOOK_EVERY);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let Some(regions) = region::regions(&services.cluster) else { continue };
        let status = services.cluster.status().await;
        let unconfirmed: BTreeSet<_> =
            status.partitions.iter().filter(|replica| replica.unconfirmed).map(|replica| replica.partition).collect();
        services.registry.set_unconfirmed(unconfirmed);
        measured.measure(&regions, &status.partitions);
    }
}

/// What was measured last of what this node leads.
#[derive(Default)]
struct Measured {
    /// Answers that were given alone.
    alone: BTreeMap<PartitionId, u64>,
    /// Standbys of a region that differ from their home.
    disagreeing: BTreeMap<(PartitionId, String), usize>,
}

impl Measured {
    fn measure(&mut self, regions: &Regions, replicas: &[ReplicaStatus]) {
        let led: Vec<&ReplicaStatus> = replicas.iter().filter(|replica| !replica.regions.is_empty()).collect();
        for region in regions.names().filter(|region| *region != regions.home()) {
            let (mut unheld_ms, mut lag) = (0, 0);
            for replica in &led {
                let Some(there) = replica.regions.iter().find(|there| there.region == region.0) else { continue };
                let lacks = replica.commit.0.saturating_sub(there.held.0);
                unheld_ms = unheld_ms.max(there.unheld_ms);
                lag += lacks;
                let of = (replica.partition, region.0.clone());
                let before = self.disagreeing.insert(of, there.disagreeing).unwrap_or(0);
                let news = there.disagreeing.saturating_sub(before) as u64;
                ::metrics::counter!(REGION_DISAGREEMENTS, "region" => region.0.clone()).increment(news);
            }
            let in_sync = f64::from(u8::from(is_waited_for(regions, region)));
            ::metrics::gauge!(REGION_UNHELD, "region" => region.0.clone()).set(unheld_ms as f64 / 1_000.0);
            ::metrics::gauge!(REGION_LAG, "region" => region.0.clone()).set(lag as f64);
            ::metrics::gauge!(REGION_IN_SYNC, "region" => region.0.clone()).set(in_sync);
        }
        ::metrics::gauge!(ANSWERS_WAITING).set(led.iter().map(|replica| replica.answers.waiting).sum::<u64>() as f64);
        let is_alone = led.iter().any(|replica| replica.mode.is_some_and(|mode| mode.alone));
        ::metrics::gauge!(ALONE).set(f64::from(u8::from(is_alone)));
        let alone: BTreeMap<_, _> = led.iter().map(|replica| (replica.partition, replica.answers.alone)).collect();
        for (partition, answers) in alone {
            // Counted since the process started, whoever leads meanwhile.
            let before = self.alone.insert(partition, answers).unwrap_or(0);
            ::metrics::counter!(ALONE_ANSWERS).increment(answers.saturating_sub(before));
        }
    }
}

/// Whether answers wait for a region, as this node's rows say: not while the home is alone.
fn is_waited_for(regions: &Regions, region: &RegionName) -> bool {
    regions.sync_set().contains(region) && regions.mode().mode != Mode::Alone
}
