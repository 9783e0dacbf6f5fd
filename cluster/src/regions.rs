//! Regions: where nodes stand, whom an answer waits for, and how far a region holds a log.
//!
//! Voters of every Raft group stand in the home region; so distance changes neither commit nor election. A backup region
//! has *standbys*: learners that count for answers. It *holds* an index when a majority of its standbys of that group have
//! it synced. A takeover elects among all standbys of the region and needs a majority of them, so it meets every
//! majority that held something: what is held is not lost with the home.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{
    CommandId, Incarnation, Index, LogPosition, MailboxId, NodeId, PartitionId, ReplicaId, RowBatch, RowKey, Rows,
    StoreError, Table, UnixMillis,
};
use serde::{Deserialize, Serialize};

use crate::mode::ModeRow;
use crate::placement::{self, Placement};
use crate::plant::{self, Fault};
use crate::taken_over::INCARNATION_MAX;

const ROW_VERSION: u8 = 2;
/// The newest version in which the row does not say what happens while other regions do not confirm.
const ROW_WITHOUT_UNCONFIRMED: u8 = 1;
const TAKEOVER_ROW_VERSION: u8 = 1;
/// How keys of these rows among [`Table::Regions`] begin; then comes the number of the incarnation (4).
const TAKEOVER_KEY: u8 = 2;
const CHANGES_ROW_VERSION: u8 = 1;
/// Where the [`ChangesRow`] stands among [`Table::Regions`].
const CHANGES_KEY: [u8; 1] = [3];
/// Changes of settings whose ids are remembered.
pub const CHANGES_KEPT_MAX: usize = 64;
/// After how long without confirmation the home goes on alone, unless it is set otherwise, in milliseconds.
pub const DEGRADE_AFTER_MS: u64 = 60_000;
/// Bounds of [`RegionsRow::degrade_after_ms`].
pub const DEGRADE_AFTER_MS_RANGE: RangeInclusive<u64> = 1_000..=7 * 24 * 3_600_000;
/// Bounds of [`Durability::Region::rpo_max_ms`].
pub const RPO_MAX_MS_RANGE: RangeInclusive<u64> = 50..=24 * 3_600_000;

/// The name of a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionName(pub String);

/// What is promised about what is answered, should the home region be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// Nothing answered is lost: an answer waits until every region of the sync set holds it.
    Geo,
    /// At most so much of what was answered last is lost: past that answers wait as under `Geo`.
    Region {
        /// In milliseconds.
        rpo_max_ms: u64,
    },
}

impl Durability {
    /// For how long answers may run ahead of what is held, if they may.
    pub fn rpo_max(self) -> Option<Duration> {
        match self {
            Durability::Geo => None,
            Durability::Region { rpo_max_ms } => Some(Duration::from_millis(rpo_max_ms)),
        }
    }

    /// For how long they may at most.
    pub fn may_run_ahead(self) -> Duration {
        self.rpo_max().unwrap_or_default()
    }
}

/// What happens to new writes while a region that answers wait for confirms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unconfirmed {
    /// They are refused, and after a time the home goes on alone.
    Degrade,
    /// They are refused until the region confirms again.
    Refuse,
}

/// The control group's row about regions. A cluster without it has one region, and no answer waits for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionsRow {
    /// The region in which every voter stands.
    pub home: RegionName,
    /// The regions that answers wait for.
    pub sync_set: BTreeSet<RegionName>,
    /// What is promised.
    pub durability: Durability,
    /// What happens while they do not confirm.
    pub unconfirmed: Unconfirmed,
    /// Under [`Unconfirmed::Degrade`], after how long without confirmation the home goes on alone, in milliseconds.
    pub degrade_after_ms: u64,
}

/// The row before it said what happens while other regions do not confirm.
#[derive(Deserialize)]
struct RowWithoutUnconfirmed {
    home: RegionName,
    sync_set: BTreeSet<RegionName>,
    durability: Durability,
}

impl RegionsRow {
    /// Answers of this home wait for these regions; what happens while they do not confirm is as a cluster begins.
    pub fn new(home: RegionName, sync_set: BTreeSet<RegionName>, durability: Durability) -> Self {
        let (unconfirmed, degrade_after_ms) = (Unconfirmed::Degrade, DEGRADE_AFTER_MS);
        RegionsRow { home, sync_set, durability, unconfirmed, degrade_after_ms }
    }

