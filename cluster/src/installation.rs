//! A snapshot on its way into the place of a replica's rows and log: one machine for all of its states, which
//! `docs/ARCHITECTURE.md` draws.
//!
//! It does nothing itself. Each transition says what is to be done, and stops the process if it must not be: rows
//! replaced without a durable mark, or a log reset over rows that are not in place, are lost mail after the next crash.

use mailraft_storage::{Applied, Index};

/// How far a snapshot has come. A crash before `Marked` forgets it, one from then on begins anew at `Marked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Its file is whole and synced; Raft has not said yet whether it is news.
    Staged,
    /// It is news to Raft, and comes with the next ready.
    Judged,
    /// Raft goes on from its position. Its ready waits for the writes before it.
    Queued,
    /// The mark is in the batch that is being written.
    Marking,
    /// The mark is durable. Apply may have entries in hand that are older.
    Marked,
    /// The driver replaces rows.
    Replacing,
    /// The rows are in place and flushed: the log is to be reset.
    Replaced,
    /// The reset, which takes the mark away, is in the batch that is being written.
    Resetting,
}

/// What to do with a snapshot that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// Ask Raft whether it is news, and say so to [`Installation::judged`].
    Judge,
    /// Nothing: another is on its way, and this one is thrown away when that is over.
    Waits,
}

/// What to do with a snapshot that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// Keep its file: it goes on.
    Keep,
    /// Throw away what is staged.
    Discard,
}

/// What a replica may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// What waits, in its order, up to the ready of a snapshot: then [`Installation::mark`].
    Readies,
    /// Nothing before the rows are in place.
    Nothing,
    /// The reset of the log: [`Installation::reset`].
    Reset,
}

/// What became durable with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Synced {
    /// Readies, and nothing of a snapshot.
    Readies,
    /// The mark: the rows may be replaced as soon as apply has nothing in hand.
    Mark,
    /// The reset: the snapshot is in place.
    Reset {
        /// The position that the replica goes on from.
        applied: Applied,
        /// Whether to throw away what was staged meanwhile.
        discard: bool,
    },
}

#[derive(Clone, Debug)]
struct Snapshot {
    stage: Stage,
    applied: Applied,
}

/// The one snapshot that is on its way into a replica's place, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    snapshot: Option<Snapshot>,
    /// Another was staged meanwhile. It may be thrown away only when the first is in place: both are files of the
    /// same replica.
    another_waits: bool,
}

impl Installation {
    /// Begins where a start finds the mark of this snapshot in the log.
    pub fn resuming(applied: Applied) -> Self {
        Installation { snapshot: Some(Snapshot { stage: Stage::Marked, applied }), another_waits: false }
    }

    /// Whether Raft goes on from a snapshot that is not in place. Meanwhile nothing is appended durably, applied or
    /// answered, no election begins, the log is not cut and the replica does not end.
    pub fn is_on(&self) -> bool {
        self.stage() >= Some(Stage::Queued)
    }

    /// A snapshot with this position is whole and synced as a file.
    pub fn staged(&mut self, applied: Applied) -> Arrival {
        if self.snapshot.is_some() {
            self.another_waits = true;
            return Arrival::Waits;
        }
        self.snapshot = Some(Snapshot { stage: Stage::Staged, applied });
        Arrival::Judge
    }

    /// Raft has said whether the staged snapshot is news.
    ///
    /// # Panics
    /// If none is staged.
    pub fn judged(&mut self, is_news: bool) -> Judgement {
        self.advance(Stage::Staged, Stage::Judged);
        if is_news {
            return Judgement::Keep;
        }
        *self = Installation::default();
        Judgement::Discard
    }

    /// The snapshot at this index came with a ready: gives the position that Raft goes on from.
    ///
    /// # Panics
    /// If it is not the one that was staged and judged.
    pub fn taken(&mut self, index: Index) -> Applied {
        let applied = self.advance(Stage::Judged, Stage::Queued);
        assert_eq!(applied.index, index, "Raft takes another snapshot than was staged");
        applied.clone()
    }

