//! Whether this replica's answers wait for other regions: how its leader follows the control group's row, by [`crate::mode`].

use std::collections::VecDeque;

use mailraft_storage::entry::{EntryHeader, MODE_ALONE, MODE_WAITS, RowsBody};
use mailraft_storage::{
    CommandId, Entry, EntryKind, Index, MailboxId, PartitionId, Proposal, RowBatch, Term, UnixMillis,
};
use raft::eraftpb;
use raft::{GetEntriesContext, StateRole};

use super::Replica;
use crate::config::NodeConfig;
use crate::mode::{Mode, ModeReport, ModeRow, PartitionMode};
use crate::plant::{self, Fault};
use crate::regions::Regions;
use crate::status::ModeStatus;

/// Among so many entries one is looked for that has a time. Those of elections have none.
const LOOKED_AT_MAX: u64 = 256;

/// What one replica knows of its mode.
#[derive(Default)]
pub(super) struct Modes {
    /// What is applied of its log says this, by an entry that stands no later than there.
    recorded: PartitionMode,
    recorded_at: Index,
    /// What is committed and not applied yet says so.
    committed: VecDeque<(Index, PartitionMode)>,
    /// The term in which this leader appended something about it, and the version.
    appended: Option<(Term, u64)>,
    /// Where the log ended a moment ago, and whether other regions hold all that.
    mark: Index,
    caught_up: bool,
    /// Answers that were given alone since this process started.
    told_alone: u64,
}

impl Modes {
    pub fn new(recorded: PartitionMode, applied: Index) -> Self {
        Modes { recorded, recorded_at: applied, ..Modes::default() }
    }

    /// An entry is committed.
    pub fn committed(&mut self, index: Index, mode: PartitionMode) {
        let before = self.committed.back().map_or(self.recorded.version, |(_, mode)| mode.version);
        assert!(mode.version > before, "entry {index} says of version {} what follows {before}", mode.version);
        self.committed.push_back((index, mode));
    }

    /// Entries up to here are applied.
    fn applied(&mut self, upto: Index) {
        while let Some((index, mode)) = self.committed.pop_front_if(|(index, _)| *index <= upto) {
            (self.recorded, self.recorded_at) = (mode, index);
        }
    }
}

impl Replica {
    /// A snapshot's rows are in place.
    pub(super) fn finds_mode(&mut self, mode: PartitionMode) {
        let applied = self.raw.store().applied().index;
        self.modes.committed.retain(|(index, _)| *index > applied);
        (self.modes.recorded, self.modes.recorded_at) = (mode, applied);
    }

    /// What its rows say.
    pub(super) fn recorded_mode(&self) -> PartitionMode {
        self.modes.recorded
    }

    /// Entries up to here are applied.
    pub(super) fn applies_modes(&mut self, upto: Index) {
        self.modes.applied(upto);
    }

    /// The control group's row says this from a position no later than this one.
    pub(super) fn hears_mode_row(&mut self, regions: &Regions, applied: Index) {
        let news = self.abroad.regions().is_none_or(|before| before.mode() != regions.mode());
        if news {
            // Answers may wait for others than before.
            (self.modes.mark, self.modes.caught_up) = (Index(0), false);
        }
        if news && self.spec.partition == PartitionId::CONTROL {
            self.modes.recorded_at = applied;
        }
    }

    /// The mode that a committed entry writes, if it does.
    pub(super) fn mode_of(entry: &eraftpb::Entry, header: &EntryHeader) -> Option<PartitionMode> {
        if header.mode == 0 || header.decided_in.0 != entry.term {
            return None;
        }
        match Entry::decode(&entry.data).ok()?.kind {
            EntryKind::Rows(body) => PartitionMode::of_batch(&body.batch).ok()?,
            EntryKind::Begin | EntryKind::Chunk(_) | EntryKind::Takeover(_) => None,
        }
    }

    /// What the log says, as far as it is applied.
    fn recorded(&self) -> PartitionMode {
        match self.abroad.regions() {
            Some(regions) if self.spec.partition == PartitionId::CONTROL => regions.mode().of_control(),
            Some(_) | None => self.modes.recorded,
        }
    }

    /// Whether this leader answers what other regions do not hold.
    pub(super) fn is_alone(&self) -> bool {
        let Some(regions) = self.abroad.regions().filter(|_| self.lead.term.is_some()) else { return false };
        self.recorded().is_alone(regions.mode())
    }

    /// Whether its term begins with what no other region holds.
    pub(super) fn begins_alone(&self) -> bool {
        self.abroad.regions().is_some_and(|regions| self.held(regions) < self.lead.first)
    }

    /// Counts answers of which so many are above what other regions hold.
    pub(super) fn told_alone(&mut self, count: usize) {
        self.modes.told_alone += count as u64;
    }

    pub(super) fn answers_alone(&self) -> u64 {
        self.modes.told_alone
    }

    /// The mode, for operators; only the leader knows.
    pub(super) fn mode_status(&self) -> Option<ModeStatus> {
        let regions = self.abroad.regions().filter(|_| self.lead.term.is_some())?;
        let ModeRow { version, mode, since, unheld: _ } = *regions.mode();
        Some(ModeStatus { version, mode, since, alone: self.is_alone() })
    }

    /// Whether it leads, and knows all that is in its log.
    pub(super) fn leads_surely(&self) -> Option<Term> {
        let applied = self.raw.store().applied();
        let leads = self.raw.raft.state == StateRole::Leader && !self.is_installing();
        self.lead.term.filter(|term| leads && applied.term == *term && self.is_established())
    }