    /// Reads it, in whichever version it was written.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.first() == Some(&ROW_WITHOUT_UNCONFIRMED) {
            let row: RowWithoutUnconfirmed = versioned_decode("regions row", ROW_WITHOUT_UNCONFIRMED, bytes)?;
            return Ok(RegionsRow::new(row.home, row.sync_set, row.durability));
        }
        versioned_decode("regions row", ROW_VERSION, bytes)
    }

    /// The row of a cluster of several regions, by the rows of the control group's replica here.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(rows: &dyn Rows, control: ReplicaId) -> Result<Option<Self>, StoreError> {
        rows.get(control, &row_key())?.map(|row| RegionsRow::decode(&row)).transpose()
    }

    /// What a batch of rows makes of it, if it does.
    ///
    /// # Errors
    /// If that can't be read.
    pub fn of_batch(batch: &RowBatch) -> Result<Option<Self>, StoreError> {
        let own = row_key();
        batch.puts.iter().find(|(key, _)| *key == own).map(|(_, row)| RegionsRow::decode(row)).transpose()
    }

    /// As an administrator wants it. What is not said stays.
    ///
    /// # Errors
    /// Why that can't be, for people.
    pub fn changed(mut self, settings: &RegionSettings) -> Result<Self, String> {
        if let Some(durability) = settings.durability {
            let within = |ms| RPO_MAX_MS_RANGE.contains(&ms);
            match durability {
                Durability::Region { rpo_max_ms } if !within(rpo_max_ms) => {
                    let (least, most) = (RPO_MAX_MS_RANGE.start(), RPO_MAX_MS_RANGE.end());
                    return Err(format!("rpo_max is between {least} and {most} ms, not {rpo_max_ms} ms"));
                }
                Durability::Geo | Durability::Region { .. } => self.durability = durability,
            }
        }
        self.unconfirmed = settings.unconfirmed.unwrap_or(self.unconfirmed);
        if let Some(ms) = settings.degrade_after_ms {
            if !DEGRADE_AFTER_MS_RANGE.contains(&ms) {
                let (least, most) = (DEGRADE_AFTER_MS_RANGE.start(), DEGRADE_AFTER_MS_RANGE.end());
                return Err(format!("degrade_after is between {least} and {most} ms, not {ms} ms"));
            }
            self.degrade_after_ms = ms;
        }
        match &settings.sync_set {
            None => {}
            Some(SyncSetChange::Remove(region)) => drop(self.sync_set.remove(region)),
            Some(SyncSetChange::Add(region)) if self.sync_set.contains(region) => {}
            Some(SyncSetChange::Add(_)) if self.unconfirmed == Unconfirmed::Refuse => {
                return Err("under refuse all new mail would be deferred until that region has everything: set \
                            --unconfirmed degrade first"
                    .to_owned());
            }
            Some(SyncSetChange::Add(region)) => drop(self.sync_set.insert(region.clone())),
        }
        Ok(self)
    }
}

/// What an administrator changes of the [`RegionsRow`]. What is None stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionSettings {
    /// What is promised.
    pub durability: Option<Durability>,
    /// What happens while other regions do not confirm.
    pub unconfirmed: Option<Unconfirmed>,
    /// After how long without confirmation the home goes on alone, in milliseconds.
    pub degrade_after_ms: Option<u64>,
    /// A region that answers wait for from now on, or no more.
    pub sync_set: Option<SyncSetChange>,
}

/// A change of whom answers wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncSetChange {
    /// They wait for this region once it holds everything: until then the home is alone.
    Add(RegionName),
    /// They wait for this region no more, and it protects nothing. It is lost, or given up.
    Remove(RegionName),
}

/// A change of settings that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    /// Whoever sends it again, to whichever node, gives it the same id, and it is made once.
    pub id: CommandId,
    /// Where it stands in the control group's log.
    pub index: Index,
    /// What was to change.
    pub settings: RegionSettings,
}

/// The control group's row about the last changes of settings, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesRow(VecDeque<SettingsChange>);

