//! Every metric of this crate, with its unit in its name.

/// Seconds that one batch took to be written and synced.
pub const LOG_FSYNC: &str = "mailraft_log_fsync_seconds";
/// Bytes of entries in one batch.
pub const LOG_BATCH: &str = "mailraft_log_batch_bytes";
/// Entries handed to apply.
pub const APPLY_ENTRIES: &str = "mailraft_apply_entries_total";
/// Seconds of one round of applying.
pub const APPLY: &str = "mailraft_apply_seconds";
/// Apply jobs that wait.
pub const APPLY_QUEUE: &str = "mailraft_apply_queue_jobs";
/// Seconds of one flush of the rows.
pub const FLUSH: &str = "mailraft_rows_flush_seconds";
/// Inputs that wait for the core.
pub const CORE_QUEUE: &str = "mailraft_core_queue_inputs";
/// Seconds that the core worked at one wake-up.
pub const CORE_ROUND: &str = "mailraft_core_round_seconds";
/// Ticks that a stall swallowed.
pub const TICKS_MISSED: &str = "mailraft_core_ticks_missed_total";
/// Partitions led here, the control group included.
pub const LED: &str = "mailraft_partitions_led";
/// Changes of a partition's known leader.
pub const LEADER_CHANGES: &str = "mailraft_leader_changes_total";
/// Questions by kind and outcome.
pub const DECIDED: &str = "mailraft_core_decided_total";
/// Seconds from a proposal to its outcome.
pub const PROPOSAL: &str = "mailraft_proposal_seconds";
/// Whether the connection for Raft messages to a node stands (1 or 0).
pub const PEER_CONNECTED: &str = "mailraft_peer_connected";
/// Messages sent to a node.
pub const PEER_SENT: &str = "mailraft_peer_messages_sent_total";
/// Bytes sent to a node.
pub const PEER_SENT_BYTES: &str = "mailraft_peer_sent_bytes_total";
/// How long each answer waited for other regions, from applied to visible.
pub const VISIBLE: &str = "mailraft_visible_seconds";
/// Bytes of Raft messages sent to another region.
pub const REGION_SENT_BYTES: &str = "mailraft_region_sent_bytes_total";
/// Messages received from a node.
pub const PEER_RECEIVED: &str = "mailraft_peer_messages_received_total";
/// Messages to a node thrown away because it is not reached or too slow.
pub const PEER_DROPPED: &str = "mailraft_peer_messages_dropped_total";
/// Connections to a node that could not be made.
pub const PEER_DIAL_FAILURES: &str = "mailraft_peer_dial_failures_total";
/// Incoming connections refused, by reason.
pub const PEER_REFUSED: &str = "mailraft_peer_connections_refused_total";
/// Messages of a node that no honest node sends, by reason.
pub const PEER_MESSAGES_REFUSED: &str = "mailraft_peer_messages_refused_total";
/// Snapshots sent, by result.
pub const SNAPSHOTS_SENT: &str = "mailraft_snapshots_sent_total";
/// Snapshots received, by result.
pub const SNAPSHOTS_RECEIVED: &str = "mailraft_snapshots_received_total";
/// Bytes of snapshots sent.
pub const SNAPSHOT_SENT_BYTES: &str = "mailraft_snapshot_sent_bytes_total";
/// Bytes of snapshots received.
pub const SNAPSHOT_RECEIVED_BYTES: &str = "mailraft_snapshot_received_bytes_total";
/// Seconds that replacing a replica's rows by a snapshot took.
pub const SNAPSHOT_INSTALL: &str = "mailraft_snapshot_install_seconds";
/// Results of commands evicted.
pub const EVICTED: &str = "mailraft_command_results_evicted_total";
/// Seconds that this machine's clock is ahead of what the nodes agree on; 0 while it is near enough.
pub const CLOCK_OFF: &str = "mailraft_clock_off_seconds";
/// Rows that could not be read, each time it was noticed.
pub const DAMAGED: &str = "mailraft_damaged_rows_met_total";
/// Times that another replica was found to differ from one here, by partition.
pub const DIFFERS: &str = "mailraft_replicas_differ_total";
/// Bytes of rows that were read to compare them with their sums.
pub const SCRUB_BYTES: &str = "mailraft_scrub_read_bytes_total";
/// How much of this round's reading is done, from 0 to 1.
pub const SCRUB_PROGRESS: &str = "mailraft_scrub_progress_ratio";
/// Every row was read within the last so many seconds.
pub const SCRUB_AGE: &str = "mailraft_scrub_age_seconds";
/// Reasons to stop at once.
pub const FATAL: &str = "mailraft_fatal_total";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A count that only rises.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// Every metric of this crate: name, kind, help.
pub const ALL: &[(&str, Kind, &str)] = &[
    (LOG_FSYNC, Kind::Histogram, "Time to write and sync one batch of the Raft log."),
    (LOG_BATCH, Kind::Histogram, "Bytes of entries in one batch of the Raft log."),
    (APPLY_ENTRIES, Kind::Counter, "Committed entries handed to apply."),
    (APPLY, Kind::Histogram, "Time of one round of applying entries."),
    (APPLY_QUEUE, Kind::Gauge, "Apply jobs that wait."),
    (FLUSH, Kind::Histogram, "Time of one flush of the rows."),
    (CORE_QUEUE, Kind::Gauge, "Inputs that wait for the core thread."),
    (CORE_ROUND, Kind::Histogram, "Time the core thread worked at one wake-up."),
    (TICKS_MISSED, Kind::Counter, "Ticks of 25 ms that a stall of the core thread swallowed."),
    (LED, Kind::Gauge, "Partitions led by this node, the control group included."),
    (
        CLOCK_OFF,
        Kind::Gauge,
        "Seconds that this machine's clock is ahead of what the nodes agree on; 0 while it is near enough.",
    ),
    (LEADER_CHANGES, Kind::Counter, "Changes of a partition's leader as this node knows it."),
    (DECIDED, Kind::Counter, "Questions to the core, by kind and outcome."),
    (PROPOSAL, Kind::Histogram, "Time from a proposal to its outcome."),
    (PEER_CONNECTED, Kind::Gauge, "Whether the connection for Raft messages to a node stands."),
    (PEER_SENT, Kind::Counter, "Raft messages sent to a node."),
    (PEER_SENT_BYTES, Kind::Counter, "Bytes of Raft messages sent to a node."),
    (VISIBLE, Kind::Histogram, "How long answers waited for other regions, from applied to visible."),
    (REGION_SENT_BYTES, Kind::Counter, "Bytes of Raft messages and snapshots sent to another region."),
    (PEER_RECEIVED, Kind::Counter, "Raft messages received from a node."),
    (PEER_DROPPED, Kind::Counter, "Raft messages thrown away, by node: it is not reached or too slow."),
    (PEER_DIAL_FAILURES, Kind::Counter, "Connections to a node that could not be made."),
    (PEER_REFUSED, Kind::Counter, "Connections of other nodes that were refused, by reason."),
    (
        PEER_MESSAGES_REFUSED,
        Kind::Counter,
        "Messages of a node that no honest node of this version sends, by node and reason.",
    ),
    (SNAPSHOTS_SENT, Kind::Counter, "Snapshots sent to other nodes, by result."),
    (SNAPSHOTS_RECEIVED, Kind::Counter, "Snapshots received from other nodes, by result."),
    (SNAPSHOT_SENT_BYTES, Kind::Counter, "Bytes of snapshots sent to other nodes."),
    (SNAPSHOT_RECEIVED_BYTES, Kind::Counter, "Bytes of snapshots received from other nodes."),
    (SNAPSHOT_INSTALL, Kind::Histogram, "Time to replace a replica's rows by a snapshot."),
    (EVICTED, Kind::Counter, "Kept results of commands that were evicted."),
    (
        DAMAGED,
        Kind::Counter,
        "Times that rows of a replica here could not be read, or were not what was applied: it is to be replaced.",
    ),
    (DIFFERS, Kind::Counter, "Times that another node's replica was found to differ from the one here, by partition."),
    (SCRUB_BYTES, Kind::Counter, "Bytes of rows that were read to compare them with what was applied."),
    (SCRUB_PROGRESS, Kind::Gauge, "How much of the present reading of all rows is done, from 0 to 1."),
    (
        SCRUB_AGE,
        Kind::Gauge,
        "Every row was read within the last so many seconds; none before the first reading ended.",
    ),
    (FATAL, Kind::Counter, "Reasons for which this node stopped at once."),
];

/// Tells the recorder what each metric is. Call once, after a recorder is set.
pub fn describe() {
    for &(name, kind, help) in ALL {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, help),
            Kind::Gauge => ::metrics::describe_gauge!(name, help),
            Kind::Histogram => ::metrics::describe_histogram!(name, help),
        }
    }
    // An alert is about its first step: a series that begins at 1 has risen for nobody.
    ::metrics::counter!(DAMAGED).increment(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let mut seen = std::collections::BTreeSet::new();
        for &(name, kind, help) in ALL {
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("mailraft_") && help.ends_with('.'), "{name}");
            match kind {
                Kind::Counter => assert!(name.ends_with("_total"), "{name}"),
                Kind::Histogram => assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}"),
                Kind::Gauge => assert!(!name.ends_with("_total"), "{name}"),
            }
        }
    }
}
