//! `mailraft doctor`: what would keep a node from running well, and what to do about each finding. It starts nothing,
//! needs no running cluster, and where one runs it asks that too.

mod certificates;
mod clocks;
mod descriptors;
mod disk;
mod finding;
mod memory;
mod ports;
mod power_cut;
mod running;
mod versions;

use std::process::ExitCode;

use mailraft_server::config::Config;
use serde_json::json;

use crate::failed::Failed;
use crate::options::Doctor;
use crate::output::tell;
use finding::{Finding, Verdict};

/// Examines a node's machine, or takes a step of the power-cut test.
///
/// # Errors
/// If the configuration is not right, or the power-cut test can't be run. Findings are no errors: the exit code is 1
/// if one of them is bad.
pub fn run(options: &Doctor) -> Result<ExitCode, Failed> {
    let config = Config::load(&options.config).map_err(|e| Failed::usage(e.to_string()))?;
    if options.power_cut_write {
        return power_cut::write(&config.data_dir);
    }
    if let Some(seen) = options.power_cut_check {
        return power_cut::check(&config.data_dir, seen);
    }
    let findings = examine(&config);
    if options.json {
        tell!("{}", json!({"healthy": !any_bad(&findings), "findings": findings}));
    } else {
        for finding in &findings {
            tell!("{finding}");
        }
        tell!("\n{}", summary(&findings));
    }
    Ok(if any_bad(&findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(config: &Config) -> Vec<Finding> {
    let status = running::status(config);
    let mut findings = Vec::new();
    findings.extend(disk::examine(&config.data_dir));
    findings.extend(descriptors::examine(config.limits.sessions, config.cluster.peers.len()));
    findings.extend(memory::examine(&config.limits));
    findings.extend(certificates::examine(config));
    findings.extend(ports::examine(config));
    findings.extend(clocks::examine(status.as_ref()));
    findings.extend(versions::examine(status.as_ref()));
    findings
}

fn any_bad(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.verdict == Verdict::Bad)
}

fn summary(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    match (count(Verdict::Bad), count(Verdict::Warning), count(Verdict::Unknown)) {
        (0, 0, 0) => "nothing is wrong".to_owned(),
        (bad, warnings, unknown) => format!("{bad} bad, {warnings} warnings, {unknown} could not be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_bad_counts_as_unhealthy_and_all_is_counted() {
        let good = Finding::good("disk", "fine".to_owned());
        let warning = Finding::warning("disk", "slow".to_owned(), "take a faster one");
        let bad = Finding::bad("disk", "none".to_owned(), "mount one");
        assert_eq!(summary(std::slice::from_ref(&good)), "nothing is wrong");
        assert!(!any_bad(&[good.clone(), warning.clone()]));
        let all = [good, warning, bad, Finding::unknown("clock", "no word".to_owned(), "ask again")];
        assert!(any_bad(&all));
        assert_eq!(summary(&all), "1 bad, 1 warnings, 1 could not be told");
    }
}
