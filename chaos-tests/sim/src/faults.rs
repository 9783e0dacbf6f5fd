//! What is broken when: a schedule drawn from the seed before the run, so that parts of it can be left out.

use std::collections::BTreeSet;

use mailraft_checkers::Micros;
use mailraft_cluster::regions::{Durability, RegionSettings, Unconfirmed};
use mailraft_storage::NodeId;

use crate::dice::Dice;
use crate::setup::Setup;

/// Settings of regions change so often, in the mean.
const SETTINGS_EVERY: Micros = 6_000_000;
/// And so often in a run: the control group remembers more of them.
const SETTINGS_MAX: usize = 40;
const MS: Micros = 1_000;
const S: Micros = 1_000_000;

/// One kind of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies. Of the log's unsynced bytes so many survive.
    Crash {
        /// The node.
        node: NodeId,
        /// So many bytes of what was not synced survive.
        torn: usize,
    },
    /// The process dies after so many further outputs of its core, which may be in the middle of a step.
    CrashBetween {
        /// The node.
        node: NodeId,
        /// So many outputs.
        outputs: u64,
    },
    /// The process dies while the rows of a snapshot are being replaced.
    CrashAtInstall {
        /// The node.
        node: NodeId,
    },
    /// The process is told to stop: it hands its leads over, then ends.
    Stop {
        /// The node.
        node: NodeId,
    },
    /// These nodes and the others hear nothing of each other.
    Partition {
        /// One side.
        side: Vec<NodeId>,
    },
    /// One hears nothing from another.
    OneWay {
        /// Who is not heard.
        from: NodeId,
        /// By whom.
        to: NodeId,
    },
    /// Two halves hear of each other only through one node.
    Bridge {
        /// That node.
        bridge: NodeId,
        /// One half, without it.
        half: Vec<NodeId>,
    },
    /// A link breaks and heals all the time.
    Flapping {
        /// One end.
        a: NodeId,
        /// The other.
        b: NodeId,
    },
    /// Messages get lost.
    Loss {
        /// So many of a thousand.
        permille: u64,
    },
    /// Messages come twice.
    Twice {
        /// So many of a thousand.
        permille: u64,
    },
    /// Messages overtake each other.
    Overtaking {
        /// So many of a thousand.
        permille: u64,
    },
    /// Messages are late.
    Late {
        /// So much later in the mean, in microseconds.
        mean: Micros,
    },
    /// Every fsync, flush and read takes so many times as long.
    SlowDisk {
        /// The node.
        node: NodeId,
        /// So many times.
        factor: u64,
    },
    /// No fsync returns.
    StuckDisk {
        /// The node.
        node: NodeId,
    },
    /// The next fsync fails, and so the process ends.
    FsyncError {
        /// The node.
        node: NodeId,
        /// Bytes of the log that survive of what was not synced.
        torn: usize,
    },
    /// Nothing can be written: the process ends, and can't start.
    FullDisk {
        /// The node.
        node: NodeId,
    },
    /// A node's clock runs fast or slow.
    Drift {
        /// The node.
        node: NodeId,
        /// How much faster than the world, in millionths.
        ppm: i64,
    },
    /// The wall clock stands still while the boot clock goes on; then it is right again.
    ClockStops {
        /// The node.
        node: NodeId,
    },
    /// A node's wall clock jumps.
    Jump {
        /// The node.
        node: NodeId,
        /// By so many milliseconds.
        ms: i64,
    },
    /// A process stands still, and then goes on as if nothing was.
    Pause {
        /// The node.
        node: NodeId,
    },
    /// Everything on a node takes so many times as long.
    SlowNode {
        /// The node.
        node: NodeId,
        /// So many times.
        factor: u64,
    },
    /// Actors on a node panic.
    ActorPanic {
        /// The node.
        node: NodeId,
    },
    /// What the standbys on a node of the backup region hold is not what was applied, from now on: they tell other hashes
    /// than their home.
    RottenStandby {
        /// The node.
        node: NodeId,
    },
    /// An operator says at these nodes of the backup region that the home is off and theirs takes over.
    TakeOver {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// What tells his incarnation from another operator's.
        nonce: u8,
    },
    /// The same, by an operator who goes on with nothing that these nodes know of: he names a higher incarnation, whose number is
    /// the first node's.
    TakeOverAnew {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// What tells his incarnation from another operator's.
        nonce: u8,
    },
    /// An operator wants other settings of regions, until he hears that they are made.
    Settings {
        /// What is to change.
        settings: RegionSettings,
    },
    /// A replica of a partition moves to a node that has none.
    Move {
        /// The partition.
        partition: u32,
        /// It goes from here.
        from: NodeId,
        /// To here.
        to: NodeId,
    },
    /// Another member of a group votes in the place of one that does, where there is one that only learns; else that one
    /// learns for a while.
    Ballot {
        /// Which partition; 0 is the control group.
        partition: u32,
        /// Its replica here votes no more.
        from: NodeId,
        /// Its replica here votes.
        to: NodeId,
    },
    /// The process dies, and a bit of what its log had synced turns over: the node must notice at its start, and never
    /// comes back. Other nodes get its replicas. At most one in a run.
    CorruptLog {
        /// The node.
        node: NodeId,
        /// Where in the log, in thousandths of its length.
        permille: u64,
    },
    /// Some rows of one of a node's replicas can't be read any more. The node must notice when it meets them, and others
    /// must serve what they hold. At most one node's in a run, and not beside the rot of another one's log.
    CorruptRows {
        /// The node.
        node: NodeId,
        /// Which replica, and which of its rows.
        draw: u64,
        /// How many rows, one after the other.
        rows: usize,
    },
    /// A bit of the log's unsynced tail turns over while the node is down (a crash comes with it).
    TornBit {
        /// The node.
        node: NodeId,
        /// Bytes that survive, the last of them changed.
        torn: usize,
    },
}

