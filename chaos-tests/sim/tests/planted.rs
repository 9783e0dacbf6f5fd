//! Each planted fault is found, by the rule that it breaks, within seconds of computing; and the same seeds pass
//! without it.

// That all is found within minutes is about real time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mailraft_checkers::Rule::{self, *};
use mailraft_cluster::regions::{RegionSettings, Unconfirmed};
use mailraft_sim::faults::{Fault as Trouble, Planned};
use mailraft_sim::scenarios::{PLANTED, all as all_scenarios};
use mailraft_sim::suite::day_passes;
use mailraft_sim::world::run::faults_of;
use mailraft_sim::{Ran, Setup, run_with};
use mailraft_storage::NodeId;
use mailraft_storage::plant;

/// Seeds that are tried.
const SEEDS_MAX: u64 = 300;
/// On one core everything is found within this time.
const WITHIN: Duration = Duration::from_secs(600);

macro_rules! planted {
    ($($name:ident: $fault:ident, [$($rule:ident),+], $shape:expr $(, $plan:expr)?;)*) => {
        $(
            #[test]
            fn $name() {
                is_found(stringify!($fault));
            }
        )*

        const CASES: &[Case] = &[$(Case {
            fault: stringify!($fault),
            rules: &[$($rule),+],
            shape: $shape,
            plan: plan!($($plan)?),
        },)*];
    };
}

macro_rules! plan {
    () => {
        faults_of
    };
    ($plan:expr) => {
        $plan
    };
}

