//! Directed scenarios: interleavings that chance rarely finds, each as a script that fails if it does not reach its
//! point.
//!
//! * `script`: what they are written in. `events`: what they look for among the things that happen.

mod corrupt_rows;
mod deaf_leader;
mod degraded;
mod deposed;
mod earlier_term;
mod events;
mod full_disk;
mod half_change;
mod late_question;
mod late_transfer;
mod moved_replica;
mod open_folder;
mod outsiders;
mod patient_sender;
mod power_off;
mod script;
mod snapshot_crashes;
mod snapshot_sender;
mod started_lately;
mod takeover;
mod two_actors;
mod upload;
mod words;
mod wrong_year;

use crate::world::run::Ran;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// Runs it from a seed, which only delays depend on: what it showed, or why it failed.
    pub run: fn(u64) -> Result<Ran, String>,
}

const ALL: [Scenario; 55] = [
    Scenario {
        name: "half-change",
        about: "restarts with a change of members half applied, at each of four steps",
        run: half_change::restarts,
    },
    Scenario {
        name: "moved-replica",
        about: "a replica moves to another node, and somebody dies at each step",
        run: moved_replica::deaths,
    },
    Scenario {
        name: "moved-leader",
        about: "the leader's own replica moves while clients on every node read and write",
        run: moved_replica::of_the_leader,
    },
    Scenario {
        name: "late-transfer",
        about: "an order to take the lead comes long after the transfer was given up",
        run: late_transfer::arrives,
    },
    Scenario {
        name: "late-transfer-short-log",
        about: "the same at a node whose log is shorter than the others' by then",
        run: late_transfer::arrives_at_a_short_log,
    },
    Scenario {
        name: "snapshot-crashes",
        about: "a node dies at each step of a snapshot's installation",
        run: snapshot_crashes::five_deaths,
    },
    Scenario {
        name: "snapshot-sender-dies",
        about: "the leader dies while it sends a snapshot to one who was away for long",
        run: snapshot_sender::dies,
    },
    Scenario {
        name: "snapshot-comes-late",
        about: "an older snapshot comes while a newer one is being installed",
        run: snapshot_sender::comes_late,
    },
    Scenario {
        name: "snapshot-comes-twice",
        about: "a second snapshot of the same leader comes while the first is being installed",
        run: snapshot_sender::comes_twice,
    },
    Scenario {
        name: "earlier-term",
        about: "a change of an earlier term is committed later, and its client asks again before and after",
        run: earlier_term::committed_later,
    },
    Scenario {
        name: "two-actors",
        about: "actors of one mailbox panic in one term while its entry is in flight",
        run: two_actors::in_one_term,
    },
    Scenario {
        name: "late-question",
        about: "a question arrives after its session succeeded elsewhere, at the old and at a new leader",
        run: late_question::arrives,
    },
    Scenario {
        name: "upload-swept",
        about: "the leader changes after half an upload, and the sweep takes a slow second attempt",
        run: upload::swept_under_way,
    },
    Scenario {
        name: "upload-live",
        about: "an upload becomes live while its sweep is due",
        run: upload::live_before_the_sweep,
    },
    Scenario {
        name: "deposed",
        about: "a leader is cut off with its clients and does not know it",
        run: deposed::with_its_clients,
    },
    Scenario {
        name: "deaf-leader",
        about: "a leader is heard by everyone and hears nobody",
        run: deaf_leader::is_deposed,
    },
    Scenario {
        name: "power-off",
        about: "all nodes lose power with torn logs, and only a majority returns at first",
        run: power_off::at_once,
    },
    Scenario {
        name: "patient-sender",
        about: "a sender repeats a delivery for hours across failovers and clocks that jump by days",
        run: patient_sender::for_hours,
    },
    Scenario { name: "wrong-year", about: "every clock is a year ahead for a while", run: wrong_year::and_back },
    Scenario {
        name: "wrong-year-behind",
        about: "every clock is a year behind after a power failure",
        run: wrong_year::behind,
    },
    Scenario {
        name: "started-lately",
        about: "a leader that started lately knows few clocks, and most of these are wrong",
        run: started_lately::among_wrong_clocks,
    },
    Scenario {
        name: "full-disk",
        about: "the leader's disk is full, then another one's too, then they are freed",
        run: full_disk::one_then_two,
    },
    Scenario {
        name: "corrupt-rows",
        about: "the leader's rows of one mailbox turn bad on its disk",
        run: corrupt_rows::of_the_leader,
    },
    Scenario {
        name: "corrupt-rows-read",
        about: "the contents of messages turn bad beside a leader that has their mailbox in memory",
        run: corrupt_rows::of_a_loaded_mailbox,
    },
    Scenario {
        name: "corrupt-rows-snapshot",
        about: "a leader whose rows turned bad is to send a snapshot",
        run: corrupt_rows::of_a_snapshot_sender,
    },
    Scenario {
        name: "corrupt-rows-control",
        about: "the keys of mailboxes turn bad on the disk of a leader",
        run: corrupt_rows::of_the_control_group,
    },
    Scenario {
        name: "open-folder",
        about: "an open folder is renamed, deleted and made anew while leaders die",
        run: open_folder::through_failovers,
    },
    Scenario {
        name: "outsiders",
        about: "clients of a node without a replica, through leader changes and links that carry one way",
        run: outsiders::find_the_leader,
    },
    Scenario {
        name: "takeover-elects",
        about: "an answer counts on two of three standbys, and the takeover elects two others",
        run: takeover::elects_who_has_it,
    },
    Scenario {
        name: "takeover-half",
        about: "one of three standbys has the word, and then a second",
        run: takeover::one_of_three_is_not_enough,
    },
    Scenario {
        name: "takeover-old-changes",
        about: "a change of members was on its way to south when the home was lost",
        run: takeover::old_changes_of_members_count_nothing,
    },
    Scenario {
        name: "takeover-removal",
        about: "a message is removed, which south does not hold yet, and somebody reads it",
        run: takeover::a_removal_that_is_not_held_is_not_shown,
    },
    Scenario {
        name: "takeover-commit",
        about: "a standby has what its neighbours lack, and is down while they take over",
        run: takeover::hears_no_commit_that_its_region_lacks,
    },
    Scenario {
        name: "takeover-ahead",
        about: "a standby has by a snapshot what its neighbours lack, and they take over without it",
        run: takeover::who_is_ahead_adopts_nothing,
    },
    Scenario {
        name: "takeover-uncommitted",
        about: "south has what is committed nowhere, and the next leader at home overwrites it",
        run: takeover::what_is_not_committed_is_not_answered,
    },
    Scenario {
        name: "takeover-needs",
        about: "mail is held by south, and the key of its mailbox is not",
        run: takeover::mail_waits_for_the_key_that_it_needs,
    },
    Scenario {
        name: "takeover-two-homes",
        about: "the operator is wrong, and the old home lives and is heard by one of south",
        run: takeover::the_old_home_lives_and_seals_itself,
    },
    Scenario {
        name: "takeover-old-terms",
        about: "the old home has elections while it is cut off, and comes back",
        run: takeover::the_old_homes_terms_and_log_count_nothing,
    },
    Scenario {
        name: "takeover-refused",
        about: "a deposed leader's entry lives on in south only, and its client was refused meanwhile",
        run: takeover::what_was_refused_stays_undone,
    },
    Scenario {
        name: "takeover-repeat",
        about: "a client that lost its answer asks again in the new home",
        run: takeover::what_was_done_before_is_not_done_again,
    },
    Scenario {
        name: "takeover-lost-seen",
        about: "a client that saw what is lost goes on in the new home",
        run: takeover::who_saw_what_is_lost_is_told_everything,
    },
    Scenario {
        name: "takeover-lives-on",
        about: "a deposed leader's entry lives on in south only, and the home went on alone without it",
        run: takeover::what_a_deposed_leader_sent_abroad_is_mistaken_for_nothing,
    },
    Scenario {
        name: "takeover-returning",
        about: "south takes over while the home returns from being alone, and lacks that of one partition",
        run: degraded::it_is_whole_only_once_every_partition_says_so,
    },
    Scenario {
        name: "more-promised",
        about: "more is promised than before while south lacks answers, which it is said to lack until it has them",
        run: degraded::what_was_answered_by_less_is_missing_until_it_is_held,
    },
    Scenario {
        name: "less-promised",
        about: "less is promised in the moment in which south is cut off, and never hears of it",
        run: degraded::less_is_promised_only_once_it_is_held,
    },
    Scenario {
        name: "takeover-rotten",
        about: "a standby is not what was applied, and the others take over",
        run: degraded::a_rotten_standby_stops_nobody,
    },
    Scenario {
        name: "word-again",
        about: "whoever adopted first dies, and the word is given again at the others",
        run: words::who_adopted_first_dies,
    },
    Scenario {
        name: "word-deaths",
        about: "nodes die before and behind the sync that adopts, and as the first leader of an incarnation",
        run: words::they_die_as_they_adopt,
    },
    Scenario {
        name: "word-rivals",
        about: "two operators give one number two nonces at once",
        run: words::one_number_with_two_nonces_serves_nothing,
    },
    Scenario {
        name: "word-slept",
        about: "a node sleeps through a takeover and begins another, which then takes over from the first",
        run: words::one_that_slept_names_a_higher_number,
    },
    Scenario {
        name: "word-over-half",
        about: "a second operator goes over a word that has not begun",
        run: words::half_a_takeover_is_gone_over,
    },
    Scenario {
        name: "word-amid-snapshot",
        about: "a word comes while a snapshot is being put in place",
        run: words::a_word_comes_amid_a_snapshot,
    },
    Scenario {
        name: "word-false-alone",
        about: "the word is false, and the old home answers alone until it hears of it",
        run: words::the_old_home_answers_alone_until_it_hears,
    },
    Scenario {
        name: "word-false",
        about: "the word is false, and clients stay at the old home, which reaches one standby",
        run: words::the_old_home_answers_nothing_that_it_can_not_keep,
    },
    Scenario {
        name: "word-returns",
        about: "a client comes back behind a takeover with what it had kept of what is lost",
        run: words::who_kept_what_is_lost_is_told_everything,
    },
];

