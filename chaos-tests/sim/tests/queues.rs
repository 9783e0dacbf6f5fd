//! Messages for several mailboxes reach each of them once, whatever happens between the queue and them; and each planted
//! fault is found.

use mailraft_sim::queues::{Summary, run, run_outside};

/// Steps of a run.
const STEPS: usize = 1_000;

#[test]
fn each_recipient_gets_what_was_accepted_once_whatever_is_lost_late_and_doubled() {
    let mut all = Summary::default();
    for seed in 1..=12 {
        let ran = run(seed, STEPS).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        all.accepted += ran.accepted;
        all.delivered += ran.delivered;
        all.errands += ran.errands;
        all.stale += ran.stale;
        all.disturbed += ran.disturbed;
        all.lost += ran.lost;
    }
    println!("{all:?}");
    assert!(
        all.accepted > 200 && all.delivered > 800 && all.stale > 0 && all.disturbed > 300 && all.lost > 100,
        "{all:?}"
    );
}

/// Worlds with other servers, unless MAILRAFT_SEEDS names a number.
const OUTSIDE_SEEDS: u64 = 6;

#[test]
fn what_goes_to_other_servers_is_sent_or_told_of_and_no_more_often_than_something_was_lost() {
    let seeds = std::env::var("MAILRAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(OUTSIDE_SEEDS);
    let mut all = Summary::default();
    for seed in 1..=seeds {
        let ran = run_outside(seed, STEPS).unwrap_or_else(|wrong| panic!("seed {seed} with other servers: {wrong}"));
        all.outside += ran.outside;
        all.taken += ran.taken;
        all.repeated += ran.repeated;
        all.unheard += ran.unheard;
        all.withdrawn += ran.withdrawn;
        all.decided_otherwise += ran.decided_otherwise;
        all.reports += ran.reports;
        all.expired += ran.expired;
        all.decided += ran.decided;
        all.disturbed += ran.disturbed;
    }
    println!("{all:?}");
    assert!(all.outside as u64 > 20 * seeds && all.taken as u64 > 10 * seeds, "{all:?}");
    assert!(all.repeated > 0 && all.repeated <= all.unheard, "{all:?}");
    assert!(
        all.withdrawn > 0 && all.decided_otherwise > 0 && all.reports > 0 && all.expired > 0 && all.decided > 0,
        "{all:?}"
    );
}

#[cfg(feature = "plant")]
mod planted {
    use super::*;

    /// Seeds that are tried.
    const SEEDS_MAX: u64 = 300;

    /// What is delivered twice is there twice, or, where its body is the very same, refused for ever.
    const TWICE: [&str; 2] = ["2 times", "liveness"];

    fn is_found<const N: usize>(fault: &'static str, by: [&str; N]) {
        finds(fault, &by, run);
    }

    fn finds(fault: &'static str, by: &[&str], run: fn(u64, usize) -> Result<Summary, String>) {
        mailraft_storage::plant::set(Some(fault));
        let found = (1..=SEEDS_MAX).find_map(|seed| run(seed, STEPS).err().map(|wrong| (seed, wrong)));
        mailraft_storage::plant::set(None);
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{fault} is not found"));
        assert!(by.iter().any(|by| wrong.contains(by)), "{fault}: {wrong}");
        run(seed, STEPS).unwrap_or_else(|wrong| panic!("seed {seed} without a fault: {wrong}"));
    }

    #[test]
    fn a_delivery_that_was_held_up_past_its_release_is_stored_again() {
        is_found("StaleDeliveryStored", ["2 times"]);
    }

    #[test]
    fn a_release_raises_no_floor() {
        is_found("ReleaseRaisesNoFloor", ["2 times"]);
    }

    #[test]
    fn a_release_comes_before_done_is_durable() {
        is_found("ReleasedBeforeDone", TWICE);
    }

    #[test]
    fn a_delivery_is_answered_before_another_region_holds_it() {
        is_found("QueuedDeliveryNotHeld", ["0 times"]);
    }

    #[test]
    fn what_a_queue_delivered_is_not_remembered() {
        is_found("QueuedDeliveryNotRemembered", TWICE);
    }

    #[test]
    fn an_owner_does_nothing_more_for_a_recipient_once_that_failed() {
        is_found("QueueSleeps", ["liveness"]);
    }

    #[test]
    fn a_new_owner_does_not_look_what_waits() {
        is_found("QueueNotStarted", ["liveness"]);
    }

    mod outside {
        use super::*;

        fn is_found<const N: usize>(fault: &'static str, by: [&str; N]) {
            finds(fault, &by, run_outside);
        }

        #[test]
        fn what_another_server_has_is_bounced() {
            is_found("SentIsBounced", ["bounced"]);
        }

        #[test]
        fn an_owner_does_not_wake_for_the_next_attempt() {
            is_found("SendingSleeps", ["asleep"]);
        }

        #[test]
        fn what_an_operator_holds_meanwhile_is_sent_all_the_same() {
            is_found("StoppedIsSent", ["stopped", "repeated"]);
        }

        #[test]
        fn a_report_is_made_of_a_report() {
            is_found("NullPathTold", ["report on a report"]);
        }

        #[test]
        fn a_deposed_leader_sends_what_its_successor_sends() {
            is_found("LetGoUnconfirmed", ["repeated"]);
        }

        #[test]
        fn a_successor_does_not_look_what_is_to_be_sent() {
            finds("QueueNotStarted", &["asleep"], run_outside);
        }
    }
}