    /// What the replica may write.
    ///
    /// # Panics
    /// If a batch with the mark or the reset is not written yet.
    pub fn turn(&self) -> Turn {
        match self.stage() {
            None | Some(Stage::Staged | Stage::Judged | Stage::Queued) => Turn::Readies,
            Some(Stage::Marked | Stage::Replacing) => Turn::Nothing,
            Some(Stage::Replaced) => Turn::Reset,
            Some(stage @ (Stage::Marking | Stage::Resetting)) => panic!("a second batch while a snapshot is {stage:?}"),
        }
    }

    /// Whether a batch can and must be written for the snapshot itself, whatever else waits; None if that goes by
    /// the readies.
    pub fn needs_batch(&self) -> Option<bool> {
        match self.stage() {
            None | Some(Stage::Staged | Stage::Judged | Stage::Queued) => None,
            Some(Stage::Marking | Stage::Marked | Stage::Replacing | Stage::Resetting) => Some(false),
            Some(Stage::Replaced) => Some(true),
        }
    }

    /// Everything before the snapshot's ready is durable: gives the position to mark in the next batch.
    ///
    /// # Panics
    /// If Raft has not taken it, or the mark was written already.
    pub fn mark(&mut self) -> Applied {
        self.advance(Stage::Queued, Stage::Marking).clone()
    }

    /// The batch with this replica's writes is durable.
    ///
    /// # Panics
    /// If there was none to write.
    pub fn persisted(&mut self) -> Synced {
        match self.stage() {
            None | Some(Stage::Staged | Stage::Judged | Stage::Queued) => Synced::Readies,
            Some(stage @ (Stage::Marked | Stage::Replacing | Stage::Replaced)) => {
                panic!("a batch was written while a snapshot is {stage:?}")
            }
            Some(Stage::Marking) => {
                self.advance(Stage::Marking, Stage::Marked);
                Synced::Mark
            }
            Some(Stage::Resetting) => {
                let Installation { snapshot, another_waits } = std::mem::take(self);
                let applied = snapshot.expect("one that is resetting is there").applied;
                Synced::Reset { applied, discard: another_waits }
            }
        }
    }

    /// Gives the position whose rows are to be put in place now, if they may be: once for each life of the process,
    /// when the mark is durable and apply has nothing in hand.
    pub fn replace(&mut self, apply_is_idle: bool) -> Option<Applied> {
        let may = apply_is_idle && self.stage() == Some(Stage::Marked);
        may.then(|| self.advance(Stage::Marked, Stage::Replacing).clone())
    }

    /// The driver has replaced the rows and flushed them.
    ///
    /// # Panics
    /// If nobody asked for that.
    pub fn replaced(&mut self) {
        self.advance(Stage::Replacing, Stage::Replaced);
    }

    /// Gives the position at which the log begins anew in the next batch.
    ///
    /// # Panics
    /// If the rows are not in place.
    pub fn reset(&mut self) -> Applied {
        self.advance(Stage::Replaced, Stage::Resetting).clone()
    }

    /// The replica ends. What is staged for it goes with its rows.
    ///
    /// # Panics
    /// If a snapshot is on its way into its place: the driver would bring rows back that were deleted.
    pub fn end(self) {
        assert!(!self.is_on(), "the replica ends while a snapshot is {:?}", self.stage());
    }

    fn stage(&self) -> Option<Stage> {
        self.snapshot.as_ref().map(|snapshot| snapshot.stage)
    }