/// Scenarios of a takeover, and the planted faults that make each of them fail.
pub const PLANTED: [(&str, &str); 26] = [
    ("takeover-elects", "HeldByOneStandby"),
    ("takeover-half", "MailBeforeControl"),
    ("takeover-half", "OneOfThreeIsEnough"),
    ("takeover-old-changes", "OldChangesCount"),
    ("takeover-removal", "RowsAheadOfMemory"),
    ("takeover-lost-seen", "UidsGoOn"),
    ("takeover-commit", "StandbyHearsCommit"),
    ("takeover-ahead", "AheadAdopts"),
    ("takeover-uncommitted", "StandbysCommit"),
    ("takeover-needs", "NeedsNotAwaited"),
    ("takeover-two-homes", "SealedInMemory"),
    ("takeover-old-terms", "OtherIncarnationHeard"),
    ("takeover-refused", "ShownBeforeHeld"),
    ("takeover-repeat", "RetryNotLookedUp"),
    ("takeover-lost-seen", "ForkNotHeard"),
    ("takeover-lives-on", "AloneGoesOn"),
    ("takeover-returning", "WholeBeforeHeld"),
    ("more-promised", "LessPromisedForgotten"),
    ("less-promised", "LessPromisedUnheard"),
    ("takeover-rotten", "RottenStandbyStopsHome"),
    ("word-again", "OneOfThreeIsEnough"),
    ("word-deaths", "AdoptsUnsynced"),
    ("word-rivals", "NonceNotCompared"),
    ("word-slept", "UidsGoOn"),
    ("word-false", "HeldByOneStandby"),
    ("word-returns", "ForkNotHeard"),
];

/// All scenarios.
pub fn all() -> &'static [Scenario] {
    &ALL
}
