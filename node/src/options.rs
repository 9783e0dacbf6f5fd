//! Options that several commands have.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::node_spec::{NodeSpec, RegionSpecs};

/// Options of quickstart.
#[derive(Args)]
pub struct Quickstart {
    /// Where everything is kept
    #[arg(long, default_value = "./mailraft-data")]
    pub dir: PathBuf,
    /// How many nodes, in one region
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9), conflicts_with = "regions")]
    pub nodes: u64,
    /// Regions with so many nodes each, such as home=3,south=3: the first is home and serves mail, the others keep
    /// encrypted backups, and nothing is answered that they do not hold
    #[arg(long, value_name = "NAME=NODES,...")]
    pub regions: Option<RegionSpecs>,
    /// The first node's first port
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1_024..=56_000))]
    pub base_port: u16,
    /// Return once everything runs
    #[arg(long)]
    pub detach: bool,
}

/// Options of `doctor`.
#[derive(Args)]
pub struct Doctor {
    /// The node's configuration file
    #[arg(long)]
    pub config: PathBuf,
    /// JSON instead of lines
    #[arg(long, conflicts_with_all = ["power_cut_write", "power_cut_check"])]
    pub json: bool,
    /// Write and sync numbered records into the data directory until the power is cut, printing each number
    #[arg(long)]
    pub power_cut_write: bool,
    /// After the power was cut: are all records there up to this number, the last that was seen
    #[arg(long, value_name = "NUMBER", conflicts_with = "power_cut_write")]
    pub power_cut_check: Option<u64>,
}

/// Options of `cluster create`.
#[derive(Args)]
pub struct CreateCluster {
    /// Where the cluster's authority and each node's files are written: a new directory on a machine that is no node
    #[arg(long)]
    pub dir: PathBuf,
    /// A node, once for each: id=1,host=mx1.example.org[,name=mx1][,peer=10.0.0.1:10700][,region=home][,zone=a]
    /// [,listen=10.0.0.1]. Other nodes reach it at peer, or else at its host, port 10700. The first node's region is
    /// home and serves mail; nodes of other regions keep encrypted backups; sites under 10 ms apart are zones of one
    #[arg(long = "node", required = true, num_args = 1..=64, value_name = "KEY=VALUE,...")]
    pub nodes: Vec<NodeSpec>,
    /// A name that mail programs use, in every node's certificate besides its host; may be repeated
    #[arg(long = "mail-name", value_name = "NAME")]
    pub mail_names: Vec<String>,
    /// Mail partitions, for ever
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub partitions: u32,
    /// Where a node will have its configuration, keys and certificates
    #[arg(long, default_value = "/etc/mailraft")]
    pub config_dir: PathBuf,
    /// Where a node will find root.key, peer.key and admin-token, if not in --config-dir; for the packaged unit
    /// /run/credentials/mailraft.service
    #[arg(long)]
    pub secrets_dir: Option<PathBuf>,
    /// Where a node will keep its data
    #[arg(long, default_value = "/var/lib/mailraft/data")]
    pub data_dir: PathBuf,
    /// The address that nodes listen on; [::] is IPv4 too
    #[arg(long, default_value = "::")]
    pub listen: IpAddr,
    /// Added to every port, for several nodes on a machine or behind forwarded ports
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    pub port_offset: u16,
}

/// Options of `cluster certificates`.
#[derive(Args)]
pub struct Certificates {
    /// The directory that `cluster create` wrote
    #[arg(long)]
    pub dir: PathBuf,
    /// Only for this node, by name; may be repeated
    #[arg(long = "node", value_name = "NAME")]
    pub nodes: Vec<String>,
}

/// Which cluster.
#[derive(Args)]
pub struct Target {
    /// A quickstart cluster's directory: ./mailraft-data, unless that is not there and this machine is a node by its package
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// A node's admin server instead, such as http://127.0.0.1:10080; that of this machine's package is found by itself
    #[arg(long, conflicts_with = "dir")]
    pub admin: Option<String>,
    /// The file with the admin token, with --admin
    #[arg(long)]
    pub token_file: Option<PathBuf>,
}
