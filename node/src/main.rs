//! Mailraft: a mail cluster in one binary.

mod admin_client;
mod cli;
mod cluster;
mod doctor;
mod domain;
mod failed;
mod failover;
mod manual;
mod node;
mod node_files;
mod node_spec;
mod options;
mod output;
mod password;
mod queue;
mod quickstart;
mod region;
mod status;
mod stores;
mod trace;

use std::process::ExitCode;

use clap::Parser;

/// That of the C library keeps what is freed for each thread by itself: a node that had worked on very large mailboxes stayed at
/// several times what it used. RocksDB goes on with that; its own bounds keep it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let command = cli::Cli::parse();
    match cli::run(command) {
        Ok(code) => code,
        Err(failed) => {
            output::error(&failed.sentence);
            ExitCode::from(failed.code)
        }
    }
}
