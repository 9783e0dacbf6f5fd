//! Directed scenarios: interleavings that chance rarely finds, each as a script that fails if it does not reach its
//! point.
//!
//! * `script`: what they are written in. `events`: what they look for among the things that happen.

mod corrupt_rows;
mod deaf_leader;
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
mod two_actors;
mod upload;
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

const ALL: [Scenario; 28] = [
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
];

/// All scenarios.
pub fn all() -> &'static [Scenario] {
    &ALL
}
