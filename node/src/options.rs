//! Options that several commands have.

use std::path::PathBuf;

use clap::Args;

/// Options of quickstart.
#[derive(Args)]
pub struct Quickstart {
    /// Where everything is kept
    #[arg(long, default_value = "./mailraft-data")]
    pub dir: PathBuf,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// The first node's first port
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1_024..=56_000))]
    pub base_port: u16,
    /// Return once everything runs
    #[arg(long)]
    pub detach: bool,
}

/// Which cluster.
#[derive(Args)]
pub struct Target {
    /// A quickstart cluster's directory
    #[arg(long, default_value = "./mailraft-data")]
    pub dir: PathBuf,
    /// A node's admin server instead, such as http://127.0.0.1:10080
    #[arg(long, conflicts_with = "dir")]
    pub admin: Option<String>,
    /// The file with the admin token, with --admin
    #[arg(long)]
    pub token_file: Option<PathBuf>,
}