    fn advance(&mut self, from: Stage, to: Stage) -> &Applied {
        assert_eq!(self.stage(), Some(from), "a snapshot becomes {to:?} only when it is {from:?}");
        let snapshot = self.snapshot.as_mut().expect("one that has a stage is there");
        snapshot.stage = to;
        &snapshot.applied
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const STAGES: [Stage; 8] = [
        Stage::Staged,
        Stage::Judged,
        Stage::Queued,
        Stage::Marking,
        Stage::Marked,
        Stage::Replacing,
        Stage::Replaced,
        Stage::Resetting,
    ];

    const FIRST: Index = Index(10);
    const SECOND: Index = Index(20);

    fn at(index: Index) -> Applied {
        Applied { index, ..Applied::default() }
    }

    /// A machine that came to a stage by itself, or that has nothing to do.
    fn machine(stage: Option<Stage>) -> Installation {
        let mut machine = Installation::default();
        for next in STAGES.iter().filter(|s| Some(**s) <= stage) {
            match next {
                Stage::Staged => assert_eq!(machine.staged(at(FIRST)), Arrival::Judge),
                Stage::Judged => assert_eq!(machine.judged(true), Judgement::Keep),
                Stage::Queued => assert_eq!(machine.taken(FIRST), at(FIRST)),
                Stage::Marking => assert_eq!(machine.mark(), at(FIRST)),
                Stage::Marked => assert_eq!(machine.persisted(), Synced::Mark),
                Stage::Replacing => assert_eq!(machine.replace(true), Some(at(FIRST))),
                Stage::Replaced => machine.replaced(),
                Stage::Resetting => assert_eq!(machine.reset(), at(FIRST)),
            }
        }
        assert_eq!(machine.stage(), stage);
        machine
    }

    fn all() -> impl Iterator<Item = Option<Stage>> {
        std::iter::once(None).chain(STAGES.map(Some))
    }

    /// Whether the process goes on after it.
    fn goes_on(event: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(event)).is_ok()
    }

    #[test]
    fn each_transition_has_one_stage_and_stops_the_process_in_every_other() {
        type Event = fn(&mut Installation);
        let events: [(Event, Stage, Option<Stage>); 7] = [
            (|m| assert_eq!(m.judged(true), Judgement::Keep), Stage::Staged, Some(Stage::Judged)),
            (|m| assert_eq!(m.judged(false), Judgement::Discard), Stage::Staged, None),
            (|m| assert_eq!(m.taken(FIRST), at(FIRST)), Stage::Judged, Some(Stage::Queued)),
            (|m| assert_eq!(m.mark(), at(FIRST)), Stage::Queued, Some(Stage::Marking)),
            (Installation::replaced, Stage::Replacing, Some(Stage::Replaced)),
            (|m| assert_eq!(m.reset(), at(FIRST)), Stage::Replaced, Some(Stage::Resetting)),
            (|m| assert_eq!(m.persisted(), Synced::Mark), Stage::Marking, Some(Stage::Marked)),
        ];
        for (number, (event, from, to)) in events.into_iter().enumerate() {
            for stage in all() {
                let mut machine = machine(stage);
                let went = goes_on(|| event(&mut machine));
                assert_eq!(went, stage == Some(from), "event {number} at {stage:?}");
                if went {
                    assert_eq!(machine.stage(), to, "event {number}");
                }
            }
        }
        assert!(!goes_on(|| drop(machine(Some(Stage::Judged)).taken(SECOND))), "another than was staged");
    }

    #[test]
    fn rows_are_asked_for_once_when_the_mark_is_durable_and_apply_is_idle() {
        for stage in all() {
            let mut machine = machine(stage);
            assert_eq!(machine.replace(false), None, "{stage:?}");
            let asked = machine.replace(true);
            assert_eq!(asked.is_some(), stage == Some(Stage::Marked), "{stage:?}");
            assert_eq!(machine.replace(true), None, "asked twice at {stage:?}");
        }
    }

