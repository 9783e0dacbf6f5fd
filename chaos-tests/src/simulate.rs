//! `mailraft-chaos sim`: simulated hours from one seed, and what to do with an episode that fails.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailraft_disk::DiskLog;
use mailraft_faulty_files::{LogOnFaultyFiles, quiet_panics};
use mailraft_sim::suite::{LONG_MINIMISE_MAX_RUNS, MINIMISE_MAX_RUNS, episode_takes, minimise};
use mailraft_sim::{Ran, Setup, episode, long_episode, region_episode, run_episode, run_with, scenarios};
use mailraft_storage::memory::conformance::LogDisk;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Progress is told so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Violations that are printed one by one.
const PRINTED_MAX: usize = 5;
/// One file of a Raft log on a disk, and the size of all from which old ones are given back, in bytes: small, as a world's
/// two minutes of mail are.
const LOG_FILE_BYTES: u64 = 32 << 10;
const LOG_PURGE_FROM_BYTES: u64 = 128 << 10;
/// Lines of the timeline that are printed.
const TIMELINE_MAX: usize = 60;

/// What to simulate.
#[derive(Debug, clap::Args)]
pub struct SimArgs {
    /// Everything follows from it; drawn and printed if not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many simulated hours
    #[arg(long, default_value_t = 1.0)]
    pub hours: f64,
    /// Only this episode of the seed
    #[arg(long)]
    pub episode: Option<u64>,
    /// Episodes of two and a half days with few clients, rather than of two minutes with many
    #[arg(long)]
    pub long: bool,
    /// Episodes with a backup region
    #[arg(long, conflicts_with_all = ["long", "raft_engine"])]
    pub regions: bool,
    /// Keep the nodes' Raft logs as production does, in raft-engine, over files in memory that fail
    #[arg(long)]
    pub raft_engine: bool,
    /// Episodes at the same time
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Print what happens in the episode as it happens, and if it fails, what happens with the fewest faults
    #[arg(long, requires = "episode")]
    pub loud: bool,
    /// Run this directed scenario instead
    #[arg(long, conflicts_with_all = ["hours", "episode", "jobs", "long", "regions"])]
    pub scenario: Option<String>,
    /// Name the directed scenarios
    #[arg(long)]
    pub list: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl SimArgs {
    fn world(&self, seed: u64, number: u64) -> Setup {
        let setup = match (self.long, self.regions) {
            (true, _) => long_episode(seed, number),
            (false, true) => region_episode(seed, number),
            (false, false) => episode(seed, number),
        };
        Setup { log_disks: self.raft_engine.then_some(raft_engine_on_a_disk_that_fails), ..setup }
    }

    /// What a failure is, as small as it can be made.
    fn told(&self, seed: u64, number: u64, failed: Ran) -> String {
        let setup = self.world(seed, number);
        let faults = failed.plan.len();
        std::panic::set_hook(Box::new(|_| {}));
        let (smallest, runs) =
            minimise(&setup, failed, if self.long { LONG_MINIMISE_MAX_RUNS } else { MINIMISE_MAX_RUNS });
        let _ = std::panic::take_hook();
        if self.loud {
            println!("all that happens with the fewest faults:");
            run_with(Setup { loud: true, ..setup }, smallest.plan.clone());
        }
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        let violations = &smallest.report.violations;
        line(format!("{} violations; the first of them:", smallest.report.violations_found));
        violations.iter().take(PRINTED_MAX).for_each(|violation| line(format!("  {violation}")));
        line(format!("of {faults} faults {} are enough (found in {runs} runs):", smallest.plan.len()));
        smallest.plan.iter().for_each(|planned| line(format!("  {planned}")));
        line("the last that happened:".to_owned());
        let skip = smallest.timeline.len().saturating_sub(TIMELINE_MAX);
        smallest.timeline.iter().skip(skip).for_each(|happened| line(format!("  {happened}")));
        let kind = match (self.long, self.regions) {
            (true, _) => "--long ",
            (false, true) => "--regions ",
            (false, false) => "",
        };
        let log = if self.raft_engine { "--raft-engine " } else { "" };
        line(format!(
            "again: mailraft-chaos sim {kind}{log}--seed {seed} --episode {number}  (with --loud: all that happens)"
        ));
        out
    }
}

/// What a node's Raft log stands on in production, but for the disk below it.
///
/// # Panics
/// If the files' names can't be written.
pub fn raft_engine_on_a_disk_that_fails() -> Box<dyn LogDisk + Send> {
    quiet_panics();
    Box::new(LogOnFaultyFiles::new(|files, dir| {
        Ok(Box::new(DiskLog::open_over(files, dir, LOG_FILE_BYTES, LOG_PURGE_FROM_BYTES)?))
    }))
}

#[derive(Default)]
struct Sums {
    operations: u64,
    checks: u64,
    skipped: u64,
    simulated_us: u64,
    episodes: u64,
    installed: u64,
    without_service_us: BTreeMap<String, u64>,
}

/// Simulates; prints one line at the end.
///
/// # Errors
/// What was violated, with the command that repeats it.
pub fn run(args: &SimArgs) -> Result<(), String> {
    if !args.hours.is_finite() || args.hours <= 0.0 || args.jobs == 0 {
        return Err("--hours and --jobs must be above 0".to_owned());
    }
    if args.list {
        for scenario in scenarios::all() {
            // Whoever reads may have gone.
            let _ = writeln!(std::io::stdout(), "{:<24} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let seed = args.seed.unwrap_or_else(drawn_seed);
    if let Some(name) = &args.scenario {
        return directed(name, seed, args.json);
    }
    let wanted_us = (args.hours * 3.6e9) as u64;
    let numbers: Vec<u64> = match args.episode {
        Some(number) => vec![number],
        None => {
            let (mut sum, mut number) = (0, 0);
            while sum < wanted_us {
                sum += episode_takes(&args.world(seed, number));
                number += 1;
            }
            (0..number).collect()
        }
    };
    // Assertions of the code under test are violations, and are told as such.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let (ran, failed) = episodes(seed, &numbers, args);
    let _ = std::panic::take_hook();
    let took = begun.elapsed();
    let sums = sums(&ran);
    let hash = hash(ran.values().map(|(hash, _)| hash));
    let times = sums.simulated_us as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    let verdict = if failed.is_some() { "VIOLATED" } else { "clean" };
    if args.json {
        println!(
            "{}",
            json!({
                "seed": seed, "hash": hash, "episodes": sums.episodes, "operations": sums.operations,
                "checks": sums.checks, "skipped": sums.skipped, "snapshots_installed": sums.installed,
                "simulated_s": sums.simulated_us / 1_000_000,
                "took_s": took.as_secs_f64(), "times_real": times, "verdict": verdict,
                "without_service_ms": sums.without_service_us.iter().map(|(name, us)| (name.clone(), us / 1_000)).collect::<BTreeMap<_, _>>(),
            })
        );
    } else {
        println!(
            "seed {seed} · trace {hash} · {} operations, {} checks · {:.2} h simulated in {:.1} s, {times:.0} times real time · {verdict}",
            sums.operations,
            sums.checks,
            sums.simulated_us as f64 / 3.6e9,
            took.as_secs_f64(),
        );
    }
    match failed {
        None => Ok(()),
        Some((number, failed)) => Err(args.told(seed, number, failed)),
    }
}

fn directed(name: &str, seed: u64, as_json: bool) -> Result<(), String> {
    let known = || scenarios::all().iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    let Some(scenario) = scenarios::all().iter().find(|s| s.name == name) else {
        return Err(format!("there is no scenario {name}; there are {}", known()));
    };
    let ran = (scenario.run)(seed).map_err(|why| format!("scenario {name}, seed {seed}: {why}"))?;
    let hash = hash([ran.hash].iter());
    let figures = ran.figures();
    let simulated = figures.simulated_us as f64 / 1e6;
    if as_json {
        println!(
            "{}",
            json!({"scenario": name, "seed": seed, "hash": hash, "operations": figures.operations,
                "checks": figures.checks, "simulated_s": simulated, "verdict": "clean"})
        );
    } else {
        println!(
            "scenario {name} · seed {seed} · trace {hash} · {} operations, {} checks · {simulated:.1} s simulated · clean",
            figures.operations, figures.checks
        );
    }
    Ok(())
}

type Finished = BTreeMap<u64, ([u8; 32], mailraft_sim::suite::Figures)>;

fn episodes(seed: u64, numbers: &[u64], args: &SimArgs) -> (Finished, Option<(u64, Ran)>) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let ran: Mutex<Finished> = Mutex::default();
    let failed: Mutex<Option<(u64, Ran)>> = Mutex::default();
    let told = Mutex::new(Instant::now());
    let lock = |e: std::sync::PoisonError<_>| e.into_inner();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.min(numbers.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(number) = numbers.get(at).copied() else { return };
                    let mut setup = args.world(seed, number);
                    setup.loud = args.loud;
                    let one = run_episode(setup);
                    ran.lock().unwrap_or_else(lock).insert(number, (one.hash, one.figures()));
                    if !one.report.is_clean() {
                        stop.store(true, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(n, _)| *n > number) {
                            *failed = Some((number, one));
                        }
                    }
                    progress(&told, at + 1, numbers.len());
                }
            });
        }
    });
    let lock = std::sync::PoisonError::into_inner;
    (ran.into_inner().unwrap_or_else(lock), failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn progress(told: &Mutex<Instant>, done: usize, of: usize) {
    let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if told.elapsed() >= PROGRESS_EVERY && std::io::stderr().is_terminal() {
        *told = Instant::now();
        // Whoever watches may have gone.
        let _ = writeln!(std::io::stderr(), "{done} of {of} episodes");
    }
}

fn sums(ran: &Finished) -> Sums {
    let mut sums = Sums::default();
    for (_, figures) in ran.values() {
        sums.episodes += 1;
        sums.operations += figures.operations;
        sums.checks += figures.checks;
        sums.skipped += figures.skipped;
        sums.simulated_us += figures.simulated_us;
        sums.installed += figures.installed;
        for (name, us) in &figures.without_service_us {
            let most = sums.without_service_us.entry(name.clone()).or_default();
            *most = (*most).max(*us);
        }
    }
    sums
}

/// One hash over the traces of all episodes, in their order.
fn hash<'a>(traces: impl Iterator<Item = &'a [u8; 32]>) -> String {
    let mut hash = Sha256::new();
    traces.for_each(|trace| hash.update(trace));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn drawn_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 % 1_000_000_007
}