    /// What is to be appended about the mode: everything before in the log is applied, and so is the row.
    fn mode_is_due(&self) -> Option<(Term, PartitionMode)> {
        let regions = self.abroad.regions()?;
        if self.spec.partition == PartitionId::CONTROL {
            return None;
        }
        let term = self.leads_surely()?;
        let row = match plant::is(Fault::AloneBeforeRow) && self.degrades(regions) {
            true => regions.mode().next(Mode::Alone, self.newest_stamp()),
            false => *regions.mode(),
        };
        let due = self.recorded().follows(&row)?;
        self.modes.appended.is_none_or(|(of, version)| of != term || version < due.version).then_some((term, due))
    }

    /// Whether other regions have not confirmed for so long that the home may go on alone.
    fn degrades(&self, regions: &Regions) -> bool {
        regions.degrade_after().is_some_and(|after| self.unconfirmed() >= after)
    }

    /// Whether something is to be appended about the mode that could not be before.
    pub(super) fn awaits_mode(&self) -> bool {
        self.mode_is_due().is_some()
    }

    /// Appends what the control group's row says, if it is a later version than the log's; whether it did.
    pub(super) fn follows_mode(&mut self, config: &NodeConfig, time: Option<UnixMillis>) -> bool {
        let Some(((term, due), wall)) = self.mode_is_due().zip(time) else { return false };
        let mode = if due.alone { MODE_ALONE } else { MODE_WAITS };
        let appended = self.append_own(config, wall, term, due.batch(), mode).is_some();
        if appended {
            self.modes.appended = Some((term, due.version));
        }
        appended
    }

    /// As the control group's leader, appends its next row. It is no owner's entry, and waits for no slot: what has the
    /// slot may be what waits for another region.
    pub fn append_mode_row(&mut self, config: &NodeConfig, wall: UnixMillis, row: &ModeRow) {
        let Some(term) = self.leads_surely().filter(|term| !self.has_appended_mode(*term, row.version)) else {
            return;
        };
        if self.append_own(config, wall, term, row.batch(), 0).is_some() {
            self.appends_mode(term, row.version);
        }
    }

    /// Whether this control group's leader has appended a row of this version in its term.
    pub(super) fn has_appended_mode(&self, term: Term, version: u64) -> bool {
        self.modes.appended == Some((term, version))
    }

    /// It has.
    pub(super) fn appends_mode(&mut self, term: Term, version: u64) {
        self.modes.appended = Some((term, version));
    }

    /// Appends rows that the core writes by itself, as no owner's entry. None if that can't be now.
    pub(super) fn append_own(
        &mut self,
        config: &NodeConfig,
        wall: UnixMillis,
        term: Term,
        batch: RowBatch,
        mode: u8,
    ) -> Option<Index> {
        let incarnation = self.raw.store().applied().incarnation?;
        let kind = EntryKind::Rows(RowsBody { batch, ..RowsBody::default() });
        let (mailbox, command) = (MailboxId::PARTITION, CommandId::default());
        let proposal = Proposal { incarnation, term, mailbox, command, kind };
        if self.raw.raft.lead_transferee.is_some() {
            return None;
        }
        self.append_with(config, wall, proposal, mode)
    }

    /// Looks, once a second, whether other regions hold what was the end of the log a second ago, and are heard: what is not
    /// written is held by whoever is away.
    pub(super) fn looks_whether_caught_up(&mut self) {
        let Some(regions) = self.abroad.regions().cloned() else { return };
        let held = self.held(&regions);
        let Some(first) = self.lead.term.map(|_| self.lead.first) else {
            (self.modes.mark, self.modes.caught_up) = (Index(0), false);
            return;
        };
        self.modes.caught_up = self.modes.mark >= first && held >= self.modes.mark && self.are_regions_heard();
        self.modes.mark = Index(self.raw.raft.raft_log.last_index());
    }

    /// Every region that answers wait for holds all that was appended longer ago than so many milliseconds, if this leads and
    /// knows that. What was answered ahead of them is no older, whoever led then and however long nobody has been answered.
    pub fn held_but_ms(&self, wall: UnixMillis) -> Option<u64> {
        let first = self.leads_surely().map(|_| self.lead.first)?;
        let (held, log) = (self.held_everywhere(), &self.raw.raft.raft_log);
        if held.0 >= log.last_index() {
            return Some(0);
        }
        if held.0 + 1 >= first.0 {
            return Some(self.unheld_ms());
        }
        // How long ago it was applied this leader has not seen. Nor does the log say it whose clock is ahead of the wall's, as it
        // stays once clocks were that had to be set right.
        let upto = log.last_index().min(held.0 + LOOKED_AT_MAX);
        let stamp = (held.0 + 1..=upto).find_map(|index| {
            let page = log.entries(index, Some(1), GetEntriesContext::empty(false)).ok()?;
            let entry = page.first().filter(|entry| entry.index == index && !entry.data.is_empty())?;
            EntryHeader::of(&entry.data).ok().map(|header| header.stamp)
        })?;
        wall.0.checked_sub(stamp.0)
    }

    /// What the control group's leader is told of this partition, if it is led here.
    pub fn mode_report(&self) -> Option<ModeReport> {
        self.leads_surely()?;
        let regions = self.abroad.regions()?;
        let recorded = self.recorded();
        Some(ModeReport {
            partition: self.spec.partition,
            version: recorded.version,
            waits_and_held: !recorded.alone && self.held(regions) >= self.modes.recorded_at,
            caught_up: self.modes.caught_up,
            unconfirmed_ms: u64::try_from(self.unconfirmed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}
