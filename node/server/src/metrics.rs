//! The metrics that this crate keeps, with what they mean.

use metrics::Unit;

/// Connections for mail of which the other end did not prove that it has the root key.
pub const PEERS_WITHOUT_ROOT_KEY: &str = "mailraft_peers_without_root_key_total";

/// Name, unit and meaning of each.
pub const METRICS: &[(&str, Unit, &str)] = &[
    ("mailraft_sessions", Unit::Count, "Client sessions on this node"),
    ("mailraft_sessions_refused_total", Unit::Count, "Connections refused because there were too many"),
    ("mailraft_descriptors_allowed", Unit::Count, "Files and connections that this process may have open"),
    ("mailraft_descriptors_open", Unit::Count, "Files and connections that it has open, as of the latest status"),
    ("mailraft_memory_limit_bytes", Unit::Bytes, "Memory that this node may take"),
    ("mailraft_memory_resident_bytes", Unit::Bytes, "Memory that it has"),
    (
        "mailraft_memory_used_bytes",
        Unit::Bytes,
        "Memory taken, by share: rows, actors, bodies, sessions, queues, argon2",
    ),
    ("mailraft_memory_allowed_bytes", Unit::Bytes, "Memory that may be taken, by share"),
    ("mailraft_mailbox_actors_evicted_total", Unit::Count, "Mailboxes that left memory for others"),
    ("mailraft_disk_free_bytes", Unit::Bytes, "Bytes free on the disk of data_dir"),
    ("mailraft_disk_low", Unit::Count, "Whether this node takes no new mail because its disk is nearly full (1 or 0)"),
    ("mailraft_spool_bytes", Unit::Bytes, "Bytes on disk of large messages on their way in"),
    ("mailraft_sessions_strangers", Unit::Count, "Client sessions that nobody has logged in to"),
    ("mailraft_sessions_gave_way_total", Unit::Count, "Sessions that said nothing and were ended for a newcomer"),
    ("mailraft_messages_incoming", Unit::Count, "Messages on their way in"),
    ("mailraft_sessions_limit", Unit::Count, "Client sessions that this node takes at once"),
    ("mailraft_mailbox_actors", Unit::Count, "Mailbox actors on this node"),
    (
        "mailraft_session_outbox_overflows_total",
        Unit::Count,
        "Links given up because a session or node read too slowly",
    ),
    (
        PEERS_WITHOUT_ROOT_KEY,
        Unit::Count,
        "Connections between nodes whose other end did not prove that it has the root key",
    ),
    ("mailraft_logins_total", Unit::Count, "Logins by result: ok, wrong, throttled"),
    ("mailraft_deliveries_total", Unit::Count, "Messages offered by SMTP, by result: accepted, refused, deferred"),
    ("mailraft_parse_memory_bytes", Unit::Bytes, "Set aside for the messages that are being taken apart"),
    ("mailraft_parse_wait_seconds", Unit::Seconds, "How long a whole message waited to be taken apart"),
    ("mailraft_turn_wait_seconds", Unit::Seconds, "How long a command that computes for long waited for its next turn"),
    ("mailraft_commands_stopped_total", Unit::Count, "Commands that were stopped because they took too much computing"),
    ("mailraft_command_seconds", Unit::Seconds, "From a command's arrival at the session to its answer, by protocol"),
];

/// Tells the recorder what they mean.
pub fn describe() {
    for (name, unit, meaning) in METRICS {
        if name.ends_with("_total") {
            metrics::describe_counter!(*name, *unit, *meaning);
        } else if name.ends_with("_seconds") {
            metrics::describe_histogram!(*name, *unit, *meaning);
        } else {
            metrics::describe_gauge!(*name, *unit, *meaning);
        }
    }
}
