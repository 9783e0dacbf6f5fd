//! What a node of a backup region hears from the home, once a second: whether its nodes answer, and since when the home has
//! this region's confirmations. The home goes on alone only after a time without them; so whoever knows when it had them last
//! knows what it can't have answered alone yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_cluster::{ReplicaStatus, Role};
use mailraft_driver::Cluster;
use mailraft_storage::{NodeId, PartitionId};
use tokio::task::JoinSet;

use super::facts::{Answer, Heard, HomeSays, Question};
use crate::environment::since_boot;
use crate::links::FailoverLinks;
use crate::region;

const ASK_EVERY: Duration = Duration::from_secs(1);
/// An answer is waited for so long, with the dial before it: eight round trips of 300 ms.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What is heard from the home.
#[derive(Clone)]
pub struct HomeWatch {
    cluster: Cluster,
    links: FailoverLinks,
    heard: Arc<Mutex<HeardHome>>,
}

/// Times are since the machine booted: nobody sets that clock, and it runs on through a suspend. After a restart of the node
/// nothing is known.
#[derive(Default)]
struct HeardHome {
    nodes: BTreeMap<NodeId, Option<Duration>>,
    confirmed_at: Option<Duration>,
}

/// How a region confirms, as far as this node leads.
pub async fn says(cluster: &Cluster, region: &str) -> HomeSays {
    let status = cluster.status().await;
    let led: Vec<_> = status.partitions.iter().filter(|replica| replica.role == Role::Leader).collect();
    let unconfirmed_ms = led.iter().filter_map(|leader| confirmed_ago_ms(leader, region)).max().unwrap_or(0);
    HomeSays { led: led.iter().map(|leader| leader.partition).collect(), unconfirmed_ms }
}

/// How long ago at most a region confirmed everything to a leader, in milliseconds. As long as nobody counts it as silent that
/// is when it was heard: should it be silent from now on, the time until the home goes on alone runs from there.
fn confirmed_ago_ms(leader: &ReplicaStatus, region: &str) -> Option<u64> {
    let of = leader.regions.iter().find(|other| other.region == region)?;
    Some(of.unconfirmed_ms.max(of.heard_ms.unwrap_or(0)).max(leader.unheld_ms))
}

impl HomeWatch {
    pub fn new(cluster: Cluster, links: FailoverLinks) -> Self {
        HomeWatch { cluster, links, heard: Arc::default() }
    }

    /// Asks the nodes at home, while this node's region is not it, for ever.
    pub async fn watch(self) {
        let mut pause = tokio::time::interval(ASK_EVERY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            self.ask().await;
        }
    }

    /// The nodes at home, and when each was heard last.
    pub fn heard(&self) -> Vec<Heard> {
        let now = since_boot();
        let line =
            |(node, at): (&NodeId, &Option<Duration>)| Heard { node: *node, ago_ms: at.map(|at| ago_ms(now, at)) };
        self.known().nodes.iter().map(line).collect()
    }

    /// The home had this region's confirmations of everything no longer ago than this, in milliseconds.
    pub fn confirmed_ago_ms(&self) -> Option<u64> {
        self.known().confirmed_at.map(|at| ago_ms(since_boot(), at))
    }

    async fn ask(&self) {
        let Some(regions) = region::regions(&self.cluster) else { return };
        let Some(own) = regions.of(self.cluster.node()).filter(|own| *own != regions.home()) else { return };
        let Ok(question) = serde_json::to_string(&Question::Home { region: own.0.clone() }) else { return };
        let begun = since_boot();
        let mut asking = JoinSet::new();
        for node in self.cluster.peers().into_iter().filter(|node| regions.is_home(*node)) {
            self.known().nodes.entry(node).or_default();
            let (links, question) = (self.links.clone(), question.clone());
            asking.spawn(async move { (node, links.ask(node, &question, ANSWER_WITHIN).await) });
        }
        let mut said = Vec::new();
        while let Some(Ok((node, answer))) = asking.join_next().await {
            if let Ok(answer) = answer
                && let Ok(Answer::Home(says)) = serde_json::from_str(&answer)
            {
                self.known().nodes.insert(node, Some(since_boot()));
                said.push(says);
            }
        }
        let all = self.cluster.partitions() as usize + 1;
        if let Some(at) = confirmed(begun, all, &said) {
            let mut known = self.known();
            known.confirmed_at = known.confirmed_at.max(Some(at));
        }
    }

    fn known(&self) -> MutexGuard<'_, HeardHome> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nodes said that were asked at this time since the boot: since when at the latest the home has lacked a confirmation. None where they
/// do not speak of every partition.
fn confirmed(asked: Duration, partitions: usize, said: &[HomeSays]) -> Option<Duration> {
    let led: BTreeSet<PartitionId> = said.iter().flat_map(|says| says.led.iter().copied()).collect();
    let unconfirmed_ms = said.iter().map(|says| says.unconfirmed_ms).max()?;
    // What was before this machine booted has no time by its clock.
    asked.checked_sub(Duration::from_millis(unconfirmed_ms)).filter(|_| led.len() >= partitions)
}

fn ago_ms(now: Duration, at: Duration) -> u64 {
    u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_had_what_the_worst_of_all_partitions_says_and_nothing_is_known_of_some() {
        let says = |led: std::ops::Range<u32>, unconfirmed_ms| HomeSays {
            led: led.map(PartitionId).collect(),
            unconfirmed_ms,
        };
        let at = |said: &[HomeSays]| confirmed(Duration::from_millis(100_000), 17, said).map(|at| at.as_millis());
        assert_eq!(at(&[says(0..6, 0), says(6..12, 0), says(12..17, 0)]), Some(100_000));
        assert_eq!(at(&[says(0..6, 0), says(6..12, 7_000), says(12..17, 300)]), Some(93_000));
        assert_eq!(at(&[says(0..6, 0), says(6..12, 0)]), None);
        // Two speak of one partition, nobody of the last.
        assert_eq!(at(&[says(0..6, 0), says(5..16, 0)]), None);
        assert_eq!(at(&[]), None);
        // It began to lack one before this machine booted.
        assert_eq!(at(&[says(0..17, 100_001)]), None);
    }
}
