//! What the home may have promised when it was lost, by what all nodes of the region have. One that was away as the home's
//! settings were changed does not know of it, and may be the one that is asked; and of what stands last in their logs nobody
//! here knows whether it came to be.

use std::collections::BTreeMap;

use mailraft_cluster::mode::{ModeRow, Unheld};
use mailraft_cluster::regions::{Durability, Regions, RegionsRow, Unconfirmed};
use mailraft_storage::{Index, NodeId};

use super::facts::{Facts, Promised};

/// What the home may have promised at least.
pub struct Least {
    /// The cluster's regions, as if it had promised that.
    pub regions: Regions,
    /// Where the newest change of settings stands that any of these nodes has.
    pub settings: Index,
}

/// What the home said of itself, and none of these nodes has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answers without this region, or did.
    Lacks,
    /// Its settings are others than those that are known here.
    Set,
}

/// The least that the home may have promised: what the newest rows among these nodes say, and all that follows in whoever's
/// log.
pub fn least(own: &Regions, facts: &BTreeMap<NodeId, Option<Facts>>) -> Least {
    let all = || facts.values().flatten().filter_map(|node| Some((node.begun, node.promised.as_ref()?)));
    let Some((begun, newest)) = all().max_by_key(|(begun, promised)| (*begun, promised.applied)) else {
        let settings = own.changes().newest().map_or(Index(0), |newest| newest.index);
        return Least { regions: own.clone(), settings };
    };
    let Promised { applied, mut row, mut mode, mut settings, in_log: _ } = newest.clone();
    let in_logs = all().filter(|(of, _)| *of == begun).flat_map(|(_, promised)| &promised.in_log);
    for entry in in_logs.filter(|entry| entry.index > applied) {
        if entry.row.is_some() {
            settings = settings.max(entry.index);
        }
        row = entry.row.as_ref().map_or_else(|| row.clone(), |other| less_of(&row, other));
        mode = entry.mode.map_or(mode, |other| less_known_of(mode, other));
    }
    Least { regions: own.promising(row, mode), settings }
}

/// What the home said of itself that follows from nothing these nodes have.
pub fn heard(least: &Regions, settings: Index, facts: &BTreeMap<NodeId, Option<Facts>>) -> Option<Heard> {
    let said = facts.values().flatten().filter_map(|node| node.home_said);
    let newest = said.max_by_key(|said| (said.settings, said.version))?;
    let is_set = newest.settings > settings;
    match newest.lacks && (is_set || newest.version > least.mode().version) {
        true => Some(Heard::Lacks),
        false => is_set.then_some(Heard::Set),
    }
}

/// Of two settings what promises less.
fn less_of(one: &RegionsRow, other: &RegionsRow) -> RegionsRow {
    let ahead = |durability: Durability| durability.may_run_ahead();
    let durability = std::cmp::max_by_key(one.durability, other.durability, |of| ahead(*of));
    let degrading = [one, other].into_iter().filter(|row| row.unconfirmed == Unconfirmed::Degrade);
    let (unconfirmed, degrade_after_ms) = match degrading.map(|row| row.degrade_after_ms).min() {
        Some(ms) => (Unconfirmed::Degrade, ms),
        None => (Unconfirmed::Refuse, one.degrade_after_ms),
    };
    let sync_set = one.sync_set.intersection(&other.sync_set).cloned().collect();
    RegionsRow { home: one.home.clone(), sync_set, durability, unconfirmed, degrade_after_ms }
}

