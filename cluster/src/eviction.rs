//! Kept results of commands go when their time is over, the oldest ids first, and a floor rises over them: an id
//! below it that has no row is answered *unknown*, so that a late copy of an evicted command is never carried
//! out a second time.
//!
//! The time is that of the partition's own log: no clock is asked. Whoever owns the partition's rows (mailbox 0)
//! proposes an eviction while nothing else of theirs is in flight.

use std::time::Duration;

use crate::plant::{self, Fault};
use mailraft_storage::entry::RowsBody;
use mailraft_storage::{
    CommandFloor, CommandId, EntryKind, Incarnation, MailboxId, Proposal, ReplicaId, RowKey, Rows, StoreError, Table,
    Term, UnixMillis,
};

/// How long a result is kept unless configured otherwise: longer than any session or queue repeats a command, and
/// than the day in which a delivery is recognised by its content, with as much again for clocks that differ.
pub const RESULTS_KEPT: Duration = Duration::from_secs(48 * 3_600);
/// Results that one entry evicts; its deletions take about 100 KiB.
pub const EVICTED_MAX_ROWS: usize = 2_000;

/// Rows read at once.
const PAGE_ROWS: usize = 250;

/// What one entry evicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// How many results.
    pub evicted: usize,
    /// Where the next one goes on.
    pub next: CommandId,
    /// Whether more may be due already.
    pub more: bool,
    body: RowsBody,
}

impl Eviction {
    /// The entry, for the owner of the partition's rows in this term.
    pub fn proposal(self, incarnation: Incarnation, term: Term) -> Proposal {
        Proposal {
            incarnation,
            term,
            mailbox: MailboxId::PARTITION,
            command: CommandId::default(),
            kind: EntryKind::Rows(self.body),
        }
    }
}

/// The results of a partition that are older than `kept` at the stamp of its last entry, at most `limit` of them,
/// beginning with the id `from`. None if there are none.
///
/// # Errors
/// If the rows can't be read or are damaged.
pub fn evict(
    rows: &dyn Rows,
    replica: ReplicaId,
    from: CommandId,
    kept: Duration,
    limit: usize,
) -> Result<Option<Eviction>, StoreError> {
    let Some(applied) = rows.applied(replica)? else { return Ok(None) };
    let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    let kept = if plant::is(Fault::EvictEarly) { kept / 8 } else { kept };
    let ahead = plant::is(Fault::EvictByClock);
    let before = UnixMillis(if ahead { u64::MAX } else { applied.stamp.0.saturating_sub(kept) });
    let mut ids = Vec::new();
    let mut next = from;
    let more = loop {
        let page = PAGE_ROWS.min(limit.saturating_sub(ids.len()));
        if page == 0 {
            break true;
        }
        let found = rows.scan(replica, MailboxId::PARTITION, Table::Commands, &[], &next.0, page)?;
        let whole = found.len() == page;
        let mut due = true;
        for (key, _) in found {
            let id = <[u8; 16]>::try_from(key).map(CommandId);
            let id = id.map_err(|_| StoreError::damaged("command row", "its key is no command id"))?;
            due = id.time() < before;
            if !due {
                break;
            }
            next = after(id);
            ids.push(id);
        }
        if !due || !whole {
            break false;
        }
    };
    let Some(last) = ids.last() else { return Ok(None) };
    let mut body = RowsBody::default();
    // A copy of this entry that was decided on older rows finds its last row gone: so the floor never falls.
    body.requires.push(RowKey::command(*last));
    let floor = CommandFloor::read(rows, replica)?.max(CommandFloor(next));
    if !ahead && !plant::is(Fault::EvictionRaisesNoFloor) {
        body.batch.put(CommandFloor::key(), floor.encode());
    }
    ids.iter().for_each(|id| body.batch.delete(RowKey::command(*id)));
    Ok(Some(Eviction { evicted: ids.len(), next, more, body }))
}