/// Why settings are not changed. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SettingsRefusal {
    /// All nodes stand in one region.
    #[error("this cluster has one region: there is nothing to set before nodes stand in a second one")]
    OneRegion,
    /// The settings can't be.
    #[error("{0}")]
    BadSettings(String),
    /// The id was used for another change.
    #[error(
        "this id belongs to another change, which it was given first: nothing was done; leave the id out, or draw a new one"
    )]
    IdIsTaken,
}

impl ChangesRow {
    /// The control group's row here.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(rows: &dyn Rows, control: ReplicaId) -> Result<Self, StoreError> {
        let row = rows.get(control, &RowKey::partition(Table::Regions, CHANGES_KEY))?;
        Ok(row.map(|row| versioned_decode("changes row", CHANGES_ROW_VERSION, &row)).transpose()?.unwrap_or_default())
    }

    /// The change of this id, if it was made and is remembered.
    pub fn made(&self, id: CommandId) -> Option<&SettingsChange> {
        self.0.iter().find(|change| change.id == id)
    }

    /// All of them, the newest last.
    pub fn iter(&self) -> impl Iterator<Item = &SettingsChange> {
        self.0.iter()
    }

    /// Where the newest change of the durability stands, of those that are remembered.
    pub fn newest_durability(&self) -> Option<Index> {
        self.0.iter().rev().find(|change| change.settings.durability.is_some()).map(|change| change.index)
    }

    /// The newest change.
    pub fn newest(&self) -> Option<&SettingsChange> {
        self.0.back()
    }

    /// With one more; the oldest is forgotten past [`CHANGES_KEPT_MAX`].
    #[must_use]
    pub fn with(mut self, change: SettingsChange) -> Self {
        if self.0.len() >= CHANGES_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(change);
        self
    }

    /// Adds it to a batch.
    pub(crate) fn write(&self, batch: &mut RowBatch) {
        batch.put(RowKey::partition(Table::Regions, CHANGES_KEY), versioned_encode(CHANGES_ROW_VERSION, self));
    }
}

/// What a core knows of regions: the control group's row, and where each node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    row: RegionsRow,
    mode: ModeRow,
    changes: ChangesRow,
    nodes: BTreeMap<NodeId, RegionName>,
    placements: BTreeMap<PartitionId, Placement>,
    takeovers: Vec<TakeoverRow>,
}

impl Regions {
    /// What the control group's rows say; None in a cluster of one region.
    ///
    /// # Errors
    /// If a row can't be read.
    pub fn from_rows(rows: &dyn Rows, control: ReplicaId) -> Result<Option<Self>, StoreError> {
        let Some(row) = RegionsRow::read(rows, control)? else { return Ok(None) };
        let nodes = placement::nodes(rows, control)?.into_iter().map(|node| (node.id, RegionName(node.region)));
        let placements = placement::placements(rows, control)?.into_iter().map(|p| (p.partition, p)).collect();
        let (mode, takeovers) = (ModeRow::read(rows, control)?, TakeoverRow::read_all(rows, control)?);
        let changes = ChangesRow::read(rows, control)?;
        Ok(Some(Regions { row, mode, changes, nodes: nodes.collect(), placements, takeovers }))
    }

    /// The same where other rows say what is promised.
    #[must_use]
    pub fn promising(&self, row: RegionsRow, mode: ModeRow) -> Self {
        Regions { row, mode, ..self.clone() }
    }

    /// The control group's row.
    pub fn row(&self) -> &RegionsRow {
        &self.row
    }

    /// Whether answers are to wait, as the control group says.
    pub fn mode(&self) -> &ModeRow {
        &self.mode
    }

    /// The last changes of what is promised.
    pub fn changes(&self) -> &ChangesRow {
        &self.changes
    }

    /// After how long without confirmation the home goes on alone, if it does.
    pub fn degrade_after(&self) -> Option<Duration> {
        match self.row.unconfirmed {
            Unconfirmed::Degrade => Some(Duration::from_millis(self.row.degrade_after_ms)),
            Unconfirmed::Refuse => None,
        }
    }