/// Of two modes the one in which more may be missing.
fn less_known_of(one: ModeRow, other: ModeRow) -> ModeRow {
    let missing = |mode: &ModeRow| match mode.unheld {
        Unheld::Nothing => 0,
        Unheld::SinceLessPromised(_) => 1,
        Unheld::Since(_) => 2,
        Unheld::SinceTakenOut => 3,
    };
    if missing(&other) > missing(&one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mailraft_cluster::mode::Mode;
    use mailraft_cluster::promised::InLog;
    use mailraft_storage::UnixMillis;

    use super::super::facts::HomeSaid;
    use super::super::plan::tests::World;
    use super::*;

    /// Node 4 is asked, which was away; nodes 5 and 6 have applied so much.
    fn world(promised: impl Fn(&RegionsRow, ModeRow) -> Promised) -> World {
        let mut world = World::new(Durability::Geo);
        let (row, mode) = (world.row.clone(), ModeRow::default());
        world.node(4, |facts| {
            facts.promised =
                Some(Promised { applied: Index(40), row: row.clone(), mode, settings: Index(30), in_log: Vec::new() });
        });
        for node in [5, 6] {
            world.node(node, |facts| facts.promised = Some(promised(&row, mode)));
        }
        world
    }

    fn lost(world: &World) -> String {
        world.plan().map_or_else(|refused| refused.code.to_owned(), |plan| plan.lost)
    }

    #[test]
    fn a_node_that_was_away_goes_by_what_the_others_know() {
        let newer =
            |row: RegionsRow, mode| Promised { applied: Index(50), row, mode, settings: Index(50), in_log: Vec::new() };
        let less = world(|row, mode| {
            newer(RegionsRow { durability: Durability::Region { rpo_max_ms: 60_000 }, ..row.clone() }, mode)
        });
        assert!(lost(&less).starts_with("lost: of each mailbox at most 60000 ms"), "{}", lost(&less));
        let out = world(|row, mode| newer(RegionsRow { sync_set: BTreeSet::new(), ..row.clone() }, mode));
        assert_eq!(lost(&out), "not_in_sync_set");
        let degrade = world(|row, mode| newer(RegionsRow { degrade_after_ms: 1_000, ..row.clone() }, mode));
        assert!(lost(&degrade).starts_with("lost: nothing, if home was dead"), "{}", lost(&degrade));
        let alone = world(|row, mode| newer(row.clone(), mode.next(Mode::Alone, UnixMillis(0))));
        assert!(lost(&alone).starts_with("lost: what home answered without south since"), "{}", lost(&alone));
        // The other way round: it is the asked one that knows of the newest.
        let old = world(|row, mode| Promised {
            applied: Index(30),
            ..newer(RegionsRow { sync_set: BTreeSet::new(), ..row.clone() }, mode)
        });
        assert!(lost(&old).starts_with("lost: nothing"), "{}", lost(&old));
    }

    #[test]
    fn what_stands_last_in_logs_counts_where_it_promises_less() {
        fn in_log(index: u64, row: Option<RegionsRow>, mode: Option<ModeRow>) -> InLog {
            InLog { index: Index(index), row, mode }
        }
        let with = |entries: fn(&RegionsRow, ModeRow) -> Vec<InLog>| {
            world(|row, mode| Promised {
                applied: Index(40),
                row: row.clone(),
                mode,
                settings: Index(30),
                in_log: entries(row, mode),
            })
        };
        let bound =
            |row: &RegionsRow, rpo_max_ms| RegionsRow { durability: Durability::Region { rpo_max_ms }, ..row.clone() };
        // Less, and then more again: which of it came to be nobody knows.
        let less = with(|row, _| {
            let bound = |rpo_max_ms| RegionsRow { durability: Durability::Region { rpo_max_ms }, ..row.clone() };
            vec![
                in_log(41, Some(bound(9_000)), None),
                in_log(42, Some(bound(500)), None),
                in_log(43, Some(row.clone()), None),
            ]
        });
        assert!(lost(&less).starts_with("lost: of each mailbox at most 9000 ms"), "{}", lost(&less));
        let alone = with(|_, mode| {
            let alone = mode.next(Mode::Alone, UnixMillis(0));
            vec![in_log(41, None, Some(alone)), in_log(42, None, Some(alone.next(Mode::Whole, UnixMillis(9))))]
        });
        assert!(lost(&alone).starts_with("lost: what home answered without south since"), "{}", lost(&alone));
        // What others have applied is no longer a question.
        let mut world = with(|row, _| {
            let sync_set = BTreeSet::new();
            vec![in_log(41, Some(RegionsRow { sync_set, ..row.clone() }), None)]
        });
        assert_eq!(lost(&world), "not_in_sync_set");
        let row = bound(&world.row, 800);
        let promised =
            Promised { applied: Index(42), row, mode: ModeRow::default(), settings: Index(42), in_log: Vec::new() };
        world.node(6, |facts| facts.promised = Some(promised.clone()));
        assert!(lost(&world).starts_with("lost: of each mailbox at most 800 ms"), "{}", lost(&world));
    }

    #[test]
    fn what_the_home_said_of_itself_counts_as_long_as_nobody_here_has_it() {
        let mut world = world(|row, mode| Promised {
            applied: Index(40),
            row: row.clone(),
            mode,
            settings: Index(30),
            in_log: Vec::new(),
        });
        let said = |world: &mut World, version, settings, lacks| {
            let said = HomeSaid { version, settings: Index(settings), lacks };
            world.node(6, |facts| facts.home_said = Some(said));
            lost(world)
        };
        assert!(said(&mut world, 0, 30, false).starts_with("lost: nothing"));
        let alone = said(&mut world, 1, 30, true);
        assert!(
            alone.starts_with("lost: what home answered since") && alone.contains("without waiting for south"),
            "{alone}"
        );
        let removed = said(&mut world, 0, 31, true);
        assert!(removed.contains("without waiting for south"), "{removed}");
        let set = said(&mut world, 0, 31, false);
        assert!(
            set.starts_with("lost: what home answered since") && set.contains("settings that south lacks"),
            "{set}"
        );
        // It was alone, and is known to have everything since.
        let whole = ModeRow::default().next(Mode::Alone, UnixMillis(0)).next(Mode::Returning, UnixMillis(1));
        let whole = whole.next(Mode::Whole, UnixMillis(2));
        world.node(5, |facts| {
            if let Some(promised) = &mut facts.promised {
                (promised.mode, promised.applied) = (whole, Index(41));
            }
        });
        assert!(said(&mut world, 2, 30, true).starts_with("lost: nothing"));
    }

    #[test]
    fn of_two_settings_the_one_that_promises_less_counts() {
        let row = World::new(Durability::Geo).row;
        let refuse = RegionsRow { unconfirmed: Unconfirmed::Refuse, degrade_after_ms: 1_000, ..row.clone() };
        let less = less_of(&refuse, &row);
        assert_eq!((less.unconfirmed, less.degrade_after_ms), (Unconfirmed::Degrade, row.degrade_after_ms));
        assert_eq!(less_of(&refuse, &refuse), refuse);
        let taken_out = ModeRow::default().taken_back(UnixMillis(7));
        let less_promised = ModeRow::default().promised_more(UnixMillis(7), UnixMillis(7));
        assert_eq!(less_known_of(less_promised, taken_out), taken_out);
        assert_eq!(less_known_of(taken_out, taken_out.next(Mode::Whole, UnixMillis(9))), taken_out);
    }
}
