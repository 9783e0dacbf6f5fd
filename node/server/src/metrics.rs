//! The metrics that this crate keeps, with what they mean.

use metrics::Unit;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Connections for mail of which the other end did not prove that it has the root key.
pub const PEERS_WITHOUT_ROOT_KEY: &str = "mailraft_peers_without_root_key_total";

/// The recovery point now: how old the oldest answered write is that a region does not hold.
pub const REGION_UNHELD: &str = "mailraft_region_unheld_seconds";
/// Entries that a region does not hold.
pub const REGION_LAG: &str = "mailraft_region_held_lag_entries";
/// Whether answers wait for a region.
pub const REGION_IN_SYNC: &str = "mailraft_region_in_sync";
/// Answers that wait for other regions.
pub const ANSWERS_WAITING: &str = "mailraft_answers_waiting";
/// Standbys of a region that were found to differ from their home.
pub const REGION_DISAGREEMENTS: &str = "mailraft_region_disagreements_total";
/// Whether something led here is answered alone.
pub const ALONE: &str = "mailraft_alone";
/// Answers of what other regions did not hold.
pub const ALONE_ANSWERS: &str = "mailraft_alone_answers_total";
/// Whether this node has the root key, or could read it.
pub const ROOT_KEY_USABLE: &str = "mailraft_root_key_usable";
/// Commands that were refused because other regions did not confirm.
pub const NOT_CONFIRMED: &str = "mailraft_not_confirmed_total";

/// Those whose name ends like a distribution's, and which are a value that rises and falls.
const GAUGES_IN_SECONDS: [&str; 1] = [REGION_UNHELD];

