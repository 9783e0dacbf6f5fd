//! The control group's leader decides whether answers wait for other regions ([`crate::mode`]), by what the leaders of all
//! partitions tell it once a second, and as soon as it is time.
//!
//! * *Alone*, if for as long as the row about regions says a region confirmed nothing of some partition, by that leader's own
//!   clock, and the row allows it at all. What counts is the confirmation, whether something was written or not: what
//!   `status` says goes by the same figure, and a backup that looks back knows when its last one was received. A new leader
//!   begins to count anew, so it comes rather late.
//! * *Returning*, once other regions hold what every partition's leader had a second ago: so that answers, which wait from
//!   then on, wait for little. Also if going alone is not allowed any more.
//! * *Whole*, once every partition's entry that follows the row of returning is held, and that row itself. That an entry
//!   is committed and held stays true whoever leads, so it is remembered from whichever leader told it.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_storage::{CommandId, Env, PartitionId, UnixMillis};

use super::Node;
use crate::mode::{Mode, ModeReport, ModeRow};
use crate::outcome::SettingsOutcome;
use crate::plant::{self, Fault};
use crate::regions::{RegionSettings, Regions, SettingsRefusal};
use crate::replica::LOOK_EVERY_TICKS;
use crate::seam::{Output, PeerBody, RequestId};

/// Reports are sent every so many ticks (1 s).
const REPORT_EVERY_TICKS: u64 = 40;
/// A report says how things are for so many ticks (3 s).
const FRESH_TICKS: u64 = 3 * REPORT_EVERY_TICKS;

/// The moment is named so much earlier: what two leaders of a partition write into its log one after the other as the time may be
/// that far apart.
const CLOCKS_APART_MS: u64 = 1_000;

/// What a control group's leader was told by those of all partitions.
#[derive(Default)]
pub(super) struct ModeKeeper {
    /// And when, in ticks.
    reports: BTreeMap<PartitionId, (u64, ModeReport)>,
    /// The highest version by which answers wait and whose entry is held.
    held: BTreeMap<PartitionId, u64>,
    /// Other regions hold everything that was appended before then, by a clock that nobody sets.
    held_until: BTreeMap<PartitionId, Duration>,
}

impl ModeKeeper {
    /// A node tells of what it leads. What is no partition counts for nothing: as many are remembered as there are.
    pub fn hears(&mut self, now: u64, regions: &Regions, reports: Vec<ModeReport>) {
        for report in reports.into_iter().filter(|report| regions.has(report.partition)) {
            if report.waits_and_held {
                let held = self.held.entry(report.partition).or_default();
                *held = report.version.max(*held);
            }
            self.reports.insert(report.partition, (now, report));
        }
    }

    /// A node tells of what it leads what other regions hold but the newest of. That stays true.
    pub fn hears_held(&mut self, now: Duration, regions: &Regions, held_but: Vec<(PartitionId, u64)>) {
        for (partition, ago_ms) in held_but.into_iter().filter(|(partition, _)| regions.has(*partition)) {
            let known = self.held_until.entry(partition).or_default();
            *known = now.saturating_sub(Duration::from_millis(ago_ms)).max(*known);
        }
    }

    /// Of no partition other regions lack anything that was appended before then, by this wall clock; 0 while of one nobody has
    /// said so.
    fn held_until(&self, now: Duration, wall: UnixMillis, regions: &Regions) -> UnixMillis {
        let of = |partition| self.held_until.get(partition).copied().unwrap_or_default();
        let until = regions.partitions().map(of).min().filter(|until| !until.is_zero());
        until.map_or(UnixMillis(0), |until| {
            let ago_ms = u64::try_from(now.saturating_sub(until).as_millis()).unwrap_or(u64::MAX);
            UnixMillis(wall.0.saturating_sub(ago_ms.saturating_add(CLOCKS_APART_MS)))
        })
    }