    /// All partitions, the control group among them.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionId> {
        self.placements.keys()
    }

    /// Whether there is such a partition.
    pub fn has(&self, partition: PartitionId) -> bool {
        self.placements.contains_key(&partition)
    }

    /// Where the replicas of each partition are.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.placements.values()
    }

    /// All takeovers so far, the newest last.
    pub fn takeovers(&self) -> &[TakeoverRow] {
        &self.takeovers
    }

    /// The region in which every voter stands.
    pub fn home(&self) -> &RegionName {
        &self.row.home
    }

    /// The regions that answers wait for.
    pub fn sync_set(&self) -> &BTreeSet<RegionName> {
        &self.row.sync_set
    }

    /// What is promised.
    pub fn durability(&self) -> Durability {
        self.row.durability
    }

    /// A row as an administrator wants it: as [`RegionsRow::changed`], and of regions that there are.
    ///
    /// # Errors
    /// Why that can't be, for people.
    pub fn changed(&self, row: RegionsRow, settings: &RegionSettings) -> Result<RegionsRow, String> {
        if let Some(SyncSetChange::Add(region) | SyncSetChange::Remove(region)) = &settings.sync_set {
            if *region == row.home {
                return Err(format!("{} is the home region, not a backup", region.0));
            }
            if !self.names().any(|name| name == region) {
                let all: Vec<&str> = self.names().map(|name| name.0.as_str()).collect();
                return Err(format!("there is no region {}: there are {}", region.0, all.join(", ")));
            }
        }
        if let Some(SyncSetChange::Add(region)) = &settings.sync_set
            && !self.has_standbys(region)
        {
            return Err(format!(
                "{} has no standbys, as another region took over from it: answers would wait for ever. No command makes a backup \
                 of it yet",
                region.0
            ));
        }
        if let Some(SyncSetChange::Remove(region)) = &settings.sync_set
            && !self.has_standbys(region)
        {
            return Err(format!(
                "nobody waits for {}: another region took over from it, and it has no standbys to take out",
                region.0
            ));
        }
        row.changed(settings)
    }

    /// Whether replicas stand in a region: not where another one took over from it.
    pub fn has_standbys(&self, region: &RegionName) -> bool {
        self.placements().flat_map(|placed| &placed.members).any(|member| self.of(member.node) == Some(region))
    }

    /// Every region in which a node stands, by name.
    pub fn names(&self) -> impl Iterator<Item = &RegionName> {
        self.nodes.values().collect::<BTreeSet<_>>().into_iter()
    }

    /// The region of a node, if it is known.
    pub fn of(&self, node: NodeId) -> Option<&RegionName> {
        self.nodes.get(&node)
    }

    /// Whether a node stands in the home region. One that is not known does not.
    pub fn is_home(&self, node: NodeId) -> bool {
        self.of(node) == Some(&self.row.home)
    }
}

/// Writes the row about regions into a batch.
pub fn write(batch: &mut RowBatch, row: &RegionsRow) {
    batch.put(row_key(), versioned_encode(ROW_VERSION, row));
}

/// Where the row stands among the control group's.
pub fn row_key() -> RowKey {
    RowKey { mailbox: MailboxId::PARTITION, table: Table::Regions.number(), key: Vec::new() }
}

/// Whether rows of these changed from which [`Regions`] are read. Only the control group has such rows.
pub fn are_among<T>(changed: &BTreeMap<RowKey, T>) -> bool {
    [Table::Nodes, Table::Placement, Table::Regions].into_iter().any(|table| {
        let first = RowKey { mailbox: MailboxId::PARTITION, table: table.number(), key: Vec::new() };
        let found = changed.range(&first..).next();
        found.is_some_and(|(key, _)| key.mailbox == first.mailbox && key.table == first.table)
    })
}

/// Up to where a region holds a log whose standbys there have synced so much each: a majority of them has it. A region
/// without standbys holds nothing.
pub fn held(mut synced: Vec<Index>) -> Index {
    synced.sort_unstable_by(|a, b| b.cmp(a));
    let place = if plant::is(Fault::HeldByOneStandby) { 0 } else { synced.len() / 2 };
    synced.get(place).copied().unwrap_or_default()
}