/// The next id in order.
fn after(id: CommandId) -> CommandId {
    CommandId(u128::from_be_bytes(id.0).saturating_add(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::{BTreeMap, BTreeSet};

    use bytes::Bytes;
    use mailraft_storage::entry::EntryHeader;
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;
    use mailraft_storage::{Applied, ClusterId, Entry, Index, RowBatch, Verdict};
    use proptest::prelude::*;
    use raft::eraftpb;

    use super::*;
    use crate::apply::apply;
    use crate::seam::ApplyJob;

    const R: ReplicaId = ReplicaId(1);
    const BORN: Incarnation = Incarnation { number: 1, nonce: [9; 16] };
    const TERM: Term = Term(2);
    const KEPT: Duration = Duration::from_millis(1_000);

    /// A replica, and how often each command was carried out.
    struct Partition {
        rows: MemoryRows,
        done: BTreeMap<CommandId, usize>,
    }

    impl Partition {
        fn new() -> Self {
            let rows = MemoryRows::new();
            let applied = Applied { incarnation: Some(BORN), voters: vec![R], ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: R, batch: RowBatch::default(), applied }]).unwrap();
            Partition { rows, done: BTreeMap::new() }
        }

        fn apply(&self, stamp: u64, mailbox: MailboxId, kind: EntryKind) -> Verdict {
            let index = self.rows.applied(R).unwrap().unwrap().index.0 + 1;
            let header = EntryHeader {
                cluster: ClusterId([1; 16]),
                incarnation: BORN,
                mailbox,
                decided_in: TERM,
                command: CommandId::default(),
                stamp: UnixMillis(stamp),
                required_flags: 0,
                needs_control: Index(0),
                confirmed: Index(0),
                mode: 0,
            };
            let data = Entry { header, kind }.encode().into();
            let raw = eraftpb::Entry { index, term: TERM.0, data, ..Default::default() };
            let job = ApplyJob { replica: R, entries: vec![(raw, None)] };
            apply(&self.rows, &[job]).unwrap()[0].verdicts[0].1
        }

        /// What an owner does with a command that comes for the first time or again.
        fn command(&mut self, stamp: u64, id: CommandId) -> Outcome {
            if self.rows.get(R, &RowKey::command(id)).unwrap().is_some() {
                return Outcome::Kept;
            }
            if self.floor().is_above(id) {
                return Outcome::Unknown;
            }
            let body = RowsBody { results: vec![(id, Bytes::from_static(b"done"))], ..RowsBody::default() };
            assert_eq!(self.apply(stamp, MailboxId([2; 16]), EntryKind::Rows(body)), Verdict::Accepted);
            *self.done.entry(id).or_default() += 1;
            Outcome::Done
        }

        fn floor(&self) -> CommandFloor {
            CommandFloor::read(&self.rows, R).unwrap()
        }

        fn eviction(&self, from: CommandId, limit: usize) -> Option<Eviction> {
            evict(&self.rows, R, from, KEPT, limit).unwrap()
        }

        fn carry_out(&self, eviction: Eviction) -> Verdict {
            let proposal = eviction.proposal(BORN, TERM);
            self.apply(0, proposal.mailbox, proposal.kind)
        }

        fn kept(&self) -> BTreeSet<CommandId> {
            let found = self.rows.scan(R, MailboxId::PARTITION, Table::Commands, &[], &[], usize::MAX).unwrap();
            found.into_iter().map(|(key, _)| CommandId(key.try_into().unwrap())).collect()
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Outcome {
        Done,
        Kept,
        Unknown,
    }

    fn id(at: u64, number: u128) -> CommandId {
        CommandId::v7(UnixMillis(at), number)
    }

    const FIRST: CommandId = CommandId([0; 16]);

    #[test]
    fn what_is_older_than_the_last_entry_by_the_time_goes_and_nothing_else() {
        // The stamp of the last entry, and which of the ids of the times 1000, 2000, 2001 and 9000 go.
        for (stamp, evicted) in [(0, 0), (1_999, 0), (2_000, 0), (2_001, 1), (3_000, 1), (3_001, 2), (3_002, 3)] {
            let mut partition = Partition::new();
            for at in [1_000, 2_000, 2_001, 9_000] {
                assert_eq!(partition.command(stamp, id(at, 1)), Outcome::Done);
            }
            let eviction = partition.eviction(FIRST, 10);
            assert_eq!(eviction.as_ref().map_or(0, |e| e.evicted), evicted, "{stamp}");
            let Some(eviction) = eviction else { continue };
            assert!(!eviction.more);
            assert_eq!(partition.carry_out(eviction), Verdict::Accepted);
            assert_eq!(partition.kept().len(), 4 - evicted, "{stamp}");
            assert_eq!(partition.eviction(FIRST, 10), None);
        }
    }

    #[test]
    fn a_partition_without_rows_has_nothing_to_evict() {
        assert_eq!(Partition::new().eviction(FIRST, 10), None);
        assert_eq!(evict(&MemoryRows::new(), R, FIRST, KEPT, 10).unwrap(), None);
    }

    #[test]
    fn an_entry_evicts_so_many_and_the_next_goes_on_behind_them() {
        let mut partition = Partition::new();
        for number in 0..(2 * PAGE_ROWS as u64 + 7) {
            partition.command(9_000, id(number, 1));
        }
        let (mut from, mut sizes) = (FIRST, Vec::new());
        loop {
            let Some(eviction) = partition.eviction(from, PAGE_ROWS + 1) else { break };
            let (next, more) = (eviction.next, eviction.more);
            sizes.push(eviction.evicted);
            assert_eq!(partition.carry_out(eviction), Verdict::Accepted);
            assert_eq!(partition.floor(), CommandFloor(next));
            from = next;
            if !more {
                break;
            }
        }
        assert_eq!((sizes, partition.kept().len()), (vec![PAGE_ROWS + 1, PAGE_ROWS + 1, 5], 0));
    }

    #[test]
    fn an_eviction_decided_on_older_rows_changes_nothing() {
        let mut partition = Partition::new();
        (0..4).for_each(|n| assert_eq!(partition.command(9_000, id(n, 1)), Outcome::Done));
        let (older, newer) = (partition.eviction(FIRST, 2).unwrap(), partition.eviction(FIRST, 4).unwrap());
        let floor_of = newer.next;
        assert_eq!(partition.carry_out(newer), Verdict::Accepted);
        assert_eq!(partition.carry_out(older), Verdict::Missing);
        assert_eq!(partition.floor(), CommandFloor(floor_of));
    }

    #[test]
    fn a_damaged_floor_is_damage_and_does_not_fall() {
        let mut partition = Partition::new();
        partition.command(9_000, id(500, 1));
        for row in [&[][..], &[1], &[1, 0xff, 0xff], &[0xff; 16]] {
            let mut body = RowsBody::default();
            body.batch.put(CommandFloor::key(), row.to_vec());
            partition.apply(9_000, MailboxId::PARTITION, EntryKind::Rows(body));
            let found = evict(&partition.rows, R, FIRST, KEPT, 10);
            assert!(found.is_err(), "{row:?}: {found:?}");
        }
    }

    #[test]
    fn a_row_that_came_in_below_the_floor_goes_and_leaves_the_floor_where_it_is() {
        let mut partition = Partition::new();
        partition.command(9_000, id(500, 1));
        partition.carry_out(partition.eviction(FIRST, 10).unwrap());
        let before = partition.floor();
        // Decided before the floor rose, applied after it.
        let body = RowsBody { results: vec![(id(400, 1), Bytes::new())], ..RowsBody::default() };
        partition.apply(9_000, MailboxId([2; 16]), EntryKind::Rows(body));
        assert_eq!(partition.eviction(before.0, 10), None);
        assert_eq!(partition.carry_out(partition.eviction(FIRST, 10).unwrap()), Verdict::Accepted);
        assert_eq!((partition.kept().len(), partition.floor()), (0, before));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Command { lag: u64, number: u128 },
        Repeat { which: usize },
        Evict { limit: usize, lost: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..3_000, any::<u128>()).prop_map(|(lag, number)| Step::Command { lag, number }),
            4 => any::<usize>().prop_map(|which| Step::Repeat { which }),
            2 => (1usize..6, any::<bool>()).prop_map(|(limit, lost)| Step::Evict { limit, lost }),
        ]
    }

    proptest! {
        #[test]
        fn no_command_is_carried_out_twice_and_none_is_forgotten_early(steps in prop::collection::vec(step(), 1..80)) {
            let mut partition = Partition::new();
            let (mut sent, mut highest, mut delayed) = (Vec::new(), CommandFloor::default(), None);
            for (at, step) in steps.into_iter().enumerate() {
                let stamp = 5_000 + 300 * at as u64;
                match step {
                    // By the clock of its session, which may be far behind.
                    Step::Command { lag, number } => {
                        let id = id(stamp - lag, number);
                        let said = partition.command(stamp, id);
                        prop_assert!(said == Outcome::Done || highest.is_above(id));
                        sent.push(id);
                    }
                    Step::Repeat { which } if !sent.is_empty() => {
                        let id = sent[which % sent.len()];
                        partition.command(stamp, id);
                    }
                    Step::Repeat { .. } => {}
                    Step::Evict { limit, lost } => {
                        let before = partition.kept();
                        let now = partition.rows.applied(R).unwrap().unwrap().stamp.0;
                        if let Some(eviction) = partition.eviction(FIRST, limit) {
                            if lost {
                                delayed = Some(eviction);
                                continue;
                            }
                            prop_assert_eq!(partition.carry_out(eviction), Verdict::Accepted);
                            for id in before.difference(&partition.kept()) {
                                prop_assert!(id.time().0 + 1_000 < now);
                                prop_assert!(partition.floor().is_above(*id));
                            }
                        }
                        if let Some(old) = delayed.take() {
                            partition.carry_out(old);
                        }
                    }
                }
                let floor = partition.floor();
                prop_assert!(floor >= highest, "the floor fell");
                highest = floor;
                prop_assert!(partition.done.values().all(|times| *times == 1));
            }
        }
    }
}