/// Name, unit and meaning of each.
pub const METRICS: &[(&str, Unit, &str)] = &[
    ("mailraft_sessions", Unit::Count, "Client sessions on this node"),
    ("mailraft_sessions_refused_total", Unit::Count, "Connections refused because there were too many"),
    ("mailraft_descriptors_allowed", Unit::Count, "Files and connections that this process may have open"),
    ("mailraft_descriptors_open", Unit::Count, "Files and connections that it has open, as of the latest status"),
    ("mailraft_memory_limit_bytes", Unit::Bytes, "Memory that this node may take"),
    ("mailraft_memory_resident_bytes", Unit::Bytes, "Memory that it has"),
    (
        "mailraft_memory_given_back_bytes_total",
        Unit::Bytes,
        "Memory that was freed, was kept by the allocator, and went back to the machine",
    ),
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
    ("mailraft_queue_messages", Unit::Count, "Messages in the queues that this node leads, looked at every 30 s"),
    (
        "mailraft_queue_waiting_recipients",
        Unit::Count,
        "Recipients in these queues to whom a message is to be delivered or sent",
    ),
    (
        "mailraft_queue_held_recipients",
        Unit::Count,
        "Recipients in these queues for whom a message is held until an operator decides",
    ),
    ("mailraft_queue_oldest_seconds", Unit::Seconds, "Age of the oldest message in these queues, 0 if there is none"),
    ("mailraft_mailbox_actors", Unit::Count, "Mailbox actors on this node"),
    ("mailraft_search_index_bytes", Unit::Bytes, "Memory of the mailboxes' indexes for searches"),
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
    (
        "mailraft_queue_errands_total",
        Unit::Count,
        "What was done for recipients of messages to several mailboxes, by what (deliver, release) and result: done, stale, held, failed",
    ),
    (
        "mailraft_outbound_attempts_total",
        Unit::Count,
        "Attempts to send a message to other servers, for each recipient, by result: sent, deferred, failed",
    ),
    (
        "mailraft_outbound_connections_total",
        Unit::Count,
        "Connections to other servers by result: new, or kept from an earlier message",
    ),
    (
        "mailraft_sent_too_much_total",
        Unit::Count,
        "Messages refused as their account had sent to too many addresses in other domains within an hour",
    ),
    (
        "mailraft_outbound_perhaps_twice_total",
        Unit::Count,
        "Recipients for whom a connection was lost after the message's last octet: they may have it twice",
    ),
    (
        "mailraft_domain_reports_total",
        Unit::Count,
        "Reports to other domains, by kind (tls, dmarc) and result: sent, not_wanted, too_long, not_now",
    ),
    (
        "mailraft_feedback_bytes",
        Unit::Bytes,
        "Memory that what is counted for reports to other domains takes, looked at every 15 minutes",
    ),
    (
        "mailraft_feedback_lost",
        Unit::Count,
        "What was counted and had no room, by what (tls, dmarc) and how: untold (in no report), unlisted (in its sums alone)",
    ),
    ("mailraft_reports_total", Unit::Count, "Reports to senders, by kind: failed, delayed, relayed, delivered"),
    ("mailraft_parse_memory_bytes", Unit::Bytes, "Set aside for the messages that are being taken apart"),
    (
        REGION_UNHELD,
        Unit::Seconds,
        "How old the oldest write is that another region does not hold, of what this node leads; 0 if it holds all",
    ),
    (REGION_LAG, Unit::Count, "Entries of what this node leads that another region does not hold"),
    (REGION_IN_SYNC, Unit::Count, "Whether answers wait for another region (1 or 0)"),
    (ANSWERS_WAITING, Unit::Count, "Answers of what this node leads that wait for other regions"),
    (
        REGION_DISAGREEMENTS,
        Unit::Count,
        "Standbys of another region that were found to differ from what this node leads: they hold nothing any more",
    ),
    (ALONE, Unit::Count, "Whether this node answers without another region something that it leads (1 or 0)"),
    (ALONE_ANSWERS, Unit::Count, "Answers of what no other region held, given while they did not confirm"),
    (
        ROOT_KEY_USABLE,
        Unit::Count,
        "Whether a node of a backup region could open mailboxes, tried every minute (1 or 0): it has the root key, or can read it",
    ),
    (NOT_CONFIRMED, Unit::Count, "Commands refused because other regions did not confirm what came before"),
    ("mailraft_dns_questions_total", Unit::Count, "Questions to the DNS by result: answered, kept from before, none"),
    (
        "mailraft_outbound_tls_total",
        Unit::Count,
        "TLS handshakes with other servers by result: ok, certificate, handshake",
    ),
    (
        "mailraft_mta_sts_fetches_total",
        Unit::Count,
        "Policies of MTA-STS that were asked for over HTTPS, by result: fetched, failed",
    ),
    ("mailraft_mta_sts_kept_bytes", Unit::Bytes, "Memory that policies of MTA-STS take"),
    ("mailraft_dns_kept_bytes", Unit::Bytes, "Memory that answers of the DNS take, kept for the next time"),
    ("mailraft_dmarc_total", Unit::Count, "Messages from other servers that were checked, by what came of DMARC"),
    (
        "mailraft_sender_check_seconds",
        Unit::Seconds,
        "How long it took to check who sent a message from another server",
    ),
    ("mailraft_parse_wait_seconds", Unit::Seconds, "How long a whole message waited to be taken apart"),
    ("mailraft_turn_wait_seconds", Unit::Seconds, "How long a command that computes for long waited for its next turn"),
    ("mailraft_commands_stopped_total", Unit::Count, "Commands that were stopped because they took too much computing"),
    ("mailraft_command_seconds", Unit::Seconds, "From a command's arrival at the session to its answer, by protocol"),
];

/// Records from now on; what is given renders it.
pub fn record() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendering = recorder.handle();
    // A second node in one process keeps the first one's recorder.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    mailraft_driver::metrics::describe();
    rendering
}

/// Tells the recorder what they mean.
fn describe() {
    for (name, unit, meaning) in METRICS {
        if name.ends_with("_total") {
            metrics::describe_counter!(*name, *unit, *meaning);
        } else if name.ends_with("_seconds") && !GAUGES_IN_SECONDS.contains(name) {
            metrics::describe_histogram!(*name, *unit, *meaning);
        } else {
            metrics::describe_gauge!(*name, *unit, *meaning);
        }
    }
}