    #[test]
    fn a_batch_is_due_only_for_what_may_be_written() {
        for stage in all() {
            let machine = machine(stage);
            let turn = catch_unwind(AssertUnwindSafe(|| machine.turn())).ok();
            let expected = match stage {
                None | Some(Stage::Staged | Stage::Judged | Stage::Queued) => (Some(Turn::Readies), None),
                Some(Stage::Marked | Stage::Replacing) => (Some(Turn::Nothing), Some(false)),
                Some(Stage::Replaced) => (Some(Turn::Reset), Some(true)),
                Some(Stage::Marking | Stage::Resetting) => (None, Some(false)),
            };
            assert_eq!((turn, machine.needs_batch()), expected, "{stage:?}");
        }
    }

    #[test]
    fn a_second_snapshot_waits_at_every_stage_and_is_thrown_away_with_the_end_of_the_first() {
        for stage in STAGES {
            let mut machine = machine(Some(stage));
            assert_eq!(machine.staged(at(SECOND)), Arrival::Waits);
            assert_eq!(machine.stage(), Some(stage));
            if stage == Stage::Staged {
                let mut old = machine.clone();
                assert_eq!(old.judged(false), Judgement::Discard);
                assert!(!old.another_waits, "thrown away with the first");
            }
            let end = finish(&mut machine);
            assert_eq!(end, Synced::Reset { applied: at(FIRST), discard: true }, "{stage:?}");
            assert_eq!(machine.staged(at(SECOND)), Arrival::Judge, "the next one");
            assert_eq!(finish(&mut machine), Synced::Reset { applied: at(SECOND), discard: false });
        }
    }

    #[test]
    fn a_replica_ends_only_while_no_snapshot_is_on_its_way_into_its_place() {
        for stage in all() {
            let (ends, is_on) = (goes_on(|| machine(stage).end()), machine(stage).is_on());
            assert_eq!((ends, is_on), (stage < Some(Stage::Queued), stage >= Some(Stage::Queued)), "{stage:?}");
        }
    }

    /// Does what comes next until the snapshot is in place; gives what became durable last.
    fn finish(machine: &mut Installation) -> Synced {
        let index = machine.snapshot.as_ref().map_or(FIRST, |s| s.applied.index);
        while let Some(stage) = machine.stage() {
            match stage {
                Stage::Staged => assert_eq!(machine.judged(true), Judgement::Keep),
                Stage::Judged => drop(machine.taken(index)),
                Stage::Queued => drop(machine.mark()),
                Stage::Marking => assert_eq!(machine.persisted(), Synced::Mark),
                Stage::Marked => assert!(machine.replace(true).is_some()),
                Stage::Replacing => machine.replaced(),
                Stage::Replaced => drop(machine.reset()),
                Stage::Resetting => return machine.persisted(),
            }
        }
        panic!("there was no snapshot");
    }

    #[derive(Clone, Copy, Debug)]
    enum Batch {
        Mark(Index),
        Reset(Index),
    }

    /// The machine, and around it what a crash leaves: the log, the rows and the staged files.
    #[derive(Clone, Debug)]
    struct World {
        machine: Installation,
        files: BTreeSet<Index>,
        batch: Option<Batch>,
        mark: Option<Index>,
        log_from: Index,
        rows_at: Index,
    }

    impl World {
        fn new() -> Self {
            let (log_from, rows_at) = (Index(1), Index(1));
            World {
                machine: Installation::default(),
                files: BTreeSet::new(),
                batch: None,
                mark: None,
                log_from,
                rows_at,
            }
        }