impl Fault {
    /// Its kind, for people and figures.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Crash { .. } => "crash",
            Fault::CrashBetween { .. } => "crash between outputs",
            Fault::CrashAtInstall { .. } => "crash at install",
            Fault::Stop { .. } => "clean stop",
            Fault::Partition { .. } => "partition",
            Fault::OneWay { .. } => "one-way link",
            Fault::Bridge { .. } => "bridge",
            Fault::Flapping { .. } => "flapping link",
            Fault::Loss { .. } => "message loss",
            Fault::Twice { .. } => "message duplication",
            Fault::Overtaking { .. } => "message reordering",
            Fault::Late { .. } => "message delay",
            Fault::SlowDisk { .. } => "slow disk",
            Fault::StuckDisk { .. } => "stuck disk",
            Fault::FsyncError { .. } => "fsync error",
            Fault::FullDisk { .. } => "full disk",
            Fault::Drift { .. } => "clock drift",
            Fault::Jump { .. } => "clock jump",
            Fault::ClockStops { .. } => "clock stop",
            Fault::Pause { .. } => "pause",
            Fault::SlowNode { .. } => "slow node",
            Fault::ActorPanic { .. } => "actor panic",
            Fault::RottenStandby { .. } => "rotten standby",
            Fault::TakeOver { .. } => "takeover",
            Fault::TakeOverAnew { .. } => "takeover anew",
            Fault::Settings { .. } => "settings of regions",
            Fault::Move { .. } => "membership change",
            Fault::Ballot { .. } => "change of voters",
            Fault::CorruptLog { .. } => "corrupt log",
            Fault::CorruptRows { .. } => "corrupt rows",
            Fault::TornBit { .. } => "torn write",
        }
    }

    /// Whether the process ends by it; it is started again when the fault is over.
    pub fn takes_down(&self) -> Option<NodeId> {
        match self {
            Fault::Crash { node, .. }
            | Fault::CrashBetween { node, .. }
            | Fault::CrashAtInstall { node }
            | Fault::Stop { node }
            | Fault::FsyncError { node, .. }
            | Fault::FullDisk { node }
            | Fault::CorruptLog { node, .. }
            | Fault::TornBit { node, .. } => Some(*node),
            Fault::Partition { .. }
            | Fault::OneWay { .. }
            | Fault::Bridge { .. }
            | Fault::Flapping { .. }
            | Fault::Loss { .. }
            | Fault::Twice { .. }
            | Fault::Overtaking { .. }
            | Fault::Late { .. }
            | Fault::SlowDisk { .. }
            | Fault::StuckDisk { .. }
            | Fault::Drift { .. }
            | Fault::Jump { .. }
            | Fault::ClockStops { .. }
            | Fault::Pause { .. }
            | Fault::SlowNode { .. }
            | Fault::Move { .. }
            | Fault::Ballot { .. }
            | Fault::CorruptRows { .. }
            | Fault::RottenStandby { .. }
            | Fault::TakeOver { .. }
            | Fault::TakeOverAnew { .. }
            | Fault::Settings { .. }
            | Fault::ActorPanic { .. } => None,
        }
    }
}