planted! {
    acknowledge_before_fsync: AcknowledgeBeforeFsync, [ReplicasAgree], |_| {};
    forget_hard_state: ForgetHardState, [ReplicasAgree], |_| {};
    apply_unsynced_configuration: ApplyUnsyncedConfiguration, [ReplicasAgree], |_| {};
    read_barrier_always_passes: ReadBarrierAlwaysPasses, [Stale], |_| {}, cut_off_by_slow_clocks;
    lease_reads: LeaseReads, [Stale], |_| {}, cut_off_by_slow_clocks;
    start_before_term_applied: StartBeforeTermApplied, [ReplicasAgree, ExactlyOnce, Uids, Uncommitted, View, Stale], |_| {};
    two_entries_in_flight: TwoEntriesInFlight, [ReplicasAgree, Uids, Modseq, ExactlyOnce, View, Uncommitted, Atomic, Flags, Stale], |_| {}, panics;
    decide_on_unapplied: DecideOnUnapplied, [ReplicasAgree, Uncommitted, View], |_| {};
    drop_term_checks: DropTermChecks, [ReplicasAgree, Uids, ExactlyOnce, Modseq, Flags, Uncommitted], |s| s.proposals_late = 1_000_000, cut_off;
    // Memory holds what the last command of the batch made of the state before it: a read may miss, at the position of
    // the entry itself, a folder that another command of the batch created.
    batch_without_effects: BatchWithoutEffects, [ReplicasAgree, ExactlyOnce, Uids, Uncommitted, Stale], |_| {};
    refusal_not_recorded: RefusalNotRecorded, [ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], |s| s.late_copies_permille = 500;
    // Counters that were decided on another state are found damaged by whoever loads the mailbox.
    interleave_staged: InterleaveStaged, [ReplicasAgree, Modseq, Uids, ExactlyOnce, Flags, Atomic, Uncommitted], |s| s.limits.entry_max_bytes = 2_200;
    read_through_old_actor: ReadThroughOldActor, [Modseq, Stale, View], |_| {};
    // An owner that meets what these do says that rows are gone which nobody removed.
    body_loses_chunk: BodyLosesChunk, [ExactlyOnce, ReplicasAgree], |s| s.large_permille = 60;
    sweep_live_body: SweepLiveBody, [ExactlyOnce, ReplicasAgree], large_bodies, jumps;
    replica_comes_back_empty: ReplicaComesBackEmpty, [ReplicasAgree, Liveness], |_| {};
    snapshot_without_commands: SnapshotWithoutCommands, [ReplicasAgree], |s| s.log_keep_entries = 4, installs;
    snapshot_rows_newer: SnapshotRowsNewer, [ReplicasAgree], busy_and_snapshots, installs;
    snapshot_metadata_first: SnapshotMetadataFirst, [ReplicasAgree], |s| s.log_keep_entries = 4, installs;
    cut_past_flush: CutPastFlush, [ReplicasAgree], |s| s.log_keep_entries = 4;
    uid_reused_after_reload: UidReusedAfterReload, [Uids], |_| {};
    modseq_reused_after_reload: ModseqReusedAfterReload, [Modseq, ExactlyOnce], |_| {};
    uid_validity_reused: UidValidityReused, [Uids], |_| {};
    resume_leaves_out: ResumeLeavesOut, [Modseq, View], |_| {};
    resume_stale_modseq: ResumeStaleModseq, [Modseq], |_| {};
    expunge_without_history: ExpungeWithoutHistory, [Modseq, View], |_| {};
    log_tail_with_gap: LogTailWithGap, [ReplicasAgree], |_| {};
    evict_by_clock: EvictByClock, [ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], |_| {};
    delivery_not_remembered: DeliveryNotRemembered, [ExactlyOnce], |_| {};
    retry_not_looked_up: RetryNotLookedUp, [ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], |_| {};
    apply_without_required: ApplyWithoutRequired, [ExactlyOnce, ReplicasAgree], large_bodies, jumps;
    stage_counts_at_once: StageCountsAtOnce, [ReplicasAgree, Atomic], |s| s.limits.entry_max_bytes = 3_000, panics;
    // Nor is their MODSEQ: who looks at the message at a new owner may see that first.
    flags_not_written: FlagsNotWritten, [Flags, Atomic, Uncommitted, Modseq], |_| {};
    event_overtakes_answer: EventOvertakesAnswer, [View, Modseq], |_| {};
    slot_never_freed: SlotNeverFreed, [Liveness], |_| {}, panics;

    // What a snapshot carries besides messages.
    snapshot_without_floor: SnapshotWithoutFloor, [ReplicasAgree, ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], day_and_snapshots, installs;
    snapshot_without_history: SnapshotWithoutHistory, [ReplicasAgree], day_and_snapshots, installs;
    snapshot_without_deliveries: SnapshotWithoutDeliveries, [ReplicasAgree, ExactlyOnce], day_and_snapshots, installs;
    snapshot_without_stages: SnapshotWithoutStages, [ReplicasAgree, Atomic, Uncommitted, Uids], forms_and_snapshots, installs;
    snapshot_without_pages: SnapshotWithoutPages, [ReplicasAgree, Uncommitted, Flags], forms_and_snapshots, installs;
    snapshot_without_uploads: SnapshotWithoutUploads, [ReplicasAgree], uploads_and_snapshots, installs_and_panics;
    snapshot_over_old_rows: SnapshotOverOldRows, [ReplicasAgree, ExactlyOnce, View, Uids, Flags, Atomic], day_and_snapshots, installs;

    // Questions and commands are one of a kind.
    reads_of_any_life: ReadsOfAnyLife, [Stale], |_| {};
    read_numbers_repeat: ReadNumbersRepeat, [Stale, ReplicasAgree], |_| {};
    command_ids_repeat: CommandIdsRepeat, [ExactlyOnce, ReplicasAgree], |_| {};
    stage_ids_repeat: StageIdsRepeat, [ReplicasAgree, Atomic, Uncommitted, Uids], forms, panics;
    barrier_numbers_repeat: BarrierNumbersRepeat, [ReplicasAgree], |_| {};
    body_ids_repeat: BodyIdsRepeat, [ReplicasAgree, ExactlyOnce, Uids, Stale, Atomic, Uncommitted], |_| {};

    // What the running hash covers.
    hash_without_chunks: HashWithoutChunks, [ReplicasAgree], large_bodies;
    hash_without_begin: HashWithoutBegin, [ReplicasAgree], |_| {};
    hash_of_heads: HashOfHeads, [ReplicasAgree], |_| {};
    hash_not_chained: HashNotChained, [ReplicasAgree], |_| {};
    chunk_lost_by_one: ChunkLostByOne, [ReplicasAgree, ExactlyOnce], large_bodies;

    // The edges of histories.
    expunge_floor_low: ExpungeFloorLow, [Modseq, View], histories, cut_off;
    expunge_floor_stays: ExpungeFloorStays, [Modseq, View], histories, cut_off;
    resume_below_floor: ResumeBelowFloor, [Modseq, View], histories, cut_off;
    resume_misses_expunge: ResumeMissesExpunge, [Modseq, View], histories, cut_off;
    resume_misses_change: ResumeMissesChange, [Modseq, View], histories, cut_off;
    unchanged_since_strict: UnchangedSinceStrict, [Modseq, Flags, Atomic, Uncommitted], |_| {};
    unchanged_since_lax: UnchangedSinceLax, [Modseq, Flags, Uncommitted], |_| {};

    // Changes that take rows of another shape, and then a reload.
    only_first_page: OnlyFirstPage, [Flags, Atomic, Modseq, View, Uncommitted], several_pages, panics;
    page_of_one_change: PageOfOneChange, [Flags, Atomic, Modseq, View, Uncommitted], forms, panics;
    page_over_place: PageOverPlace, [Flags, Atomic, Modseq, View, Uncommitted], forms, panics;
    tombstone_not_read: TombstoneNotRead, [ReplicasAgree, Atomic, Stale, Uncommitted], forms, panics;
    tombstone_first: TombstoneFirst, [ReplicasAgree, Atomic, Stale, Uncommitted], forms, panics;
    sweep_in_use: SweepInUse, [ReplicasAgree, ExactlyOnce, Atomic], forms, panics;
    stage_never_counts: StageNeverCounts, [ReplicasAgree, Atomic], forms, panics;
    stage_without_folder: StageWithoutFolder, [ReplicasAgree, Uids, Modseq], forms, panics;

    // Commits and changes of members around a snapshot.
    quorum_not_counted: QuorumNotCounted, [Liveness], |s| s.ballots_permille = 500, ballots;
    commit_ahead_of_log: CommitAheadOfLog, [ReplicasAgree], |s| s.log_batch_max_bytes = 600;
    commit_below_applied: CommitBelowApplied, [ReplicasAgree], |_| {};
    removed_leaves_no_mark: RemovedLeavesNoMark, [ReplicasAgree, Liveness], |_| {}, moves;
    replica_ids_reused: ReplicaIdsReused, [ReplicasAgree], |_| {}, moves;

    // Days with many clients.
    floor_not_for_firsts: FloorNotForFirsts, [ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], day;
    floor_not_for_retries: FloorNotForRetries, [ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], day;
    eviction_raises_no_floor: EvictionRaisesNoFloor, [ExactlyOnce, Uncommitted, Flags, View, Atomic, Modseq, Stale], day;
    evict_early: EvictEarly, [ExactlyOnce], day;
    delivery_forgotten_early: DeliveryForgottenEarly, [ExactlyOnce], day;
    sweep_forgets_deliveries: SweepForgetsDeliveries, [ExactlyOnce], day;

    // What is asked again.
    repeat_not_remembered: RepeatNotRemembered, [ExactlyOnce], repeats, panics;
    repeat_forgotten_early: RepeatForgottenEarly, [ExactlyOnce], repeats_late;
    repeat_kept_forever: RepeatKeptForever, [ExactlyOnce], repeats_very_late;
    sweep_forgets_repeats: SweepForgetsRepeats, [ExactlyOnce], repeats;
    repeat_in_any_folder: RepeatInAnyFolder, [ExactlyOnce, Uids, Modseq], repeats;
    repeat_of_any_date: RepeatOfAnyDate, [ExactlyOnce, Uids, Modseq], repeats;
    repeat_of_what_is_gone: RepeatOfWhatIsGone, [ExactlyOnce, Uids, Modseq], repeats_late;
    heard_ignored: HeardIgnored, [ExactlyOnce], repeats;
    heard_of_others: HeardOfOthers, [ExactlyOnce], repeats;
    snapshot_without_repeats: SnapshotWithoutRepeats, [ReplicasAgree, ExactlyOnce], repeats_and_snapshots, installs;

    // A backup region.
    shown_before_held: ShownBeforeHeld, [Held, Shown], two_regions;
    held_by_one_standby: HeldByOneStandby, [Held, Shown], two_regions;
    fresh_actor_shows_unheld: FreshActorShowsUnheld, [Shown], two_regions, cut_off_and_far_cut;
    standby_hears_commit: StandbyHearsCommit, [Held], two_regions;
    needs_not_awaited: NeedsNotAwaited, [Shown], two_regions_with_accounts, cut_off_and_far_cut;
    bound_restarts_with_leader: BoundRestartsWithLeader, [Bound], two_regions_with_a_bound, cut_off_and_far_cut;
    alone_before_row: AloneBeforeRow, [Alone], two_regions_alone, far_cut_for_long;
    whole_before_held: WholeBeforeHeld, [Alone], two_regions_alone, far_cut_for_long;
    settings_wait_to_be_visible: SettingsWaitToBeVisible, [Liveness], two_regions, settings_and_far_cut_for_long;
    ahead_forgotten: AheadForgotten, [Held], two_regions_short_logs, far_nodes_cut_off;
    rotten_standby_stops_home: RottenStandbyStopsHome, [ReplicasAgree], two_regions, a_standby_rots;
    cut_past_region: CutPastRegion, [Held], two_regions_and_cuts, far_cut_for_long;
    adopts_unsynced: AdoptsUnsynced, [Held], two_regions, takeover_with_home_alive;
    one_of_three_is_enough: OneOfThreeIsEnough, [ReplicasAgree, ExactlyOnce, Held, Shown, Liveness, Stale], two_regions, two_operators;
    terms_go_on: TermsGoOn, [ReplicasAgree, ExactlyOnce, Held, Liveness, Modseq, Uncommitted], two_regions, takeover_with_home_alive;
    owner_before_takeover: OwnerBeforeTakeover, [ReplicasAgree, ExactlyOnce, Liveness, Uids, Modseq], two_regions, takeover_with_home_alive;
    sealed_in_memory: SealedInMemory, [Held], two_regions, takeover_with_home_alive;
    uids_go_on: UidsGoOn, [Uids, Modseq, ReplicasAgree], two_regions, takeover_with_home_alive;
    bound_stops_in_suspend: BoundStopsInSuspend, [Bound], two_regions_with_a_bound, pauses_and_far_cut;
}

