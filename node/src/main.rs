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