        /// Every world that may come next.
        fn next(&self) -> Vec<World> {
            let mut next = Vec::new();
            let mut then = |event: &dyn Fn(&mut World)| {
                let mut world = self.clone();
                event(&mut world);
                next.push(world);
            };
            for index in
                [FIRST, SECOND].into_iter().filter(|index| *index > self.rows_at && !self.files.contains(index))
            {
                then(&|w| {
                    w.files.insert(index);
                    let _ = w.machine.staged(at(index));
                });
            }
            let snapshot = self.machine.snapshot.as_ref();
            let index = snapshot.map_or(Index(0), |s| s.applied.index);
            match self.machine.stage() {
                None => {}
                Some(Stage::Staged) => {
                    then(&|w| assert_eq!(w.machine.judged(true), Judgement::Keep));
                    then(&|w| {
                        assert_eq!(w.machine.judged(false), Judgement::Discard);
                        w.files.clear();
                    });
                }
                Some(Stage::Judged) => then(&|w| drop(w.machine.taken(index))),
                Some(Stage::Queued) => then(&|w| w.batch = Some(Batch::Mark(w.machine.mark().index))),
                Some(Stage::Marking | Stage::Resetting) => then(&|w| w.sync()),
                Some(Stage::Marked) => then(&|w| assert!(w.machine.replace(true).is_some())),
                Some(Stage::Replacing) => {
                    then(&|w| w.rows_at = index);
                    if self.rows_at == index {
                        then(&|w| w.machine.replaced());
                    }
                }
                Some(Stage::Replaced) => then(&|w| w.batch = Some(Batch::Reset(w.machine.reset().index))),
            }
            then(&|w| w.crash());
            if self.batch.is_some() {
                // The batch was durable, and nobody heard of it.
                then(&|w| {
                    w.write();
                    w.crash();
                });
            }
            next
        }

        fn write(&mut self) {
            match self.batch.take() {
                None => {}
                Some(Batch::Mark(index)) => self.mark = Some(index),
                Some(Batch::Reset(index)) => (self.mark, self.log_from) = (None, index),
            }
        }

        fn sync(&mut self) {
            self.write();
            if let Synced::Reset { applied, discard } = self.machine.persisted() {
                self.files.remove(&applied.index);
                if discard {
                    self.files.clear();
                }
            }
        }

        /// The process ends and starts again, with what the log says.
        fn crash(&mut self) {
            self.batch = None;
            let mark = self.mark;
            self.files.retain(|index| Some(*index) == mark);
            self.machine = mark.map_or_else(Installation::default, |index| Installation::resuming(at(index)));
        }

        fn check(&self) {
            assert!(self.mark.is_none_or(|mark| self.files.contains(&mark)), "a mark without its file: {self:?}");
            let rows_are_the_logs = self.rows_at == self.log_from;
            let rows_are_marked = self.mark == Some(self.rows_at);
            assert!(rows_are_the_logs || rows_are_marked, "rows that the log does not know: {self:?}");
            assert!(self.rows_at >= self.log_from, "a log over rows that are not in place: {self:?}");
        }
    }

    #[test]
    fn a_crash_at_every_stage_of_every_sequence_leaves_the_old_or_leads_to_the_new() {
        let (mut seen, mut waiting) = (BTreeSet::new(), VecDeque::from([World::new()]));
        let (mut crashed_at, mut in_place) = (BTreeSet::new(), BTreeSet::new());
        while let Some(world) = waiting.pop_front() {
            if !seen.insert(format!("{world:?}")) {
                continue;
            }
            world.check();
            let mut crashed = world.clone();
            crashed.crash();
            crashed_at.insert(world.machine.stage());
            // Whatever was begun comes to its end after it, and what was not is as if it had never been.
            match crashed.machine.stage() {
                None => assert_eq!(crashed.rows_at, crashed.log_from, "{world:?}"),
                Some(_) => {
                    let mark = crashed.mark;
                    let Synced::Reset { applied, .. } = finish(&mut crashed.machine) else {
                        panic!("no end: {world:?}")
                    };
                    assert_eq!(Some(applied.index), mark);
                }
            }
            if world.machine.stage().is_none() {
                in_place.insert(world.rows_at);
            }
            waiting.extend(world.next());
        }
        assert_eq!(crashed_at, all().collect());
        assert_eq!(in_place, BTreeSet::from([Index(1), FIRST, SECOND]));
    }
}