fn is_found(fault: &str) {
    CASES.iter().find(|case| case.fault == fault).expect("a fault of the list").is_found();
}

/// A fault, the rules that it may break first, and a world in which it does.
struct Case {
    fault: &'static str,
    rules: &'static [Rule],
    shape: fn(&mut Setup),
    plan: fn(&Setup) -> Vec<Planned>,
}

impl Case {
    /// Runs seeds with the fault until one shows a violation; then all of them without it.
    fn is_found(&self) {
        let Case { fault, rules, .. } = *self;
        let begun = Instant::now();
        plant::set(Some(fault));
        let mut simulated = 0;
        let found = (1..=SEEDS_MAX).find_map(|seed| {
            let ran = self.run(seed);
            let first = ran.report.violations.iter().min_by_key(|v| v.at).cloned();
            simulated += first.as_ref().map_or(ran.simulated, |v| v.at);
            first.map(|violation| (seed, violation))
        });
        plant::set(None);
        let Some((seed, violation)) = found else { panic!("{fault} is not found in {SEEDS_MAX} seeds") };
        println!(
            "found: {fault} | {} | {} | {:.0} s, seed {seed}",
            what(fault),
            violation.rule,
            simulated as f64 / 1e6
        );
        println!("it took {:?}: {}", begun.elapsed(), violation.what);
        assert!(begun.elapsed() < WITHIN, "it takes {:?}", begun.elapsed());
        assert!(rules.contains(&violation.rule), "found by {}, expected by {rules:?}", violation.rule);
        for seed in 1..=seed {
            let ran = self.run(seed);
            assert!(ran.report.is_clean(), "seed {seed} without a fault: {:?}", ran.report.violations.first());
        }
    }

