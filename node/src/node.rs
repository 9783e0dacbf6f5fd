//! `mailraft node`: one node in the foreground.

use std::path::Path;

use mailraft_server::config::Config;
use tracing_subscriber::EnvFilter;

use crate::failed::Failed;
use crate::output::tell;
use crate::stores::OnDisk;

/// Runs a node until it is told to stop.
pub fn run(path: &Path) -> Result<(), Failed> {
    let (config, filter) = load(path)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    if config.log.json {
        log.json().init();
    } else {
        log.init();
    }
    mailraft_server::run(config, path, &OnDisk).map_err(|e| Failed::because(e.to_string()))
}

/// Says whether a configuration is right, and which files that it names can't be read now: where systemd hands them over,
/// they are there only while the node runs.
pub fn check_config(path: &Path) -> Result<(), Failed> {
    let (config, _) = load(path)?;
    for (key, file) in config.files() {
        if let Err(error) = std::fs::File::open(file) {
            tell!("{key}: {} can't be read now ({error})", file.display());
        }
    }
    tell!("{}: right, for node {} of cluster {}", path.display(), config.node.id, config.cluster.id);
    Ok(())
}

fn load(path: &Path) -> Result<(Config, EnvFilter), Failed> {
    let config = Config::load(path).map_err(|e| Failed::usage(e.to_string()))?;
    let filter = EnvFilter::try_new(&config.log.level).map_err(|e| {
        Failed::usage(format!(
            "{}: log.level is {:?} ({e}): choose info, or a filter",
            path.display(),
            config.log.level
        ))
    })?;
    Ok((config, filter))
}
