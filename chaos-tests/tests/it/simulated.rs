//! The simulator as its users run it.

use std::process::Command;

fn sim(args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_mailraft-chaos")).arg("sim").args(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text)
}

#[test]
fn two_processes_run_the_same_from_one_seed() {
    let of = |seed: &str| -> serde_json::Value {
        let (ok, text) = sim(&["--seed", seed, "--episode", "1", "--json"]);
        assert!(ok, "{text}");
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let (one, again, other) = (of("7"), of("7"), of("8"));
    for key in ["hash", "operations", "checks", "simulated_s"] {
        assert_eq!(one[key], again[key], "{key}");
    }
    assert_ne!(one["hash"], other["hash"]);
}

/// Of a seed that is drawn anew each time; what fails says how to repeat it.
#[test]
fn a_seed_that_nobody_has_run_is_clean() {
    let (ok, text) = sim(&["--hours", "0.5", "--jobs", "2"]);
    println!("{text}");
    assert!(ok, "{text}");
    assert!(text.contains("times real time") && text.trim_end().ends_with("clean"), "{text}");
}