    /// What is to be instead of what the row says, if something is.
    fn next(&self, now: u64, regions: &Regions) -> Option<Mode> {
        let fresh = |partition: &PartitionId| {
            let told = self.reports.get(partition).filter(|(at, _)| now - at <= FRESH_TICKS);
            told.map(|(_, report)| report)
        };
        let partitions = || regions.partitions();
        let waits = |after_ms: u128| partitions().filter_map(fresh).any(|r| u128::from(r.unconfirmed_ms) >= after_ms);
        let degrades = regions.degrade_after().is_some_and(|after| waits(after.as_millis()));
        let has = |partition: &PartitionId| self.held.get(partition).is_some_and(|v| *v >= regions.mode().version);
        match regions.mode().mode {
            Mode::Whole | Mode::Returning if degrades => Some(Mode::Alone),
            Mode::Whole => None,
            Mode::Returning if partitions().all(has) => Some(Mode::Whole),
            Mode::Returning => None,
            Mode::Alone => {
                // What a leader said before it followed this row may be about other regions.
                let follows = |report: &ModeReport| report.version >= regions.mode().version;
                let has_caught_up = |report: &ModeReport| report.caught_up && follows(report);
                let caught_up = partitions().all(|p| fresh(p).is_some_and(has_caught_up));
                let next = if plant::is(Fault::WholeBeforeHeld) { Mode::Whole } else { Mode::Returning };
                (caught_up || regions.degrade_after().is_none()).then_some(next)
            }
        }
    }
}

impl Node {
    /// Tells the control group's leader of what is led here, once a second or as soon as it is time to go on alone; as that
    /// leader, decides.
    pub(super) fn keeps_mode(&mut self, env: &Env, out: &mut Vec<Output>) {
        let Some(regions) = self.config.regions.clone().filter(|_| self.ticks.is_multiple_of(LOOK_EVERY_TICKS)) else {
            return;
        };
        let reports: Vec<ModeReport> = self.replicas.values().filter_map(|replica| replica.mode_report()).collect();
        let after = regions.degrade_after().filter(|_| regions.mode().mode != Mode::Alone);
        let overdue = |report: &ModeReport| after.is_some_and(|t| u128::from(report.unconfirmed_ms) >= t.as_millis());
        let due = self.ticks.is_multiple_of(REPORT_EVERY_TICKS) || reports.iter().any(overdue);
        let held = if due { self.held_but(env) } else { Vec::new() };
        let Some(control) = self.replicas.get_mut(&PartitionId::CONTROL) else { return };
        if control.mode_report().is_none() {
            let leader = control.leader_replica().filter(|_| due && !reports.is_empty());
            if let Some((to, node)) = leader {
                for body in [PeerBody::HeldBut(held), PeerBody::Modes(reports)] {
                    let message = control.message(&self.config, env, to, body);
                    out.push(Output::Send { to: node, message });
                }
            }
            self.mode.reports.clear();
            self.mode.held_until.clear();
            return;
        }
        self.mode.hears_held(env.now, &regions, held);
        self.mode.hears(self.ticks, &regions, reports);
        let Some(mode) = self.mode.next(self.ticks, &regions).filter(|_| self.settled) else { return };
        let wall = self.clocks.wall(env);
        // Under geo nothing was answered that they lack. The moment is for people: the log's clock may be ahead of it for as long as
        // clocks were once that had to be set right.
        let held_until = if regions.durability().may_run_ahead().is_zero() {
            wall
        } else {
            self.mode.held_until(env.now, wall, &regions)
        };
        let row: ModeRow = regions.mode().next_ahead(mode, wall, held_until);
        control.append_mode_row(&self.config, wall, &row);
        self.dirty.push(PartitionId::CONTROL);
    }

    /// What other regions hold but the newest of, of what is led here.
    fn held_but(&self, env: &Env) -> Vec<(PartitionId, u64)> {
        let wall = self.clocks.wall(env);
        let led = self.replicas.values();
        led.filter_map(|replica| Some((replica.spec.partition, replica.held_but_ms(wall)?))).collect()
    }

