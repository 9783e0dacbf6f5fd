//! `mailraft-chaos`: faults against simulated clusters and against real node processes, and figures.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mailraft_chaos::{bench, scenarios, simulate};

/// Drives the built mailraft binary through faults and measures it.
#[derive(Parser)]
#[command(
    version,
    after_help = "The binary is target/release/mailraft of this checkout, or what MAILRAFT names.\nExamples:\n  mailraft-chaos sim --seed 1 --hours 10\n  mailraft-chaos run kill-under-load --seconds 60\n  mailraft-chaos run living-connection --kills 30\n  mailraft-chaos run siege --seconds 3600\n  mailraft-chaos run region-loss --losses 20 --durability geo --out DIR\n  mailraft-chaos bench\n  mailraft-chaos bench --regions --seconds 15 --kills 6\n  mailraft-chaos bench --sending --messages 4000 --kills 6\n  mailraft-chaos bench --folder 100000\n  mailraft-chaos bench --idle 5000"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate a cluster under faults, from a seed: hours of it in seconds, and every rule checked
    Sim(simulate::SimArgs),
    /// Run a scenario: backup-region, kill-under-load, living-connection, region-loss, searchers, siege, two-nodes-dead
    Run {
        /// Its name
        scenario: String,
        #[command(flatten)]
        extent: scenarios::Extent,
    },
    /// Deliveries a second, latency, CPU time, failover time, beside this disk's fdatasync
    Bench {
        /// With a backup region 5, 40 and 150 ms away, beside a cluster without one
        #[arg(long)]
        regions: bool,
        /// Messages to several recipients and to another server, beside a Postfix of this machine that sends the same
        #[arg(long, conflicts_with = "regions")]
        sending: bool,
        /// Messages to another server, with --sending
        #[arg(long, default_value_t = 4_000)]
        messages: usize,
        /// Messages that wait while nodes are killed, with --sending
        #[arg(long, default_value_t = 100_000)]
        queued: usize,
        /// Of commands on a folder of so many messages instead, and what another mailbox hears of them
        #[arg(long, conflicts_with = "regions")]
        folder: Option<u32>,
        /// Of the memory of so many sessions that idle instead
        #[arg(long, conflicts_with_all = ["regions", "folder"])]
        idle: Option<usize>,
        /// How long each load lasts, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// How many kills
        #[arg(long, default_value_t = 30)]
        kills: usize,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Sim(args) => simulate::run(&args),
        Command::Run { scenario, extent } => scenarios::run(&scenario, &extent).map(|said| println!("ok: {said}")),
        Command::Bench { folder: Some(messages), .. } => bench::folder::run(messages),
        Command::Bench { idle: Some(sessions), .. } => bench::idle::run(sessions),
        Command::Bench { sending: true, messages, queued, kills, .. } => bench::sending::run(messages, queued, kills),
        Command::Bench { regions: true, seconds, kills, .. } => bench::regions::run(seconds, kills),
        Command::Bench { seconds, kills, .. } => bench::run(seconds, kills),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}
