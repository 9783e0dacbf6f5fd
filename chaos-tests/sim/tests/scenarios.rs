//! Every directed scenario.

use mailraft_sim::scenarios::all;

/// Runs a scenario twice: it is clean, and the same each time.
fn passes(name: &str) {
    let scenario = all().iter().find(|s| s.name == name).unwrap_or_else(|| panic!("there is no scenario {name}"));
    let ran = (scenario.run)().unwrap_or_else(|why| panic!("{name}: {why}"));
    assert!(ran.report.is_clean() && ran.operations > 0, "{name}");
    let again = (scenario.run)().unwrap_or_else(|why| panic!("{name}, the second time: {why}"));
    assert_eq!(ran.hash, again.hash, "{name} does not repeat itself");
}

macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                passes($name);
            }
        )*

        #[test]
        fn every_scenario_is_run_and_says_what_it_is_about() {
            let names: Vec<&str> = all().iter().map(|s| s.name).collect();
            assert_eq!(names, [$($name),*]);
            assert!(all().iter().all(|s| !s.about.is_empty()));
        }
    };
}

scenarios! {
    half_change: "half-change",
    late_transfer: "late-transfer",
    late_transfer_short_log: "late-transfer-short-log",
    snapshot_crashes: "snapshot-crashes",
    snapshot_sender_dies: "snapshot-sender-dies",
    snapshot_comes_late: "snapshot-comes-late",
    earlier_term: "earlier-term",
    two_actors: "two-actors",
    late_question: "late-question",
    upload_swept: "upload-swept",
    upload_live: "upload-live",
    deposed: "deposed",
    power_off: "power-off",
    patient_sender: "patient-sender",
    full_disk: "full-disk",
    open_folder: "open-folder",
    outsiders: "outsiders",
}