    fn run(&self, seed: u64) -> Ran {
        let mut setup = Setup::new(seed);
        (setup.safety, setup.liveness, setup.fault_every) = (20_000_000, 6_000_000, 600_000);
        setup.late_copies_permille = 30;
        // Only where that is what matters.
        (setup.again_permille, setup.hang_ups_permille, setup.submissions_permille) = (0, 0, 0);
        (self.shape)(&mut setup);
        let plan = (self.plan)(&setup);
        run_with(setup, plan)
    }
}

/// Only the directory is at work.
fn accounts_alone(setup: &mut Setup) {
    (setup.accounts, setup.imap_sessions, setup.smtp_sessions) = (4, 0, 0);
}

/// Actors panic all the time, and every fsync is slow.
fn panics(setup: &Setup) -> Vec<Planned> {
    let slow = |node| always(setup, Trouble::SlowDisk { node, factor: 60 });
    let turns = (2_000_000..setup.safety).step_by(70_000).zip(setup.seed..);
    let panic = |(at, turn)| Planned { from: at, to: at + 1, fault: Trouble::ActorPanic { node: nth(setup, turn) } };
    nodes(setup).map(slow).chain(turns.map(panic)).collect()
}

/// Large bodies, each of which is read at the end.
fn large_bodies(setup: &mut Setup) {
    (setup.large_permille, setup.operation_every, setup.bodies_read) = (300, 1_000_000 / 30, 1_000);
}