/// The control group's row about one takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverRow {
    /// The incarnation that began, of every partition.
    pub incarnation: Incarnation,
    /// The home region from then on.
    pub home: RegionName,
    /// The last position of the control group's log before it.
    pub fork: LogPosition,
    /// When its leader wrote that.
    pub since: UnixMillis,
    /// Who said so, for people.
    pub word: String,
}

impl TakeoverRow {
    /// All of them, the newest last.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn read_all(rows: &dyn Rows, control: ReplicaId) -> Result<Vec<Self>, StoreError> {
        let most = INCARNATION_MAX as usize;
        rows.scan(control, MailboxId::PARTITION, Table::Regions, &[TAKEOVER_KEY], &[], most)?
            .iter()
            .map(|(_, row)| versioned_decode("takeover row", TAKEOVER_ROW_VERSION, row))
            .collect()
    }

    /// Adds it.
    pub(crate) fn write(&self, batch: &mut RowBatch) {
        let key = [&[TAKEOVER_KEY][..], &self.incarnation.number.to_be_bytes()].concat();
        batch.put(RowKey::partition(Table::Regions, key), versioned_encode(TAKEOVER_ROW_VERSION, self));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;
    use mailraft_storage::{Applied, Term};

    use super::*;
    use crate::placement::NodeRow;

    #[test]
    fn a_region_holds_what_a_majority_of_its_standbys_have() {
        for (synced, expected) in [
            (&[][..], 0),
            (&[7], 7),
            (&[7, 3], 3),
            (&[9, 0, 4], 4),
            (&[9, 8, 0], 8),
            (&[5, 9, 1, 7], 5),
            (&[5, 9, 1, 7, 8], 7),
        ] {
            assert_eq!(held(synced.iter().copied().map(Index).collect()), Index(expected), "{synced:?}");
        }
    }

    #[test]
    fn where_nodes_stand_is_read_from_rows_and_a_cluster_without_the_row_has_no_regions() {
        let (rows, control) = (MemoryRows::new(), ReplicaId(1));
        let node = |id, region: &str| NodeRow {
            id: NodeId(id),
            name: String::new(),
            region: region.into(),
            zone: String::new(),
            peer: String::new(),
        };
        let mut batch = RowBatch::default();
        placement::write(&mut batch, &[node(1, "home"), node(2, "south")], &[]);
        let write = |index, batch| {
            let applied = Applied { index: Index(index), term: Term(1), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: control, batch, applied }]).unwrap();
        };
        write(1, batch);
        assert_eq!(Regions::from_rows(&rows, control).unwrap(), None);
        let name = |name: &str| RegionName(name.into());
        let row = RegionsRow::new(name("home"), [name("south")].into(), Durability::Region { rpo_max_ms: 1_000 });
        let mut batch = RowBatch::default();
        super::write(&mut batch, &row);
        write(2, batch);
        let regions = Regions::from_rows(&rows, control).unwrap().unwrap();
        assert_eq!(regions.sync_set(), &row.sync_set);
        assert_eq!(regions.durability().rpo_max(), Some(Duration::from_secs(1)));
        assert!(regions.is_home(NodeId(1)) && !regions.is_home(NodeId(2)) && !regions.is_home(NodeId(3)));
        assert_eq!((regions.of(NodeId(2)), regions.of(NodeId(3))), (Some(&name("south")), None));
    }
    #[test]
    fn a_row_is_read_in_every_version() {
        let name = |name: &str| RegionName(name.into());
        let first = b"\x01\x04home\x01\x05south\x01\xe8\x07";
        let row = RegionsRow::new(name("home"), [name("south")].into(), Durability::Region { rpo_max_ms: 1_000 });
        assert_eq!((row.unconfirmed, row.degrade_after_ms), (Unconfirmed::Degrade, 60_000));
        assert_eq!(RegionsRow::decode(first).unwrap(), row);
        let second = b"\x02\x04home\x01\x05south\x00\x01\xd0\x0f";
        let row = RegionsRow {
            durability: Durability::Geo,
            unconfirmed: Unconfirmed::Refuse,
            degrade_after_ms: 2_000,
            ..row
        };
        assert_eq!(RegionsRow::decode(second).unwrap(), row);
        let mut batch = RowBatch::default();
        super::write(&mut batch, &row);
        assert_eq!(batch.puts[0].1, second.as_slice());
        assert!(matches!(RegionsRow::decode(b"\x03"), Err(StoreError::Newer { .. })));
        assert!(matches!(RegionsRow::decode(b""), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn so_many_changes_are_remembered_and_read_for_ever() {
        let change = |n: u8| SettingsChange {
            id: CommandId([n; 16]),
            index: Index(u64::from(n)),
            settings: RegionSettings { unconfirmed: Some(Unconfirmed::Refuse), ..RegionSettings::default() },
        };
        let most = u8::try_from(CHANGES_KEPT_MAX).unwrap();
        let full = (0..=most).fold(ChangesRow::default(), |row, n| row.with(change(n)));
        assert_eq!(full.iter().count(), CHANGES_KEPT_MAX);
        assert_eq!((full.made(CommandId([0; 16])), full.made(CommandId([most; 16]))), (None, Some(&change(most))));
        let one = ChangesRow::default().with(change(7));
        let mut batch = RowBatch::default();
        one.write(&mut batch);
        let expected = [&[1, 1][..], &[7; 16], &[7, 0, 1, 1, 0, 0]].concat();
        assert_eq!(batch.puts[0].1, expected);
        let rows = MemoryRows::new();
        let applied = Applied { index: Index(1), ..Applied::default() };
        rows.write(&[ReplicaBatch { replica: ReplicaId(1), batch, applied }]).unwrap();
        assert_eq!(ChangesRow::read(&rows, ReplicaId(1)).unwrap(), one);
        assert_eq!(ChangesRow::read(&rows, ReplicaId(2)).unwrap(), ChangesRow::default());
    }

    #[test]
    fn settings_change_what_they_say_within_bounds() {
        let name = |name: &str| RegionName(name.into());
        let row = || RegionsRow::new(name("home"), [name("south")].into(), Durability::Geo);
        assert_eq!(row().changed(&RegionSettings::default()).unwrap(), row());
        let region = Durability::Region { rpo_max_ms: 2_000 };
        let settings = RegionSettings { durability: Some(region), ..RegionSettings::default() };
        assert_eq!(row().changed(&settings).unwrap(), RegionsRow { durability: region, ..row() });
        let settings = RegionSettings {
            unconfirmed: Some(Unconfirmed::Refuse),
            degrade_after_ms: Some(5_000),
            ..RegionSettings::default()
        };
        let changed = RegionsRow { unconfirmed: Unconfirmed::Refuse, degrade_after_ms: 5_000, ..row() };
        assert_eq!(row().changed(&settings).unwrap(), changed);
        let sync_set = |change| RegionSettings { sync_set: Some(change), ..RegionSettings::default() };
        let (add, remove) =
            (|| sync_set(SyncSetChange::Add(name("south"))), sync_set(SyncSetChange::Remove(name("south"))));
        let removed = RegionsRow { sync_set: BTreeSet::new(), ..row() };
        assert_eq!(row().changed(&remove).unwrap(), removed);
        assert_eq!(removed.clone().changed(&remove).unwrap(), removed);
        assert_eq!((removed.clone().changed(&add()).unwrap(), row().changed(&add()).unwrap()), (row(), row()));
        let refuses = RegionsRow { unconfirmed: Unconfirmed::Refuse, ..removed };
        assert!(refuses.changed(&add()).unwrap_err().contains("degrade first"));
        for (ms, fits) in [(999, false), (1_000, true), (7 * 24 * 3_600_000, true), (7 * 24 * 3_600_000 + 1, false)] {
            let settings = RegionSettings { degrade_after_ms: Some(ms), ..RegionSettings::default() };
            assert_eq!(row().changed(&settings).is_ok(), fits, "{ms}");
        }
        for (rpo_max_ms, fits) in [(49, false), (50, true), (24 * 3_600_000, true), (24 * 3_600_000 + 1, false)] {
            let durability = Some(Durability::Region { rpo_max_ms });
            let settings = RegionSettings { durability, ..RegionSettings::default() };
            assert_eq!(row().changed(&settings).is_ok(), fits, "{rpo_max_ms}");
        }
    }
}
