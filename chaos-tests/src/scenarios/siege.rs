//! All attacks at once, beside ordinary clients: no process ends, nobody else waits for long, memory stays in its bounds,
//! and nothing that was answered is lost.

mod attacks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::attacks::{Attack, Target};
use super::ordinary::{self, Ordinary};
use super::searchers::Searching;
use crate::cluster::Cluster;
use crate::plain::open_many;

/// What each node may have in memory, in bytes: three of them fit a small machine.
const MEMORY_BYTES: u64 = 3 << 29;
/// Ordinary clients do something so often.
const ROUND_PAUSE: Duration = Duration::from_millis(400);
/// The attacks begin so long before what ordinary clients see counts.
const BEGINS_AFTER: Duration = Duration::from_secs(2);
/// Ordinary commands take no longer, but one in a hundred.
pub const P99_MAX: Duration = Duration::from_millis(100);

/// What came of it.
pub struct Outcome {
    /// What ordinary clients saw.
    pub ordinary: ordinary::Seen,
    /// The most that each node had in memory, in bytes.
    pub resident_max_bytes: BTreeMap<u64, u64>,
    /// The least of the nodes' own limits of memory, in bytes.
    pub memory_limit_bytes: u64,
    checked: String,
    attacks: Vec<Attack>,
    searches: String,
    time: Duration,
}

impl Outcome {
    /// Whether each attack has begun at least once.
    pub fn every_attack_was_tried(&self) -> bool {
        self.attacks.iter().all(|attack| attack.tries() > 0)
    }

    /// Says what is not as it should be but for what ends the scenario at once.
    ///
    /// # Errors
    /// That.
    pub fn judge(&self) -> Result<(), String> {
        let p99 = self.ordinary.permille(990);
        if p99 > P99_MAX {
            return Err(format!("one in a hundred ordinary commands took over {P99_MAX:?}: {self}"));
        }
        let most = self.resident_max_bytes.values().max().copied().unwrap_or_default();
        if most > self.memory_limit_bytes {
            return Err(format!("a node had more in memory than its limit: {self}"));
        }
        Ok(())
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let resident: Vec<String> =
            self.resident_max_bytes.iter().map(|(node, bytes)| format!("node {node} {} MiB", bytes >> 20)).collect();
        write!(
            f,
            "{:.0} s under attack: {}; at most {} in memory (limit {} MiB); {:.0} s of CPU; {}; {}; {}",
            self.time.as_secs_f64(),
            self.ordinary,
            resident.join(", "),
            self.memory_limit_bytes >> 20,
            self.ordinary.cpu_seconds,
            self.checked,
            self.searches,
            self.attacks.iter().map(Attack::to_string).collect::<Vec<_>>().join(", ")
        )
    }
}

/// A cluster whose nodes may have so much memory as is judged.
///
/// # Panics
/// If it can't be started.
pub fn besieged() -> Cluster {
    Cluster::start_new(|config| {
        let limited = config.replace("memory_bytes = 0 ", &format!("memory_bytes = {MEMORY_BYTES} "));
        assert_ne!(limited, config, "the configuration has no line for the memory");
        limited
    })
}

/// Runs it.
///
/// # Errors
/// A process that ended, an ordinary command that failed, or mail that was lost.
pub fn siege(cluster: &mut Cluster, time: Duration) -> Result<Outcome, String> {
    open_many().map_err(|e| e.to_string())?;
    let target = Arc::new(Target::of(cluster)?);
    let searching = Searching::begin(cluster)?;
    let mut others = Ordinary::begin(cluster)?;
    let stop = Arc::new(AtomicBool::new(false));
    let attacks = Attack::all();
    for attack in &attacks {
        attack.begin(&target, &stop);
    }
    let mut resident_max_bytes: BTreeMap<u64, u64> = BTreeMap::new();
    let begun = Instant::now();
    let mut said_at = Instant::now();
    let mut counting = false;
    while begun.elapsed() < time + BEGINS_AFTER {
        if !counting && begun.elapsed() > BEGINS_AFTER {
            counting = true;
            others.took.clear();
        }
        let round = Instant::now();
        others.round().map_err(|e| format!("after {:.0} s: {e}", begun.elapsed().as_secs_f64()))?;
        for node in cluster.node_ids() {
            let bytes = cluster.resident_bytes(node).map_err(|e| {
                let after = begun.elapsed().as_secs_f64();
                format!("after {after:.0} s under attack: {e}\n{}", cluster.log_end(node))
            })?;
            let most = resident_max_bytes.entry(node).or_default();
            *most = bytes.max(*most);
        }
        if said_at.elapsed() > Duration::from_secs(60) {
            said_at = Instant::now();
            let most = resident_max_bytes.values().max().copied().unwrap_or_default();
            println!("{:.0} s: {}; at most {} MiB", begun.elapsed().as_secs_f64(), others.seen(cluster), most >> 20);
        }
        std::thread::sleep(ROUND_PAUSE.saturating_sub(round.elapsed()));
    }
    let ordinary = others.seen(cluster);
    stop.store(true, Ordering::Relaxed);
    let searches = searching.to_string();
    drop(searching);
    let limits = cluster.node_ids().into_iter().map(|node| cluster.metric(node, "mailraft_memory_limit_bytes") as u64);
    let memory_limit_bytes = limits.min().unwrap_or_default();
    cluster.wait_until_caught_up();
    let checked = others.history.check(cluster, &cluster.account(1))?;
    Ok(Outcome { ordinary, resident_max_bytes, memory_limit_bytes, checked, attacks, searches, time })
}