/// Small pages, tombstones and stages, and commands about all messages of a folder.
fn forms(setup: &mut Setup) {
    setup.limits.entry_max_bytes = 6_000;
    (setup.limits.page_above_messages, setup.limits.pages_above_messages) = (2, 4);
    (setup.limits.direct_deletes_max_rows, setup.limits.sweep_max_rows) = (6, 4);
    (setup.wide_permille, setup.folder_full, setup.mailboxes) = (300, 120, 4);
}

/// Folders whose UIDs fill several pages of flags, which commands change together.
fn several_pages(setup: &mut Setup) {
    forms(setup);
    setup.limits.entry_max_bytes = 60_000;
    (setup.wide_permille, setup.folder_full, setup.mailboxes, setup.imap_sessions) = (500, 700, 2, 8);
}

/// The same, and logs so short that snapshots are needed.
fn forms_and_snapshots(setup: &mut Setup) {
    forms(setup);
    setup.log_keep_entries = 4;
}

/// Entries are applied all the time, and logs so short that snapshots are needed.
fn busy_and_snapshots(setup: &mut Setup) {
    (setup.log_keep_entries, setup.operation_every) = (4, 1_000_000 / 120);
}

/// Uploads are open all the time, and logs short.
fn uploads_and_snapshots(setup: &mut Setup) {
    large_bodies(setup);
    setup.log_keep_entries = 4;
}

/// Short histories of what was expunged, and much that is.
fn histories(setup: &mut Setup) {
    (setup.limits.expunged_max_rows, setup.mailboxes) = (1, 4);
    (setup.wide_permille, setup.folder_full) = (60, 12);
}

/// Much is asked again, by clients that lost their connection and by others.
fn repeats(setup: &mut Setup) {
    (setup.again_permille, setup.hang_ups_permille, setup.submissions_permille) = (500, 200, 1_000);
}

/// The same, of what is remembered for twelve seconds, and after a while.
fn repeats_late(setup: &mut Setup) {
    repeats(setup);
    (setup.limits.repeat_kept_ms, setup.limits.repeat_left_ms) = (12_000, 2_000);
    (setup.clocks_apart, setup.repeats_mean) = (200_000, 4_000_000);
}

/// The same, of what is remembered for a moment, so long after it that it must be forgotten.
fn repeats_very_late(setup: &mut Setup) {
    repeats_late(setup);
    (setup.limits.repeat_kept_ms, setup.limits.repeat_left_ms) = (500, 500);
    (setup.safety, setup.repeats_mean) = (90_000_000, 30_000_000);
}

/// The same with logs so short that snapshots are needed.
fn repeats_and_snapshots(setup: &mut Setup) {
    repeats(setup);
    setup.log_keep_entries = 4;
}

/// A day passes in eight seconds; results are kept for half of it, and attempts come when they are gone.
fn day(setup: &mut Setup) {
    day_passes(setup, 8_000);
    setup.results_kept = Duration::from_secs(4);
    (setup.late_copies_permille, setup.late_firsts_permille, setup.late_copies_mean) = (300, 500, 8_000_000);
    (setup.repeats_permille, setup.repeats_mean) = (300, 2_000_000);
}

/// The same with logs so short that snapshots are needed.
fn day_and_snapshots(setup: &mut Setup) {
    day(setup);
    setup.log_keep_entries = 4;
}

/// One node after the other is down for a while, and meanwhile others are to give their votes away.
fn ballots(setup: &Setup) -> Vec<Planned> {
    let turns = (2_000_000..setup.safety).step_by(2_500_000).zip(setup.seed..);
    let turn = |(from, turn): (u64, u64)| {
        let crash = Planned { from, to: from + 2_300_000, fault: Trouble::Crash { node: nth(setup, turn), torn: 0 } };
        let ballot = move |partition: u32| {
            let (from_node, to) = (nth(setup, turn + 1 + u64::from(partition) % 3), nth(setup, turn));
            let at = from + 1_400_000;
            Planned { from: at, to: at + 1, fault: Trouble::Ballot { partition, from: from_node, to } }
        };
        std::iter::once(crash).chain((0..=setup.partitions).map(ballot)).collect::<Vec<_>>()
    };
    turns.flat_map(turn).collect()
}