    /// An operator wants other settings.
    pub(super) fn set_regions(
        &mut self,
        env: &Env,
        request: RequestId,
        id: CommandId,
        settings: RegionSettings,
    ) -> Option<SettingsOutcome> {
        let Some(regions) = self.config.regions.clone() else {
            return Some(SettingsOutcome::Refused(SettingsRefusal::OneRegion));
        };
        let held = self.held_but(env);
        self.mode.hears_held(env.now, &regions, held);
        let held_until = self.mode.held_until(env.now, self.clocks.wall(env), &regions);
        let wall = self.clocks.wall(env);
        let settled = self.settled;
        let Some((config, control)) = self.asked(PartitionId::CONTROL) else {
            return Some(SettingsOutcome::NotLeader { leader: None });
        };
        match settled {
            true => control.set_regions(config, wall, request, id, settings, held_until),
            // It knows no time to stamp entries with; that takes a second.
            false => Some(SettingsOutcome::NotLeader { leader: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;
    use mailraft_storage::{Applied, Index, ReplicaId, RowBatch, Rows};

    use super::*;
    use crate::placement::{self, Placement};
    use crate::regions::{self, Durability, RegionName, RegionsRow, Unconfirmed};

    const P1: PartitionId = PartitionId(1);

    fn regions(mode: Mode, version: u64, unconfirmed: Unconfirmed) -> Regions {
        let (rows, replica) = (MemoryRows::new(), ReplicaId(1));
        let name = |name: &str| RegionName(name.into());
        let row = RegionsRow::new(name("home"), [name("south")].into(), Durability::Geo);
        let row = RegionsRow { unconfirmed, degrade_after_ms: 10_000, ..row };
        let placement = |partition| Placement { partition, nonce: [0; 16], members: Vec::new() };
        let mut batch: RowBatch = ModeRow { version, mode, since: UnixMillis(1), ..ModeRow::default() }.batch();
        regions::write(&mut batch, &row);
        placement::write(&mut batch, &[], &[placement(PartitionId::CONTROL), placement(P1)]);
        let applied = Applied { index: Index(1), ..Applied::default() };
        rows.write(&[ReplicaBatch { replica, batch, applied }]).unwrap();
        Regions::from_rows(&rows, replica).unwrap().unwrap()
    }

    fn report(partition: PartitionId, version: u64, held: bool, caught_up: bool, unconfirmed_ms: u64) -> ModeReport {
        ModeReport { partition, version, waits_and_held: held, caught_up, unconfirmed_ms }
    }

    #[test]
    fn the_home_goes_alone_after_the_time_without_confirmation_of_one_partition_or_never() {
        for (unconfirmed, unconfirmed_ms, later, next) in [
            (Unconfirmed::Degrade, 9_999, 0, None),
            (Unconfirmed::Degrade, 10_000, 0, Some(Mode::Alone)),
            (Unconfirmed::Degrade, 10_000, FRESH_TICKS, Some(Mode::Alone)),
            (Unconfirmed::Degrade, 10_000, FRESH_TICKS + 1, None),
            (Unconfirmed::Refuse, u64::MAX, 0, None),
        ] {
            for mode in [Mode::Whole, Mode::Returning] {
                let mut keeper = ModeKeeper::default();
                keeper.hears(100, &regions(mode, 6, unconfirmed), vec![report(P1, 0, false, false, unconfirmed_ms)]);
                let found = keeper.next(100 + later, &regions(mode, 6, unconfirmed));
                assert_eq!(found, next, "{unconfirmed:?} {unconfirmed_ms} {later} {mode:?}");
            }
        }
    }

    #[test]
    fn what_other_regions_hold_of_all_is_as_old_as_of_the_partition_that_is_behind_most() {
        let whole = regions(Mode::Whole, 1, Unconfirmed::Degrade);
        let (now, wall) = (Duration::from_secs(100), UnixMillis(5_000_000));
        let ago = |ms: u64| UnixMillis(wall.0 - ms - CLOCKS_APART_MS);
        let mut keeper = ModeKeeper::default();
        keeper.hears_held(now, &whole, vec![(PartitionId::CONTROL, 300)]);
        assert_eq!(keeper.held_until(now, wall, &whole), UnixMillis(0), "of one nobody has said anything");
        keeper.hears_held(now, &whole, vec![(P1, 700)]);
        keeper.hears_held(now, &whole, vec![(P1, 800)]);
        assert_eq!(keeper.held_until(now, wall, &whole), ago(700));
        keeper.hears_held(now, &whole, vec![(P1, 100)]);
        assert_eq!(keeper.held_until(now, wall, &whole), ago(300));
        // What was said once is as much longer ago as it is, whatever the wall clock was set to meanwhile.
        assert_eq!(keeper.held_until(now + Duration::from_secs(9), wall, &whole), ago(9_300));
        // It is longer ago than the clock knows.
        let mut keeper = ModeKeeper::default();
        keeper.hears_held(now, &whole, vec![(PartitionId::CONTROL, 0), (P1, 100_000)]);
        assert_eq!(keeper.held_until(now, wall, &whole), UnixMillis(0));
    }

    #[test]
    fn of_what_is_no_partition_nothing_is_remembered() {
        let whole = regions(Mode::Whole, 1, Unconfirmed::Degrade);
        let mut keeper = ModeKeeper::default();
        for number in 0..10_000 {
            keeper.hears(100, &whole, vec![report(PartitionId(number), 1, true, true, 0)]);
            keeper.hears_held(Duration::from_secs(100), &whole, vec![(PartitionId(number), 0)]);
        }
        assert_eq!((keeper.reports.len(), keeper.held.len(), keeper.held_until.len()), (2, 2, 2));
    }

    #[test]
    fn it_returns_once_every_partition_has_caught_up_or_if_it_may_be_alone_no_more() {
        let alone = regions(Mode::Alone, 1, Unconfirmed::Degrade);
        let mut keeper = ModeKeeper::default();
        keeper.hears(100, &alone, vec![report(P1, 1, false, true, 0)]);
        assert_eq!(keeper.next(100, &alone), None, "nothing is known of the control group");
        keeper.hears(100, &alone, vec![report(PartitionId::CONTROL, 1, false, true, 0)]);
        assert_eq!(keeper.next(100, &alone), Some(Mode::Returning));
        assert_eq!(keeper.next(100 + FRESH_TICKS + 1, &alone), None);
        assert_eq!(
            keeper.next(100, &regions(Mode::Alone, 2, Unconfirmed::Degrade)),
            None,
            "that was about another row"
        );
        keeper.hears(100, &alone, vec![report(P1, 1, false, false, 0)]);
        assert_eq!(keeper.next(100, &alone), None);
        assert_eq!(keeper.next(100, &regions(Mode::Alone, 1, Unconfirmed::Refuse)), Some(Mode::Returning));
    }

    #[test]
    fn it_is_whole_once_the_entry_of_every_partition_is_held_whoever_told_it_and_when() {
        let returning = regions(Mode::Returning, 2, Unconfirmed::Degrade);
        let mut keeper = ModeKeeper::default();
        keeper.hears(
            100,
            &returning,
            vec![report(PartitionId::CONTROL, 2, true, true, 0), report(P1, 1, true, true, 0)],
        );
        assert_eq!(keeper.next(100, &returning), None, "an earlier version says nothing");
        keeper.hears(100, &returning, vec![report(P1, 2, true, true, 0)]);
        keeper.hears(900, &returning, vec![report(P1, 2, false, false, 0)]);
        assert_eq!(keeper.next(9_000, &returning), Some(Mode::Whole));
    }
}
