//! What a node of a backup region hears from the home, once a second: whether its nodes answer, and since when the home has
//! this region's confirmations. The home goes on alone only after a time without them; so whoever knows when it had them last
//! knows what it can't have answered alone yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_cluster::mode::Mode;
use mailraft_cluster::{RegionStatus, ReplicaStatus, Role};
use mailraft_driver::Cluster;
use mailraft_storage::{Index, NodeId, PartitionId, UnixMillis};
use tokio::task::JoinSet;

use super::facts::{Answer, Heard, HomeSaid, HomeSays, Question};
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
    confirmed_at: Option<Confirmed>,
    said: Option<HomeSaid>,
}

/// When the home had this region's confirmations last. A virtual machine that is paused loses time by the clock that nobody sets, and
/// who sets the other one back loses time by that: what is longer ago counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Confirmed {
    /// Since the boot.
    at: Duration,
    /// By the time of day.
    wall: UnixMillis,
}

impl Confirmed {
    fn ago_ms(self, now: Duration, wall: UnixMillis) -> u64 {
        ago_ms(now, self.at).max(wall.0.saturating_sub(self.wall.0))
    }
}

/// How a region confirms, as far as this node leads.
pub async fn says(cluster: &Cluster, region: &str) -> HomeSays {
    let status = cluster.status().await;
    let leaders = status.partitions.iter().filter(|replica| replica.role == Role::Leader);
    // A leader that has not heard the region speaks of no partition yet.
    let known = leaders.filter_map(|leader| Some((leader.partition, confirmed_ago_ms(leader, region)?)));
    let (led, ago_ms): (Vec<PartitionId>, Vec<u64>) = known.unzip();
    let unconfirmed_ms = ago_ms.into_iter().max().unwrap_or(0);
    let Some(regions) = region::regions(cluster) else {
        return HomeSays { led, unconfirmed_ms, lacks: true, version: 0, settings: Index(0) };
    };
    let waits = regions.sync_set().iter().any(|other| other.0 == region);
    let lacks = regions.mode().mode != Mode::Whole || !waits;
    let settings = regions.changes().newest().map_or(Index(0), |newest| newest.index);
    HomeSays { led, unconfirmed_ms, lacks, version: regions.mode().version, settings }
}

/// How long ago at most every region that answers wait for confirmed everything to a leader, in milliseconds, if this one is among
/// them, and none of them is still to be heard: the home goes on alone by the one that has been silent for longest. As long as nobody counts one as silent that is when
/// it was heard: should it be silent from now on, the time until then runs from there.
fn confirmed_ago_ms(leader: &ReplicaStatus, region: &str) -> Option<u64> {
    let waited_for = || leader.regions.iter().filter(|other| other.in_sync_set);
    let ago = |of: &RegionStatus| Some(of.unconfirmed_ms.max(of.heard_ms?).max(leader.unheld_ms));
    waited_for().find(|other| other.region == region)?;
    let all: Option<Vec<u64>> = waited_for().map(ago).collect();
    all?.into_iter().max()
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
        let wall = self.cluster.wall();
        self.known().confirmed_at.map(|confirmed| confirmed.ago_ms(since_boot(), wall))
    }

    /// The newest of what the home said of itself.
    pub fn said(&self) -> Option<HomeSaid> {
        self.known().said
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
        {
            let mut known = self.known();
            known.said = newest(known.said, &said);
        }
        let all = self.cluster.partitions() as usize + 1;
        if let Some(at) = confirmed(begun, all, &said) {
            let since_ms = ago_ms(since_boot(), at);
            let wall = UnixMillis(self.cluster.wall().0.saturating_sub(since_ms));
            let mut known = self.known();
            known.confirmed_at = known.confirmed_at.filter(|before| before.at >= at).or(Some(Confirmed { at, wall }));
        }
    }

    fn known(&self) -> MutexGuard<'_, HeardHome> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nodes said that were asked at this time since the boot: since when at the latest the home has lacked a confirmation. None where they
/// do not speak of every partition, or where it is alone.
fn confirmed(asked: Duration, partitions: usize, said: &[HomeSays]) -> Option<Duration> {
    let led: BTreeSet<PartitionId> = said.iter().flat_map(|says| says.led.iter().copied()).collect();
    let unconfirmed_ms = said.iter().map(|says| says.unconfirmed_ms).max()?;
    // One that is behind the others may not know that they have everything again.
    if newest(None, said).is_some_and(|said| said.lacks) {
        return None;
    }
    // What was before this machine booted has no time by its clock.
    asked.checked_sub(Duration::from_millis(unconfirmed_ms)).filter(|_| led.len() >= partitions)
}

