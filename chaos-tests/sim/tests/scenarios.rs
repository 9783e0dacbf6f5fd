//! Every directed scenario.

use mailraft_sim::scenarios::all;

/// Seeds for each, unless MAILRAFT_SEEDS names a number.
const SEEDS: u64 = 3;

/// Runs a scenario from some seeds: it is clean, and the same each time.
fn passes(name: &str) {
    let scenario = all().iter().find(|s| s.name == name).unwrap_or_else(|| panic!("there is no scenario {name}"));
    let seeds = std::env::var("MAILRAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let run = |seed| (scenario.run)(seed).unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
    let hashes: Vec<[u8; 32]> = (1..=seeds).map(|seed| run(seed).hash).collect();
    assert_eq!(run(1).hash, hashes[0], "{name} does not repeat itself");
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
    moved_replica: "moved-replica",
    moved_leader: "moved-leader",
    late_transfer: "late-transfer",
    late_transfer_short_log: "late-transfer-short-log",
    snapshot_crashes: "snapshot-crashes",
    snapshot_sender_dies: "snapshot-sender-dies",
    snapshot_comes_late: "snapshot-comes-late",
    snapshot_comes_twice: "snapshot-comes-twice",
    earlier_term: "earlier-term",
    two_actors: "two-actors",
    late_question: "late-question",
    upload_swept: "upload-swept",
    upload_live: "upload-live",
    deposed: "deposed",
    deaf_leader: "deaf-leader",
    power_off: "power-off",
    patient_sender: "patient-sender",
    wrong_year: "wrong-year",
    wrong_year_behind: "wrong-year-behind",
    started_lately: "started-lately",
    full_disk: "full-disk",
    corrupt_rows: "corrupt-rows",
    corrupt_rows_read: "corrupt-rows-read",
    corrupt_rows_snapshot: "corrupt-rows-snapshot",
    corrupt_rows_control: "corrupt-rows-control",
    open_folder: "open-folder",
    outsiders: "outsiders",
    takeover_elects: "takeover-elects",
    takeover_half: "takeover-half",
    takeover_old_changes: "takeover-old-changes",
    takeover_removal: "takeover-removal",
    takeover_commit: "takeover-commit",
    takeover_ahead: "takeover-ahead",
    takeover_uncommitted: "takeover-uncommitted",
    takeover_needs: "takeover-needs",
    takeover_two_homes: "takeover-two-homes",
    takeover_old_terms: "takeover-old-terms",
    takeover_refused: "takeover-refused",
    takeover_repeat: "takeover-repeat",
    takeover_lost_seen: "takeover-lost-seen",
    takeover_lives_on: "takeover-lives-on",
    takeover_returning: "takeover-returning",
    more_promised: "more-promised",
    less_promised: "less-promised",
    takeover_rotten: "takeover-rotten",
    word_again: "word-again",
    word_deaths: "word-deaths",
    word_rivals: "word-rivals",
    word_slept: "word-slept",
    word_over_half: "word-over-half",
    word_amid_snapshot: "word-amid-snapshot",
    word_false_alone: "word-false-alone",
    word_false: "word-false",
    word_returns: "word-returns",
}