/// Nodes need snapshots, and uploads are given up all the time.
fn installs_and_panics(setup: &Setup) -> Vec<Planned> {
    installs(setup).into_iter().chain(panics(setup).into_iter().step_by(3)).collect()
}

/// Replicas move all the time, and nodes die meanwhile.
fn moves(setup: &Setup) -> Vec<Planned> {
    let turns = (2_000_000..setup.safety).step_by(700_000).zip(setup.seed..);
    let turn = |(from, turn): (u64, u64)| {
        let partition = 1 + (turn % u64::from(setup.partitions)) as u32;
        let fault = Trouble::Move { partition, from: nth(setup, turn / 3), to: nth(setup, turn / 3 + 1 + turn % 3) };
        let crash = Trouble::Crash { node: nth(setup, turn / 2), torn: 0 };
        [Planned { from, to: from + 1, fault }, Planned { from: from + 350_000, to: from + 650_000, fault: crash }]
    };
    turns.flat_map(turn).collect()
}

/// Every second all actors panic while uploads are under way, and then all clocks are ahead by hours for a moment.
fn jumps(setup: &Setup) -> Vec<Planned> {
    let slow = |node| always(setup, Trouble::SlowDisk { node, factor: 60 });
    let mut plan: Vec<Planned> = nodes(setup).map(slow).collect();
    for at in (2_000_000..setup.safety).step_by(1_000_000) {
        for node in nodes(setup) {
            let from = at + 30_000 + (at / 1_000_000 % 8) * 30_000;
            plan.push(Planned { from: at, to: at + 1, fault: Trouble::ActorPanic { node } });
            plan.push(Planned { from, to: from + 400_000, fault: Trouble::Jump { node, ms: 3 * 3_600_000 } });
        }
    }
    plan
}

/// One node after the other is down for a moment, needs snapshots then, and dies again while they are put in place.
fn installs(setup: &Setup) -> Vec<Planned> {
    let turns = (2_000_000..setup.safety).step_by(1_600_000).zip(setup.seed..);
    let twice = |(from, turn)| {
        let (node, back) = (nth(setup, turn), from + 900_000);
        let crash = Planned { from, to: back, fault: Trouble::Crash { node, torn: 0 } };
        let again = Planned { from: back + 1, to: back + 600_000, fault: Trouble::CrashAtInstall { node } };
        [crash, again]
    };
    turns.flat_map(twice).collect()
}

/// One node after the other is cut off for a moment: leads change all the time, and come back.
fn cut_off(setup: &Setup) -> Vec<Planned> {
    let turns = (2_000_000..setup.safety).step_by(400_000).zip(setup.seed..);
    let side = |turn| vec![nth(setup, turn)];
    turns
        .map(|(from, turn)| Planned { from, to: from + 350_000, fault: Trouble::Partition { side: side(turn) } })
        .collect()
}

/// A backup region of three nodes.
fn two_regions(setup: &mut Setup) {
    (setup.nodes, setup.standby_nodes, setup.partitions) = (3, 3, 2);
}

/// The same, and rows of the control group change.
fn two_regions_with_accounts(setup: &mut Setup) {
    two_regions(setup);
    setup.accounts = 4;
}

/// The same as the first, under `region`.
fn two_regions_with_a_bound(setup: &mut Setup) {
    two_regions(setup);
    setup.rpo_max = Some(Duration::from_millis(400));
}

/// The same as the first, and the home goes on alone after a moment.
fn two_regions_alone(setup: &mut Setup) {
    two_regions(setup);
    setup.degrade_after = Some(Duration::from_millis(1_500));
}

/// The same as the first, and the log is cut soon, but not past what the backup region holds.
fn two_regions_and_cuts(setup: &mut Setup) {
    two_regions(setup);
    (setup.log_keep_entries, setup.operation_every) = (4, 8_000);
}

/// The same, and past that too: standbys get snapshots.
fn two_regions_short_logs(setup: &mut Setup) {
    two_regions_and_cuts(setup);
    setup.region_log_keep_bytes = 1;
    setup.degrade_after = Some(Duration::from_millis(1_000));
}