/// Who has applied more of the control group's log has the higher version and the later settings.
fn newest(before: Option<HomeSaid>, said: &[HomeSays]) -> Option<HomeSaid> {
    let said = said.iter().map(|HomeSays { led: _, unconfirmed_ms: _, lacks, version, settings }| HomeSaid {
        version: *version,
        settings: *settings,
        lacks: *lacks,
    });
    before.into_iter().chain(said).max_by_key(|said| (said.settings, said.version))
}

fn ago_ms(now: Duration, at: Duration) -> u64 {
    u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survival::tests::replica;

    #[test]
    fn the_home_had_what_the_worst_of_all_partitions_says_and_nothing_is_known_of_some() {
        let says = |led: std::ops::Range<u32>, unconfirmed_ms| HomeSays {
            led: led.map(PartitionId).collect(),
            unconfirmed_ms,
            lacks: false,
            version: 0,
            settings: Index(0),
        };
        let at = |said: &[HomeSays]| confirmed(Duration::from_millis(100_000), 17, said).map(|at| at.as_millis());
        assert_eq!(at(&[says(0..6, 0), says(6..12, 0), says(12..17, 0)]), Some(100_000));
        assert_eq!(at(&[says(0..6, 0), says(6..12, 7_000), says(12..17, 300)]), Some(93_000));
        assert_eq!(at(&[says(0..6, 0), says(6..12, 0)]), None);
        // Two speak of one partition, nobody of the last.
        assert_eq!(at(&[says(0..6, 0), says(5..16, 0)]), None);
        assert_eq!(at(&[]), None);
        // It is back from being alone, and what it answered so is not here yet.
        let lacks = HomeSays { lacks: true, version: 1, ..says(6..17, 0) };
        assert_eq!(at(&[says(0..6, 0), lacks.clone()]), None);
        // It has everything again, and one of its nodes has not heard of that.
        let whole = HomeSays { version: 3, ..says(0..17, 0) };
        assert_eq!(at(&[HomeSays { led: Vec::new(), ..lacks }, whole]), Some(100_000));
        // It began to lack one before this machine booted.
        assert_eq!(at(&[says(0..17, 100_001)]), None);
    }
    #[test]
    fn of_what_the_home_said_the_newest_counts_whoever_says_it_last() {
        let says = |version, settings, lacks| HomeSays {
            led: Vec::new(),
            unconfirmed_ms: 0,
            lacks,
            version,
            settings: Index(settings),
        };
        let known = newest(None, &[says(1, 40, false), says(2, 40, true)]);
        assert!(known.is_some_and(|said| said.lacks && said.version == 2));
        // A node that is behind answers last.
        let known = newest(known, &[says(1, 40, false)]);
        assert!(known.is_some_and(|said| said.lacks));
        let known = newest(known, &[says(2, 41, false)]);
        assert!(known.is_some_and(|said| !said.lacks && said.settings == Index(41)));
    }

    #[test]
    fn what_is_longer_ago_by_either_clock_counts() {
        let confirmed = Confirmed { at: Duration::from_secs(100), wall: UnixMillis(1_000_000) };
        let ago = |boot_s, wall_ms| confirmed.ago_ms(Duration::from_secs(boot_s), UnixMillis(wall_ms));
        assert_eq!(ago(107, 1_007_000), 7_000);
        // The machine was paused for ten minutes.
        assert_eq!(ago(107, 1_607_000), 607_000);
        // The clock was set back by ten minutes.
        assert_eq!(ago(107, 407_000), 7_000);
    }
    #[test]
    fn the_time_until_a_home_goes_alone_runs_by_whichever_region_is_silent_for_longest() {
        let region = |region: &str, in_sync_set, heard_ms, unconfirmed_ms| RegionStatus {
            region: region.to_owned(),
            in_sync_set,
            heard_ms: Some(heard_ms),
            unconfirmed_ms,
            ..south()
        };
        let mut leader = replica(0, Role::Leader, 3, 50, 50);
        let ago = |leader: &ReplicaStatus| confirmed_ago_ms(leader, "south");
        leader.regions = vec![region("south", true, 300, 0), region("west", true, 8_000, 8_000)];
        assert_eq!(ago(&leader), Some(8_000));
        leader.regions[1].in_sync_set = false;
        assert_eq!(ago(&leader), Some(300), "nobody waits for west");
        leader.unheld_ms = 700;
        assert_eq!(ago(&leader), Some(700));
        leader.regions[0].heard_ms = None;
        assert_eq!(ago(&leader), None, "it was not heard since this leader leads");
        (leader.regions[0].heard_ms, leader.regions[0].in_sync_set) = (Some(300), false);
        assert_eq!(ago(&leader), None);
    }

    fn south() -> RegionStatus {
        RegionStatus {
            region: "south".to_owned(),
            in_sync_set: true,
            standbys: 3,
            disagreeing: 0,
            confirming: 3,
            held: Index(50),
            unheld_ms: 0,
            heard_ms: None,
            round_trip_ms: None,
            compared_ms: None,
            unconfirmed_ms: 0,
        }
    }
}