/// A fault, from when to when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// It begins.
    pub from: Micros,
    /// It ends: nodes start again, links and disks work.
    pub to: Micros,
    /// What it is.
    pub fault: Fault,
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} s to {:.3} s: {:?}", self.from as f64 / 1e6, self.to as f64 / 1e6, self.fault)
    }
}

/// Disks corrupt what they hold in no more than so much at the end of the faults.
const CORRUPTS_LAST: Micros = 120 * S;

/// What faults are drawn for.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many nodes there are.
    pub nodes: u64,
    /// How many partitions beside the control group.
    pub partitions: u32,
    /// Of a thousand faults so many are changes of who votes.
    pub ballots_permille: u64,
    /// No more wall clocks than this jump or stand still together; a process stands still where one more would.
    pub clocks_wrong_max: u64,
}

/// Draws faults for the time between two moments, one every `every` in the mean.
pub fn draw(dice: &mut Dice, size: Size, from: Micros, to: Micros, every: Micros) -> Vec<Planned> {
    let Size { nodes, partitions, ballots_permille, clocks_wrong_max } = size;
    let mut plan = Vec::new();
    let mut at = from;
    loop {
        at += 1 + dice.exponential(every);
        if at >= to {
            return plan;
        }
        let mut fault = one(dice, nodes, partitions);
        if ballots_permille > 0 && dice.chance(ballots_permille) {
            let (a, b) = (dice.between(1, nodes), dice.between(1, nodes - 1));
            let other = 1 + (a - 1 + b) % nodes;
            // Every other one is the control group's.
            let partition = if dice.chance(500) { 0 } else { dice.between(1, u64::from(partitions)) as u32 };
            fault = Fault::Ballot { partition, from: NodeId(a), to: NodeId(other) };
        }
        if let Some(node) = makes_clock_wrong(&fault) {
            let wrong = plan.iter().filter(|p: &&Planned| p.to >= at).filter_map(|p| makes_clock_wrong(&p.fault));
            let wrong: BTreeSet<NodeId> = wrong.chain([node]).collect();
            if wrong.len() as u64 > clocks_wrong_max {
                fault = Fault::Pause { node };
            }
        }
        // What one node has damaged the others have whole, a log rots once, and few of a long run's days are to pass
        // with a node set aside.
        let mut before = plan.iter().filter_map(|p: &Planned| corrupts(&p.fault));
        if let Some((node, log)) = corrupts(&fault)
            && (at + CORRUPTS_LAST < to || before.any(|(other, other_log)| other != node || (log && other_log)))
        {
            fault = Fault::Crash { node, torn: 0 };
        }
        let lasts = match &fault {
            Fault::ActorPanic { .. } | Fault::Move { .. } | Fault::Ballot { .. } | Fault::CorruptRows { .. } => 1,
            Fault::Pause { .. } => dice.between(50 * MS, 3 * S),
            Fault::StuckDisk { .. } => dice.between(20 * MS, 4 * S),
            Fault::Stop { .. } => dice.between(600 * MS, 10 * S),
            _ if dice.chance(100) => dice.between(10 * S, 40 * S),
            _ => dice.between(50 * MS, 6 * S),
        };
        plan.push(Planned { from: at, to: (at + lasts).min(to), fault });
    }
}

