//! The size and length of a run.

use std::time::Duration;

use mailraft_checkers::Micros;
use mailraft_cluster::config::REGION_LOG_KEEP_BYTES;
use mailraft_cluster::eviction::RESULTS_KEPT;
use mailraft_mailbox::Limits;
use mailraft_storage::log::LOG_BATCH_MAX_BYTES;

use crate::node_log::LogDisks;

/// The size and length of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    /// How many nodes there are at home.
    pub nodes: u64,
    /// How many nodes a backup region has; with none there is no other region.
    pub standby_nodes: u64,
    /// A message between the two regions takes so long, one way, at least.
    pub one_way: Micros,
    /// Under `region` durability its bound; without it `geo` holds, where there is a backup region.
    pub rpo_max: Option<Duration>,
    /// After so long without confirmation the home goes on alone; without it it never does.
    pub degrade_after: Option<Duration>,
    /// Mean time between faults of the backup region and of the link to it.
    pub region_fault_every: Micros,
    /// Partitions beside the control group.
    pub partitions: u32,
    /// How many mailboxes there are, those that are made during the run among them.
    pub mailboxes: u64,
    /// IMAP sessions.
    pub imap_sessions: u64,
    /// SMTP sessions.
    pub smtp_sessions: u64,
    /// POP3 sessions.
    pub pop3_sessions: u64,
    /// A client begins an operation so often, in the mean, all sessions taken together.
    pub operation_every: Micros,
    /// A slow follower's log is kept up to so many entries.
    pub log_keep_entries: u64,
    /// The log is kept for another region up to so many bytes.
    pub region_log_keep_bytes: u64,
    /// The most bytes of entries that one fsync makes durable.
    pub log_batch_max_bytes: usize,
    /// How long results of commands are kept.
    pub results_kept: Duration,
    /// Replicas are compared, and tables of commands looked after, so often.
    pub look_every: Micros,
    /// How long faults may happen.
    pub safety: Micros,
    /// How long all is well after them, with the workload going on.
    pub liveness: Micros,
    /// Mean time between faults.
    pub fault_every: Micros,
    /// Of a thousand new messages so many more than else are larger than one chunk.
    pub large_permille: u64,
    /// So many bodies of each folder are read at the end.
    pub bodies_read: usize,
    /// Bounds of mailboxes: where they are low, small changes take the rows that large ones take in production.
    pub limits: Limits,
    /// Of a thousand of IMAP's commands so many are about all messages of a folder.
    pub wide_permille: u64,
    /// Past so many messages in a folder a client deletes rather than adds.
    pub folder_full: usize,
    /// Some of what actors say reaches their core so much later, in the mean.
    pub proposals_late: Micros,
    /// Of a thousand changes that ended so many come once more, late, as an attempt that lay about somewhere.
    pub late_copies_permille: u64,
    /// ... and so much later, in the mean.
    pub late_copies_mean: Micros,
    /// Of a thousand of these so many are first attempts.
    pub late_firsts_permille: u64,
    /// At the start the nodes' wall clocks are apart by no more than this.
    pub clocks_apart: Micros,
    /// No more wall clocks than this jump or stand still together.
    pub clocks_wrong_max: u64,
    /// Of a thousand deliveries that were accepted so many are made again, as by a sender that lost its answer.
    pub repeats_permille: u64,
    /// Most senders that repeat a delivery do so after this time, in the mean.
    pub repeats_mean: Micros,
    /// Of a thousand commands that are done once so many are asked for again though their client heard the answer; of those
    /// of which nobody heard eight times as many are.
    pub again_permille: u64,
    /// Of a thousand clients that ask for something that is done once so many lose their connection soon after.
    pub hang_ups_permille: u64,
    /// Whether a client that lost its connection comes back with what it has kept of its folder, and asks what it missed.
    pub clients_return: bool,
    /// Of a thousand messages that are delivered so many are submitted: their repeats are known by whether the first one's
    /// answer was heard.
    pub submissions_permille: u64,
    /// Of a thousand faults so many are instead a change of who votes in some group, the control group's too.
    pub ballots_permille: u64,
    /// How many accounts administrators change and clients log in to; with none the directory has nothing to do.
    pub accounts: usize,
    /// What the nodes' Raft logs stand on; without it they are bytes in memory.
    pub log_disks: Option<LogDisks>,
    /// Printed as it happens.
    pub loud: bool,
}

/// How long a long world goes through faults: results of commands are evicted in the last twelve hours of it.
const LONG_SAFETY: Micros = RESULTS_KEPT.as_micros() as Micros + 12 * 3_600_000_000;

impl Setup {
    /// Five nodes, four partitions, 50 operations a second.
    pub fn new(seed: u64) -> Self {
        Setup {
            seed,
            nodes: 5,
            standby_nodes: 0,
            one_way: 80_000,
            rpo_max: None,
            degrade_after: None,
            region_fault_every: 3_000_000,
            partitions: 4,
            mailboxes: 8,
            imap_sessions: 14,
            smtp_sessions: 5,
            pop3_sessions: 0,
            operation_every: 20_000,
            log_keep_entries: 200,
            region_log_keep_bytes: REGION_LOG_KEEP_BYTES,
            log_batch_max_bytes: LOG_BATCH_MAX_BYTES,
            results_kept: Duration::from_secs(75),
            look_every: 1_000_000,
            safety: 120_000_000,
            liveness: 15_000_000,
            fault_every: 1_500_000,
            large_permille: 0,
            bodies_read: 3,
            limits: Limits::default(),
            wide_permille: 0,
            folder_full: 40,
            proposals_late: 0,
            late_copies_permille: 30,
            late_copies_mean: 1_000_000,
            late_firsts_permille: 0,
            clocks_apart: 1_000_000_000,
            clocks_wrong_max: u64::MAX,
            repeats_permille: 0,
            repeats_mean: 2_000_000,
            again_permille: 80,
            hang_ups_permille: 30,
            clients_return: false,
            submissions_permille: 250,
            ballots_permille: 0,
            accounts: 0,
            log_disks: None,
            loud: false,
        }
    }

    /// Two and a half days of three nodes and one partition with an operation every 40 seconds: what takes long to come about comes
    /// about here, with results of commands kept as long as in production.
    pub fn long(seed: u64) -> Self {
        Setup {
            nodes: 3,
            partitions: 1,
            mailboxes: 5,
            imap_sessions: 6,
            smtp_sessions: 2,
            pop3_sessions: 0,
            operation_every: 40_000_000,
            log_keep_entries: 1,
            results_kept: RESULTS_KEPT,
            look_every: 10_000_000,
            safety: LONG_SAFETY,
            fault_every: 40_000_000,
            ..Setup::new(seed)
        }
    }
}