/// The standbys on one node of the backup region rot.
fn a_standby_rots(setup: &Setup) -> Vec<Planned> {
    vec![Planned { from: 3_000_000, to: 3_000_001, fault: Trouble::RottenStandby { node: NodeId(setup.nodes + 1) } }]
}

/// All of the backup region is cut off, and comes back one by one.
fn far_nodes_cut_off(setup: &Setup) -> Vec<Planned> {
    let far = (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).zip(0u64..);
    let cut = |(node, turn): (NodeId, u64)| {
        let fault = Trouble::Partition { side: vec![node] };
        Planned { from: 2_000_000, to: 8_000_000 + turn * 4_000_000, fault }
    };
    far.map(cut).collect()
}

/// The link to the backup region carries nothing for a while, again and again.
fn far_cut_for_long(setup: &Setup) -> Vec<Planned> {
    let side: Vec<NodeId> = (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).collect();
    let cut = |from| Planned { from, to: from + 6_000_000, fault: Trouble::Partition { side: side.clone() } };
    (2_000_000..setup.safety).step_by(12_000_000).map(cut).collect()
}

/// The same, and an operator who sees it allows the home to go on alone, later.
fn settings_and_far_cut_for_long(setup: &Setup) -> Vec<Planned> {
    let settings = RegionSettings {
        unconfirmed: Some(Unconfirmed::Degrade),
        degrade_after_ms: Some(60_000),
        ..RegionSettings::default()
    };
    let cuts = far_cut_for_long(setup);
    let set = |cut: &Planned| {
        let from = cut.from + 1_000_000;
        Planned { from, to: from + 1, fault: Trouble::Settings { settings: settings.clone() } }
    };
    let mut plan: Vec<Planned> = cuts.iter().flat_map(|cut| [cut.clone(), set(cut)]).collect();
    plan.sort_by_key(|planned| planned.from);
    plan
}

/// The link to the backup region carries nothing most of the time.
fn far_cut(setup: &Setup) -> impl Iterator<Item = Planned> {
    let side: Vec<NodeId> = (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).collect();
    let cut = move |from| Planned { from, to: from + 2_000_000, fault: Trouble::Partition { side: side.clone() } };
    (2_000_000..setup.safety).step_by(3_000_000).map(cut)
}

/// The same, and one node at home after the other is cut off for a moment.
fn cut_off_and_far_cut(setup: &Setup) -> Vec<Planned> {
    cut_off(setup).into_iter().chain(far_cut(setup)).collect()
}

/// The same, and every process at home stands still half of the time, for moments in which it keeps its lead.
fn pauses_and_far_cut(setup: &Setup) -> Vec<Planned> {
    let turns = (2_000_000..setup.safety).step_by(100_000).zip(setup.seed..);
    let pause = |(from, turn)| Planned { from, to: from + 150_000, fault: Trouble::Pause { node: nth(setup, turn) } };
    turns.map(pause).chain(far_cut(setup)).collect()
}

/// Some clocks are slow and some are fast, and one node after the other is cut off.
fn cut_off_by_slow_clocks(setup: &Setup) -> Vec<Planned> {
    let drift =
        |node: NodeId| Trouble::Drift { node, ppm: if node.0 % 2 == setup.seed % 2 { -200_000 } else { 200_000 } };
    let turns = (2_000_000..setup.safety).step_by(900_000).zip(setup.seed..);
    let cut =
        |(from, turn)| Planned { from, to: from + 600_000, fault: Trouble::Partition { side: vec![nth(setup, turn)] } };
    nodes(setup).map(|node| always(setup, drift(node))).chain(turns.map(cut)).collect()
}

/// The nodes of the backup region.
fn far(setup: &Setup) -> Vec<NodeId> {
    (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).collect()
}

/// The home is cut off, and lives; the backup region takes over, and hears of it again. Then the home's nodes die one
/// after the other.
fn takeover_with_home_alive(setup: &Setup) -> Vec<Planned> {
    let side = far(setup);
    let word = 4_000_000 + 100_000 * (setup.seed % 20);
    let cut =
        Planned { from: word - 1_000_000, to: word + 5_000_000, fault: Trouble::Partition { side: side.clone() } };
    let fault = Trouble::TakeOver { nodes: side, nonce: 1 };
    let mut plan = vec![cut, Planned { from: word, to: word + 1, fault }];
    plan.extend((1..=setup.nodes).map(|node| {
        let from = word + 7_000_000 + 400_000 * node;
        Planned { from, to: from + 300_000, fault: Trouble::Crash { node: NodeId(node), torn: 0 } }
    }));
    plan
}