/// Draws faults of a backup region and of the link to it, one every `region_fault_every` in the mean; none where there is
/// no such region.
pub fn draw_of_regions(setup: &Setup) -> Vec<Planned> {
    let (home, all) = (setup.nodes, setup.nodes + setup.standby_nodes);
    let mut plan = Vec::new();
    if home == all {
        return plan;
    }
    let mut dice = Dice::new(setup.seed, 5);
    let mut at = 2_000_000;
    let far: Vec<NodeId> = (home + 1..=all).map(NodeId).collect();
    loop {
        at += 1 + dice.exponential(setup.region_fault_every);
        if at >= setup.safety {
            return plan;
        }
        let node = NodeId(dice.between(home + 1, all));
        let near = NodeId(dice.between(1, home));
        let faults = match dice.below(14) {
            // The whole link, both ways or one.
            0..=3 => vec![Fault::Partition { side: far.clone() }],
            4 => one_way(1..=home, home + 1..=all),
            5 => one_way(home + 1..=all, 1..=home),
            6 => vec![Fault::Flapping { a: near, b: node }],
            7 => vec![Fault::Crash { node, torn: torn(&mut dice) }],
            8 => vec![Fault::CrashBetween { node, outputs: dice.between(1, 40) }],
            9 => vec![Fault::CrashAtInstall { node }],
            10 => vec![Fault::SlowDisk { node, factor: dice.between(2, 200) }],
            11 => vec![Fault::Pause { node }],
            // A whole region: it comes back with what it has.
            12 => far.iter().map(|node| Fault::Crash { node: *node, torn: torn(&mut dice) }).collect(),
            _ => (1..=home).map(|node| Fault::Crash { node: NodeId(node), torn: torn(&mut dice) }).collect(),
        };
        let lasts = if dice.chance(200) { dice.between(5 * S, 15 * S) } else { dice.between(50 * MS, 4 * S) };
        plan.extend(faults.into_iter().map(|fault| Planned { from: at, to: (at + lasts).min(setup.safety), fault }));
    }
}

/// Draws what an operator sets about regions, in half of the worlds that have several: whether the home goes on alone, and
/// when, and where answers run ahead, how far.
pub fn draw_of_settings(setup: &Setup) -> Vec<Planned> {
    let mut dice = Dice::new(setup.seed, 6);
    let mut plan = Vec::new();
    if setup.standby_nodes == 0 || dice.chance(500) {
        return plan;
    }
    let mut at = 2_000_000;
    loop {
        at += 1 + dice.exponential(SETTINGS_EVERY);
        if at >= setup.safety || plan.len() >= SETTINGS_MAX {
            return plan;
        }
        let mut settings = RegionSettings::default();
        if dice.chance(700) {
            settings.unconfirmed = dice.pick(&[Unconfirmed::Degrade, Unconfirmed::Refuse]).copied();
        }
        if dice.chance(500) {
            settings.degrade_after_ms = Some(dice.between(1_000, 6_000));
        }
        if setup.rpo_max.is_some() && dice.chance(300) {
            settings.durability = Some(Durability::Region { rpo_max_ms: dice.between(200, 2_000) });
        }
        plan.push(Planned { from: at, to: at + 1, fault: Fault::Settings { settings } });
        // Now and then another operator wants something at the same time.
        at = if dice.chance(200) { at } else { at + dice.between(1, 4 * S) };
    }
}