/// Two operators, who do not hear of each other, name two incarnations at some nodes each.
fn two_operators(setup: &Setup) -> Vec<Planned> {
    let nodes = far(setup);
    let first = takeover_with_home_alive(setup);
    let word = first[1].from;
    let cut =
        Planned { from: word - 100_000, to: word + 3_000_000, fault: Trouble::Partition { side: vec![nodes[0]] } };
    let say = |from, nodes: &[NodeId], nonce| {
        let fault = Trouble::TakeOver { nodes: nodes.to_vec(), nonce };
        Planned { from, to: from + 1, fault }
    };
    let halves = [say(word, &nodes[..1], 1), say(word + 50_000 * (setup.seed % 5), &nodes[1..2], 2)];
    let home_is_cut = first[0].clone();
    [home_is_cut, cut].into_iter().chain(halves).collect()
}

/// Directed scenarios reach what worlds of chance would need long for.
#[test]
fn each_scenario_that_names_a_fault_fails_by_it_and_passes_without() {
    for (name, fault) in PLANTED {
        let scenario = all_scenarios().iter().find(|s| s.name == name).expect("a scenario of that name");
        plant::set(Some(fault));
        let planted = (scenario.run)(1);
        plant::set(None);
        let why = planted.err().unwrap_or_else(|| panic!("{name} does not fail by {fault}"));
        println!("found: {fault} | {} | scenario {name}: {}", what(fault), why.lines().next().unwrap_or_default());
        if let Err(why) = (scenario.run)(1) {
            panic!("{name} without a fault: {why}");
        }
    }
}

fn always(setup: &Setup, fault: Trouble) -> Planned {
    Planned { from: 1_500_000, to: setup.safety, fault }
}

fn nodes(setup: &Setup) -> impl Iterator<Item = NodeId> {
    (1..=setup.nodes).map(NodeId)
}

fn nth(setup: &Setup, turn: u64) -> NodeId {
    NodeId(1 + turn % setup.nodes)
}

#[test]
fn what_is_heard_of_accounts_shows_faults_of_barriers_and_repeats() {
    for fault in ["ReadBarrierAlwaysPasses", "RetryNotLookedUp"] {
        Case { fault, rules: &[Stale, ExactlyOnce], shape: accounts_alone, plan: faults_of }.is_found();
    }
}

/// The faults of every crate: the name of each, and what it does.
fn all() -> Vec<(&'static str, &'static str)> {
    let storage = plant::Fault::ALL.iter().map(|fault| (fault.name(), fault.what()));
    let cluster = mailraft_cluster::plant::Fault::ALL.iter().map(|fault| (fault.name(), fault.what()));
    let owner = mailraft_owner::plant::Fault::ALL.iter().map(|fault| (fault.name(), fault.what()));
    let mailbox = mailraft_mailbox::plant::Fault::ALL.iter().map(|fault| (fault.name(), fault.what()));
    let sim = mailraft_sim::plant::Fault::ALL.iter().map(|fault| (fault.name(), fault.what()));
    storage.chain(cluster).chain(owner).chain(mailbox).chain(sim).collect()
}

fn what(name: &str) -> &'static str {
    all().into_iter().find(|(found, _)| *found == name).expect("a fault of a crate").1
}

#[test]
fn each_fault_has_a_test_and_a_name_of_its_own() {
    let mut planted: Vec<&str> = all().into_iter().map(|(name, _)| name).collect();
    let mut tested: Vec<&str> = CASES.iter().map(|case| case.fault).collect();
    // Some are found by both, or by several scenarios.
    let directed: BTreeSet<&str> = PLANTED.iter().map(|(_, fault)| *fault).collect();
    tested.extend(directed.into_iter().filter(|fault| CASES.iter().all(|case| case.fault != *fault)));
    // Those of the queue mailbox are found in a world of its own.
    let queues = include_str!("queues.rs");
    tested.extend(planted.iter().filter(|fault| queues.contains(&format!("is_found(\"{fault}\""))));
    planted.sort_unstable();
    tested.sort_unstable();
    assert_eq!(planted, tested);
    planted.dedup();
    assert_eq!(planted.len(), tested.len(), "two faults have one name");
}