/// Nothing of what some say is heard by the others.
fn one_way(from: std::ops::RangeInclusive<u64>, to: std::ops::RangeInclusive<u64>) -> Vec<Fault> {
    let link = |from: u64, to: u64| Fault::OneWay { from: NodeId(from), to: NodeId(to) };
    from.flat_map(|from| to.clone().map(move |to| link(from, to))).collect()
}

/// Whose wall clock shows a wrong time by a fault.
fn makes_clock_wrong(fault: &Fault) -> Option<NodeId> {
    match fault {
        Fault::Jump { node, .. } | Fault::ClockStops { node } => Some(*node),
        _ => None,
    }
}

/// Whose disk rots by a fault, and whether it is the log.
fn corrupts(fault: &Fault) -> Option<(NodeId, bool)> {
    match fault {
        Fault::CorruptLog { node, .. } => Some((*node, true)),
        Fault::CorruptRows { node, .. } => Some((*node, false)),
        _ => None,
    }
}

fn one(dice: &mut Dice, nodes: u64, partitions: u32) -> Fault {
    let node = NodeId(dice.between(1, nodes));
    let other = NodeId(1 + (node.0 - 1 + dice.between(1, nodes - 1)) % nodes);
    let some = |dice: &mut Dice| -> Vec<NodeId> { (1..=nodes).map(NodeId).filter(|_| dice.chance(400)).collect() };
    match dice.below(31) {
        0..=2 => Fault::Crash { node, torn: torn(dice) },
        3..=4 => Fault::CrashBetween { node, outputs: dice.between(1, 40) },
        5 => Fault::CrashAtInstall { node },
        6 => Fault::Stop { node },
        7..=8 => Fault::Partition { side: some(dice) },
        9 => Fault::OneWay { from: node, to: other },
        10 => Fault::Bridge { bridge: node, half: some(dice).into_iter().filter(|n| *n != node).collect() },
        11 => Fault::Flapping { a: node, b: other },
        12 => Fault::Loss { permille: dice.between(10, 400) },
        13 => Fault::Twice { permille: dice.between(10, 500) },
        14 => Fault::Overtaking { permille: dice.between(10, 500) },
        15 => Fault::Late { mean: dice.between(MS, 200 * MS) },
        16 => Fault::SlowDisk { node, factor: dice.between(2, 200) },
        17 => Fault::StuckDisk { node },
        18 => Fault::FsyncError { node, torn: torn(dice) },
        19 => Fault::FullDisk { node },
        20 => match dice.between(0, 400_000) as i64 - 200_000 {
            -40_000..40_000 => Fault::ClockStops { node },
            ppm => Fault::Drift { node, ppm },
        },
        21 => Fault::Jump { node, ms: dice.between(0, 48 * 3_600_000) as i64 - 24 * 3_600_000 },
        22 => Fault::Pause { node },
        23 => Fault::SlowNode { node, factor: dice.between(2, 50) },
        24 => Fault::ActorPanic { node },
        27 => Fault::CorruptLog { node, permille: dice.below(900) },
        29..=30 => Fault::CorruptRows { node, draw: dice.below(1 << 32), rows: corrupt_rows(dice) },
        25..=26 => Fault::Move { partition: dice.between(1, u64::from(partitions)) as u32, from: node, to: other },
        _ => Fault::TornBit { node, torn: torn(dice).max(1) },
    }
}

/// Rows that turn bad together: one, those of a block, or all that follow.
fn corrupt_rows(dice: &mut Dice) -> usize {
    match dice.below(3) {
        0 => 1,
        1 => dice.between(2, 30) as usize,
        _ => 1 << 30,
    }
}

/// Bytes that survive of what was not synced: often none, often all.
fn torn(dice: &mut Dice) -> usize {
    match dice.below(3) {
        0 => 0,
        1 => 1 << 30,
        _ => dice.between(1, 4_000) as usize,
    }
}
